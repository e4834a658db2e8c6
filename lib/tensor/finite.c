/* Is a weight neither NaN nor infinite?  Of codes only the scales can be either. */
#include <string.h>

#include "tensor/tensor.h"

#define F32_EXPONENT 0x7f800000u
#define F16_EXPONENT 0x7c00u
#define BF16_EXPONENT 0x7f80u

/* Whole runs are looked at before the next decision, so that the compiler may take many elements at once. */
#define RUN 1024

static bool finite_words(const unsigned char *p, size_t n)
{
	while (n > 0) {
		size_t now = n < RUN ? n : RUN;
		unsigned bad = 0;

		for (size_t i = 0; i < now; i++) {
			uint32_t v;

			memcpy(&v, p + 4 * i, sizeof v);
			bad |= (v & F32_EXPONENT) == F32_EXPONENT;
		}
		if (bad)
			return false;
		p += 4 * now;
		n -= now;
	}
	return true;
}

static bool finite_halves(const unsigned char *p, size_t n, unsigned exponent)
{
	while (n > 0) {
		size_t now = n < RUN ? n : RUN;
		unsigned bad = 0;

		for (size_t i = 0; i < now; i++) {
			uint16_t v;

			memcpy(&v, p + 2 * i, sizeof v);
			bad |= (v & exponent) == exponent;
		}
		if (bad)
			return false;
		p += 2 * now;
		n -= now;
	}
	return true;
}

/* `rows` rows together, in blocks that end with the scales of all of them. */
static bool finite_scales(const struct moe_quant_shape *s, const unsigned char *p, size_t rows)
{
	for (int64_t b = 0; b < s->blocks; b++, p += rows * s->block_bytes)
		if (!finite_halves(p + rows * (s->block_bytes - 2), rows, BF16_EXPONENT))
			return false;
	return true;
}

bool moe_matrix_finite(const struct moe_matrix *m)
{
	size_t n = (size_t)m->rows * (size_t)m->cols, rows = m->layout == MOE_L_R64 ? MOE_TILE_ROWS : 1;
	struct moe_quant_shape s;

	if (!moe_quant_is_coded(m->quant))
		return m->quant == MOE_Q_F32 ? finite_words(m->data, n)
		                             : finite_halves(m->data, n, m->quant == MOE_Q_F16 ? F16_EXPONENT : BF16_EXPONENT);
	moe_quant_shape(m->quant, m->cols, &s);
	for (size_t row = 0; row < (size_t)m->rows; row += rows)
		if (!finite_scales(&s, (const unsigned char *)m->data + row * s.row_bytes, rows))
			return false;
	return true;
}
