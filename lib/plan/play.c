/* Plays a graph.  A task begins when the last of what it depends on, and the task before it on its lane, have ended; since
 * all of them stand before it, one walk over the tasks is enough. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "plan/plan.h"

static double begin_of(const struct moe_graph *g, const struct moe_task *t, const double *end, double lane_free)
{
	double begin = lane_free;

	for (uint32_t d = t->first; d < t->first + t->n; d++)
		if (end[g->deps[d]] > begin)
			begin = end[g->deps[d]];
	return begin;
}

static int walk(const struct moe_graph *g, moe_task_seconds *seconds, void *ctx, struct moe_timeline *out, struct moe_err *e)
{
	double lane_free[MOE_LANES] = {0};
	char text[96];

	for (uint32_t i = 0; i < g->n; i++) {
		const struct moe_task *t = &g->tasks[i];
		double takes = seconds(ctx, t);

		if (!(takes >= 0) || isinf(takes))
			return moe_fail(e, MOE_E_INPUT, "%s takes %g seconds", moe_task_text(t, text, sizeof text), takes);
		out->begin[i] = begin_of(g, t, out->end, lane_free[t->lane]);
		out->end[i] = lane_free[t->lane] = out->begin[i] + takes;
	}
	return 0;
}

int moe_play(const struct moe_graph *g, moe_task_seconds *seconds, void *ctx, struct moe_timeline *out, struct moe_err *e)
{
	int rc = moe_timeline_new(g, out, e);

	rc = rc ? rc : walk(g, seconds, ctx, out, e);
	if (rc)
		moe_timeline_free(out);
	else
		moe_timeline_sum(g, out);
	return rc;
}

/* ---- timelines ---- */

int moe_timeline_new(const struct moe_graph *g, struct moe_timeline *out, struct moe_err *e)
{
	*out = (struct moe_timeline){.makespan = 0};
	out->begin = moe_calloc(g->n, sizeof *out->begin, "a timeline", e);
	out->end = moe_calloc(g->n, sizeof *out->end, "a timeline", e);
	if (out->begin && out->end)
		return 0;
	moe_timeline_free(out);
	return MOE_E_NOMEM;
}

/* When two steps end: the first, which fills the pipeline, and the last that others follow: the very last has nothing to
 * fetch for one after it. */
struct ends {
	int until;
	double first, last;
};

static void note_end(struct ends *ends, const struct moe_task *t, double end)
{
	if (t->step == 0 && end > ends->first)
		ends->first = end;
	if (t->step == ends->until && end > ends->last)
		ends->last = end;
}

void moe_timeline_sum(const struct moe_graph *g, struct moe_timeline *t)
{
	int steps = g->shape.steps;
	struct ends ends = {.until = steps > 2 ? steps - 2 : steps - 1};

	t->makespan = 0;
	for (int l = 0; l < MOE_LANES; l++)
		t->busy[l] = 0;
	for (uint32_t i = 0; i < g->n; i++) {
		t->busy[g->tasks[i].lane] += t->end[i] - t->begin[i];
		if (t->end[i] > t->makespan)
			t->makespan = t->end[i];
		note_end(&ends, &g->tasks[i], t->end[i]);
	}
	t->step_seconds = ends.until > 0 ? (ends.last - ends.first) / ends.until : t->makespan;
}

void moe_timeline_free(struct moe_timeline *t)
{
	free(t->begin);
	free(t->end);
	*t = (struct moe_timeline){.makespan = 0};
}
