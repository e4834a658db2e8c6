/* Pre-tokenizers: text into words, which are then encoded one by one.
 *
 * The steps of the file are taken apart into stages of four kinds; each hands what it makes straight to the next, so
 * a text costs no lists of pieces. */
#include <string.h>

#include "text/text_private.h"

/* ---- reading ---- */

static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static struct text_pre *new_stage(struct text_pres *p, enum pre_kind kind, const char *what, struct moe_err *e)
{
	if (p->n == TEXT_MAX_STEPS) {
		moe_fail(e, MOE_E_UNSUPPORTED, "%s: more than %d pre-tokenizer stages", what, TEXT_MAX_STEPS);
		return NULL;
	}
	p->v[p->n].kind = kind;
	return &p->v[p->n++];
}

static int read_behavior(const struct moe_json *v, enum split_behavior *b, const char *what, struct moe_err *e)
{
	static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
	const char *name = names[*b];
	int rc = moe_json_need_str(v, "behavior", false, &name, what, e);

	if (rc)
		return rc;
	for (int i = 0; i < 5; i++)
		if (strcmp(name, names[i]) == 0) {
			*b = (enum split_behavior)i;
			return 0;
		}
	return moe_fail(e, MOE_E_INPUT, "%s: split behavior %s is not known", what, name);
}

static int read_split(const struct moe_json *v, struct text_pres *p, const char *what, struct moe_err *e)
{
	struct text_pre *s = new_stage(p, PRE_SPLIT, what, e);
	int rc;

	if (!s)
		return MOE_E_UNSUPPORTED;
	rc = text_pattern_read(moe_json_get(v, "pattern"), what, &s->pattern, e);
	if (!rc)
		rc = read_behavior(v, &s->behavior, what, e);
	return rc ? rc : moe_json_need_bool(v, "invert", false, &s->invert, what, e);
}

static int add_regex(struct text_pres *p, const char *regex, enum split_behavior behavior, bool invert,
                     const char *what, struct moe_err *e)
{
	struct text_pre *s = new_stage(p, PRE_SPLIT, what, e);

	if (!s)
		return MOE_E_UNSUPPORTED;
	s->behavior = behavior;
	s->invert = invert;
	return text_pattern_regex(regex, &s->pattern, what, e);
}

static int add_class(struct text_pres *p, bool (*is)(uint32_t c), enum split_behavior behavior, const char *what,
                     struct moe_err *e)
{
	struct text_pre *s = new_stage(p, PRE_SPLIT, what, e);

	if (!s)
		return MOE_E_UNSUPPORTED;
	s->behavior = behavior;
	s->pattern.kind = PATTERN_CLASS;
	s->pattern.is = is;
	return 0;
}

/* A space in front, GPT-2's regex, bytes as characters. */
static int read_byte_level(const struct moe_json *v, struct text_pres *p, const char *what, struct moe_err *e)
{
	bool space = true, regex = true;
	int rc = moe_json_need_bool(v, "add_prefix_space", false, &space, what, e);

	if (!rc)
		rc = moe_json_need_bool(v, "use_regex", false, &regex, what, e);
	if (!rc && space && !new_stage(p, PRE_SPACE, what, e))
		return MOE_E_UNSUPPORTED;
	if (!rc && regex)
		rc = add_regex(p, gpt2, SPLIT_ISOLATED, false, what, e);
	if (!rc && !new_stage(p, PRE_BYTES, what, e))
		return MOE_E_UNSUPPORTED;
	return rc;
}

int text_read_metaspace(const struct moe_json *v, char rep[5], enum text_prepend *prepend, bool *split,
                        const char *what, struct moe_err *e)
{
	static const char *const schemes[] = {"always", "first", "never"};
	const char *r = NULL, *scheme = schemes[0];
	bool space = true;
	size_t n;
	int rc = moe_json_need_str(v, "replacement", true, &r, what, e), i = 0;

	if (!rc)
		rc = moe_json_need_str(v, "prepend_scheme", false, &scheme, what, e);
	if (!rc)
		rc = moe_json_need_bool(v, "add_prefix_space", false, &space, what, e);
	if (!rc)
		rc = moe_json_need_bool(v, "split", false, split, what, e);
	if (rc)
		return rc;
	if (!*r || (text_char(r, &n), r[n]))
		return moe_fail(e, MOE_E_INPUT, "%s: the replacement of Metaspace is not one character", what);
	memcpy(rep, r, n);
	rep[n] = 0;
	while (i < 3 && strcmp(scheme, schemes[i]) != 0)
		i++;
	if (i == 3 || (!space && i != PREPEND_NEVER))
		return moe_fail(e, MOE_E_INPUT, "%s: prepend_scheme %s of Metaspace %s", what, scheme,
		                i == 3 ? "is not known" : "contradicts add_prefix_space");
	*prepend = (enum text_prepend)i;
	return 0;
}

