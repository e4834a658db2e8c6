/* Memory: sizes that cannot overflow, allocations that say what they were for. */
#ifndef MOE_BASE_MEM_H
#define MOE_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* *out = a*b, or a+b.  Returns false, *out untouched, when it does not fit. */
bool moe_mul_size(size_t a, size_t b, size_t *out);
bool moe_add_size(size_t a, size_t b, size_t *out);

/* n zeroed elements of `size` bytes for `what` (a word for the message).  NULL on overflow or when
 * there is no memory, e filled (MOE_E_NOMEM).  n or size 0 gives a pointer that may be freed.
 * Caller owns, free with free(). */
void *moe_calloc(size_t n, size_t size, const char *what, struct moe_err *e);

/* Grow `old` (may be NULL) to n elements, new ones not initialised.  On failure NULL and old still valid. */
void *moe_realloc(void *old, size_t n, size_t size, const char *what, struct moe_err *e);

/* `bytes` bytes aligned to 64 (4096 and huge-page advice from 2 MiB on), zeroed.  free with free(). */
void *moe_aligned(size_t bytes, const char *what, struct moe_err *e);
/* The same, not zeroed: for who writes all of it. */
void *moe_aligned_raw(size_t bytes, const char *what, struct moe_err *e);

/* Copies.  NULL on no memory.  Caller owns. */
char *moe_strdup(const char *s, struct moe_err *e);
char *moe_strndup(const char *s, size_t n, struct moe_err *e);
char *moe_sprintf(struct moe_err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A growing byte buffer, always terminated by a 0 that `len` does not count. */
struct moe_buf {
	char *data;
	size_t len, cap;
};
#define MOE_BUF_INIT {NULL, 0, 0}
int moe_buf_add(struct moe_buf *b, const void *data, size_t n, struct moe_err *e);
int moe_buf_printf(struct moe_buf *b, struct moe_err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void moe_buf_free(struct moe_buf *b); /* frees data, leaves an empty buffer */

/* A map from byte strings to numbers: open addressing, XXH3.  Keys are not copied: they must outlive it. */
struct moe_index;
struct moe_index *moe_index_new(size_t expected, struct moe_err *e);
/* 0 and *old = value when the key is already there (nothing changes), 1 when added, -1 no memory. */
int moe_index_add(struct moe_index *x, const char *key, size_t len, uint64_t value, uint64_t *old);
bool moe_index_get(const struct moe_index *x, const char *key, size_t len, uint64_t *value);
void moe_index_free(struct moe_index *x);

/* Bytes of memory this process may still use: the least of what is available in the system, its
 * cgroup's limit (v1 or v2) and RLIMIT_AS. */
size_t moe_memory_available(void);
/* Bytes of memory that this process may have in all: the least of what the system has and its cgroup's limit (v1 or v2). */
uint64_t moe_memory_limit(void);
/* Bytes of memory that this process has now (RSS); *own (may be NULL): of these, what is neither a file's nor shared.  0: not known. */
uint64_t moe_memory_used(uint64_t *own);

#endif
