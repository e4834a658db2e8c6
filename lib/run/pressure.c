/* Memory that gets short while requests run. */
#include <sys/resource.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/run.h"

#define BETWEEN_LOOKS_NS 250000000u
#define RELIEF 0.02                  /* a level ends so far below where it begins, so that it does not come and go */

double moe_pressure_severe(double limit)
{
	return limit + (1 - limit) * 2 / 3;
}

static bool above(double share, double limit, bool before)
{
	return share >= (before ? limit - RELIEF : limit);
}

enum moe_pressure moe_pressure_of(double share, double limit, enum moe_pressure before)
{
	if (above(share, moe_pressure_severe(limit), before == MOE_PRESSURE_SEVERE))
		return MOE_PRESSURE_SEVERE;
	return above(share, limit, before != MOE_PRESSURE_NONE) ? MOE_PRESSURE_HIGH : MOE_PRESSURE_NONE;
}

/* Of the control group's memory or the host's, whichever leaves less: what is in use, and would not be given up at once.  Where the
 * address space is limited, what is available counts in that, and says nothing of memory. */
static double share_in_use(void)
{
	double limit = (double)moe_memory_limit(), left;
	struct rlimit space;

	if (getrlimit(RLIMIT_AS, &space) != 0 || space.rlim_cur != RLIM_INFINITY)
		return 0;
	left = (double)moe_memory_available();
	return left < limit ? 1 - left / limit : 0;
}

enum moe_pressure moe_run_press(struct moe_run *r, double *share)
{
	uint64_t now = moe_now_ns();

	*share = r->share;
	if (r->memory_pressure >= 1 || now - r->looked < BETWEEN_LOOKS_NS)
		return r->pressure;
	r->looked = now;
	*share = r->share = share_in_use();
	r->pressure = moe_pressure_of(r->share, r->memory_pressure, r->pressure);
	moe_engine_press(r->engine, r->pressure);
	return r->pressure;
}
