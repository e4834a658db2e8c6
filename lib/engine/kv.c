/* The KV store: blocks of MOE_KV_BLOCK positions, each holding them for all layers.
 *
 * Sequences hold blocks, not ranges, so memory does not fragment; a block's number is the same in every layer.  Full
 * blocks may be held by several sequences, and keep what they hold after the last of them, see prefix.c. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/private.h"

bool moe_kv_layer_bytes(const struct moe_attention *a, enum moe_kv_type t, size_t *bytes)
{
	size_t n;

	return moe_mul_size((size_t)a->kv_heads, moe_kv_vector_bytes(t, a->head_dim), &n) &&
	       moe_mul_size(n, 2 * MOE_KV_BLOCK, bytes);
}

bool moe_kv_block_bytes(const struct moe_model *m, enum moe_kv_type t, size_t *bytes)
{
	size_t sum = 0;

	for (int l = 0; l < m->n_layers; l++) {
		size_t n;

		if (!moe_kv_layer_bytes(&m->layers[l].attn, t, &n) || !moe_add_size(sum, n, &sum))
			return false;
	}
	*bytes = sum;
	return true;
}

int moe_kv_blocks_for(int positions)
{
	return positions / MOE_KV_BLOCK + (positions % MOE_KV_BLOCK != 0);
}

static int take_memory(const struct moe_kv_place *p, size_t bytes, void **mem, struct moe_err *e)
{
	return p->pinned ? p->b->ops->alloc_pinned(p->b, bytes, mem, e) : p->b->ops->alloc(p->b, bytes, mem, e);
}

static void release_memory(const struct moe_kv_place *p, void *mem)
{
	if (p->pinned)
		p->b->ops->release_pinned(p->b, mem);
	else
		p->b->ops->release(p->b, mem);
}

int moe_kv_open(struct moe_kv *kv, struct moe_kv_place place, const struct moe_model *m, enum moe_kv_type t, int n_blocks,
                bool share, struct moe_err *e)
{
	size_t bytes, at = 0;
	void *mem = NULL;

	*kv = (struct moe_kv){.place = place, .type = t, .n_blocks = n_blocks, .n_free = n_blocks, .share = share};
	if (!moe_kv_block_bytes(m, t, &kv->block_bytes) || !moe_mul_size(kv->block_bytes, (size_t)n_blocks, &bytes))
		return moe_fail(e, MOE_E_NOMEM, "the KV cache's size overflows");
	kv->layer_at = moe_calloc((size_t)m->n_layers, sizeof *kv->layer_at, "the KV cache", e);
	kv->free = moe_calloc((size_t)n_blocks, sizeof *kv->free, "the KV cache", e);
	kv->holders = moe_calloc((size_t)n_blocks, sizeof *kv->holders, "the KV cache", e);
	if (!kv->layer_at || !kv->free || !kv->holders || moe_prefix_open(&kv->prefix, n_blocks, e) != 0) {
		moe_kv_close(kv);
		return MOE_E_NOMEM;
	}
	for (int l = 0; l < m->n_layers; l++) {
		size_t n = 0;

		moe_kv_layer_bytes(&m->layers[l].attn, t, &n);
		kv->layer_at[l] = at;
		at += n;
	}
	for (int i = 0; i < n_blocks; i++)
		kv->free[i] = n_blocks - 1 - i;

	int rc = take_memory(&place, bytes, &mem, e);

	kv->mem = mem;
	if (rc != 0)
		moe_kv_close(kv);
	return rc;
}

void moe_kv_close(struct moe_kv *kv)
{
	if (kv->mem)
		release_memory(&kv->place, kv->mem);
	free(kv->layer_at);
	free(kv->free);
	free(kv->holders);
	moe_prefix_close(&kv->prefix);
	*kv = (struct moe_kv){0};
}

bool moe_kv_take(struct moe_kv *kv, int32_t *blocks, int n)
{
	if (n > kv->n_free + kv->prefix.n_idle)
		return false;
	for (int i = 0; i < n; i++) {
		blocks[i] = kv->n_free > 0 ? kv->free[--kv->n_free] : moe_prefix_evict(&kv->prefix);
		kv->holders[blocks[i]] = 1;
	}
	return true;
}

void moe_kv_hold(struct moe_kv *kv, int32_t block)
{
	if (kv->holders[block]++ == 0)
		moe_prefix_wake(&kv->prefix, block);
}

void moe_kv_give(struct moe_kv *kv, const int32_t *blocks, int n)
{
	for (int i = n - 1; i >= 0; i--) {
		int32_t b = blocks[i];

		if (--kv->holders[b] > 0)
			continue;
		if (kv->prefix.block[b].serial)
			moe_prefix_idle(&kv->prefix, b);
		else
			kv->free[kv->n_free++] = b;
	}
}

/* Whole pages only: what a block shares with its neighbours stays. */
static void release_pages(const struct moe_kv *kv, int32_t block)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)kv->mem + (uintptr_t)block * kv->block_bytes;
	uintptr_t first = (from + page - 1) / page * page, last = (from + kv->block_bytes) / page * page;

	if (last > first) /* only advice, as far as answers are concerned */
		(void)madvise((void *)first, last - first, MADV_DONTNEED);
}

void moe_kv_give_back(struct moe_kv *kv)
{
	while (kv->prefix.n_idle > 0)
		kv->free[kv->n_free++] = moe_prefix_evict(&kv->prefix);
	if (kv->place.pinned || !kv->place.b->ops->host_memory)
		return; /* not the system's to take */
	for (int i = 0; i < kv->n_free; i++)
		release_pages(kv, kv->free[i]);
}

int moe_kv_held(const struct moe_kv *kv)
{
	return kv->n_blocks - kv->n_free - kv->prefix.n_idle;
}

struct moe_kv_view moe_kv_view(const struct moe_kv *kv, int layer)
{
	return (struct moe_kv_view){kv->mem + kv->layer_at[layer], kv->block_bytes, kv->type};
}
