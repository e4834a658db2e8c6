/* Patterns that split and replace: literal strings, regular expressions, classes of characters.
 *
 * Matches are found as the reference finds them: from left to right, not overlapping, an empty one only where no
 * match has just ended. */
#include <stdlib.h>
#include <string.h>

#include "text/text_private.h"

#define BASE_STEPS 1000000u  /* of matching, before a regex is given up; more for longer texts */
#define HEAP_KIB (64u << 10)

int text_pattern_literal(const char *s, struct text_pattern *p, const char *what, struct moe_err *e)
{
	if (!*s) /* it matches everywhere: the regex walk knows how */
		return text_pattern_regex("", p, what, e);
	p->kind = PATTERN_LITERAL;
	p->len = strlen(s);
	p->literal = moe_strdup(s, e);
	return p->literal ? 0 : MOE_E_NOMEM;
}

static int compile(const struct moe_buf *pcre, const char *onig, struct text_pattern *p, const char *what,
                   struct moe_err *e)
{
	pcre2_compile_context *c = pcre2_compile_context_create(NULL);
	PCRE2_UCHAR words[160];
	PCRE2_SIZE at = 0;
	int error = 0;

	if (!c)
		return moe_fail(e, MOE_E_NOMEM, "%s: no memory for a regex", what);
	pcre2_set_newline(c, PCRE2_NEWLINE_LF);
	pcre2_set_bsr(c, PCRE2_BSR_UNICODE);
	pcre2_set_max_pattern_length(c, 1u << 16);
	p->re = pcre2_compile((PCRE2_SPTR)(pcre->data ? pcre->data : ""), pcre->len,
	                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_DUPNAMES | PCRE2_NEVER_BACKSLASH_C, &error,
	                      &at, c);
	pcre2_compile_context_free(c);
	if (p->re) {
		pcre2_jit_compile(p->re, PCRE2_JIT_COMPLETE); /* where it cannot, the interpreter runs */
		return 0;
	}
	if (error == PCRE2_ERROR_NOMEMORY)
		return moe_fail(e, MOE_E_NOMEM, "%s: no memory for a regex", what);
	pcre2_get_error_message(error, words, sizeof words);
	return moe_fail(e, MOE_E_UNSUPPORTED, "%s: regex '%.100s': %s", what, onig, (char *)words);
}

int text_pattern_regex(const char *onig, struct text_pattern *p, const char *what, struct moe_err *e)
{
	struct moe_buf pcre = MOE_BUF_INIT;
	int rc = text_regex_translate(onig, &pcre, what, e);

	p->kind = PATTERN_REGEX;
	if (!rc)
		rc = compile(&pcre, onig, p, what, e);
	moe_buf_free(&pcre);
	return rc;
}

int text_pattern_read(const struct moe_json *v, const char *what, struct text_pattern *p, struct moe_err *e)
{
	const char *literal = moe_json_str(moe_json_get(v, "String"), NULL);
	const char *regex = moe_json_str(moe_json_get(v, "Regex"), NULL);

	if (moe_json_count(v) != 1 || (!literal && !regex))
		return moe_fail(e, MOE_E_INPUT, "%s: pattern is neither {\"String\": ...} nor {\"Regex\": ...}", what);
	return literal ? text_pattern_literal(literal, p, what, e) : text_pattern_regex(regex, p, what, e);
}

void text_pattern_free(struct text_pattern *p)
{
	free(p->literal);
	pcre2_code_free(p->re);
	*p = (struct text_pattern){0};
}

int text_matcher_init(struct text_matcher *m, size_t len, struct moe_err *e)
{
	m->data = pcre2_match_data_create(1, NULL);
	m->limits = pcre2_match_context_create(NULL);
	if (!m->data || !m->limits)
		return moe_fail(e, MOE_E_NOMEM, "no memory to match a regex");
	pcre2_set_match_limit(m->limits, BASE_STEPS + (len < UINT32_MAX / 8 ? (uint32_t)len * 4 : UINT32_MAX / 2));
	pcre2_set_heap_limit(m->limits, HEAP_KIB);
	return 0;
}

