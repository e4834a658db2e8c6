/* The stations of a page.  After opening nothing of a pager changes but the bytes in staging, relay and slots, so stations need no locks;
 * schedule.h orders those that touch the same page.  A page has the same place in every layer's image, so that different pages never
 * touch the same bytes of staging and relay, whatever layers they belong to. */
#include <string.h>

#include "pool/private.h"

/* ---- pieces of the tensors ---- */

struct copy {
	const struct moe_pager *p;
	unsigned char *to;           /* where the image would begin */
	const struct moe_map *cut;   /* a mapping that had lost bytes */
};

static void copy_piece(void *ctx, size_t at, const unsigned char *data, size_t bytes)
{
	struct copy *c = ctx;
	const struct moe_map *map = moe_pool_map_of(&c->p->maps, data);

	memcpy(c->to + at, data, bytes);
	if (map && moe_map_check(map, NULL))
		c->cut = map;
}

int moe_pager_copy(const struct moe_pager *p, unsigned char *to, int layer, size_t from, size_t end, struct moe_err *e)
{
	struct copy c = {p, to, NULL};

	moe_pager_pieces(&p->plan, layer, from, end, copy_piece, &c);
	return c.cut ? moe_map_check(c.cut, e) : 0;
}

struct advise {
	const struct moe_pager *p;
	enum moe_pool_advice advice;
};

static void advise_piece(void *ctx, size_t at, const unsigned char *data, size_t bytes)
{
	const struct advise *a = ctx;

	(void)at;
	moe_pool_advise(&a->p->maps, data, bytes, a->advice);
}

static void advise(const struct moe_pager *p, int layer, int page, enum moe_pool_advice advice)
{
	size_t from = (size_t)page * p->plan.sizes.page;
	struct advise a = {p, advice};

	moe_pager_pieces(&p->plan, layer, from, from + moe_pager_page_bytes(p, layer, page), advise_piece, &a);
}

/* ---- the stations ---- */

size_t moe_pager_page_bytes(const struct moe_pager *p, int layer, int page)
{
	size_t from = (size_t)page * p->plan.sizes.page, left;

	if (from >= p->plan.moved[layer])
		return 0;
	left = p->plan.moved[layer] - from;
	return left < p->plan.sizes.page ? left : p->plan.sizes.page;
}

static int check_page(const struct moe_pager *p, int layer, int page, struct moe_err *e)
{
	if (layer < 0 || layer >= p->plan.n_layers || page < 0 || page >= p->pages)
		return moe_fail(e, MOE_E_RANGE, "layer %d of %d, page %d of %d", layer, p->plan.n_layers, page, p->pages);
	return 0;
}

/* The page that is read after this one, going round; false: there is no other. */
static bool next_page(const struct moe_pager *p, int *layer, int *page)
{
	if (*page + 1 < p->pages && moe_pager_page_bytes(p, *layer, *page + 1)) {
		++*page;
		return true;
	}
	for (int i = 1; i < p->plan.n_layers; i++) {
		int next = (*layer + i) % p->plan.n_layers;

		if (p->plan.moved[next] == 0)
			continue;
		*layer = next;
		*page = 0;
		return true;
	}
	return false;
}

int moe_pager_read(struct moe_pager *p, int layer, int page, struct moe_err *e)
{
	unsigned char *to = p->staging ? p->staging : p->relay;
	int next_layer = layer, next = page, rc = check_page(p, layer, page, e);
	size_t from, bytes;

	if (rc)
		return rc;
	if (!p->reads)
		return moe_fail(e, MOE_E_RANGE, "pages are not read from disk here");
	from = (size_t)page * p->plan.sizes.page;
	bytes = moe_pager_page_bytes(p, layer, page);
	if (bytes == 0)
		return 0;
	if (next_page(p, &next_layer, &next))
		advise(p, next_layer, next, MOE_POOL_COMING);
	advise(p, layer, page, MOE_POOL_NOW);
	rc = moe_pager_copy(p, to, layer, from, from + bytes, e);
	/* Weights are gone through in a circle, where a cache that drops what was used longest ago drops what is needed next, and keeps
	 * nothing.  So as much as memory holds stays, and the rest leaves at once. */
	if (p->before[layer] + from + bytes > p->kept)
		advise(p, layer, page, MOE_POOL_GONE);
	return rc;
}

int moe_pager_pin(struct moe_pager *p, int layer, int page, struct moe_err *e)
{
	int rc = check_page(p, layer, page, e);
	size_t from, bytes;

	if (rc)
		return rc;
	if (!p->pins)
		return moe_fail(e, MOE_E_RANGE, "pages are in pinned memory already");
	from = (size_t)page * p->plan.sizes.page;
	bytes = moe_pager_page_bytes(p, layer, page);
	if (bytes == 0)
		return 0;
	if (!p->staging)
		return moe_pager_copy(p, p->relay, layer, from, from + bytes, e);
	memcpy(p->relay + from, p->staging + from, bytes);
	return 0;
}

int moe_pager_load(struct moe_pager *p, struct moe_stream_q *q, int layer, int page, int slot, struct moe_err *e)
{
	int rc = check_page(p, layer, page, e);
	size_t from, bytes;

	if (rc)
		return rc;
	if (slot != 0 && slot != 1)
		return moe_fail(e, MOE_E_RANGE, "slot %d of 2", slot);
	from = (size_t)page * p->plan.sizes.page;
	bytes = moe_pager_page_bytes(p, layer, page);
	if (bytes == 0)
		return 0;
	return p->device->ops->copy_in(p->device, q, p->slots + (size_t)slot * p->plan.sizes.layer + from,
	                               p->relay + (p->pinned_all ? p->before[layer] : 0) + from, bytes, e);
}

const struct moe_expert_weights *moe_pager_experts(const struct moe_pager *p, int layer, int slot)
{
	return p->table[slot] + moe_pager_index(&p->plan, layer, 0);
}
