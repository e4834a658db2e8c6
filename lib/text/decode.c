/* Decoders: ids to text, a token at a time.
 *
 * The steps of the file form a chain.  Each passes on what it is certain of and holds the rest, so that what has come
 * out never needs to be taken back.  A step behind ByteLevel or Fuse is handed one token, in parts; one that must see
 * a token whole then waits for the end. */
#include <stdlib.h>
#include <string.h>

#include "text/text_private.h"

#define REPLACEMENT "\xef\xbf\xbd"

/* ---- reading ---- */

static int read_replace(const struct moe_json *v, struct text_dec *d, const char *what, struct moe_err *e)
{
	const char *content = NULL;
	int rc = moe_json_need_str(v, "content", true, &content, what, e);

	if (!rc)
		rc = text_pattern_read(moe_json_get(v, "pattern"), what, &d->pattern, e);
	if (rc)
		return rc;
	d->content = moe_strdup(content, e);
	d->content_len = strlen(content);
	return d->content ? 0 : MOE_E_NOMEM;
}

static int read_strip(const struct moe_json *v, struct text_dec *d, const char *what, struct moe_err *e)
{
	const char *c = NULL;
	int64_t start = 0, stop = 0;
	size_t n;
	int rc = moe_json_need_str(v, "content", true, &c, what, e);

	if (!rc)
		rc = moe_json_need_int(v, "start", true, 0, TEXT_MAX_INPUT, &start, what, e);
	if (!rc)
		rc = moe_json_need_int(v, "stop", true, 0, TEXT_MAX_INPUT, &stop, what, e);
	if (rc)
		return rc;
	if (!*c || (text_char(c, &n), c[n]))
		return moe_fail(e, MOE_E_INPUT, "%s: the content of Strip is not one character", what);
	memcpy(d->c, c, n);
	d->c_len = n;
	d->start = (size_t)start;
	d->stop = (size_t)stop;
	return 0;
}

static int read_metaspace(const struct moe_json *v, struct text_dec *d, const char *what, struct moe_err *e)
{
	enum text_prepend prepend = PREPEND_ALWAYS;
	bool split;
	int rc = text_read_metaspace(v, d->c, &prepend, &split, what, e);

	d->c_len = strlen(d->c);
	d->keep_first = prepend == PREPEND_NEVER;
	return rc;
}

static int read_one(const struct moe_json *v, const char *type, struct text_decs *d, const char *what,
                    struct moe_err *e)
{
	static const char *const names[] = {"ByteLevel", "ByteFallback", "Fuse", "Replace", "Strip", "Metaspace"};
	struct text_dec *s = &d->v[d->n];
	int kind = 0;

	while (kind < 6 && strcmp(type, names[kind]) != 0)
		kind++;
	if (kind == 6)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: decoder %s is not supported", what, type);
	if (d->n == TEXT_MAX_STEPS)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: more than %d decoders", what, TEXT_MAX_STEPS);
	s->kind = (enum dec_kind)kind;
	s->fused = d->n > 0 && (s[-1].fused || s[-1].kind == DEC_BYTES || s[-1].kind == DEC_FUSE);
	d->n++;
	if (s->kind == DEC_REPLACE)
		return read_replace(v, s, what, e);
	if (s->kind == DEC_STRIP)
		return read_strip(v, s, what, e);
	return s->kind == DEC_META ? read_metaspace(v, s, what, e) : 0;
}

