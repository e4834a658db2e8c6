/* Products with f32, in the order of doc/numerics.md: 16 lanes, segments of 256 columns, a tree. */
#include "weights.cuh"

static constexpr int SEGMENT = 256, LANES = 16;

/* ---- few rows ----
 *
 * A warp has 16 outputs and a segment; a thread of it an output and 8 of the 16 lanes: so it reads 16 bytes of bf16 at a time, its
 * pair 32 side by side, and what of a row's 128 bytes is left over the next loads need at once.  Roof: bytes of weights over
 * bandwidth; 8 loads a thread are under way, 32 KiB a block of 8 warps, of which
 * a multiprocessor has two. */

static constexpr int FEW_WARPS = 8, FEW_ROWS = 16;

template <int C> struct few_shared {
	float sum[FEW_WARPS][C][FEW_ROWS];
};

/* Sums of the 16 lanes, of which a thread has 8 and its neighbour the others. */
static __device__ __forceinline__ float tree(const float acc[8])
{
	float v[8];

#pragma unroll
	for (int i = 0; i < 8; i++)
		v[i] = __fadd_rn(acc[i], __shfl_xor_sync(MOE_ALL_LANES, acc[i], 1));
#pragma unroll
	for (int n = 4; n > 0; n /= 2)
#pragma unroll
		for (int i = 0; i < n; i++)
			v[i] = __fadd_rn(v[i], v[i + n]);
	return v[0];
}

/* READS steps of 16 columns; a thread's 8 of the first begin at `column`. */
template <int Q, int C, int READS, bool WHOLE>
static __device__ __forceinline__ void add_steps(float acc[C][8], const moe_cuda_product &p, const unsigned char *w, int out,
                                                 const unsigned char *const x[C], int column)
{
	eight<Q> v[READS];

#pragma unroll
	for (int s = 0; s < READS; s++)
		read_eight<Q, WHOLE>(v[s], p, w, out, column + s * LANES);
#pragma unroll
	for (int s = 0; s < READS; s++)
#pragma unroll
		for (int c = 0; c < C; c++) {
			float values[8];

			read_x<Q, WHOLE, 8>(values, p, x[c], column + s * LANES);
#pragma unroll
			for (int i = 0; i < 8; i++)
				acc[c][i] = __fmaf_rn(v[s].at(i), values[i], acc[c][i]);
		}
}

/* Of a segment that begins at `from` the 8 columns of each 16 that begin at 8 * half. */
template <int Q, int C>
static __device__ __forceinline__ void add_segment(float acc[C][8], const moe_cuda_product &p, const unsigned char *w, int out,
                                                   const unsigned char *const x[C], int from, int half)
{
	constexpr int READS = Q == MOE_Q_F32 ? 4 : 8;
	const int columns = min(SEGMENT, p.cols - from), steps = (columns + LANES - 1) / LANES;
	int s = 0;

	if (Q != Q_ANY)
#pragma unroll 1
		for (; (s + READS) * LANES <= columns; s += READS)
			add_steps<Q, C, READS, true>(acc, p, w, out, x, from + s * LANES + 8 * half);
#pragma unroll 1
	for (; s < steps; s++)
		add_steps<Q, C, 1, false>(acc, p, w, out, x, from + s * LANES + 8 * half);
}

template <int C>
static __device__ __forceinline__ void add_any(float acc[C][8], const moe_cuda_product &p, const unsigned char *w, int out,
                                               const unsigned char *const x[C], int from, int half)
{
	switch (quant_of(p)) {
	case MOE_Q_BF16: add_segment<MOE_Q_BF16, C>(acc, p, w, out, x, from, half); break;
	case MOE_Q_F16: add_segment<MOE_Q_F16, C>(acc, p, w, out, x, from, half); break;
	case MOE_Q_F32: add_segment<MOE_Q_F32, C>(acc, p, w, out, x, from, half); break;
	default: add_segment<Q_ANY, C>(acc, p, w, out, x, from, half); break;
	}
}

