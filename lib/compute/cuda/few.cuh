/* Products of few rows: weights are read once, as fast as memory gives them.
 *
 * A block of the grid has 32 outputs and 8 or 16 rows.  Its 8 warps take the blocks of columns in turn and sum up one each; what
 * comes out meets in shared memory and joins the totals in the order of the blocks.  So even a matrix of few rows keeps all
 * multiprocessors busy, and the sum's order is the one of doc/numerics.md.
 *
 * Roof: bytes of weights over bandwidth.  Each lane has up to DEPTH chunks of weights under way: 8 warps with 4 to 8 KiB each, two
 * blocks on a multiprocessor, are 64 to 128 KiB; 4.8 TB/s times 800 ns is 29 KiB for each of 132.  A chunk of q4, 2 KiB, takes
 * a warp about 120 instructions; at 4.8 TB/s one arrives at a multiprocessor every 100 clocks, in which it issues 400. */
#ifndef MOE_CUDA_FEW_CUH
#define MOE_CUDA_FEW_CUH

#include "forms.cuh"

static constexpr int FEW_WARPS = 8, FEW_LD = WARP_ROWS + 4; /* so that stores of 16 bytes meet all banks */

/* What 8 blocks of columns have summed up, [block][row of x][output], and their scales. */
template <class F, int NT> struct few_sums {
	typename F::sum sum[FEW_WARPS][8 * NT][FEW_LD];
	float w_scale[FEW_WARPS][WARP_ROWS];
	moe_cuda_codes x[FEW_WARPS][8 * NT];
};

/* A lane of a warp, and the chunks that its warp goes through: of a block of columns of one matrix all, then of the same block
 * of the other matrix, then of the block that is 8 further. */
template <class F> struct few_lane {
	const moe_cuda_product &p;
	const item it;
	int warp, g, t;
	int chunk_bits, matrix_bits; /* chunks of a block, and matrices, are powers of two */

	__device__ __forceinline__ few_lane(const moe_cuda_product &product, int rows)
		: p(product), it(find_item(product, rows, WARP_ROWS)), warp(threadIdx.x / 32), g(threadIdx.x % 32 / 4), t(threadIdx.x % 4),
		  chunk_bits(product.block / F::COLUMNS / 2), matrix_bits(product.matrices - 1)
	{
		/* 1, 2 and 4 chunks: 0, 1, 2 */
	}

	__device__ __forceinline__ int chunks() const { return ((p.blocks + FEW_WARPS - 1) / FEW_WARPS) << (chunk_bits + matrix_bits); }
	__device__ __forceinline__ int chunk_of(int j) const { return j & ((1 << chunk_bits) - 1); }
	__device__ __forceinline__ int matrix_of(int j) const { return j >> chunk_bits & matrix_bits; }
	__device__ __forceinline__ int first_block(int j) const { return (j >> (chunk_bits + matrix_bits)) * FEW_WARPS; }
	__device__ __forceinline__ int column_of(int j) const { return (first_block(j) + warp) * p.block + chunk_of(j) * F::COLUMNS; }
	/* Warps that a last round has no block for, and chunks behind the last column. */
	__device__ __forceinline__ bool has(int j) const { return column_of(j) < p.cols; }

	__device__ __forceinline__ size_t x_block(int j) const { return (first_block(j) + warp) * x_block_bytes<F>(p); }

	__device__ __forceinline__ void load(typename F::raw &r, int j) const
	{
		if (has(j))
			read(r, p.parts[it.part].w[matrix_of(j)], j, F());
	}

	template <int Q> __device__ __forceinline__ void read(typename F::raw &r, const unsigned char *w, int j, coded<Q>) const
	{
		const tile_shape s = shape_of<F>(p.block);
		const unsigned char *block = w + ((size_t)(it.out / TILE) * p.blocks + first_block(j) + warp) * s.block;
		const int half = it.out / WARP_ROWS % 2;
		lane_chunk at;

		at.w = block + s.head + chunk_of(j) * F::TILE_CHUNK + half * 128;
		at.head = block + half * (Q == MOE_Q_Q4 ? s.head / 2 : WARP_ROWS);
		at.chunk = chunk_of(j);
		at.one = chunk_bits == 0;
		F::template load<false>(r, at, g, t);
		r.scale = *(const uint16_t *)(block + s.block - 2 * TILE + 2 * (half * WARP_ROWS + 4 * g + t));
	}

	__device__ __forceinline__ void read(typename F::raw &r, const unsigned char *w, int j, bf16) const
	{
		const int column = column_of(j) + 8 * t;

#pragma unroll
		for (int h = 0; h < 2; h++)
#pragma unroll
			for (int i = 0; i < 4; i++) {
				const int row = min(it.out + F::row(g, i), p.n - 1);

				r.part[h][i] = make_uint4(0, 0, 0, 0);
				if (column + 32 * h < p.cols)
					r.part[h][i] = read16<false>(w + 2 * ((size_t)row * p.cols + column + 32 * h));
			}
	}
};

/* A chunk of weights times the rows of x that begin at x[..] + at. */
template <class F, int NT>
static __device__ __forceinline__ void few_multiply(typename F::sum c[NT][2][4], const typename F::raw &r,
                                                    const unsigned char *const x[NT], size_t at, int t)
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		uint32_t words[4][4];

		F::words(r, h, words);
