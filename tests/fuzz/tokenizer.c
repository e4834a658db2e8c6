/* A tokenizer.json, a zero byte, a text: whatever both are, ids are within the vocabulary, and what streams say is what
 * decoding says. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(int ok)
{
	if (!ok)
		abort();
}

static void check_stream(const struct moe_tokenizer *t, const struct moe_ids *ids)
{
	struct moe_buf whole = MOE_BUF_INIT, parts = MOE_BUF_INIT;
	struct moe_stream *s = NULL;
	struct moe_err e = MOE_ERR_INIT;
	int rc = moe_stream_new(t, &s, &e), decoded;

	demand(rc == 0);
	for (size_t i = 0; i < ids->n && !rc; i++)
		rc = moe_stream_push(s, ids->v[i], &parts, &e);
	if (!rc)
		rc = moe_stream_end(s, &parts, &e);
	decoded = moe_decode(t, ids->v, ids->n, true, &whole, &e);
	demand(rc == decoded);
	demand(rc || (whole.len == parts.len && (whole.len == 0 || memcmp(whole.data, parts.data, whole.len) == 0)));
	moe_stream_free(s);
	moe_buf_free(&whole);
	moe_buf_free(&parts);
}

static void check_text(const struct moe_tokenizer *t, const char *text, size_t len)
{
	struct moe_ids ids = MOE_IDS_INIT;
	struct moe_buf out = MOE_BUF_INIT;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_encode(t, text, len, len % 2 == 0, &ids, &e) == 0) {
		for (size_t i = 0; i < ids.n; i++)
			demand(ids.v[i] >= 0 && ids.v[i] < moe_tokenizer_size(t));
		check_stream(t, &ids);
	}
	/* Any ids, too. */
	for (size_t i = 0; i < ids.n; i++)
		ids.v[i] = (int32_t)((unsigned)ids.v[i] * 31 + (unsigned char)text[i % len]) % moe_tokenizer_size(t);
	check_stream(t, &ids);
	demand(moe_decode(t, &(int32_t){moe_tokenizer_size(t)}, 1, false, &out, &e) == MOE_E_RANGE);
	moe_ids_free(&ids);
	moe_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
	size_t json = zero ? (size_t)(zero - data) : size;
	struct moe_tokenizer *t = NULL;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_tokenizer_parse((const char *)data, json, "fuzz", &t, &e) != 0) {
		demand(t == NULL && e.msg[0]);
		return 0;
	}
	if (json + 1 < size)
		check_text(t, (const char *)data + json + 1, size - json - 1);
	moe_tokenizer_free(t);
	return 0;
}
