/* Streams and events of the CPU as a device, with copies that only say when they were made; and the arithmetic of its link. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/team.h"
#include "compute/cpu/pace.h"
#include "compute/cpu/stream.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define MOST 4096

static void must(int rc, const struct moe_err *e)
{
	if (rc != 0)
		fail_msg("%s", e->msg);
}

/* ---- a device whose copy number `bytes` fails, waits, or says in which order it was made ---- */

struct device {
	struct moe_streams *s;
	atomic_int clock;
	atomic_int begun[MOST], ended[MOST];  /* by `clock`; 0: not yet */
	_Atomic bool wrong;                   /* a time that cannot be */
	int bad;                              /* the copy that fails; -1: none */
	pthread_mutex_t gate;                 /* held: no copy ends */
};

static int copy(void *ctx, const struct moe_copy *c, uint64_t *time, struct moe_err *e)
{
	struct device *d = ctx;

	if (*time == 0 || *time > moe_now_ns())
		d->wrong = true;
	d->begun[c->bytes] = atomic_fetch_add(&d->clock, 1);
	if ((int)c->bytes == d->bad)
		return moe_fail(e, MOE_E_IO, "copy %d fails", d->bad);
	pthread_mutex_lock(&d->gate);
	pthread_mutex_unlock(&d->gate);
	d->ended[c->bytes] = atomic_fetch_add(&d->clock, 1);
	return 0;
}

static struct device *device_new(void)
{
	struct device *d = calloc(1, sizeof *d);
	struct moe_err e = MOE_ERR_INIT;

	assert_non_null(d);
	d->clock = 1;
	d->bad = -1;
	pthread_mutex_init(&d->gate, NULL);
	must(moe_streams_open(copy, d, &d->s, &e), &e);
	return d;
}

static void device_free(struct device *d)
{
	moe_streams_close(d->s);
	assert_false(d->wrong);
	pthread_mutex_destroy(&d->gate);
	free(d);
}

static struct moe_stream_q *stream(struct device *d)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_stream_q *q;

	must(moe_streams_add(d->s, &q, &e), &e);
	return q;
}

static struct moe_mark *mark(struct device *d)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_mark *m;

	must(moe_streams_mark(d->s, &m, &e), &e);
	return m;
}

static void put(struct device *d, struct moe_stream_q *q, int number)
{
	moe_streams_copy(d->s, q, &(struct moe_copy){.bytes = (size_t)number});
}

static bool made(const struct device *d, int number)
{
	return d->ended[number] > 0;
}

/* ---- order ---- */

static void a_stream_keeps_its_order(void **state)
{
	struct device *d = device_new();
	struct moe_stream_q *q = stream(d);
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	for (int i = 0; i < 500; i++) /* more than it holds at once */
		put(d, q, i);
	must(moe_streams_sync(d->s, q, &e), &e);
	for (int i = 0; i < 500; i++) {
		assert_true(made(d, i));
		assert_true(i == 0 || d->begun[i] > d->ended[i - 1]);
	}
	moe_streams_end(d->s, q);
	device_free(d);
}

static void what_is_queued_is_done_before_the_end(void **state)
{
	struct device *d = device_new();
	struct moe_stream_q *a = stream(d), *b = stream(d);
	struct moe_mark *m = mark(d);

	(void)state;
	pthread_mutex_lock(&d->gate);
	for (int i = 0; i < 20; i++)
		put(d, a, i);
	moe_streams_record(d->s, a, m);
	moe_streams_wait(d->s, b, m);
	moe_streams_unmark(d->s, m); /* still in use */
	put(d, b, 20);
	pthread_mutex_unlock(&d->gate);
	moe_streams_end(d->s, b);
	moe_streams_end(d->s, a);
	moe_streams_end(d->s, NULL);
	moe_streams_unmark(d->s, NULL);
	for (int i = 0; i <= 20; i++)
		assert_true(made(d, i));
	assert_true(d->begun[20] > d->ended[19]);
	device_free(d);
}

