/* Which layer gets how much of the devices' memory, and how many copies. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/fleet_plan.h"

uint64_t moe_fleet_need(const struct moe_fleet_plan *f, int layer)
{
	int experts = f->m->layers[layer].ffn.experts;

	if (experts == 0)
		return 0;
	return f->need[layer] + (uint64_t)f->extra[layer] * ((f->need[layer] + (uint64_t)experts - 1) / (uint64_t)experts);
}

uint64_t moe_fleet_kept(const struct moe_fleet_plan *f, int layer, int device)
{
	uint64_t sum = 0;

	for (int x = 0; x < f->m->layers[layer].ffn.experts; x++)
		if (moe_placement_holds(f->q->before, device, layer, x))
			sum += f->q->bytes(f->q->ctx, layer, x);
	return sum;
}

/* ---- a layer's share ---- */

static uint64_t left(const struct moe_fleet_plan *f, int d)
{
	return f->memory[d] - f->used[d];
}

void moe_fleet_raise(const struct moe_fleet_plan *f, int layer, int copies, uint64_t *room)
{
	uint64_t each = moe_fleet_largest(f, layer), experts = (uint64_t)f->m->layers[layer].ffn.experts;
	int64_t slots = 0;

	for (int d = 0; d < f->n && each; d++)
		slots += (int64_t)(room[d] / each < experts ? room[d] / each : experts);
	while (each && slots < copies) {
		int best = -1;

		for (int d = 0; d < f->n; d++)
			if (room[d] / each < experts && (room[d] / each + 1) * each <= left(f, d) &&
			    (best < 0 || room[d] % each > room[best] % each))
				best = d;
		if (best < 0)
			return;
		room[best] = (room[best] / each + 1) * each;
		slots++;
	}
}

void moe_fleet_room(struct moe_fleet_plan *f, int layer, double upto, uint64_t *room)
{
	for (int d = 0; d < f->n; d++) {
		uint64_t may, stay = 0;

		if (f->stays)
			stay = f->kept_so_far[d] += moe_fleet_kept(f, layer, d);
		may = stay + (uint64_t)llround((double)(f->memory[d] - (f->stays ? f->kept[d] : 0)) * upto);
		may = may > f->used[d] ? may - f->used[d] : 0;
		room[d] = may < left(f, d) ? may : left(f, d);
	}
	moe_fleet_raise(f, layer, f->m->layers[layer].ffn.experts + f->extra[layer], room);
}

/* ---- as many copies as pay and fit ---- */

#define PAYS 0.001  /* a copy lowers the layer's worst finishing time by this much of its mean at least */
#define POINTS 24   /* numbers of copies that are tried for a layer: 0, 1, 2, 3, 4, 6, 8, 12, ... */
#define PATIENCE 3  /* points that may pass without a gain before no more are tried */

struct curve {
	int n, at;                   /* points; the one chosen so far */
	int copies[POINTS];
	double worst[POINTS];
	double mean;                 /* no placement finishes earlier */
	uint64_t each;               /* bytes of a copy */
};

static int next_point(int copies)
{
	if (copies < 4)
		return copies + 1;
	return (copies & (copies - 1)) == 0 ? copies + copies / 2 : copies + copies / 3;
}

/* What the layer would have of each memory with that many copies. */
static void trial_room(const struct moe_fleet_plan *f, int layer, int extra, uint64_t *room)
{
	int experts = f->m->layers[layer].ffn.experts;
	double alone = (double)f->need[layer] / (double)f->all;
	double grown = (double)f->need[layer] * (1 + (double)extra / experts) / (double)f->has;

	for (int d = 0; d < f->n; d++) {
		double may = (double)f->memory[d] * fmin(1, fmax(alone, grown));

		room[d] = may < (double)f->need[layer] ? (uint64_t)may : f->need[layer];
	}
	moe_fleet_raise(f, layer, experts + extra, room);
}

static double bound_of(const struct moe_fleet_plan *f, int layer, struct moe_err *e)
{
	struct moe_spread s;
	double bound;

	if (moe_fleet_spread(f->q, layer, 0, f->node, f->nodes, f->speed, &s, e) != 0)
		return -1;
	bound = moe_spread_bound(&s);
	moe_spread_close(&s);
	return bound;
}

