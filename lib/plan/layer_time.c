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

static double all_lanes(const struct moe_layer_time *t)
{
	double sum = 0;

	for (int i = 0; i < MOE_LANES; i++)
		sum += t->lanes[i].total;
	return sum;
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
		t->seconds = all_lanes(t);
	else if (p->prefill || p->x->schedule == MOE_SCHEDULE_FLEXGEN || p->x->schedule == MOE_SCHEDULE_ZERO)
		t->seconds = longest(t);
	else if (p->x->schedule == MOE_SCHEDULE_COALESCED)
		t->seconds = coalesced(p, stages, t);
	else if (p->x->schedule == MOE_SCHEDULE_FLEXGEN_C)
		t->seconds = one_by_one(p, stages, t);
	else
		t->seconds = cgopipe(p, stages, t);
}
