/* Weights as f32: 8 columns of a row of any matrix. */
#ifndef MOE_CUDA_WEIGHTS_CUH
#define MOE_CUDA_WEIGHTS_CUH

#include "forms.cuh"

static constexpr int Q_ANY = 7;  /* what the product says, and at any address */

/* 8 columns as they lie in memory; of Q_ANY as f32. */
template <int Q> struct eight {
	static constexpr int PARTS = Q == MOE_Q_F32 || Q == Q_ANY ? 2 : 1;
	uint4 part[PARTS];

	__device__ __forceinline__ float at(int i) const
	{
		if (PARTS == 2)
			return __uint_as_float(word_of(part[i / 4 % PARTS], i % 4));
		const uint32_t half = word_of(part[0], i / 2) >> 16 * (i % 2) & 0xffff;

		return Q == MOE_Q_BF16 ? moe_bf16(half) : moe_f16(half);
	}
};

/* Element number i of a row of f32, f16 or bf16. */
static __device__ float plain_weight(const moe_cuda_product &p, const unsigned char *row, int i)
{
	const unsigned char *at = row + (size_t)i * (p.quant == MOE_Q_F32 ? 4 : 2);
	const uint32_t half = at[0] | at[1] << 8;

	if (p.quant == MOE_Q_F32)
		return __uint_as_float(half | at[2] << 16 | (uint32_t)at[3] << 24);
	return p.quant == MOE_Q_BF16 ? moe_bf16(half) : moe_f16(half);
}

/* w of column i of a step's 32 columns; codes, head: of the row's own, in this step. */
template <int Q> static __device__ __forceinline__ int coded_weight(const unsigned char *codes, uint32_t head, int i)
{
	const int j = i / 4, byte = i % 4;
	uint32_t u;

	if (Q == MOE_Q_Q8)
		return (int)codes[j * 256 + byte] - 128;
	if (Q == MOE_Q_Q4)
		u = codes[j / 2 * 256 + byte] >> 4 * (j % 2) & 15;
	else
		u = codes[j / 4 * 256 + byte] >> 2 * (j % 4) & 3;
	if (Q == MOE_Q_Q3)
		u |= (codes[2 * 256 + byte] >> j & 1) << 2;
	const sub s = sub_of<Q>(head);

	return (int)(u * s.s + (s.o & 255)) - 128;
}

/* Column `column` of row `row` of a matrix in the layout r64. */
template <int Q> static __device__ float tile_weight(const moe_cuda_product &p, const unsigned char *w, int row, int column)
{
	const int columns = p.cols % 256 == 0 ? 256 : 128, blocks = (p.cols + columns - 1) / columns; /* p's are segments */
	const tile_shape s = shape_of<coded<Q>>(columns);
	const unsigned char *block = w + ((size_t)(row / TILE) * blocks + column / columns) * s.block;
	const int r = row % TILE, step = column % columns / 32, i = column % 32;
	const float d = moe_bf16(*(const uint16_t *)(block + s.block - 2 * TILE + 2 * r));
	uint32_t head = 0;

	if (Q == MOE_Q_Q4)
		head = block[s.head / TILE * r + step / 2] >> 4 * (step % 2) & 15;
	else if (Q != MOE_Q_Q8)
		head = block[(Q == MOE_Q_Q3 ? step : 2 * step + i / 16) * TILE + r];
	return __fmul_rn(d, (float)coded_weight<Q>(block + s.head + step * coded<Q>::UNITS * 256 + 4 * r, head, i));
}

static __device__ __attribute__((noinline)) float any_weight(const moe_cuda_product &p, const unsigned char *w, int row, int column)
{
	switch (p.quant) {
	case MOE_Q_Q8: return tile_weight<MOE_Q_Q8>(p, w, row, column);
	case MOE_Q_Q4: return tile_weight<MOE_Q_Q4>(p, w, row, column);
	case MOE_Q_Q3: return tile_weight<MOE_Q_Q3>(p, w, row, column);
	case MOE_Q_Q2: return tile_weight<MOE_Q_Q2>(p, w, row, column);
	default: return plain_weight(p, w + (size_t)row * p.cols * (p.quant == MOE_Q_F32 ? 4 : 2), column);
	}
}

/* Columns [column, column + 8), a multiple of 8, of row `row` of w; those that are not there are zeros.  WHOLE: all are. */
template <int Q, bool WHOLE>
static __device__ __forceinline__ void read_eight(eight<Q> &to, const moe_cuda_product &p, const unsigned char *w, int row, int column)
{
	if constexpr (Q == Q_ANY) {
		uint32_t v[8] = {};

#pragma unroll 1
		for (int k = 0; k < 8; k++) {
			const float one = column + k < p.cols ? any_weight(p, w, row, column + k) : 0;

#pragma unroll
			for (int i = 0; i < 8; i++)
				v[i] = i == k ? __float_as_uint(one) : v[i];
		}
		to.part[0] = make_uint4(v[0], v[1], v[2], v[3]);
		to.part[1] = make_uint4(v[4], v[5], v[6], v[7]);
	} else {
#pragma unroll
		for (int i = 0; i < eight<Q>::PARTS; i++) {
			to.part[i] = make_uint4(0, 0, 0, 0);
			if (WHOLE || column < p.cols)
				to.part[i] = read_once(w + ((size_t)row * p.cols + column) * (Q == MOE_Q_F32 ? 4 : 2) + 16 * i);
		}
	}
}

/* The quant that weights are read as. */
static __device__ __forceinline__ int quant_of(const moe_cuda_product &p)
{
	return p.vectors ? p.quant : Q_ANY;
}

/* N columns of a row of f32 inputs, as read_eight; N is 4 or 8. */
template <int Q, bool WHOLE, int N>
static __device__ __forceinline__ void read_x(float to[N], const moe_cuda_product &p, const unsigned char *row, int column)
{
	const float *x = (const float *)row + column;

#pragma unroll
	for (int i = 0; i < N; i += 4) {
		if (Q == Q_ANY) {
#pragma unroll
			for (int k = i; k < i + 4; k++)
				to[k] = column + k < p.cols ? x[k] : 0;
			continue;
		}
		const float4 v = WHOLE || column < p.cols ? *(const float4 *)(x + i) : make_float4(0, 0, 0, 0);

		to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
	}
}

#endif
