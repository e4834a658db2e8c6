/* moe_predict: is it a policy that can be? */
#include <math.h>

#include "plan/private.h"

static int check_level(const struct moe_hardware *h, int level, const char *what, struct moe_err *e)
{
	if (level < 0 || level >= h->n_levels)
		return moe_fail(e, MOE_E_INPUT, "%s: %s on level %d, and there are %d", h->name, what, level, h->n_levels);
	if (!plan_has_processor(h, level))
		return moe_fail(e, MOE_E_INPUT, "%s: %s on %s, which has no processor", h->name, what, h->levels[level].name);
	return 0;
}

static int check_shares(const struct moe_hardware *h, const double *share, const char *what, struct moe_err *e)
{
	double sum = 0;

	for (int i = 0; i < MOE_MAX_LEVELS; i++) {
		if (!(share[i] >= 0) || (share[i] > 0 && i >= h->n_levels))
			return moe_fail(e, MOE_E_INPUT, "%s: a share of %g of the %s on level %d", h->name, share[i], what, i);
		sum += share[i];
	}
	if (fabs(sum - 1) > 1e-6)
		return moe_fail(e, MOE_E_INPUT, "%s: the shares of the %s add up to %g, not to 1", h->name, what, sum);
	return 0;
}

static int check(const struct moe_setting *s, const struct moe_execution *x, struct moe_err *e)
{
	const struct moe_hardware *h = s->hardware;
	int rc = check_level(h, x->attention_on, "attention", e);

	rc = rc ? rc : check_level(h, x->ffn_on, "experts", e);
	rc = rc ? rc : check_shares(h, x->weights, "weights", e);
	rc = rc ? rc : check_shares(h, x->kv, "KV cache", e);
	if (rc)
		return rc;
	if (x->batch < 1 || x->micro_batch < 1 || x->micro_batch > x->batch)
		return moe_fail(e, MOE_E_INPUT, "micro-batches of %lld sequences in a batch of %lld", (long long)x->micro_batch, (long long)x->batch);
	if (!(moe_workload_prompt(&s->workload) > 0) || !(s->workload.generate > 0))
		return moe_fail(e, MOE_E_INPUT, "workload %s has no tokens", s->workload.name);
	return 0;
}

int moe_predict(const struct moe_setting *s, const struct moe_execution *x, struct moe_prediction *out, struct moe_err *e)
{
	int rc = check(s, x, e);

	if (rc)
		return rc;
	return s->variant == MOE_VARIANT_PAPER ? plan_predict_paper(s, x, out, e) : plan_predict_full(s, x, out, e);
}
