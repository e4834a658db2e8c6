/* How a layer's load lies over the devices, and what changed between two placements. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/fleet_plan.h"

/* Tokens that chose each expert; all 1 where nothing is known. */
static void set_loads(const struct moe_place_problem *q, int layer, struct moe_spread *s)
{
	double sum = 0;

	for (int x = 0; x < s->experts; x++) {
		s->load[x] = q->usage ? q->usage->prefill[layer][x] + q->usage->decode[layer][x] : 0;
		s->bytes[x] = q->bytes(q->ctx, layer, x);
		sum += s->load[x];
	}
	for (int x = 0; x < s->experts && sum <= 0; x++)
		s->load[x] = 1;
}

static int set_before(const struct moe_place_problem *q, int layer, struct moe_spread *s, struct moe_err *e)
{
	if (!q->before || layer >= q->before->layers)
		return 0;
	s->before = moe_calloc((size_t)s->experts * (size_t)s->devices, 1, "placement", e);
	if (!s->before)
		return MOE_E_NOMEM;
	for (int x = 0; x < s->experts; x++) {
		int n;
		const int *ids = moe_placement_of(q->before, layer, x, &n);

		for (int i = 0; i < n; i++)
			if (ids[i] < s->devices)
				s->before[(size_t)x * (size_t)s->devices + (size_t)ids[i]] = 1;
	}
	return 0;
}

/* The sample stands for all tokens of the load: what one of its visits costs. */
static double visit_cost(const struct moe_place_problem *q, const struct moe_spread *s)
{
	double load = 0;
	int choices = s->together->first[s->together->tokens];

	for (int x = 0; x < s->experts; x++)
		load += s->load[x];
	return choices ? q->together_weight * load / choices / s->devices : 0;
}

int moe_fleet_spread(const struct moe_place_problem *q, int layer, int extra, const int *node, int nodes, const double *speed,
                     struct moe_spread *s, struct moe_err *e)
{
	const struct moe_choices *together = moe_coactivation_layer(q->together, layer);
	int groups = q->groups > 0 ? q->groups : 0, rc;

	rc = moe_spread_open(s, q->model->layers[layer].ffn.experts, q->n, extra, groups, together, e);
	if (rc)
		return rc;
	s->node = node;
	s->nodes = nodes;
	s->speed = speed;
	set_loads(q, layer, s);
	s->move_cost = q->before ? q->move_cost : 0;
	s->visit_cost = together ? visit_cost(q, s) : 0;
	rc = set_before(q, layer, s, e);
	if (rc)
		moe_spread_close(s);
	return rc;
}

static int copies_in(const struct moe_placement *p, int layer)
{
	return p->first[p->start[layer + 1]] - p->first[p->start[layer]];
}

static void measure(struct moe_spread *s, const struct moe_placement *p, int layer, struct moe_balance *out)
{
	double sum = 0;

	for (int x = 0; x < s->experts; x++) {
		int n;
		const int *ids = moe_placement_of(p, layer, x, &n);

		for (int i = 0; i < n; i++)
			moe_spread_put(s, x, ids[i]);
	}
	moe_spread_visits_renew(s, -1, -1);
	for (int d = 0; d < s->devices; d++)
		sum += s->held[d] / s->speed[d];
	out->max = moe_spread_worst(s);
	out->mean = sum / s->devices;
	out->imbalance = out->mean > 0 ? out->max / out->mean - 1 : 0;
	out->balancedness = out->max > 0 ? out->mean / out->max : 1;
	out->servers = s->together && s->together->tokens ? (double)s->all_visits / s->together->tokens : 0;
}

int moe_placement_balance(const struct moe_placement *p, const struct moe_place_problem *q, int layer, struct moe_balance *out,
                          struct moe_err *e)
{
	struct moe_place_problem plain = *q;
	struct moe_spread s;
	double *speed;
	int rc;

	*out = (struct moe_balance){.balancedness = 1};
	if (p->devices != q->n)
		return moe_fail(e, MOE_E_INPUT, "the placement is for %d devices, there are %d", p->devices, q->n);
	if (layer < 0 || layer >= p->layers || p->experts[layer] == 0)
		return 0;
	speed = moe_calloc((size_t)q->n, sizeof *speed, "balance", e);
	if (!speed)
		return MOE_E_NOMEM;
	for (int d = 0; d < q->n; d++)
		speed[d] = q->devices[d].speed > 0 ? q->devices[d].speed : 1;
	plain.groups = 0;
	plain.before = NULL;
	rc = moe_fleet_spread(&plain, layer, copies_in(p, layer) - p->experts[layer], NULL, 1, speed, &s, e);
	if (rc == 0) {
		measure(&s, p, layer, out);
		moe_spread_close(&s);
	}
	free(speed);
	return rc;
}

int64_t moe_placement_moves(const struct moe_placement *before, const struct moe_placement *after)
{
	int64_t moves = 0;

	for (int l = 0; l < after->layers; l++)
		for (int x = 0; x < after->experts[l]; x++) {
			int n, had;
			const int *ids = moe_placement_of(after, l, x, &n);
			bool same;

			moe_placement_of(before, l, x, &had);
			same = n == had;
			for (int i = 0; i < n && same; i++)
				same = moe_placement_holds(before, ids[i], l, x);
			moves += !same;
		}
	return moves;
}

/* ---- a table for people ---- */

struct total {
	struct moe_balance worst, sum;
	int layers, worst_layer;
};

static void add(struct total *t, const struct moe_balance *b, int layer)
{
	if (t->layers++ == 0 || b->imbalance > t->worst.imbalance) {
		t->worst = *b;
		t->worst_layer = layer;
	}
	t->sum.imbalance += b->imbalance;
	t->sum.balancedness += b->balancedness;
	t->sum.servers += b->servers;
}

static int put_line(struct moe_buf *out, const char *name, const struct moe_balance *b, bool servers, struct moe_err *e)
{
	int rc = moe_buf_printf(out, e, "%-10s %10.4f %12.4f", name, b->imbalance, b->balancedness);

	if (rc == 0 && servers)
		rc = moe_buf_printf(out, e, " %8.2f", b->servers);
	return rc ? rc : moe_buf_add(out, "\n", 1, e);
}

int moe_placement_balance_table(const struct moe_placement *p, const struct moe_place_problem *q, struct moe_buf *out,
                                struct moe_err *e)
{
	struct total t = {.layers = 0};
	bool servers = q->together != NULL;
	char name[32];
	int rc = moe_buf_printf(out, e, "%-10s %10s %12s%s\n", "layer", "imbalance", "balancedness", servers ? "  servers" : "");

	for (int l = 0; l < p->layers && rc == 0; l++) {
		struct moe_balance b;

		if (p->experts[l] == 0)
			continue;
		rc = moe_placement_balance(p, q, l, &b, e);
		snprintf(name, sizeof name, "%d", l);
		rc = rc ? rc : put_line(out, name, &b, servers, e);
		add(&t, &b, l);
	}
	if (rc || t.layers == 0)
		return rc;
	t.sum.imbalance /= t.layers;
	t.sum.balancedness /= t.layers;
	t.sum.servers /= t.layers;
	rc = put_line(out, "mean", &t.sum, servers, e);
	snprintf(name, sizeof name, "worst (%d)", t.worst_layer);
	return rc ? rc : put_line(out, name, &t.worst, servers, e);
}
