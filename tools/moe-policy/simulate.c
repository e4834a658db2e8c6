/* --simulate: a schedule played at the durations that the roofline model predicts. */
#include <stdio.h>

#include "base/file.h"
#include "policy.h"

/* A table of the lanes that had something to do. */
static void print_lanes(const struct moe_timeline *t)
{
	printf("%-8s  %12s  %8s  %8s\n", "lane", "busy s", "busy", "bubbles");
	for (int l = 0; l < MOE_LANES; l++) {
		double share = t->makespan > 0 ? t->busy[l] / t->makespan : 0;

		if (t->busy[l] > 0)
			printf("%-8s  %12.6g  %6.1f %%  %6.1f %%\n", moe_lane_name((enum moe_lane)l), t->busy[l], 100 * share, 100 - 100 * share);
	}
}

static void print_title(const struct options *o, const struct solution *s)
{
	const struct moe_execution *x = &s->execution;
	const struct moe_hardware *h = s->setting.hardware;

	printf("%s on %s: %s, batch %lld in micro-batches of %lld, attention on %s, experts on %s\n", o->model, h->name,
	       moe_schedule_name(x->schedule), (long long)x->batch, (long long)x->micro_batch, h->levels[x->attention_on].name,
	       h->levels[x->ffn_on].name);
}

/* Tokens of a batch that a step is over: one a sequence, or their prompts. */
static void print_rates(const struct options *o, const struct solution *s, const struct moe_graph *g, const struct moe_timeline *t)
{
	const struct moe_prediction *p = &s->prediction;
	double tokens = (double)s->execution.batch * (o->prefill ? moe_workload_prompt(&s->setting.workload) : 1);
	double predicted = o->prefill ? p->prefill_tokens_per_second : p->decode_tokens_per_second;

	printf("%d %s%s%s, %u tasks, %.6g s\n", g->shape.steps, o->prefill ? "batch" : "decode step",
	       g->shape.steps == 1 ? "" : o->prefill ? "es" : "s", o->prefill ? " of prompts" : "", g->n, t->makespan);
	printf("a step: %.6g s, %.6g tokens/s; the roofline model alone: %.6g tokens/s\n", t->step_seconds,
	       t->step_seconds > 0 ? tokens / t->step_seconds : 0, predicted);
}

static int write_text(const char *path, const struct moe_buf *text, struct moe_err *e)
{
	return moe_write_file(path, text->data, text->len, e);
}

/* Three layers in the middle: more of them would be too narrow to see. */
static void middle(const struct moe_graph *g, const struct moe_timeline *t, double *from, double *to)
{
	double layers = (double)g->shape.layers * g->shape.steps, part = layers > 3 ? 3 / layers : 1;

	*from = t->makespan * (1 - part) / 2;
	*to = t->makespan > 0 ? *from + t->makespan * part : 1;
}

static int write_files(const struct options *o, const struct moe_graph *g, const struct moe_timeline *t, struct moe_err *e)
{
	struct moe_buf text = MOE_BUF_INIT;
	int rc = 0;

	if (o->timeline) {
		rc = moe_timeline_chrome(g, t, &text, e);
		rc = rc ? rc : write_text(o->timeline, &text, e);
		moe_buf_free(&text);
	}
	if (rc == 0 && o->plot) {
		double from, to;

		middle(g, t, &from, &to);
		rc = moe_timeline_svg(g, t, from, to, o->model, &text, e);
		rc = rc ? rc : write_text(o->plot, &text, e);
		moe_buf_free(&text);
	}
	return rc;
}

int print_simulation(const struct options *o, const struct solution *s, struct moe_err *e)
{
	struct moe_timeline t = {0};
	struct moe_graph g = {0};
	int rc = moe_simulate(&s->setting, &s->execution, o->prefill, (int)o->steps, &g, &t, e);

	if (rc == 0) {
		print_title(o, s);
		print_rates(o, s, &g, &t);
		print_lanes(&t);
		rc = write_files(o, &g, &t, e);
		moe_timeline_free(&t);
		moe_graph_free(&g);
	}
	return rc;
}
