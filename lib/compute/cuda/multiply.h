/* Products of many matrices with rows that lie in one place: what matmul, ffn and experts are made of. */
#ifndef MOE_CUDA_MULTIPLY_H
#define MOE_CUDA_MULTIPLY_H

#include "private.h"

/* How a matrix is multiplied (doc/numerics.md). */
enum moe_cuda_way { MOE_WAY_F32, MOE_WAY_I8, MOE_WAY_BF16, MOE_WAYS };
enum moe_cuda_way moe_cuda_way(const struct moe_cuda *c, const struct moe_matrix *w);

/* Pairs [first, first + rows) times w; or, of all jobs of a call, SiLU(gate) * up where w is gate.  Both have one quant then, and
 * are not multiplied with f32. */
struct moe_cuda_job {
	struct moe_matrix w, up;     /* up.data NULL: there is none */
	int first, rows;
};

struct moe_cuda_call {
	struct moe_cuda *c;
	struct moe_stream_q *q;
	float *y;                    /* pair p: y + p * w.rows */
	const float *x;              /* pair p: x + (x_row ? x_row[p] : p) * w.cols */
	const int32_t *x_row;        /* these, and what follows, lie on the device */
	const float *bias, *weight;  /* [w.rows], [pairs]; or NULL */
	size_t bound;                /* one more than the last row of x that is needed */
	enum moe_cuda_room room;     /* for these rows quantised or rounded */
};
/* Puts all on the stream.  The matrices of all jobs have one shape.  MOE_E_UNSUPPORTED: a coded matrix whose layout is not r64. */
int moe_cuda_multiply(const struct moe_cuda_call *call, const struct moe_cuda_job *jobs, size_t n, struct moe_err *e);

#endif
