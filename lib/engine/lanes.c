/* The threads of an executor: each takes its lane's tasks in their order.  A stream's tasks are launched ahead of time: what they
 * wait for on other streams is waited for by the stream.  So a thread waits for two things only: that tasks of the host have
 * ended, and that those of other streams have been launched, without which there is no mark that could be waited for. */
#include <math.h>

#include "base/clock.h"
#include "engine/lanes.h"

/* Simulated time is told in nanoseconds of 64 bits. */
#define NS 1e9
#define LONGEST_SECONDS 9e9

/* The first failure is kept; everybody looks whether there is one before they begin something. */
static void report(struct moe_executor *x, int code, const struct moe_err *why)
{
	pthread_mutex_lock(&x->lock);
	if (!x->code) {
		x->code = code;
		x->err = *why;
	}
	for (int l = 0; l < MOE_LANES; l++)
		pthread_cond_signal(&x->lanes[l].changed);
	pthread_mutex_unlock(&x->lock);
}

static void report_task(struct moe_executor *x, uint32_t task, int code, struct moe_err *why)
{
	char text[96];

	moe_fail_prefix(why, code, "%s", moe_task_text(&x->g->tasks[task], text, sizeof text));
	report(x, code, why);
}

static const struct moe_backend_ops *ops(const struct lanes_lane *l)
{
	return l->x->c.device->ops;
}

/* ---- before a task ---- */

/* Until others have passed all that it depends on.  false: something has failed. */
static bool await(struct lanes_lane *l, const struct moe_task *t)
{
	struct moe_executor *x = l->x;
	bool go;

	pthread_mutex_lock(&x->lock);
	for (uint32_t d = t->first; d < t->first + t->n; d++) {
		l->awaits = x->g->deps[d];
		while (!x->code && !x->tasks[l->awaits].passed)
			pthread_cond_wait(&l->changed, &x->lock);
	}
	l->awaits = LANES_NONE;
	go = !x->code;
	pthread_mutex_unlock(&x->lock);
	return go;
}

/* What other streams have to end first: the host waits here, a stream itself. */
static int order_after(struct lanes_lane *l, uint32_t other)
{
	struct moe_executor *x = l->x;
	const struct lanes_lane *from = &x->lanes[x->g->tasks[other].lane];
	struct moe_err e = MOE_ERR_INIT;
	int rc = 0;

	if (!from->stream || from->stream == l->stream)
		return 0;
	if (l->stream)
		rc = ops(l)->event_wait(x->c.device, l->stream, x->tasks[other].end, &e);
	else
		rc = ops(l)->event_sync(x->c.device, x->tasks[other].end, &e);
	if (rc)
		report_task(x, other, rc, &e);
	return rc;
}

static bool may_begin(struct lanes_lane *l, const struct moe_task *t)
{
	struct moe_executor *x = l->x;
	struct moe_err e = MOE_ERR_INIT;

	if (!await(l, t))
		return false;
	for (uint32_t d = t->first; d < t->first + t->n; d++)
		if (order_after(l, x->g->deps[d]))
			return false;
	if (!x->stop || !*x->stop)
		return true;
	moe_fail(&e, MOE_E_CANCELLED, "cancelled");
	report(x, MOE_E_CANCELLED, &e);
	return false;
}

/* ---- a task ---- */

static int run_on_stream(struct lanes_lane *l, uint32_t i, struct moe_err *e)
{
	struct moe_executor *x = l->x;
	struct lanes_task *k = &x->tasks[i];
	int rc = k->begin ? ops(l)->event_record(x->c.device, l->stream, k->begin, e) : 0;

	rc = rc ? rc : x->c.run(x->c.ctx, &x->g->tasks[i], l->stream, e);
	rc = rc ? rc : ops(l)->event_record(x->c.device, l->stream, k->end, e);
	k->launched = rc == 0;
	return rc;
}

static int run_here(struct lanes_lane *l, uint32_t i, struct moe_err *e)
{
	struct moe_executor *x = l->x;
	uint64_t begin = moe_now_ns();
	int rc = x->c.run(x->c.ctx, &x->g->tasks[i], NULL, e);

	if (x->spans)
		x->spans[i] = (struct moe_span){begin, moe_now_ns()};
	return rc;
}