void text_matcher_free(struct text_matcher *m)
{
	pcre2_match_data_free(m->data);
	pcre2_match_context_free(m->limits);
	*m = (struct text_matcher){0};
}

/* Where the first character is that PCRE2 may not know; len when there is none. */
static size_t first_young(const char *text, size_t len)
{
	for (size_t i = 0, n; i < len; i += n) {
		if ((unsigned char)text[i] < 0xe0) {
			n = 1;
			continue;
		}
		uint32_t c = text_char(text + i, &n);

		if (text_stand_in(c) != c)
			return i;
	}
	return len;
}

/* Put older characters of the same kind in place of young ones; lengths stay, so positions do. */
static int replace_young(const char *text, size_t len, size_t first, struct moe_buf *to, struct moe_err *e)
{
	int rc;

	to->len = 0;
	rc = moe_buf_add(to, text, len, e);
	for (size_t i = first, n; i < len && !rc; i += n) {
		uint32_t c = text_char(text + i, &n), as = text_stand_in(c);

		if (as != c)
			text_put(as, to->data + i);
	}
	return rc;
}

int text_scan_start(struct text_scan *s, const struct text_pattern *p, struct text_matcher *m, const char *text,
                    size_t len, struct moe_buf *young, struct moe_err *e)
{
	size_t at;
	int rc;

	*s = (struct text_scan){.p = p, .m = m, .text = text, .subject = text, .len = len};
	if (p->kind != PATTERN_REGEX || (at = first_young(text, len)) == len)
		return 0;
	rc = replace_young(text, len, at, young, e);
	s->subject = young->data;
	return rc;
}

static bool next_literal(struct text_scan *s, size_t *from, size_t *to)
{
	const char *at = s->pos < s->len ? memmem(s->text + s->pos, s->len - s->pos, s->p->literal, s->p->len) : NULL;

	if (!at)
		return false;
	*from = (size_t)(at - s->text);
	*to = s->pos = *from + s->p->len;
	return true;
}

static bool next_of_class(struct text_scan *s, size_t *from, size_t *to)
{
	while (s->pos < s->len) {
		size_t n, at = s->pos;
		uint32_t c = text_char(s->text + at, &n);

		s->pos += n;
		if (s->p->is(c)) {
			*from = at;
			*to = s->pos;
			return true;
		}
	}
	return false;
}

static int next_regex(struct text_scan *s, bool *found, size_t *from, size_t *to, struct moe_err *e)
{
	const PCRE2_SIZE *at = pcre2_get_ovector_pointer(s->m->data);

	*found = false;
	while (s->pos <= s->len) {
		PCRE2_SPTR subject = (PCRE2_SPTR)s->subject;
		int n = pcre2_match(s->p->re, subject, s->len, s->pos, PCRE2_NO_UTF_CHECK, s->m->data, s->m->limits);
		size_t step = 1;

		if (n == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter takes its room from the heap */
			n = pcre2_match(s->p->re, subject, s->len, s->pos, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->m->data,
			                s->m->limits);
		if (n == PCRE2_ERROR_NOMATCH)
			return 0;
		if (n < 0)
			return moe_fail(e, MOE_E_INPUT, "a regex of the tokenizer takes too long or too much memory on this text");
		*from = at[0];
		*to = at[1];
		if (*from > *to || *from < s->pos) /* \K can do that */
			return moe_fail(e, MOE_E_UNSUPPORTED, "a regex of the tokenizer matches backwards");
		if (*from < *to || !s->any || *to != s->last_end) {
			s->any = *found = true;
			s->pos = s->last_end = *to;
			return 0;
		}
		if (s->pos < s->len)
			text_char(s->subject + s->pos, &step);
		s->pos += step;
	}
	return 0;
}

int text_scan_next(struct text_scan *s, bool *found, size_t *from, size_t *to, struct moe_err *e)
{
	switch (s->p->kind) {
	case PATTERN_LITERAL:
		*found = next_literal(s, from, to);
		return 0;
	case PATTERN_CLASS:
		*found = next_of_class(s, from, to);
		return 0;
	case PATTERN_REGEX:
		break;
	}
	return next_regex(s, found, from, to, e);
}
