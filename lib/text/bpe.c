/* Byte pair encoding: a word's characters, merged pair by pair, the merge that was learned first before all others,
 * the leftmost of equals first.  A heap holds the merges that are possible now, so a word of n characters takes
 * n log n steps, however long it is. */
#include <stdlib.h>
#include <string.h>

#include "text/text_private.h"

#define MARK "\xe2\x96\x81" /* U+2581, a space in SentencePiece's vocabularies */
#define MARK_LEN 3

/* ---- reading ---- */

static int read_chars(const struct text_vocab *v, struct text_bpe *b, struct moe_err *e)
{
	size_t others = 0;
	int rc;

	memset(b->low, 0xff, sizeof b->low);
	for (int pass = 0; pass < 2; pass++) {
		if (pass == 1 && (rc = text_table_init(&b->chars, others, "vocabulary", e)))
			return rc;
		for (int id = 0; id < v->n; id++) {
			size_t n;
			uint32_t c;

			if (!v->v[id].text || v->v[id].len == 0 || v->v[id].len > 4)
				continue;
			c = text_char(v->v[id].text, &n);
			if (n != v->v[id].len)
				continue;
			if (c < 512)
				b->low[c] = id;
			else if (pass == 0)
				others++;
			else
				text_table_set(&b->chars, c, (uint64_t)id);
		}
	}
	return 0;
}

static void read_bytes(const struct text_vocab *v, struct text_bpe *b)
{
	static const char hex[] = "0123456789ABCDEF";

	for (int i = 0; i < 256; i++) {
		const char name[] = {'<', '0', 'x', hex[i >> 4], hex[i & 15], '>'};

		b->byte[i] = text_vocab_model_id(v, name, sizeof name);
	}
}

/* The two halves of a merge: "a b", or ["a", "b"].  False when it is neither. */
static bool halves(const struct moe_json *m, const char *half[2], size_t len[2])
{
	const char *s = moe_json_str(m, NULL), *space;

	if (s) {
		space = strchr(s, ' ');
		if (!space || strchr(space + 1, ' '))
			return false;
		half[0] = s;
		len[0] = (size_t)(space - s);
		half[1] = space + 1;
		len[1] = strlen(space + 1);
		return true;
	}
	for (size_t k = 0; k < 2; k++) {
		half[k] = moe_json_str(moe_json_at(m, k), NULL);
		if (!half[k])
			return false;
		len[k] = strlen(half[k]);
	}
	return moe_json_type(m) == MOE_JSON_ARRAY && moe_json_count(m) == 2;
}

/* Where the first mark behind something else is; len when there is none. */
static size_t next_mark(const char *s, size_t len)
{
	size_t i = 0;
	const char *at;

	while (len - i >= MARK_LEN && memcmp(s + i, MARK, MARK_LEN) == 0)
		i += MARK_LEN;
	at = memmem(s + i, len - i, MARK, MARK_LEN);
	return at ? (size_t)(at - s) : len;
}

static int read_merge(const struct text_vocab *v, const struct moe_json *m, uint32_t rank, struct moe_buf *whole,
                      struct text_bpe *b, const char *what, struct moe_err *e)
{
	const char *half[2];
	size_t len[2];
	int left, right, merged;

	if (!halves(m, half, len))
		return moe_fail(e, MOE_E_INPUT, "%s: merge %u is not a pair of tokens", what, rank);
	whole->len = 0;
	if (moe_buf_add(whole, half[0], len[0], e) || moe_buf_add(whole, half[1], len[1], e))
		return MOE_E_NOMEM;
	left = text_vocab_model_id(v, half[0], len[0]);
	right = text_vocab_model_id(v, half[1], len[1]);
	merged = text_vocab_model_id(v, whole->data, whole->len);
	if (left < 0 || right < 0 || merged < 0)
		return moe_fail(e, MOE_E_INPUT, "%s: merge %u: token '%.*s' is not in the vocabulary", what, rank,
		                left < 0 ? (int)len[0] : right < 0 ? (int)len[1] : (int)whole->len,
		                left < 0 ? half[0] : right < 0 ? half[1] : whole->data);
	b->marks_lead = b->marks_lead && next_mark(whole->data, whole->len) == whole->len;
	text_table_set(&b->merges, (uint64_t)left << 32 | (uint64_t)right, (uint64_t)rank << 32 | (uint64_t)merged);
	return 0;
}

