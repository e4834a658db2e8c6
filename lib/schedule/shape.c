#include "build.h"

#define MOST_TASKS (1 << 22)

static int check_numbers(const struct moe_schedule_shape *s, struct moe_err *e)
{
	if ((unsigned)s->schedule >= MOE_SCHEDULES)
		return moe_fail(e, MOE_E_INPUT, "schedule %d is none", (int)s->schedule);
	if (s->layers < 1 || s->micro_batches < 1 || s->steps < 1 || s->pages < 0)
		return moe_fail(e, MOE_E_RANGE, "a schedule of %d layers, %d micro-batches, %d pages and %d steps makes no sense", s->layers,
		                s->micro_batches, s->pages, s->steps);
	return 0;
}

static int check_flags(const struct moe_schedule_shape *s, struct moe_err *e)
{
	const char *name = moe_schedule_name(s->schedule);
	bool resident = s->schedule == MOE_SCHEDULE_RESIDENT;
	bool rotates = !resident && s->schedule != MOE_SCHEDULE_ZERO;
	if (resident && s->weights_move)
		return moe_fail(e, MOE_E_INPUT, "schedule resident moves no weights");
	if (!resident && (s->attention_on_cpu || s->experts_on_cpu))
		return moe_fail(e, MOE_E_INPUT, "schedule %s says itself where it computes", name);
	if (s->kv_moves && s->schedule != MOE_SCHEDULE_ZERO)
		return moe_fail(e, MOE_E_INPUT, "schedule %s says itself where the KV cache lies", name);
	if (s->hidden_moves && !(s->prefill && rotates))
		return moe_fail(e, MOE_E_INPUT, "schedule %s does not move residuals in %s", name, s->prefill ? "prefill" : "decode");
	return 0;
}

/* An upper bound: no turn has more than eight tasks, no page more than three. */
static int check_size(const struct moe_schedule_shape *s, struct moe_err *e)
{
	double passes = (double)s->steps * s->layers;
	double most = passes * (8.0 * s->micro_batches + (s->weights_move ? 3.0 * s->pages : 0) + 1) + 2.0 * s->steps * s->micro_batches;
	if (most > MOST_TASKS)
		return moe_fail(e, MOE_E_RANGE, "a schedule of %d layers, %d micro-batches, %d pages and %d steps has more than %d tasks",
		                s->layers, s->micro_batches, s->pages, s->steps, MOST_TASKS);
	return 0;
}

int moe_shape_check(const struct moe_schedule_shape *s, struct moe_schedule_shape *out, struct moe_err *e)
{
	bool paged = s->schedule == MOE_SCHEDULE_CGOPIPE || s->schedule == MOE_SCHEDULE_COALESCED;
	int rc = check_numbers(s, e);
	if (!rc)
		rc = check_flags(s, e);
	if (rc)
		return rc;
	*out = *s;
	if (s->schedule == MOE_SCHEDULE_ZERO)
		out->micro_batches = 1;
	/* A relay of a single page could not be filled while it is emptied. */
	if (!s->pages)
		out->pages = paged && out->micro_batches > 1 ? out->micro_batches : paged || s->from_disk ? 2 : 1;
	out->from_disk = s->weights_move && s->from_disk;
	out->pinned = s->weights_move && s->pinned;
	return check_size(out, e);
}
