/* In place of utf8proc: no text is normalised.  See README. */
#ifndef ABSENT_UTF8PROC_H
#define ABSENT_UTF8PROC_H

#include <stdint.h>

typedef int32_t utf8proc_int32_t;
typedef int64_t utf8proc_ssize_t;
typedef int utf8proc_option_t;
typedef enum { UTF8PROC_CATEGORY_ND = 9, UTF8PROC_CATEGORY_NL, UTF8PROC_CATEGORY_NO, UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PO = 18 } utf8proc_category_t;
enum { UTF8PROC_STABLE = 2, UTF8PROC_COMPAT = 4, UTF8PROC_COMPOSE = 8, UTF8PROC_DECOMPOSE = 16 };
typedef struct {
	int combining_class;
} utf8proc_property_t;

static inline const utf8proc_property_t *utf8proc_get_property(utf8proc_int32_t c)
{
	static const utf8proc_property_t none = {0};

	(void)c;
	return &none;
}

static inline utf8proc_ssize_t utf8proc_decompose_char(utf8proc_int32_t c, utf8proc_int32_t *to, utf8proc_ssize_t n, utf8proc_option_t how,
                                                       int *boundary)
{
	(void)c, (void)to, (void)n, (void)how, (void)boundary;
	return -1;
}

static inline utf8proc_ssize_t utf8proc_normalize_utf32(utf8proc_int32_t *v, utf8proc_ssize_t n, utf8proc_option_t how)
{
	(void)v, (void)how;
	return n; /* as it is */
}

static inline utf8proc_category_t utf8proc_category(utf8proc_int32_t c)
{
	(void)c;
	return (utf8proc_category_t)0;
}

static inline utf8proc_int32_t utf8proc_tolower(utf8proc_int32_t c)
{
	return c;
}

#endif