static int read_merges(const struct moe_json *list, const struct text_vocab *v, const char *what, struct text_bpe *b,
                       struct moe_err *e)
{
	struct moe_buf whole = MOE_BUF_INIT;
	size_t n = moe_json_count(list);
	uint32_t rank = 0;
	int rc;

	if (moe_json_type(list) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "%s: model.merges is not an array", what);
	if (n > 4u * TEXT_MAX_ID)
		return moe_fail(e, MOE_E_RANGE, "%s: %zu merges are too many", what, n);
	b->marks_lead = text_vocab_model_id(v, MARK, MARK_LEN) >= 0;
	rc = text_table_init(&b->merges, n, "merges", e);
	for (size_t i = 0; i < n && !rc; i++) {
		const struct moe_json *m = moe_json_at(list, i);

		if (strncmp(moe_json_str(m, ""), "#version", 8) == 0) /* the head line of a merges.txt */
			continue;
		rc = read_merge(v, m, rank++, &whole, b, what, e);
	}
	moe_buf_free(&whole);
	return rc;
}

/* What the model can have and we do not. */
static int check_model(const struct moe_json *model, const char *what, struct moe_err *e)
{
	static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
	const char *type = "BPE", *affix;
	double dropout = 0;
	int rc = moe_json_need_str(model, "type", false, &type, what, e);

	if (!rc && strcmp(type, "BPE") != 0)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: model %s is not supported", what, type);
	for (size_t i = 0; i < 2 && !rc; i++) {
		affix = "";
		rc = moe_json_need_str(model, affixes[i], false, &affix, what, e);
		if (!rc && *affix)
			return moe_fail(e, MOE_E_UNSUPPORTED, "%s: model.%s is not supported", what, affixes[i]);
	}
	if (!rc)
		rc = moe_json_need_num(model, "dropout", false, 0, 1, &dropout, what, e);
	if (!rc && dropout != 0)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: model.dropout is not supported", what);
	return rc;
}

int text_bpe_read(const struct moe_json *model, const struct text_vocab *v, const char *what, struct text_bpe *b,
                  struct moe_err *e)
{
	const char *unk = NULL;
	int rc = check_model(model, what, e);

	if (!rc)
		rc = moe_json_need_bool(model, "byte_fallback", false, &b->byte_fallback, what, e);
	if (!rc)
		rc = moe_json_need_bool(model, "fuse_unk", false, &b->fuse_unk, what, e);
	if (!rc)
		rc = moe_json_need_bool(model, "ignore_merges", false, &b->ignore_merges, what, e);
	if (!rc)
		rc = moe_json_need_str(model, "unk_token", false, &unk, what, e);
	if (!rc)
		rc = read_chars(v, b, e);
	if (!rc)
		rc = read_merges(moe_json_get(model, "merges"), v, what, b, e);
	read_bytes(v, b);
	if (rc || !unk)
		return rc;
	b->unk = text_vocab_model_id(v, unk, strlen(unk));
	b->unk_token = moe_strdup(unk, e);
	return b->unk_token ? 0 : MOE_E_NOMEM;
}

void text_bpe_free(struct text_bpe *b)
{
	text_table_free(&b->chars);
	text_table_free(&b->merges);
	free(b->unk_token);
}

/* ---- the word's characters ---- */

int text_ids_add(struct moe_ids *ids, int32_t id, struct moe_err *e)
{
	if (ids->n == ids->cap) {
		size_t cap = ids->cap ? ids->cap * 2 : 64;
		int32_t *v = moe_realloc(ids->v, cap, sizeof *v, "token ids", e);

		if (!v)
			return MOE_E_NOMEM;
		ids->v = v;
		ids->cap = cap;
	}
	ids->v[ids->n++] = id;
	return 0;
}

