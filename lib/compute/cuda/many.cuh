/* Products of many rows: codes and rows come to shared memory, and weights become operands in the registers of the warp that needs
 * them, so that those of coded matrices are never written anywhere.
 *
 * A block of the grid has 128 outputs (or 64 of gate and the same 64 of up) and 64 or 128 rows; a warp has 32 outputs and 64 rows.
 * Chunks are copied ahead of time, STAGES - 1 of them.
 *
 * Roof: 2 * outputs * columns * rows over the rate of mma.sync, which on sm_90 is about 0.6 of what its wgmma reaches.  By count, for
 * sm_90: a chunk of q4 is 64 products of a warp (m16n8k32, 6.5 clocks each of its quarter of a multiprocessor, some 420 in all) beside
 * about 700 other instructions (decoding, copies, and every 256 columns three for each sum), so instructions issued are what limits it, at
 * about half of that rate; a chunk of bf16 is as many products of 420 clocks beside 400.  Shared memory needs 300 clocks for
 * the four quarters together. */
#ifndef MOE_CUDA_MANY_CUH
#define MOE_CUDA_MANY_CUH

#include "forms.cuh"

static constexpr int MANY_OUTPUTS = 128, WARP_X = 64, WARP_NT = WARP_X / 8;
static constexpr float MAGIC = 12582912.0f;       /* 1.5 * 2^23: an integer below 2^22 added to its bits is added to the number */
static constexpr int32_t MAGIC_BITS = 0x4b400000;

/* A chunk in shared memory.  Pieces of 16 bytes of a row are exchanged (piece ^ swap(row)) so that a quarter of a warp, which reads
 * of two rows, meets all banks. */
static __device__ __forceinline__ int swap(int row) { return row & 1 ? 5 : 0; }

template <class F, int RW> struct stage;
template <int Q, int RW> struct stage<coded<Q>, RW> {
	unsigned char codes[2][coded<Q>::TILE_CHUNK];     /* of two tiles of 64 rows */
	unsigned char head[2][coded<Q>::HEAD + 2 * TILE]; /* and the scales */
	unsigned char x[WARP_X * RW][CHUNK];
	moe_cuda_codes block[WARP_X * RW];
};
template <int RW> struct stage<bf16, RW> {
	unsigned char rows[MANY_OUTPUTS][CHUNK];
	unsigned char x[WARP_X * RW][CHUNK];
};

/* What a thread copies, and where from: what changes from chunk to chunk are offsets that all threads share. */
template <class F, int RW> struct many_copier {
	static constexpr int THREADS = 128 * RW, X_STEP = THREADS / 8;
	const moe_cuda_product &p;
	const item it;
	int tid;
	int to;                      /* this thread's piece of row tid / 8, in shared memory */
	const unsigned char *x[4];   /* its piece of rows tid / 8 + k * X_STEP */
	const unsigned char *header; /* of row tid */
	const unsigned char *w[2];   /* coded: two tiles; bf16: its piece of the first of the first and the last 64 outputs */

	__device__ __forceinline__ many_copier(const moe_cuda_product &product)
		: p(product), it(find_item(product, WARP_X * RW, MANY_OUTPUTS / product.matrices)), tid(threadIdx.x),
		  to(tid / 8 * CHUNK + 16 * (tid % 8 ^ swap(tid / 8)))
	{
#pragma unroll
		for (int k = 0; k < 4; k++)
			x[k] = item_x(p, it, tid / 8 + k * X_STEP) + F::HEADER + 16 * (tid % 8);
		header = item_x(p, it, tid);
		w[0] = p.parts[it.part].w[0];
		w[1] = p.parts[it.part].w[p.matrices - 1];
		point(F());
	}

	/* A second tile that is not there is the last again, and goes nowhere. */
	template <int Q> __device__ __forceinline__ void point(coded<Q>)
	{
		const size_t bytes = (size_t)p.blocks * shape_of<F>(p.block).block;
		const int tile = it.out / TILE;

		w[0] += tile * bytes;
		w[1] += (p.matrices == 2 ? tile : min(tile + 1, (p.n - 1) / TILE)) * bytes;
	}

	__device__ __forceinline__ void point(bf16)
	{
		const size_t bytes = 2 * (size_t)p.cols;
		const int second = p.matrices == 2 ? it.out : min(it.out + TILE, p.n - 1);

		w[0] += it.out * bytes + 16 * (tid % 8);
		w[1] += second * bytes + 16 * (tid % 8);
	}

	/* Chunk c of block b. */
	__device__ __forceinline__ void copy(stage<F, RW> &s, int b, int c) const
	{
		const int block = b * (int)x_block_bytes<F>(p);

#pragma unroll
		for (int k = 0; k < 4; k++)
			moe_copy16(s.x[k * X_STEP] + to, x[k] + (block + c * CHUNK));
		copy_w(s, b, c, block);
	}

	template <int Q> __device__ __forceinline__ void copy_w(stage<coded<Q>, RW> &s, int b, int c, int x_block) const
	{
		const tile_shape shape = shape_of<F>(p.block);
		const int block = b * shape.block, head = Q == MOE_Q_Q4 ? 0 : c * F::HEAD;

		if (tid < WARP_X * RW)
			moe_copy16(&s.block[tid], header + x_block);
#pragma unroll
		for (int tile = 0; tile < 2; tile++)
#pragma unroll
			for (int at = tid; at < F::TILE_CHUNK / 16; at += THREADS)
				moe_copy16(s.codes[tile] + at / 16 * 256 + 16 * (at % 16 ^ 2 * (at / 16 / F::UNITS)),
				           w[tile] + (block + shape.head + c * F::TILE_CHUNK) + 16 * at);
		if (tid < 128) { /* 64 threads for each tile: its scales, its head */
			const int at = tid % 64;
			const unsigned char *from = (tid < 64 ? w[0] : w[1]) + block;
			unsigned char *own = s.head[tid / 64];

			if (at < 8)
				moe_copy16(own + F::HEAD + 16 * at, from + shape.block - 2 * TILE + 16 * at);
			else if (at - 8 < (Q == MOE_Q_Q4 ? shape.head : F::HEAD) / 16)
				moe_copy16(own + 16 * (at - 8), from + head + 16 * (at - 8));
		}
	}

	__device__ __forceinline__ void copy_w(stage<bf16, RW> &s, int b, int c, int) const
	{
		const int column = b * p.block + c * F::COLUMNS, there = column + 8 * (tid % 8) < p.cols;

#pragma unroll
		for (int k = 0; k < MANY_OUTPUTS / X_STEP; k++) {
			const int half = k * X_STEP / TILE, row = k * X_STEP % TILE + tid / 8;
			const int first = it.out + (p.matrices == 2 ? 0 : half * TILE);
			unsigned char *own = s.rows[k * X_STEP] + to;

			if (there)
				moe_copy16(own, w[half] + 2 * column + 2 * (size_t)p.cols * max(0, min(row, p.n - 1 - first)));
			else
				*(uint4 *)own = make_uint4(0, 0, 0, 0);
		}
	}
};

