/* Numbers as people write and read them. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/opts.h"

static int size_shift(char c)
{
	static const char units[] = "KMGT";
	const char *p = c ? strchr(units, toupper((unsigned char)c)) : NULL;

	return p ? 10 * (int)(p - units + 1) : -1;
}

/* DIGITS[.DIGITS][KMGT]; a fraction only with a unit. */
bool moe_parse_size(const char *s, uint64_t *out)
{
	size_t whole = strspn(s, "0123456789"), part = 0;
	const char *unit = s + whole;
	int shift = 0;
	uint64_t v;

	if (whole == 0)
		return false;
	if (*unit == '.') {
		part = strspn(unit + 1, "0123456789");
		unit += 1 + part;
		if (part == 0 || !*unit)
			return false;
	}
	if (*unit) {
		shift = size_shift(*unit);
		if (shift < 0 || unit[1])
			return false;
	}
	errno = 0;
	v = strtoull(s, NULL, 10);
	if (errno || v > UINT64_MAX >> shift)
		return false;
	v <<= shift;
	if (part) {
		uint64_t more = (uint64_t)ldexp(strtod(s + whole, NULL), shift); /* ".5" of it */

		if (__builtin_add_overflow(v, more, &v))
			return false;
	}
	*out = v;
	return true;
}

static bool int_at(const char *s, const char **end, int64_t *out)
{
	char *stop;
	long long v;

	if (!isdigit((unsigned char)s[*s == '-']))
		return false;
	errno = 0;
	v = strtoll(s, &stop, 10);
	if (errno)
		return false;
	*end = stop;
	*out = v;
	return true;
}

bool moe_parse_int(const char *s, int64_t lo, int64_t hi, int64_t *out)
{
	const char *end;
	int64_t v;

	if (!int_at(s, &end, &v) || *end || v < lo || v > hi)
		return false;
	*out = v;
	return true;
}

bool moe_parse_num(const char *s, double *out)
{
	char *end;
	double v;

	if (!*s || strspn(s, "0123456789+-.eE") != strlen(s)) /* no spaces, hexadecimal, infinities */
		return false;
	v = strtod(s, &end);
	if (*end || !isfinite(v))
		return false;
	*out = v;
	return true;
}

/* "7", "1-4" or "1-9+2" at s. */
static bool range_at(const char *s, const char **end, int64_t *from, int64_t *to, int64_t *step)
{
	if (!int_at(s, end, from))
		return false;
	*to = *from;
	*step = 1;
	if (**end == '-') {
		if (!int_at(*end + 1, end, to) || *to < *from)
			return false;
		if (**end == '+' && (!int_at(*end + 1, end, step) || *step < 1))
			return false;
	}
	return true;
}

int moe_parse_int_list(const char *s, int64_t lo, int64_t hi, int64_t *out, int cap)
{
	int n = 0;

	for (;; s++) {
		int64_t from, to, step;

		if (!range_at(s, &s, &from, &to, &step) || from < lo || to > hi)
			return -1;
		for (int64_t v = from;; v += step) {
			if (n == cap)
				return -1;
			out[n++] = v;
			if ((uint64_t)to - (uint64_t)v < (uint64_t)step)
				break;
		}
		if (!*s)
			return n;
		if (*s != ',')
			return -1;
	}
}

const char *moe_size_text(double bytes, char *buf)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	int u = 0;

	while (fabs(bytes) >= 1024 && u < 6) {
		bytes /= 1024;
		u++;
	}
	snprintf(buf, 32, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
	return buf;
}
