/* cJSON forgives much: numbers like 01, raw control characters, \u0000, broken UTF-8.  What passes here is
 * RFC 8259 to the letter, so that every reader of the text means the same by it.  Iterative, one pass. */
#include "base/json_scan.h"

#include <stdlib.h>
#include <string.h>

#include "base/json_doc.h"
#include "base/words.h"

#define SURE_DIGITS 15  /* a number of this many characters is kept exactly by a double */
#define NUMBER_MAX 63   /* cJSON's buffer */

struct scanner {
	const char *text, *p, *end;
	const char *wrong; /* words, once something is wrong at p */
	bool no_memory;
	size_t stop;       /* stop before this value; 0: never */
	struct moe_json_scan *out;
	int depth;
	struct {
		bool object;
		size_t count;
	} open[MOE_JSON_DEPTH];
};

static bool wrong(struct scanner *s, const char *words)
{
	if (!s->wrong)
		s->wrong = words;
	return false;
}

static void skip_space(struct scanner *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r'))
		s->p++;
}

static bool is_digit(const struct scanner *s)
{
	return s->p < s->end && *s->p >= '0' && *s->p <= '9';
}

static bool at(const struct scanner *s, char c)
{
	return s->p < s->end && *s->p == c;
}

static bool hex4(struct scanner *s, unsigned *out)
{
	unsigned v = 0;

	if (s->end - s->p < 4)
		return wrong(s, "\\u needs four hexadecimal digits");
	for (int i = 0; i < 4; i++, s->p++) {
		char c = *s->p;

		if (c >= '0' && c <= '9')
			v = v * 16 + (unsigned)(c - '0');
		else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
			v = v * 16 + (unsigned)((c | 32) - 'a' + 10);
		else
			return wrong(s, "\\u needs four hexadecimal digits");
	}
	*out = v;
	return true;
}