static int trace_curve(struct moe_fleet_plan *f, int layer, uint64_t spare, uint64_t *room, struct curve *c, struct moe_err *e)
{
	int experts = f->m->layers[layer].ffn.experts, best = 0;
	int64_t cap = (int64_t)experts * (f->n - 1);

	c->each = moe_fleet_largest(f, layer);
	c->mean = bound_of(f, layer, e);
	if (c->mean < 0)
		return MOE_E_NOMEM;
	if (c->each && (int64_t)(spare / c->each) < cap)
		cap = (int64_t)(spare / c->each);
	for (int copies = 0; copies <= cap && c->n < POINTS && c->n - best <= PATIENCE; copies = next_point(copies)) {
		int rc;

		trial_room(f, layer, copies, room);
		rc = moe_fleet_layer(f, layer, copies, room, true, &c->worst[c->n], e);
		if (rc)
			return rc;
		c->copies[c->n] = copies;
		if (c->worst[c->n] < c->worst[best])
			best = c->n;
		c->n++;
		if (c->worst[best] <= c->mean * (1 + PAYS))
			break;
	}
	return 0;
}

/* The step along a curve that gains most for its bytes, of those that pay and fit; 0: none. */
static double best_step(const struct curve *c, uint64_t spare, int *to)
{
	double most = 0;

	for (int i = c->at + 1; i < c->n; i++) {
		int more = c->copies[i] - c->copies[c->at];
		double gain = (c->worst[c->at] - c->worst[i]) / more;

		if (gain >= PAYS * c->mean && (double)more * (double)c->each <= (double)spare &&
		    gain / (double)(c->each ? c->each : 1) > most) {
			most = gain / (double)(c->each ? c->each : 1);
			*to = i;
		}
	}
	return most;
}

/* Memory goes where it buys most: the sum over layers of what finishes last. */
static void spend(struct moe_fleet_plan *f, struct curve *curves, uint64_t spare)
{
	for (;;) {
		double most = 0;
		int layer = -1, to = 0;

		for (int l = 0; l < f->m->n_layers; l++) {
			int i = 0;
			double gain = best_step(&curves[l], spare, &i);

			if (gain > most) {
				most = gain;
				layer = l;
				to = i;
			}
		}
		if (layer < 0)
			return;
		spare -= (uint64_t)(curves[layer].copies[to] - curves[layer].copies[curves[layer].at]) * curves[layer].each;
		curves[layer].at = to;
		f->extra[layer] = curves[layer].copies[to];
	}
}

/* Bytes beyond one copy of each, in whole slots. */
static uint64_t spare_bytes(const struct moe_fleet_plan *f)
{
	uint64_t each = 0, sum = 0;

	for (int l = 0; l < f->m->n_layers; l++)
		each = moe_fleet_largest(f, l) > each ? moe_fleet_largest(f, l) : each;
	for (int d = 0; d < f->n && each; d++)
		sum += f->memory[d] / each * each;
	return sum > f->all ? sum - f->all : 0;
}

int moe_fleet_choose_replicas(struct moe_fleet_plan *f, struct moe_err *e)
{
	uint64_t spare = spare_bytes(f), *room;
	struct curve *curves;
	int rc = 0;

	for (int l = 0; l < f->m->n_layers; l++)
		f->extra[l] = f->q->replicas > 0 && f->m->layers[l].ffn.experts ? f->q->replicas : 0;
	if (f->q->replicas >= 0 || spare == 0)
		return 0;
	room = moe_calloc((size_t)f->n, sizeof *room, "placement", e);
	curves = moe_calloc((size_t)f->m->n_layers, sizeof *curves, "placement", e);
	if (!room || !curves)
		rc = MOE_E_NOMEM;
	for (int l = 0; l < f->m->n_layers && rc == 0; l++)
		if (f->m->layers[l].ffn.experts)
			rc = trace_curve(f, l, spare, room, &curves[l], e);
	if (rc == 0)
		spend(f, curves, spare);
	free(room);
	free(curves);
	return rc;
}
