/* Placements as data. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "plan/plan.h"

#define MAX_ENTRIES (INT_MAX / 2) /* experts and replicas of a model: indexes are ints */

void moe_placement_free(struct moe_placement *p)
{
	free(p->experts);
	free(p->start);
	free(p->first);
	free(p->device);
	*p = (struct moe_placement){0};
}

int moe_placement_copy(const struct moe_placement *p, struct moe_placement *out, struct moe_err *e)
{
	size_t layers = (size_t)p->layers, total = (size_t)p->start[p->layers], ids = (size_t)p->first[total];
	struct moe_placement c = {.layers = p->layers, .devices = p->devices};

	c.experts = moe_calloc(layers, sizeof *c.experts, "placement", e);
	c.start = moe_calloc(layers + 1, sizeof *c.start, "placement", e);
	c.first = moe_calloc(total + 1, sizeof *c.first, "placement", e);
	c.device = moe_calloc(ids, sizeof *c.device, "placement", e);
	if (!c.experts || !c.start || !c.first || !c.device) {
		moe_placement_free(&c);
		return MOE_E_NOMEM;
	}
	memcpy(c.experts, p->experts, layers * sizeof *c.experts);
	memcpy(c.start, p->start, (layers + 1) * sizeof *c.start);
	memcpy(c.first, p->first, (total + 1) * sizeof *c.first);
	memcpy(c.device, p->device, ids * sizeof *c.device);
	*out = c;
	return 0;
}

const int *moe_placement_of(const struct moe_placement *p, int layer, int expert, int *n)
{
	int i;

	*n = 0;
	if (layer < 0 || layer >= p->layers || expert < 0 || expert >= p->experts[layer])
		return NULL;
	i = p->start[layer] + expert;
	*n = p->first[i + 1] - p->first[i];
	return p->device + p->first[i];
}

bool moe_placement_holds(const struct moe_placement *p, int device, int layer, int expert)
{
	int n;
	const int *ids = moe_placement_of(p, layer, expert, &n);

	for (int i = 0; i < n; i++)
		if (ids[i] == device)
			return true;
	return false;
}

static int allocate(const struct moe_model *m, struct moe_placement *p, struct moe_err *e)
{
	size_t layers = (size_t)m->n_layers, total = 0;

	p->layers = m->n_layers;
	p->experts = moe_calloc(layers, sizeof *p->experts, "placement", e);
	p->start = moe_calloc(layers + 1, sizeof *p->start, "placement", e);
	if (!p->experts || !p->start)
		return MOE_E_NOMEM;
	for (size_t l = 0; l < layers; l++) {
		p->experts[l] = m->layers[l].ffn.experts;
		p->start[l] = (int)total;
		total += (size_t)p->experts[l];
		if (total > MAX_ENTRIES)
			return moe_fail(e, MOE_E_RANGE, "placement: too many experts");
	}
	p->start[layers] = (int)total;
	p->first = moe_calloc(total + 1, sizeof *p->first, "placement", e);
	return p->first ? 0 : MOE_E_NOMEM;
}

/* Ids in range, none twice. */
static int check_ids(const int *ids, int n, int devices, int layer, int expert, struct moe_err *e)
{
	if (n < 1 || n > devices)
		return moe_fail(e, MOE_E_INPUT, "placement: layer %d, expert %d: %d devices of %d", layer, expert, n, devices);
	for (int i = 0; i < n; i++) {
		if (ids[i] < 0 || ids[i] >= devices)
			return moe_fail(e, MOE_E_INPUT, "placement: layer %d, expert %d: no device %d (0 to %d exist)", layer,
			                expert, ids[i], devices - 1);
		for (int k = 0; k < i; k++)
			if (ids[k] == ids[i])
				return moe_fail(e, MOE_E_INPUT, "placement: layer %d, expert %d: device %d is named twice", layer,
				                expert, ids[i]);
	}
	return 0;
}

