/* Added tokens: found in the text as they stand, before anything else looks at it, the leftmost first and of those
 * the longest.  Those marked `normalized` are looked for, in normalized form, in the normalized text. */
#include <stdlib.h>
#include <string.h>

#include "text/text_private.h"

#define MAX_TOKEN 1024        /* bytes; keeps the search linear */
#define MAX_TOKENS (4u << 20) /* bytes of all of them */

/* ---- reading ---- */

static int read_flags(const struct moe_json *v, struct text_added_token *t, const char *what, struct moe_err *e)
{
	int rc = moe_json_need_bool(v, "special", false, &t->special, what, e);

	t->normalized = !t->special;
	if (!rc)
		rc = moe_json_need_bool(v, "normalized", false, &t->normalized, what, e);
	if (!rc)
		rc = moe_json_need_bool(v, "single_word", false, &t->single_word, what, e);
	if (!rc)
		rc = moe_json_need_bool(v, "lstrip", false, &t->left, what, e);
	if (!rc)
		rc = moe_json_need_bool(v, "rstrip", false, &t->right, what, e);
	return rc;
}

/* What to look for: the content, through the normalizers when the token asks for it. */
static int find_pattern(const struct text_norms *norms, struct text_matcher *m, struct moe_buf buf[3],
                        struct text_added_token *t, const char *what, struct moe_err *e)
{
	struct text_piece p = {t->content, t->content_len, 0};
	int rc = t->normalized ? text_normalize(norms, m, buf, &p, e) : 0;

	if (rc)
		return rc;
	if (p.len == 0 || p.len > MAX_TOKEN)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: added token '%.60s' is %s", what, t->content,
		                p.len ? "too long" : "empty when normalized");
	t->pattern = moe_strndup(p.text, p.len, e);
	t->pattern_len = p.len;
	return t->pattern ? 0 : MOE_E_NOMEM;
}

/* Its id: the vocabulary's, else the next free one.  The file's own "id" says the same in files that the reference
 * wrote, and where it does not the reference goes by this rule too. */
static int enter(struct text_vocab *v, struct text_added_token *t, int *next, const char *what, struct moe_err *e)
{
	uint64_t old;

	t->id = text_vocab_id(v, t->content, t->content_len);
	if (t->id < 0) {
		t->id = (*next)++;
		if (v->v[t->id].text) /* the vocabulary has gaps below */
			return moe_fail(e, MOE_E_INPUT, "%s: added token '%.60s' would get id %d, which '%.60s' has", what,
			                t->content, t->id, v->v[t->id].text);
		if (moe_index_add(v->by_text, t->content, t->content_len, (uint64_t)t->id, &old) < 0)
			return moe_fail(e, MOE_E_NOMEM, "no memory for added tokens");
	}
	if (t->id >= v->n)
		v->n = t->id + 1;
	v->v[t->id].text = t->pattern;
	v->v[t->id].len = (uint32_t)t->pattern_len;
	v->v[t->id].flags |= TOKEN_ADDED | (t->special ? TOKEN_SPECIAL : 0u);
	return 0;
}

static void free_token(struct text_added_token *t)
{
	free(t->content);
	free(t->pattern);
	*t = (struct text_added_token){0};
}

static int read_token(const struct moe_json *v, struct text_added_token *t, const char *what, struct moe_err *e)
{
	const char *content = NULL;
	int64_t id = 0;
	int rc = moe_json_need_str(v, "content", true, &content, what, e);

	if (!rc)
		rc = moe_json_need_int(v, "id", false, 0, INT32_MAX, &id, what, e); /* see enter */
	if (!rc)
		rc = read_flags(v, t, what, e);
	if (rc)
		return rc;
	t->content = moe_strdup(content, e);
	t->content_len = strlen(content);
	return t->content ? 0 : MOE_E_NOMEM;
}

/* ---- the trie ---- */

static int plant(struct text_trie *trie, const struct text_added *a, size_t index, const char *what, struct moe_err *e)
{
	const struct text_added_token *t = &a->v[index];
	uint64_t node = 0;

	trie->first[(unsigned char)t->pattern[0]] = true;
	for (size_t i = 0; i < t->pattern_len; i++) {
		uint64_t edge = node << 8 | (unsigned char)t->pattern[i];

		if (!text_table_get(&trie->edges, edge, &node)) {
			node = trie->nodes++;
			text_table_set(&trie->edges, edge, node);
		}
	}
	if (trie->token[node] >= 0)
		return moe_fail(e, MOE_E_INPUT, "%s: added tokens '%.60s' and '%.60s' cannot be told apart", what,
		                a->v[trie->token[node]].content, t->content);
	trie->token[node] = (int32_t)index;
	return 0;
}

