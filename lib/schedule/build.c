#include "build.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* ---- adding one task ---- */

static int grow(struct build *b, uint32_t deps)
{
	struct moe_graph *g = &b->graph;
	if (g->n == b->cap) {
		uint32_t cap = b->cap ? 2 * b->cap : 256;
		void *tasks = moe_realloc(g->tasks, cap, sizeof *g->tasks, "tasks of a schedule", b->e);
		if (tasks)
			g->tasks = tasks;
		void *before = tasks ? moe_realloc(b->before, cap, sizeof *b->before, "tasks of a schedule", b->e) : NULL;
		if (!before)
			return MOE_E_NOMEM;
		b->before = before;
		b->cap = cap;
	}
	if (b->deps_cap - g->n_deps < deps) {
		uint32_t cap = 2 * b->deps_cap + 256;
		void *v = moe_realloc(g->deps, cap, sizeof *g->deps, "dependencies of a schedule", b->e);
		if (!v)
			return MOE_E_NOMEM;
		g->deps = v;
		b->deps_cap = cap;
	}
	return 0;
}

/* What has ended when task d has: all that had before it began, and d. */
static void merge(const struct build *b, uint32_t *before, uint32_t d)
{
	enum moe_lane lane = b->graph.tasks[d].lane;
	for (int l = 0; l < MOE_LANES; l++)
		if (b->before[d][l] > before[l])
			before[l] = b->before[d][l];
	if (d + 1 > before[lane])
		before[lane] = d + 1;
}

static int newest_first(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? 1 : x > y ? -1 : 0;
}

/* What a task waits for can only follow from something newer, so taking the newest first leaves out all that follows. */
static void keep_what_says_something(struct build *b, struct moe_task *t, uint32_t *before)
{
	struct moe_graph *g = &b->graph;
	if (b->last[t->lane] != NO_TASK)
		merge(b, before, b->last[t->lane]);
	qsort(b->waits, (size_t)b->n_waits, sizeof *b->waits, newest_first);
	t->first = g->n_deps;
	for (int i = 0; i < b->n_waits; i++) {
		uint32_t d = b->waits[i];
		if (d + 1 <= before[g->tasks[d].lane])
			continue;
		g->deps[g->n_deps++] = d;
		merge(b, before, d);
	}
	t->n = g->n_deps - t->first;
}

uint32_t moe_build_task(struct build *b, const struct moe_task *task)
{
	struct moe_task t = *task;
	uint32_t id = b->graph.n;
	if (!b->rc)
		b->rc = grow(b, (uint32_t)b->n_waits);
	if (b->rc)
		return NO_TASK;
	memset(b->before[id], 0, sizeof b->before[id]);
	keep_what_says_something(b, &t, b->before[id]);
	b->graph.tasks[id] = t;
	b->graph.n++;
	b->last[t.lane] = id;
	b->n_waits = 0;
	return id;
}

/* ---- a whole graph ---- */

static uint32_t *no_tasks(size_t n, struct moe_err *e)
{
	uint32_t *v = moe_calloc(n, sizeof *v, "newest tasks of a schedule", e);
	if (v)
		memset(v, 0xff, n * sizeof *v);
	return v;
}

static int open_build(struct build *b, const struct moe_schedule_shape *s, struct moe_err *e)
{
	int rc = moe_shape_check(s, &b->shape, e);
	if (rc)
		return rc;
	b->e = e;
	b->graph.shape = b->shape;
	memset(b->last, 0xff, sizeof b->last);
	memset(b->barrier, 0xff, sizeof b->barrier);
	memset(b->of_turn, 0xff, sizeof b->of_turn);
	memset(b->slot_read, 0xff, sizeof b->slot_read);
	memset(b->slot_filled, 0xff, sizeof b->slot_filled);
	b->of_micro_batch = no_tasks(MOE_TASK_KINDS * ((size_t)b->shape.micro_batches + 1), e);
	b->of_page = no_tasks(MOE_TASK_KINDS * (size_t)b->shape.pages, e);
	b->stored = no_tasks((size_t)b->shape.layers * (size_t)b->shape.micro_batches, e);
	return b->of_micro_batch && b->of_page && b->stored ? 0 : MOE_E_NOMEM;
}

static void close_build(struct build *b)
{
	free(b->before);
	free(b->of_micro_batch);
	free(b->of_page);
	free(b->stored);
}

int moe_schedule_build(const struct moe_schedule_shape *s, struct moe_graph *out, struct moe_err *e)
{
	struct build b = {.n_waits = 0};
	int rc = open_build(&b, s, e);
	if (!rc) {
		moe_launch_all(&b);
		rc = b.rc;
	}
	close_build(&b);
	if (rc)
		moe_graph_free(&b.graph);
	*out = b.graph;
	return rc;
}

void moe_graph_free(struct moe_graph *g)
{
	free(g->tasks);
	free(g->deps);
	*g = (struct moe_graph){.n = 0};
}
