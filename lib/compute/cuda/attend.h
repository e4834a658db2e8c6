/* Attention: what the host's part (attention.cu) and the two kernels share.
 *
 * Queries of a sequence that share a KV head are numbered row by row, and in a row by the heads of the group; a tile is some of them,
 * one after the other.  The order of all sums is doc/numerics.md's: in a block of 64 positions m, l, o; blocks join a part of 1024 in
 * ascending order, parts the total.  So blocks and parts can be computed by whoever has time, and are joined in order. */
#ifndef MOE_CUDA_ATTEND_H
#define MOE_CUDA_ATTEND_H

#include "kernel.h"
#include "private.h"

#define MOE_PART 1024                /* positions of a part */

struct attend_tile {
	int row, pos;                /* of the sequence's first query */
	int first, n;                /* the tile's queries */
	int table;                   /* where the sequence's block numbers begin */
	int first_part, parts;       /* that it sees something of */
	int piece;                   /* the number of its first part among all pieces */
};
struct attend_piece {
	int tile, part;
};

struct attend {
	float *out;
	const float *query;
	const unsigned char *kv;
	size_t stride, head_bytes;
	const int32_t *blocks;
	const struct attend_tile *tiles;
	const struct attend_piece *pieces;
	float *scratch;              /* of a piece and head: m and l of its queries, then their o */
	int type, size, heads, kv_heads, head_dim, window; /* size: bytes of an element */
	float scale;
	int queries;                 /* most of a tile: the kernel's */
};

/* What some queries have seen: the greatest score, the sum of weights, and (elsewhere) the weighted sum of values. */
struct attend_sums {
	float m, l;
};

/* Launches: tiles or pieces times KV heads. */
cudaError_t moe_attend_few(const struct attend *a, int pieces, size_t shared, cudaStream_t stream);
cudaError_t moe_attend_join(const struct attend *a, int tiles, cudaStream_t stream);
cudaError_t moe_attend_many(const struct attend *a, int tiles, cudaStream_t stream);
/* Shared memory that they take. */
size_t moe_attend_few_bytes(int queries, int head_dim);
size_t moe_attend_many_bytes(int head_dim);
#define MOE_ATTEND_MANY 32           /* queries of a tile of moe_attend_many */
#define MOE_ATTEND_MANY_DIM 256      /* the widest heads that it has */
#define MOE_ATTEND_MOST_FEW 32       /* queries of a sequence and KV head that are few */
#define MOE_ATTEND_FEW 8             /* most queries of a tile of moe_attend_few: 4 or 8 */

/* Floats of a piece and head in the scratch. */
static inline size_t moe_attend_scratch(int queries, int head_dim)
{
	return (size_t)queries * (2 + (size_t)head_dim);
}

/* ---- for the kernels ---- */

/* The positions of the block at `start` that a query at pos sees, as [lo, hi). */
struct span {
	int lo, hi;
};
static __device__ __forceinline__ int first_seen(int pos, int window)
{
	return window > 0 && pos >= window ? pos - window + 1 : 0;
}
static __device__ __forceinline__ struct span span_of(int pos, int window, int start)
{
	return {max(first_seen(pos, window) - start, 0), min(pos + 1 - start, MOE_KV_BLOCK)};
}

/* M = max(m, m_b); what is kept of the old sums, and how the new ones join them. */
struct joint {
	float keep, join;
};
static __device__ __forceinline__ struct joint join_sums(struct attend_sums &to, struct attend_sums s)
{
	float m = s.m > to.m ? s.m : to.m;
	struct joint f = {moe_exp(to.m - m), moe_exp(s.m - m)};

	to.m = m;
	to.l = __fmaf_rn(to.l, f.keep, s.l * f.join);
	return f;
}

/* Element i of a query's or an output's row. */
static __device__ __forceinline__ size_t query_at(const struct attend &a, const struct attend_tile &t, int kv_head, int query)
{
	int group = a.heads / a.kv_heads;

	return ((size_t)(t.row + query / group) * a.heads + (size_t)kv_head * group + query % group) * a.head_dim;
}

/* Keys, and behind them values, of a block for one head. */
static __device__ __forceinline__ const unsigned char *keys_at(const struct attend &a, const struct attend_tile &t, int kv_head, int start)
{
	return a.kv + (size_t)a.blocks[t.table + start / MOE_KV_BLOCK] * a.stride + (size_t)kv_head * a.head_bytes;
}
static __device__ __forceinline__ const unsigned char *values_at(const struct attend &a, const unsigned char *keys)
{
	return keys + (size_t)a.kv_heads * a.head_bytes;
}

/* Of q8: the scale of position j of keys or values. */
static __device__ __forceinline__ float scale_at(const struct attend &a, const unsigned char *block, int j)
{
	return moe_bf16(((const uint16_t *)(block + (size_t)MOE_KV_BLOCK * a.head_dim))[j]);
}

#endif
