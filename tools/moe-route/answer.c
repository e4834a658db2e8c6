#include "answer.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int answer_add(struct answer *a, int32_t token, float logprob, struct moe_err *e)
{
	if (a->n == a->cap) {
		size_t cap = a->cap ? 2 * a->cap : 64;
		int32_t *t = moe_realloc(a->tokens, cap, sizeof *t, "an answer", e);
		if (!t)
			return MOE_E_NOMEM;
		a->tokens = t;
		float *l = moe_realloc(a->logprobs, cap, sizeof *l, "an answer", e);
		if (!l)
			return MOE_E_NOMEM;
		a->logprobs = l;
		a->cap = cap;
	}
	a->tokens[a->n] = token;
	a->logprobs[a->n++] = logprob;
	return 0;
}

void answer_free(struct answer *a)
{
	moe_buf_free(&a->text);
	free(a->tokens);
	free(a->logprobs);
	memset(a, 0, sizeof *a);
}

/* {"id": <as it came>. The id is JSON text already, so the line is begun by hand. */
static char *finish_line(struct moe_jw *w, const char *id, size_t *len)
{
	size_t body_len;
	char *body = moe_jw_done(w, &body_len, NULL);
	struct moe_buf b = MOE_BUF_INIT;
	int rc = !body || moe_buf_printf(&b, NULL, "{\"id\":%s,", id) || moe_buf_add(&b, body + 1, body_len - 1, NULL) ||
	         moe_buf_add(&b, "\n", 1, NULL);
	free(body);
	if (rc) {
		moe_buf_free(&b);
		return NULL;
	}
	*len = b.len;
	return b.data;
}

static void put_tokens(struct moe_jw *w, const char *key, const struct answer *a)
{
	moe_jw_key(w, key);
	moe_jw_arr(w);
	for (size_t i = 0; i < a->n; i++)
		moe_jw_int(w, a->tokens[i]);
	moe_jw_arr_end(w);
}

static void put_logprobs(struct moe_jw *w, const struct answer *a, size_t n)
{
	moe_jw_key(w, "logprobs");
	moe_jw_arr(w);
	for (size_t i = 0; i < n; i++)
		moe_jw_float(w, a->logprobs[i]);
	moe_jw_arr_end(w);
}

static void put_degraded(struct moe_jw *w, bool degraded)
{
	if (!degraded)
		return;
	moe_jw_key(w, "degraded");
	moe_jw_bool(w, true);
}

static void put_error(struct moe_jw *w, const struct moe_err *err)
{
	moe_jw_key(w, "error");
	moe_jw_obj(w);
	moe_jw_key(w, "code");
	moe_jw_str(w, moe_code_name(err->code));
	moe_jw_key(w, "message");
	moe_jw_str(w, err->msg);
	moe_jw_end(w);
}

char *answer_line(const struct answer *a, const char *id, bool logprobs, bool has_text, const struct moe_event *done, size_t *len)
{
	struct moe_jw w;
	moe_jw_init(&w, false);
	moe_jw_obj(&w);
	moe_jw_key(&w, "text");
	if (has_text)
		moe_jw_strn(&w, a->text.data ? a->text.data : "", a->text.len);
	else
		moe_jw_null(&w);
	put_tokens(&w, "tokens", a);
	moe_jw_key(&w, "finish_reason");
	moe_jw_str(&w, moe_finish_name(done->finish));
	moe_jw_key(&w, "usage");
	moe_jw_obj(&w);
	moe_jw_key(&w, "prompt_tokens");
	moe_jw_int(&w, done->prompt_tokens);
	moe_jw_key(&w, "completion_tokens");
	moe_jw_int(&w, done->completion_tokens);
	moe_jw_end(&w);
	if (logprobs)
		put_logprobs(&w, a, a->n);
	put_degraded(&w, done->degraded);
	if (done->finish == MOE_FINISH_ERROR)
		put_error(&w, done->err);
	moe_jw_end(&w);
	return finish_line(&w, id, len);
}

char *answer_score_line(const struct answer *a, const char *id, bool degraded, size_t *len)
{
	struct moe_jw w;
	moe_jw_init(&w, false);
	moe_jw_obj(&w);
	put_logprobs(&w, a, a->n ? a->n - 1 : 0);
	put_tokens(&w, "argmax", a);
	put_degraded(&w, degraded);
	moe_jw_end(&w);
	return finish_line(&w, id, len);
}

char *answer_error_line(const char *id, const struct moe_err *err, size_t *len)
{
	struct moe_jw w;
	moe_jw_init(&w, false);
	moe_jw_obj(&w);
	moe_jw_key(&w, "finish_reason");
	moe_jw_str(&w, "error");
	put_error(&w, err);
	moe_jw_end(&w);
	return finish_line(&w, id, len);
}