/* Room for one more element of `size` bytes in *v. */
static int grow(void *v, size_t n, size_t *cap, size_t size, struct moe_err *e)
{
	void **p = v, *more;

	if (n < *cap)
		return 0;
	more = moe_realloc(*p, *cap ? *cap * 2 : 64, size, "a long word", e);
	if (!more)
		return MOE_E_NOMEM;
	*p = more;
	*cap = *cap ? *cap * 2 : 64;
	return 0;
}

static int add_symbol(struct text_bpe_room *r, int32_t id, struct moe_err *e)
{
	int rc = grow(&r->symbol, r->n, &r->symbols, sizeof *r->symbol, e);

	if (!rc) {
		r->symbol[r->n] = (struct bpe_symbol){id, (int32_t)r->n - 1, (int32_t)r->n + 1};
		r->n++;
	}
	return rc;
}

static int char_id(const struct text_bpe *b, uint32_t c)
{
	uint64_t id;

	if (c < 512)
		return b->low[c];
	return text_table_get(&b->chars, c, &id) ? (int)id : -1;
}

/* The bytes of a character as tokens; *done when all of them are. */
static int add_bytes(const struct text_bpe *b, const char *c, size_t n, struct text_bpe_room *r, bool *done,
                     struct moe_err *e)
{
	int rc = 0;

	*done = b->byte_fallback;
	for (size_t i = 0; i < n; i++)
		*done = *done && b->byte[(unsigned char)c[i]] >= 0;
	for (size_t i = 0; i < n && *done && !rc; i++)
		rc = add_symbol(r, b->byte[(unsigned char)c[i]], e);
	return rc;
}

/* As the reference does it, an unknown character waits until a known one comes: a run of them can then become one
 * token, and bytes may overtake it. */
static int add_unknown(const struct text_bpe *b, bool *waiting, struct text_bpe_room *r, struct moe_err *e)
{
	int rc = 0;

	if (!b->unk_token)
		return 0;
	if (b->unk < 0)
		return moe_fail(e, MOE_E_INPUT, "unk_token '%.60s' of the tokenizer is not in its vocabulary", b->unk_token);
	if (*waiting && !b->fuse_unk)
		rc = add_symbol(r, b->unk, e);
	*waiting = true;
	return rc;
}

static int split_word(const struct text_bpe *b, const char *word, size_t len, struct text_bpe_room *r,
                      struct moe_err *e)
{
	bool waiting = false;
	int rc = 0;

	r->n = 0;
	for (size_t i = 0, n; i < len && !rc; i += n) {
		int id = char_id(b, text_char(word + i, &n));
		bool done = false;

		if (id >= 0) {
			if (waiting)
				rc = add_symbol(r, b->unk, e);
			waiting = false;
			rc = rc ? rc : add_symbol(r, id, e);
			continue;
		}
		rc = add_bytes(b, word + i, n, r, &done, e);
		if (!rc && !done)
			rc = add_unknown(b, &waiting, r, e);
	}
	if (!rc && waiting)
		rc = add_symbol(r, b->unk, e);
	if (!rc && r->n)
		r->symbol[r->n - 1].next = -1;
	return rc;
}

/* ---- merging ---- */

static void sink(struct bpe_merge *heap, size_t n, size_t i)
{
	struct bpe_merge m = heap[i];

	for (size_t child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && heap[child + 1].order < heap[child].order)
			child++;
		if (heap[child].order >= m.order)
			break;
		heap[i] = heap[child];
	}
	heap[i] = m;
}

