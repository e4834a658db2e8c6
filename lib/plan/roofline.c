/* The Hierarchical Roofline (MoE-Lightning, arXiv 2411.11217, section 3). */
#include <math.h>

#include "plan/private.h"

static double smaller(double a, double b)
{
	return a < b ? a : b;
}

static const char *binding(double compute, double memory, double link)
{
	if (link < compute && link < memory)
		return "link";
	return memory < compute ? "memory" : "compute";
}

/* Computed at i with data there: equation 8. */
static void here(double compute, double memory, struct moe_roofline *out)
{
	out->attainable = smaller(compute, memory);
	out->p1 = out->p2 = out->balance = 0;
	out->binds = binding(compute, memory, INFINITY);
}

int moe_roofline(const struct moe_hardware *h, enum moe_flops t, int i, int j, double intensity_i, double intensity_j,
                 struct moe_roofline *out, struct moe_err *e)
{
	const struct moe_link *link = moe_link_find(h, j, i);
	double compute = plan_flops(h, i, t), memory = plan_bandwidth(&h->levels[i]) * intensity_i, bytes, there;

	if (!plan_has_processor(h, i))
		return moe_fail(e, MOE_E_INPUT, "%s: %s has no processor", h->name, h->levels[i].name);
	if (i == j) {
		here(compute, memory, out);
		return 0;
	}
	if (!link)
		return moe_fail(e, MOE_E_INPUT, "%s: there is no link from %s to %s", h->name, h->levels[j].name, h->levels[i].name);
	bytes = link->bandwidth * (link->shared ? 1 : h->levels[i].count);
	out->attainable = smaller(smaller(compute, memory), bytes * intensity_j);
	out->binds = binding(compute, memory, bytes * intensity_j);
	/* Where j cannot compute nothing is better done there; where it is as fast as i, everything is. */
	there = plan_has_processor(h, j) ? smaller(plan_flops(h, j, t), plan_bandwidth(&h->levels[j]) * intensity_j) : 0;
	out->p1 = there >= smaller(compute, memory) ? INFINITY : there / bytes;
	out->p2 = smaller(compute, memory) / bytes;
	out->balance = memory / bytes;
	return 0;
}
