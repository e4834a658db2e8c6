/* The text of a request, as it becomes certain, up to its first stop string. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/engine.h"

struct moe_text_out {
	struct moe_stream *stream;
	char **stop;                 /* [n_stop] */
	size_t *stop_len;
	int n_stop;
	struct moe_buf held;         /* may be the beginning of a stop string */
	bool stopped;
};

static int copy_stops(struct moe_text_out *o, const char *const *stop, int n_stop, struct moe_err *e)
{
	o->stop = moe_calloc((size_t)n_stop, sizeof *o->stop, "stop strings", e);
	o->stop_len = moe_calloc((size_t)n_stop, sizeof *o->stop_len, "stop strings", e);
	if (!o->stop || !o->stop_len)
		return MOE_E_NOMEM;
	for (int i = 0; i < n_stop; i++) {
		if (!stop[i] || !*stop[i])
			return moe_fail(e, MOE_E_INPUT, "stop string %d is empty", i + 1);
		o->stop[i] = moe_strdup(stop[i], e);
		if (!o->stop[i])
			return MOE_E_NOMEM;
		o->stop_len[i] = strlen(stop[i]);
		o->n_stop++;
	}
	return 0;
}

int moe_text_out_new(const struct moe_tokenizer *t, const char *const *stop, int n_stop, struct moe_text_out **out,
                     struct moe_err *e)
{
	struct moe_text_out *o = moe_calloc(1, sizeof *o, "a request's text", e);
	int rc;

	if (!o)
		return MOE_E_NOMEM;
	rc = moe_stream_new(t, &o->stream, e);
	if (rc == 0)
		rc = copy_stops(o, stop, n_stop, e);
	if (rc != 0) {
		moe_text_out_free(o);
		return rc;
	}
	*out = o;
	return 0;
}

void moe_text_out_free(struct moe_text_out *o)
{
	if (!o)
		return;
	for (int i = 0; i < o->n_stop; i++)
		free(o->stop[i]);
	free(o->stop);
	free(o->stop_len);
	moe_stream_free(o->stream);
	moe_buf_free(&o->held);
	free(o);
}

/* Length of the longest stop string that ends at held[end], 0 if none. */
static size_t stop_ending_at(const struct moe_text_out *o, size_t end)
{
	size_t longest = 0;

	for (int i = 0; i < o->n_stop; i++) {
		size_t len = o->stop_len[i];

		if (len <= end && len > longest && memcmp(o->held.data + end - len, o->stop[i], len) == 0)
			longest = len;
	}
	return longest;
}

/* How many of the last bytes held may begin a stop string. */
static size_t begun(const struct moe_text_out *o)
{
	size_t longest = 0;

	for (int i = 0; i < o->n_stop; i++) {
		size_t n = o->stop_len[i] - 1;

		if (n > o->held.len)
			n = o->held.len;
		for (; n > longest; n--)
			if (memcmp(o->held.data + o->held.len - n, o->stop[i], n) == 0)
				longest = n;
	}
	return longest;
}

/* Look at what came after the first `seen` bytes held; hand out what is certain.  The end of a stop string is looked
 * for byte by byte, as if each had come alone. */
static int release(struct moe_text_out *o, size_t seen, bool last, struct moe_buf *out, struct moe_err *e)
{
	size_t certain, stop = 0;

	for (size_t end = seen + 1; end <= o->held.len && stop == 0; end++) {
		stop = stop_ending_at(o, end);
		if (stop > 0) {
			o->stopped = true;
			o->held.len = end - stop;
		}
	}
	certain = o->held.len - (o->stopped || last ? 0 : begun(o));
	if (certain == 0)
		return 0;
	if (moe_buf_add(out, o->held.data, certain, e) != 0)
		return MOE_E_NOMEM;
	memmove(o->held.data, o->held.data + certain, o->held.len - certain);
	o->held.len -= certain;
	return 0;
}

int moe_text_out_push(struct moe_text_out *o, int32_t token, struct moe_buf *out, bool *stopped, struct moe_err *e)
{
	size_t seen = o->held.len;
	int rc = 0;

	if (!o->stopped)
		rc = moe_stream_push(o->stream, token, &o->held, e);
	if (rc == 0 && !o->stopped)
		rc = release(o, seen, false, out, e);
	*stopped = o->stopped;
	return rc;
}

int moe_text_out_end(struct moe_text_out *o, struct moe_buf *out, bool *stopped, struct moe_err *e)
{
	size_t seen = o->held.len;
	int rc = 0;

	if (!o->stopped)
		rc = moe_stream_end(o->stream, &o->held, e);
	if (rc == 0 && !o->stopped)
		rc = release(o, seen, true, out, e);
	*stopped = o->stopped;
	return rc;
}
