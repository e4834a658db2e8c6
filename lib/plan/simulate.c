/* The simulator: a schedule's graph, played with the prediction's durations. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/predict_full.h"

/* How long each kind of task takes. */
struct layer_seconds {
	double of[MOE_TASK_KINDS];
};
struct moe_durations {
	struct moe_schedule_shape shape;
	bool has[MOE_TASK_KINDS];    /* kinds of which the graph has tasks */
	bool cpu_computes;
	struct layer_seconds *layers; /* [shape.layers] */
	double embed, head;          /* of one micro-batch */
};

double moe_durations_seconds(void *durations, const struct moe_task *t)
{
	const struct moe_durations *d = durations;

	if (t->kind == MOE_TASK_EMBED)
		return d->embed;
	return t->kind == MOE_TASK_HEAD ? d->head : d->layers[t->layer].of[t->kind];
}

/* ---- terms become tasks ---- */

/* Of which tasks a term of a lane is made. */
static enum moe_task_kind kind_of(const struct moe_durations *d, enum moe_lane lane, const char *term)
{
	bool down = lane == MOE_LANE_H2D;

	if (strcmp(term, "weights") == 0)
		return lane == MOE_LANE_DISK ? MOE_TASK_READ_WEIGHTS : lane == MOE_LANE_PIN ? MOE_TASK_PIN_WEIGHTS : MOE_TASK_LOAD_WEIGHTS;
	if (lane == MOE_LANE_GPU || lane == MOE_LANE_CPU) {
		if (strcmp(term, "qkv") == 0)
			return MOE_TASK_PRE_ATTENTION;
		if (strcmp(term, "attention") == 0 || (strcmp(term, "copies") == 0 && !d->shape.experts_on_cpu))
			return MOE_TASK_ATTENTION;
		return strcmp(term, "experts") == 0 && d->has[MOE_TASK_EXPERTS] ? MOE_TASK_EXPERTS : MOE_TASK_POST_ATTENTION;
	}
	if (strcmp(term, "kv") == 0 && lane != MOE_LANE_DISK)
		return down ? MOE_TASK_LOAD_KV : MOE_TASK_STORE_KV;
	if (strcmp(term, "hidden") == 0)
		return down ? MOE_TASK_LOAD_HIDDEN : MOE_TASK_STORE_HIDDEN;
	return strcmp(term, "qkv") == 0 && lane == MOE_LANE_D2H ? MOE_TASK_STORE_QKV : MOE_TASK_KINDS;
}

static int tasks_in_layer(const struct moe_durations *d, enum moe_task_kind k)
{
	if (k == MOE_TASK_READ_WEIGHTS || k == MOE_TASK_PIN_WEIGHTS || k == MOE_TASK_LOAD_WEIGHTS)
		return d->shape.pages;
	return k == MOE_TASK_EXPERTS && d->shape.schedule == MOE_SCHEDULE_COALESCED ? 1 : d->shape.micro_batches;
}

/* The prediction is of a policy; a graph may be of a machine that needs less of it: all is pinned already, or hidden states have room where
 * they are. */
static bool needless(const struct moe_durations *d, enum moe_lane lane, enum moe_task_kind k)
{
	if (lane == MOE_LANE_PIN)
		return d->shape.pinned;
	return d->shape.prefill && !d->shape.hidden_moves && (k == MOE_TASK_LOAD_HIDDEN || k == MOE_TASK_STORE_HIDDEN) && !d->has[k];
}

static int share_out(const struct moe_durations *d, enum moe_lane lane, const struct moe_term *term, struct layer_seconds *out,
                     struct moe_err *e)
{
	enum moe_task_kind k = kind_of(d, lane, term->name);

	if ((strcmp(term->name, "copies") == 0 && !d->cpu_computes) || needless(d, lane, k))
		return 0;
	/* A single layer is first and last. */
	if (d->shape.hidden_moves && d->shape.layers == 1 && (k == MOE_TASK_LOAD_HIDDEN || k == MOE_TASK_STORE_HIDDEN))
		return 0;
	if (k == MOE_TASK_KINDS || !d->has[k])
		return moe_fail(e, MOE_E_UNSUPPORTED, "schedule %s has no task for %s on lane %s (%s)", moe_schedule_name(d->shape.schedule),
		                term->name, moe_lane_name(lane), d->shape.prefill ? "prefill" : "decode");
	out->of[k] += term->amount / tasks_in_layer(d, k);
	return 0;
}

static int share_out_layer(const struct moe_durations *d, const struct moe_layer_time *t, struct layer_seconds *out, struct moe_err *e)
{
	int rc = 0;

	for (int l = 0; l < MOE_LANES; l++)
		for (int i = 0; i < t->lanes[l].n && !rc; i++)
			rc = share_out(d, (enum moe_lane)l, &t->lanes[l].terms[i], out, e);
	return rc;
}

/* ---- durations of both variants ---- */

/* The paper has one layer for all, and neither embedding nor head. */
static int paper_durations(struct moe_durations *d, const struct moe_layer_time *t, struct moe_err *e)
{
	int rc = 0;

	for (int l = 0; l < d->shape.layers && !rc; l++)
		rc = share_out_layer(d, t, &d->layers[l], e);
	return rc;
}

static int full_durations(struct moe_durations *d, const struct plan_pass *p, struct moe_err *e)
{
	int rc = 0;

	for (int l = 0; l < d->shape.layers && !rc; l++) {
		struct moe_layer_time t;
		struct plan_stages stages;

		rc = plan_layer_lanes(p, l, &t, &stages, e);
		rc = rc ? rc : share_out_layer(d, &t, &d->layers[l], e);
	}
	plan_pass_ends(p, &d->embed, &d->head);
	d->embed /= d->shape.micro_batches;
	d->head /= d->shape.micro_batches;
	return rc;
}

