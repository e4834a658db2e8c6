/* Codes that lie row by row, with a grid of scales: FP8, 8-bit integers, packed integers, FP4.
 *
 * A value is (code - zero) * scale, each step rounded to f32; the difference is exact, and so is the product where
 * the scale is a half or bfloat16. */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "checkpoint/coded.h"

static float f8_values[256];
static pthread_once_t f8_once = PTHREAD_ONCE_INIT;

static void fill_f8(void)
{
	for (int i = 0; i < 256; i++)
		f8_values[i] = moe_f8_e4m3_to_f32((uint8_t)i);
}

uint32_t moe_coded_word(const unsigned char *p, int64_t i)
{
	const unsigned char *b = p + 4 * i;

	return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* ---- codes ---- */

/* The first code in the lowest bits of the first byte, as of 32-bit words in little-endian order. */
static void packed_codes(const unsigned char *p, int bits, int64_t n, float *out)
{
	unsigned have = 0, word = 0, mask = (1u << bits) - 1;

	for (int64_t i = 0; i < n; i++) {
		if (have < (unsigned)bits) {
			word |= (unsigned)*p++ << have;
			have += 8;
		}
		out[i] = (float)(word & mask);
		word >>= bits;
		have -= (unsigned)bits;
	}
}

/* E2M1, two in a byte, the first in the low half. */
static void fp4_codes(const unsigned char *p, int64_t n, float *out)
{
	static const float values[16] = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6, -0.0F, -0.5F, -1, -1.5F, -2, -3, -4, -6};

	for (int64_t i = 0; i < n; i++)
		out[i] = values[p[i / 2] >> (4 * (i & 1)) & 15];
}

static void codes_of(const struct moe_grid *g, int64_t row, int64_t cols, float *out)
{
	const unsigned char *p = g->codes + (size_t)row * g->row_bytes;

	switch (g->kind) {
	case MOE_CODES_F8:
		for (int64_t i = 0; i < cols; i++)
			out[i] = f8_values[p[i]];
		break;
	case MOE_CODES_I8:
		for (int64_t i = 0; i < cols; i++)
			out[i] = (float)(int8_t)p[i];
		break;
	case MOE_CODES_PACKED:
		packed_codes(p, g->bits, cols, out);
		break;
	case MOE_CODES_FP4:
		fp4_codes(p, cols, out);
		break;
	}
}

/* ---- scales and zero points ---- */

/* 2^(byte - 127); 255 is no number. */
static float exponent_scale(unsigned char byte)
{
	return byte == 255 ? NAN : ldexpf(1, (int)byte - 127);
}

static float scale_at(const struct moe_grid *g, int64_t row, int64_t group)
{
	int64_t i = row / g->block_rows * g->scale_cols + group;
	float s;

	if (g->exponents)
		return exponent_scale(g->scales[i]);
	moe_to_f32(g->scale_type, g->scales + (size_t)i * moe_dtype_size(g->scale_type), &s, 1, NULL);
	return s / g->global;
}

static float zero_at(const struct moe_grid *g, int64_t row, int64_t group)
{
	int64_t bit = row * g->bits;
	uint64_t word;

	if (!g->zeros)
		return g->kind == MOE_CODES_PACKED ? (float)(1 << (g->bits - 1)) : 0;
	if (!g->zeros_packed) { /* of signed codes, which packing shifts up by half the range */
		int zero = (int8_t)g->zeros[row / g->block_rows * g->scale_cols + group];

		return (float)(g->kind == MOE_CODES_PACKED ? zero + (1 << (g->bits - 1)) : zero);
	}
	word = moe_coded_word(g->zeros, bit / 32 * g->scale_cols + group);
	return (float)(word >> (bit % 32) & ((1u << g->bits) - 1));
}

static void scale_run(float *x, int64_t n, float zero, float scale)
{
	for (int64_t i = 0; i < n; i++)
		x[i] = (x[i] - zero) * scale;
}

static void scale_row(const struct moe_grid *g, int64_t row, int64_t cols, float *x)
{
	for (int64_t c = 0, group = 0; c < cols; c += g->block_cols, group++) {
		int64_t n = cols - c < g->block_cols ? cols - c : g->block_cols;

		scale_run(x + c, n, zero_at(g, row, group), scale_at(g, row, group));
	}
}

/* The file was checked when it was opened; it may be another one since. */
static int scale_ordered_row(const struct moe_grid *g, int64_t row, int64_t cols, float *x, const char *name, struct moe_err *e)
{
	for (int64_t c = 0; c < cols; c++) {
		int64_t group = moe_coded_word(g->group_of, c);

		if (group >= g->scale_cols)
			return moe_fail(e, MOE_E_INPUT, "tensor %s: column %lld is in group %lld of %lld", name, (long long)c,
			                (long long)group, (long long)g->scale_cols);
		scale_run(x + c, 1, zero_at(g, row, group), scale_at(g, row, group));
	}
	return 0;
}

static int grid_read(const struct moe_tensor *t, int64_t row, int64_t n, float *out, struct moe_err *e)
{
	const struct moe_grid *g = (const struct moe_grid *)t->coding;
	int64_t cols = t->shape[1];

	pthread_once(&f8_once, fill_f8);
	for (int64_t i = 0; i < n; i++, out += cols) {
		int rc = 0;

		codes_of(g, row + i, cols, out);
		if (g->group_of)
			rc = scale_ordered_row(g, row + i, cols, out, t->name, e);
		else
			scale_row(g, row + i, cols, out);
		if (rc)
			return rc;
	}
	return moe_coded_check(&g->coded, e);
}

struct moe_grid *moe_grid_new(enum moe_codes kind, struct moe_err *e)
{
	struct moe_grid *g = moe_calloc(1, sizeof *g, "a coded tensor", e);

	if (!g)
		return NULL;
	g->coded.coding.read = grid_read;
	g->kind = kind;
	g->bits = kind == MOE_CODES_FP4 ? 4 : 8;
	g->global = 1;
	return g;
}
