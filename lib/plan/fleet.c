/* Placing experts over unlike devices.
 *
 * Layers run one after the other, so each is balanced by itself; what they share is the devices' memory.  First it is decided how
 * many copies each layer gets, then each layer's share of every memory, then each layer is packed and bettered by local search
 * (fleet_pack.c, fleet_search.c).  What a layer leaves over is the next one's. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "plan/fleet.h"
#include "plan/fleet_plan.h"

#define ROUNDS 200               /* disturbances of a layer that is not perfect */
#define EFFORT 400000            /* candidates weighed in a phase of a layer: some 10 ms */

/* ---- opening ---- */

static bool same_host(const struct moe_place_problem *q, int a, int b)
{
	return strcmp(q->devices[a].host, q->devices[b].host) == 0;
}

static void number_nodes(struct moe_fleet_plan *f)
{
	for (int d = 0; d < f->n; d++) {
		f->node[d] = -1;
		for (int k = 0; k < d && f->node[d] < 0; k++)
			if (same_host(f->q, k, d))
				f->node[d] = f->node[k];
		if (f->node[d] < 0)
			f->node[d] = f->nodes++;
	}
}

static uint64_t layer_bytes(const struct moe_fleet_plan *f, int layer)
{
	uint64_t sum = 0;

	for (int x = 0; x < f->m->layers[layer].ffn.experts; x++)
		sum += f->q->bytes(f->q->ctx, layer, x);
	return sum;
}

uint64_t moe_fleet_largest(const struct moe_fleet_plan *f, int layer)
{
	uint64_t most = 0;

	for (int x = 0; x < f->m->layers[layer].ffn.experts; x++) {
		uint64_t b = f->q->bytes(f->q->ctx, layer, x);

		most = b > most ? b : most;
	}
	return most;
}

/* Layers whose experts are large first: they are hardest to place. */
static void order_layers(struct moe_fleet_plan *f)
{
	for (int l = 0; l < f->m->n_layers; l++) {
		uint64_t size = moe_fleet_largest(f, l);
		int at = l;

		for (; at > 0 && moe_fleet_largest(f, f->order[at - 1]) < size; at--)
			f->order[at] = f->order[at - 1];
		f->order[at] = l;
	}
}

/* A device holds an expert once at most, so no more than all of them is of use. */
static void set_devices(struct moe_fleet_plan *f)
{
	for (int l = 0; l < f->m->n_layers; l++) {
		f->need[l] = layer_bytes(f, l);
		f->all += f->need[l];
	}
	for (int d = 0; d < f->n; d++) {
		uint64_t memory = f->q->devices[d].memory;

		f->speed[d] = f->q->devices[d].speed > 0 ? f->q->devices[d].speed : 1;
		f->memory[d] = memory == 0 || memory > f->all ? f->all : memory;
		f->has += f->memory[d];
	}
}

static int check(const struct moe_place_problem *q, struct moe_err *e)
{
	if (q->n < 1 || q->n > MOE_MAX_DEVICES)
		return moe_fail(e, MOE_E_RANGE, "%d devices: from 1 to %d are possible", q->n, MOE_MAX_DEVICES);
	for (int l = 0; l < q->model->n_layers; l++) {
		int experts = q->model->layers[l].ffn.experts;

		if (experts == 0)
			continue;
		if (q->groups > 0 && experts % q->groups != 0)
			return moe_fail(e, MOE_E_RANGE, "layer %d: %d experts do not make %d groups of equal size", l, experts, q->groups);
		if (q->replicas > (int64_t)experts * (q->n - 1))
			return moe_fail(e, MOE_E_RANGE, "%d replicas of the %d experts of layer %d: %d device%s can hold %lld", q->replicas,
			                experts, l, q->n, q->n == 1 ? "" : "s", (long long)experts * (q->n - 1));
	}
	return 0;
}

static void plan_close(struct moe_fleet_plan *f)
{
	for (int l = 0; f->found && l < f->m->n_layers; l++)
		free(f->found[l].copy);
	free(f->found);
	free(f->node);
	free(f->speed);
	free(f->memory);
	free(f->used);
	free(f->kept);
	free(f->kept_so_far);
	free(f->need);
	free(f->extra);
	free(f->order);
}