static int read_metaspace(const struct moe_json *v, struct text_pres *p, const char *what, struct moe_err *e)
{
	struct text_pre *meta = new_stage(p, PRE_META, what, e), *s;
	bool split = true;
	int rc;

	if (!meta)
		return MOE_E_UNSUPPORTED;
	rc = text_read_metaspace(v, meta->rep, &meta->prepend, &split, what, e);
	if (rc || !split)
		return rc;
	s = new_stage(p, PRE_SPLIT, what, e);
	if (!s)
		return MOE_E_UNSUPPORTED;
	s->behavior = SPLIT_WITH_NEXT;
	return text_pattern_literal(meta->rep, &s->pattern, what, e);
}

static int read_digits(const struct moe_json *v, struct text_pres *p, const char *what, struct moe_err *e)
{
	bool each = false;
	int rc = moe_json_need_bool(v, "individual_digits", false, &each, what, e);

	return rc ? rc : add_class(p, text_is_numeric, each ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, what, e);
}

static int read_one(const struct moe_json *v, const char *type, struct text_pres *p, const char *what,
                    struct moe_err *e)
{
	enum split_behavior behavior = SPLIT_ISOLATED;
	int rc;

	if (strcmp(type, "ByteLevel") == 0)
		return read_byte_level(v, p, what, e);
	if (strcmp(type, "Split") == 0)
		return read_split(v, p, what, e);
	if (strcmp(type, "Metaspace") == 0)
		return read_metaspace(v, p, what, e);
	if (strcmp(type, "Digits") == 0)
		return read_digits(v, p, what, e);
	if (strcmp(type, "Punctuation") == 0) {
		rc = read_behavior(v, &behavior, what, e);
		return rc ? rc : add_class(p, text_is_punct, behavior, what, e);
	}
	if (strcmp(type, "Whitespace") == 0) /* \w+|[^\w\s]+, with \w as Rust has it */
		return add_regex(p, "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]+|"
		                    "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}\\s]+",
		                 SPLIT_REMOVED, true, what, e);
	if (strcmp(type, "WhitespaceSplit") == 0)
		return add_class(p, text_is_space, SPLIT_REMOVED, what, e);
	return moe_fail(e, MOE_E_UNSUPPORTED, "%s: pre-tokenizer %s is not supported", what, type);
}

