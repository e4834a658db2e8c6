/* Attention of many queries, as when prompts are read.
 *
 * The roof is arithmetic in f32: 4 head_dim operations for each query and position, which the order of sums keeps from the tensor cores.
 * A block of threads has a tile of 32 queries and goes through all positions they see; keys, and then values, of a block of 64 lie in
 * shared memory as f32, read once for the 32.  Scores: a thread has 4 queries and the positions l, l + 16, l + 32, l + 48, which are the
 * ones that its lane of the sum of weights adds up; for every element two reads of 16 bytes and 16 fma.  Values: 4 queries and 4 elements of
 * every 64, again 16 fma for two reads or fewer.  With head_dim 128 it takes 61 KiB: three blocks of four warps on a multiprocessor of
 * sm_80 or sm_90, each of whose lanes has 16 sums or more under way; one on sm_75.
 *
 * A part's o is in registers; the total's lies in the output, which its thread alone touches, once every 1024 positions. */
#include "attend.h"

enum { QUERIES = MOE_ATTEND_MANY, THREADS = 128, LANES = 16, OWN = 4 /* queries of a thread */ };
/* Rows in shared memory, in floats: 16 bytes more than is needed, so that rows begin in other banks. */
enum { KEY_ROW = MOE_KV_BLOCK + 4, QUERY_ROW = QUERIES + 4 };

static __host__ __device__ __forceinline__ int value_row(int dim)
{
	return (dim + 3) / 4 * 4 + 4;
}

static __host__ __device__ __forceinline__ int tile_floats(int dim)
{
	return dim * KEY_ROW > MOE_KV_BLOCK * value_row(dim) ? dim * KEY_ROW : MOE_KV_BLOCK * value_row(dim);
}

/* 16 bytes of keys or values: up to 16 elements. */
static __device__ __forceinline__ int unpack(float out[16], uint4 v, int type)
{
	const uint32_t word[4] = {v.x, v.y, v.z, v.w};

#pragma unroll
	for (int i = 0; i < 4; i++) {
		if (type == MOE_KV_F32) {
			out[i] = __uint_as_float(word[i]);
		} else if (type == MOE_KV_Q8) {
#pragma unroll
			for (int k = 0; k < 4; k++)
				out[4 * i + k] = (float)(int8_t)(word[i] >> 8 * k);
		} else {
			out[2 * i] = type == MOE_KV_F16 ? moe_f16(word[i] & 0xffff) : moe_bf16(word[i]);
			out[2 * i + 1] = type == MOE_KV_F16 ? moe_f16(word[i] >> 16) : __uint_as_float(word[i] & 0xffff0000u);
		}
	}
	return type == MOE_KV_F32 ? 4 : type == MOE_KV_Q8 ? 16 : 8;
}

/* Keys [dim, 64] to shared memory, position p of a row at p % 16 * 4 + p / 16: a thread's four lie together. */
static __device__ void stage_keys(const struct attend &a, float *tile, const unsigned char *keys)
{
	int n = 16 / a.size;

#pragma unroll 4
	for (int at = threadIdx.x * n; at < a.head_dim * MOE_KV_BLOCK; at += THREADS * n) {
		float *row = tile + at / MOE_KV_BLOCK * KEY_ROW, x[16];

		unpack(x, *(const uint4 *)(keys + (size_t)at * a.size), a.type);
#pragma unroll
		for (int i = 0; i < 16; i++)
			if (i < n)
				row[(at + i) % LANES * 4 + (at + i) % MOE_KV_BLOCK / LANES] = x[i];
	}
}

/* Values [64, dim] to shared memory; a row may end within what a thread reads. */
static __device__ void stage_values(const struct attend &a, float *tile, const unsigned char *values)
{
	int n = 16 / a.size, dim = a.head_dim, width = value_row(dim);

#pragma unroll 4
	for (int at = threadIdx.x * n; at < dim * MOE_KV_BLOCK; at += THREADS * n) {
		int j = at / dim, d = at % dim;
		float x[16];

		unpack(x, *(const uint4 *)(values + (size_t)at * a.size), a.type);
#pragma unroll
		for (int i = 0; i < 16; i++)
			if (i < n) {
				tile[j * width + d] = x[i];
				d++;
				if (d == dim) {
					d = 0;
					j++;
				}
			}
	}
}

/* What a thread knows of its four queries. */
struct own {
	int pos[OWN];                /* -1: there is no such query, it sees nothing */
	struct span span[OWN];
	struct attend_sums part[OWN], total[OWN];
	struct joint joint[OWN];     /* of the block at hand */
};

