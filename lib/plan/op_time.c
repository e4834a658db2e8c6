/* How long an operation takes where it is done. */
#include "plan/private.h"

static double larger(double a, double b)
{
	return a > b ? a : b;
}

/* A kernel's measured curve says how fast weights (keys and values) are done with, arithmetic included. */
static double measured_seconds(const struct moe_memory_level *l, const struct moe_op *op)
{
	double rate = op->kernel < 0 ? 0 : moe_kernel_bandwidth(&l->kernels[op->kernel], op->rows);

	return rate > 0 ? (op->weights + op->kv) / (rate * l->count) : 0;
}

double plan_op_seconds(const struct moe_setting *s, int level, const struct moe_op *op)
{
	const struct moe_memory_level *l = &s->hardware->levels[level];
	double compute = op->flops / plan_flops(s->hardware, level, op->type);
	double work = measured_seconds(l, op), memory = (op->weights + op->kv + op->activations) / plan_bandwidth(l);

	if (work > 0)
		work += op->activations / plan_bandwidth(l);
	else
		work = larger(compute, memory);
	return work + op->calls * l->call;
}
