#include "arena.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

#define HUGE_PAGE ((size_t)2 << 20)
#define EXTRA ((size_t)256 << 20) /* addresses for pages that are not full and pages between blocks */

struct block {
	size_t at, span;             /* from the region's start; whole pages, the one behind it that nobody may touch included */
	size_t bytes;
	uint64_t number;
	int holders;
};

struct moe_arena {
	unsigned char *base;
	size_t size, page;
	size_t cap, used, most;
	struct block *blocks;        /* by rising address */
	size_t n;
	uint64_t numbers;            /* given so far */
	pthread_mutex_t lock;
	pthread_cond_t let_go;
};

/* Twice the cap, so that gaps between blocks seldom matter; never much more than there is memory. */
static size_t region_size(size_t cap, size_t page)
{
	size_t most = moe_memory_available();

	if (cap > 0 && cap < most)
		most = cap;
	if (most > (SIZE_MAX >> 2))
		most = SIZE_MAX >> 2;
	return ((cap ? 2 * most : most) + EXTRA) / page * page;
}

int moe_arena_open(size_t cap, struct moe_arena **out, struct moe_err *e)
{
	struct moe_arena *a = moe_calloc(1, sizeof *a, "device memory", e);
	int rc;

	if (!a)
		return MOE_E_NOMEM;
	a->page = (size_t)sysconf(_SC_PAGESIZE);
	a->cap = cap;
	a->size = region_size(cap, a->page);
	a->base = mmap(NULL, a->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (a->base == MAP_FAILED) {
		rc = moe_fail_errno(e, "device memory: %zu bytes of addresses", a->size);
		free(a);
		return rc;
	}
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->let_go, NULL);
	*out = a;
	return 0;
}

void moe_arena_close(struct moe_arena *a)
{
	if (!a)
		return;
	munmap(a->base, a->size);
	pthread_cond_destroy(&a->let_go);
	pthread_mutex_destroy(&a->lock);
	free(a->blocks);
	free(a);
}

/* ---- blocks; with the lock held ---- */

