#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

#define MAX_STOPS 16
#define TOKEN_MAX 2147483647

static int read_id(const struct moe_json *j, uint64_t number, struct request *q, struct moe_err *e)
{
	const struct moe_json *id = moe_json_get(j, "id");
	enum moe_json_type t = moe_json_type(id);
	if (t == MOE_JSON_STRING || t == MOE_JSON_NUMBER) {
		struct moe_buf b = MOE_BUF_INIT;
		int rc = moe_json_print(id, &b, e);
		if (rc) {
			moe_buf_free(&b);
			return rc;
		}
		q->id = b.data;
		return 0;
	}
	q->id = moe_sprintf(e, "%llu", (unsigned long long)number);
	if (!q->id)
		return MOE_E_NOMEM;
	if (t != MOE_JSON_NULL)
		return moe_fail(e, MOE_E_INPUT, "id is %s, not a string or a number", moe_json_type_name(t));
	return 0;
}

static int read_tokens(const struct moe_json *v, struct request *q, struct moe_err *e)
{
	if (moe_json_type(v) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "tokens is %s, not an array", moe_json_type_name(moe_json_type(v)));
	size_t n = moe_json_count(v);
	q->tokens.v = moe_calloc(n, sizeof *q->tokens.v, "tokens", e);
	if (!q->tokens.v)
		return MOE_E_NOMEM;
	q->tokens.n = q->tokens.cap = n;
	for (size_t i = 0; i < n; i++) {
		int64_t id;
		if (!moe_json_int(moe_json_at(v, i), &id) || id < 0 || id > TOKEN_MAX)
			return moe_fail(e, MOE_E_INPUT, "tokens[%zu] is not a token id", i);
		q->tokens.v[i] = (int32_t)id;
	}
	return 0;
}

/* Exactly one of prompt, tokens and messages. */
static int read_prompt(const struct route *r, const struct moe_json *j, struct request *q, struct moe_err *e)
{
	const struct moe_json *prompt = moe_json_get(j, "prompt"), *tokens = moe_json_get(j, "tokens");
	if (moe_json_get(j, "messages"))
		return moe_fail(e, MOE_E_UNSUPPORTED, "messages need a chat template, which is not supported; give prompt or tokens");
	if (prompt && tokens)
		return moe_fail(e, MOE_E_INPUT, "prompt and tokens are both given; give one");
	if (tokens)
		return read_tokens(tokens, q, e);
	if (!prompt)
		return moe_fail(e, MOE_E_INPUT, "neither prompt nor tokens is given");
	const char *text = moe_json_str(prompt, NULL);
	if (!text)
		return moe_fail(e, MOE_E_INPUT, "prompt is %s, not a string", moe_json_type_name(moe_json_type(prompt)));
	if (!r->text)
		return moe_fail(e, MOE_E_UNSUPPORTED, "prompt needs a tokenizer and this checkpoint has none; give tokens");
	return moe_encode(r->text, text, strlen(text), true, &q->tokens, e);
}

static int add_stop(struct request *q, const char *s, struct moe_err *e)
{
	if (!s || !*s)
		return moe_fail(e, MOE_E_INPUT, "stop is not a string or an array of strings that are not empty");
	if (q->n_stop == MAX_STOPS)
		return moe_fail(e, MOE_E_INPUT, "more than %d stop strings", MAX_STOPS);
	if (!q->stop && !(q->stop = moe_calloc(MAX_STOPS, sizeof *q->stop, "stop strings", e)))
		return MOE_E_NOMEM;
	q->stop[q->n_stop] = moe_strdup(s, e);
	return q->stop[q->n_stop++] ? 0 : MOE_E_NOMEM;
}

