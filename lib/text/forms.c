/* Unicode normal forms: NFC, NFD, NFKC, NFKD.
 *
 * utf8proc has the tables; the walk is ours, because utf8proc sorts runs of marks in quadratic time and because its
 * tables are younger than the reference's (text_is_inert).  Text that no form changes is copied as it stands: only
 * stretches around other characters are worked on. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/text_private.h"

#define MOST 32 /* characters that one decomposes into, with room to spare; 18 in fact */

struct chars {
	utf8proc_int32_t *v, *sorted;
	size_t n, cap;
};

static int make_room(struct chars *c, struct moe_err *e)
{
	size_t cap = c->cap ? c->cap * 2 : 256;
	utf8proc_int32_t *v;

	if (c->n + MOST <= c->cap)
		return 0;
	v = moe_realloc(c->v, cap, sizeof *v, "normalization", e);
	if (!v)
		return MOE_E_NOMEM;
	c->v = v;
	v = moe_realloc(c->sorted, cap, sizeof *v, "normalization", e);
	if (!v)
		return MOE_E_NOMEM;
	c->sorted = v;
	c->cap = cap;
	return 0;
}

/* The canonical combining class. */
static int class_of(utf8proc_int32_t c)
{
	if (c < 0x300 || text_is_inert((uint32_t)c))
		return 0;
	return utf8proc_get_property(c)->combining_class;
}

static int decompose(enum text_form form, const char *text, size_t len, struct chars *c, struct moe_err *e)
{
	int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE;

	if (form == TEXT_NFKC || form == TEXT_NFKD)
		options |= UTF8PROC_COMPAT;
	c->n = 0;
	for (size_t i = 0; i < len;) {
		size_t step;
		uint32_t one = text_char(text + i, &step);
		utf8proc_ssize_t n = 0;
		int boundary = 0, rc = make_room(c, e);

		if (rc)
			return rc;
		if (!text_is_inert(one))
			n = utf8proc_decompose_char((utf8proc_int32_t)one, c->v + c->n, MOST, (utf8proc_option_t)options,
			                            &boundary);
		if (n < 1 || n > MOST) {
			c->v[c->n] = (utf8proc_int32_t)one;
			n = 1;
		}
		c->n += (size_t)n;
		i += step;
	}
	return 0;
}

/* Order the marks v[0..n) by class, those of one class as they were. */
static void sort_marks(utf8proc_int32_t *v, size_t n, utf8proc_int32_t *sorted)
{
	size_t at[257] = {0};

	for (size_t i = 0; i < n; i++)
		at[class_of(v[i]) + 1]++;
	for (int k = 0; k < 256; k++)
		at[k + 1] += at[k];
	for (size_t i = 0; i < n; i++)
		sorted[at[class_of(v[i])]++] = v[i];
	memcpy(v, sorted, n * sizeof *v);
}

static void reorder(struct chars *c)
{
	for (size_t i = 0; i < c->n;) {
		size_t from = i;
		bool ordered = true;
		int last = 0, k;

		for (; i < c->n && (k = class_of(c->v[i])) != 0; i++, last = k)
			ordered = ordered && k >= last;
		if (!ordered)
			sort_marks(c->v + from, i - from, c->sorted);
		i += i == from;
	}
}

/* Compose what stands between inert characters; they combine with nothing. */
static void compose(struct chars *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n;) {
		size_t from = i;
		utf8proc_ssize_t got;

		while (i < c->n && !text_is_inert((uint32_t)c->v[i]))
			i++;
		got = i > from ? utf8proc_normalize_utf32(c->v + from, (utf8proc_ssize_t)(i - from),
		                                          UTF8PROC_COMPOSE | UTF8PROC_STABLE)
		               : 0;
		memmove(c->v + n, c->v + from, (size_t)got * sizeof *c->v);
		n += (size_t)got;
		if (i < c->n)
			c->v[n++] = c->v[i++];
	}
	c->n = n;
}

static int work_on(enum text_form form, const char *text, size_t len, struct chars *c, struct moe_buf *out,
                   struct moe_err *e)
{
	int rc = decompose(form, text, len, c, e);

	if (rc)
		return rc;
	reorder(c);
	if (form == TEXT_NFC || form == TEXT_NFKC)
		compose(c);
	for (size_t i = 0; i < c->n && !rc; i++) {
		char utf8[4];

		rc = moe_buf_add(out, utf8, text_put((uint32_t)c->v[i], utf8), e);
	}
	return rc;
}

int text_normal_form(enum text_form form, const char *text, size_t len, struct moe_buf *out, struct moe_err *e)
{
	/* A character that starts below this byte is changed by nothing but a mark behind it. */
	unsigned char easy = form == TEXT_NFC ? 0xcc : 0x80;
	struct chars c = {0};
	size_t done = 0, i = 0;
	int rc = 0;

	while (!rc) {
		size_t from;

		while (i < len && (unsigned char)text[i] < easy)
			i += text_sequence(text + i, len - i) > 1 ? 2 : 1;
		if (i == len)
			break;
		from = i > done ? i - text_last(text + done, i - done) : i;
		while (i < len && (unsigned char)text[i] >= easy) {
			size_t step;

			text_char(text + i, &step);
			i += step;
		}
		rc = moe_buf_add(out, text + done, from - done, e);
		if (!rc)
			rc = work_on(form, text + from, i - from, &c, out, e);
		done = i;
	}
	if (!rc)
		rc = moe_buf_add(out, text + done, len - done, e);
	free(c.v);
	free(c.sorted);
	return rc;
}