/* A warp's part of the work: 32 outputs, those from 32 * (w % 4) on, and 64 rows. */
template <class F, int RW> struct many_warp {
	const moe_cuda_product &p;
	int w, x, g, t;              /* quarter of the outputs; first row of x */
	int live;                    /* rows of x that are there, in eights */
	typename F::sum sum[WARP_NT][2][4]; /* of a block */
	float total[WARP_NT][2][4];

	__device__ __forceinline__ many_warp(const moe_cuda_product &product, const item &it)
		: p(product), w(threadIdx.x / 32 % 4), x(threadIdx.x / 128 * WARP_X), g(threadIdx.x % 32 / 4), t(threadIdx.x % 4),
		  live((it.rows + 7) / 8), total{}
	{
	}

	template <int Q> __device__ __forceinline__ void read(typename F::raw &r, const stage<coded<Q>, RW> &s, int c) const
	{
		lane_chunk at;

		at.w = s.codes[w / 2] + w % 2 * 128;
		at.one = p.block == CHUNK;
		at.head = s.head[w / 2] + w % 2 * (Q == MOE_Q_Q4 ? (at.one ? 64 : 128) : WARP_ROWS);
		at.chunk = Q == MOE_Q_Q4 ? c : 0;
		F::template load<true>(r, at, g, t);
	}

	__device__ __forceinline__ void read(typename F::raw &r, const stage<bf16, RW> &s, int) const
	{
#pragma unroll
		for (int h = 0; h < 2; h++)
#pragma unroll
			for (int i = 0; i < 4; i++) {
				const int row = WARP_ROWS * w + F::row(g, i);

				r.part[h][i] = *(const uint4 *)(s.rows[row] + 16 * (F::piece(t, h) ^ swap(row)));
			}
	}

	/* A block's sum begins, of coded matrices with what makes up for w + 128, as a number's bits. */
	template <int Q> __device__ __forceinline__ void begin(const stage<coded<Q>, RW> &s)
	{
#pragma unroll
		for (int nt = 0; nt < WARP_NT; nt++)
#pragma unroll
			for (int i = 0; i < 8; i++)
				sum[nt][i / 4][i % 4] = s.block[x + 8 * nt + 2 * t + i % 2].start + MAGIC_BITS;
	}

	__device__ __forceinline__ void begin(const stage<bf16, RW> &)
	{
#pragma unroll
		for (int nt = 0; nt < WARP_NT; nt++)
#pragma unroll
			for (int i = 0; i < 8; i++)
				sum[nt][i / 4][i % 4] = 0;
	}

	__device__ __forceinline__ void multiply(const stage<F, RW> &s, int c)
	{
		typename F::raw r;

		read(r, s, c);
#pragma unroll
		for (int h = 0; h < 2; h++) {
			uint32_t words[4][4];

			F::words(r, h, words);
#pragma unroll
			for (int nt = 0; nt < WARP_NT; nt++)
				if (RW > 1 || nt < live)
					multiply_half<F>(sum[nt], words, *(const uint4 *)(s.x[x + 8 * nt + g] + 16 * (F::piece(t, h) ^ swap(g))));
		}
	}

	/* A block's sum joins the total. */
	template <int Q> __device__ __forceinline__ void join(const stage<coded<Q>, RW> &s)
	{
		const uint2 bits = *(const uint2 *)(s.head[w / 2] + F::HEAD + w % 2 * 64 + 8 * g);
		const float scale[4] = {moe_bf16(bits.x & 0xffff), moe_bf16(bits.x >> 16), moe_bf16(bits.y & 0xffff), moe_bf16(bits.y >> 16)};

#pragma unroll
		for (int nt = 0; nt < WARP_NT; nt++)
#pragma unroll
			for (int i = 0; i < 8; i++) {
				const float v = __fsub_rn(__int_as_float(sum[nt][i / 4][i % 4]), MAGIC);
				const float d = __fmul_rn(scale[i / 2], s.block[x + 8 * nt + 2 * t + i % 2].scale);

				total[nt][i / 4][i % 4] = __fmaf_rn(v, d, total[nt][i / 4][i % 4]);
			}
	}

	__device__ __forceinline__ void join(const stage<bf16, RW> &)
	{
#pragma unroll
		for (int nt = 0; nt < WARP_NT; nt++)
#pragma unroll
			for (int i = 0; i < 8; i++)
				total[nt][i / 4][i % 4] = __fadd_rn(total[nt][i / 4][i % 4], sum[nt][i / 4][i % 4]);
	}

	/* The warps of up's outputs hand their totals to those of gate's.  Memory: 64 floats for each of their lanes. */
	__device__ __forceinline__ void gate(float *shared)
	{
		float *own = shared + ((x / WARP_X * 2 + w % 2) * 64) * 32 + threadIdx.x % 32;

		__syncthreads();
		if (w >= 2)
#pragma unroll
			for (int i = 0; i < 64; i++)
				own[32 * i] = total[i / 8][i / 4 % 2][i % 4];
		__syncthreads();
		if (w < 2)
#pragma unroll
			for (int i = 0; i < 64; i++)
				total[i / 8][i / 4 % 2][i % 4] = gated(total[i / 8][i / 4 % 2][i % 4], own[32 * i]);
	}

	__device__ __forceinline__ void put(const item &it) const
	{
		const size_t pair = p.parts[it.part].first + it.row;

		if (p.matrices == 2 && w >= 2)
			return;
#pragma unroll
		for (int nt = 0; nt < WARP_NT; nt++)
#pragma unroll
			for (int i = 0; i < 8; i++) {
				const int row = x + 8 * nt + 2 * t + i % 2, out = it.out + WARP_ROWS * w + F::row(g, i / 2);

				if (row < it.rows && out < p.n)
					put_output(p, pair + row, out, total[nt][i / 4][i % 4]);
			}
	}
};

