#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LINE 64
#define PAGE 4096
#define HUGE_PAGE ((size_t)2 << 20)

bool moe_mul_size(size_t a, size_t b, size_t *out)
{
	size_t r;

	if (__builtin_mul_overflow(a, b, &r))
		return false;
	*out = r;
	return true;
}

bool moe_add_size(size_t a, size_t b, size_t *out)
{
	size_t r;

	if (__builtin_add_overflow(a, b, &r))
		return false;
	*out = r;
	return true;
}

static void no_memory(struct moe_err *e, const char *what, size_t n, size_t size)
{
	if (size == 1)
		moe_fail(e, MOE_E_NOMEM, "%s: no memory for %zu bytes", what, n);
	else
		moe_fail(e, MOE_E_NOMEM, "%s: no memory for %zu times %zu bytes", what, n, size);
}

void *moe_calloc(size_t n, size_t size, const char *what, struct moe_err *e)
{
	size_t bytes;
	void *p = NULL;

	if (moe_mul_size(n, size, &bytes))
		p = calloc(1, bytes ? bytes : 1);
	if (!p)
		no_memory(e, what, n, size);
	return p;
}

void *moe_realloc(void *old, size_t n, size_t size, const char *what, struct moe_err *e)
{
	size_t bytes;
	void *p = NULL;

	if (moe_mul_size(n, size, &bytes))
		p = realloc(old, bytes ? bytes : 1);
	if (!p)
		no_memory(e, what, n, size);
	return p;
}

void *moe_aligned_raw(size_t bytes, const char *what, struct moe_err *e)
{
	bool huge = bytes >= HUGE_PAGE;
	void *p = NULL;

	if (posix_memalign(&p, huge ? PAGE : LINE, bytes ? bytes : 1) != 0) {
		no_memory(e, what, bytes, 1);
		return NULL;
	}
	if (huge) /* before the first touch, and only advice */
		(void)madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

void *moe_aligned(size_t bytes, const char *what, struct moe_err *e)
{
	void *p = moe_aligned_raw(bytes, what, e);

	if (p)
		memset(p, 0, bytes);
	return p;
}

char *moe_strndup(const char *s, size_t n, struct moe_err *e)
{
	size_t len = strnlen(s, n);
	char *p = len < SIZE_MAX ? malloc(len + 1) : NULL;

	if (!p) {
		no_memory(e, "string", len, 1);
		return NULL;
	}
	memcpy(p, s, len);
	p[len] = 0;
	return p;
}

char *moe_strdup(const char *s, struct moe_err *e)
{
	return moe_strndup(s, strlen(s), e);
}

char *moe_sprintf(struct moe_err *e, const char *fmt, ...)
{
	va_list ap;
	char *p = NULL;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&p, fmt, ap);
	va_end(ap);
	if (n < 0) {
		moe_fail(e, MOE_E_NOMEM, "string: no memory");
		return NULL;
	}
	return p;
}

/* Room for n more bytes and the terminator. */
static int reserve(struct moe_buf *b, size_t n, struct moe_err *e)
{
	size_t need, cap;
	char *p;

	if (!moe_add_size(b->len, n, &need) || !moe_add_size(need, 1, &need))
		return moe_fail(e, MOE_E_NOMEM, "buffer: no memory for %zu bytes more", n);
	if (need <= b->cap)
		return 0;
	cap = b->cap < 128 ? 128 : b->cap;
	while (cap < need)
		cap = cap > SIZE_MAX / 2 ? need : cap * 2;
	p = moe_realloc(b->data, cap, 1, "buffer", e);
	if (!p)
		return MOE_E_NOMEM;
	b->data = p;
	b->cap = cap;
	return 0;
}

int moe_buf_add(struct moe_buf *b, const void *data, size_t n, struct moe_err *e)
{
	int rc = reserve(b, n, e);

	if (rc)
		return rc;
	if (n)
		memcpy(b->data + b->len, data, n);
	b->len += n;
	b->data[b->len] = 0;
	return 0;
}

int moe_buf_printf(struct moe_buf *b, struct moe_err *e, const char *fmt, ...)
{
	va_list ap, again;
	int n, rc;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	rc = n < 0 ? moe_fail(e, MOE_E_INPUT, "buffer: text that cannot be formatted") : reserve(b, (size_t)n, e);
	if (rc == 0) {
		vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
		b->len += (size_t)n;
	}
	va_end(again);
	return rc;
}

void moe_buf_free(struct moe_buf *b)
{
	free(b->data);
	*b = (struct moe_buf)MOE_BUF_INIT;
}