static void events_tell_when_they_were_passed(void **state)
{
	struct device *d = device_new();
	struct moe_stream_q *q = stream(d);
	struct moe_mark *m = mark(d);
	struct moe_err e = MOE_ERR_INIT;
	uint64_t start = moe_now_ns(), first, second;

	(void)state;
	assert_int_equal(moe_streams_event_time(d->s, m, &first, &e), MOE_E_BUSY);
	must(moe_streams_event_sync(d->s, m, &e), &e); /* never recorded: nothing to wait for */
	moe_streams_wait(d->s, q, m);
	moe_streams_record(d->s, q, m);
	must(moe_streams_event_sync(d->s, m, &e), &e);
	must(moe_streams_event_time(d->s, m, &first, &e), &e);
	pthread_mutex_lock(&d->gate);
	put(d, q, 1);
	moe_streams_record(d->s, q, m);
	assert_int_equal(moe_streams_event_time(d->s, m, &second, &e), MOE_E_BUSY);
	pthread_mutex_unlock(&d->gate);
	must(moe_streams_event_sync(d->s, m, &e), &e);
	assert_true(made(d, 1));
	must(moe_streams_event_time(d->s, m, &second, &e), &e);
	assert_true(start <= first && first <= second && second <= moe_now_ns());
	moe_streams_unmark(d->s, m);
	moe_streams_end(d->s, q);
	device_free(d);
}

/* ---- many streams and events at random ---- */

#define STREAMS 5
#define MARKS 7

/* How many copies of each stream something comes after. */
struct after {
	int n[STREAMS];
};

struct program {
	struct device *d;
	struct moe_stream_q *q[STREAMS];
	struct moe_mark *m[MARKS];
	struct after stream[STREAMS], mark[MARKS];
	int copies, number[STREAMS][MOST];    /* of each stream's copies */
	struct after copy[MOST];
	uint64_t random;
};

static int draw(struct program *p, int n)
{
	p->random = p->random * 6364136223846793005u + 1442695040888963407u;
	return (int)(p->random >> 33) % n;
}

static void random_step(struct program *p)
{
	int s = draw(p, STREAMS), m = draw(p, MARKS), what = draw(p, 10);
	struct moe_err e = MOE_ERR_INIT;

	if (what < 5) {
		p->copy[p->copies] = p->stream[s];
		p->number[s][p->stream[s].n[s]++] = p->copies;
		put(p->d, p->q[s], p->copies++);
	} else if (what < 7) {
		must(moe_streams_event_sync(p->d->s, p->m[m], &e), &e); /* it has been passed */
		p->mark[m] = p->stream[s];
		moe_streams_record(p->d->s, p->q[s], p->m[m]);
	} else if (what < 9) {
		for (int i = 0; i < STREAMS; i++)
			if (p->mark[m].n[i] > p->stream[s].n[i])
				p->stream[s].n[i] = p->mark[m].n[i];
		moe_streams_wait(p->d->s, p->q[s], p->m[m]);
	} else if (draw(p, 20) == 0) {
		must(moe_streams_drain(p->d->s, p->q[s], &e), &e);
		for (int i = 0; i < STREAMS; i++)
			for (int j = 0; j < p->stream[s].n[i]; j++)
				assert_true(made(p->d, p->number[i][j]));
	}
}

static void check_program(const struct program *p)
{
	for (int c = 0; c < p->copies; c++) {
		assert_true(made(p->d, c));
		for (int i = 0; i < STREAMS; i++)
			if (p->copy[c].n[i] > 0)
				assert_true(p->d->ended[p->number[i][p->copy[c].n[i] - 1]] < p->d->begun[c]);
	}
}

