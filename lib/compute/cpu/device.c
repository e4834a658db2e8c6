/* Memory and copies of the CPU as a device.  A copy is made in the thread of its stream, piece by piece, each of which ends when
 * the link would have carried it. */
#include "device.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/opts.h"

/* ---- the link ---- */

static void sleep_until(uint64_t ns)
{
	struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

	if (ns > moe_now_ns())
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
			;
}

static void carry(struct moe_cpu_device *d, const struct moe_copy *c, uint64_t *time)
{
	struct moe_pace *pace = &d->pace[c->way];
	size_t piece = moe_pace_piece(pace), n;

	for (size_t at = 0; at < c->bytes; at += n) {
		n = c->bytes - at < piece ? c->bytes - at : piece;
		pthread_mutex_lock(&d->link);
		*time = moe_pace_take(pace, *time, moe_now_ns(), n);
		pthread_mutex_unlock(&d->link);
		memcpy((char *)c->to + at, (const char *)c->from + at, n);
		sleep_until(*time);
	}
}

static int copy(void *ctx, const struct moe_copy *c, uint64_t *time, struct moe_err *e)
{
	struct moe_cpu_device *d = ctx;
	const void *mem = c->way == MOE_COPY_IN ? c->to : c->from;

	if (!moe_arena_hold(d->arena, mem, c->block))
		return moe_fail(e, MOE_E_RANGE, "copy of %zu bytes: the device memory was released before", c->bytes);
	carry(d, c, time);
	moe_arena_let_go(d->arena, mem);
	return 0;
}

/* ---- operations ---- */

static struct moe_stream_q *stream_of(struct moe_backend *b, struct moe_stream_q *q)
{
	return q ? q : moe_cpu_device(b)->own;
}

static int put_copy(struct moe_backend *b, struct moe_stream_q *q, struct moe_copy *c, struct moe_err *e)
{
	struct moe_cpu_device *d = moe_cpu_device(b);
	const void *mem = c->way == MOE_COPY_IN ? c->to : c->from, *host = c->way == MOE_COPY_IN ? c->from : c->to;

	if (c->bytes == 0)
		return 0;
	c->block = moe_arena_find(d->arena, mem, c->bytes);
	if (!c->block)
		return moe_fail(e, MOE_E_RANGE, "copy of %zu bytes: %p is not memory of the device", c->bytes, mem);
	if (moe_arena_meets(d->arena, host, c->bytes))
		return moe_fail(e, MOE_E_RANGE, "copy of %zu bytes: %p is not memory of the host", c->bytes, host);
	moe_streams_copy(d->streams, stream_of(b, q), c);
	return 0;
}

static int device_copy_in(struct moe_backend *b, struct moe_stream_q *q, void *mem, const void *host, size_t bytes,
                          struct moe_err *e)
{
	return put_copy(b, q, &(struct moe_copy){MOE_COPY_IN, mem, host, bytes, 0}, e);
}

static int device_copy_out(struct moe_backend *b, struct moe_stream_q *q, void *host, const void *mem, size_t bytes,
                           struct moe_err *e)
{
	return put_copy(b, q, &(struct moe_copy){MOE_COPY_OUT, host, mem, bytes, 0}, e);
}

static int device_sync(struct moe_backend *b, struct moe_stream_q *q, struct moe_err *e)
{
	return moe_streams_sync(moe_cpu_device(b)->streams, stream_of(b, q), e);
}

static int device_alloc(struct moe_backend *b, size_t bytes, void **mem, struct moe_err *e)
{
	return moe_arena_alloc(moe_cpu_device(b)->arena, bytes, mem, e);
}

static void device_release(struct moe_backend *b, void *mem)
{
	moe_arena_release(moe_cpu_device(b)->arena, mem);
}

static void device_memory(struct moe_backend *b, struct moe_device_memory *out)
{
	moe_arena_memory(moe_cpu_device(b)->arena, out);
}

static int device_stream_open(struct moe_backend *b, struct moe_stream_q **q, struct moe_err *e)
{
	return moe_streams_add(moe_cpu_device(b)->streams, q, e);
}

static void device_stream_close(struct moe_backend *b, struct moe_stream_q *q)
{
	moe_streams_end(moe_cpu_device(b)->streams, q);
}

static int device_event_open(struct moe_backend *b, struct moe_mark **ev, struct moe_err *e)
{
	return moe_streams_mark(moe_cpu_device(b)->streams, ev, e);
}

