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

/* Micro-batches one after the other; only the next layer's weights come meanwhile. */
static double one_by_one(const struct plan_pass *p, const struct plan_stages *g, const struct moe_layer_time *t)
{
	return larger(longest(t), p->micro_batches * chain(g));
}

void plan_layer_seconds(const struct plan_pass *p, const struct plan_stages *stages, struct moe_layer_time *t)
{
	for (int i = 0; i < MOE_LANES; i++)
		if (t->lanes[i].total > t->lanes[t->bottleneck].total)
			t->bottleneck = (enum moe_lane)i;
	if (!p->offloads)
		t->seconds = resident(p, t);
	else if (p->prefill || p->x->schedule == MOE_SCHEDULE_FLEXGEN || p->x->schedule == MOE_SCHEDULE_ZERO)
		t->seconds = longest(t);
	else if (p->x->schedule == MOE_SCHEDULE_COALESCED)
		t->seconds = coalesced(p, stages, t);
	else if (p->x->schedule == MOE_SCHEDULE_FLEXGEN_C)
		t->seconds = one_by_one(p, stages, t);
	else
		t->seconds = cgopipe(p, stages, t);
}
