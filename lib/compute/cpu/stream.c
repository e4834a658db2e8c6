#include "stream.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/team.h"

#define QUEUE 64                 /* most that is on a stream */

enum work { COPY, RECORD, WAIT };
struct item {
	enum work work;
	uint64_t queued;             /* when it was put on the stream */
	struct moe_copy copy;
	struct moe_mark *mark;
	uint64_t record;             /* of the mark: which of its records */
};

struct moe_mark {
	int users;                   /* items, and whoever opened it */
	uint64_t recorded, passed;   /* records: begun, and the last one passed */
	uint64_t when;               /* it was passed */
	uint64_t time;               /* of its stream then */
	struct moe_err err;          /* of its stream then */
};

struct moe_stream_q {
	struct moe_streams *set;
	pthread_t thread;
	struct item items[QUEUE];    /* item i of all at i % QUEUE */
	uint64_t put, done;          /* items so far */
	uint64_t time;               /* when the last copy ended, or would have if threads always woke in time */
	struct moe_err err;          /* what has gone wrong since the last sync */
	bool ending;
};

struct moe_streams {
	moe_copy_fn *copy;
	void *ctx;
	pthread_mutex_t lock;        /* of all streams and events */
	pthread_cond_t changed;
};

int moe_streams_open(moe_copy_fn *copy, void *ctx, struct moe_streams **out, struct moe_err *e)
{
	struct moe_streams *s = moe_calloc(1, sizeof *s, "streams", e);

	if (!s)
		return MOE_E_NOMEM;
	s->copy = copy;
	s->ctx = ctx;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	*out = s;
	return 0;
}