static bool unicode_escape(struct scanner *s)
{
	unsigned hi, lo;

	if (!hex4(s, &hi))
		return false;
	if (hi == 0)
		return wrong(s, "\\u0000 is refused");
	if (hi < 0xd800 || hi > 0xdfff)
		return true;
	if (hi > 0xdbff || s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u')
		return wrong(s, "half of a surrogate pair");
	s->p += 2;
	if (!hex4(s, &lo))
		return false;
	return (lo >= 0xdc00 && lo <= 0xdfff) || wrong(s, "half of a surrogate pair");
}

static bool escape(struct scanner *s)
{
	if (s->p == s->end)
		return wrong(s, "a string does not end");
	if (*s->p == 'u') {
		s->p++;
		return unicode_escape(s);
	}
	if (*s->p == 0 || !strchr("\"\\/bfnrt", *s->p))
		return wrong(s, "an unknown escape in a string");
	s->p++;
	return true;
}

static bool scan_string(struct scanner *s)
{
	const char *start = ++s->p;

	while (s->p < s->end) {
		unsigned char c = (unsigned char)*s->p;

		if (c == '"') {
			s->out->bytes += (size_t)(s->p - start) + 1; /* decoded it is never longer */
			s->p++;
			return true;
		}
		if (c == '\\') {
			s->p++;
			if (!escape(s))
				return false;
		} else if (c < 0x20) {
			return wrong(s, "a raw control character in a string");
		} else if (c < 0x80) {
			s->p++;
		} else {
			int n = moe_utf8_len(s->p, (size_t)(s->end - s->p));

			if (n == 0)
				return wrong(s, "not valid UTF-8");
			s->p += n;
		}
	}
	return wrong(s, "a string does not end");
}

static bool digits(struct scanner *s)
{
	if (!is_digit(s))
		return wrong(s, "not a number as JSON writes them");
	while (is_digit(s))
		s->p++;
	return true;
}

static bool keep_literal(struct scanner *s, const char *start, size_t n)
{
	struct moe_json_scan *o = s->out;

	if (o->literal_count == o->literal_cap) {
		size_t cap = o->literal_cap ? o->literal_cap * 2 : 16;
		struct moe_json_literal *grown = moe_realloc(o->literals, cap, sizeof *grown, "JSON", NULL);

		if (!grown) {
			s->no_memory = true;
			return wrong(s, "no memory");
		}
		o->literals = grown;
		o->literal_cap = cap;
	}
	o->literals[o->literal_count++] = (struct moe_json_literal){o->values, (size_t)(start - s->text), n};
	o->bytes += n + 1;
	return true;
}

static bool scan_number(struct scanner *s)
{
	const char *start = s->p;
	size_t n;

	if (at(s, '-'))
		s->p++;
	if (at(s, '0'))
		s->p++;
	else if (!digits(s))
		return false;
	if (is_digit(s))
		return wrong(s, "a number with a leading zero");
	if (at(s, '.')) {
		s->p++;
		if (!digits(s))
			return false;
	}
	if (at(s, 'e') || at(s, 'E')) {
		s->p++;
		if (at(s, '+') || at(s, '-'))
			s->p++;
		if (!digits(s))
			return false;
	}
	n = (size_t)(s->p - start);
	if (n > NUMBER_MAX)
		return wrong(s, "a number of more than 63 characters");
	return n <= SURE_DIGITS || keep_literal(s, start, n);
}

static bool scan_word(struct scanner *s)
{
	static const char *const words[] = {"true", "false", "null"};

	for (int i = 0; i < 3; i++) {
		size_t n = strlen(words[i]);

		if ((size_t)(s->end - s->p) >= n && memcmp(s->p, words[i], n) == 0) {
			s->p += n;
			return true;
		}
	}
	return wrong(s, s->p == s->end ? "the text ends too early" : "a value is expected");
}

static bool open_container(struct scanner *s)
{
	if (s->depth == MOE_JSON_DEPTH)
		return wrong(s, "nested too deep");
	s->open[s->depth].object = *s->p == '{';
	s->open[s->depth].count = 0;
	s->depth++;
	s->p++;
	return true;
}

static bool scan_value(struct scanner *s)
{
	if (s->out->values == MOE_JSON_VALUES)
		return wrong(s, "too many values");
	s->out->values++;
	if (s->out->values == s->stop)
		return false;
	if (s->p < s->end && (*s->p == '{' || *s->p == '['))
		return open_container(s);
	if (at(s, '"'))
		return scan_string(s);
	if (at(s, '-') || is_digit(s))
		return scan_number(s);
	return scan_word(s);
}

static bool scan_name(struct scanner *s)
{
	if (!at(s, '"'))
		return wrong(s, "a name in quotes is expected");
	if (!scan_string(s))
		return false;
	skip_space(s);
	if (!at(s, ':'))
		return wrong(s, "':' is expected after a name");
	s->p++;
	skip_space(s);
	return true;
}

/* Inside the innermost open container: its end, or its next element. */
static bool scan_step(struct scanner *s)
{
	int top = s->depth - 1;
	bool object = s->open[top].object;

	skip_space(s);
	if (at(s, object ? '}' : ']')) {
		if (object)
			s->out->slots += moe_json_slots(s->open[top].count);
		s->depth--;
		s->p++;
		return true;
	}
	if (s->open[top].count++) {
		if (!at(s, ','))
			return wrong(s, object ? "',' or '}' is expected" : "',' or ']' is expected");
		s->p++;
		skip_space(s);
	}
	if (object && !scan_name(s))
		return false;
	return scan_value(s);
}

static bool scan_text(struct scanner *s)
{
	if (s->end - s->p >= 3 && memcmp(s->p, "\xef\xbb\xbf", 3) == 0)
		return wrong(s, "starts with a byte order mark; plain UTF-8 is expected");
	skip_space(s);
	if (s->p == s->end)
		return wrong(s, "empty, a JSON text is expected");
	if (!scan_value(s))
		return false;
	while (s->depth > 0)
		if (!scan_step(s))
			return false;
	skip_space(s);
	return s->p == s->end || wrong(s, "something follows the JSON text");
}

/* A line number for texts of several lines; for one line (JSON Lines) a column says more. */
static int fail_at(const char *text, size_t len, const char *place, const char *what, const char *words,
                   struct moe_err *e)
{
	size_t line = 1;
	const char *nl = memchr(text, '\n', len);

	if (!nl || nl == text + len - 1)
		return moe_fail(e, MOE_E_INPUT, "%s: column %zu: %s", what, (size_t)(place - text) + 1, words);
	for (const char *p = text; p < place; p++)
		line += *p == '\n';
	return moe_fail(e, MOE_E_INPUT, "%s: line %zu: %s", what, line, words);
}

int moe_json_scan(const char *text, size_t len, const char *what, struct moe_json_scan *out, struct moe_err *e)
{
	struct scanner s = {.text = text, .p = text, .end = text + len, .out = out};

	*out = (struct moe_json_scan){0};
	if (len >= UINT32_MAX)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: a JSON text of %zu bytes is too long", what, len);
	if (scan_text(&s))
		return 0;
	moe_json_scan_free(out);
	if (s.no_memory)
		return moe_fail(e, MOE_E_NOMEM, "%s: no memory to read it", what);
	return fail_at(text, len, s.p, what, s.wrong, e);
}

void moe_json_scan_free(struct moe_json_scan *s)
{
	free(s->literals);
	*s = (struct moe_json_scan){0};
}

int moe_json_scan_fail(const char *text, size_t len, const char *what, size_t value, const char *words,
                       struct moe_err *e)
{
	struct moe_json_scan out = {0};
	struct scanner s = {.text = text, .p = text, .end = text + len, .out = &out, .stop = value};

	(void)scan_text(&s);
	moe_json_scan_free(&out);
	return fail_at(text, len, s.p, what, words, e);
}