/* Bytes that lie on each device now, where all of them may stay. */
static void count_kept(struct moe_fleet_plan *f)
{
	for (int l = 0; f->q->before && l < f->m->n_layers; l++)
		for (int d = 0; d < f->n; d++)
			f->kept[d] += moe_fleet_kept(f, l, d);
	for (int d = 0; d < f->n; d++)
		f->stays = f->stays && f->kept[d] <= f->memory[d];
}

static int plan_open(struct moe_fleet_plan *f, const struct moe_place_problem *q, struct moe_err *e)
{
	size_t n = (size_t)q->n, layers = (size_t)q->model->n_layers;

	*f = (struct moe_fleet_plan){.q = q, .m = q->model, .n = q->n, .stays = q->before != NULL};
	f->node = moe_calloc(n, sizeof *f->node, "placement", e);
	f->speed = moe_calloc(n, sizeof *f->speed, "placement", e);
	f->memory = moe_calloc(n, sizeof *f->memory, "placement", e);
	f->used = moe_calloc(n, sizeof *f->used, "placement", e);
	f->kept = moe_calloc(n, sizeof *f->kept, "placement", e);
	f->kept_so_far = moe_calloc(n, sizeof *f->kept_so_far, "placement", e);
	f->need = moe_calloc(layers, sizeof *f->need, "placement", e);
	f->extra = moe_calloc(layers, sizeof *f->extra, "placement", e);
	f->order = moe_calloc(layers, sizeof *f->order, "placement", e);
	f->found = moe_calloc(layers, sizeof *f->found, "placement", e);
	if (!f->node || !f->speed || !f->memory || !f->used || !f->kept || !f->kept_so_far || !f->need || !f->extra || !f->order ||
	    !f->found)
		return MOE_E_NOMEM;
	number_nodes(f);
	set_devices(f);
	order_layers(f);
	count_kept(f);
	return 0;
}

/* ---- one layer ---- */

static int does_not_fit(const struct moe_fleet_plan *f, int layer, int expert, struct moe_err *e)
{
	char needed[32], available[32], each[32];
	uint64_t need = 0;

	for (int l = 0; l < f->m->n_layers; l++)
		need += moe_fleet_need(f, l);
	return moe_fail(e, MOE_E_RANGE,
	                "the experts do not fit: %s (%llu bytes) needed, %s (%llu bytes) available on %d device%s; layer %d, expert %d "
	                "(%s) finds no place",
	                moe_size_text((double)need, needed), (unsigned long long)need, moe_size_text((double)f->has, available),
	                (unsigned long long)f->has, f->n, f->n == 1 ? "" : "s", layer, expert,
	                moe_size_text((double)f->q->bytes(f->q->ctx, layer, expert), each));
}

/* False: expert *lost found no place. */
static bool place_anew(struct moe_spread *s, int extra, int64_t effort, int rounds, int *lost)
{
	s->effort = effort;
	moe_spread_group(s);
	if (!moe_spread_pack(s, extra, lost))
		return false;
	if (rounds > 0)
		moe_spread_regroup(s, extra);
	s->effort = effort;
	moe_spread_improve(s, rounds);
	return true;
}

/* Anew, and from where experts lie: the cheaper one stays in *s. */
static bool place(struct moe_spread *s, int extra, int64_t effort, int rounds, int *lost)
{
	bool placed = place_anew(s, extra, effort, rounds, lost);
	double cost = placed ? moe_spread_cost(s) : INFINITY;

	if (!s->before)
		return placed;
	s->effort = effort;
	if (moe_spread_keep(s, extra)) {
		moe_spread_improve(s, rounds);
		if (moe_spread_cost(s) <= cost)
			return true;
	}
	return placed && place_anew(s, extra, effort, rounds, lost);
}

