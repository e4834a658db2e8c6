/* Experts on other hosts: what a layer waits for.
 *
 * A message goes to every host that has experts for the rows, and its answer comes back (moe-wire(7)): hidden states in f32 once
 * for each token and host, with an expert and a weight for each pair, and one gated output in f32 for each pair back.  The
 * first host of a fleet, where the rest of the model runs, computes its own experts meanwhile. */
#include <math.h>
#include <string.h>

#include "plan/predict_full.h"

#define WIRE_ELEMENT 4           /* f32 */
#define PAIR_BYTES 12            /* expert, row, weight */
#define MESSAGE_SECONDS 50e-6    /* of the first host's processor, to send one and take its answer, as measured with ZeroMQ over tcp */

/* One host's part of a layer's experts, for `rows` tokens. */
struct part {
	double load;                 /* share of all pairs */
	double experts;              /* that lie there */
	double distinct;             /* that are touched */
	double tokens;               /* that have an expert there */
};

/* A token misses a host when none of its k different experts is there: k draws without putting back, of which the i-th meets
 * the host's share of what is left. */
static double reached(double load, int experts, int k)
{
	double miss = 1;

	for (int i = 0; i < k && miss > 0; i++)
		miss *= load * experts < experts - i ? 1 - load * experts / (experts - i) : 0;
	return 1 - miss;
}

/* Of every host that experts are placed on; each copy of an expert takes an equal share of its tokens. */
static void find_parts(const struct moe_setting *s, int layer, double rows, struct part *parts)
{
	const struct moe_ffn *f = &s->model->layers[layer].ffn;
	double choices = plan_choices(s, layer);

	memset(parts, 0, sizeof *parts * (size_t)s->placement->devices);
	for (int x = 0; x < f->experts; x++) {
		int copies;
		const int *hosts = moe_placement_of(s->placement, layer, x, &copies);
		double c = plan_chance(s, layer, x, choices) / copies, touched = 1 - pow(1 - c, rows);

		for (int i = 0; i < copies; i++) {
			struct part *p = &parts[hosts[i]];

			p->experts++;
			p->load += c / f->gate.top_k;
			p->distinct += touched;
		}
	}
	for (int i = 0; i < s->placement->devices; i++)
		parts[i].tokens = rows * reached(parts[i].load, f->experts, f->gate.top_k);
}

static void scale(struct moe_op *op, const struct moe_setting *s, int layer, const struct part *p)
{
	double pairs = p->load * op->flops / (6.0 * s->model->hidden * s->model->layers[layer].ffn.expert_width);

	op->flops *= p->load;
	op->activations *= p->load;
	op->weights = p->distinct * plan_expert_bytes(s, layer);
	op->rows = p->distinct > 0 ? pairs / p->distinct : 0;
	op->chance = p->experts > 0 ? pairs / op->tokens / p->experts : 0;
}

bool plan_is_spread(const struct moe_setting *s, int layer)
{
	return s->fleet && s->placement && s->fleet->n > 1 && s->model->layers[layer].ffn.kind == MOE_FFN_MOE;
}

/* Messages of a layer: one to every host that some token reaches. */
static double count_messages(const struct part *parts, int n, double rows)
{
	double messages = 0;

	for (int i = 1; i < n; i++)
		messages += 1 - pow(1 - fmin(1, parts[i].tokens / rows), rows);
	return messages;
}

/* The slowest host, and no less than all the bytes through the first host's network; before and after it the first host hands messages
 * over, one after the other. */
static int wait_for(const struct moe_setting *s, int layer, double rows, const struct moe_op *whole, const struct part *parts,
                    double *seconds, struct moe_err *e)
{
	const struct moe_hardware *here = &s->fleet->hosts[0];
	double state = (double)s->model->hidden * WIRE_ELEMENT, through = 0, slowest = 0, latency = 0;

	for (int i = 1; i < s->placement->devices; i++) {
		const struct moe_hardware *there = &s->fleet->hosts[i];
		struct part p = parts[i];
		double pairs = p.load * rows * s->model->layers[layer].ffn.gate.top_k;
		double bytes = p.tokens * state + pairs * (PAIR_BYTES + state), rate = fmin(here->network_bandwidth, there->network_bandwidth);
		struct moe_setting remote = *s;
		struct moe_op op = *whole;

		if (p.load <= 0)
			continue;
		if (rate <= 0)
			return moe_fail(e, MOE_E_INPUT, "experts on host %s, and %s has no network", there->name, here->network_bandwidth > 0 ? there->name : here->name);
		scale(&op, s, layer, &p);
		remote.hardware = there;
		latency = 2 * fmax(here->network_latency, there->network_latency);
		through += bytes / here->network_bandwidth;
		slowest = fmax(slowest, latency + bytes / rate + plan_op_seconds(&remote, plan_host(there), &op));
	}
	*seconds = fmax(slowest, through + latency) + count_messages(parts, s->placement->devices, rows) * MESSAGE_SECONDS;
	return 0;
}

int plan_spread_experts(const struct moe_setting *s, int layer, double rows, struct moe_op *op, double *network, struct moe_err *e)
{
	struct moe_op whole = *op;
	struct part parts[MOE_MAX_HOSTS];

	if (s->placement->devices > s->fleet->n)
		return moe_fail(e, MOE_E_INPUT, "experts are placed on %d devices, and the fleet has %d hosts", s->placement->devices, s->fleet->n);
	find_parts(s, layer, rows, parts);
	scale(op, s, layer, &parts[0]);
	return wait_for(s, layer, rows, &whole, parts, network, e);
}

/* Share of a layer's experts that lie on a host. */
double plan_held(const struct moe_setting *s, int layer, int host)
{
	int experts = s->model->layers[layer].ffn.experts, n = 0;

	if (!plan_is_spread(s, layer))
		return host == 0;
	for (int x = 0; x < experts; x++)
		n += moe_placement_holds(s->placement, host, layer, x);
	return (double)n / experts;
}