void moe_streams_close(struct moe_streams *s)
{
	if (!s)
		return;
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* ---- the stream's thread, which holds the lock but while it copies ---- */

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void leave_mark(struct moe_mark *m)
{
	if (--m->users == 0)
		free(m);
}

static void do_copy(struct moe_stream_q *q, const struct item *it)
{
	struct moe_streams *s = q->set;
	struct moe_err err = MOE_ERR_INIT;
	uint64_t time = q->time;

	pthread_mutex_unlock(&s->lock);
	(void)s->copy(s->ctx, &it->copy, &time, &err);
	pthread_mutex_lock(&s->lock);
	q->time = time;
	q->err = err;
}

static void do_record(struct moe_stream_q *q, const struct item *it)
{
	struct moe_mark *m = it->mark;

	m->passed = it->record;
	m->when = moe_now_ns();
	m->time = q->time;
	m->err = q->err;
}

static void do_wait(struct moe_stream_q *q, const struct item *it)
{
	const struct moe_mark *m = it->mark;

	while (m->passed < it->record)
		pthread_cond_wait(&q->set->changed, &q->set->lock);
	q->time = later(q->time, m->time);
	if (!q->err.code)
		q->err = m->err;
}

static void do_item(struct moe_stream_q *q)
{
	const struct item *it = &q->items[q->done % QUEUE];

	q->time = later(q->time, it->queued);
	switch (it->work) {
	case COPY:
		if (!q->err.code)
			do_copy(q, it);
		break;
	case RECORD:
		do_record(q, it);
		break;
	case WAIT:
		do_wait(q, it);
		break;
	}
	if (it->mark)
		leave_mark(it->mark);
	q->done++;
	pthread_cond_broadcast(&q->set->changed);
}

static void *stream_main(void *arg)
{
	struct moe_stream_q *q = arg;

	pthread_mutex_lock(&q->set->lock);
	for (;;) {
		while (q->done == q->put && !q->ending)
			pthread_cond_wait(&q->set->changed, &q->set->lock);
		if (q->done == q->put)
			break;
		do_item(q);
	}
	pthread_mutex_unlock(&q->set->lock);
	return NULL;
}

/* ---- opening and closing ---- */

int moe_streams_add(struct moe_streams *s, struct moe_stream_q **out, struct moe_err *e)
{
	struct moe_stream_q *q = moe_calloc(1, sizeof *q, "a stream", e);
	int rc;

	if (!q)
		return MOE_E_NOMEM;
	q->set = s;
	rc = moe_thread_start(stream_main, q, &q->thread, e);
	if (rc)
		free(q);
	else
		*out = q;
	return rc;
}

void moe_streams_end(struct moe_streams *s, struct moe_stream_q *q)
{
	if (!q)
		return;
	pthread_mutex_lock(&s->lock);
	q->ending = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	pthread_join(q->thread, NULL);
	free(q);
}

int moe_streams_mark(struct moe_streams *s, struct moe_mark **out, struct moe_err *e)
{
	(void)s;
	*out = moe_calloc(1, sizeof **out, "an event", e);
	if (!*out)
		return MOE_E_NOMEM;
	(*out)->users = 1;
	return 0;
}

void moe_streams_unmark(struct moe_streams *s, struct moe_mark *ev)
{
	if (!ev)
		return;
	pthread_mutex_lock(&s->lock);
	leave_mark(ev);
	pthread_mutex_unlock(&s->lock);
}

/* ---- putting work on a stream ---- */

/* A record gets its number, and a wait the number of the last, when there is room: so a wait is always for a record that is on a stream
 * already, and streams that are full cannot wait for each other in a circle. */
static void put(struct moe_streams *s, struct moe_stream_q *q, struct item it)
{
	pthread_mutex_lock(&s->lock);
	while (q->put - q->done == QUEUE)
		pthread_cond_wait(&s->changed, &s->lock);
	it.queued = moe_now_ns();
	if (it.mark) {
		it.mark->users++;
		it.mark->recorded += it.work == RECORD;
		it.record = it.mark->recorded;
	}
	q->items[q->put++ % QUEUE] = it;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

void moe_streams_copy(struct moe_streams *s, struct moe_stream_q *q, const struct moe_copy *c)
{
	put(s, q, (struct item){.work = COPY, .copy = *c});
}

void moe_streams_record(struct moe_streams *s, struct moe_stream_q *q, struct moe_mark *ev)
{
	put(s, q, (struct item){.work = RECORD, .mark = ev});
}

void moe_streams_wait(struct moe_streams *s, struct moe_stream_q *q, struct moe_mark *ev)
{
	put(s, q, (struct item){.work = WAIT, .mark = ev});
}

/* ---- waiting ---- */

static int report(const struct moe_err *err, struct moe_err *e)
{
	if (err->code && e)
		*e = *err;
	return err->code;
}

/* With the lock held. */
static int drain(struct moe_stream_q *q, struct moe_err *e)
{
	uint64_t put = q->put;

	while (q->done < put)
		pthread_cond_wait(&q->set->changed, &q->set->lock);
	return report(&q->err, e);
}

int moe_streams_drain(struct moe_streams *s, struct moe_stream_q *q, struct moe_err *e)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = drain(q, e);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int moe_streams_sync(struct moe_streams *s, struct moe_stream_q *q, struct moe_err *e)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = drain(q, e);
	q->err.code = 0;
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int moe_streams_event_sync(struct moe_streams *s, struct moe_mark *ev, struct moe_err *e)
{
	uint64_t record;
	int rc;

	pthread_mutex_lock(&s->lock);
	record = ev->recorded;
	while (ev->passed < record)
		pthread_cond_wait(&s->changed, &s->lock);
	rc = report(&ev->err, e);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int moe_streams_event_time(struct moe_streams *s, struct moe_mark *ev, uint64_t *ns, struct moe_err *e)
{
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	if (ev->passed == 0 || ev->passed < ev->recorded)
		rc = moe_fail(e, MOE_E_BUSY, "the event has not been passed");
	else
		*ns = ev->when;
	pthread_mutex_unlock(&s->lock);
	return rc;
}
