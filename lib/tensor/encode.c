/* f32 rows to codes.  Everything is +, -, *, / and comparisons, each rounded by itself, and sums in one order: the bytes
 * are the same on every machine. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "codes.h"
#include "search.h"

static float of_bits(uint32_t u)
{
	float x;

	memcpy(&x, &u, sizeof x);
	return x;
}

static int check_finite(const struct moe_coder *coder, const float *x, int64_t rows, int64_t cols, struct moe_err *e)
{
	if (coder->largest(x, rows * cols) < 0x7f800000)
		return 0;
	for (int64_t i = 0; i < rows * cols; i++)
		if (!isfinite(x[i]))
			return moe_fail(e, MOE_E_INPUT, "row %lld, column %lld is not a finite number", (long long)(i / cols),
			                (long long)(i % cols));
	return 0;
}

/* A power of two that brings numbers whose largest has these bits near 1, as near as f32 can hold the power. */
static float unit_of(uint32_t most)
{
	int exponent = 254 - (int)(most >> 23);

	return of_bits((uint32_t)(exponent > 252 ? 252 : exponent < 1 ? 1 : exponent) << 23);
}

/* ---- q8 ---- */

static void encode_q8(const struct moe_coder *coder, const float *x, int n, int block, unsigned char *out)
{
	uint32_t most = coder->largest(x, n);
	float unit = unit_of(most), inverse, filled[256];
	uint16_t d = most ? moe_block_scale(of_bits(most) * unit / 127, unit) : 0;

	inverse = d ? (float)(1 / ((double)moe_bf16_to_f32(d) * (double)unit)) : 0;
	if (n < block) {
		memset(filled, 0, sizeof filled);
		memcpy(filled, x, (size_t)n * sizeof *x);
		x = filled;
	}
	coder->q8(x, block, unit, inverse, out);
	memcpy(out + block, &d, sizeof d);
}

/* ---- q4, q3, q2 ---- */

/* Weights of a row's columns: the largest is 1, none so small that nothing would hold its column. */
static int make_weights(const float *importance, int64_t cols, float **out, struct moe_err *e)
{
	float most = 0, *w = moe_calloc((size_t)cols, sizeof *w, "importance", e);

	if (!w)
		return MOE_E_NOMEM;
	for (int64_t k = 0; importance && k < cols; k++) {
		if (!(importance[k] >= 0) || !isfinite(importance[k])) {
			free(w);
			return moe_fail(e, MOE_E_INPUT, "the importance of column %lld is not a number from 0 on", (long long)k);
		}
		most = importance[k] > most ? importance[k] : most;
	}
	for (int64_t k = 0; k < cols; k++) {
		float share = most > 0 ? importance[k] / most : 1;

		w[k] = share > 0x1p-20f ? share : 0x1p-20f;
	}
	*out = w;
	return 0;
}

/* What is being coded, and a group that is filled block by block. */
struct encoding {
	enum moe_quant quant;
	struct moe_quant_shape s;
	const float *x, *w;
	int64_t rows, cols;
	unsigned char *out;
	const struct moe_coder *coder;
	struct moe_group group;
	unsigned char *to[LANES];       /* where the group's blocks go */
	bool zero[LANES];               /* blocks without a value other than 0 */
	int blocks;                     /* in the group */
};

/* A sub-block; n columns are left in the row. */
static void fill_lane(struct moe_group *g, int lane, const float *x, const float *w, int n)
{
	int k = 0;

	for (; k < g->sub && k < n; k++) {
		g->x[k][lane] = x[k] * g->unit[lane];
		g->w[k][lane] = w[k];
	}
	for (; k < g->sub; k++)
		g->x[k][lane] = g->w[k][lane] = 0;
}

