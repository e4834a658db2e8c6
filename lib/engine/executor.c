/* The executor: its lanes, and how a graph is laid out for them. */
#include "engine/executor.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/team.h"
#include "engine/lanes.h"

/* ---- laying out a graph ---- */

/* The lanes' tasks, each lane's in the order of the graph. */
static void sort_by_lane(struct moe_executor *x, const struct moe_graph *g)
{
	uint32_t at[MOE_LANES], first = 0;

	for (int l = 0; l < MOE_LANES; l++)
		x->lanes[l].n = 0;
	for (uint32_t i = 0; i < g->n; i++)
		x->lanes[g->tasks[i].lane].n++;
	for (int l = 0; l < MOE_LANES; l++) {
		at[l] = x->lanes[l].first = first;
		first += x->lanes[l].n;
	}
	for (uint32_t i = 0; i < g->n; i++)
		x->order[at[g->tasks[i].lane]++] = i;
}

static int make_room(struct moe_executor *x, uint32_t n, struct moe_err *e)
{
	void *p;

	if (n <= x->room)
		return 0;
	p = moe_realloc(x->order, n, sizeof *x->order, "a graph's lanes", e);
	if (!p)
		return MOE_E_NOMEM;
	x->order = p;
	p = moe_realloc(x->tasks, n, sizeof *x->tasks, "a graph's tasks", e);
	if (!p)
		return MOE_E_NOMEM;
	x->tasks = p;
	x->room = n;
	return 0;
}

/* The next mark that no task has. */
static int take_mark(struct moe_executor *x, size_t *taken, struct moe_mark **out, struct moe_err *e)
{
	struct moe_backend *b = x->c.device;

	if (*taken == x->n_marks) {
		if (x->n_marks == x->marks_room) {
			size_t room = x->marks_room ? 2 * x->marks_room : 64;
			void *p = moe_realloc(x->marks, room, sizeof(struct moe_mark *), "marks of tasks", e);

			if (!p)
				return MOE_E_NOMEM;
			x->marks = p;
			x->marks_room = room;
		}
		int rc = b->ops->event_open(b, &x->marks[x->n_marks], e);
		if (rc)
			return rc;
		x->n_marks++;
	}
	*out = x->marks[(*taken)++];
	return 0;
}

static int mark_tasks(struct moe_executor *x, const struct moe_graph *g, bool times, struct moe_err *e)
{
	size_t taken = 0;
	int rc = 0;

	for (uint32_t i = 0; i < g->n && !rc; i++) {
		struct lanes_task *k = &x->tasks[i];

		*k = (struct lanes_task){.passed = false};
		if (!x->lanes[g->tasks[i].lane].stream)
			continue;
		rc = times ? take_mark(x, &taken, &k->begin, e) : 0;
		rc = rc ? rc : take_mark(x, &taken, &k->end, e);
	}
	return rc;
}

/* ---- a run ---- */

/* Wake the lanes that have something to do and wait until none is at work. */
static int call_lanes(struct moe_executor *x, struct moe_err *e)
{
	pthread_mutex_lock(&x->lock);
	x->code = 0;
	for (int l = 0; l < MOE_LANES; l++) {
		struct lanes_lane *lane = &x->lanes[l];

		lane->free_at = 0;
		lane->called = lane->n > 0;
		x->working += lane->called;
		if (lane->called)
			pthread_cond_signal(&lane->changed);
	}
	while (x->working)
		pthread_cond_wait(&x->ended, &x->lock);
	if (x->code && e)
		*e = x->err;
	pthread_mutex_unlock(&x->lock);
	return x->code;
}

int moe_executor_run(struct moe_executor *x, const struct moe_graph *g, struct moe_span *spans, const _Atomic bool *stop, struct moe_err *e)
{
	int rc = make_room(x, g->n, e);

	if (rc)
		return rc;
	sort_by_lane(x, g);
	rc = mark_tasks(x, g, spans && !x->c.seconds, e);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < g->n && spans; i++)
		spans[i] = (struct moe_span){MOE_SPAN_NONE, MOE_SPAN_NONE};
	x->g = g;
	x->spans = spans;
	x->stop = stop;
	return call_lanes(x, e);
}

/* ---- opening and closing ---- */

static int check(const struct moe_executor_config *c, struct moe_err *e)
{
	if (!c->run && !c->seconds)
		return moe_fail(e, MOE_E_INPUT, "an executor without anything to run");
	for (int l = 0; l < MOE_LANES; l++)
		if (c->streams[l] && !c->device)
			return moe_fail(e, MOE_E_INPUT, "lane %s has a stream of no device", moe_lane_name((enum moe_lane)l));
	return 0;
}

static int start_lanes(struct moe_executor *x, struct moe_err *e)
{
	for (int i = 0; i < MOE_LANES; i++) {
		struct lanes_lane *l = &x->lanes[i];
		int rc = moe_thread_start(lanes_main, l, &l->thread, e);

		if (rc)
			return rc;
		l->started = true;
	}
	return 0;
}

int moe_executor_open(const struct moe_executor_config *c, struct moe_executor **out, struct moe_err *e)
{
	struct moe_executor *x;
	int rc = check(c, e);

	if (rc)
		return rc;
	x = moe_calloc(1, sizeof *x, "an executor", e);
	if (!x)
		return MOE_E_NOMEM;
	x->c = *c;
	pthread_mutex_init(&x->lock, NULL);
	pthread_cond_init(&x->ended, NULL);
	for (int l = 0; l < MOE_LANES; l++) {
		x->lanes[l] = (struct lanes_lane){.x = x, .lane = (enum moe_lane)l, .awaits = LANES_NONE};
		x->lanes[l].stream = c->run ? c->streams[l] : NULL;
		pthread_cond_init(&x->lanes[l].changed, NULL);
	}
	rc = start_lanes(x, e);
	if (rc) {
		moe_executor_close(x);
		return rc;
	}
	*out = x;
	return 0;
}

void moe_executor_close(struct moe_executor *x)
{
	if (!x)
		return;
	pthread_mutex_lock(&x->lock);
	x->quit = true;
	for (int l = 0; l < MOE_LANES; l++)
		pthread_cond_signal(&x->lanes[l].changed);
	pthread_mutex_unlock(&x->lock);
	for (int l = 0; l < MOE_LANES; l++) {
		if (x->lanes[l].started)
			pthread_join(x->lanes[l].thread, NULL);
		pthread_cond_destroy(&x->lanes[l].changed);
	}
	for (size_t i = 0; i < x->n_marks; i++)
		x->c.device->ops->event_close(x->c.device, x->marks[i]);
	pthread_cond_destroy(&x->ended);
	pthread_mutex_destroy(&x->lock);
	free(x->marks);
	free(x->order);
	free(x->tasks);
	free(x);
}