/* ---- the graph ---- */

static void shape_of(const struct moe_setting *s, const struct moe_execution *x, const struct moe_prediction *predicted,
                     const struct plan_pass *p, struct moe_schedule_shape *out)
{
	const struct moe_layer_time *t = p->prefill ? &predicted->prefill : &predicted->decode;
	bool resident = x->schedule == MOE_SCHEDULE_RESIDENT, zero = x->schedule == MOE_SCHEDULE_ZERO, paper = s->variant == MOE_VARIANT_PAPER;
	double batches = ceil((double)x->batch / (double)x->micro_batch);

	*out = (struct moe_schedule_shape){.schedule = x->schedule, .prefill = p->prefill, .layers = s->model->n_layers};
	out->micro_batches = (int)(paper ? batches : p->micro_batches);
	out->weights_move = !resident && plan_term(&t->lanes[MOE_LANE_H2D], "weights") > 0;
	out->from_disk = plan_term(&t->lanes[MOE_LANE_DISK], "weights") > 0;
	out->pinned = plan_term(&t->lanes[MOE_LANE_PIN], "weights") <= 0;
	out->hidden_moves = !resident && !zero && p->prefill && plan_term(&t->lanes[MOE_LANE_H2D], "hidden") > 0;
	out->kv_moves = zero && plan_term(&t->lanes[MOE_LANE_D2H], "kv") > 0;
	out->attention_on_cpu = resident && x->attention_on == p->host;
	out->experts_on_cpu = resident && x->ffn_on == p->host;
}

static void note_kinds(struct moe_durations *d, const struct moe_graph *g)
{
	for (uint32_t i = 0; i < g->n; i++) {
		d->has[g->tasks[i].kind] = true;
		d->cpu_computes = d->cpu_computes || g->tasks[i].lane == MOE_LANE_CPU;
	}
}

static int fill(struct moe_durations *d, const struct moe_setting *s, const struct plan_pass *p, const struct moe_prediction *predicted,
                struct moe_err *e)
{
	if (s->variant == MOE_VARIANT_PAPER)
		return paper_durations(d, p->prefill ? &predicted->prefill : &predicted->decode, e);
	return full_durations(d, p, e);
}

/* Its terms do not depend on the schedule; they are those of its own and of FlexGen's. */
static bool in_paper(enum moe_schedule s)
{
	return s == MOE_SCHEDULE_CGOPIPE || s == MOE_SCHEDULE_FLEXGEN || s == MOE_SCHEDULE_FLEXGEN_C;
}

static int predict(const struct moe_setting *s, const struct moe_execution *x, bool prefill, struct moe_prediction *out, struct plan_pass *p,
                   struct moe_err *e)
{
	int rc;

	if (s->variant == MOE_VARIANT_PAPER && !in_paper(x->schedule))
		return moe_fail(e, MOE_E_UNSUPPORTED, "the paper's model does not say how long tasks of schedule %s take", moe_schedule_name(x->schedule));
	rc = moe_predict(s, x, out, e);
	if (rc)
		return rc;
	if (prefill)
		plan_pass_prefill(s, x, p);
	else
		plan_pass_decode(s, x, p);
	return 0;
}

int moe_execution_graph(const struct moe_setting *s, const struct moe_execution *x, bool prefill, int steps, struct moe_graph *g,
                        struct moe_err *e)
{
	struct moe_schedule_shape shape;
	struct moe_prediction predicted;
	struct plan_pass p;
	int rc = predict(s, x, prefill, &predicted, &p, e);

	*g = (struct moe_graph){.n = 0};
	if (rc)
		return rc;
	shape_of(s, x, &predicted, &p, &shape);
	shape.steps = steps;
	return moe_schedule_build(&shape, g, e);
}

int moe_durations_new(const struct moe_setting *s, const struct moe_execution *x, const struct moe_graph *g, struct moe_durations **out,
                      struct moe_err *e)
{
	struct moe_prediction predicted;
	struct moe_durations *d;
	struct plan_pass p;
	int rc;

	if (g->shape.schedule != x->schedule || g->shape.layers != s->model->n_layers)
		return moe_fail(e, MOE_E_INPUT, "a graph of schedule %s and %d layers is none of %s and %d", moe_schedule_name(g->shape.schedule),
		                g->shape.layers, moe_schedule_name(x->schedule), s->model->n_layers);
	rc = predict(s, x, g->shape.prefill, &predicted, &p, e);
	if (rc)
		return rc;
	d = moe_calloc(1, sizeof *d, "durations of tasks", e);
	if (!d)
		return MOE_E_NOMEM;
	d->shape = g->shape;
	note_kinds(d, g);
	d->layers = moe_calloc((size_t)g->shape.layers, sizeof *d->layers, "durations of layers", e);
	rc = d->layers ? fill(d, s, &p, &predicted, e) : MOE_E_NOMEM;
	if (rc)
		moe_durations_free(d);
	else
		*out = d;
	return rc;
}

void moe_durations_free(struct moe_durations *d)
{
	if (d)
		free(d->layers);
	free(d);
}

int moe_simulate(const struct moe_setting *s, const struct moe_execution *x, bool prefill, int steps, struct moe_graph *g,
                 struct moe_timeline *out, struct moe_err *e)
{
	struct moe_durations *d = NULL;
	int rc = moe_execution_graph(s, x, prefill, steps, g, e);

	*out = (struct moe_timeline){.makespan = 0};
	rc = rc ? rc : moe_durations_new(s, x, g, &d, e);
	rc = rc ? rc : moe_play(g, moe_durations_seconds, d, out, e);
	moe_durations_free(d);
	if (rc)
		moe_graph_free(g);
	return rc;
}
