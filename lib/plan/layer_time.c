/* How long a layer takes: which lanes overlap, schedule by schedule (schedule.h). */
#include "plan/predict_full.h"

static double larger(double a, double b)
{
	return a > b ? a : b;
}

static double longest(const struct moe_layer_time *t)
{
	return t->lanes[t->bottleneck].total;
}

/* Rows that an expert must get of each half of a step that goes in two, as moe-route has it. */
#define HALF_ROWS_PER_EXPERT 16

static bool in_halves(const struct plan_pass *p)
{
	for (int i = 0; i < p->s->model->n_layers; i++) {
		const struct moe_ffn *f = &p->s->model->layers[i].ffn;

		if (f->kind == MOE_FFN_MOE)
			return p->rows.rows * f->gate.top_k >= 2.0 * HALF_ROWS_PER_EXPERT * f->experts;
	}
	return false;
}

/* One thing after the other; but other hosts' experts are computed while this one's are, and in steps of many rows, which go
 * in two halves, while the other half's attention is. */
static double resident(const struct plan_pass *p, const struct moe_layer_time *t)
{
	double network = t->lanes[MOE_LANE_NETWORK].total, here = 0, meanwhile;

	for (int i = 0; i < MOE_LANES; i++)
		here += i == MOE_LANE_NETWORK ? 0 : t->lanes[i].total;
	meanwhile = in_halves(p) ? here : plan_term(&t->lanes[p->experts_on == p->host ? MOE_LANE_CPU : MOE_LANE_GPU], "experts");
	return here + larger(network - meanwhile, 0);
}

/* One micro-batch from the layer's beginning to its end, the batch's experts left out. */
static double chain(const struct plan_stages *g)
{
	return g->pre + g->store + g->attend + g->load + g->post;
}

/* Attention is two micro-batches ahead: in the time that one takes through a layer, two come out of it. */
static double cgopipe(const struct plan_pass *p, const struct plan_stages *g, const struct moe_layer_time *t)
{
	double n = p->micro_batches;

	return larger(longest(t), n * chain(g) / (n < 2 ? n : 2));
}

/* The batch's experts begin when every micro-batch is through attention, and the next layer when they end; the weights come
 * meanwhile. */
static double coalesced(const struct plan_pass *p, const struct plan_stages *g, const struct moe_layer_time *t)
{
	double widest = larger(larger(g->pre + g->post, g->attend), larger(g->store, g->load));

	return larger(longest(t), chain(g) + (p->micro_batches - 1) * widest + g->experts);
}

/* Seconds of a lane without the weights, which come in one of the turns that a layer's micro-batches take. */
static double turn(const struct plan_pass *p, const struct moe_layer_time *t, enum moe_lane lane)
{
	return (t->lanes[lane].total - plan_term(&t->lanes[lane], "weights")) / p->micro_batches;
}

/* All lanes wait for each other after every micro-batch, so that the turn in which the next layer's weights come takes as long
 * as those. */
static double flexgen(const struct plan_pass *p, const struct moe_layer_time *t)
{
	double usual = 0, loading = 0;

	for (int i = 0; i < MOE_LANES; i++) {
		double one = turn(p, t, (enum moe_lane)i);

		usual = larger(usual, one);
		loading = larger(loading, one + plan_term(&t->lanes[i], "weights"));
	}
	return (p->micro_batches - 1) * usual + loading;
}

/* Micro-batches one after the other; in one of their turns attention's output comes after the next layer's weights.  Copies take
 * the host's memory meanwhile. */
static double flexgen_c(const struct plan_pass *p, const struct plan_stages *g, const struct moe_layer_time *t)
{
	double weights = 0;

	for (int i = 0; i < MOE_LANES; i++)
		weights = larger(weights, plan_term(&t->lanes[i], "weights"));
	return larger(longest(t), (p->micro_batches - 1) * chain(g) + larger(g->pre + g->store + g->attend, weights) + g->load + g->post);
}

static double by_schedule(const struct plan_pass *p, const struct plan_stages *stages, const struct moe_layer_time *t)
{
	switch (p->x->schedule) {
	case MOE_SCHEDULE_RESIDENT:
		return resident(p, t);
	case MOE_SCHEDULE_FLEXGEN:
		return flexgen(p, t);
	case MOE_SCHEDULE_FLEXGEN_C:
		return p->prefill ? flexgen(p, t) : flexgen_c(p, stages, t);
	case MOE_SCHEDULE_CGOPIPE:
		return p->prefill ? longest(t) : cgopipe(p, stages, t);
	case MOE_SCHEDULE_COALESCED:
		return p->prefill ? longest(t) : coalesced(p, stages, t);
	default:
		return longest(t);
	}
}

void plan_layer_seconds(const struct plan_pass *p, const struct plan_stages *stages, struct moe_layer_time *t)
{
	for (int i = 0; i < MOE_LANES; i++)
		if (t->lanes[i].total > t->lanes[t->bottleneck].total)
			t->bottleneck = (enum moe_lane)i;
	t->seconds = by_schedule(p, stages, t);
}