static int build_trie(const struct text_added *a, bool normalized, struct text_trie *trie, const char *what,
                      struct moe_err *e)
{
	size_t bytes = 0;
	int rc;

	for (size_t i = 0; i < a->n; i++)
		bytes += a->v[i].normalized == normalized ? a->v[i].pattern_len : 0;
	if (bytes > MAX_TOKENS)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: added tokens of %zu bytes in all are too much", what, bytes);
	rc = text_table_init(&trie->edges, bytes, "added tokens", e);
	if (rc)
		return rc;
	trie->token = moe_calloc(bytes + 1, sizeof *trie->token, "added tokens", e);
	if (!trie->token)
		return MOE_E_NOMEM;
	memset(trie->token, 0xff, (bytes + 1) * sizeof *trie->token);
	trie->nodes = 1;
	for (size_t i = 0; i < a->n && !rc; i++)
		if (a->v[i].normalized == normalized)
			rc = plant(trie, a, i, what, e);
	return rc;
}

static const struct text_added_token *longest(const struct text_added *a, const struct text_trie *trie,
                                              const char *text, size_t len)
{
	const struct text_added_token *best = NULL;
	uint64_t node = 0;

	for (size_t i = 0; i < len && text_table_get(&trie->edges, node << 8 | (unsigned char)text[i], &node); i++)
		if (trie->token[node] >= 0)
			best = &a->v[trie->token[node]];
	return best;
}

/* ---- reading, all of them ---- */

/* A token listed twice is one, with what was said last. */
static struct text_added_token *listed(struct text_added *a, const struct text_vocab *v,
                                       const struct text_added_token *t)
{
	int id = text_vocab_id(v, t->content, t->content_len);

	if (id < 0 || !(v->v[id].flags & TOKEN_ADDED))
		return NULL;
	for (size_t i = 0; i < a->n; i++)
		if (a->v[i].id == id)
			return &a->v[i];
	return NULL;
}

static int add_token(const struct moe_json *v, const struct text_norms *norms, struct text_matcher *m,
                     struct moe_buf buf[3], struct text_vocab *vocab, int *next, struct text_added *a,
                     const char *what, struct moe_err *e)
{
	struct text_added_token now = {0}, *t;
	int rc = read_token(v, &now, what, e);

	if (rc || now.content_len == 0) { /* an empty one is left out, as the reference does */
		free_token(&now);
		return rc;
	}
	t = listed(a, vocab, &now);
	if (t) { /* its content stays: the vocabulary points to it */
		free(now.content);
		free(t->pattern);
		now.content = t->content;
		*t = now;
	} else {
		t = &a->v[a->n++];
		*t = now;
	}
	rc = find_pattern(norms, m, buf, t, what, e);
	a->any_single = a->any_single || t->single_word;
	return rc ? rc : enter(vocab, t, next, what, e);
}

/* The reference asks whether the text that decoding starts from is the name of a special token. */
static void mark_skipped(const struct text_added *a, struct text_vocab *v)
{
	for (size_t i = 0; i < a->n; i++) {
		int id = text_vocab_id(v, a->v[i].pattern, a->v[i].pattern_len);

		if (id >= 0 && v->v[id].flags & TOKEN_SPECIAL)
			v->v[a->v[i].id].flags |= TOKEN_SKIP;
	}
}

int text_added_read(const struct moe_json *list, const struct text_norms *norms, struct text_vocab *v, const char *what,
                    struct text_added *a, struct moe_err *e)
{
	struct text_matcher m = {0};
	struct moe_buf buf[3] = {MOE_BUF_INIT, MOE_BUF_INIT, MOE_BUF_INIT};
	int next = v->model, rc;

