/* Attention of a few queries, as when sequences generate.
 *
 * The roof is the memory's bandwidth: 2 head_dim elements are read for each position, once for all heads of a group, and two
 * operations done with each for each query: on an H200 arithmetic would take half as long as reading bf16 for eight queries.  A block
 * of threads has a part of 1024 positions of one tile and KV head, so that a single long context fills the GPU; each of its eight warps
 * has a block of 64 positions of its own, reads keys and values straight from memory, neighbours by neighbouring lanes and AHEAD rows
 * before the first is used, and leaves m, l, o in shared memory, where they join in order.  Eight queries with head_dim 128 take 40 KiB and
 * under 128 registers: two blocks, 16 warps, on a multiprocessor, with 8 rows of 128 bytes or more under way in each. */
#include "attend.h"

enum { WARPS = 8, THREADS = WARPS * MOE_WARP, AHEAD = 8, CHUNK = 2 * MOE_WARP /* elements that a warp has at a time */ };

/* AHEAD pairs of neighbouring elements, `step` elements apart, as they lie in memory: all reads before anything is done. */
static __device__ __forceinline__ void load_pairs(float2 v[AHEAD], const unsigned char *p, size_t step, int type)
{
	uint2 raw[AHEAD];

	if (type == MOE_KV_F32) {
#pragma unroll
		for (int k = 0; k < AHEAD; k++)
			v[k] = *(const float2 *)(p + 4 * k * step);
		return;
	}
#pragma unroll
	for (int k = 0; k < AHEAD; k++)
		raw[k].x = type == MOE_KV_Q8 ? *(const uint16_t *)(p + k * step) : *(const uint32_t *)(p + 2 * k * step);
	if (type == MOE_KV_F16) {
#pragma unroll
		for (int k = 0; k < AHEAD; k++)
			v[k] = make_float2(moe_f16(raw[k].x & 0xffff), moe_f16(raw[k].x >> 16));
	} else if (type == MOE_KV_BF16) {
#pragma unroll
		for (int k = 0; k < AHEAD; k++)
			v[k] = make_float2(moe_bf16(raw[k].x), __uint_as_float(raw[k].x & 0xffff0000u));
	} else {
#pragma unroll
		for (int k = 0; k < AHEAD; k++)
			v[k] = make_float2((float)(int8_t)raw[k].x, (float)(int8_t)(raw[k].x >> 8));
	}
}

static __device__ __forceinline__ float load_one(const unsigned char *p, size_t i, int type)
{
	switch (type) {
	case MOE_KV_F32: return ((const float *)p)[i];
	case MOE_KV_F16: return moe_f16(((const uint16_t *)p)[i]);
	case MOE_KV_BF16: return moe_bf16(((const uint16_t *)p)[i]);
	default: return (float)((const int8_t *)p)[i];
	}
}

/* A warp's block of 64 positions. */
struct work {
	const unsigned char *keys, *values;
	int lane, type, size, dim, start;
	float *weights;              /* shared, the warp's own: [QT, 64] */
	float *o;                    /* the same: [QT, dim] */
};

/* A query in shared memory begins at a multiple of 16 bytes, and is read so: as often as a float were a read for two products. */
static __host__ __device__ __forceinline__ int query_floats(int dim)
{
	return (dim + 3) / 4 * 4;
}

/* sum += f[k] v[k] for four k, in ascending order. */
static __device__ __forceinline__ void add_products(float sum[2], const float f[4], const float2 v[4])
{
#pragma unroll
	for (int k = 0; k < 4; k++) {
		sum[0] = __fmaf_rn(f[k], v[k].x, sum[0]);
		sum[1] = __fmaf_rn(f[k], v[k].y, sum[1]);
	}
}

/* The same for those k whose position, from j on, is seen. */
static __device__ __forceinline__ void add_seen(float sum[2], const float f[4], const float2 v[4], struct span span, int j)
{
#pragma unroll
	for (int k = 0; k < 4; k++) {
		bool seen = j + k >= span.lo && j + k < span.hi;
		float x = __fmaf_rn(f[k], v[k].x, sum[0]), y = __fmaf_rn(f[k], v[k].y, sum[1]);

		sum[0] = seen ? x : sum[0];
		sum[1] = seen ? y : sum[1];
	}
}

