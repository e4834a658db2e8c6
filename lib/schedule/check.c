#include "check.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static bool same_place(const struct moe_task *a, const struct moe_task *b)
{
	return a->lane == b->lane && a->step == b->step && a->layer == b->layer && a->micro_batch == b->micro_batch && a->page == b->page &&
	       a->slot == b->slot;
}

static int check_shape(const struct moe_schedule_shape *s, struct moe_err *e)
{
	if (s->layers < 1 || s->micro_batches < 1 || s->steps < 1 || s->pages < 1)
		return moe_fail(e, MOE_E_INPUT, "a graph of %d layers, %d micro-batches, %d pages and %d steps", s->layers, s->micro_batches,
		                s->pages, s->steps);
	return 0;
}

/* Every task of the shape is there, once, and tasks of a kind come in order. */
static int check_tasks(const struct moe_graph *g, struct moe_err *e)
{
	int64_t seen[MOE_TASK_KINDS] = {0};
	char is[96], should[96];
	for (uint32_t i = 0; i < g->n; i++) {
		const struct moe_task *t = &g->tasks[i];
		if ((unsigned)t->kind >= MOE_TASK_KINDS || (unsigned)t->lane >= MOE_LANES)
			return moe_fail(e, MOE_E_INPUT, "task %u of the graph has no kind or no lane", i);
		moe_task_text(t, is, sizeof is);
		if (seen[t->kind] >= moe_expect_count(&g->shape, t->kind))
			return moe_fail(e, MOE_E_INPUT, "%s is one too many", is);
		struct moe_task want = moe_expect_task(&g->shape, t->kind, seen[t->kind]++);
		if (!same_place(t, &want))
			return moe_fail(e, MOE_E_INPUT, "%s on lane %s stands where %s on lane %s belongs", is, moe_lane_name(t->lane),
			                moe_task_text(&want, should, sizeof should), moe_lane_name(want.lane));
	}
	for (int k = 0; k < MOE_TASK_KINDS; k++)
		if (seen[k] < moe_expect_count(&g->shape, (enum moe_task_kind)k)) {
			struct moe_task want = moe_expect_task(&g->shape, (enum moe_task_kind)k, seen[k]);
			return moe_fail(e, MOE_E_INPUT, "%s is missing", moe_task_text(&want, should, sizeof should));
		}
	return 0;
}

static int check_deps(const struct moe_graph *g, struct moe_err *e)
{
	char text[96], other[96];
	for (uint32_t i = 0; i < g->n; i++) {
		const struct moe_task *t = &g->tasks[i];
		if (t->n > g->n_deps || t->first > g->n_deps - t->n)
			return moe_fail(e, MOE_E_INPUT, "dependencies of %s lie outside the graph", moe_task_text(t, text, sizeof text));
		for (uint32_t d = t->first; d < t->first + t->n; d++)
			if (g->deps[d] >= i)
				return moe_fail(e, MOE_E_INPUT, "%s waits for %s, which does not stand before it", moe_task_text(t, text, sizeof text),
				                g->deps[d] < g->n ? moe_task_text(&g->tasks[g->deps[d]], other, sizeof other) : "nothing");
	}
	return 0;
}

static void take_over(const struct moe_graph *g, const moe_ended *ended, uint32_t *into, uint32_t d)
{
	for (int l = 0; l < MOE_LANES; l++)
		into[l] = ended[d][l] > into[l] ? ended[d][l] : into[l];
	if (into[g->tasks[d].lane] < d + 1)
		into[g->tasks[d].lane] = d + 1;
}

/* What has ended when a task begins: what its dependencies and the task before it on its lane waited for, and they. */
static moe_ended *order(const struct moe_graph *g, struct moe_err *e)
{
	moe_ended *ended = moe_calloc(g->n, sizeof *ended, "the order of a schedule", e);
	uint32_t newest[MOE_LANES] = {0};
	for (uint32_t i = 0; ended && i < g->n; i++) {
		const struct moe_task *t = &g->tasks[i];
		if (newest[t->lane])
			take_over(g, ended, ended[i], newest[t->lane] - 1);
		for (uint32_t d = t->first; d < t->first + t->n; d++)
			take_over(g, ended, ended[i], g->deps[d]);
		newest[t->lane] = i + 1;
	}
	return ended;
}

int moe_graph_check(const struct moe_graph *g, struct moe_err *e)
{
	int rc = check_shape(&g->shape, e);
	if (!rc)
		rc = check_tasks(g, e);
	if (!rc)
		rc = check_deps(g, e);
	if (rc)
		return rc;
	moe_ended *ended = order(g, e);
	struct moe_buffers *b = ended ? moe_buffers_new(g, ended, e) : NULL;
	rc = b ? 0 : MOE_E_NOMEM;
	for (uint32_t i = 0; !rc && i < g->n; i++)
		rc = moe_buffers_take(b, i, e);
	moe_buffers_free(b);
	free(ended);
	return rc;
}
