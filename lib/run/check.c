/* What cannot be meant: options of the device that go together with nothing. */
#include <string.h>

#include "base/opts.h"
#include "base/words.h"
#include "run/private.h"

static int check_schedule(const char *name, struct moe_err *e)
{
	const char *names[MOE_SCHEDULES + 2] = {MOE_RUN_ON_DEMAND}, *near;
	enum moe_schedule s;

	for (int i = 0; i < MOE_SCHEDULES; i++)
		names[i + 1] = moe_schedule_name((enum moe_schedule)i);
	if (moe_schedule_parse(name, &s) || strcmp(name, MOE_RUN_ON_DEMAND) == 0)
		return 0;
	near = moe_nearest(name, names);
	return moe_fail(e, MOE_E_RANGE, "--schedule %s: there is none of that name%s%s%s", name, near ? ": is " : "", near ? near : "",
	                near ? " meant?" : "");
}

const char *moe_run_asks_device(const struct moe_run_offload *o)
{
	if (o->device)
		return "--device";
	if (o->memory)
		return "--device-memory";
	if (o->link_bandwidth)
		return "--link-bandwidth";
	if (o->schedule)
		return "--schedule";
	if (o->micro_batches)
		return "--micro-batches";
	if (o->micro_batch)
		return "--micro-batch";
	if (o->has_resident)
		return "--resident";
	return o->pinned != MOE_RUN_AUTO ? "--pinned" : NULL;
}

/* An option that this schedule has no use for, or NULL. */
static const char *useless(const struct moe_run_offload *o)
{
	bool demand = strcmp(o->schedule, MOE_RUN_ON_DEMAND) == 0, resident = strcmp(o->schedule, "resident") == 0;
	bool zero = strcmp(o->schedule, "zero") == 0;

	if ((demand || zero) && o->micro_batches)
		return "--micro-batches";
	if ((demand || zero) && o->micro_batch)
		return "--micro-batch";
	if (resident && o->has_resident)
		return "--resident";
	return (demand || resident) && o->pinned != MOE_RUN_AUTO ? "--pinned" : NULL;
}

int moe_run_pinned(struct moe_run_config *c, const char *pinned, struct moe_err *e)
{
	static const char *const names[] = {[MOE_RUN_AUTO] = "auto", [MOE_RUN_ON] = "on", [MOE_RUN_OFF] = "off"};
	enum moe_run_when *w = &c->offload.pinned;

	*w = MOE_RUN_AUTO;
	while (pinned && *w <= MOE_RUN_OFF && strcmp(pinned, names[*w]) != 0)
		++*w;
	return *w <= MOE_RUN_OFF ? 0 : moe_fail(e, MOE_E_RANGE, "--pinned %s: not auto, on or off", pinned);
}

int moe_run_check_offload(const struct moe_run_config *c, struct moe_err *e)
{
	const struct moe_run_offload *o = &c->offload;
	const char *option = moe_run_asks_device(o);
	bool servers = c->hosts || c->n_connect;
	int rc = 0;

	if (o->device)
		rc = moe_device_check(o->device, e);
	if (!rc && o->schedule)
		rc = check_schedule(o->schedule, e);
	if (rc)
		return rc;
	if (servers && (o->device || o->policy))
		return moe_fail(e, MOE_E_RANGE, "%s computes the experts in this process: it does not go with --hosts and --connect",
		                o->device ? "--device" : "--policy");
	if (c->record && (o->device || o->policy))
		return moe_fail(e, MOE_E_RANGE, "--importance sees what the host multiplies: it does not go with %s", o->device ? "--device" : "--policy");
	if (option && !o->device && !o->policy)
		return moe_fail(e, MOE_E_RANGE, "%s needs a device (--device, or a --policy that has one)", option);
	if (o->link_bandwidth && (!o->device || strcmp(o->device, "cpu") != 0))
		return moe_fail(e, MOE_E_RANGE, "--link-bandwidth imitates a link, and only --device cpu does that");
	option = o->schedule ? useless(o) : NULL;
	return option ? moe_fail(e, MOE_E_RANGE, "--schedule %s has no use for %s", o->schedule, option) : 0;
}
