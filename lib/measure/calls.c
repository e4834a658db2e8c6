#include "measure/calls.h"

#include "base/clock.h"

#define SAMPLE_NS 4000000u

struct calls {
	struct moe_backend *b;
	moe_call_fn *call;
	void *ctx;
	int n;                       /* of a sample */
};

static int sample(void *ctx, struct moe_sample *out, struct moe_err *e)
{
	struct calls *c = ctx;
	uint64_t start = moe_now_ns();
	int rc = 0;

	for (int i = 0; i < c->n && !rc; i++)
		rc = c->call(c->ctx, e);
	rc = rc ? rc : c->b->ops->sync(c->b, NULL, e);
	out->ns = moe_now_ns() - start;
	out->work = c->n;
	return rc;
}

int moe_measure_calls(struct moe_backend *b, moe_call_fn *call, void *ctx, double seconds, struct moe_rate *out, struct moe_err *e)
{
	struct calls c = {b, call, ctx, 1};
	struct moe_sample s = {0, 0};
	int rc = sample(&c, &s, e);

	rc = rc ? rc : sample(&c, &s, e);
	if (!rc && s.ns < SAMPLE_NS)
		c.n = (int)(SAMPLE_NS / (s.ns ? s.ns : 1)) + 1;
	return rc ? rc : moe_measure_rate(sample, &c, seconds, out, e);
}
