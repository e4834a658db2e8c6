/* The vocabulary: tokens by id and by text. */
#include <stdlib.h>
#include <string.h>

#include "text/text_private.h"

/* Ids may leave gaps, but not so many that a short file asks for a lot of memory. */
static int check_id(const struct moe_json *m, size_t count, const char *what, int64_t *id, struct moe_err *e)
{
	const char *name = moe_json_name(m);

	if (!moe_json_int(m, id) || *id < 0 || *id >= TEXT_MAX_ID)
		return moe_fail(e, MOE_E_INPUT, "%s: token '%.60s': id is not a whole number from 0 to %d", what, name,
		                TEXT_MAX_ID - 1);
	if ((size_t)*id > count * 4 + 65536)
		return moe_fail(e, MOE_E_INPUT, "%s: token '%.60s': id %lld in a vocabulary of %zu tokens", what, name,
		                (long long)*id, count);
	return 0;
}

static int measure(const struct moe_json *vocab, const char *what, size_t *bytes, int *n, struct moe_err *e)
{
	size_t count = moe_json_count(vocab);

	if (moe_json_type(vocab) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: model.vocab is not an object", what);
	if (count >= TEXT_MAX_ID)
		return moe_fail(e, MOE_E_RANGE, "%s: %zu tokens are too many", what, count);
	for (size_t i = 0; i < count; i++) {
		const struct moe_json *m = moe_json_at(vocab, i);
		int64_t id = 0;
		int rc = check_id(m, count, what, &id, e);

		if (rc)
			return rc;
		if (id >= *n)
			*n = (int)id + 1;
		*bytes += strlen(moe_json_name(m)) + 1;
	}
	return 0;
}

static int enter(const struct moe_json *vocab, const char *what, struct text_vocab *out, struct moe_err *e)
{
	char *at = out->strings;

	for (size_t i = 0; i < moe_json_count(vocab); i++) {
		const struct moe_json *m = moe_json_at(vocab, i);
		size_t len = strlen(moe_json_name(m));
		int64_t id = 0;
		uint64_t old;

		moe_json_int(m, &id);
		if (out->v[id].text)
			return moe_fail(e, MOE_E_INPUT, "%s: tokens '%.60s' and '%.60s' have the same id %d", what,
			                out->v[id].text, moe_json_name(m), (int)id);
		memcpy(at, moe_json_name(m), len + 1);
		out->v[id] = (struct text_token){at, (uint32_t)len, TOKEN_MODEL};
		if (moe_index_add(out->by_text, at, len, (uint64_t)id, &old) < 0)
			return moe_fail(e, MOE_E_NOMEM, "%s: no memory for the vocabulary", what);
		at += len + 1;
	}
	return 0;
}

int text_vocab_read(const struct moe_json *vocab, size_t added, const char *what, struct text_vocab *out,
                    struct moe_err *e)
{
	size_t bytes = 0, count = moe_json_count(vocab);
	int rc = measure(vocab, what, &bytes, &out->n, e);

	if (rc)
		return rc;
	if (added >= TEXT_MAX_ID || (size_t)out->n + added > TEXT_MAX_ID)
		return moe_fail(e, MOE_E_RANGE, "%s: %zu added tokens are too many", what, added);
	out->model = (int)count;
	out->room = out->n + (int)added;
	out->v = moe_calloc((size_t)out->room, sizeof *out->v, "vocabulary", e);
	out->strings = moe_calloc(bytes, 1, "vocabulary", e);
	out->by_text = moe_index_new(count + added, e);
	if (!out->v || !out->strings || !out->by_text)
		return MOE_E_NOMEM;
	return enter(vocab, what, out, e);
}

void text_vocab_free(struct text_vocab *v)
{
	free(v->v);
	free(v->strings);
	moe_index_free(v->by_text);
	*v = (struct text_vocab){0};
}

int text_vocab_id(const struct text_vocab *v, const char *text, size_t len)
{
	uint64_t id;

	return moe_index_get(v->by_text, text, len, &id) ? (int)id : -1;
}

int text_vocab_model_id(const struct text_vocab *v, const char *text, size_t len)
{
	int id = text_vocab_id(v, text, len);

	return id >= 0 && v->v[id].flags & TOKEN_MODEL ? id : -1;
}