static void rise(struct bpe_merge *heap, size_t i)
{
	struct bpe_merge m = heap[i];

	for (; i > 0 && heap[(i - 1) / 2].order > m.order; i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = m;
}

/* Put the pair that starts at `pos` at the heap's end, if it can merge; not yet in order. */
static int add_pair(const struct text_bpe *b, struct text_bpe_room *r, int32_t pos, bool *added, struct moe_err *e)
{
	const struct bpe_symbol *left = &r->symbol[pos];
	uint64_t merge;
	int rc;

	*added = left->next >= 0 &&
	         text_table_get(&b->merges, (uint64_t)left->id << 32 | (uint64_t)r->symbol[left->next].id, &merge);
	if (!*added)
		return 0;
	rc = grow(&r->heap, r->pending, &r->heaps, sizeof *r->heap, e);
	if (!rc)
		r->heap[r->pending++] =
			(struct bpe_merge){(merge >> 32) << 32 | (uint32_t)pos, (int32_t)(merge & 0xffffffff)};
	return rc;
}

static int push_pair(const struct text_bpe *b, struct text_bpe_room *r, int32_t pos, struct moe_err *e)
{
	bool added;
	int rc = pos < 0 ? 0 : add_pair(b, r, pos, &added, e);

	if (!rc && pos >= 0 && added)
		rise(r->heap, r->pending - 1);
	return rc;
}

/* Carry out a merge unless its pair has gone meanwhile. */
static int merge_one(const struct text_bpe *b, struct text_bpe_room *r, const struct bpe_merge *m, struct moe_err *e)
{
	int32_t pos = (int32_t)(m->order & 0xffffffff), next = r->symbol[pos].next;
	struct bpe_symbol *left = &r->symbol[pos], *right;
	uint64_t merge;
	int rc;

	if (left->id < 0 || next < 0)
		return 0;
	right = &r->symbol[next];
	if (!text_table_get(&b->merges, (uint64_t)left->id << 32 | (uint64_t)right->id, &merge) ||
	    (int32_t)(merge & 0xffffffff) != m->id)
		return 0;
	left->id = m->id;
	left->next = right->next;
	right->id = -1;
	if (left->next >= 0)
		r->symbol[left->next].prev = pos;
	rc = push_pair(b, r, left->prev, e);
	return rc ? rc : push_pair(b, r, pos, e);
}

static int merge_all(const struct text_bpe *b, struct text_bpe_room *r, struct moe_err *e)
{
	bool added;
	int rc = 0;

	r->pending = 0;
	for (size_t i = 0; i + 1 < r->n && !rc; i++)
		rc = add_pair(b, r, (int32_t)i, &added, e);
	for (size_t i = r->pending / 2; i-- > 0;)
		sink(r->heap, r->pending, i);
	while (r->pending && !rc) {
		struct bpe_merge top = r->heap[0];

		r->heap[0] = r->heap[--r->pending];
		if (r->pending)
			sink(r->heap, r->pending, 0);
		rc = merge_one(b, r, &top, e);
	}
	return rc;
}

/* A word without marks inside, or any word of a vocabulary whose merges reach across them. */
static int encode_part(const struct text_bpe *b, struct text_bpe_room *room, const char *part, size_t len,
                       struct moe_ids *out, struct moe_err *e)
{
	int rc = split_word(b, part, len, room, e);

	if (!rc)
		rc = merge_all(b, room, e);
	for (size_t i = 0; i < room->n && !rc; i++)
		if (room->symbol[i].id >= 0)
			rc = text_ids_add(out, room->symbol[i].id, e);
	return rc;
}

int text_bpe_word(const struct text_bpe *b, const struct text_vocab *v, struct text_bpe_room *room, const char *word,
                  size_t len, struct moe_ids *out, struct moe_err *e)
{
	int rc = 0, id = b->ignore_merges ? text_vocab_model_id(v, word, len) : -1;

	if (id >= 0)
		return text_ids_add(out, id, e);
	for (size_t from = 0, n; from < len && !rc; from += n) { /* whole texts come as one word; parts stay in the cache */
		n = b->marks_lead ? next_mark(word + from, len - from) : len;
		rc = encode_part(b, room, word + from, n, out, e);
	}
	return rc;
}

void text_bpe_room_free(struct text_bpe_room *r)
{
	free(r->symbol);
	free(r->heap);
	*r = (struct text_bpe_room){0};
}