template <class F, int RW, int STAGES>
static __global__ void __launch_bounds__(128 * RW) many(const __grid_constant__ moe_cuda_product p)
{
	typedef stage<F, RW> stage_of_form;
	MOE_DYNAMIC_SHARED(stage_of_form, stages);
	const many_copier<F, RW> copier(p);
	many_warp<F, RW> warp(p, copier.it);
	const int bits = p.block / F::COLUMNS / 2, last = (1 << bits) - 1; /* chunks of a block: 1, 2 or 4 */
	const int chunks = F::CODED ? p.blocks << bits : (p.cols + F::COLUMNS - 1) / F::COLUMNS;

	for (int j = 0; j < STAGES - 1; j++) {
		if (j < chunks)
			copier.copy(stages[j], j >> bits, j & last);
		moe_copy_commit();
	}
	for (int j = 0, at = 0; j < chunks; j++, at = at + 1 == STAGES ? 0 : at + 1) {
		const int ahead = j + STAGES - 1;

		moe_copy_wait<STAGES - 2>();
		__syncthreads();
		if (ahead < chunks)
			copier.copy(stages[at == 0 ? STAGES - 1 : at - 1], ahead >> bits, ahead & last);
		moe_copy_commit();
		if ((j & last) == 0)
			warp.begin(stages[at]);
		warp.multiply(stages[at], j & last);
		if ((j & last) == last || j == chunks - 1)
			warp.join(stages[at]);
	}
	if (p.matrices == 2)
		warp.gate((float *)stages);
	warp.put(copier.it);
}

#endif