static __device__ __forceinline__ void scores(const float *queries, const float *keys, int dim, int first, int lane, float s[OWN][4])
{
#pragma unroll
	for (int i = 0; i < OWN; i++)
#pragma unroll
		for (int k = 0; k < 4; k++)
			s[i][k] = 0.0f;
#pragma unroll 4
	for (int d = 0; d < dim; d++) {
		float4 q = *(const float4 *)(queries + d * QUERY_ROW + first), v = *(const float4 *)(keys + d * KEY_ROW + 4 * lane);
		const float query[4] = {q.x, q.y, q.z, q.w}, key[4] = {v.x, v.y, v.z, v.w};

#pragma unroll
		for (int i = 0; i < OWN; i++)
#pragma unroll
			for (int k = 0; k < 4; k++)
				s[i][k] = __fmaf_rn(query[i], key[k], s[i][k]);
	}
}

static __device__ __forceinline__ float half_max(float x)
{
	for (int i = LANES / 2; i > 0; i /= 2) {
		float y = __shfl_xor_sync(MOE_ALL_LANES, x, i);

		x = y > x ? y : x;
	}
	return x;
}

/* Scores become weights, in shared memory [64, QUERY_ROW], and the part's m and l take the block in. */
static __device__ __forceinline__ void weigh(const struct attend &a, struct own &own, const unsigned char *keys, const unsigned char *values,
                                             float s[OWN][4], int lane, float *weights)
{
	float key_scale[4], value_scale[4];

#pragma unroll
	for (int k = 0; k < 4; k++) {
		key_scale[k] = a.type == MOE_KV_Q8 ? scale_at(a, keys, lane + LANES * k) : 1.0f;
		value_scale[k] = a.type == MOE_KV_Q8 ? scale_at(a, values, lane + LANES * k) : 1.0f;
	}
#pragma unroll
	for (int i = 0; i < OWN; i++) {
		struct attend_sums block = {-INFINITY, 0.0f};

#pragma unroll
		for (int k = 0; k < 4; k++) {
			int j = lane + LANES * k;
			float x = a.type == MOE_KV_Q8 ? s[i][k] * key_scale[k] : s[i][k];

			s[i][k] = j >= own.span[i].lo && j < own.span[i].hi ? x * a.scale : -INFINITY;
			block.m = s[i][k] > block.m ? s[i][k] : block.m;
		}
		block.m = half_max(block.m);
#pragma unroll
		for (int k = 0; k < 4; k++) {
			s[i][k] = moe_exp(s[i][k] - block.m);
			block.l += s[i][k];
			s[i][k] = a.type == MOE_KV_Q8 ? s[i][k] * value_scale[k] : s[i][k];
		}
		block.l = moe_tree16(block.l);
		own.joint[i] = {1.0f, 0.0f};
		if (own.span[i].lo < own.span[i].hi)
			own.joint[i] = join_sums(own.part[i], block);
	}
#pragma unroll
	for (int k = 0; k < 4; k++)
		*(float4 *)(weights + (lane + LANES * k) * QUERY_ROW) = make_float4(s[0][k], s[1][k], s[2][k], s[3][k]);
}

/* o of the block for elements 64 c + 4 lane .. + 3, joined to the part's. */
template <int NC, bool WHOLE>
static __device__ __forceinline__ void weighted_values(const struct own &own, const float *weights, const float *values, int dim, int lane,
                                                       float o[OWN][NC][4])
{
	float sum[OWN][NC][4];

#pragma unroll
	for (int i = 0; i < OWN; i++)
#pragma unroll
		for (int c = 0; c < NC; c++)
#pragma unroll
			for (int k = 0; k < 4; k++)
				sum[i][c][k] = 0.0f;
#pragma unroll 2
	for (int j = 0; j < MOE_KV_BLOCK; j++) {
		float4 w = *(const float4 *)(weights + j * QUERY_ROW);
		const float weight[OWN] = {w.x, w.y, w.z, w.w};

#pragma unroll
		for (int c = 0; c < NC; c++) {
			int d = 64 * c + 4 * lane;
			float4 v = *(const float4 *)(values + j * value_row(dim) + (d < dim ? d : 0));
			const float value[4] = {v.x, v.y, v.z, v.w};

#pragma unroll
			for (int i = 0; i < OWN; i++)
#pragma unroll
				for (int k = 0; k < 4; k++) {
					float x = __fmaf_rn(weight[i], value[k], sum[i][c][k]);

					sum[i][c][k] = WHOLE || (j >= own.span[i].lo && j < own.span[i].hi) ? x : sum[i][c][k];
				}
		}
	}
#pragma unroll
	for (int i = 0; i < OWN; i++)
		if (own.span[i].lo < own.span[i].hi)
#pragma unroll
			for (int c = 0; c < NC; c++)
#pragma unroll
				for (int k = 0; k < 4; k++)
					o[i][c][k] = __fmaf_rn(o[i][c][k], own.joint[i].keep, sum[i][c][k] * own.joint[i].join);
}

