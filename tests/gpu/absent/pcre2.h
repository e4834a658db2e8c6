/* In place of PCRE2: no pattern compiles.  See README. */
#ifndef ABSENT_PCRE2_H
#define ABSENT_PCRE2_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct pcre2_code pcre2_code;
typedef struct pcre2_match_data pcre2_match_data;
typedef struct pcre2_match_context pcre2_match_context;
typedef struct pcre2_compile_context pcre2_compile_context;
typedef unsigned char PCRE2_UCHAR;
typedef const unsigned char *PCRE2_SPTR;
#define PCRE2_SIZE size_t
enum {
	PCRE2_UTF, PCRE2_UCP, PCRE2_MULTILINE, PCRE2_DUPNAMES, PCRE2_NEVER_BACKSLASH_C, PCRE2_NO_UTF_CHECK, PCRE2_NO_JIT,
	PCRE2_JIT_COMPLETE, PCRE2_NEWLINE_LF, PCRE2_BSR_UNICODE,
	PCRE2_ERROR_NOMATCH = -1, PCRE2_ERROR_JIT_STACKLIMIT = -46, PCRE2_ERROR_NOMEMORY = -48,
};

static inline pcre2_code *pcre2_compile(PCRE2_SPTR pattern, size_t n, uint32_t how, int *error, size_t *at, pcre2_compile_context *c)
{
	(void)pattern, (void)n, (void)how, (void)c;
	*error = 1;
	*at = 0;
	return NULL;
}

static inline int pcre2_get_error_message(int error, PCRE2_UCHAR *words, size_t size)
{
	(void)error;
	return snprintf((char *)words, size, "built without PCRE2");
}

static inline int pcre2_match(const pcre2_code *re, PCRE2_SPTR subject, size_t n, size_t at, uint32_t how, pcre2_match_data *data,
                              pcre2_match_context *c)
{
	(void)re, (void)subject, (void)n, (void)at, (void)how, (void)data, (void)c;
	return PCRE2_ERROR_NOMATCH;
}

static inline size_t *pcre2_get_ovector_pointer(pcre2_match_data *data)
{
	(void)data;
	return NULL;
}

#define ABSENT_FREE(type, name)                \
	static inline void name(type *p)       \
	{                                      \
		(void)p;                       \
	}
#define ABSENT_SET(type, name)                                 \
	static inline int name(type *p, uint32_t value)        \
	{                                                      \
		(void)p, (void)value;                          \
		return 0;                                      \
	}

static inline pcre2_compile_context *pcre2_compile_context_create(void *general)
{
	return general;
}

static inline pcre2_match_context *pcre2_match_context_create(void *general)
{
	return general;
}

static inline pcre2_match_data *pcre2_match_data_create(uint32_t n, void *general)
{
	(void)n;
	return general;
}

static inline int pcre2_jit_compile(pcre2_code *re, uint32_t how)
{
	(void)re, (void)how;
	return 0;
}

ABSENT_FREE(pcre2_code, pcre2_code_free)
ABSENT_FREE(pcre2_compile_context, pcre2_compile_context_free)
ABSENT_FREE(pcre2_match_context, pcre2_match_context_free)
ABSENT_FREE(pcre2_match_data, pcre2_match_data_free)
ABSENT_SET(pcre2_compile_context, pcre2_set_newline)
ABSENT_SET(pcre2_compile_context, pcre2_set_bsr)
ABSENT_SET(pcre2_compile_context, pcre2_set_max_pattern_length)
ABSENT_SET(pcre2_match_context, pcre2_set_match_limit)
ABSENT_SET(pcre2_match_context, pcre2_set_heap_limit)

#endif
