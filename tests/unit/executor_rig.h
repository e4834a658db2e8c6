/* A device of which every stream is a thread, and graphs whose tasks look at what has been done before them. */
#ifndef EXECUTOR_RIG_H
#define EXECUTOR_RIG_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "engine/executor.h"
#include "schedule_rig.h"

/* ---- the device ---- */

#define RIG_ITEMS 4096

struct rig_device {
	struct moe_backend b;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int opened;                  /* marks */
};
struct moe_mark {
	uint64_t recorded, passed, ns;
	bool failed;
};
struct rig_item {
	struct moe_mark *mark;       /* NULL: work */
	bool wait;                   /* until it is passed, else pass it */
	uint64_t number;
	bool (*work)(void *ctx, uint32_t task); /* false: it failed */
	void *ctx;
	uint32_t task;
};
struct moe_stream_q {
	struct rig_device *d;
	pthread_t thread;
	struct rig_item items[RIG_ITEMS];
	uint64_t put, taken;
	bool quit, failed;
};

static inline void rig_do(struct moe_stream_q *q, const struct rig_item *i)
{
	if (!i->mark) {
		pthread_mutex_unlock(&q->d->lock);
		bool ok = i->work(i->ctx, i->task);
		pthread_mutex_lock(&q->d->lock);
		q->failed = q->failed || !ok;
	} else if (i->wait) {
		while (i->mark->passed < i->number)
			pthread_cond_wait(&q->d->changed, &q->d->lock);
	} else {
		i->mark->passed = i->number;
		i->mark->failed = q->failed;
		i->mark->ns = moe_now_ns();
	}
}

static inline void *rig_stream(void *arg)
{
	struct moe_stream_q *q = arg;
	pthread_mutex_lock(&q->d->lock);
	for (;;) {
		while (q->taken == q->put && !q->quit)
			pthread_cond_wait(&q->d->changed, &q->d->lock);
		if (q->taken == q->put)
			break;
		rig_do(q, &q->items[q->taken % RIG_ITEMS]);
		q->taken++;
		pthread_cond_broadcast(&q->d->changed);
	}
	pthread_mutex_unlock(&q->d->lock);
	return NULL;
}

static inline void rig_put(struct moe_stream_q *q, struct rig_item i)
{
	pthread_mutex_lock(&q->d->lock);
	while (q->put - q->taken == RIG_ITEMS)
		pthread_cond_wait(&q->d->changed, &q->d->lock);
	if (i.mark)
		i.number = i.wait ? i.mark->recorded : ++i.mark->recorded;
	q->items[q->put++ % RIG_ITEMS] = i;
	pthread_cond_broadcast(&q->d->changed);
	pthread_mutex_unlock(&q->d->lock);
}

static inline int rig_event_open(struct moe_backend *b, struct moe_mark **out, struct moe_err *e)
{
	(void)e;
	((struct rig_device *)b)->opened++;
	*out = calloc(1, sizeof **out);
	return 0;
}

static inline void rig_event_close(struct moe_backend *b, struct moe_mark *m)
{
	((struct rig_device *)b)->opened--;
	free(m);
}

static inline int rig_event_record(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *m, struct moe_err *e)
{
	(void)b;
	(void)e;
	rig_put(q, (struct rig_item){.mark = m});
	return 0;
}

static inline int rig_event_wait(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *m, struct moe_err *e)
{
	(void)b;
	(void)e;
	rig_put(q, (struct rig_item){.mark = m, .wait = true});
	return 0;
}

static inline int rig_event_sync(struct moe_backend *b, struct moe_mark *m, struct moe_err *e)
{
	struct rig_device *d = (struct rig_device *)b;
	pthread_mutex_lock(&d->lock);
	while (m->passed < m->recorded)
		pthread_cond_wait(&d->changed, &d->lock);
	bool failed = m->failed;
	pthread_mutex_unlock(&d->lock);
	return failed ? moe_fail(e, MOE_E_IO, "the device failed") : 0;
}

static inline int rig_event_time(struct moe_backend *b, struct moe_mark *m, uint64_t *ns, struct moe_err *e)
{
	struct rig_device *d = (struct rig_device *)b;
	(void)e;
	pthread_mutex_lock(&d->lock);
	*ns = m->ns;
	pthread_mutex_unlock(&d->lock);
	return 0;
}

static inline int rig_sync(struct moe_backend *b, struct moe_stream_q *q, struct moe_err *e)
{
	struct rig_device *d = (struct rig_device *)b;
	pthread_mutex_lock(&d->lock);
	while (q->taken < q->put)
		pthread_cond_wait(&d->changed, &d->lock);
	bool failed = q->failed;
	q->failed = false;
	pthread_mutex_unlock(&d->lock);
	return failed ? moe_fail(e, MOE_E_IO, "the device failed") : 0;
}

static const struct moe_backend_ops rig_ops = {
	.name = "rig", .event_open = rig_event_open, .event_close = rig_event_close, .event_record = rig_event_record, .event_wait = rig_event_wait,
	.event_sync = rig_event_sync, .event_time = rig_event_time, .sync = rig_sync,
};