int moe_fleet_layer(struct moe_fleet_plan *f, int layer, int extra, const uint64_t *room, bool quick, double *worst, struct moe_err *e)
{
	struct moe_spread s;
	int lost = 0, rc = moe_fleet_spread(f->q, layer, extra, f->node, f->nodes, f->speed, &s, e);
	int64_t effort = quick ? EFFORT / 20 : EFFORT;
	bool ok;

	if (rc)
		return rc;
	s.elsewhere = f->used;
	memcpy(s.room, room, (size_t)f->n * sizeof *room);
	ok = place(&s, extra, effort, quick ? 0 : ROUNDS, &lost);
	for (int d = 0; d < f->n && !ok; d++) /* whatever is left, at the later layers' cost */
		s.room[d] = f->memory[d] - f->used[d];
	ok = ok || place(&s, extra, effort, quick ? 0 : ROUNDS, &lost);
	if (!ok)
		rc = does_not_fit(f, layer, lost, e);
	else if (worst)
		*worst = moe_spread_worst(&s);
	else
		rc = moe_fleet_keep_layer(f, layer, &s, e);
	moe_spread_close(&s);
	return rc;
}

static int by_expert(const void *a, const void *b)
{
	const struct moe_copy *x = a, *y = b;

	return x->expert != y->expert ? x->expert - y->expert : x->device - y->device;
}

int moe_fleet_keep_layer(struct moe_fleet_plan *f, int layer, struct moe_spread *s, struct moe_err *e)
{
	struct moe_fleet_layer_found *out = &f->found[layer];

	out->copy = moe_calloc((size_t)s->n_copies, sizeof *out->copy, "placement", e);
	if (!out->copy)
		return MOE_E_NOMEM;
	out->n = s->n_copies;
	memcpy(out->copy, s->copy, (size_t)s->n_copies * sizeof *out->copy);
	qsort(out->copy, (size_t)out->n, sizeof *out->copy, by_expert);
	for (int d = 0; d < f->n; d++)
		f->used[d] += s->used[d];
	return 0;
}

/* ---- all layers ---- */

static int place_layers(struct moe_fleet_plan *f, struct moe_err *e)
{
	uint64_t *room = moe_calloc((size_t)f->n, sizeof *room, "placement", e), total = 0, upto = 0;
	int rc = room ? 0 : MOE_E_NOMEM;

	for (int l = 0; l < f->m->n_layers; l++)
		total += moe_fleet_need(f, l);
	for (int i = 0; i < f->m->n_layers && rc == 0; i++) {
		int l = f->order[i];

		if (f->m->layers[l].ffn.experts == 0)
			continue;
		upto += moe_fleet_need(f, l);
		moe_fleet_room(f, l, total ? (double)upto / (double)total : 1, room);
		rc = moe_fleet_layer(f, l, f->extra[l], room, false, NULL, e);
	}
	free(room);
	return rc;
}

/* The owner stays the owner where it keeps a copy; else it is the lowest device. */
static int ids_of(void *ctx, int layer, int expert, int *ids, int cap)
{
	const struct moe_fleet_plan *f = ctx;
	const struct moe_fleet_layer_found *l = &f->found[layer];
	int lo = 0, hi = l->n, n = 0, had = 0;
	const int *before = f->q->before ? moe_placement_of(f->q->before, layer, expert, &had) : NULL;

	while (lo < hi) {
		int mid = (lo + hi) / 2;

		if (l->copy[mid].expert < expert)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < l->n && l->copy[lo].expert == expert && n < cap; lo++) {
		ids[n] = l->copy[lo].device;
		if (before && ids[n] == before[0]) {
			memmove(ids + 1, ids, (size_t)n * sizeof *ids);
			ids[0] = before[0];
		}
		n++;
	}
	return n;
}

int moe_place_fleet(const struct moe_place_problem *q, struct moe_placement *out, struct moe_err *e)
{
	struct moe_fleet_plan f;
	int rc = check(q, e);

	if (rc)
		return rc;
	rc = plan_open(&f, q, e);
	rc = rc ? rc : moe_fleet_choose_replicas(&f, e);
	rc = rc ? rc : place_layers(&f, e);
	rc = rc ? rc : moe_placement_make(f.m, f.n, ids_of, &f, out, e);
	plan_close(&f);
	return rc;
}
