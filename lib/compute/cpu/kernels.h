/* The inner kernels: one source, kernels.inc, compiled per instruction set; each gives one table.
 * A kernel works on one thread's piece and knows neither teams nor errors. */
#ifndef MOE_CPU_KERNELS_H
#define MOE_CPU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/tensor.h"

#define MOE_SEGMENT 256          /* elements of a dot product that are summed by lanes before they join the total */
#define MOE_TILE_N 32            /* most outputs of a tile with more than direct_rows rows */
#define MOE_PACK_FLOATS (MOE_TILE_N * MOE_SEGMENT)

/* A tile of a matrix product: y[i * ldy + j] = x row i . w row j, for i < rows and j < n. */
struct moe_tile {
	float *y;
	size_t ldy;
	const float *x;              /* row i: x + (x_row ? x_row[i] : i) * ldx */
	size_t ldx;
	const int32_t *x_row;
	const unsigned char *w;      /* row j: w + j * ldw; any alignment */
	size_t ldw;                  /* bytes */
	size_t k;
	int rows, n;
	enum moe_quant quant;
	float *pack;                 /* MOE_PACK_FLOATS of the thread's own; used when rows > direct_rows */
};

/* Attention of up to MOE_ATTEND_TILE queries of one sequence over one KV head. */
#define MOE_ATTEND_TILE 12
struct moe_attend {
	const float *query[MOE_ATTEND_TILE];
	float *out[MOE_ATTEND_TILE];
	int pos[MOE_ATTEND_TILE];    /* ascending */
	int n;
	int head_dim, window;        /* window 0: all positions */
	float scale;
	const float *kv;             /* block b: keys at kv + b * stride, values v_offset floats further */
	size_t stride, v_offset;     /* floats */
	const int32_t *blocks;
	float *scratch;              /* moe_attend_floats(head_dim) of the thread's own */
};
static inline size_t moe_attend_floats(int head_dim)
{
	return MOE_ATTEND_TILE * (64 + 2 * (size_t)head_dim);
}

struct moe_kernels {
	const char *isa;
	int direct_rows;             /* most rows of a tile whose weights are used as they are read */
	void (*tile)(const struct moe_tile *t);
	void (*attend)(const struct moe_attend *a);
	void (*convert)(float *y, const unsigned char *w, enum moe_quant q, size_t n);
	void (*rmsnorm)(float *y, const float *x, int n, const float *weight, float eps);
	void (*softmax)(float *p, const float *logits, int n);
	void (*silu_mul)(float *y, const float *gate, const float *up, size_t n); /* y may be gate or up */
	/* Pairs (x[i], x[i + half]) turned by the angles whose cosines and sines are given. */
	void (*rotate)(float *x, const float *cosines, const float *sines, int half);
	void (*add)(float *x, const float *y, size_t n);
	void (*scale)(float *x, float s, size_t n);
	void (*clamp)(float *x, float limit, size_t n);
};

/* NULL where not compiled in.  Whether this CPU can run them is the caller's to know. */
const struct moe_kernels *moe_kernels_base(void);
const struct moe_kernels *moe_kernels_avx2(void);
const struct moe_kernels *moe_kernels_avx512(void);

#endif
