/* safetensors, read: a length, a JSON header, bytes.  huggingface.co/docs/safetensors */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/private.h"

static int read_shape(const struct moe_json *shape, struct moe_st_entry *t, const char *what, struct moe_err *e)
{
	size_t n = moe_json_count(shape);

	if (moe_json_type(shape) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "%s: tensor %s: \"shape\" is no list", what, t->name);
	if (n > MOE_MAX_DIMS)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: tensor %s has %zu dimensions, %d are supported", what, t->name, n,
		                MOE_MAX_DIMS);
	t->ndim = (int)n;
	for (size_t i = 0; i < n; i++)
		if (!moe_json_int(moe_json_at(shape, i), &t->shape[i]) || t->shape[i] < 0)
			return moe_fail(e, MOE_E_INPUT, "%s: tensor %s: \"shape\" holds something that is no size", what, t->name);
	return 0;
}

static int read_offsets(const struct moe_json *offsets, struct moe_st_entry *t, const char *what, struct moe_err *e)
{
	int64_t begin, end;

	if (moe_json_type(offsets) != MOE_JSON_ARRAY || moe_json_count(offsets) != 2 ||
	    !moe_json_int(moe_json_at(offsets, 0), &begin) || !moe_json_int(moe_json_at(offsets, 1), &end) || begin < 0 ||
	    end < begin)
		return moe_fail(e, MOE_E_INPUT, "%s: tensor %s: \"data_offsets\" are not a begin and an end", what, t->name);
	t->begin = (uint64_t)begin;
	t->end = (uint64_t)end;
	return 0;
}

bool moe_st_bytes(const struct moe_st_entry *t, uint64_t *out)
{
	uint64_t bytes = moe_dtype_size(t->dtype);

	/* A zero anywhere makes it empty, however large the rest. */
	for (int i = 0; i < t->ndim; i++)
		if (t->shape[i] == 0) {
			*out = 0;
			return true;
		}
	for (int i = 0; i < t->ndim; i++)
		if (__builtin_mul_overflow(bytes, (uint64_t)t->shape[i], &bytes))
			return false;
	*out = bytes;
	return true;
}