static void device_event_close(struct moe_backend *b, struct moe_mark *ev)
{
	moe_streams_unmark(moe_cpu_device(b)->streams, ev);
}

static int device_event_record(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e)
{
	(void)e;
	moe_streams_record(moe_cpu_device(b)->streams, stream_of(b, q), ev);
	return 0;
}

static int device_event_wait(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e)
{
	(void)e;
	moe_streams_wait(moe_cpu_device(b)->streams, stream_of(b, q), ev);
	return 0;
}

static int device_event_sync(struct moe_backend *b, struct moe_mark *ev, struct moe_err *e)
{
	return moe_streams_event_sync(moe_cpu_device(b)->streams, ev, e);
}

static int device_event_time(struct moe_backend *b, struct moe_mark *ev, uint64_t *ns, struct moe_err *e)
{
	return moe_streams_event_time(moe_cpu_device(b)->streams, ev, ns, e);
}

/* ---- opening and closing ---- */

static void device_close(struct moe_backend *b)
{
	struct moe_cpu_device *d = moe_cpu_device(b);

	moe_streams_end(d->streams, d->own);
	moe_streams_close(d->streams);
	moe_arena_close(d->arena);
	moe_team_free(d->cpu.team);
	moe_cpu_end(&d->cpu);
	pthread_mutex_destroy(&d->computing);
	pthread_mutex_destroy(&d->link);
	free(d);
}

static const struct moe_backend_ops memory_ops = {
	.name = "cpu",
	.close = device_close,
	.alloc = device_alloc,
	.release = device_release,
	.memory = device_memory,
	.alloc_pinned = moe_plain_alloc_pinned,
	.release_pinned = moe_plain_release_pinned,
	.stream_open = device_stream_open,
	.stream_close = device_stream_close,
	.event_open = device_event_open,
	.event_close = device_event_close,
	.event_record = device_event_record,
	.event_wait = device_event_wait,
	.event_sync = device_event_sync,
	.event_time = device_event_time,
	.copy_in = device_copy_in,
	.copy_out = device_copy_out,
	.sync = device_sync,
};

static int open_parts(struct moe_cpu_device *d, const struct moe_device_config *c, struct moe_err *e)
{
	int rc = moe_team_new(c->threads, &d->cpu.team, e);

	rc = rc ? rc : moe_cpu_init(&d->cpu, d->cpu.team, &c->numerics, e);
	rc = rc ? rc : moe_arena_open(c->memory, &d->arena, e);
	rc = rc ? rc : moe_streams_open(copy, d, &d->streams, e);
	return rc ? rc : moe_streams_add(d->streams, &d->own, e);
}

int moe_cpu_device_open(const struct moe_device_config *c, struct moe_backend **out, struct moe_err *e)
{
	struct moe_cpu_device *d;
	int rc;

	if (!(c->link_bandwidth >= 0 && c->link_bandwidth < INFINITY))
		return moe_fail(e, MOE_E_RANGE, "a link of %g bytes a second is not possible", c->link_bandwidth);
	d = moe_calloc(1, sizeof *d, "a device", e);
	if (!d)
		return MOE_E_NOMEM;
	pthread_mutex_init(&d->computing, NULL);
	pthread_mutex_init(&d->link, NULL);
	for (int w = 0; w < MOE_WAYS; w++)
		d->pace[w].bandwidth = c->link_bandwidth;
	rc = open_parts(d, c, e);
	d->ops = memory_ops;
	moe_cpu_device_ops(&d->ops);
	d->cpu.base.ops = &d->ops;
	if (rc)
		device_close(&d->cpu.base);
	else
		*out = &d->cpu.base;
	return rc;
}

const char *moe_cpu_device_text(struct moe_backend *b, char *buf)
{
	struct moe_cpu_device *d = moe_cpu_device(b);
	struct moe_device_memory m;
	int threads = moe_team_size(d->cpu.team);
	char memory[40] = "", link[48] = "", size[32];

	moe_arena_memory(d->arena, &m);
	if (m.cap)
		snprintf(memory, sizeof memory, ", %s", moe_size_text((double)m.cap, size));
	if (d->pace[MOE_COPY_IN].bandwidth > 0)
		snprintf(link, sizeof link, ", %s/s", moe_size_text(d->pace[MOE_COPY_IN].bandwidth, size));
	snprintf(buf, MOE_DEVICE_TEXT, "cpu (%s, %d thread%s%s%s)", d->cpu.isa, threads, threads == 1 ? "" : "s", memory, link);
	return buf;
}
