/* How long an operation takes where it is done. */
#include "plan/private.h"

static double larger(double a, double b)
{
	return a > b ? a : b;
}

double plan_op_seconds(const struct moe_setting *s, int level, const struct moe_op *op)
{
	const struct moe_memory_level *l = &s->hardware->levels[level];
	double compute = op->flops / plan_flops(s->hardware, level, op->type);
	double memory = (op->weights + op->kv + op->activations) / plan_bandwidth(l);

	return larger(compute, memory) + op->calls * l->call;
}
