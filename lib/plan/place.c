/* Ways to place experts: round robin, balanced by bytes, in proportion to memory. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "plan/plan.h"

/* ---- round robin ---- */

struct round {
	int next, devices;
};

static int deal(void *ctx, int layer, int expert, int *ids, int cap)
{
	struct round *r = ctx;

	(void)layer;
	(void)expert;
	(void)cap;
	ids[0] = r->next;
	r->next = (r->next + 1) % r->devices;
	return 1;
}

int moe_place_round_robin(const struct moe_model *m, int devices, struct moe_placement *out, struct moe_err *e)
{
	struct round r = {.devices = devices};

	return moe_placement_make(m, devices, deal, &r, out, e);
}

/* ---- what the two others share: experts of a layer, largest first, each to the device that a rule picks ---- */

struct item {
	int expert;
	uint64_t bytes;
};

struct packing {
	const struct moe_model *m;
	const struct moe_device *devices; /* NULL: all alike, no limit */
	int n;
	moe_expert_bytes *bytes;
	void *ctx;
	struct item *items;   /* [experts of the layer] */
	int *start, *owner;   /* layer's first; expert -> device */
	uint64_t *used;       /* [n] bytes placed so far */
	uint64_t *layer_used; /* [n] of them in this layer */
	double *share;        /* [n] what of all bytes each should hold; sums to 1 */
	uint64_t placed;      /* bytes of the layers before and of this one */
};

static int larger_first(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? 1 : -1;
	return (x->expert > y->expert) - (x->expert < y->expert);
}

static void list_layer(struct packing *p, int layer)
{
	int n = p->m->layers[layer].ffn.experts;

	for (int x = 0; x < n; x++) {
		p->items[x] = (struct item){x, p->bytes(p->ctx, layer, x)};
		p->placed += p->items[x].bytes;
	}
	qsort(p->items, (size_t)n, sizeof *p->items, larger_first);
	memset(p->layer_used, 0, (size_t)p->n * sizeof *p->layer_used);
}

static void give(struct packing *p, int layer, const struct item *x, int device)
{
	p->owner[p->start[layer] + x->expert] = device;
	p->used[device] += x->bytes;
	p->layer_used[device] += x->bytes;
}

static uint64_t room(const struct packing *p, int d)
{
	uint64_t memory = p->devices ? p->devices[d].memory : 0;

	return memory == 0 ? UINT64_MAX : memory > p->used[d] ? memory - p->used[d] : 0;
}

/* The device with the least of this layer, then the least in all. */
static int pick_balanced(const struct packing *p, const struct item *x, uint64_t layer_bytes)
{
	int best = 0;

	(void)x;
	(void)layer_bytes;
	for (int d = 1; d < p->n; d++)
		if (p->layer_used[d] < p->layer_used[best] ||
		    (p->layer_used[d] == p->layer_used[best] && p->used[d] < p->used[best]))
			best = d;
	return best;
}

/* The device that lacks most of its share of everything up to this layer, among those with room.  A device's share of
 * this layer alone (rounded up) is a soft limit: no layer piles up on one device to make up for earlier ones. */
static int pick_capacity(const struct packing *p, const struct item *x, uint64_t layer_bytes)
{
	int best = -1;
	double most = 0;
	bool best_soft = false;

	for (int d = 0; d < p->n; d++) {
		double lack = p->share[d] * (double)p->placed - (double)p->used[d];
		bool soft = (double)p->layer_used[d] < p->share[d] * (double)layer_bytes;

		if (room(p, d) < x->bytes)
			continue;
		if (best < 0 || (soft && !best_soft) || (soft == best_soft && lack > most)) {
			best = d;
			most = lack;
			best_soft = soft;
		}
	}
	return best;
}

typedef int pick_device(const struct packing *p, const struct item *x, uint64_t layer_bytes);

/* False: an expert found no device. */
static bool pack(struct packing *p, pick_device *pick)
{
	p->placed = 0;
	memset(p->used, 0, (size_t)p->n * sizeof *p->used);
	for (int l = 0; l < p->m->n_layers; l++) {
		uint64_t before = p->placed;

		list_layer(p, l);
		for (int i = 0; i < p->m->layers[l].ffn.experts; i++) {
			int d = pick(p, &p->items[i], p->placed - before);

			if (d < 0)
				return false;
			give(p, l, &p->items[i], d);
		}
	}
	return true;
}

