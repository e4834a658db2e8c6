/* The link to a device: how fast it is, and what goes over it. */
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "measure/measure.h"

/* A sample takes about so long, and moves at most so much. */
#define SAMPLE_SECONDS 0.02
#define PROBE ((size_t)1 << 20)
#define MOST ((size_t)256 << 20)
#define LEAST ((size_t)4096)

struct link {
	struct moe_backend *b;
	struct moe_stream_q *q;
	void *mem, *host;
	size_t bytes;
	bool out;
};

static int copy(void *ctx, struct moe_sample *s, struct moe_err *e)
{
	struct link *l = ctx;
	uint64_t start = moe_now_ns();
	int rc;

	if (l->out)
		rc = l->b->ops->copy_out(l->b, l->q, l->host, l->mem, l->bytes, e);
	else
		rc = l->b->ops->copy_in(l->b, l->q, l->mem, l->host, l->bytes, e);
	rc = rc ? rc : l->b->ops->sync(l->b, l->q, e);
	*s = (struct moe_sample){(double)l->bytes, moe_now_ns() - start};
	return rc;
}

static void let_go(struct link *l)
{
	if (l->host)
		l->b->ops->release_pinned(l->b, l->host);
	if (l->mem)
		l->b->ops->release(l->b, l->mem);
	l->host = l->mem = NULL;
}

static int take(struct link *l, size_t bytes, struct moe_err *e)
{
	int rc = l->b->ops->alloc(l->b, bytes, &l->mem, e);

	l->bytes = bytes;
	return rc ? rc : l->b->ops->alloc_pinned(l->b, bytes, &l->host, e);
}

/* A small device has not room for what a good link would like to move. */
static size_t most_bytes(struct moe_backend *b)
{
	struct moe_device_memory m;
	size_t most;

	b->ops->memory(b, &m);
	most = m.cap ? (m.cap - m.used) / 4 : MOST;
	return most > MOST ? MOST : most < LEAST ? LEAST : most;
}

/* As much as goes over it in the time of a sample. */
static int find_size(struct link *l, size_t *bytes, struct moe_err *e)
{
	struct moe_sample s = {0, 0};
	size_t most = most_bytes(l->b), least = PROBE < most ? PROBE : most;
	int rc = take(l, least, e);

	rc = rc ? rc : copy(l, &s, e); /* the first touches its memory */
	rc = rc ? rc : copy(l, &s, e);
	let_go(l);
	double goes = s.ns ? s.work / (double)s.ns * 1e9 * SAMPLE_SECONDS : (double)most;
	*bytes = goes < (double)least ? least : goes > (double)most ? most : (size_t)goes;
	return rc;
}

static int measure(struct link *l, double seconds, struct moe_link_rates *out, struct moe_err *e)
{
	struct moe_sample s;
	size_t bytes = PROBE;
	int rc = find_size(l, &bytes, e);

	rc = rc ? rc : take(l, bytes, e);
	rc = rc ? rc : copy(l, &s, e);
	rc = rc ? rc : moe_measure_rate(copy, l, seconds / 2, &out->in, e);
	l->out = true;
	rc = rc ? rc : moe_measure_rate(copy, l, seconds / 2, &out->out, e);
	let_go(l);
	return rc;
}

int moe_measure_link(struct moe_backend *b, double seconds, struct moe_link_rates *out, struct moe_err *e)
{
	struct link l = {.b = b};
	int rc = b->ops->stream_open(b, &l.q, e);

	*out = (struct moe_link_rates){.in = {0}};
	if (rc)
		return rc;
	rc = measure(&l, seconds, out, e);
	b->ops->stream_close(b, l.q);
	return rc;
}

/* ---- both ways ---- */

static int copy_both(void *ctx, struct moe_sample *s, struct moe_err *e)
{
	struct link *in = ctx, *out = in + 1;
	const struct moe_backend_ops *ops = in->b->ops;
	uint64_t start = moe_now_ns();
	int rc = ops->copy_in(in->b, in->q, in->mem, in->host, in->bytes, e);

	rc = rc ? rc : ops->copy_out(out->b, out->q, out->host, out->mem, out->bytes, e);
	rc = rc ? rc : ops->sync(in->b, in->q, e);
	rc = rc ? rc : ops->sync(out->b, out->q, e);
	*s = (struct moe_sample){(double)in->bytes, moe_now_ns() - start};
	return rc;
}

int moe_measure_link_both(struct moe_backend *b, double seconds, struct moe_rate *out, struct moe_err *e)
{
	struct link ways[2] = {{.b = b}, {.b = b, .out = true}};
	struct moe_sample s;
	size_t bytes = PROBE;
	int rc = 0;

	*out = (struct moe_rate){0};
	for (int i = 0; i < 2 && !rc; i++)
		rc = b->ops->stream_open(b, &ways[i].q, e);
	rc = rc ? rc : find_size(&ways[0], &bytes, e);
	for (int i = 0; i < 2 && !rc; i++)
		rc = take(&ways[i], bytes, e);
	rc = rc ? rc : copy_both(ways, &s, e);
	rc = rc ? rc : moe_measure_rate(copy_both, ways, seconds, out, e);
	for (int i = 0; i < 2; i++)
		b->ops->stream_close(b, ways[i].q); /* waits: a copy may be under way */
	for (int i = 0; i < 2; i++)
		let_go(&ways[i]);
	return rc;
}

/* ---- traffic ---- */

/* The backend with another table of operations, of which the copies count. */
struct moe_traffic {
	struct moe_backend_ops ops;  /* first: the counting backend's table is the traffic */
	const struct moe_backend_ops *plain;
	struct moe_backend *b;
	_Atomic uint64_t in, out;
};

static int counted_in(struct moe_backend *b, struct moe_stream_q *q, void *mem, const void *host, size_t bytes, struct moe_err *e)
{
	struct moe_traffic *t = (struct moe_traffic *)b->ops;

	t->in += bytes;
	return t->plain->copy_in(b, q, mem, host, bytes, e);
}

static int counted_out(struct moe_backend *b, struct moe_stream_q *q, void *host, const void *mem, size_t bytes, struct moe_err *e)
{
	struct moe_traffic *t = (struct moe_traffic *)b->ops;

	t->out += bytes;
	return t->plain->copy_out(b, q, host, mem, bytes, e);
}

int moe_traffic_start(struct moe_backend *b, struct moe_traffic **out, struct moe_err *e)
{
	struct moe_traffic *t = moe_calloc(1, sizeof *t, "counters of copies", e);

	if (!t)
		return MOE_E_NOMEM;
	t->ops = *b->ops;
	t->plain = b->ops;
	t->b = b;
	t->ops.copy_in = counted_in;
	t->ops.copy_out = counted_out;
	b->ops = &t->ops;
	*out = t;
	return 0;
}

struct moe_link_bytes moe_traffic_so_far(const struct moe_traffic *t)
{
	return (struct moe_link_bytes){t->in, t->out};
}

void moe_traffic_stop(struct moe_traffic *t)
{
	if (!t)
		return;
	t->b->ops = t->plain;
	free(t);
}
