/* How long an operation takes where it is done. */
#include <math.h>

#include "plan/private.h"

/* Were every weight (key and value) to meet so many rows: what its kernel was measured to reach, arithmetic included, or the
 * slower of arithmetic and memory (equation 8). */
static double seconds_at(const struct moe_setting *s, int level, const struct moe_op *op, double rows)
{
	const struct moe_memory_level *l = &s->hardware->levels[level];
	double rate = op->kernel < 0 ? 0 : moe_kernel_bandwidth(&l->kernels[op->kernel], rows), bytes = op->weights + op->kv;

	if (rate > 0)
		return bytes / (rate * l->count);
	return fmax(op->flops * rows / op->rows / plan_flops(s->hardware, level, op->type), bytes / plan_bandwidth(l));
}

#define EVEN_ROWS 64 /* with more of them an expert's rows are near enough to their mean */

/* Experts do not get the same number of rows each: of so many tokens that choose one with that chance, a binomial number.
 * The mean time over those that somebody chose. */
static double seconds_by_chance(const struct moe_setting *s, int level, const struct moe_op *op)
{
	double n = op->tokens, p = op->chance, share = pow(1 - p, n), seconds = 0, chosen = 0;

	for (int r = 1; r <= n; r++) {
		share *= (n - r + 1) / r * p / (1 - p);
		chosen += share;
		seconds += share * seconds_at(s, level, op, r);
		if (r > n * p && share < 1e-6)
			break;
	}
	return seconds / chosen;
}

double plan_op_seconds(const struct moe_setting *s, int level, const struct moe_op *op)
{
	const struct moe_memory_level *l = &s->hardware->levels[level];
	double seconds = op->activations / plan_bandwidth(l) + op->calls * l->call;

	if (op->weights + op->kv <= 0)
		return seconds;
	if (op->tokens > 1 && op->chance < 1 && op->tokens * op->chance <= EVEN_ROWS)
		return seconds + seconds_by_chance(s, level, op);
	return seconds + seconds_at(s, level, op, op->rows);
}