/* The last block that begins at or before `at`, of the region's; n: none. */
static size_t block_at(const struct moe_arena *a, size_t at)
{
	size_t lo = 0, hi = a->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (a->blocks[mid].at <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo > 0 ? lo - 1 : a->n;
}

static struct block *block_of(struct moe_arena *a, const void *mem)
{
	size_t at, i;

	if (!moe_arena_meets(a, mem, 1))
		return NULL;
	at = (size_t)((const unsigned char *)mem - a->base);
	i = block_at(a, at);
	return i < a->n && at < a->blocks[i].at + a->blocks[i].span ? &a->blocks[i] : NULL;
}

/* The first gap of `span` bytes: which block comes behind it, and where it begins. */
static bool find_gap(const struct moe_arena *a, size_t span, size_t *behind, size_t *at)
{
	*at = 0;
	for (*behind = 0; *behind < a->n; (*behind)++) {
		const struct block *b = &a->blocks[*behind];

		if (b->at - *at >= span)
			return true;
		*at = b->at + b->span;
	}
	return a->size - *at >= span;
}

static int check_room(const struct moe_arena *a, size_t bytes, struct moe_err *e)
{
	size_t available;

	if (a->cap && bytes > a->cap - a->used)
		return moe_fail(e, MOE_E_NOMEM, "device memory: %zu bytes needed, %zu of %zu in use", bytes, a->used, a->cap);
	available = moe_memory_available();
	if (bytes > available)
		return moe_fail(e, MOE_E_NOMEM, "device memory: %zu bytes needed, %zu in use, and the host has only %zu left", bytes,
		                a->used, available);
	return 0;
}

/* Pages are touched at once: the first copy into them is to take as long as the next. */
static int take_pages(struct moe_arena *a, size_t at, size_t bytes, struct moe_err *e)
{
	if (bytes == 0)
		return 0;
	if (mprotect(a->base + at, bytes, PROT_READ | PROT_WRITE) != 0)
		return moe_fail_errno(e, "device memory: %zu bytes", bytes);
	if (bytes >= HUGE_PAGE) /* only advice */
		(void)madvise(a->base + at, (bytes + a->page - 1) / a->page * a->page, MADV_HUGEPAGE);
	memset(a->base + at, 0, bytes);
	return 0;
}

static int add_block(struct moe_arena *a, size_t bytes, void **mem, struct moe_err *e)
{
	size_t span = (bytes + a->page - 1) / a->page * a->page + a->page, behind, at;
	struct block *v;
	int rc;

	if (!find_gap(a, span, &behind, &at))
		return moe_fail(e, MOE_E_NOMEM, "device memory: %zu bytes needed, %zu in use, and no gap is wide enough", bytes, a->used);
	v = moe_realloc(a->blocks, a->n + 1, sizeof *v, "device memory", e);
	if (!v)
		return MOE_E_NOMEM;
	a->blocks = v;
	rc = take_pages(a, at, bytes, e);
	if (rc)
		return rc;
	memmove(v + behind + 1, v + behind, (a->n++ - behind) * sizeof *v);
	v[behind] = (struct block){at, span, bytes, ++a->numbers, 0};
	a->used += bytes;
	a->most = a->used > a->most ? a->used : a->most;
	*mem = a->base + at;
	return 0;
}

/* ---- for everybody ---- */

int moe_arena_alloc(struct moe_arena *a, size_t bytes, void **mem, struct moe_err *e)
{
	int rc;

	pthread_mutex_lock(&a->lock);
	rc = check_room(a, bytes, e);
	rc = rc ? rc : add_block(a, bytes, mem, e);
	pthread_mutex_unlock(&a->lock);
	return rc;
}

void moe_arena_release(struct moe_arena *a, void *mem)
{
	struct block *b;
	void *gone;

	if (!mem)
		return;
	pthread_mutex_lock(&a->lock);
	while ((b = block_of(a, mem)) != NULL && b->holders > 0)
		pthread_cond_wait(&a->let_go, &a->lock);
	assert(b && a->base + b->at == (unsigned char *)mem); /* as free() would */
	gone = mmap(mem, b->span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	assert(gone == mem);
	(void)gone;
	a->used -= b->bytes;
	memmove(b, b + 1, (size_t)(a->blocks + --a->n - b) * sizeof *b);
	pthread_mutex_unlock(&a->lock);
}

void moe_arena_memory(struct moe_arena *a, struct moe_device_memory *out)
{
	pthread_mutex_lock(&a->lock);
	*out = (struct moe_device_memory){a->used, a->most, a->cap};
	pthread_mutex_unlock(&a->lock);
}

uint64_t moe_arena_find(struct moe_arena *a, const void *at, size_t bytes)
{
	const struct block *b;
	uint64_t number = 0;

	pthread_mutex_lock(&a->lock);
	b = block_of(a, at);
	if (b) {
		size_t from = (size_t)((const unsigned char *)at - a->base) - b->at;

		if (from <= b->bytes && bytes <= b->bytes - from)
			number = b->number;
	}
	pthread_mutex_unlock(&a->lock);
	return number;
}

bool moe_arena_meets(const struct moe_arena *a, const void *at, size_t bytes)
{
	uintptr_t from = (uintptr_t)at, base = (uintptr_t)a->base;

	return from < base + a->size && from + bytes > base;
}

bool moe_arena_hold(struct moe_arena *a, const void *at, uint64_t block)
{
	struct block *b;
	bool there;

	pthread_mutex_lock(&a->lock);
	b = block_of(a, at);
	there = b && b->number == block;
	if (there)
		b->holders++;
	pthread_mutex_unlock(&a->lock);
	return there;
}

void moe_arena_let_go(struct moe_arena *a, const void *at)
{
	pthread_mutex_lock(&a->lock);
	block_of(a, at)->holders--;
	pthread_cond_broadcast(&a->let_go);
	pthread_mutex_unlock(&a->lock);
}