template <int C> static __global__ void __launch_bounds__(32 * FEW_WARPS, 2) few_f32(const __grid_constant__ moe_cuda_product p)
{
	typedef few_shared<C> sums;
	MOE_DYNAMIC_SHARED(sums, shared);                    /* two, in turn */
	const item it = find_item(p, C, FEW_ROWS);
	const unsigned char *w = p.parts[it.part].w[0], *x[C];
	const int warp = threadIdx.x / 32, own = threadIdx.x % 32 / 2, half = threadIdx.x % 2;
	const int out = threadIdx.x % FEW_ROWS, row = threadIdx.x / FEW_ROWS; /* whose total this thread has */
	float total = 0;

#pragma unroll
	for (int c = 0; c < C; c++)
		x[c] = item_x(p, it, c);
	for (int b = 0, turn = 0; b < p.blocks; b += FEW_WARPS, turn ^= 1) {
		float acc[C][8] = {};

		if (b + warp < p.blocks)
			add_any<C>(acc, p, w, min(it.out + own, p.n - 1), x, (b + warp) * SEGMENT, half);
#pragma unroll
		for (int c = 0; c < C; c++)
			shared[turn].sum[warp][c][own] = tree(acc[c]);
		__syncthreads();
		for (int i = 0; i < FEW_WARPS && b + i < p.blocks && row < C; i++)
			total = __fadd_rn(total, shared[turn].sum[i][row][out]);
	}
	if (row < it.rows && it.out + out < p.n)
		put_output(p, p.parts[it.part].first + it.row + row, it.out + out, total);
}

/* ---- many rows ----
 *
 * A block of the grid has 64 outputs and 32 rows.  16 threads, one for each lane, share 8 outputs and 8 rows: a thread has
 * one column in 16 of all of these, 64 sums.  At the end of a segment each exchange with half of the others halves what a thread
 * has, and is a step of the tree: after four it has the sums of 4 outputs.  Columns come in stages of 64 as f32.
 *
 * Roof: the f32 units.  Of 64 fma of a warp, 64 clocks of its quarter, shared memory needs 48 for all four together; the
 * exchange, once in 1024 fma, costs about 240 instructions. */

static constexpr int MANY_OUTPUTS = 64, MANY_ROWS = 32, MANY_THREADS = 512, COLUMNS = 64, STEPS = COLUMNS / LANES;

/* Column `lane` of step `step` of row r, of `rows`: four rows side by side, with gaps so that neither writing nor reading meets a
 * bank twice. */
static __device__ __forceinline__ constexpr int at_quad(int step, int quad, int lane, int rows)
{
	return step * (rows / 4 * 68 + 8) + quad * 68 + 4 * lane + lane / 8 * 4;
}

struct many_stage {
	float w[STEPS * (MANY_OUTPUTS / 4 * 68 + 8)];
	float x[STEPS * (MANY_ROWS / 4 * 68 + 8)];
};

/* What a thread brings to a stage: 8 columns of weights, 4 of x. */
struct many_copier {
	const moe_cuda_product &p;
	const unsigned char *w, *x;
	int out;                     /* the row of weights */
	float values[8], inputs[4];

	__device__ __forceinline__ many_copier(const moe_cuda_product &product, const item &it)
		: p(product), w(product.parts[it.part].w[0]), x(item_x(product, it, threadIdx.x / 16)),
		  out(min(it.out + (int)threadIdx.x / 8, product.n - 1))
	{
	}

	template <int Q> __device__ __forceinline__ void read_as(int column, int x_column)
	{
		eight<Q> v;

		read_eight<Q, false>(v, p, w, out, column);
#pragma unroll
		for (int i = 0; i < 8; i++)
			values[i] = v.at(i);
		read_x<Q, false, 4>(inputs, p, x, x_column);
	}

	__device__ __forceinline__ void read(int from)
	{
		const int column = from + threadIdx.x % 8 * 8, x_column = from + threadIdx.x % 16 * 4;

		switch (quant_of(p)) {
		case MOE_Q_BF16: read_as<MOE_Q_BF16>(column, x_column); break;
		case MOE_Q_F16: read_as<MOE_Q_F16>(column, x_column); break;
		case MOE_Q_F32: read_as<MOE_Q_F32>(column, x_column); break;
		default: read_as<Q_ANY>(column, x_column); break;
		}
	}