	if (moe_json_type(list) != MOE_JSON_NULL && moe_json_type(list) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "%s: added_tokens is not an array", what);
	a->v = moe_calloc(moe_json_count(list), sizeof *a->v, "added tokens", e);
	rc = a->v ? text_matcher_init(&m, 0, e) : MOE_E_NOMEM;
	for (size_t i = 0; i < moe_json_count(list) && !rc; i++)
		rc = add_token(moe_json_at(list, i), norms, &m, buf, v, &next, a, what, e);
	text_matcher_free(&m);
	for (int i = 0; i < 3; i++)
		moe_buf_free(&buf[i]);
	if (!rc)
		rc = build_trie(a, false, &a->raw, what, e);
	if (!rc)
		rc = build_trie(a, true, &a->normalized, what, e);
	if (!rc && a->any_single) /* \w as Rust has it */
		rc = text_pattern_regex("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]", &a->word, what, e);
	if (!rc)
		mark_skipped(a, v);
	return rc;
}

static void free_trie(struct text_trie *t)
{
	text_table_free(&t->edges);
	free(t->token);
}

void text_added_free(struct text_added *a)
{
	for (size_t i = 0; i < a->n; i++)
		free_token(&a->v[i]);
	free(a->v);
	free_trie(&a->raw);
	free_trie(&a->normalized);
	text_pattern_free(&a->word);
}

/* ---- finding them ---- */

static int is_word(const struct text_added *a, struct text_matcher *m, const char *c, size_t len, bool *word,
                   struct moe_err *e)
{
	struct moe_buf young = MOE_BUF_INIT;
	struct text_scan s;
	size_t from, to;
	int rc = text_scan_start(&s, &a->word, m, c, len, &young, e);

	if (!rc)
		rc = text_scan_next(&s, word, &from, &to, e);
	moe_buf_free(&young);
	return rc;
}

/* Does text[from..to) stand alone, no word's characters beside it? */
static int stands_alone(const struct text_added *a, struct text_matcher *m, const char *text, size_t len, size_t from,
                        size_t to, bool *alone, struct moe_err *e)
{
	bool before = false, after = false;
	size_t n;
	int rc = 0;

	if (from > 0) {
		n = text_last(text, from);
		rc = is_word(a, m, text + from - n, n, &before, e);
	}
	if (!rc && to < len) {
		text_char(text + to, &n);
		rc = is_word(a, m, text + to, n, &after, e);
	}
	*alone = !before && !after;
	return rc;
}

/* Where the white space before text[at] starts, but not before `least`. */
static size_t space_before(const char *text, size_t at, size_t least)
{
	while (at > least) {
		size_t n = text_last(text, at), step;

		if (!text_is_space(text_char(text + at - n, &step)))
			break;
		at -= n;
	}
	return at > least ? at : least;
}

static size_t space_behind(const char *text, size_t at, size_t len)
{
	size_t n;

	while (at < len && text_is_space(text_char(text + at, &n)))
		at += n;
	return at;
}

struct cut {
	const struct text_added *a;
	struct text_matcher *m;
	const char *text;
	size_t len, done;
	int (*fn)(void *arg, const struct text_found *f, struct moe_err *e);
	void *arg;
};

/* A token stands at text[from..to): hand on what is before it, and it.  Where tokens take white space along, stretches
 * can overlap; what then happens is what the reference does. */
static int take(struct cut *c, const struct text_added_token *t, size_t from, size_t to, struct moe_err *e)
{
	bool alone = true;
	int rc = t->single_word ? stands_alone(c->a, c->m, c->text, c->len, from, to, &alone, e) : 0;

	if (rc || !alone)
		return rc;
	if (t->left)
		from = space_before(c->text, from, c->done);
	if (t->right)
		to = space_behind(c->text, to, c->len);
	if (c->done < from)
		rc = c->fn(c->arg, &(struct text_found){c->done, from, -1}, e);
	if (!rc && from < to)
		rc = c->fn(c->arg, &(struct text_found){from, to, t->id}, e);
	c->done = to;
	return rc;
}

int text_added_cut(const struct text_added *a, const struct text_trie *trie, struct text_matcher *m, const char *text,
                   size_t len, int (*fn)(void *arg, const struct text_found *f, struct moe_err *e), void *arg,
                   struct moe_err *e)
{
	struct cut c = {a, m, text, len, 0, fn, arg};
	int rc = 0;

	for (size_t i = 0; i < len && !rc;) {
		const struct text_added_token *t =
			trie->first[(unsigned char)text[i]] ? longest(a, trie, text + i, len - i) : NULL;

		if (!t) {
			i++;
			continue;
		}
		rc = take(&c, t, i, i + t->pattern_len, e);
		i += t->pattern_len;
	}
	if (!rc && c.done < len)
		rc = fn(arg, &(struct text_found){c.done, len, -1}, e);
	return rc;
}
