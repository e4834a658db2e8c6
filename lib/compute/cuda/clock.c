/* Events, and when they were passed as this host's clock counts.
 *
 * The runtime tells the time between two events, in milliseconds as a float: to better than a microsecond only
 * for the first seconds.  So events are compared with a base, a moment known by both clocks, that is taken anew when it is some
 * seconds old; an event keeps the base it was recorded against. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "private.h"

#define BASE_NS 4000000000u

static int base_new(struct moe_cuda *c, struct moe_cuda_base **out, struct moe_err *e)
{
	struct moe_cuda_base *base = moe_calloc(1, sizeof *base, "clock", e);
	int rc;

	if (!base)
		return MOE_E_NOMEM;
	base->users = 1;
	rc = moe_cuda_check(c, cudaEventCreateWithFlags(&base->event, cudaEventDefault), "clock", e);
	if (rc) {
		free(base);
		return rc;
	}
	rc = moe_cuda_check(c, cudaEventRecord(base->event, c->own.s), "clock", e);
	rc = rc ? rc : moe_cuda_check(c, cudaEventSynchronize(base->event), "clock", e);
	base->ns = moe_now_ns();
	if (rc) {
		cudaEventDestroy(base->event);
		free(base);
		return rc;
	}
	*out = base;
	return 0;
}

/* Within the lock. */
static void base_leave(struct moe_cuda_base *base)
{
	if (base && --base->users == 0) {
		cudaEventDestroy(base->event);
		free(base);
	}
}

int moe_cuda_clock_start(struct moe_cuda *c, struct moe_err *e)
{
	return base_new(c, &c->clock, e);
}

void moe_cuda_clock_stop(struct moe_cuda *c)
{
	base_leave(c->clock);
	c->clock = NULL;
}

/* The base that ev is recorded against from now on. */
static int base_choose(struct moe_cuda *c, struct moe_mark *ev, struct moe_err *e)
{
	struct moe_cuda_base *fresh;
	int rc = 0;

	pthread_mutex_lock(&c->lock);
	if (moe_now_ns() - c->clock->ns > BASE_NS) {
		rc = base_new(c, &fresh, e);
		if (rc == 0) {
			base_leave(c->clock);
			c->clock = fresh;
		}
	}
	if (rc == 0 && ev->base != c->clock) {
		base_leave(ev->base);
		ev->base = c->clock;
		ev->base->users++;
	}
	pthread_mutex_unlock(&c->lock);
	return rc;
}

int moe_cuda_event_open(struct moe_backend *b, struct moe_mark **ev, struct moe_err *e)
{
	struct moe_mark *made = moe_calloc(1, sizeof *made, "event", e);
	struct moe_stream_q *q = NULL;
	int rc = made ? moe_cuda_begin(moe_cuda(b), &q, "an event", e) : MOE_E_NOMEM;

	rc = rc ? rc : moe_cuda_check(moe_cuda(b), cudaEventCreateWithFlags(&made->e, cudaEventDefault), "an event", e);
	if (rc)
		free(made);
	else
		*ev = made;
	return rc;
}

void moe_cuda_event_close(struct moe_backend *b, struct moe_mark *ev)
{
	struct moe_cuda *c = moe_cuda(b);

	if (!ev)
		return;
	cudaSetDevice(c->index);
	pthread_mutex_lock(&c->lock);
	base_leave(ev->base);
	pthread_mutex_unlock(&c->lock);
	cudaEventDestroy(ev->e);
	free(ev);
}

int moe_cuda_event_record(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e)
{
	struct moe_cuda *c = moe_cuda(b);
	int rc = moe_cuda_begin(c, &q, "recording an event", e);

	rc = rc ? rc : base_choose(c, ev, e);
	return rc ? rc : moe_cuda_check(c, cudaEventRecord(ev->e, q->s), "recording an event", e);
}

int moe_cuda_event_wait(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e)
{
	int rc = moe_cuda_begin(moe_cuda(b), &q, "waiting for an event", e);

	return rc ? rc : moe_cuda_check(moe_cuda(b), cudaStreamWaitEvent(q->s, ev->e, 0), "waiting for an event", e);
}

int moe_cuda_event_sync(struct moe_backend *b, struct moe_mark *ev, struct moe_err *e)
{
	return moe_cuda_check(moe_cuda(b), cudaEventSynchronize(ev->e), "waiting for an event", e);
}

int moe_cuda_event_time(struct moe_backend *b, struct moe_mark *ev, uint64_t *ns, struct moe_err *e)
{
	float ms;
	int rc;

	if (!ev->base)
		return moe_fail(e, MOE_E_INPUT, "cuda:%d: the time of an event that was never recorded", moe_cuda(b)->index);
	rc = moe_cuda_check(moe_cuda(b), cudaEventElapsedTime(&ms, ev->base->event, ev->e), "the time of an event", e);
	if (rc == 0)
		*ns = ev->base->ns + (uint64_t)(ms > 0 ? (double)ms * 1e6 : 0.0);
	return rc;
}
