/* Values of coded matrices, one row at a time: the reference that kernels are tested against. */
#include <string.h>

#include "codes.h"

static float scale_of(const unsigned char *p)
{
	uint16_t h;

	memcpy(&h, p, sizeof h);
	return moe_bf16_to_f32(h);
}

void moe_quant_decode_block(enum moe_quant q, const struct moe_quant_shape *s, const unsigned char *block, int n, float *out)
{
	const unsigned char *codes = block + s->head_bytes;
	float d = scale_of(codes + s->code_bytes);
	int bits = moe_code_bits(q);

	for (int k = 0; k < n; k++) {
		struct moe_sub x = moe_sub_of(q, s->sub ? moe_code_get(block, moe_sub_bits(q), k / s->sub) : 0);

		out[k] = d * (float)(x.s * (int)moe_code_get(codes, bits, k) - x.o);
	}
}

void moe_quant_decode(enum moe_quant q, const unsigned char *row, int64_t cols, float *out)
{
	struct moe_quant_shape s;

	moe_quant_shape(q, cols, &s);
	for (int64_t b = 0; b < s.blocks; b++) {
		int64_t at = b * s.block;

		moe_quant_decode_block(q, &s, row + (size_t)b * s.block_bytes, cols - at < s.block ? (int)(cols - at) : s.block,
		                       out + at);
	}
}

void moe_matrix_row(const struct moe_matrix *m, int64_t row, float *out)
{
	struct moe_quant_shape s;
	const unsigned char *p = m->data;
	size_t n = (size_t)m->cols;

	switch (m->quant) {
	case MOE_Q_F32: moe_to_f32(MOE_F32, p + (size_t)row * n * 4, out, n, NULL); return;
	case MOE_Q_F16: moe_to_f32(MOE_F16, p + (size_t)row * n * 2, out, n, NULL); return;
	case MOE_Q_BF16: moe_to_f32(MOE_BF16, p + (size_t)row * n * 2, out, n, NULL); return;
	default: break;
	}
	moe_quant_shape(m->quant, m->cols, &s);
	if (m->layout == MOE_L_R64)
		moe_quant_tile_row(m->quant, p + (size_t)(row / MOE_TILE_ROWS) * MOE_TILE_ROWS * s.row_bytes,
		                   (int)(row % MOE_TILE_ROWS), m->cols, out);
	else
		moe_quant_decode(m->quant, p + (size_t)row * s.row_bytes, m->cols, out);
}