static void add_block(struct encoding *c, int64_t row, int64_t b)
{
	struct moe_group *g = &c->group;
	int64_t at = b * c->s.block;
	int n = c->cols - at < c->s.block ? (int)(c->cols - at) : c->s.block, first = c->blocks * g->per;
	const float *x = c->x + row * c->cols + at, *w = c->w + at;
	uint32_t most = c->coder->largest(x, n);
	float unit = unit_of(most);

	for (int i = 0; i < g->per; i++)
		g->unit[first + i] = unit;
	for (int i = 0; i < g->per; i++)
		if (i * g->sub < n)
			fill_lane(g, first + i, x + i * g->sub, w + i * g->sub, n - i * g->sub);
		else
			fill_lane(g, first + i, NULL, NULL, 0);
	c->zero[c->blocks] = most == 0;
	c->to[c->blocks++] = c->out + (size_t)row * c->s.row_bytes + (size_t)b * c->s.block_bytes;
}

/* A block of zeros: scale 0 and codes whose w is 0, so that no value becomes -0. */
static void write_zeros(const struct encoding *c, unsigned char *to)
{
	memset(to, 0, c->s.block_bytes);
	if (c->quant == MOE_Q_Q4)
		memset(to + c->s.head_bytes, 0x88, c->s.code_bytes);
}

/* A sub-block's codes, eight at a time. */
static void write_codes(const struct moe_group *g, int lane, int bits, unsigned char *to)
{
	for (int k = 0; k < g->sub; k += 8, to += bits) {
		uint32_t v = 0;

		for (int i = 0; i < 8; i++)
			v |= (uint32_t)g->code[k + i][lane] << bits * i;
		for (int i = 0; i < bits; i++)
			to[i] = (unsigned char)(v >> 8 * i);
	}
}

static void write_block(const struct encoding *c, int i)
{
	const struct moe_group *g = &c->group;
	unsigned char *to = c->to[i], *codes = to + c->s.head_bytes;

	if (c->zero[i]) {
		write_zeros(c, to);
		return;
	}
	memset(to, 0, c->s.block_bytes);
	for (int j = 0; j < g->per; j++)
		moe_code_put(to, moe_sub_bits(c->quant), j, g->head[i * g->per + j]);
	for (int j = 0; j < g->per; j++)
		write_codes(g, i * g->per + j, moe_code_bits(c->quant), codes + (size_t)(j * g->sub * moe_code_bits(c->quant) / 8));
	memcpy(codes + c->s.code_bytes, &g->d[i * g->per], 2);
}

static void flush(struct encoding *c)
{
	if (!c->blocks)
		return;
	c->coder->search(&c->group);
	for (int i = 0; i < c->blocks; i++)
		write_block(c, i);
	c->blocks = 0;
}

static int encode_searched(struct encoding *c, const float *importance, struct moe_err *e)
{
	struct moe_group *g = &c->group;
	float *w = NULL;
	int rc = make_weights(importance, c->cols, &w, e);

	if (rc)
		return rc;
	c->w = w;
	g->quant = c->quant;
	g->sub = c->s.sub;
	g->per = c->s.block / c->s.sub;
	for (int i = 0; i < LANES; i++)
		g->unit[i] = 1;
	for (int64_t row = 0; row < c->rows; row++)
		for (int64_t b = 0; b < c->s.blocks; b++) {
			add_block(c, row, b);
			if (c->blocks == LANES / g->per)
				flush(c);
		}
	flush(c);
	free(w);
	return 0;
}

int moe_quant_encode(enum moe_quant q, const float *x, int64_t rows, int64_t cols, const float *importance,
                     unsigned char *out, struct moe_err *e)
{
	struct encoding c = {.quant = q, .x = x, .rows = rows, .cols = cols, .out = out, .coder = moe_coder_here()};
	int rc = check_finite(c.coder, x, rows, cols, e);

	if (rc)
		return rc;
	moe_quant_shape(q, cols, &c.s);
	if (q != MOE_Q_Q8)
		return encode_searched(&c, importance, e);
	for (int64_t row = 0; row < rows; row++)
		for (int64_t b = 0; b < c.s.blocks; b++) {
			int64_t at = b * c.s.block;

			encode_q8(c.coder, x + row * cols + at, cols - at < c.s.block ? (int)(cols - at) : c.s.block, c.s.block,
			          out + (size_t)row * c.s.row_bytes + (size_t)b * c.s.block_bytes);
		}
	return 0;
}