int text_pres_read(const struct moe_json *v, const char *what, struct text_pres *p, struct moe_err *e)
{
	const struct moe_json *list = moe_json_get(v, "pretokenizers");
	const char *type = NULL;
	int rc;

	if (moe_json_type(v) == MOE_JSON_NULL)
		return 0;
	if (moe_json_type(v) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: a pre-tokenizer is not an object", what);
	rc = moe_json_need_str(v, "type", true, &type, what, e);
	if (rc)
		return rc;
	if (strcmp(type, "Sequence") != 0)
		return read_one(v, type, p, what, e);
	if (moe_json_type(list) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "%s: a pre-tokenizer Sequence without pretokenizers", what);
	for (size_t i = 0; i < moe_json_count(list) && !rc; i++)
		rc = text_pres_read(moe_json_at(list, i), what, p, e);
	return rc;
}

void text_pres_free(struct text_pres *p)
{
	for (int i = 0; i < p->n; i++)
		text_pattern_free(&p->v[i].pattern);
	p->n = 0;
}

/* ---- running ---- */

static int run_from(struct text_pre_run *r, int stage, const struct text_piece *p, struct moe_err *e);

/* Hand text[from..to) of p to the next stage. */
static int hand_on(struct text_pre_run *r, int stage, const struct text_piece *p, size_t from, size_t to,
                   struct moe_err *e)
{
	struct text_piece part = text_part(p, from, to);

	return from < to ? run_from(r, stage + 1, &part, e) : 0;
}

/* Splitting meets matches and what is between them in order; one stretch waits, since the next may join it. */
struct splitter {
	struct text_pre_run *r;
	int stage;
	const struct text_piece *p;
	enum split_behavior behavior;
	bool invert, waits, matched; /* matched: the last stretch was a match */
	size_t from, to;             /* what waits */
};

static bool joins(const struct splitter *s, bool match)
{
	switch (s->behavior) {
	case SPLIT_CONTIGUOUS:
		return match == s->matched;
	case SPLIT_WITH_PREVIOUS:
		return match && !s->matched;
	case SPLIT_WITH_NEXT:
		return !match && s->matched;
	case SPLIT_ISOLATED:
	case SPLIT_REMOVED:
		break;
	}
	return false;
}

static int stretch(struct splitter *s, size_t from, size_t to, bool match, struct moe_err *e)
{
	bool join;
	int rc = 0;

	match = match != s->invert;
	if (s->behavior == SPLIT_ISOLATED || s->behavior == SPLIT_REMOVED)
		return match && s->behavior == SPLIT_REMOVED ? 0 : hand_on(s->r, s->stage, s->p, from, to, e);
	join = s->waits && joins(s, match);
	if (s->waits && !join)
		rc = hand_on(s->r, s->stage, s->p, s->from, s->to, e);
	if (!join)
		s->from = from;
	s->to = to;
	s->waits = true;
	s->matched = match;
	return rc;
}

static int run_split(struct text_pre_run *r, int stage, const struct text_piece *p, struct moe_err *e)
{
	const struct text_pre *pre = &r->p->v[stage];
	struct splitter s = {.r = r, .stage = stage, .p = p, .behavior = pre->behavior, .invert = pre->invert};
	struct text_scan scan;
	size_t done = 0, from, to;
	bool found;
	int rc = text_scan_start(&scan, &pre->pattern, r->m, p->text, p->len, &r->buf[stage], e);

	while (!rc && !(rc = text_scan_next(&scan, &found, &from, &to, e)) && found) {
		if (done < from)
			rc = stretch(&s, done, from, false, e);
		if (!rc)
			rc = stretch(&s, from, to, true, e);
		done = to;
	}
	if (!rc && done < p->len)
		rc = stretch(&s, done, p->len, false, e);
	if (!rc && s.waits)
		rc = hand_on(r, stage, p, s.from, s.to, e);
	return rc;
}

/* The stages that change text: from p into out; *origin as p's. */

static int put_space(const struct text_piece *p, struct moe_buf *out, size_t *origin, struct moe_err *e)
{
	int rc = p->text[0] == ' ' ? 0 : moe_buf_add(out, " ", 1, e);

	*origin = p->origin ? p->origin + out->len : 0;
	return rc ? rc : moe_buf_add(out, p->text, p->len, e);
}

static int put_bytes(const struct text_piece *p, struct moe_buf *out, size_t *origin, struct moe_err *e)
{
	int rc = 0;

	*origin = 0;
	for (size_t i = 0; i < p->len && !rc; i++) {
		char utf8[4];

		rc = moe_buf_add(out, utf8, text_put(text_byte_char((unsigned char)p->text[i]), utf8), e);
		if (i < p->origin)
			*origin = out->len;
	}
	return rc;
}

static int put_meta(const struct text_pre *pre, const struct text_piece *p, struct moe_buf *out, size_t *origin,
                    struct moe_err *e)
{
	size_t n = strlen(pre->rep), done = 0;
	bool prepend = pre->prepend == PREPEND_ALWAYS || (pre->prepend == PREPEND_FIRST && p->origin);
	int rc = 0;

	if (prepend && p->text[0] != ' ' && (p->len < n || memcmp(p->text, pre->rep, n) != 0))
		rc = moe_buf_add(out, pre->rep, n, e);
	*origin = p->origin ? p->origin + out->len : 0;
	while (done < p->len && !rc) {
		const char *space = memchr(p->text + done, ' ', p->len - done);
		size_t to = space ? (size_t)(space - p->text) : p->len;

		rc = moe_buf_add(out, p->text + done, to - done, e);
		if (!rc && space)
			rc = moe_buf_add(out, pre->rep, n, e);
		if (space && to < p->origin)
			*origin += n - 1;
		done = to + 1;
	}
	return rc;
}

static int run_from(struct text_pre_run *r, int stage, const struct text_piece *p, struct moe_err *e)
{
	const struct text_pre *pre = &r->p->v[stage];
	struct moe_buf *out = &r->buf[stage];
	struct text_piece changed = {0};
	int rc = 0;

	if (stage == r->p->n)
		return r->fn(r->arg, p->text, p->len, e);
	if (pre->kind == PRE_SPLIT)
		return run_split(r, stage, p, e);
	out->len = 0;
	if (pre->kind == PRE_SPACE)
		rc = put_space(p, out, &changed.origin, e);
	else if (pre->kind == PRE_BYTES)
		rc = put_bytes(p, out, &changed.origin, e);
	else
		rc = put_meta(pre, p, out, &changed.origin, e);
	if (!rc && out->len > r->most)
		rc = moe_fail(e, MOE_E_RANGE, "the text grows past %zu bytes when it is split", r->most);
	changed.text = out->data;
	changed.len = out->len;
	return rc ? rc : run_from(r, stage + 1, &changed, e);
}

int text_pretokenize(struct text_pre_run *r, const struct text_piece *piece, struct moe_err *e)
{
	return piece->len ? run_from(r, 0, piece, e) : 0;
}

void text_pre_run_free(struct text_pre_run *r)
{
	for (int i = 0; i < TEXT_MAX_STEPS; i++)
		moe_buf_free(&r->buf[i]);
}
