/* The pager: memory for what stays on the device and for what passes through, taken and given back; what stays is brought there. */
#include <stdlib.h>

#include "base/mem.h"
#include "base/opts.h"
#include "pool/private.h"

/* ---- opening ---- */

static int check_device(const struct moe_pager *p, struct moe_err *e)
{
	const struct moe_pager_sizes *s = &p->plan.sizes;
	struct moe_device_memory m;
	size_t need = s->resident + s->slots;
	char a[32], b[32], c[32], d[32];

	p->device->ops->memory(p->device, &m);
	if (m.cap == 0 || need <= m.cap - (m.used < m.cap ? m.used : m.cap))
		return 0;
	return moe_fail(e, MOE_E_NOMEM, "experts need %s of the device, %s resident and %s for two slots; %s is left of it",
	                moe_size_text((double)need, a), moe_size_text((double)s->resident, b),
	                moe_size_text((double)s->slots, c), moe_size_text((double)(m.used < m.cap ? m.cap - m.used : 0), d));
}

static int check_host(const struct moe_pager *p, struct moe_err *e)
{
	const struct moe_pager_sizes *s = &p->plan.sizes;
	size_t have = moe_memory_available(), need;
	char a[32], b[32];

	if (moe_add_size(s->pinned, s->staging, &need) && need <= have)
		return 0;
	return moe_fail(e, MOE_E_NOMEM, "experts on their way need %s of the host's memory, %s is available",
	                moe_size_text((double)s->pinned + (double)s->staging, a), moe_size_text((double)have, b));
}

static int take_device(struct moe_pager *p, struct moe_err *e)
{
	const struct moe_backend_ops *ops = p->device->ops;
	const struct moe_pager_sizes *s = &p->plan.sizes;
	void *mem = NULL;
	int rc = s->resident ? ops->alloc(p->device, s->resident, &mem, e) : 0;

	p->resident = mem;
	mem = NULL;
	if (rc == 0 && s->slots)
		rc = ops->alloc(p->device, s->slots, &mem, e);
	p->slots = mem;
	return rc ? moe_fail_prefix(e, rc, "experts on the device") : 0;
}

static int take_host(struct moe_pager *p, struct moe_err *e)
{
	const struct moe_pager_sizes *s = &p->plan.sizes;
	void *mem = NULL;
	int rc = s->pinned ? p->device->ops->alloc_pinned(p->device, s->pinned, &mem, e) : 0;

	p->relay = mem;
	if (rc == 0 && s->staging) {
		p->staging = moe_aligned(s->staging, "staged experts", e);
		rc = p->staging ? 0 : MOE_E_NOMEM;
	}
	return rc;
}

static int place_images(struct moe_pager *p, struct moe_err *e)
{
	size_t sum = 0;

	p->before = moe_calloc((size_t)p->plan.n_layers, sizeof *p->before, "images", e);
	for (int l = 0; p->before && l < p->plan.n_layers; l++) {
		p->before[l] = sum;
		sum += p->plan.moved[l];
	}
	return p->before ? 0 : MOE_E_NOMEM;
}

static int make_tables(struct moe_pager *p, struct moe_err *e)
{
	const struct moe_pager_plan *y = &p->plan;
	size_t n = (size_t)y->n_layers * (size_t)y->max_experts;

	for (int slot = 0; slot < 2; slot++) {
		p->table[slot] = moe_calloc(n, sizeof *p->table[slot], "page table", e);
		if (!p->table[slot])
			return MOE_E_NOMEM;
		for (int l = 0; l < y->n_layers; l++)
			for (int i = 0; i < y->experts[l]; i++) {
				size_t k = moe_pager_index(y, l, i);
				const unsigned char *base = i < y->residents[l] ? p->resident : p->slots + (size_t)slot * y->sizes.layer;

				p->table[slot][k] = moe_pool_at(&y->w[k], base + y->at[k]);
			}
	}
	return 0;
}