static int read_steps(const struct moe_json *v, const char *what, struct text_decs *d, struct moe_err *e)
{
	const struct moe_json *list = moe_json_get(v, "decoders");
	const char *type = NULL;
	int rc;

	if (moe_json_type(v) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: a decoder is not an object", what);
	rc = moe_json_need_str(v, "type", true, &type, what, e);
	if (rc)
		return rc;
	if (strcmp(type, "Sequence") != 0)
		return read_one(v, type, d, what, e);
	if (moe_json_type(list) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "%s: a decoder Sequence without decoders", what);
	for (size_t i = 0; i < moe_json_count(list) && !rc; i++)
		rc = read_steps(moe_json_at(list, i), what, d, e);
	return rc;
}

int text_decs_read(const struct moe_json *v, const char *what, struct text_decs *d, struct moe_err *e)
{
	if (moe_json_type(v) != MOE_JSON_NULL)
		return read_steps(v, what, d, e);
	d->v[d->n++].kind = DEC_SPACES; /* no decoder: tokens with spaces between them */
	return 0;
}

void text_decs_free(struct text_decs *d)
{
	for (int i = 0; i < d->n; i++) {
		text_pattern_free(&d->v[i].pattern);
		free(d->v[i].content);
	}
	d->n = 0;
}

/* ---- running: a token, or a part of one, comes to a step ---- */

/* Where a decoding stands: `k` is the step that is handed something. */
static int step(struct text_decoding *d, int k, const char *text, size_t len, struct moe_buf *out, struct moe_err *e);

/* The bytes that the token stands for, or its own when it is not of the byte alphabet. */
static int add_token_bytes(const char *text, size_t len, struct moe_buf *to, struct moe_err *e)
{
	size_t before = to->len, n;
	int rc = 0;

	for (size_t i = 0; i < len && !rc; i += n) {
		int b = text_char_byte(text_char(text + i, &n));
		char byte = (char)b;

		if (b < 0) {
			to->len = before;
			return moe_buf_add(to, text, len, e);
		}
		rc = moe_buf_add(to, &byte, 1, e);
	}
	return rc;
}

/* Pass on the whole characters in `held`, U+FFFD for what can be none; at the end nothing stays. */
static int drain_bytes(struct text_decoding *d, int k, struct moe_buf *held, bool end, struct moe_buf *out,
                       struct moe_err *e)
{
	size_t i = 0, done = 0;
	int rc = 0;

	while (i < held->len && !rc) {
		int n = text_sequence(held->data + i, held->len - i);

		if (n == 0 && !end)
			break;
		if (n > 0) {
			i += (size_t)n;
			continue;
		}
		if (i > done)
			rc = step(d, k + 1, held->data + done, i - done, out, e);
		if (!rc)
			rc = step(d, k + 1, REPLACEMENT, 3, out, e);
		i = done = n == 0 ? held->len : i + (size_t)-n;
	}
	if (!rc && i > done)
		rc = step(d, k + 1, held->data + done, i - done, out, e);
	if (i)
		memmove(held->data, held->data + i, held->len - i);
	held->len -= i;
	return rc;
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* <0xHH> as a byte, else -1.  The reference's number parser also takes a plus sign. */
static int fallback_byte(const char *text, size_t len)
{
	int hi, lo;

	if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
		return -1;
	hi = text[3] == '+' ? 0 : hex(text[3]);
	lo = hex(text[4]);
	return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

static int put_replacements(struct text_decoding *d, int k, size_t n, struct moe_buf *out, struct moe_err *e)
{
	int rc = 0;

	while (n-- > 0 && !rc)
		rc = step(d, k + 1, REPLACEMENT, 3, out, e);
	return rc;
}

/* A run of bytes is text when all of it is, else a U+FFFD for every byte: known at the first byte that cannot be. */
static int take_byte(struct text_decoding *d, int k, char byte, struct moe_buf *out, struct moe_err *e)
{
	struct dec_state *s = &d->state[k];
	size_t n;
	int rc;

	if (s->bad)
		return put_replacements(d, k, 1, out, e);
	rc = moe_buf_add(&s->held, &byte, 1, e);
	while (!rc && s->count < s->held.len) {
		int got = text_sequence(s->held.data + s->count, s->held.len - s->count);

		if (got == 0)
			return 0;
		if (got > 0) {
			s->count += (size_t)got;
			continue;
		}
		n = s->held.len;
		s->held.len = s->count = 0;
		s->bad = true;
		return put_replacements(d, k, n, out, e);
	}
	return rc;
}

static int end_of_bytes(struct text_decoding *d, int k, struct moe_buf *out, struct moe_err *e)
{
	struct dec_state *s = &d->state[k];
	size_t n = s->held.len;
	bool whole = s->count == n;

	s->held.len = s->count = 0;
	s->bad = false;
	if (n == 0)
		return 0;
	return whole ? step(d, k + 1, s->held.data, n, out, e) : put_replacements(d, k, n, out, e);
}

static int fall_back(struct text_decoding *d, int k, const char *text, size_t len, struct moe_buf *out,
                     struct moe_err *e)
{
	int byte = fallback_byte(text, len), rc;

	if (byte >= 0)
		return take_byte(d, k, (char)byte, out, e);
	rc = end_of_bytes(d, k, out, e);
	return rc ? rc : step(d, k + 1, text, len, out, e);
}

/* The token with the pattern's matches replaced, into `to`. */
static int replace(struct text_decoding *d, const struct text_dec *dec, const char *text, size_t len,
                   struct moe_buf *to, struct moe_err *e)
{
	struct text_scan s;
	size_t done = 0, from, n, most = text_most(len);
	bool found;
	int rc;

	to->len = 0;
	if (len == 0)
		return 0;
	rc = text_scan_start(&s, &dec->pattern, &d->m, text, len, &d->young, e);
	while (!rc && !(rc = text_scan_next(&s, &found, &from, &n, e)) && found) {
		if (to->len > most)
			return moe_fail(e, MOE_E_RANGE, "a token grows past %zu bytes when it is decoded", most);
		rc = moe_buf_add(to, text + done, from - done, e);
		if (!rc)
			rc = moe_buf_add(to, dec->content, dec->content_len, e);
		done = n;
	}
	return rc ? rc : moe_buf_add(to, text + done, len - done, e);
}

static int run_replace(struct text_decoding *d, int k, const char *text, size_t len, struct moe_buf *to,
                       struct moe_buf *out, struct moe_err *e)
{
	int rc = replace(d, &d->t->decs.v[k], text, len, to, e);

	return rc ? rc : step(d, k + 1, to->data ? to->data : "", to->len, out, e);
}

static bool starts_with(const struct text_dec *dec, const char *text, size_t len)
{
	return len >= dec->c_len && memcmp(text, dec->c, dec->c_len) == 0;
}

static bool ends_with(const struct text_dec *dec, const char *text, size_t len)
{
	return len >= dec->c_len && memcmp(text + len - dec->c_len, dec->c, dec->c_len) == 0;
}

/* Bytes of text behind which at most `most` of the character follow. */
static size_t before_tail(const struct text_dec *dec, const char *text, size_t len, size_t most)
{
	for (size_t i = 0; i < most && ends_with(dec, text, len); i++)
		len -= dec->c_len;
	return len;
}

static int strip_token(struct text_decoding *d, int k, const char *text, size_t len, struct moe_buf *out,
                       struct moe_err *e)
{
	const struct text_dec *dec = &d->t->decs.v[k];

	for (size_t i = 0; i < dec->start && starts_with(dec, text, len); i++) {
		text += dec->c_len;
		len -= dec->c_len;
	}
	return step(d, k + 1, text, before_tail(dec, text, len, dec->stop), out, e);
}

/* A part of a token to be stripped: what may yet be its tail is held. */
static int strip_part(struct text_decoding *d, int k, const char *text, size_t len, struct moe_buf *out,
                      struct moe_err *e)
{
	const struct text_dec *dec = &d->t->decs.v[k];
	struct dec_state *s = &d->state[k];
	size_t certain;
	int rc;

	while (!s->begun && len) {
		if (s->count == dec->start || !starts_with(dec, text, len)) {
			s->begun = true;
			break;
		}
		s->count++;
		text += dec->c_len;
		len -= dec->c_len;
	}
	if (dec->stop == 0)
		return len ? step(d, k + 1, text, len, out, e) : 0;
	rc = moe_buf_add(&s->held, text, len, e);
	if (rc)
		return rc;
	certain = before_tail(dec, s->held.data, s->held.len, dec->stop);
	if (certain == 0)
		return 0;
	rc = step(d, k + 1, s->held.data, certain, out, e);
	memmove(s->held.data, s->held.data + certain, s->held.len - certain);
	s->held.len -= certain;
	return rc;
}

static int metaspace(struct text_decoding *d, int k, const char *text, size_t len, struct moe_buf *out,
                     struct moe_err *e)
{
	const struct text_dec *dec = &d->t->decs.v[k];
	struct dec_state *s = &d->state[k];
	bool drop = (dec->fused || !s->begun) && !dec->keep_first;
	size_t n;
	int rc = 0;

	s->begun = true;
	s->held.len = 0;
	for (size_t i = 0; i < len && !rc; i += n) {
		text_char(text + i, &n);
		if (!starts_with(dec, text + i, len - i))
			rc = moe_buf_add(&s->held, text + i, n, e);
		else if (!drop)
			rc = moe_buf_add(&s->held, " ", 1, e);
	}
	return rc ? rc : step(d, k + 1, s->held.data ? s->held.data : "", s->held.len, out, e);
}

static int with_space(struct text_decoding *d, int k, const char *text, size_t len, struct moe_buf *out,
                      struct moe_err *e)
{
	int rc = d->state[k].begun ? step(d, k + 1, " ", 1, out, e) : 0;

	d->state[k].begun = true;
	return rc ? rc : step(d, k + 1, text, len, out, e);
}

static int step(struct text_decoding *d, int k, const char *text, size_t len, struct moe_buf *out, struct moe_err *e)
{
	const struct text_dec *dec = &d->t->decs.v[k];
	struct moe_buf *held = &d->state[k].held;
	int rc;

	if (k == d->t->decs.n)
		return moe_buf_add(out, text, len, e);
	switch (dec->kind) {
	case DEC_BYTES:
		if (dec->fused)
			return moe_buf_add(held, text, len, e);
		rc = add_token_bytes(text, len, held, e);
		return rc ? rc : drain_bytes(d, k, held, false, out, e);
	case DEC_FALLBACK:
		return dec->fused ? moe_buf_add(held, text, len, e) : fall_back(d, k, text, len, out, e);
	case DEC_REPLACE:
		return dec->fused ? moe_buf_add(held, text, len, e) : run_replace(d, k, text, len, held, out, e);
	case DEC_STRIP:
		return dec->fused ? strip_part(d, k, text, len, out, e) : strip_token(d, k, text, len, out, e);
	case DEC_META:
		return metaspace(d, k, text, len, out, e);
	case DEC_SPACES:
		return with_space(d, k, text, len, out, e);
	case DEC_FUSE:
		break;
	}
	return step(d, k + 1, text, len, out, e);
}

/* The end has come to step k, which waited for it with a whole token. */
static int end_fused(struct text_decoding *d, int k, struct moe_buf *out, struct moe_err *e)
{
	struct moe_buf whole = d->state[k].held, work = MOE_BUF_INIT;
	const char *text = whole.data ? whole.data : "";
	int rc = 0;

	d->state[k].held = (struct moe_buf)MOE_BUF_INIT;
	if (d->t->decs.v[k].kind == DEC_REPLACE) {
		rc = run_replace(d, k, text, whole.len, &work, out, e);
	} else if (d->t->decs.v[k].kind == DEC_BYTES) {
		rc = add_token_bytes(text, whole.len, &work, e);
		rc = rc ? rc : drain_bytes(d, k, &work, true, out, e);
	} else {
		rc = fall_back(d, k, text, whole.len, out, e);
		rc = rc ? rc : end_of_bytes(d, k, out, e);
	}
	moe_buf_free(&whole);
	moe_buf_free(&work);
	return rc;
}

static int end_step(struct text_decoding *d, int k, struct moe_buf *out, struct moe_err *e)
{
	const struct text_dec *dec = &d->t->decs.v[k];
	bool waited = dec->kind == DEC_BYTES || dec->kind == DEC_FALLBACK || dec->kind == DEC_REPLACE;

	if (dec->fused && waited)
		return end_fused(d, k, out, e);
	if (dec->kind == DEC_BYTES)
		return drain_bytes(d, k, &d->state[k].held, true, out, e);
	return dec->kind == DEC_FALLBACK ? end_of_bytes(d, k, out, e) : 0;
}

/* ---- the whole ---- */

int text_decoding_start(struct text_decoding *d, const struct moe_tokenizer *t, bool skip_special, struct moe_err *e)
{
	*d = (struct text_decoding){.t = t, .skip_special = skip_special};
	for (int k = 0; k < t->decs.n; k++)
		if (t->decs.v[k].pattern.kind == PATTERN_REGEX && t->decs.v[k].pattern.re)
			return text_matcher_init(&d->m, 0, e);
	return 0;
}

int text_decoding_push(struct text_decoding *d, int32_t id, struct moe_buf *out, struct moe_err *e)
{
	const struct text_vocab *v = &d->t->vocab;

	if (id < 0 || id >= v->n)
		return moe_fail(e, MOE_E_RANGE, "token id %d is outside the vocabulary of %d", id, v->n);
	if (!v->v[id].text || (d->skip_special && v->v[id].flags & TOKEN_SKIP))
		return 0;
	return step(d, 0, v->v[id].text, v->v[id].len, out, e);
}

int text_decoding_end(struct text_decoding *d, struct moe_buf *out, struct moe_err *e)
{
	int rc = 0;

	for (int k = 0; k < d->t->decs.n && !rc; k++)
		rc = end_step(d, k, out, e);
	return rc;
}

void text_decoding_free(struct text_decoding *d)
{
	for (int k = 0; k < TEXT_MAX_STEPS; k++)
		moe_buf_free(&d->state[k].held);
	moe_buf_free(&d->young);
	text_matcher_free(&d->m);
}
