/* The inner kernels: one source, kernels.inc, compiled per instruction set; each gives one table.
 * A kernel works on one thread's piece and knows neither teams nor errors. */
#ifndef MOE_CPU_KERNELS_H
#define MOE_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compute/compute.h"

#define MOE_SEGMENT 256          /* elements of a dot product that are summed by lanes before they join the total */
#define MOE_TILE_N 32            /* most outputs of a tile with more than direct_rows rows */
#define MOE_PACK_FLOATS (MOE_TILE_N * MOE_SEGMENT)

/* A tile of a matrix product: y[i * ldy + j] = x row i . w row j, for i < rows and j < n. */
struct moe_tile {
	float *y;
	size_t ldy;
	const unsigned char *x;      /* row i: x + (x_row ? x_row[i] : i) * ldx; f32, or as .pairs.round makes them */
	size_t ldx;                  /* bytes */
	const int32_t *x_row;
	const unsigned char *w;      /* row j: w + j * ldw; any alignment */
	size_t ldw;                  /* bytes */
	size_t k;
	int rows, n;
	enum moe_quant quant;
	bool pairs;                  /* bf16 weights times rows of bf16, for .pairs.tile */
	float *pack;                 /* MOE_PACK_FLOATS of the thread's own; used when rows > direct_rows */
};

/* Attention of up to MOE_ATTEND_TILE queries of one sequence over one KV head. */
#define MOE_ATTEND_TILE 96
#define MOE_ATTEND_PART 1024     /* positions that are summed by themselves before they are joined */
struct moe_attend {
	const float *query[MOE_ATTEND_TILE];
	int pos[MOE_ATTEND_TILE];    /* ascending */
	int n;
	int head_dim, window;        /* window 0: all positions */
	float scale;
	enum moe_kv_type type;
	const unsigned char *kv;     /* block b: keys at kv + b * stride, values v_offset bytes further */
	size_t stride, v_offset;
	const int32_t *blocks;
	float *scratch;              /* moe_attend_floats(head_dim) of the thread's own */
};
static inline size_t moe_attend_floats(int head_dim)
{
	return 64 * (MOE_ATTEND_TILE + (size_t)head_dim);
}

/* What n queries have seen so far: the greatest score, the sum of weights, the weighted sum of values. */
struct moe_attend_part {
	float *max, *sum;            /* [n]; -infinity and 0: nothing yet */
	float *out;                  /* [n, head_dim] */
};
/* Cut out of moe_attend_part_floats(n, head_dim) floats. */
static inline size_t moe_attend_part_floats(size_t n, int head_dim)
{
	return n * (2 + (size_t)head_dim);
}
static inline struct moe_attend_part moe_attend_part(float *mem, size_t n)
{
	return (struct moe_attend_part){mem, mem + n, mem + 2 * n};
}

/* A key or value of one head, to be stored. */
struct moe_kv_vector {
	const float *x;              /* [n] */
	int n;
	enum moe_kv_type type;
	unsigned char *to;           /* element i goes i * step elements further */
	size_t step;
	unsigned char *scale;        /* of q8: a bf16 */
};

/* Products of bf16 with bf16 (pairs.h). */
struct moe_pair_kernels {
	size_t x_bytes;              /* that an element of a rounded row takes; a row is whole blocks of MOE_PAIR_BLOCK */
	void (*round)(unsigned char *to, const float *x, size_t n); /* fills the last block up with zeros */
	void (*tile)(const struct moe_tile *t);
};

struct moe_kernels {
	const char *isa;
	int direct_rows;             /* most rows of a tile whose weights are used as they are read */
	void (*tile)(const struct moe_tile *t);
	struct moe_pair_kernels pairs;
	void (*attend)(const struct moe_attend *a, int part, struct moe_attend_part out); /* positions part * MOE_ATTEND_PART.. */
	void (*attend_join)(struct moe_attend_part to, struct moe_attend_part part, int n, int head_dim);
	void (*kv_store)(const struct moe_kv_vector *v);
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
const struct moe_pair_kernels *moe_pairs_avx512bf16(void);

#endif
