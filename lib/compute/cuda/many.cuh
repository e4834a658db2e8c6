/* Products of many rows: codes and rows come to shared memory, and weights become operands in the registers of the warp that needs
 * them, so that those of coded matrices are never written anywhere.
 *
 * A block of the grid has 128 outputs (or 64 of gate and the same 64 of up) and 64 or 128 rows; a warp has 32 outputs and 64 rows.
 * Chunks are copied ahead of time, STAGES - 1 of them.
 *
 * Roof: 2 * outputs * columns * rows over the rate of mma.sync, which on sm_90 is about 0.6 of what its wgmma reaches.  A chunk
 * of q4 is 64 products of a warp (m16n8k32, some 6.5 clocks each of its quarter of a multiprocessor, 420 in all) beside about
 * 250 other instructions and, for the four quarters together, 300 clocks of shared memory. */
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

/* What a thread copies, and where from. */
template <class F, int RW> struct many_copier {
	static constexpr int THREADS = 128 * RW, X_STEP = THREADS / 8;
	const moe_cuda_product &p;
	const item it;
	const unsigned char *x[4];   /* rows tid / 8 + k * X_STEP */
	const unsigned char *header; /* of row tid */
	const unsigned char *w[2];   /* coded: two tiles; bf16: the matrices of the first and the last 64 outputs */
	int tid;

	__device__ __forceinline__ many_copier(const moe_cuda_product &product)
		: p(product), it(find_item(product, WARP_X * RW, MANY_OUTPUTS / product.matrices)), tid(threadIdx.x)
	{
		const moe_cuda_part &part = p.parts[it.part];
		const int tile = it.out / TILE, last = (p.n - 1) / TILE;

#pragma unroll
		for (int k = 0; k < 4; k++)
			x[k] = item_x(p, it, tid / 8 + k * X_STEP);
		header = item_x(p, it, tid);
		w[0] = part.w[0];
		w[1] = part.w[p.matrices - 1];
		if (F::CODED) { /* a second tile that is not there is the first again, and goes nowhere */
			const size_t bytes = (size_t)p.blocks * tile_bytes(F());

			w[0] += tile * bytes;
			w[1] += (p.matrices == 2 ? tile : min(tile + 1, last)) * bytes;
		}
	}

	template <int Q> __device__ __forceinline__ int tile_bytes(coded<Q>) const { return shape_of<F>(p.block).block; }
	__device__ __forceinline__ int tile_bytes(bf16) const { return 0; }

	/* Chunk c of block b. */
	__device__ __forceinline__ void copy(stage<F, RW> &s, int b, int c) const
	{
		const size_t at = b * x_block_bytes<F>(p) + F::HEADER + c * CHUNK;

#pragma unroll
		for (int k = 0; k < 4; k++) {
			const int row = tid / 8 + k * X_STEP;

			moe_copy16(s.x[row] + 16 * (tid % 8 ^ swap(row)), x[k] + at + 16 * (tid % 8));
		}
		copy_w(s, b, c);
	}

	template <int Q> __device__ __forceinline__ void copy_w(stage<coded<Q>, RW> &s, int b, int c) const
	{
		const tile_shape shape = shape_of<F>(p.block);

		if (tid < WARP_X * RW)
			moe_copy16(&s.block[tid], header + b * x_block_bytes<F>(p));
		for (int i = tid; i < 2 * F::TILE_CHUNK / 16; i += THREADS) {
			const int tile = i / (F::TILE_CHUNK / 16), at = i % (F::TILE_CHUNK / 16), unit = at / 16, lane = unit / F::UNITS;

			moe_copy16(s.codes[tile] + unit * 256 + 16 * (at % 16 ^ 2 * lane),
			           (tile ? w[1] : w[0]) + (size_t)b * shape.block + shape.head + c * F::TILE_CHUNK + 16 * at);
		}
		copy_heads(s, b, c, shape);
	}

	template <int Q>
	__device__ __forceinline__ void copy_heads(stage<coded<Q>, RW> &s, int b, int c, const tile_shape &shape) const
	{
		const int head = Q == MOE_Q_Q4 ? shape.head : F::HEAD, pieces = head / 16 + 8;

		for (int i = tid; i < 2 * pieces; i += THREADS) {
			const int tile = i / pieces, at = i % pieces;
			const unsigned char *block = (tile ? w[1] : w[0]) + (size_t)b * shape.block;

			if (at < 8)
				moe_copy16(s.head[tile] + F::HEAD + 16 * at, block + shape.block - 2 * TILE + 16 * at);
			else
				moe_copy16(s.head[tile] + 16 * (at - 8), block + (Q == MOE_Q_Q4 ? 0 : c * F::HEAD) + 16 * (at - 8));
		}
	}

	__device__ __forceinline__ void copy_w(stage<bf16, RW> &s, int b, int c) const
	{
		const int column = b * p.block + c * F::COLUMNS + 8 * (tid % 8);

#pragma unroll
		for (int row = tid / 8; row < MANY_OUTPUTS; row += X_STEP) {
			const int out = min(it.out + (p.matrices == 2 ? row % TILE : row), p.n - 1);
			unsigned char *to = s.rows[row] + 16 * (tid % 8 ^ swap(row));

			if (column < p.cols)
				moe_copy16(to, (row < TILE ? w[0] : w[1]) + 2 * ((size_t)out * p.cols + column));
			else
				*(uint4 *)to = make_uint4(0, 0, 0, 0);
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
