/* What is written in which quant and layout: what was asked for, and what a policy says of its devices. */
#include <string.h>

#include "shard/private.h"

int moe_quant_plan_layout(const char *text, struct moe_quant_plan *out, struct moe_err *e)
{
	if (strcmp(text, "packed") != 0 && strcmp(text, "plain") != 0)
		return moe_fail(e, MOE_E_RANGE, "layout \"%s\" is neither plain nor packed", text);
	out->layout = strcmp(text, "plain") ? MOE_L_R64 : MOE_L_PLAIN;
	out->layout_said = true;
	return 0;
}

/* ---- in effect ---- */

static const struct moe_device *device_of(const struct moe_quant_plan *p, int device)
{
	return device >= 0 && device < p->n_devices ? &p->devices[device] : NULL;
}

static enum moe_quant device_quant(const struct moe_quant_plan *p, int device)
{
	const struct moe_device *d = device_of(p, device);
	enum moe_quant q = p->quants.experts;

	if (d && d->quant[0])
		moe_quant_parse(d->quant, &q); /* was checked when it was read */
	return q;
}

enum moe_layout moe_quant_plan_layout_of(const struct moe_quant_plan *p, int device)
{
	const struct moe_device *d = device_of(p, device);

	/* A layout is that of a quant: a device that keeps what the checkpoint has says nothing about codes. */
	if (d && d->quant[0] && d->layout[0] && !p->layout_said)
		return strcmp(d->layout, "plain") ? MOE_L_R64 : MOE_L_PLAIN;
	return p->layout;
}

/* The quant of an expert on its owner; replicas must agree. */
static int expert_quant(const struct moe_quant_plan *p, const struct moe_placement *placement, struct moe_tensor_id id,
                        enum moe_quant *out, struct moe_err *e)
{
	int n;
	const int *on = moe_placement_of(placement, id.layer, id.expert, &n);

	*out = n ? device_quant(p, on[0]) : p->quants.experts;
	for (int i = 1; i < n; i++)
		if (device_quant(p, on[i]) != *out)
			return moe_fail(e, MOE_E_INPUT, "layer %d, expert %d: devices %d and %d are to hold it in two quants", id.layer,
			                id.expert, on[0], on[i]);
	return 0;
}

int moe_quant_plan_of(const struct moe_quant_plan *p, const struct moe_placement *placement, struct moe_tensor_id id,
                      enum moe_quant *out, struct moe_err *e)
{
	if (moe_role_is_expert(id.role))
		return expert_quant(p, placement, id, out, e);
	*out = moe_quants_of(&p->quants, id.role);
	return 0;
}

bool moe_quant_plan_codes_experts(const struct moe_quant_plan *p, const struct moe_placement *placement)
{
	for (int l = 0; l < placement->layers; l++)
		for (int x = 0; x < placement->experts[l]; x++) {
			int n;
			enum moe_quant q = device_quant(p, moe_placement_of(placement, l, x, &n)[0]);

			if (q != MOE_Q_KEEP && moe_quant_is_coded(q))
				return true;
		}
	return false;
}