/* Scores of positions 2 lane and 2 lane + 1, by fma in ascending index of the elements, to w.weights. */
template <int QT> static __device__ void scores(const struct work &w, const float *query)
{
	const unsigned char *keys = w.keys + 2 * w.lane * w.size;
	float s[QT][2] = {{0}};
	int d = 0;

	for (; d + AHEAD <= w.dim; d += AHEAD) {
		float2 key[AHEAD];

		load_pairs(key, keys + (size_t)d * MOE_KV_BLOCK * w.size, MOE_KV_BLOCK, w.type);
#pragma unroll
		for (int k = 0; k < AHEAD; k += 4)
#pragma unroll
			for (int i = 0; i < QT; i++) {
				float4 q = *(const float4 *)(query + i * query_floats(w.dim) + d + k);

				add_products(s[i], (const float *)&q, key + k);
			}
	}
#pragma unroll 1
	for (; d < w.dim; d++) {
		float x = load_one(keys, (size_t)d * MOE_KV_BLOCK, w.type), y = load_one(keys, (size_t)d * MOE_KV_BLOCK + 1, w.type);

#pragma unroll
		for (int i = 0; i < QT; i++) {
			s[i][0] = __fmaf_rn(query[i * query_floats(w.dim) + d], x, s[i][0]);
			s[i][1] = __fmaf_rn(query[i * query_floats(w.dim) + d], y, s[i][1]);
		}
	}
#pragma unroll
	for (int i = 0; i < QT; i++)
		*(float2 *)(w.weights + i * MOE_KV_BLOCK + 2 * w.lane) = make_float2(s[i][0], s[i][1]);
}

/* Scores of one query become weights; m and l of the block. */
static __device__ struct attend_sums weigh(const struct attend &a, const struct work &w, struct span span, float *weights)
{
	struct attend_sums sums;
	float x[2] = {weights[2 * w.lane], weights[2 * w.lane + 1]}, l = 0.0f;

#pragma unroll
	for (int k = 0; k < 2; k++) {
		int j = 2 * w.lane + k;

		x[k] = w.type == MOE_KV_Q8 ? x[k] * scale_at(a, w.keys, j) : x[k];
		x[k] = j >= span.lo && j < span.hi ? x[k] * a.scale : -INFINITY;
	}
	sums.m = moe_warp_max(x[1] > x[0] ? x[1] : x[0]);
#pragma unroll
	for (int k = 0; k < 2; k++) {
		x[k] = moe_exp(x[k] - sums.m);
		weights[2 * w.lane + k] = x[k];
	}
	__syncwarp();
	for (int j = w.lane % 16; j < MOE_KV_BLOCK; j += 16)
		l += weights[j];
	sums.l = moe_tree16(l);
	__syncwarp();
#pragma unroll
	for (int k = 0; w.type == MOE_KV_Q8 && k < 2; k++)
		weights[2 * w.lane + k] = x[k] * scale_at(a, w.values, 2 * w.lane + k);
	return sums;
}

/* Elements d and d + 1 of the weighted sums of values, by fma in ascending position.  What a query does not see takes no
 * part, were it a NaN. */
template <int QT, bool WHOLE>
static __device__ void weighted_values(const struct work &w, const struct span *span, int lo, int hi, int d, bool both)
{
	const unsigned char *values = w.values + (size_t)d * w.size;
	float o[QT][2] = {{0}};

	for (int j = lo; j < hi; j += AHEAD) {
		float2 v[AHEAD];

		load_pairs(v, values + (size_t)j * w.dim * w.size, w.dim, w.type);
#pragma unroll
		for (int k = 0; k < AHEAD; k += 4)
#pragma unroll
			for (int i = 0; i < QT; i++) {
				float4 p = *(const float4 *)(w.weights + i * MOE_KV_BLOCK + j + k);

				if (WHOLE)
					add_products(o[i], (const float *)&p, v + k);
				else
					add_seen(o[i], (const float *)&p, v + k, span[i], j + k);
			}
	}
#pragma unroll
	for (int i = 0; i < QT; i++) {
		w.o[i * w.dim + d] = o[i][0];
		if (both)
			w.o[i * w.dim + d + 1] = o[i][1];
	}
}