/* A task begins when the one before it on its lane and all that it depends on have ended. */
static int simulate(struct lanes_lane *l, uint32_t i, struct moe_err *e)
{
	struct moe_executor *x = l->x;
	const struct moe_task *t = &x->g->tasks[i];
	struct lanes_task *k = &x->tasks[i];
	double takes = x->c.seconds(x->c.ctx, t);

	k->from = l->free_at;
	for (uint32_t d = t->first; d < t->first + t->n; d++)
		k->from = fmax(k->from, x->tasks[x->g->deps[d]].until);
	if (!(takes >= 0) || !(k->from + takes < LONGEST_SECONDS))
		return moe_fail(e, MOE_E_INPUT, "takes %g seconds", takes);
	k->until = l->free_at = k->from + takes;
	if (x->spans)
		x->spans[i] = (struct moe_span){(uint64_t)llround(k->from * NS), (uint64_t)llround(k->until * NS)};
	return 0;
}

static int perform(struct lanes_lane *l, uint32_t i)
{
	struct moe_executor *x = l->x;
	struct moe_err e = MOE_ERR_INIT;
	int rc = 0;

	if (x->c.run)
		rc = l->stream ? run_on_stream(l, i, &e) : run_here(l, i, &e);
	if (!rc && x->c.seconds)
		rc = simulate(l, i, &e);
	if (rc)
		report_task(x, i, rc, &e);
	return rc;
}

static void pass(struct moe_executor *x, uint32_t i)
{
	pthread_mutex_lock(&x->lock);
	x->tasks[i].passed = true;
	for (int l = 0; l < MOE_LANES; l++)
		if (x->lanes[l].awaits == i)
			pthread_cond_signal(&x->lanes[l].changed);
	pthread_mutex_unlock(&x->lock);
}

/* ---- the end of a lane ---- */

/* Wait for a launched task; when it began and ended. */
static int settle(struct lanes_lane *l, uint32_t i, struct moe_err *e)
{
	struct moe_executor *x = l->x;
	const struct lanes_task *k = &x->tasks[i];
	int rc = ops(l)->event_sync(x->c.device, k->end, e);

	if (rc || !k->begin)
		return rc;
	rc = ops(l)->event_time(x->c.device, k->begin, &x->spans[i].begin, e);
	return rc ? rc : ops(l)->event_time(x->c.device, k->end, &x->spans[i].end, e);
}

/* Whatever has been put on the stream is waited for, also after a failure. */
static void drain(struct lanes_lane *l)
{
	struct moe_executor *x = l->x;
	struct moe_err e = MOE_ERR_INIT;
	int rc = 0;

	for (uint32_t n = 0; n < l->n && !rc && x->tasks[x->order[l->first + n]].launched; n++) {
		rc = settle(l, x->order[l->first + n], &e);
		if (rc)
			report_task(x, x->order[l->first + n], rc, &e);
	}
	e = (struct moe_err)MOE_ERR_INIT;
	rc = ops(l)->sync(x->c.device, l->stream, &e);
	if (rc) {
		moe_fail_prefix(&e, rc, "lane %s", moe_lane_name(l->lane));
		report(x, rc, &e);
	}
}

static void run_lane(struct lanes_lane *l)
{
	struct moe_executor *x = l->x;

	for (uint32_t n = 0; n < l->n; n++) {
		uint32_t i = x->order[l->first + n];

		if (!may_begin(l, &x->g->tasks[i]) || perform(l, i))
			break;
		pass(x, i);
	}
	if (l->stream)
		drain(l);
}

void *lanes_main(void *lane)
{
	struct lanes_lane *l = lane;
	struct moe_executor *x = l->x;

	pthread_mutex_lock(&x->lock);
	for (;;) {
		while (!l->called && !x->quit)
			pthread_cond_wait(&l->changed, &x->lock);
		if (x->quit)
			break;
		l->called = false;
		pthread_mutex_unlock(&x->lock);
		run_lane(l);
		pthread_mutex_lock(&x->lock);
		if (--x->working == 0)
			pthread_cond_signal(&x->ended);
	}
	pthread_mutex_unlock(&x->lock);
	return NULL;
}