	__device__ __forceinline__ void store(many_stage &s) const
	{
		const int r = threadIdx.x / 8, column = threadIdx.x % 8 * 8, xr = threadIdx.x / 16, x_column = threadIdx.x % 16 * 4;

#pragma unroll
		for (int i = 0; i < 8; i++)
			s.w[at_quad(column / LANES, r / 4, column % LANES + i, MANY_OUTPUTS) + r % 4] = values[i];
#pragma unroll
		for (int i = 0; i < 4; i++)
			s.x[at_quad(x_column / LANES, xr / 4, x_column % LANES + i, MANY_ROWS) + xr % 4] = inputs[i];
	}
};

static __device__ __forceinline__ void read_quads(float to[8], const float *from)
{
	const float4 lo = *(const float4 *)from, hi = *(const float4 *)(from + 68);

	to[0] = lo.x, to[1] = lo.y, to[2] = lo.z, to[3] = lo.w;
	to[4] = hi.x, to[5] = hi.y, to[6] = hi.z, to[7] = hi.w;
}

/* acc[8 i + j] += output i times row j, of one column each of up to 4 steps. */
static __device__ __forceinline__ void add_stage(float acc[64], const many_stage &s, int outs, int rows, int lane, int steps)
{
	for (int step = 0; step < steps; step++) {
		float w[8], x[8];

		read_quads(w, s.w + at_quad(step, outs / 4, lane, MANY_OUTPUTS));
		read_quads(x, s.x + at_quad(step, rows / 4, lane, MANY_ROWS));
#pragma unroll
		for (int i = 0; i < 64; i++)
			acc[i] = __fmaf_rn(w[i / 8], x[i % 8], acc[i]);
	}
}

/* The tree: each half of the lanes keeps half of the sums, n of them, and adds to them the other's.  Afterwards acc[0..3] are
 * those of products 4 lane .. 4 lane + 3. */
template <int n> static __device__ __forceinline__ void fold(float acc[64], int lane)
{
	const bool upper = lane & n / 4;

#pragma unroll
	for (int i = 0; i < n; i++) {
		const float keep = upper ? acc[i + n] : acc[i], give = upper ? acc[i] : acc[i + n];

		acc[i] = __fadd_rn(keep, __shfl_xor_sync(MOE_ALL_LANES, give, n / 4));
	}
	if constexpr (n > 4)
		fold<n / 2>(acc, lane);
}

static __global__ void __launch_bounds__(MANY_THREADS) many_f32(const __grid_constant__ moe_cuda_product p)
{
	MOE_DYNAMIC_SHARED(many_stage, shared);              /* two, in turn */
	const item it = find_item(p, MANY_ROWS, MANY_OUTPUTS);
	const int lane = threadIdx.x % LANES, tile = threadIdx.x / LANES, outs = tile % 8 * 8, rows = tile / 8 * 8;
	many_copier copier(p, it);
	float acc[64] = {}, total[4] = {};

	copier.read(0);
	for (int from = 0, turn = 0; from < p.cols; from += COLUMNS, turn ^= 1) {
		copier.store(shared[turn]);
		__syncthreads();
		if (from + COLUMNS < p.cols)
			copier.read(from + COLUMNS);
		add_stage(acc, shared[turn], outs, rows, lane, min(STEPS, (p.cols - from + LANES - 1) / LANES));
		if ((from + COLUMNS) % SEGMENT && from + COLUMNS < p.cols)
			continue;
		fold<32>(acc, lane);
#pragma unroll
		for (int i = 0; i < 64; i++) {
			if (i < 4)
				total[i] = __fadd_rn(total[i], acc[i]);
			acc[i] = 0;
		}
	}
#pragma unroll
	for (int i = 0; i < 4; i++) {
		const int out = it.out + outs + lane / 2, row = rows + lane % 2 * 4 + i;

		if (row < it.rows && out < p.n)
			put_output(p, p.parts[it.part].first + it.row + row, out, total[i]);
	}
}

const moe_cuda_form moe_cuda_f32[MOE_CUDA_F32_SIZES] = {
	{2, {FEW_ROWS, 0}, 32 * FEW_WARPS, 2 * sizeof(few_shared<2>), few_f32<2>},
	{4, {FEW_ROWS, 0}, 32 * FEW_WARPS, 2 * sizeof(few_shared<4>), few_f32<4>},
	{MANY_ROWS, {MANY_OUTPUTS, 0}, MANY_THREADS, 2 * sizeof(many_stage), many_f32},
};