/* ---- what is copied once ---- */

/* Its bytes have been copied for good. */
static void forget(const struct moe_pager *p, const struct moe_expert_weights *w)
{
	struct moe_pool_part parts[3];

	moe_pool_parts(w, parts);
	for (int i = 0; i < 3; i++)
		moe_pool_advise(&p->maps, parts[i].data, parts[i].bytes, MOE_POOL_COLD);
}

static int bring_residents(struct moe_pager *p, struct moe_err *e)
{
	const struct moe_pager_plan *y = &p->plan;
	int rc = 0, waited;

	for (int l = 0; l < y->n_layers && rc == 0; l++)
		for (int i = 0; i < y->residents[l] && rc == 0; i++) {
			size_t k = moe_pager_index(y, l, i);

			rc = moe_pool_copy_in(p->device, NULL, p->resident + y->at[k], &y->w[k], e);
		}
	waited = p->device->ops->sync(p->device, NULL, rc ? NULL : e);
	for (int l = 0; l < y->n_layers; l++)
		for (int i = 0; i < y->residents[l]; i++)
			forget(p, &y->w[moe_pager_index(y, l, i)]);
	return rc ? rc : waited;
}

static int bring_pinned(struct moe_pager *p, struct moe_err *e)
{
	const struct moe_pager_plan *y = &p->plan;
	int rc = 0;

	for (int l = 0; p->pinned_all && l < y->n_layers && rc == 0; l++) {
		rc = moe_pager_copy(p, p->relay + p->before[l], l, 0, y->moved[l], e);
		for (int i = y->residents[l]; i < y->experts[l]; i++)
			forget(p, &y->w[moe_pager_index(y, l, i)]);
	}
	return rc;
}

/* ---- life ---- */

static int open_all(struct moe_pager *p, const struct moe_model *m, const struct moe_pager_config *c, struct moe_err *e)
{
	int rc = moe_pager_plan_open(m, p->tensors, c, &p->plan, e);

	rc = rc ? rc : moe_pool_maps_open(p->tensors, &p->maps, e);
	rc = rc ? rc : place_images(p, e);
	rc = rc ? rc : check_device(p, e);
	rc = rc ? rc : check_host(p, e);
	rc = rc ? rc : take_device(p, e);
	rc = rc ? rc : take_host(p, e);
	rc = rc ? rc : make_tables(p, e);
	rc = rc ? rc : bring_residents(p, e);
	rc = rc ? rc : bring_pinned(p, e);
	p->kept = moe_memory_available() / 4 * 3; /* others live here too */
	return rc ? rc : moe_tensors_check(p->tensors, e);
}

int moe_pager_open(const struct moe_model *m, const struct moe_tensors *tensors, const struct moe_pager_config *c,
                   struct moe_pager **out, struct moe_err *e)
{
	struct moe_pager *p = moe_calloc(1, sizeof *p, "pager", e);
	int rc;

	if (!p)
		return MOE_E_NOMEM;
	p->device = c->device;
	p->tensors = tensors;
	p->pages = c->pages;
	p->reads = c->from_disk;
	p->pins = !c->pinned;
	p->pinned_all = c->pinned && !c->from_disk;
	rc = open_all(p, m, c, e);
	if (rc) {
		moe_pager_close(p);
		return rc;
	}
	*out = p;
	return 0;
}

void moe_pager_close(struct moe_pager *p)
{
	if (!p)
		return;
	if (p->resident)
		p->device->ops->release(p->device, p->resident);
	if (p->slots)
		p->device->ops->release(p->device, p->slots);
	if (p->relay)
		p->device->ops->release_pinned(p->device, p->relay);
	free(p->staging);
	free(p->before);
	free(p->table[0]);
	free(p->table[1]);
	moe_pool_maps_close(&p->maps);
	moe_pager_plan_close(&p->plan);
	free(p);
}