/* The same for one element, where rows begin at odd addresses or the last element stands alone. */
template <int QT> static __device__ void weighted_value(const struct work &w, const struct span *span, int d)
{
#pragma unroll 1
	for (int i = 0; i < QT; i++) {
		float o = 0.0f;

		for (int j = span[i].lo; j < span[i].hi; j++)
			o = __fmaf_rn(w.weights[i * MOE_KV_BLOCK + j], load_one(w.values, (size_t)j * w.dim + d, w.type), o);
		w.o[i * w.dim + d] = o;
	}
}

/* A warp's block: m and l to sums[QT], o to w.o. */
template <int QT>
static __device__ void attend_block(const struct attend &a, const struct work &w, const float *query, const int *pos, struct attend_sums *sums,
                                    struct span *span)
{
	int lo = MOE_KV_BLOCK, hi = 0;
	bool whole = true;

	scores<QT>(w, query);
#pragma unroll 1
	for (int i = 0; i < QT; i++) {
		struct span s = span_of(pos[i], a.window, w.start);
		struct attend_sums one = {-INFINITY, 0.0f};

		if (s.lo < s.hi) { /* the same for all lanes */
			one = weigh(a, w, s, w.weights + i * MOE_KV_BLOCK);
			lo = min(lo, s.lo);
			hi = max(hi, s.hi);
		}
		whole = whole && (pos[i] < 0 || (s.lo == 0 && s.hi == MOE_KV_BLOCK));
		if (w.lane == 0) {
			sums[i] = one;
			span[i] = s;
		}
	}
	__syncwarp();
	lo = lo / AHEAD * AHEAD;
#pragma unroll 1
	for (int d = 2 * w.lane; d < w.dim; d += CHUNK)
		if (w.dim % 2 == 0 && whole) {
			weighted_values<QT, true>(w, span, 0, MOE_KV_BLOCK, d, true);
		} else if (w.dim % 2 == 0) {
			weighted_values<QT, false>(w, span, lo, hi, d, true);
		} else {
			weighted_value<QT>(w, span, d);
			if (d + 1 < w.dim)
				weighted_value<QT>(w, span, d + 1);
		}
	__syncwarp();
}

/* Query i's sums join in the order of blocks; the factors for their o. */
static __device__ void join_blocks(const struct attend_sums *sums, int queries, int i, struct attend_sums *running, struct joint *factors)
{
	for (int w = 0; w < WARPS; w++)
		factors[w * queries + i] = sums[w * queries + i].l == 0.0f ? joint{1.0f, 0.0f} : join_sums(*running, sums[w * queries + i]);
}

/* A warp's weights and o. */
static __host__ __device__ __forceinline__ int warp_floats(int queries, int dim)
{
	return queries * (query_floats(dim) + MOE_KV_BLOCK);
}