static int read_stops(const struct route *r, const struct moe_json *v, struct request *q, struct moe_err *e)
{
	int rc = 0;
	if (moe_json_type(v) == MOE_JSON_NULL)
		for (int i = 0; i < r->defaults.stop.n && !rc; i++)
			rc = add_stop(q, r->defaults.stop.v[i], e);
	else if (moe_json_type(v) == MOE_JSON_ARRAY)
		for (size_t i = 0; i < moe_json_count(v) && !rc; i++)
			rc = add_stop(q, moe_json_str(moe_json_at(v, i), NULL), e);
	else
		rc = add_stop(q, moe_json_str(v, NULL), e);
	if (!rc && q->n_stop && !r->text)
		rc = moe_fail(e, MOE_E_UNSUPPORTED, "stop needs a tokenizer and this checkpoint has none");
	return rc;
}

/* The range keeps a double within float's and an int64 within int's. */
static int read_float(const struct moe_json *j, const char *key, double hi, float *out, struct moe_err *e)
{
	double v = (double)*out;
	int rc = moe_json_need_num(j, key, false, 0, hi, &v, "request", e);
	*out = (float)v;
	return rc;
}

static int read_int(const struct moe_json *j, const char *key, int64_t lo, int64_t hi, int *out, struct moe_err *e)
{
	int64_t v = *out;
	int rc = moe_json_need_int(j, key, false, lo, hi, &v, "request", e);
	*out = (int)v;
	return rc;
}

static int read_sampling(const struct moe_json *j, struct moe_sampling *s, struct moe_err *e)
{
	int64_t seed = (int64_t)s->seed;
	int rc = read_float(j, "temperature", 1e6, &s->temperature, e);
	rc = rc ? rc : read_float(j, "top_p", 1, &s->top_p, e);
	rc = rc ? rc : read_float(j, "min_p", 1, &s->min_p, e);
	rc = rc ? rc : read_int(j, "top_k", 0, TOKEN_MAX, &s->top_k, e);
	rc = rc ? rc : moe_json_need_int(j, "seed", false, 0, INT64_C(1) << 53, &seed, "request", e);
	s->seed = (uint64_t)seed;
	return rc;
}

static int read_all(const struct route *r, const struct moe_json *j, struct request *q, struct moe_err *e)
{
	q->sampling = r->defaults.sampling;
	q->max_tokens = r->defaults.max_tokens;
	q->ignore_eos = r->defaults.ignore_eos;
	q->logprobs = r->defaults.logprobs;
	q->score = r->defaults.score;
	int rc = read_prompt(r, j, q, e);
	rc = rc ? rc : read_sampling(j, &q->sampling, e);
	rc = rc ? rc : read_int(j, "max_tokens", 1, TOKEN_MAX, &q->max_tokens, e);
	rc = rc ? rc : read_int(j, "priority", -1000000, 1000000, &q->priority, e);
	rc = rc ? rc : moe_json_need_num(j, "timeout", false, 0, 1e9, &q->timeout, "request", e);
	rc = rc ? rc : moe_json_need_bool(j, "ignore_eos", false, &q->ignore_eos, "request", e);
	rc = rc ? rc : moe_json_need_bool(j, "logprobs", false, &q->logprobs, "request", e);
	return rc ? rc : read_stops(r, moe_json_get(j, "stop"), q, e);
}

int request_parse(const struct route *r, const char *line, size_t len, uint64_t number, struct request *q, struct moe_err *e)
{
	char what[48];
	struct moe_json *j = NULL;
	memset(q, 0, sizeof *q);
	snprintf(what, sizeof what, "line %llu", (unsigned long long)number);
	int rc = moe_json_parse(line, len, what, &j, e);
	if (rc) {
		read_id(NULL, number, q, NULL);
		return rc;
	}
	rc = read_id(j, number, q, e);
	if (!rc && moe_json_type(j) != MOE_JSON_OBJECT)
		rc = moe_fail(e, MOE_E_INPUT, "not an object");
	rc = rc ? rc : read_all(r, j, q, e);
	moe_json_free(j);
	return rc ? moe_fail_prefix(e, rc, "%s", what) : 0;
}

void request_free(struct request *q)
{
	free(q->id);
	free(q->tokens.v);
	for (int i = 0; i < q->n_stop; i++)
		free(q->stop[i]);
	free(q->stop);
	memset(q, 0, sizeof *q);
}