static int read_entry(const struct moe_json *member, struct moe_st_entry *t, const char *what, struct moe_err *e)
{
	const char *dtype = moe_json_str(moe_json_get(member, "dtype"), NULL);
	uint64_t bytes;
	int rc;

	t->name = moe_json_name(member);
	if (moe_json_type(member) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: tensor %s is described by no object", what, t->name);
	for (size_t i = 0; i < moe_json_count(member); i++) {
		const char *key = moe_json_name(moe_json_at(member, i));

		if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets"))
			return moe_fail(e, MOE_E_INPUT, "%s: tensor %s: key \"%s\" is not understood", what, t->name, key);
	}
	if (!dtype)
		return moe_fail(e, MOE_E_INPUT, "%s: tensor %s has no \"dtype\"", what, t->name);
	if (!moe_dtype_parse(dtype, &t->dtype))
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: tensor %s: dtype %s is not known", what, t->name, dtype);
	rc = read_shape(moe_json_get(member, "shape"), t, what, e);
	rc = rc ? rc : read_offsets(moe_json_get(member, "data_offsets"), t, what, e);
	if (rc)
		return rc;
	if (!moe_st_bytes(t, &bytes))
		return moe_fail(e, MOE_E_INPUT, "%s: tensor %s: its size overflows", what, t->name);
	if (bytes != t->end - t->begin)
		return moe_fail(e, MOE_E_INPUT, "%s: tensor %s: its shape needs %llu bytes, its offsets give %llu", what, t->name,
		                (unsigned long long)bytes, (unsigned long long)(t->end - t->begin));
	return 0;
}

static int check_metadata(const struct moe_json *m, const char *what, struct moe_err *e)
{
	if (moe_json_type(m) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: \"__metadata__\" is no object", what);
	for (size_t i = 0; i < moe_json_count(m); i++)
		if (moe_json_type(moe_json_at(m, i)) != MOE_JSON_STRING)
			return moe_fail(e, MOE_E_INPUT, "%s: \"__metadata__\": the value of \"%s\" is no string", what,
			                moe_json_name(moe_json_at(m, i)));
	return 0;
}

static int by_begin(const void *a, const void *b)
{
	const struct moe_st_entry *x = a, *y = b;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	if (x->end != y->end) /* the empty ones first */
		return x->end < y->end ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* Sorted entries must follow each other without a gap up to the end of the data. */
static int check_offsets(const struct moe_st_header *h, uint64_t data, const char *what, struct moe_err *e)
{
	uint64_t at = 0;

	for (size_t i = 0; i < h->n; i++) {
		const struct moe_st_entry *t = &h->v[i];

		if (t->begin != at)
			return moe_fail(e, MOE_E_INPUT, "%s: tensor %s: its data begin at %llu, %s %llu", what, t->name,
			                (unsigned long long)t->begin,
			                t->begin < at ? "inside another tensor that ends at" : "after a hole from",
			                (unsigned long long)at);
		at = t->end;
		if (at > data)
			return moe_fail(e, MOE_E_INPUT, "%s: tensor %s: its data end at %llu, past the file's end at %llu", what,
			                t->name, (unsigned long long)at, (unsigned long long)data);
	}
	if (at != data)
		return moe_fail(e, MOE_E_INPUT, "%s: %llu bytes after the last tensor", what, (unsigned long long)(data - at));
	return 0;
}

/* Length of the header, checked. */
static int header_length(const unsigned char *bytes, size_t avail, uint64_t file_size, const char *what, uint64_t *len,
                         struct moe_err *e)
{
	uint64_t n = 0;

	if (file_size < 8 || avail < 8)
		return moe_fail(e, MOE_E_INPUT, "%s: no safetensors file: %llu bytes are too short", what,
		                (unsigned long long)file_size);
	for (int i = 7; i >= 0; i--)
		n = n << 8 | bytes[i];
	if (n > MOE_SAFETENSORS_MAX_HEADER)
		return moe_fail(e, MOE_E_INPUT, "%s: no safetensors file: a header of %llu bytes is over the limit of %u", what,
		                (unsigned long long)n, MOE_SAFETENSORS_MAX_HEADER);
	if (n > file_size - 8 || n > avail - 8)
		return moe_fail(e, MOE_E_INPUT, "%s: header ends past the file", what);
	if (n == 0 || bytes[8] != '{')
		return moe_fail(e, MOE_E_INPUT, "%s: no safetensors file: the header does not begin with '{'", what);
	*len = n;
	return 0;
}

static int read_entries(struct moe_st_header *h, const char *what, struct moe_err *e)
{
	size_t members = moe_json_count(h->json);

	h->v = moe_calloc(members, sizeof *h->v, what, e);
	if (!h->v)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < members; i++) {
		const struct moe_json *member = moe_json_at(h->json, i);
		int rc;

		if (strcmp(moe_json_name(member), "__metadata__") == 0)
			rc = check_metadata(member, what, e);
		else
			rc = read_entry(member, &h->v[h->n++], what, e);
		if (rc)
			return rc;
	}
	if (h->n)
		qsort(h->v, h->n, sizeof *h->v, by_begin);
	return 0;
}

int moe_st_header_parse(const unsigned char *bytes, size_t avail, uint64_t file_size, const char *what,
                        struct moe_st_header *out, struct moe_err *e)
{
	struct moe_st_header h = {0};
	uint64_t len = 0;
	int rc = header_length(bytes, avail, file_size, what, &len, e);

	if (rc)
		return rc;
	h.data_start = 8 + len;
	rc = moe_json_parse((const char *)bytes + 8, (size_t)len, what, &h.json, e);
	rc = rc ? rc : read_entries(&h, what, e);
	rc = rc ? rc : check_offsets(&h, file_size - h.data_start, what, e);
	if (rc)
		moe_st_header_free(&h);
	else
		*out = h;
	return rc;
}

void moe_st_header_free(struct moe_st_header *h)
{
	free(h->v);
	moe_json_free(h->json);
	*h = (struct moe_st_header){0};
}

static int add_all(struct moe_tensors *s, const struct moe_map *m, const struct moe_st_header *h, struct moe_err *e)
{
	for (size_t i = 0; i < h->n; i++) {
		const struct moe_st_entry *x = &h->v[i];
		struct moe_tensor t = {.name = x->name, .dtype = x->dtype, .ndim = x->ndim, .map = m};
		int rc;

		memcpy(t.shape, x->shape, sizeof t.shape);
		t.data = m->data + h->data_start + x->begin;
		t.bytes = (size_t)(x->end - x->begin);
		rc = moe_tensors_add(s, &t, e);
		if (rc)
			return moe_fail_prefix(e, rc, "%s", m->path);
	}
	return 0;
}

int moe_st_open(struct moe_tensors *s, const char *path, struct moe_err *e)
{
	struct moe_st_header h;
	struct moe_map *m;
	int rc = moe_map_open(path, &m, e);

	if (rc)
		return rc;
	rc = moe_st_header_parse(m->data, m->size, m->size, path, &h, e);
	if (rc) {
		if (moe_map_check(m, NULL)) /* then that is why */
			rc = moe_map_check(m, e);
		moe_map_close(m);
		return rc;
	}
	rc = moe_tensors_own_map(s, m, e);
	if (rc)
		moe_map_close(m);
	else
		rc = add_all(s, m, &h, e);
	moe_st_header_free(&h);
	return rc;
}