static void what_waits_comes_after(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 8; seed++) {
		struct program *p = calloc(1, sizeof *p);

		assert_non_null(p);
		p->d = device_new();
		p->random = seed;
		for (int i = 0; i < STREAMS; i++)
			p->q[i] = stream(p->d);
		for (int i = 0; i < MARKS; i++)
			p->m[i] = mark(p->d);
		for (int i = 0; i < MOST; i++)
			random_step(p);
		for (int i = 0; i < MARKS; i++)
			moe_streams_unmark(p->d->s, p->m[i]);
		for (int i = 0; i < STREAMS; i++)
			moe_streams_end(p->d->s, p->q[i]);
		check_program(p);
		device_free(p->d);
		free(p);
	}
}

/* Two streams in two threads that wait for each other's events all the time, longer than the streams hold: nobody waits for ever. */
struct player {
	struct device *d;
	struct moe_stream_q *q;
	struct moe_mark *mine, *theirs;
	int first;
};

static void *play(void *arg)
{
	struct player *p = arg;

	for (int i = 0; i < 1000; i++) {
		put(p->d, p->q, p->first + i);
		moe_streams_record(p->d->s, p->q, p->mine);
		moe_streams_wait(p->d->s, p->q, p->theirs);
	}
	return NULL;
}

static void full_streams_do_not_wait_in_a_circle(void **state)
{
	struct device *d = device_new();
	struct moe_mark *a = mark(d), *b = mark(d);
	struct player one = {d, stream(d), a, b, 0}, two = {d, stream(d), b, a, 1000};
	struct moe_err e = MOE_ERR_INIT;
	pthread_t thread;

	(void)state;
	must(moe_thread_start(play, &two, &thread, &e), &e);
	play(&one);
	pthread_join(thread, NULL);
	moe_streams_end(d->s, one.q);
	moe_streams_end(d->s, two.q);
	moe_streams_unmark(d->s, a);
	moe_streams_unmark(d->s, b);
	for (int i = 0; i < 2000; i++)
		assert_true(made(d, i));
	device_free(d);
}

/* ---- errors ---- */

static void a_failure_is_reported_and_forgotten(void **state)
{
	struct device *d = device_new();
	struct moe_stream_q *q = stream(d);
	struct moe_mark *before = mark(d), *behind = mark(d);
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	d->bad = 2;
	put(d, q, 1);
	moe_streams_record(d->s, q, before);
	put(d, q, 2);
	put(d, q, 3);
	moe_streams_record(d->s, q, behind);
	must(moe_streams_event_sync(d->s, before, &e), &e);
	assert_int_equal(moe_streams_event_sync(d->s, behind, &e), MOE_E_IO);
	assert_string_equal(e.msg, "copy 2 fails");
	assert_int_equal(moe_streams_drain(d->s, q, &e), MOE_E_IO); /* which is not its report yet */
	assert_int_equal(moe_streams_drain(d->s, q, NULL), MOE_E_IO);
	assert_int_equal(moe_streams_sync(d->s, q, &e), MOE_E_IO);
	assert_true(made(d, 1) && !made(d, 3));
	put(d, q, 4);
	moe_streams_record(d->s, q, behind);
	must(moe_streams_sync(d->s, q, &e), &e);
	must(moe_streams_event_sync(d->s, behind, &e), &e);
	assert_true(made(d, 4));
	moe_streams_unmark(d->s, before);
	moe_streams_unmark(d->s, behind);
	moe_streams_end(d->s, q);
	device_free(d);
}

static void who_waits_for_a_failure_fails(void **state)
{
	struct device *d = device_new();
	struct moe_stream_q *a = stream(d), *b = stream(d), *c = stream(d);
	struct moe_mark *m = mark(d);
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	d->bad = 1;
	put(d, a, 1);
	moe_streams_record(d->s, a, m);
	put(d, b, 2);
	moe_streams_wait(d->s, b, m);
	put(d, b, 3);
	put(d, c, 4);
	must(moe_streams_sync(d->s, c, &e), &e);
	assert_int_equal(moe_streams_sync(d->s, b, &e), MOE_E_IO);
	assert_int_equal(moe_streams_sync(d->s, a, &e), MOE_E_IO);
	assert_true(made(d, 2) && !made(d, 3) && made(d, 4));
	moe_streams_unmark(d->s, m);
	moe_streams_end(d->s, a);
	moe_streams_end(d->s, b);
	moe_streams_end(d->s, c);
	device_free(d);
}

