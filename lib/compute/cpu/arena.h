/* A device's memory, imitated: one region of addresses of its own, of which no more bytes are in use than a cap allows.  Between the
 * blocks, and where none is, nothing can be read or written. */
#ifndef MOE_CPU_ARENA_H
#define MOE_CPU_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "compute/compute.h"

struct moe_arena;

/* cap: most bytes in use at once; 0: as many as there is memory for.  Takes addresses only. */
int moe_arena_open(size_t cap, struct moe_arena **out, struct moe_err *e);
void moe_arena_close(struct moe_arena *a); /* and all its blocks; NULL is fine */

/* All functions below may be called by several threads at once. */

/* Zeroed, aligned to a page.  MOE_E_NOMEM says how many bytes were needed, are in use, and may be. */
int moe_arena_alloc(struct moe_arena *a, size_t bytes, void **mem, struct moe_err *e);
/* Waits for those who hold the block; who touches it later faults.  NULL is fine. */
void moe_arena_release(struct moe_arena *a, void *mem);
void moe_arena_memory(struct moe_arena *a, struct moe_device_memory *out);

/* The number of the block in which [at, at + bytes) lies, of all blocks there ever were; 0: in none. */
uint64_t moe_arena_find(struct moe_arena *a, const void *at, size_t bytes);
/* Does any of [at, at + bytes) lie among the arena's addresses? */
bool moe_arena_meets(const struct moe_arena *a, const void *at, size_t bytes);
/* Keep block number `block`, in which `at` lies, from being released.  False: it has been. */
bool moe_arena_hold(struct moe_arena *a, const void *at, uint64_t block);
void moe_arena_let_go(struct moe_arena *a, const void *at);

#endif
