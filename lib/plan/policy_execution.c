/* The part "policy" of policy.json, read: how a batch is run. */
#include <math.h>

#include "plan/plan.h"

#define MOST_SEQUENCES 1e9
#define SHARES_OFF 1e-6 /* that shares may be from 1, written by hand */

bool moe_schedule_pins(enum moe_schedule s)
{
	return s == MOE_SCHEDULE_FLEXGEN || s == MOE_SCHEDULE_FLEXGEN_C || s == MOE_SCHEDULE_ZERO;
}

static int read_schedule(const struct moe_json *o, struct moe_execution *x, struct moe_err *e)
{
	const char *name = NULL;
	int rc = moe_json_need_str(o, "schedule", true, &name, "policy", e);

	if (rc == 0 && !moe_schedule_parse(name, &x->schedule))
		rc = moe_fail(e, MOE_E_UNSUPPORTED, "policy: there is no schedule \"%s\"", name);
	return rc;
}

/* A level that computes, by its name. */
static int read_level(const struct moe_json *o, const char *key, const struct moe_hardware *h, int *out, struct moe_err *e)
{
	const char *name = NULL;
	int rc = moe_json_need_str(o, key, true, &name, "policy", e);

	if (rc)
		return rc;
	*out = moe_level_find(h, name);
	if (*out < 0 || !(moe_level_flops(&h->levels[*out], MOE_FLOPS_F32) > 0))
		return moe_fail(e, MOE_E_INPUT, "policy: \"%s\" is \"%s\": the hardware has no such level that computes", key, name);
	return 0;
}

static int read_shares(const struct moe_json *o, const char *key, const struct moe_hardware *h, double *out, struct moe_err *e)
{
	const struct moe_json *list = moe_json_get(o, key);
	double sum = 0;

	if (moe_json_type(list) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "policy: \"%s\" is no object of shares", key);
	for (size_t i = 0; i < moe_json_count(list); i++) {
		const struct moe_json *v = moe_json_at(list, i);
		int level = moe_level_find(h, moe_json_name(v));
		double share = moe_json_num(v, -1);

		if (level < 0)
			return moe_fail(e, MOE_E_INPUT, "policy: \"%s\": the hardware has no level \"%s\"", key, moe_json_name(v));
		if (!(share >= 0 && share <= 1))
			return moe_fail(e, MOE_E_INPUT, "policy: \"%s\": the share of \"%s\" is not between 0 and 1", key, moe_json_name(v));
		out[level] = share;
		sum += share;
	}
	if (fabs(sum - 1) > SHARES_OFF)
		return moe_fail(e, MOE_E_INPUT, "policy: \"%s\": the shares add up to %g, not 1", key, sum);
	return 0;
}

int moe_execution_from_json(const struct moe_json *policy, const char *what, const struct moe_hardware *h,
                            struct moe_execution *out, struct moe_err *e)
{
	const struct moe_json *o = moe_json_get(policy, "policy");
	struct moe_execution x = {.prefill_micro_batch = 0};
	int rc;

	if (moe_json_type(o) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_MISSING, "%s: no \"policy\": only a placement was planned", what);
	rc = read_schedule(o, &x, e);
	rc = rc ? rc : moe_json_need_int(o, "batch", true, 1, (int64_t)MOST_SEQUENCES, &x.batch, "policy", e);
	rc = rc ? rc : moe_json_need_int(o, "micro_batch", true, 1, x.batch, &x.micro_batch, "policy", e);
	rc = rc ? rc : moe_json_need_int(o, "prefill_micro_batch", false, 1, x.batch, &x.prefill_micro_batch, "policy", e);
	rc = rc ? rc : read_level(o, "attention_on", h, &x.attention_on, e);
	rc = rc ? rc : read_level(o, "ffn_on", h, &x.ffn_on, e);
	rc = rc ? rc : read_shares(o, "weights", h, x.weights, e);
	rc = rc ? rc : read_shares(o, "kv", h, x.kv, e);
	if (rc)
		return moe_fail_prefix(e, rc, "%s", what);
	*out = x;
	return 0;
}
