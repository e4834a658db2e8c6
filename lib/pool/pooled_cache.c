/* Which expert is in which slot, and who goes. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "pool/pooled.h"

/* Uses an expert has on average between two halvings: enough to tell popular experts from others, few enough to follow a change of
 * subject. */
#define USES_KEPT 16

int moe_pool_cache_open(struct moe_pool_cache *c, int slots, int experts, enum moe_evict evict, struct moe_err *e)
{
	*c = (struct moe_pool_cache){.evict = evict, .slots = slots, .experts = experts, .halve = (uint64_t)experts * USES_KEPT};
	c->expert = moe_calloc((size_t)slots, sizeof *c->expert, "slots", e);
	c->held = moe_calloc((size_t)slots, sizeof *c->held, "slots", e);
	c->slot = moe_calloc((size_t)experts, sizeof *c->slot, "experts", e);
	c->uses = moe_calloc((size_t)experts, sizeof *c->uses, "experts", e);
	c->last = moe_calloc((size_t)experts, sizeof *c->last, "experts", e);
	if (!c->expert || !c->held || !c->slot || !c->uses || !c->last)
		return MOE_E_NOMEM;
	for (int i = 0; i < slots; i++)
		c->expert[i] = -1;
	for (int i = 0; i < experts; i++)
		c->slot[i] = -1;
	return 0;
}

void moe_pool_cache_close(struct moe_pool_cache *c)
{
	free(c->expert);
	free(c->held);
	free(c->slot);
	free(c->uses);
	free(c->last);
}

int moe_pool_cache_use(struct moe_pool_cache *c, int expert)
{
	int slot = c->slot[expert];

	c->last[expert] = ++c->now;
	c->uses[expert]++;
	if (c->now >= c->halve) {
		for (int i = 0; i < c->experts; i++)
			c->uses[i] /= 2;
		c->halve = c->now + (uint64_t)c->experts * USES_KEPT;
	}
	if (slot >= 0)
		c->held[slot] = true;
	return slot;
}

/* Shall a go before b?  Layers come in turn, so of experts that are needed equally often the one needed last is the last to be needed
 * again: if the oldest went, large batches, which need nearly all experts of a layer, would never find one. */
static bool before(const struct moe_pool_cache *c, int a, int b)
{
	if (c->evict == MOE_EVICT_LRU)
		return c->last[a] < c->last[b];
	return c->uses[a] != c->uses[b] ? c->uses[a] < c->uses[b] : c->last[a] > c->last[b];
}

/* An empty slot, or that of who goes; -1: all are held. */
static int choose(const struct moe_pool_cache *c)
{
	int best = -1;

	for (int i = 0; i < c->slots; i++) {
		if (c->expert[i] < 0)
			return i;
		if (!c->held[i] && (best < 0 || before(c, c->expert[i], c->expert[best])))
			best = i;
	}
	return best;
}

int moe_pool_cache_put(struct moe_pool_cache *c, int expert)
{
	int slot = choose(c);

	if (slot < 0)
		return -1;
	if (c->expert[slot] >= 0) {
		c->slot[c->expert[slot]] = -1;
		c->evictions++;
	}
	c->expert[slot] = expert;
	c->slot[expert] = slot;
	c->held[slot] = true;
	return slot;
}

void moe_pool_cache_let(struct moe_pool_cache *c, int expert)
{
	if (c->slot[expert] >= 0)
		c->held[c->slot[expert]] = false;
}

void moe_pool_cache_drop(struct moe_pool_cache *c, int expert)
{
	int slot = c->slot[expert];

	if (slot < 0)
		return;
	c->held[slot] = false;
	c->expert[slot] = -1;
	c->slot[expert] = -1;
}