template <int QT> static __global__ void __launch_bounds__(THREADS, 2) few_kernel(const struct attend a)
{
	MOE_DYNAMIC_SHARED(float, memory);
	__shared__ struct attend_sums sums[WARPS * QT], running[QT];
	__shared__ struct joint factors[WARPS * QT];
	__shared__ struct span spans[WARPS * QT];
	__shared__ int pos[QT];
	const struct attend_piece piece = a.pieces[blockIdx.x];
	const struct attend_tile t = a.tiles[piece.tile];
	const int dim = a.head_dim, group = a.heads / a.kv_heads, warp = threadIdx.x / MOE_WARP;
	const int begin = max(first_seen(t.pos + t.first / group, a.window) / MOE_KV_BLOCK * MOE_KV_BLOCK, piece.part * MOE_PART);
	const int end = min(t.pos + (t.first + t.n - 1) / group + 1, (piece.part + 1) * MOE_PART);
	float *query = memory, *blocks = query + QT * query_floats(dim), *o = blocks + WARPS * warp_floats(QT, dim);
	float *own = blocks + warp * warp_floats(QT, dim);

	for (int at = threadIdx.x; at < QT * dim; at += THREADS) {
		query[at / dim * query_floats(dim) + at % dim] = at / dim < t.n ? a.query[query_at(a, t, blockIdx.y, t.first + at / dim) + at % dim] : 0.0f;
		o[at] = 0.0f;
	}
	if (threadIdx.x < QT) {
		pos[threadIdx.x] = (int)threadIdx.x < t.n ? t.pos + (t.first + (int)threadIdx.x) / group : -1; /* -1 sees nothing */
		running[threadIdx.x] = {-INFINITY, 0.0f};
	}
	__syncthreads();
	for (int first = begin; first < end; first += WARPS * MOE_KV_BLOCK) {
		int start = first + warp * MOE_KV_BLOCK, lane = threadIdx.x % MOE_WARP;

		if (start < end) {
			const unsigned char *keys = keys_at(a, t, blockIdx.y, start);
			const struct work w = {keys, values_at(a, keys), lane, a.type, a.size, dim, start, own, own + QT * MOE_KV_BLOCK};

			attend_block<QT>(a, w, query, pos, sums + warp * QT, spans + warp * QT);
		} else if (lane < QT) {
			sums[warp * QT + lane] = {-INFINITY, 0.0f};
		}
		__syncthreads();
		if (threadIdx.x < QT)
			join_blocks(sums, QT, threadIdx.x, &running[threadIdx.x], factors);
		__syncthreads();
		for (int at = threadIdx.x; at < QT * dim; at += THREADS) {
			const float *from = blocks + QT * MOE_KV_BLOCK + at;
			float sum = o[at];

			for (int w = 0; w < WARPS; w++)
				if (sums[w * QT + at / dim].l != 0.0f)
					sum = __fmaf_rn(sum, factors[w * QT + at / dim].keep, from[w * warp_floats(QT, dim)] * factors[w * QT + at / dim].join);
			o[at] = sum;
		}
		__syncthreads();
	}

	float *to = a.scratch + ((size_t)blockIdx.x * a.kv_heads + blockIdx.y) * QT * (2 + dim);

	if (threadIdx.x < QT) {
		to[threadIdx.x] = running[threadIdx.x].m;
		to[QT + threadIdx.x] = running[threadIdx.x].l;
	}
	for (int at = threadIdx.x; at < QT * dim; at += THREADS)
		to[2 * QT + at] = o[at];
}

/* A block of threads for each tile and KV head: a thread an element of its queries.  What it reads, a float of each part for
 * every element, is next to nothing. */
static __global__ void join_kernel(const struct attend a)
{
	const struct attend_tile t = a.tiles[blockIdx.x];
	const int dim = a.head_dim, qt = a.queries;
	const size_t floats = (size_t)qt * (2 + dim);
	const float *from = a.scratch + ((size_t)t.piece * a.kv_heads + blockIdx.y) * floats;

	for (int at = threadIdx.x; at < t.n * dim; at += THREADS) {
		struct attend_sums all = {-INFINITY, 0.0f};
		int i = at / dim;
		float o = 0.0f;

		for (int p = 0; p < t.parts; p++) {
			const float *part = from + (size_t)p * a.kv_heads * floats;

			if (part[qt + i] == 0.0f)
				continue; /* it saw nothing there */
			struct joint f = join_sums(all, {part[i], part[qt + i]});

			o = __fmaf_rn(o, f.keep, part[2 * qt + at] * f.join);
		}
		a.out[query_at(a, t, blockIdx.y, t.first + i) + at % dim] = o / all.l;
	}
}

size_t moe_attend_few_bytes(int queries, int head_dim)
{
	return sizeof(float) * (2 * (size_t)queries * query_floats(head_dim) + WARPS * (size_t)warp_floats(queries, head_dim));
}

cudaError_t moe_attend_few(const struct attend *a, int pieces, size_t shared, cudaStream_t stream)
{
	void (*kernel)(const struct attend a) = a->queries == 4 ? few_kernel<4> : few_kernel<MOE_ATTEND_FEW>;
	cudaError_t rc = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);

	return rc ? rc : MOE_LAUNCH(kernel, dim3((unsigned)pieces, (unsigned)a->kv_heads), THREADS, shared, stream, *a);
}

cudaError_t moe_attend_join(const struct attend *a, int tiles, cudaStream_t stream)
{
	return MOE_LAUNCH(join_kernel, dim3((unsigned)tiles, (unsigned)a->kv_heads), THREADS, 0, stream, *a);
}