/* The part joins the total, whose o lies in the output; the last time it is finished. */
template <int NC>
static __device__ __forceinline__ void join_part(const struct attend &a, struct own &own, const size_t at[OWN], float o[OWN][NC][4], int lane,
                                                 bool last)
{
#pragma unroll
	for (int i = 0; i < OWN; i++) {
		bool first = own.total[i].l == 0.0f, seen = own.part[i].l != 0.0f;
		struct joint f = {1.0f, 0.0f};

		if (own.pos[i] < 0)
			continue;
		if (seen)
			f = join_sums(own.total[i], own.part[i]);
#pragma unroll
		for (int c = 0; c < NC; c++)
#pragma unroll
			for (int k = 0; k < 4; k++) {
				int d = 64 * c + 4 * lane + k;
				float sum;

				if (d >= a.head_dim)
					continue;
				sum = first ? 0.0f : a.out[at[i] + d];
				sum = seen ? __fmaf_rn(sum, f.keep, o[i][c][k] * f.join) : sum;
				a.out[at[i] + d] = last ? sum / own.total[i].l : sum;
				o[i][c][k] = 0.0f;
			}
		own.part[i] = {-INFINITY, 0.0f};
	}
}

static __device__ void stage_queries(const struct attend &a, const struct attend_tile &t, float *queries)
{
	for (int at = threadIdx.x; at < QUERIES * a.head_dim; at += THREADS) {
		int i = at / a.head_dim, d = at % a.head_dim;

		queries[d * QUERY_ROW + i] = i < t.n ? a.query[query_at(a, t, blockIdx.y, t.first + i) + d] : 0.0f;
	}
}

template <int NC> static __global__ void __launch_bounds__(THREADS, NC > 2 ? 1 : 3) many_kernel(const struct attend a)
{
	MOE_DYNAMIC_SHARED(float, memory);
	const struct attend_tile t = a.tiles[blockIdx.x];
	const int dim = a.head_dim, group = a.heads / a.kv_heads, lane = threadIdx.x % LANES, mine = threadIdx.x / LANES * OWN;
	const int end = t.pos + (t.first + t.n - 1) / group + 1;
	float *tile = memory, *queries = tile + tile_floats(dim), *weights = queries + dim * QUERY_ROW + mine, s[OWN][4], o[OWN][NC][4];
	struct own own;
	size_t at[OWN];

#pragma unroll
	for (int i = 0; i < OWN; i++) {
		own.pos[i] = mine + i < t.n ? t.pos + (t.first + mine + i) / group : -1;
		own.part[i] = own.total[i] = {-INFINITY, 0.0f};
		at[i] = mine + i < t.n ? query_at(a, t, blockIdx.y, t.first + mine + i) : 0;
#pragma unroll
		for (int c = 0; c < NC; c++)
#pragma unroll
			for (int k = 0; k < 4; k++)
				o[i][c][k] = 0.0f;
	}
	stage_queries(a, t, queries);
	for (int start = first_seen(t.pos + t.first / group, a.window) / MOE_KV_BLOCK * MOE_KV_BLOCK; start < end; start += MOE_KV_BLOCK) {
		const unsigned char *keys = keys_at(a, t, blockIdx.y, start), *values = values_at(a, keys);
		bool whole = true;

#pragma unroll
		for (int i = 0; i < OWN; i++) {
			own.span[i] = span_of(own.pos[i], a.window, start);
			whole = whole && (own.pos[i] < 0 || (own.span[i].lo == 0 && own.span[i].hi == MOE_KV_BLOCK));
		}
		__syncthreads(); /* nobody reads what was there before */
		stage_keys(a, tile, keys);
		__syncthreads();
		scores(queries, tile, dim, mine, lane, s);
		__syncthreads();
		stage_values(a, tile, values);
		weigh(a, own, keys, values, s, lane, weights);
		__syncthreads();
		if (__all_sync(MOE_ALL_LANES, whole))
			weighted_values<NC, true>(own, weights, tile, dim, lane, o);
		else
			weighted_values<NC, false>(own, weights, tile, dim, lane, o);
		if (start + MOE_KV_BLOCK >= end || (start + MOE_KV_BLOCK) % MOE_PART == 0)
			join_part<NC>(a, own, at, o, lane, start + MOE_KV_BLOCK >= end);
	}
}

size_t moe_attend_many_bytes(int head_dim)
{
	return sizeof(float) * ((size_t)tile_floats(head_dim) + (size_t)head_dim * QUERY_ROW + MOE_KV_BLOCK * QUERY_ROW);
}

cudaError_t moe_attend_many(const struct attend *a, int tiles, cudaStream_t stream)
{
	void (*kernel)(const struct attend a) = a->head_dim <= 64 ? many_kernel<1> : a->head_dim <= 128 ? many_kernel<2> : many_kernel<4>;
	size_t shared = moe_attend_many_bytes(a->head_dim);
	cudaError_t rc = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);

	return rc ? rc : MOE_LAUNCH(kernel, dim3((unsigned)tiles, (unsigned)a->kv_heads), THREADS, shared, stream, *a);
}