/* ---- the link's arithmetic ---- */

#define MS 1000000u

static void a_link_is_not_exceeded(void **state)
{
	struct moe_pace p = {.bandwidth = 1e9};
	uint64_t now = 1000 * MS, ready[2] = {now, now}, carried = 0;

	(void)state;
	for (int i = 0; i < 1000; i++) { /* two streams in turn, each waits until its piece has been carried */
		uint64_t done = moe_pace_take(&p, ready[i % 2], ready[i % 2], 12345);

		carried += 12345;
		assert_int_equal(done, now + carried);
		ready[i % 2] = done;
	}
}

static void who_wakes_late_catches_up(void **state)
{
	struct moe_pace p = {.bandwidth = 1e9};
	uint64_t start = 1000 * MS, time = start;

	(void)state;
	for (int i = 1; i <= 100; i++) { /* always a tenth of a millisecond late */
		time = moe_pace_take(&p, time, time + MS / 10, 500000);
		assert_int_equal(time, start + (uint64_t)i * 500000);
	}
	time = moe_pace_take(&p, time, time + 100 * MS, 500000); /* but not more than the slack */
	assert_int_equal(time, start + 100 * 500000 + 100 * MS - MOE_PACE_SLACK + 500000);
}

static void an_idle_link_saves_nothing_up(void **state)
{
	struct moe_pace p = {.bandwidth = 2e9};

	(void)state;
	assert_int_equal(moe_pace_take(&p, 10 * MS, 10 * MS, 1000), 10 * MS + 500);
	assert_int_equal(moe_pace_take(&p, 50 * MS, 50 * MS, 1000), 50 * MS + 500);
	assert_int_equal(moe_pace_take(&p, 50 * MS, 50 * MS, 1), 50 * MS + 501); /* parts of nanoseconds count as whole ones */
}

static void any_rate_is_possible(void **state)
{
	struct moe_pace slow = {.bandwidth = 1e-9}, none = {0}, fast = {.bandwidth = 1e30};

	(void)state;
	assert_true(moe_pace_take(&slow, 5, 5, SIZE_MAX) > (uint64_t)1 << 61);
	assert_int_equal(moe_pace_take(&none, 5 * MS, 5 * MS, 1 << 30), 5 * MS);
	assert_in_range(moe_pace_take(&fast, 5 * MS, 5 * MS, 1 << 30), 5 * MS, 5 * MS + 1);
	assert_int_equal(moe_pace_piece(&slow), 4096);
	assert_int_equal(moe_pace_piece(&none), 4 << 20);
	assert_int_equal(moe_pace_piece(&fast), 4 << 20);
	assert_int_equal(moe_pace_piece(&(struct moe_pace){.bandwidth = 1e8}), 100000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stream_keeps_its_order),
		cmocka_unit_test(what_is_queued_is_done_before_the_end),
		cmocka_unit_test(events_tell_when_they_were_passed),
		cmocka_unit_test(what_waits_comes_after),
		cmocka_unit_test(full_streams_do_not_wait_in_a_circle),
		cmocka_unit_test(a_failure_is_reported_and_forgotten),
		cmocka_unit_test(who_waits_for_a_failure_fails),
		cmocka_unit_test(a_link_is_not_exceeded),
		cmocka_unit_test(who_wakes_late_catches_up),
		cmocka_unit_test(an_idle_link_saves_nothing_up),
		cmocka_unit_test(any_rate_is_possible),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("compute_streams", tests, NULL, NULL);
}
