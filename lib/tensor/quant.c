/* Quants and layouts: names and sizes. */
#include <string.h>

#include "tensor/tensor.h"

static const struct {
	const char *name;
	enum moe_dtype dtype; /* of one element; of coded quants: bytes */
	int bits, sub, sub_bits;
} quants[MOE_QUANTS] = {
	[MOE_Q_F32] = {.name = "f32", .dtype = MOE_F32},
	[MOE_Q_F16] = {.name = "f16", .dtype = MOE_F16},
	[MOE_Q_BF16] = {.name = "bf16", .dtype = MOE_BF16},
	[MOE_Q_Q8] = {"q8", MOE_U8, 8, 0, 0},
	[MOE_Q_Q4] = {"q4", MOE_U8, 4, 32, 4},
	[MOE_Q_Q3] = {"q3", MOE_U8, 3, 32, 8},
	[MOE_Q_Q2] = {"q2", MOE_U8, 2, 16, 8},
};

static const char *const layouts[MOE_LAYOUTS] = {[MOE_L_PLAIN] = "plain", [MOE_L_R64] = "r64"};

const char *moe_quant_name(enum moe_quant q)
{
	return quants[q].name;
}

const char *moe_layout_name(enum moe_layout l)
{
	return layouts[l];
}

bool moe_quant_parse(const char *name, enum moe_quant *out)
{
	for (int q = 0; q < MOE_QUANTS; q++)
		if (strcmp(name, quants[q].name) == 0) {
			*out = (enum moe_quant)q;
			return true;
		}
	return false;
}

bool moe_quant_of(enum moe_dtype t, enum moe_quant *out)
{
	for (int q = 0; q < MOE_QUANTS; q++)
		if (!moe_quant_is_coded((enum moe_quant)q) && quants[q].dtype == t) {
			*out = (enum moe_quant)q;
			return true;
		}
	return false;
}

void moe_quant_shape(enum moe_quant q, int64_t cols, struct moe_quant_shape *out)
{
	size_t block = (size_t)moe_quant_block(cols), sub = (size_t)quants[q].sub;

	out->block = (int)block;
	out->sub = (int)sub;
	out->blocks = (cols + out->block - 1) / out->block;
	out->head_bytes = sub ? block / sub * (size_t)quants[q].sub_bits / 8 : 0;
	out->code_bytes = block * (size_t)quants[q].bits / 8;
	out->block_bytes = out->head_bytes + out->code_bytes + 2;
	out->row_bytes = (size_t)out->blocks * out->block_bytes;
}

size_t moe_matrix_bytes(const struct moe_matrix *m)
{
	struct moe_quant_shape s;
	size_t rows = (size_t)m->rows;

	if (!moe_quant_is_coded(m->quant))
		return rows * (size_t)m->cols * moe_dtype_size(quants[m->quant].dtype);
	moe_quant_shape(m->quant, m->cols, &s);
	if (m->layout == MOE_L_R64)
		rows = (rows + MOE_TILE_ROWS - 1) / MOE_TILE_ROWS * MOE_TILE_ROWS;
	return rows * s.row_bytes;
}

/* Does name[0 .. *len) end in ".WORD"?  Then *len is cut before it. */
static bool cut_word(const char *name, size_t *len, const char *word)
{
	size_t n = strlen(word);

	if (*len <= n + 1 || name[*len - n - 1] != '.' || memcmp(name + *len - n, word, n) != 0)
		return false;
	*len -= n + 1;
	return true;
}

bool moe_quant_split_name(const char *name, size_t *stem, enum moe_quant *q, enum moe_layout *l)
{
	size_t len = strlen(name);

	*l = cut_word(name, &len, layouts[MOE_L_R64]) ? MOE_L_R64 : MOE_L_PLAIN;
	for (int i = MOE_Q_Q8; i < MOE_QUANTS; i++)
		if (cut_word(name, &len, quants[i].name)) {
			*q = (enum moe_quant)i;
			*stem = len;
			return true;
		}
	return false;
}