static inline void rig_device_open(struct rig_device *d)
{
	*d = (struct rig_device){.b.ops = &rig_ops};
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->changed, NULL);
}

static inline struct moe_stream_q *rig_stream_open(struct rig_device *d)
{
	struct moe_stream_q *q = calloc(1, sizeof *q);
	q->d = d;
	assert_int_equal(pthread_create(&q->thread, NULL, rig_stream, q), 0);
	return q;
}

static inline void rig_stream_close(struct moe_stream_q *q)
{
	pthread_mutex_lock(&q->d->lock);
	q->quit = true;
	pthread_cond_broadcast(&q->d->changed);
	pthread_mutex_unlock(&q->d->lock);
	pthread_join(q->thread, NULL);
	free(q);
}

/* ---- tasks that look around ---- */

enum { RIG_NEW, RIG_BEGUN, RIG_ENDED };
#define RIG_MOST 20000

/* A run of a graph.  What tasks find wrong is kept, for the test's own thread to say. */
struct rig_trial {
	struct moe_executor_config c;
	struct moe_executor *x;
	const struct moe_graph *g;
	const struct moe_task *first; /* g->tasks */
	_Atomic int state[RIG_MOST];
	uint32_t before[RIG_MOST];   /* on the same lane; RIG_NONE */
	_Atomic uint32_t fail_launch, fail_work; /* this task fails when it is launched; on its stream */
	_Atomic uint32_t stop_at;    /* this one sets `stop` */
	_Atomic bool stop;
	_Atomic int wrong;           /* tasks that began too early, or twice */
};

static inline bool rig_task(void *ctx, uint32_t i)
{
	struct rig_trial *r = ctx;
	const struct moe_task *t = &r->g->tasks[i];
	bool ok = atomic_exchange(&r->state[i], RIG_BEGUN) == RIG_NEW;
	for (uint32_t d = t->first; d < t->first + t->n; d++)
		ok = ok && r->state[r->g->deps[d]] == RIG_ENDED;
	if (r->before[i] != RIG_NONE)
		ok = ok && r->state[r->before[i]] == RIG_ENDED;
	for (uint32_t n = i * 2654435761u % 4; n > 0; n--)
		sched_yield();
	r->wrong += !ok;
	if (i == r->stop_at)
		r->stop = true;
	r->state[i] = RIG_ENDED;
	return i != r->fail_work;
}

static inline int rig_run(void *ctx, const struct moe_task *t, struct moe_stream_q *q, struct moe_err *e)
{
	struct rig_trial *r = ctx;
	uint32_t i = (uint32_t)(t - r->first);
	if (q)
		rig_put(q, (struct rig_item){.work = rig_task, .ctx = r, .task = i});
	else if (!rig_task(r, i))
		return moe_fail(e, MOE_E_IO, "the host failed");
	return i == r->fail_launch ? moe_fail(e, MOE_E_PEER, "not launched") : 0;
}

/* Graphs are run after each other on the same executor.  The graph stays the caller's until the next. */
static inline void rig_take(struct rig_trial *r, const struct moe_graph *g)
{
	uint32_t last[MOE_LANES];
	assert_true(g->n <= RIG_MOST);
	r->g = g;
	r->first = g->tasks;
	memset(last, 0xff, sizeof last);
	for (uint32_t i = 0; i < g->n; i++) {
		r->state[i] = RIG_NEW;
		r->before[i] = last[g->tasks[i].lane];
		last[g->tasks[i].lane] = i;
	}
	r->fail_launch = r->fail_work = r->stop_at = RIG_NONE;
	r->stop = false;
	r->wrong = 0;
}

/* Nothing is under way, nothing began too early.  Returns how many tasks ended. */
static inline uint32_t rig_ended(struct rig_trial *r)
{
	uint32_t ended = 0;
	for (uint32_t i = 0; i < r->g->n; i++) {
		assert_int_not_equal(r->state[i], RIG_BEGUN);
		ended += r->state[i] == RIG_ENDED;
	}
	return ended;
}

static inline struct rig_trial *rig_trial_open(struct rig_device *d)
{
	struct rig_trial *r = calloc(1, sizeof *r);
	r->c = (struct moe_executor_config){.run = rig_run, .ctx = r};
	if (d) {
		r->c.device = &d->b;
		r->c.streams[MOE_LANE_GPU] = rig_stream_open(d);
		r->c.streams[MOE_LANE_H2D] = rig_stream_open(d);
		r->c.streams[MOE_LANE_D2H] = rig_stream_open(d);
	}
	assert_int_equal(moe_executor_open(&r->c, &r->x, NULL), 0);
	return r;
}

static inline void rig_trial_close(struct rig_trial *r)
{
	moe_executor_close(r->x);
	for (int l = 0; l < MOE_LANES; l++)
		if (r->c.streams[l])
			rig_stream_close(r->c.streams[l]);
	free(r);
}

#endif
