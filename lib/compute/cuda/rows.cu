/* Rows as products take them: quantised to int8 in blocks, or rounded to bf16; and what else is done to them on the way. */
#include <float.h>

#include "forms.cuh"
#include "rows.h"

static constexpr int THREADS = 256, WARPS = THREADS / MOE_WARP;

static unsigned blocks_for(size_t n, size_t each)
{
	return (unsigned)((n + each - 1) / each);
}

/* ---- int8 ---- */

/* The bits of the greatest |x|; of a NaN or an infinity if there is one: as integers they are greater than all. */
static __device__ uint32_t greatest(const float v[8])
{
	uint32_t most = 0;

	for (int i = 0; i < 8; i++) {
		const uint32_t bits = __float_as_uint(v[i]) & 0x7fffffffu;

		most = bits > most ? bits : most;
	}
	for (int lane = 16; lane > 0; lane /= 2) {
		const uint32_t other = __shfl_xor_sync(MOE_ALL_LANES, most, lane);

		most = other > most ? other : most;
	}
	return most;
}

/* A warp has a block of 256 or 128 columns, a lane 8 or 4 of them. */
static __global__ void __launch_bounds__(THREADS) quantise(unsigned char *to, size_t ldx, const float *x, size_t n, int cols, int block)
{
	const int blocks = (cols + block - 1) / block, each = block / MOE_WARP, lane = threadIdx.x % MOE_WARP;
	const size_t number = (size_t)blockIdx.x * WARPS + threadIdx.x / MOE_WARP, row = number / blocks;
	const int b = (int)(number % blocks), from = b * block + lane * each;
	moe_cuda_codes header = {0, 0, {0, 0}};
	uint32_t codes[2] = {0, 0};
	float v[8] = {};
	int sum = 0;

	if (row >= n)
		return;
	for (int i = 0; i < 8; i++)
		if (i < each && from + i < cols)
			v[i] = x[row * cols + from + i];
	const uint32_t most = greatest(v);
	const float m = __uint_as_float(most), inverse = __fdiv_rn(127.0f, m);

	if (most >= 0x7f800000u)
		header.scale = __uint_as_float(0x7fc00000u);
	else if (inverse <= FLT_MAX) {
		header.scale = __fdiv_rn(m, 127.0f);
		for (int i = 0; i < 8; i++) {
			const int code = __float2int_rn(__fmul_rn(v[i], inverse));

			codes[i / 4] |= (uint32_t)(code & 255) << 8 * (i % 4);
			sum += code;
		}
	}
	for (int i = 16; i > 0; i /= 2)
		sum += __shfl_xor_sync(MOE_ALL_LANES, sum, i);
	header.start = -128 * sum;
	to += row * ldx + (size_t)b * (sizeof header + block);
	if (lane == 0)
		*(moe_cuda_codes *)to = header;
	to += sizeof header + lane * each;
	*(uint32_t *)to = codes[0];
	if (each == 8)
		*(uint32_t *)(to + 4) = codes[1];
}

size_t moe_cuda_coded_row(int64_t cols, int block)
{
	return (size_t)((cols + block - 1) / block) * (sizeof(moe_cuda_codes) + (size_t)block);
}

cudaError_t moe_cuda_quantise(unsigned char *to, const float *x, size_t rows, int64_t cols, int block, cudaStream_t stream)
{
	const size_t blocks = (size_t)((cols + block - 1) / block);

	return MOE_LAUNCH(quantise, blocks_for(rows * blocks, WARPS), THREADS, 0, stream, to, moe_cuda_coded_row(cols, block), x, rows,
	                  (int)cols, block);
}

/* ---- bf16 ---- */

/* To nearest even; NaN stays NaN. */
static __device__ __forceinline__ uint32_t rounded(float x)
{
	const uint32_t f = __float_as_uint(x);

	return (f & 0x7fffffffu) > 0x7f800000u ? f >> 16 | 0x40 : (f + 0x7fff + (f >> 16 & 1)) >> 16;
}

/* Two columns a thread. */
static __global__ void __launch_bounds__(THREADS) round_rows(uint32_t *to, const float *x, size_t n, int cols, int padded)
{
	const size_t number = (size_t)blockIdx.x * THREADS + threadIdx.x, row = number / (padded / 2);
	const int column = (int)(number % (padded / 2)) * 2;
	uint32_t pair = 0;

	if (row >= n)
		return;
	x += row * cols;
	if (column < cols)
		pair = rounded(x[column]);
	if (column + 1 < cols)
		pair |= rounded(x[column + 1]) << 16;
	to[number] = pair;
}

size_t moe_cuda_bf16_row(int64_t cols)
{
	return (size_t)((2 * cols + MOE_CUDA_CHUNK_BYTES - 1) / MOE_CUDA_CHUNK_BYTES) * MOE_CUDA_CHUNK_BYTES;
}

cudaError_t moe_cuda_round(unsigned char *to, const float *x, size_t rows, int64_t cols, cudaStream_t stream)
{
	const size_t pairs = moe_cuda_bf16_row(cols) / 4;

	return MOE_LAUNCH(round_rows, blocks_for(rows * pairs, THREADS), THREADS, 0, stream, (uint32_t *)to, x, rows, (int)cols,
	                  (int)(2 * pairs));
}

/* ---- others ---- */

static __global__ void __launch_bounds__(THREADS) gate_up(float *y, const float *up, size_t n)
{
	const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;

	if (i < n)
		y[i] = gated(y[i], up[i]);
}

cudaError_t moe_cuda_gate_up(float *y, const float *up, size_t n, cudaStream_t stream)
{
	return MOE_LAUNCH(gate_up, blocks_for(n, THREADS), THREADS, 0, stream, y, up, n);
}

/* A byte a thread: who needs this is rare. */
static __global__ void __launch_bounds__(THREADS)
	spread_rows(unsigned char *to, const unsigned char *from, size_t rows, size_t n, size_t padded)
{
	const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x, row = i / padded, at = i % padded;

	if (row < rows)
		to[i] = at < n ? from[row * n + at] : 0;
}

cudaError_t moe_cuda_spread(void *to, const void *from, size_t rows, size_t bytes, size_t padded, cudaStream_t stream)
{
	return MOE_LAUNCH(spread_rows, blocks_for(rows * padded, THREADS), THREADS, 0, stream, (unsigned char *)to,
	                  (const unsigned char *)from, rows, bytes, padded);
}
