/* Levels: who computes, and where data come from. */
#include "plan/private.h"

bool plan_has_processor(const struct moe_hardware *h, int level)
{
	const struct moe_memory_level *l = &h->levels[level];

	return l->bandwidth > 0 && moe_level_flops(l, MOE_FLOPS_F32) > 0;
}

int plan_host(const struct moe_hardware *h)
{
	int i = h->n_levels - 1;

	while (i >= 0 && !plan_has_processor(h, i))
		i--;
	return i;
}

double plan_memory(const struct moe_memory_level *l)
{
	return l->memory * l->count;
}

double plan_bandwidth(const struct moe_memory_level *l)
{
	return l->bandwidth * l->count;
}

double plan_flops(const struct moe_hardware *h, int level, enum moe_flops t)
{
	const struct moe_memory_level *l = &h->levels[level];

	if (level == plan_host(h) && t != MOE_FLOPS_I8)
		t = MOE_FLOPS_F32;
	return moe_level_flops(l, t) * l->count;
}

/* Devices with links of their own share the bytes; whoever waits for a piece waits for the latency too. */
int plan_link_seconds(const struct moe_hardware *h, int from, int to, double bytes, double pieces, double *seconds,
                      struct moe_err *e)
{
	const struct moe_link *l = moe_link_find(h, from, to);
	int devices;

	*seconds = 0;
	if (bytes <= 0)
		return 0;
	if (!l)
		return moe_fail(e, MOE_E_INPUT, "%s: there is no link from %s to %s", h->name, h->levels[from].name, h->levels[to].name);
	devices = h->levels[from].count > h->levels[to].count ? h->levels[from].count : h->levels[to].count;
	*seconds = bytes / (l->bandwidth * (l->shared ? 1 : devices)) + pieces * l->latency;
	return 0;
}
