/* Regular expressions as tokenizer files spell them (Oniguruma, its default syntax), said in PCRE2's words.
 *
 * Most is the same in both.  What is not is rewritten here, or refused by name:
 *   \s \w \h \b     other sets of characters: White_Space; Alphabetic, marks, digits, connectors; hexadecimal digits
 *   ^ $ (?m)        always by lines; (?m) lets . match newlines
 *   \p{Han}         the script itself, not the script extensions
 *   X{1,3}+ X{2}?   a repeated interval, an optional one: neither possessive nor lazy
 *   [[a] &&b]       nested and intersected classes: refused
 *   (*VERB) \Q \C   PCRE2 only: refused
 * Left over: under (?i), Oniguruma lets one character match several (a sharp s against "ss"); PCRE2 does not.  And
 * \X, \p{Alphabetic} and other properties that are no categories follow PCRE2's Unicode version (text_stand_in keeps
 * categories only). */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/text_private.h"

#define SPACE "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACE \
	"\\x00-\\x08\\x0e-\\x1f\\x21-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}" \
	"\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define LONE_WORD WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" /* outside of classes it has these, too */
#define HEX "0-9A-Fa-f"
#define NOT_HEX "\\x00-/:-@G-`g-\\x{10ffff}"
#define MAX_GROUPS 64
#define MAX_NAME 63

struct translation {
	const char *p; /* what is left to read */
	const char *whole;
	struct moe_buf *out;
	const char *what;
	struct moe_err *e;
	size_t atom;               /* where in out the last thing that can be repeated starts */
	size_t group[MAX_GROUPS];  /* where the open groups start */
	int groups;
};

static int refuse(struct translation *t, const char *why)
{
	return moe_fail(t->e, MOE_E_UNSUPPORTED, "%s: regex '%.100s': %s", t->what, t->whole, why);
}

static int put(struct translation *t, const char *s, size_t n)
{
	return moe_buf_add(t->out, s, n, t->e);
}

static int put_text(struct translation *t, const char *s)
{
	return put(t, s, strlen(s));
}

/* Copy n bytes of the input as they are. */
static int keep(struct translation *t, size_t n)
{
	int rc = put(t, t->p, n);

	t->p += n;
	return rc;
}

/* A character of the input as it is. */
static int keep_char(struct translation *t)
{
	int n = text_sequence(t->p, strlen(t->p));

	return n > 0 ? keep(t, (size_t)n) : refuse(t, "not UTF-8");
}

static int put_class(struct translation *t, bool in_class, const char *not, const char *set)
{
	return in_class ? put_text(t, set) : moe_buf_printf(t->out, t->e, "[%s%s]", not, set);
}

static bool is_script(const char *name)
{
	char pattern[MAX_NAME + 16];
	int error, n = snprintf(pattern, sizeof pattern, "\\p{sc:%s}", name);
	PCRE2_SIZE at;
	pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, (PCRE2_SIZE)n, PCRE2_UTF, &error, &at, NULL);

	pcre2_code_free(re);
	return re != NULL;
}