static int append(struct moe_placement *p, size_t *cap, const int *ids, int n, struct moe_err *e)
{
	int i = p->start[p->layers], *grown; /* counts the experts added while the lists are made */
	size_t used = (size_t)p->first[i], need = used + (size_t)n;

	if (need > MAX_ENTRIES)
		return moe_fail(e, MOE_E_RANGE, "placement: too many replicas");
	if (need > *cap) {
		grown = moe_realloc(p->device, 2 * need, sizeof *p->device, "placement", e);
		if (!grown)
			return MOE_E_NOMEM;
		p->device = grown;
		*cap = 2 * need;
	}
	memcpy(p->device + used, ids, (size_t)n * sizeof *ids);
	p->first[i + 1] = (int)need;
	p->start[p->layers] = i + 1;
	return 0;
}

static int fill(struct moe_placement *p, moe_placement_map *map, void *ctx, struct moe_err *e)
{
	int *ids = moe_calloc((size_t)p->devices, sizeof *ids, "placement", e), rc = ids ? 0 : MOE_E_NOMEM;
	size_t cap = 0;

	p->start[p->layers] = 0;
	for (int l = 0; l < p->layers; l++)
		for (int x = 0; x < p->experts[l] && rc == 0; x++) {
			int n = map(ctx, l, x, ids, p->devices);

			rc = check_ids(ids, n, p->devices, l, x, e);
			if (rc == 0)
				rc = append(p, &cap, ids, n, e);
		}
	free(ids);
	return rc;
}

int moe_placement_make(const struct moe_model *m, int devices, moe_placement_map *map, void *ctx,
                       struct moe_placement *out, struct moe_err *e)
{
	struct moe_placement p = {.devices = devices};
	int rc;

	if (devices < 1 || devices > MOE_MAX_DEVICES)
		return moe_fail(e, MOE_E_RANGE, "%d devices: from 1 to %d are possible", devices, MOE_MAX_DEVICES);
	rc = allocate(m, &p, e);
	if (rc == 0)
		rc = fill(&p, map, ctx, e);
	if (rc)
		moe_placement_free(&p);
	else
		*out = p;
	return rc;
}

double moe_placement_imbalance(const struct moe_placement *p, moe_expert_bytes *bytes, void *ctx)
{
	double *load = calloc((size_t)p->devices + 1, sizeof *load), most = 0, sum = 0;
	int n;

	if (!load)
		return 0;
	for (int l = 0; l < p->layers; l++)
		for (int x = 0; x < p->experts[l]; x++) {
			const int *ids = moe_placement_of(p, l, x, &n);

			for (int i = 0; i < n; i++)
				load[ids[i]] += (double)bytes(ctx, l, x);
		}
	for (int d = 0; d < p->devices; d++) {
		most = load[d] > most ? load[d] : most;
		sum += load[d];
	}
	free(load);
	return sum > 0 ? most / (sum / p->devices) - 1 : 0;
}

int moe_placement_fits(const struct moe_placement *p, const struct moe_device *devices, moe_expert_bytes *bytes, void *ctx,
                       struct moe_err *e)
{
	uint64_t *load = moe_calloc((size_t)p->devices, sizeof *load, "placement", e);
	char needed[32], available[32];
	int n, rc = load ? 0 : MOE_E_NOMEM;

	for (int l = 0; l < p->layers && rc == 0; l++)
		for (int x = 0; x < p->experts[l]; x++) {
			const int *ids = moe_placement_of(p, l, x, &n);

			for (int i = 0; i < n; i++)
				load[ids[i]] += bytes(ctx, l, x);
		}
	for (int d = 0; d < p->devices && rc == 0; d++)
		if (devices[d].memory && load[d] > devices[d].memory)
			rc = moe_fail(e, MOE_E_RANGE, "device %d: %s (%llu bytes) of experts needed, %s (%llu bytes) available", d,
			              moe_size_text((double)load[d], needed), (unsigned long long)load[d],
			              moe_size_text((double)devices[d].memory, available), (unsigned long long)devices[d].memory);
	free(load);
	return rc;
}
