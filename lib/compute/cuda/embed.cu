/* Rows of a matrix of any quant and layout as f32.  Few bytes next to a step's products, so each element is looked up
 * by itself, as lib/tensor/codes.h and pack.c have them. */
#include "kernel.h"
#include "private.h"

enum { THREADS = 256, TILE = MOE_TILE_ROWS };

struct matrix {
	const unsigned char *data;
	int quant;
	bool tiles;                  /* the layout r64 */
	int cols, block, sub;        /* columns: of the matrix, a block, a sub-block (0: there is none) */
	int head_bytes, code_bytes, block_bytes; /* of a row in a block */
	size_t row_bytes;
};

static __device__ __forceinline__ unsigned two_bytes(const unsigned char *p)
{
	return p[0] | (unsigned)p[1] << 8;
}

/* Number i of numbers of `bits` bits that follow each other. */
static __device__ __forceinline__ unsigned number_at(const unsigned char *p, int bits, int i)
{
	int at = i * bits, shift = at % 8;
	unsigned v = p[at / 8] >> shift;

	if (shift + bits > 8)
		v |= (unsigned)p[at / 8 + 1] << (8 - shift);
	return v & ((1u << bits) - 1);
}

static __device__ __forceinline__ int bits_of(int quant)
{
	return quant == MOE_Q_Q8 ? 8 : quant == MOE_Q_Q4 ? 4 : quant == MOE_Q_Q3 ? 3 : 2;
}

/* Field i of a row in the units of `bits` bits that begin at p. */
static __device__ __forceinline__ unsigned field_at(const unsigned char *p, int row, int bits, int i)
{
	int columns = 32 / bits, in = i % columns;

	return p[i / columns * 4 * TILE + 4 * row + in % 4] >> (in / 4 * bits) & ((1u << bits) - 1);
}

/* The code of column `col` of a block; codes begin at p. */
static __device__ unsigned code_at(const struct matrix &m, const unsigned char *p, int row, int col)
{
	if (!m.tiles)
		return number_at(p, bits_of(m.quant), col);
	if (m.quant != MOE_Q_Q3)
		return field_at(p, row, bits_of(m.quant), col);
	p += col / 32 * 3 * 4 * TILE;
	return field_at(p, row, 2, col % 32) | field_at(p + 2 * 4 * TILE, row, 1, col % 32) << 2;
}

/* The code of sub-block `sub`; the head begins at p. */
static __device__ unsigned sub_at(const struct matrix &m, const unsigned char *p, int row, int sub)
{
	if (m.quant == MOE_Q_Q4)
		return number_at(p + (m.tiles ? row * m.head_bytes : 0), 4, sub);
	return m.tiles ? p[sub * TILE + row] : p[sub];
}

/* The integer that code u stands for, in a sub-block of code c. */
static __device__ int weight_of(int quant, int c, int u)
{
	switch (quant) {
	case MOE_Q_Q4: return (8 + (c & 7)) * (u - (8 - (c >> 3)));
	case MOE_Q_Q3: return (1 + (c & 15)) * u - 4 * (c >> 4);
	case MOE_Q_Q2: return (1 + (c & 15)) * u - 3 * (c >> 4);
	default: return u - 128;
	}
}

static __device__ float coded(const struct matrix &m, int row, int col)
{
	int many = m.tiles ? TILE : 1, in_tile = m.tiles ? row % TILE : 0;
	const unsigned char *block = m.data + (size_t)(row - in_tile) * m.row_bytes + (size_t)(col / m.block) * m.block_bytes * many;
	const unsigned char *codes = block + m.head_bytes * many, *scales = codes + m.code_bytes * many;
	int c = m.sub ? (int)sub_at(m, block, in_tile, col % m.block / m.sub) : 0;
	int u = (int)code_at(m, codes, in_tile, col % m.block);

	return moe_bf16(two_bytes(scales + 2 * in_tile)) * (float)weight_of(m.quant, c, u);
}

static __global__ void embed_kernel(float *y, const int32_t *ids, const struct matrix m)
{
	int row = ids[blockIdx.x];
	const unsigned char *p = m.data + (size_t)row * m.row_bytes;

	y += (size_t)blockIdx.x * m.cols;
	for (int i = threadIdx.x; i < m.cols; i += THREADS)
		switch (m.quant) {
		case MOE_Q_F32: y[i] = __uint_as_float(two_bytes(p + 4 * i) | two_bytes(p + 4 * i + 2) << 16); break;
		case MOE_Q_F16: y[i] = moe_f16(two_bytes(p + 2 * i)); break;
		case MOE_Q_BF16: y[i] = moe_bf16(two_bytes(p + 2 * i)); break;
		default: y[i] = coded(m, row, i);
		}
}

static struct matrix matrix_of(const struct moe_matrix *w)
{
	struct matrix m = {(const unsigned char *)w->data, (int)w->quant, w->layout == MOE_L_R64, (int)w->cols, 0, 0, 0, 0, 0,
	                   (size_t)w->cols * (w->quant == MOE_Q_F32 ? 4 : 2)};
	struct moe_quant_shape s;

	if (!moe_quant_is_coded(w->quant))
		return m;
	moe_quant_shape(w->quant, w->cols, &s);
	m.block = s.block;
	m.sub = s.sub;
	m.head_bytes = (int)s.head_bytes;
	m.code_bytes = (int)s.code_bytes;
	m.block_bytes = (int)s.block_bytes;
	m.row_bytes = s.row_bytes;
	return m;
}

extern "C" int moe_cuda_embed(struct moe_backend *b, struct moe_stream_q *q, float *y, const int32_t *ids, int rows,
                              const struct moe_matrix *w, struct moe_err *e)
{
	struct moe_cuda *c = moe_cuda(b);
	struct moe_staged s = {ids, (size_t)rows * sizeof *ids, NULL};
	int rc = moe_cuda_begin(c, &q, "embed", e);

	for (int i = 0; i < rows; i++)
		if (ids[i] < 0 || ids[i] >= w->rows)
			return moe_fail(e, MOE_E_RANGE, "token %d: the vocabulary has %lld", ids[i], (long long)w->rows);
	if (rc || rows == 0)
		return rc;
	rc = moe_cuda_stage(c, q, &s, 1, e);
	if (rc)
		return rc;
	return moe_cuda_check(c, MOE_LAUNCH(embed_kernel, (unsigned)rows, THREADS, 0, q->s, y, (const int32_t *)s.device, matrix_of(w)), "embed", e);
}
