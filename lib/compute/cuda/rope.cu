/* Rotary positions. */
#include "kernel.h"
#include "private.h"

extern "C" {
#include "../frequency.h"
}

#define NAME sincos_double
#define FN static __device__
#define FN_POLY static __device__ __forceinline__
#include "../sincos.inc"

enum { THREADS = 128, HEADS = 8 /* of a block */, MOST_PAIRS = 512 };

/* A block turns up to HEADS heads of one row.  8 bytes of every element pass through memory, which is the roof; the sines and cosines,
 * in double, are computed once for all heads of the block. */
static __global__ void rope_kernel(float *x, const int32_t *positions, const float *frequencies, int half, int heads, int head_dim)
{
	__shared__ float cosines[MOST_PAIRS], sines[MOST_PAIRS];
	int first = blockIdx.y * HEADS, n = min(HEADS, heads - first);
	float position = (float)positions[blockIdx.x];

	for (int i = threadIdx.x; i < half; i += THREADS) {
		double s, c;

		sincos_double((double)(position * frequencies[i]), &s, &c);
		sines[i] = (float)s;
		cosines[i] = (float)c;
	}
	__syncthreads();
	x += ((size_t)blockIdx.x * heads + first) * head_dim;
	for (int at = threadIdx.x; at < n * half; at += THREADS) {
		int i = at % half;
		float *p = x + (size_t)(at / half) * head_dim + i, a = p[0], b = p[half];

		p[0] = a * cosines[i] - b * sines[i];
		p[half] = b * cosines[i] + a * sines[i];
	}
}

extern "C" int moe_cuda_rope(struct moe_backend *b, struct moe_stream_q *q, float *x, const int32_t *positions, int rows, int heads,
                             int head_dim, const struct moe_rope *rope, struct moe_err *e)
{
	struct moe_cuda *c = moe_cuda(b);
	int half = rope->dims / 2, rc = moe_cuda_begin(c, &q, "rope", e);
	float frequencies[MOST_PAIRS];
	struct moe_staged s[2] = {{positions, (size_t)rows * sizeof *positions, NULL}, {frequencies, (size_t)half * sizeof *frequencies, NULL}};

	if (rc || rows <= 0 || half <= 0)
		return rc;
	if (half > MOST_PAIRS)
		return moe_fail(e, MOE_E_UNSUPPORTED, "cuda:%d: rope: %d rotated dimensions, %d are the most", c->index, rope->dims, 2 * MOST_PAIRS);
	for (int i = 0; i < half; i++)
		frequencies[i] = moe_rope_frequency(rope, i);
	rc = moe_cuda_stage(c, q, s, 2, e);
	if (rc)
		return rc;
	return moe_cuda_check(c, MOE_LAUNCH(rope_kernel, dim3((unsigned)rows, (unsigned)((heads + HEADS - 1) / HEADS)), THREADS, 0, q->s, x,
	                                    (const int32_t *)s[0].device, (const float *)s[1].device, half, heads, head_dim), "rope", e);
}