#pragma unroll
		for (int nt = 0; nt < NT; nt++)
			multiply_half<F>(c[nt], words, *(const uint4 *)(x[nt] + at + 16 * F::piece(t, h)));
	}
}

/* A warp's sums of a block to shared memory. */
template <class F, int NT>
static __device__ __forceinline__ void few_put(few_sums<F, NT> &to, const few_lane<F> &lane, const typename F::sum c[NT][2][4])
{
#pragma unroll
	for (int nt = 0; nt < NT; nt++)
#pragma unroll
		for (int i = 0; i < 2; i++) {
			typename F::sum *row = to.sum[lane.warp][8 * nt + 2 * lane.t + i];

			if (F::CODED) /* four outputs side by side */
				*(int4 *)&row[4 * lane.g] = make_int4((int)c[nt][0][i], (int)c[nt][0][2 + i], (int)c[nt][1][i], (int)c[nt][1][2 + i]);
			else
#pragma unroll
				for (int r = 0; r < 4; r++)
					row[F::row(lane.g, r)] = c[nt][r / 2][r % 2 * 2 + i];
		}
}

/* Of a coded matrix the block's scales, too. */
template <class F, int NT>
static __device__ __forceinline__ void few_put_scales(few_sums<F, NT> &to, const few_lane<F> &lane, const typename F::raw &r, int j)
{
	const int i = threadIdx.x % 32;

	to.w_scale[lane.warp][4 * lane.g + lane.t] = moe_bf16(r.scale);
	if (i < 8 * NT)
		to.x[lane.warp][i] = *(const moe_cuda_codes *)(item_x(lane.p, lane.it, i) + lane.x_block(j));
}

/* The sums of up to 8 blocks join the total of an output. */
template <class F, int NT>
static __device__ __forceinline__ float few_join(const few_sums<F, NT> &s, int blocks, int row, int out, float total)
{
	for (int b = 0; b < blocks; b++) {
		const moe_cuda_codes &x = s.x[b][row];

		if (F::CODED)
			total = __fmaf_rn((float)((int)s.sum[b][row][out] + x.start), __fmul_rn(s.w_scale[b][out], x.scale), total);
		else
			total = __fadd_rn(total, s.sum[b][row][out]);
	}
	return total;
}

/* Totals of output `lane` of 32 and rows warp, warp + 8. */
template <int NT> struct few_totals {
	float gate[NT], y[NT];       /* with one matrix y only */
};

template <class F, int NT>
static __device__ __forceinline__ void few_join_all(few_totals<NT> &to, const few_sums<F, NT> &s, const few_lane<F> &lane, int j)
{
	const bool gate = lane.matrix_of(j) < lane.matrix_bits;
	const int blocks = min(FEW_WARPS, lane.p.blocks - lane.first_block(j));

#pragma unroll
	for (int nt = 0; nt < NT; nt++) {
		const float v = few_join(s, blocks, 8 * nt + lane.warp, threadIdx.x % 32, gate ? to.gate[nt] : to.y[nt]);

		to.gate[nt] = gate ? v : to.gate[nt];
		to.y[nt] = gate ? to.y[nt] : v;
	}
}

template <class F, int NT> static __global__ void __launch_bounds__(32 * FEW_WARPS, 2) few(const __grid_constant__ moe_cuda_product p)
{
	typedef few_sums<F, NT> sums_of_blocks;
	MOE_DYNAMIC_SHARED(sums_of_blocks, shared);          /* two, in turn: one is filled while the other is read */
	const few_lane<F> lane(p, 8 * NT);
	const unsigned char *x[NT];
	typename F::raw ring[F::DEPTH];
	typename F::sum c[NT][2][4] = {};
	few_totals<NT> totals = {};

#pragma unroll
	for (int nt = 0; nt < NT; nt++)
		x[nt] = item_x(p, lane.it, 8 * nt + lane.g);
#pragma unroll
	for (int d = 0; d < F::DEPTH; d++)
		lane.load(ring[d], d);
	for (int j0 = 0; j0 < lane.chunks(); j0 += F::DEPTH)
#pragma unroll
		for (int d = 0; d < F::DEPTH; d++) {
			const int j = j0 + d, chunk = lane.chunk_of(j);
			sums_of_blocks &sums = shared[j >> lane.chunk_bits & 1];
			const bool ends = chunk == (1 << lane.chunk_bits) - 1;

			if (j >= lane.chunks())
				break;
			if (lane.has(j))
				few_multiply<F, NT>(c, ring[d], x, lane.x_block(j) + F::HEADER + chunk * CHUNK, lane.t);
			if (F::CODED && ends && lane.has(j))
				few_put_scales(sums, lane, ring[d], j);
			lane.load(ring[d], j + F::DEPTH);
			if (!ends)
				continue;
			few_put<F, NT>(sums, lane, c);
			__syncthreads();
			few_join_all(totals, sums, lane, j);
#pragma unroll
			for (int i = 0; i < 8 * NT; i++)
				c[i / 8][i / 4 % 2][i % 4] = 0;
		}
#pragma unroll
	for (int nt = 0; nt < NT; nt++) {
		const int row = 8 * nt + lane.warp, out = lane.it.out + threadIdx.x % 32;

		if (row < lane.it.rows && out < p.n)
			put_output(p, p.parts[lane.it.part].first + lane.it.row + row, out,
			           p.matrices == 2 ? gated(totals.gate[nt], totals.y[nt]) : totals.y[nt]);
	}
}

#endif
