/* Decoding at one go and as ids come: the same machine, so both give the same text. */
#include <stdlib.h>

#include "text/text_private.h"

struct moe_stream {
	struct text_decoding d;
};

int moe_decode(const struct moe_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct moe_buf *out,
               struct moe_err *e)
{
	struct text_decoding d;
	int rc = text_decoding_start(&d, t, skip_special, e);

	for (size_t i = 0; i < n && !rc; i++)
		rc = text_decoding_push(&d, ids[i], out, e);
	if (!rc)
		rc = text_decoding_end(&d, out, e);
	text_decoding_free(&d);
	return rc;
}

int moe_stream_new(const struct moe_tokenizer *t, struct moe_stream **out, struct moe_err *e)
{
	struct moe_stream *s = moe_calloc(1, sizeof *s, "a text stream", e);
	int rc = s ? text_decoding_start(&s->d, t, true, e) : MOE_E_NOMEM;

	if (rc) {
		moe_stream_free(s);
		return rc;
	}
	*out = s;
	return 0;
}

int moe_stream_push(struct moe_stream *s, int32_t id, struct moe_buf *out, struct moe_err *e)
{
	return text_decoding_push(&s->d, id, out, e);
}

int moe_stream_end(struct moe_stream *s, struct moe_buf *out, struct moe_err *e)
{
	return text_decoding_end(&s->d, out, e);
}

void moe_stream_free(struct moe_stream *s)
{
	if (!s)
		return;
	text_decoding_free(&s->d);
	free(s);
}