/* \p{Name}, \p{^Name}, \P{Name}; p stands behind the letter. */
static int property(struct translation *t, bool not)
{
	char name[MAX_NAME + 1];
	size_t n;

	if (*t->p++ != '{')
		return refuse(t, "\\p without a name in braces");
	if (*t->p == '^') {
		not = !not;
		t->p++;
	}
	n = strspn(t->p, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_ -&");
	if (n == 0 || n > MAX_NAME || t->p[n] != '}')
		return refuse(t, "a property name that is not known");
	memcpy(name, t->p, n);
	name[n] = 0;
	t->p += n + 1;
	return moe_buf_printf(t->out, t->e, "\\%c{%s%s}", not ? 'P' : 'p', n > 2 && is_script(name) ? "sc:" : "", name);
}

/* \xHH, \x{H...}, \uHHHH; p stands behind the letter. */
static int code_point(struct translation *t, char letter)
{
	bool braces = letter == 'x' && *t->p == '{';
	size_t n, most = braces ? 8 : letter == 'u' ? 4 : 2;
	unsigned long c = 0;

	t->p += braces;
	for (n = 0; n < most && isxdigit((unsigned char)t->p[n]); n++)
		c = c * 16 + (unsigned long)(isdigit((unsigned char)t->p[n]) ? t->p[n] - '0' : (t->p[n] | 32) - 'a' + 10);
	if (n == 0 || (letter == 'u' && n < 4) || (braces && t->p[n] != '}') || c > 0x10ffff)
		return refuse(t, "a character number that is not one");
	if (letter == 'x' && !braces && c > 0x7f)
		return refuse(t, "\\xHH for a part of a character");
	t->p += n + braces;
	return moe_buf_printf(t->out, t->e, "\\x{%lx}", c);
}

static int boundary(struct translation *t, bool not)
{
	return put_text(t, not ? "(?:(?<=[" LONE_WORD "])(?=[" LONE_WORD "])|(?<![" LONE_WORD "])(?![" LONE_WORD "]))"
	                       : "(?:(?<=[" LONE_WORD "])(?![" LONE_WORD "])|(?<![" LONE_WORD "])(?=[" LONE_WORD "]))");
}

/* \k<name>, \g<name>: the same in both, but only so spelled. */
static int reference(struct translation *t, char letter)
{
	size_t n = *t->p == '<' ? strcspn(t->p, ">") : 0;

	if (n < 2 || !t->p[n])
		return refuse(t, "\\k or \\g without <name>");
	for (size_t i = 1; i < n; i++)
		if (!isalnum((unsigned char)t->p[i]) && t->p[i] != '_')
			return refuse(t, "\\k or \\g without <name>");
	return moe_buf_printf(t->out, t->e, "\\%c", letter) ? MOE_E_NOMEM : keep(t, n + 1);
}

/* What stands behind a backslash. */
static int escape(struct translation *t, bool in_class)
{
	char c = *t->p;

	if (!c)
		return refuse(t, "ends in a backslash");
	if (ispunct((unsigned char)c) || c == ' ' || (unsigned char)c >= 0x80) {
		if ((unsigned char)c < 0x80 && c != ' ' && put_text(t, "\\"))
			return MOE_E_NOMEM;
		return keep_char(t);
	}
	t->p++;
	switch (c) {
	case 's':
		return put_class(t, in_class, "", SPACE);
	case 'S':
		return put_class(t, in_class, "", NOT_SPACE);
	case 'h':
		return put_class(t, in_class, "", HEX);
	case 'H':
		return put_class(t, in_class, "", NOT_HEX);
	case 'd':
		return put_text(t, "\\p{Nd}");
	case 'D':
		return put_text(t, "\\P{Nd}");
	case 'w':
		return in_class ? put_text(t, WORD) : put_class(t, false, "", LONE_WORD);
	case 'W':
		return in_class ? refuse(t, "\\W in a class") : put_class(t, false, "^", LONE_WORD);
	case 'p':
	case 'P':
		return property(t, c == 'P');
	case 'x':
	case 'u':
		return code_point(t, c);
	case 'v':
		return put_text(t, "\\x0b");
	case 't': case 'n': case 'r': case 'f': case 'a': case 'e': case '0':
		return moe_buf_printf(t->out, t->e, "\\%c", c);
	}
	if (in_class)
		return c == 'b' ? put_text(t, "\\x08") : refuse(t, "an escape in a class that is not known");
	switch (c) {
	case 'b':
	case 'B':
		return boundary(t, c == 'B');
	case 'k':
	case 'g':
		return reference(t, c);
	case 'O':
		return put_text(t, "(?s:.)");
	case 'A': case 'z': case 'Z': case 'G': case 'R': case 'X': case 'N':
	case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
		return moe_buf_printf(t->out, t->e, "\\%c", c);
	}
	return refuse(t, "an escape that is not known");
}

/* [...]; p stands on the bracket. */
static int class(struct translation *t)
{
	int rc = keep(t, 1);

	if (!rc && *t->p == '^')
		rc = keep(t, 1);
	if (!rc && *t->p == ']') /* first, it stands for itself */
		rc = put_text(t, "\\") ? MOE_E_NOMEM : keep(t, 1);
	while (!rc && *t->p != ']') {
		if (!*t->p)
			return refuse(t, "a class that does not end");
		if (*t->p == '[')
			return refuse(t, "a class in a class");
		if (*t->p == '&' && t->p[1] == '&')
			return refuse(t, "classes intersected by &&");
		if (*t->p == '\\') {
			t->p++;
			rc = escape(t, true);
		} else {
			rc = keep_char(t);
		}
	}
	return rc ? rc : keep(t, 1);
}

/* (?im-im) or (?im-im:; p stands behind the question mark. */
static int options(struct translation *t)
{
	size_t n = strspn(t->p, "im-");
	bool at_start = t->p == t->whole + 2;
	int rc = 0;

	if (t->p[n] != ':' && !(t->p[n] == ')' && at_start))
		return refuse(t, t->p[n] == ')' ? "options set in the middle" : "a kind of group that is not known");
	for (; n > 0 && !rc; n--) {
		rc = put(t, *t->p == 'm' ? "s" : t->p, 1);
		t->p++;
	}
	if (!rc && *t->p == ':')
		rc = keep(t, 1);
	return rc;
}

/* An opening parenthesis and what belongs to it. */
static int group(struct translation *t)
{
	if (t->groups == MAX_GROUPS)
		return refuse(t, "groups nested too deep");
	if (t->p[1] == '*')
		return refuse(t, "(* is not known");
	t->group[t->groups++] = t->out->len;
	if (t->p[1] != '?')
		return keep(t, 1);
	if (t->p[2] == '#') { /* a comment */
		t->p += strcspn(t->p, ")");
		t->groups--;
		return *t->p++ ? 0 : refuse(t, "a comment that does not end");
	}
	if (strchr(":=!>", t->p[2]) && t->p[2])
		return keep(t, 3);
	if (t->p[2] == '<' && (t->p[3] == '=' || t->p[3] == '!'))
		return keep(t, 4);
	if (t->p[2] == '<' && isalpha((unsigned char)t->p[3]))
		return keep(t, 3);
	if (keep(t, 2))
		return MOE_E_NOMEM;
	return options(t);
}

/* Make what was written since `from` one atom: (?:...). */
static int wrap(struct translation *t, size_t from)
{
	int rc = put_text(t, "(?:");

	if (rc)
		return rc;
	memmove(t->out->data + from + 3, t->out->data + from, t->out->len - 3 - from);
	memcpy(t->out->data + from, "(?:", 3);
	return put_text(t, ")");
}

/* A brace: an interval, or itself. */
static int interval(struct translation *t)
{
	const char *q = t->p + 1;
	size_t lo = strspn(q, "0123456789"), hi = 0;
	bool comma = q[lo] == ',';
	int rc;

	if (comma)
		hi = strspn(q + lo + 1, "0123456789");
	if (lo + hi == 0 || lo > 5 || hi > 5 || q[lo + comma + hi] != '}') {
		t->atom = t->out->len;
		return put_text(t, "\\") ? MOE_E_NOMEM : keep(t, 1);
	}
	rc = moe_buf_printf(t->out, t->e, "{%.*s%s%.*s}", lo ? (int)lo : 1, lo ? q : "0", comma ? "," : "", (int)hi,
	                    q + lo + comma);
	t->p += lo + comma + hi + 2;
	if (!rc && (*t->p == '+' || (*t->p == '?' && !comma)))
		rc = wrap(t, t->atom);
	return rc;
}

static int piece(struct translation *t)
{
	switch (*t->p) {
	case '\\':
		t->atom = t->out->len;
		t->p++;
		return escape(t, false);
	case '[':
		t->atom = t->out->len;
		return class(t);
	case '(':
		return group(t);
	case ')':
		if (t->groups == 0)
			return refuse(t, "a parenthesis that was not opened");
		t->atom = t->group[--t->groups];
		return keep(t, 1);
	case '{':
		return interval(t);
	case '*': case '+': case '?': case '|': case '^': case '$':
		return keep(t, 1);
	}
	t->atom = t->out->len;
	return keep_char(t);
}

int text_regex_translate(const char *onig, struct moe_buf *out, const char *what, struct moe_err *e)
{
	struct translation t = {.p = onig, .whole = onig, .out = out, .what = what, .e = e, .atom = out->len};
	int rc = 0;

	while (*t.p && !rc)
		rc = piece(&t);
	if (!rc && t.groups)
		rc = refuse(&t, "a group that does not end");
	return rc;
}
