/* Prefixes: blocks of the KV cache that sequences share.
 *
 * A block is published when all its 64 positions are computed.  It is known by its own tokens and by the block before
 * it, so by all tokens from the start of a sequence: published blocks form a tree.  Tokens are compared, a hash only
 * finds the place to look.  A block that nobody holds stays published until its memory is wanted, the one that was let
 * go longest ago first; a sequence lets its last block go first, so a tree loses its leaves before its root.
 *
 * A position's keys and values have the same bits whoever computes them (doc/numerics.md), so sharing never shows.  Those of which experts
 * were left out, and all behind them, are the exception: they are never published. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/private.h"

/* ---- published blocks ---- */

struct key {
	uint64_t parent;
	int32_t tokens[MOE_KV_BLOCK];
};

static int32_t *bucket_of(const struct moe_prefix *x, uint64_t parent, const int32_t *tokens)
{
	struct key k = {.parent = parent};

	memcpy(k.tokens, tokens, sizeof k.tokens);
	return &x->bucket[moe_hash(&k, sizeof k) & (x->n_buckets - 1)];
}

static size_t buckets_for(int n_blocks)
{
	size_t n = 16;

	while (n < (size_t)n_blocks)
		n *= 2;
	return n;
}

size_t moe_prefix_bytes(int n_blocks)
{
	return (size_t)n_blocks * sizeof(struct moe_prefix_block) + buckets_for(n_blocks) * sizeof(int32_t);
}

int moe_prefix_open(struct moe_prefix *x, int n_blocks, struct moe_err *e)
{
	*x = (struct moe_prefix){.n_buckets = buckets_for(n_blocks), .oldest = -1, .newest = -1};
	x->block = moe_calloc((size_t)n_blocks, sizeof *x->block, "the KV cache", e);
	x->bucket = moe_calloc(x->n_buckets, sizeof *x->bucket, "the KV cache", e);
	if (!x->block || !x->bucket)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < x->n_buckets; i++)
		x->bucket[i] = -1;
	return 0;
}

void moe_prefix_close(struct moe_prefix *x)
{
	free(x->block);
	free(x->bucket);
	*x = (struct moe_prefix){0};
}

static int32_t find(const struct moe_prefix *x, uint64_t parent, const int32_t *tokens)
{
	for (int32_t b = *bucket_of(x, parent, tokens); b >= 0; b = x->block[b].next)
		if (x->block[b].parent == parent && memcmp(x->block[b].tokens, tokens, sizeof x->block[b].tokens) == 0)
			return b;
	return -1;
}

static void publish(struct moe_prefix *x, int32_t block, uint64_t parent, const int32_t *tokens)
{
	struct moe_prefix_block *p = &x->block[block];
	int32_t *bucket = bucket_of(x, parent, tokens);

	p->serial = ++x->last_serial;
	p->parent = parent;
	memcpy(p->tokens, tokens, sizeof p->tokens);
	p->next = *bucket;
	*bucket = block;
}

static void withdraw(struct moe_prefix *x, int32_t block)
{
	int32_t *at = bucket_of(x, x->block[block].parent, x->block[block].tokens);

	while (*at != block)
		at = &x->block[*at].next;
	*at = x->block[block].next;
	x->block[block].serial = 0;
}

/* ---- those that nobody holds, by the time they were let go ---- */

void moe_prefix_idle(struct moe_prefix *x, int32_t block)
{
	struct moe_prefix_block *p = &x->block[block];

	p->older = x->newest;
	p->newer = -1;
	if (x->newest >= 0)
		x->block[x->newest].newer = block;
	else
		x->oldest = block;
	x->newest = block;
	x->n_idle++;
}

void moe_prefix_wake(struct moe_prefix *x, int32_t block)
{
	struct moe_prefix_block *p = &x->block[block];

	if (p->older >= 0)
		x->block[p->older].newer = p->newer;
	else
		x->oldest = p->newer;
	if (p->newer >= 0)
		x->block[p->newer].older = p->older;
	else
		x->newest = p->older;
	x->n_idle--;
}

int32_t moe_prefix_evict(struct moe_prefix *x)
{
	int32_t block = x->oldest;

	moe_prefix_wake(x, block);
	withdraw(x, block);
	return block;
}

/* ---- sequences ---- */

/* A published block with the next 64 tokens of the prompt, or -1.  The prompt's last position is always computed: its
 * logits are wanted.  A scored prompt wants all of them. */
static int32_t next_shared(const struct moe_kv *kv, const struct moe_seq *s)
{
	if (!kv->share || s->score || moe_seq_degraded(s) || s->n_done % MOE_KV_BLOCK != 0 || s->n_done + MOE_KV_BLOCK >= s->n_prompt)
		return -1;
	return find(&kv->prefix, s->parent, s->prompt + s->n_done);
}

/* Skip what block holds. */
static void skip(struct moe_kv *kv, struct moe_seq *s, int32_t block)
{
	moe_kv_hold(kv, block);
	s->blocks[s->n_done / MOE_KV_BLOCK] = block;
	s->parent = kv->prefix.block[block].serial;
	s->n_published++;
	s->n_done += MOE_KV_BLOCK;
	s->n_cached += MOE_KV_BLOCK;
}

bool moe_prefix_admit(struct moe_kv *kv, struct moe_seq *s)
{
	int32_t block;
	int shared;

	while ((block = next_shared(kv, s)) >= 0)
		skip(kv, s, block);
	shared = s->n_done / MOE_KV_BLOCK;
	if (moe_kv_take(kv, s->blocks + shared, s->n_blocks - shared)) {
		s->holds_blocks = true;
		return true;
	}
	moe_kv_give(kv, s->blocks, shared);
	s->n_done = s->n_cached = s->n_published = 0;
	s->parent = 0;
	return false;
}

void moe_prefix_skip(struct moe_kv *kv, struct moe_seq *s)
{
	int32_t block;

	while ((block = next_shared(kv, s)) >= 0) {
		moe_kv_give(kv, &s->blocks[s->n_done / MOE_KV_BLOCK], 1);
		skip(kv, s, block);
	}
}

/* Block i of s is full.  If somebody has published the same meanwhile, share that one. */
static void filled(struct moe_kv *kv, struct moe_seq *s, int i)
{
	int32_t tokens[MOE_KV_BLOCK], same;

	for (int t = 0; t < MOE_KV_BLOCK; t++)
		tokens[t] = moe_seq_input(s, i * MOE_KV_BLOCK + t);
	same = find(&kv->prefix, s->parent, tokens);
	if (same < 0) {
		publish(&kv->prefix, s->blocks[i], s->parent, tokens);
	} else {
		moe_kv_hold(kv, same);
		moe_kv_give(kv, &s->blocks[i], 1);
		s->blocks[i] = same;
	}
	s->parent = kv->prefix.block[s->blocks[i]].serial;
}

void moe_prefix_publish(struct moe_kv *kv, struct moe_seq *s, int positions)
{
	if (positions > s->n_exact)
		positions = s->n_exact;
	for (; kv->share && s->n_published < positions / MOE_KV_BLOCK; s->n_published++)
		filled(kv, s, s->n_published);
}