static int owner_of(void *ctx, int layer, int expert, int *ids, int cap)
{
	const struct packing *p = ctx;

	(void)cap;
	ids[0] = p->owner[p->start[layer] + expert];
	return 1;
}

static int packing_open(struct packing *p, struct moe_err *e)
{
	size_t total = 0, widest = 0, n = (size_t)p->n;

	if (p->n < 1 || p->n > MOE_MAX_DEVICES)
		return moe_fail(e, MOE_E_RANGE, "%d devices: from 1 to %d are possible", p->n, MOE_MAX_DEVICES);
	p->start = moe_calloc((size_t)p->m->n_layers + 1, sizeof *p->start, "placement", e);
	if (!p->start)
		return MOE_E_NOMEM;
	for (int l = 0; l < p->m->n_layers; l++) {
		size_t experts = (size_t)p->m->layers[l].ffn.experts;

		p->start[l] = (int)total;
		total += experts;
		widest = experts > widest ? experts : widest;
	}
	p->items = moe_calloc(widest, sizeof *p->items, "placement", e);
	p->owner = moe_calloc(total, sizeof *p->owner, "placement", e);
	p->used = moe_calloc(n, sizeof *p->used, "placement", e);
	p->layer_used = moe_calloc(n, sizeof *p->layer_used, "placement", e);
	p->share = moe_calloc(n, sizeof *p->share, "placement", e);
	return p->items && p->owner && p->used && p->layer_used && p->share ? 0 : MOE_E_NOMEM;
}

static void packing_close(struct packing *p)
{
	free(p->start);
	free(p->items);
	free(p->owner);
	free(p->used);
	free(p->layer_used);
	free(p->share);
}

int moe_place_balanced(const struct moe_model *m, int devices, moe_expert_bytes *bytes, void *ctx,
                       struct moe_placement *out, struct moe_err *e)
{
	struct packing p = {.m = m, .n = devices, .bytes = bytes, .ctx = ctx};
	int rc = packing_open(&p, e);

	if (rc == 0) {
		pack(&p, pick_balanced);
		rc = moe_placement_make(m, devices, owner_of, &p, out, e);
	}
	packing_close(&p);
	return rc;
}

/* Memory, where it is unknown the largest known one, over the sum. */
static void set_shares(struct packing *p)
{
	double most = 0, sum = 0;

	for (int d = 0; d < p->n; d++)
		most = (double)p->devices[d].memory > most ? (double)p->devices[d].memory : most;
	if (most == 0)
		most = 1;
	for (int d = 0; d < p->n; d++) {
		p->share[d] = p->devices[d].memory ? (double)p->devices[d].memory : most;
		sum += p->share[d];
	}
	for (int d = 0; d < p->n; d++)
		p->share[d] /= sum;
}

static int does_not_fit(const struct packing *p, struct moe_err *e)
{
	uint64_t need = 0, have = 0, largest = 0;
	char needed[32], available[32], each[32];

	for (int l = 0; l < p->m->n_layers; l++)
		for (int x = 0; x < p->m->layers[l].ffn.experts; x++) {
			uint64_t b = p->bytes(p->ctx, l, x);

			need += b;
			largest = b > largest ? b : largest;
		}
	for (int d = 0; d < p->n; d++)
		have += p->devices[d].memory;
	moe_size_text((double)need, needed);
	moe_size_text((double)have, available);
	moe_size_text((double)largest, each);
	return moe_fail(e, MOE_E_RANGE,
	                "the experts do not fit: %s (%llu bytes) needed in pieces of up to %s, %s (%llu bytes) available on "
	                "%d device%s",
	                needed, (unsigned long long)need, each, available, (unsigned long long)have, p->n,
	                p->n == 1 ? "" : "s");
}

int moe_place_capacity(const struct moe_model *m, const struct moe_device *devices, int n, moe_expert_bytes *bytes,
                       void *ctx, struct moe_placement *out, struct moe_err *e)
{
	struct packing p = {.m = m, .devices = devices, .n = n, .bytes = bytes, .ctx = ctx};
	int rc = packing_open(&p, e);

	if (rc == 0) {
		set_shares(&p);
		rc = pack(&p, pick_capacity) ? 0 : does_not_fit(&p, e);
	}
	if (rc == 0)
		rc = moe_placement_make(m, n, owner_of, &p, out, e);
	packing_close(&p);
	return rc;
}
