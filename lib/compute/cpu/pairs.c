/* Rows of bf16: which matrices are multiplied with them, and how they are made. */
#include "cpu.h"
#include "pairs.h"

#define ROUND_GRAIN 4            /* rows a piece */

bool moe_cpu_pairs(const struct moe_cpu *c, const struct moe_matrix *w)
{
	return c->numerics.activation == MOE_A_BF16 && w->quant == MOE_Q_BF16 && !w->f32_inputs;
}

struct round_rows {
	const struct moe_pair_kernels *k;
	unsigned char *to;
	size_t ldx, cols;
	const float *x;
};

static void round_some(void *arg, struct moe_range r)
{
	const struct round_rows *m = arg;

	for (size_t i = r.from; i < r.to; i++)
		m->k->round(m->to + i * m->ldx, m->x + i * m->cols, m->cols);
}

int moe_pairs_round(struct moe_cpu *c, struct moe_room *room, const float *x, size_t bound, int64_t cols,
                    struct moe_rows *out, struct moe_err *e)
{
	size_t padded = ((size_t)cols + MOE_PAIR_BLOCK - 1) / MOE_PAIR_BLOCK * MOE_PAIR_BLOCK;
	struct round_rows m = {c->pairs, NULL, padded * c->pairs->x_bytes, (size_t)cols, x};
	int rc = moe_cpu_room(room, bound, m.ldx, "rounded rows", e);

	if (rc)
		return rc;
	m.to = room->mem;
	moe_cpu_each(c, bound, ROUND_GRAIN, round_some, &m);
	*out = (struct moe_rows){m.to, m.ldx};
	return 0;
}
