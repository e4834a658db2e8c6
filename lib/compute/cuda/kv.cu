/* Storing keys and values: narrowed, keys turned over so that the positions of a block lie side by side.
 *
 * 8 bytes are read for every 2 to 8 that are written.  A block of threads takes the rows that go to one block of 64 positions, of one
 * head, keys or values, and passes them through shared memory, so that it reads and writes neighbours.  A single row of keys, when a
 * sequence generates, is written with gaps that nothing can be done about: 32 bytes touched for each element. */
#include <stdlib.h>

#include "kernel.h"
#include "private.h"
#include "ptx.h"

enum { THREADS = 128, WIDTH = 32 /* elements that pass at a time */ };

/* Rows [row, row + n) of k and v go to positions at, at + 1 ... of a block. */
struct run {
	int row, n, block, at;
};
struct store {
	unsigned char *base;
	size_t stride, head_bytes;
	const float *x[2];           /* keys, values */
	const struct run *runs;
	int type, kv_heads, head_dim;
};

/* The bits of one scale for all: greatest / 127 rounded up to a bf16, so that no code passes 127.  NaN if an element is. */
static __device__ uint32_t q8_scale(const float *x, int n, int lane)
{
	uint32_t top = 0; /* magnitudes compare as their bits do, and NaN is above all */

	for (int i = lane; i < n; i += MOE_WARP) {
		uint32_t bits = __float_as_uint(x[i]) & 0x7fffffffu;

		top = bits > top ? bits : top;
	}
	for (int i = 16; i > 0; i /= 2) {
		uint32_t other = __shfl_xor_sync(MOE_ALL_LANES, top, i);

		top = other > top ? other : top;
	}
	if (top > 0x7f800000u)
		return 0x7fc0;
	top = top == 0x7f800000u ? 0x7f7fffffu : top;
	return (__float_as_uint(__uint_as_float(top) / 127.0f) + 0xffff) >> 16;
}

/* x / scale as a whole number from -127 to 127, to nearest even; 0 where there is no such number. */
static __device__ __forceinline__ int q8_code(float x, float scale)
{
	float q = x / scale;

	q = q < -127.0f ? -127.0f : q > 127.0f ? 127.0f : q;
	return q == q ? __float_as_int(q + 0x1.8p+23f) - 0x4b400000 : 0; /* the sum leaves an integer in the low bits */
}

static __device__ __forceinline__ uint32_t bf16_of(uint32_t bits)
{
	return (bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static __device__ __forceinline__ void put(unsigned char *to, size_t i, int type, float x, float scale)
{
	switch (type) {
	case MOE_KV_F16: ((uint16_t *)to)[i] = moe_f16_of(x < -65504.0f ? -65504.0f : x > 65504.0f ? 65504.0f : x); break;
	case MOE_KV_BF16: ((uint16_t *)to)[i] = (uint16_t)bf16_of(__float_as_uint(x)); break;
	case MOE_KV_Q8: to[i] = (unsigned char)q8_code(x, scale); break;
	default: ((float *)to)[i] = x;
	}
}

static __global__ void kv_store_kernel(const struct store m)
{
	__shared__ float tile[MOE_KV_BLOCK][WIDTH + 1], scale[MOE_KV_BLOCK];
	const struct run r = m.runs[blockIdx.x];
	int head = blockIdx.y, values = blockIdx.z, lane = threadIdx.x % MOE_WARP, warp = threadIdx.x / MOE_WARP, dim = m.head_dim;
	const float *x = m.x[values] + ((size_t)r.row * m.kv_heads + head) * dim;
	unsigned char *to = m.base + (size_t)r.block * m.stride + (values * m.kv_heads + head) * m.head_bytes;
	size_t step = (size_t)m.kv_heads * dim;

	for (int j = warp; m.type == MOE_KV_Q8 && j < r.n; j += THREADS / MOE_WARP) {
		uint32_t bits = q8_scale(x + j * step, dim, lane);

		if (lane == 0) {
			((uint16_t *)(to + (size_t)MOE_KV_BLOCK * dim))[r.at + j] = (uint16_t)bits;
			scale[j] = moe_bf16(bits);
		}
	}
	for (int first = 0; first < dim; first += WIDTH) {
		int width = min(WIDTH, dim - first);

		__syncthreads();
		for (int j = warp; j < r.n; j += THREADS / MOE_WARP)
			if (lane < width)
				tile[j][lane] = x[j * step + first + lane];
		__syncthreads();
		for (int i = threadIdx.x; i < width * r.n; i += THREADS) {
			int j = values ? i / width : i % r.n, d = values ? i % width : i / r.n;
			size_t at = values ? (size_t)(r.at + j) * dim + first + d : (size_t)(first + d) * MOE_KV_BLOCK + r.at + j;

			put(to, at, m.type, tile[j][d], m.type == MOE_KV_Q8 ? scale[j] : 0.0f);
		}
	}
}

static size_t count_runs(const struct moe_attn_seq *seqs, int n_seqs, struct run *out)
{
	size_t n = 0;

	for (int i = 0; i < n_seqs; i++)
		for (int row = 0, take; row < seqs[i].rows; row += take, n++) {
			int pos = seqs[i].pos + row, at = pos % MOE_KV_BLOCK;

			take = seqs[i].rows - row < MOE_KV_BLOCK - at ? seqs[i].rows - row : MOE_KV_BLOCK - at;
			if (out)
				out[n] = {seqs[i].row + row, take, seqs[i].blocks[pos / MOE_KV_BLOCK], at};
		}
	return n;
}

extern "C" int moe_cuda_kv_store(struct moe_backend *b, struct moe_stream_q *q, struct moe_kv_view kv, const float *k, const float *v,
                                 const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a, struct moe_err *e)
{
	struct moe_cuda *c = moe_cuda(b);
	size_t n = count_runs(seqs, n_seqs, NULL);
	struct moe_staged s = {NULL, n * sizeof(struct run), NULL};
	struct store m = {kv.base, kv.stride, MOE_KV_BLOCK * moe_kv_vector_bytes(kv.type, a->head_dim), {k, v}, NULL, (int)kv.type,
	                  a->kv_heads, a->head_dim};
	struct run *runs;
	int rc = moe_cuda_begin(c, &q, "kv_store", e);

	if (rc || n == 0)
		return rc;
	runs = (struct run *)moe_calloc(n, sizeof *runs, "rows to store", e);
	if (!runs)
		return MOE_E_NOMEM;
	count_runs(seqs, n_seqs, runs);
	s.host = runs;
	rc = moe_cuda_stage(c, q, &s, 1, e);
	free(runs);
	if (rc)
		return rc;
	m.runs = (const struct run *)s.device;
	return moe_cuda_check(c, MOE_LAUNCH(kv_store_kernel, dim3((unsigned)n, (unsigned)a->kv_heads, 2), THREADS, 0, q->s, m), "kv_store", e);
}
