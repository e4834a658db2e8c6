/* safetensors, written: where everything goes, and the header that says so. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/private.h"

static int lay_out(struct moe_st_entry *v, size_t n, struct moe_err *e)
{
	uint64_t at = 0, bytes;

	for (size_t i = 0; i < n; i++) {
		/* 2^53: the largest offset that every reader of JSON keeps exact. */
		if (!moe_st_bytes(&v[i], &bytes) || bytes > ((uint64_t)1 << 53) - at)
			return moe_fail(e, MOE_E_RANGE, "tensor %s: its size overflows", v[i].name);
		v[i].begin = at;
		at += bytes;
		v[i].end = at;
	}
	return 0;
}

static void write_entry(struct moe_jw *w, const struct moe_st_entry *t)
{
	moe_jw_key(w, t->name);
	moe_jw_obj(w);
	moe_jw_key(w, "dtype");
	moe_jw_str(w, moe_dtype_name(t->dtype));
	moe_jw_key(w, "shape");
	moe_jw_arr(w);
	for (int i = 0; i < t->ndim; i++)
		moe_jw_int(w, t->shape[i]);
	moe_jw_arr_end(w);
	moe_jw_key(w, "data_offsets");
	moe_jw_arr(w);
	moe_jw_int(w, (int64_t)t->begin);
	moe_jw_int(w, (int64_t)t->end);
	moe_jw_arr_end(w);
	moe_jw_end(w);
}

static void write_metadata(struct moe_jw *w, const char *const *pairs)
{
	moe_jw_key(w, "__metadata__");
	moe_jw_obj(w);
	for (; pairs[0]; pairs += 2) {
		moe_jw_key(w, pairs[0]);
		moe_jw_str(w, pairs[1]);
	}
	moe_jw_end(w);
}

/* The length, the text, spaces up to the next multiple of align. */
static int assemble(const char *json, size_t json_len, size_t align, unsigned char **header, size_t *len, struct moe_err *e)
{
	size_t total = (8 + json_len + align - 1) / align * align;
	uint64_t text = total - 8;
	unsigned char *h;

	if (text > MOE_SAFETENSORS_MAX_HEADER)
		return moe_fail(e, MOE_E_RANGE, "a safetensors header of %llu bytes is over the limit of %u",
		                (unsigned long long)text, MOE_SAFETENSORS_MAX_HEADER);
	h = moe_calloc(1, total, "safetensors header", e);
	if (!h)
		return MOE_E_NOMEM;
	for (int i = 0; i < 8; i++)
		h[i] = (unsigned char)(text >> (8 * i));
	memcpy(h + 8, json, json_len);
	memset(h + 8 + json_len, ' ', total - 8 - json_len);
	*header = h;
	*len = total;
	return 0;
}

int moe_st_header_make(struct moe_st_entry *v, size_t n, const char *const *metadata, size_t align,
                       unsigned char **header, size_t *len, struct moe_err *e)
{
	struct moe_jw w;
	char *json;
	size_t json_len;
	int rc = lay_out(v, n, e);

	if (rc)
		return rc;
	moe_jw_init(&w, false);
	moe_jw_obj(&w);
	if (metadata)
		write_metadata(&w, metadata);
	for (size_t i = 0; i < n; i++)
		write_entry(&w, &v[i]);
	moe_jw_end(&w);
	json = moe_jw_done(&w, &json_len, e);
	if (!json)
		return MOE_E_NOMEM;
	rc = assemble(json, json_len, align < 8 ? 8 : align, header, len, e);
	free(json);
	return rc;
}
