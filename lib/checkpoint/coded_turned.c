/* Codes that lie column by column, an input of the matrix after the other: GPTQ's and AWQ's packed integers, with a
 * scale and a zero point for every output and group of inputs.
 *
 * A value is (code - zero) * scale; with half scales exact. */
#include <stdlib.h>

#include "base/mem.h"
#include "checkpoint/coded.h"

#define TILE 16 /* rows at a time: a cache line of words */
#define SPAN 32 /* columns at a time: whole words of any width */

/* A tile's scales and zero points, [groups, TILE]. */
struct tile {
	int64_t row;
	int n;
	float *scale, *zero;
};

/* Which half byte of a word holds each of its 8 rows. */
static const int awq_place[8] = {0, 4, 1, 5, 2, 6, 3, 7};

static unsigned awq_code(const unsigned char *p, int64_t line, int64_t rows, int64_t row)
{
	return moe_coded_word(p, line * (rows / 8) + row / 8) >> (4 * awq_place[row % 8]) & 15;
}

/* Code i of words that lie `step` words apart, the first code in the lowest bits. */
static unsigned code_at(const unsigned char *p, int64_t first, int64_t step, int bits, int64_t i)
{
	int64_t word = i * bits / 32;
	int shift = (int)(i * bits % 32);
	uint64_t w = moe_coded_word(p, first + word * step);

	if (shift + bits > 32)
		w |= (uint64_t)moe_coded_word(p, first + (word + 1) * step) << 32;
	return (unsigned)(w >> shift) & ((1u << bits) - 1);
}

static float zero_of(const struct moe_turned *x, int64_t rows, int64_t group, int64_t row)
{
	unsigned mask = (1u << x->bits) - 1, zero;

	if (x->awq)
		return (float)awq_code(x->zeros, group, rows, row);
	zero = code_at(x->zeros, group * (rows * x->bits / 32), 1, x->bits, row);
	return (float)(x->zeros_less_one ? (zero + 1) & mask : zero);
}

static void fill_tile(const struct moe_turned *x, int64_t rows, struct tile *t)
{
	size_t size = moe_dtype_size(x->scale_type);

	for (int64_t g = 0; g < x->groups; g++) {
		moe_to_f32(x->scale_type, x->scales + (size_t)(g * rows + t->row) * size, t->scale + g * TILE, (size_t)t->n, NULL);
		for (int j = 0; j < t->n; j++)
			t->zero[g * TILE + j] = zero_of(x, rows, g, t->row + j);
	}
}

/* The groups of columns [first, first + n).  The file was checked when it was opened; it may be another one since. */
static int groups_of(const struct moe_turned *x, int64_t first, int n, int64_t *out, const char *name, struct moe_err *e)
{
	for (int i = 0; i < n; i++) {
		out[i] = x->group_of ? (int64_t)moe_coded_word(x->group_of, first + i) : (first + i) / x->group;
		if (out[i] >= x->groups)
			return moe_fail(e, MOE_E_INPUT, "tensor %s: column %lld is in group %lld of %lld", name,
			                (long long)(first + i), (long long)out[i], (long long)x->groups);
	}
	return 0;
}

/* SPAN codes of `bits` words that lie `step` apart; the compiler makes a loop for each width. */
static inline void span_codes(const unsigned char *p, int64_t first, int64_t step, const int bits, float *out)
{
	uint32_t w[9] = {0};

	for (int k = 0; k < bits; k++)
		w[k] = moe_coded_word(p, first + k * step);
	for (int i = 0; i < SPAN; i++) {
		int word = i * bits / 32, shift = i * bits % 32;
		uint64_t two = w[word] | (uint64_t)w[word + 1] << 32;

		out[i] = (float)((unsigned)(two >> shift) & ((1u << bits) - 1));
	}
}

/* Codes of columns [first, first + n) of a row; first is a multiple of SPAN, and of GPTQ n is SPAN. */
static void codes_of(const struct moe_turned *x, int64_t rows, int64_t row, int64_t first, int n, float *out)
{
	int64_t at = first / 32 * x->bits * rows + row;

	if (x->awq)
		for (int i = 0; i < n; i++)
			out[i] = (float)awq_code(x->codes, first + i, rows, row);
	else if (x->bits == 4)
		span_codes(x->codes, at, rows, 4, out);
	else if (x->bits == 8)
		span_codes(x->codes, at, rows, 8, out);
	else if (x->bits == 3)
		span_codes(x->codes, at, rows, 3, out);
	else
		span_codes(x->codes, at, rows, 2, out);
}

/* Row j of a tile: values of n columns of these groups. */
static void scale_span(const struct tile *tile, int j, const int64_t *group, bool one_group, const float *code, int n, float *out)
{
	const float *zero = tile->zero + j, *scale = tile->scale + j;

	if (one_group) {
		float z = zero[group[0] * TILE], s = scale[group[0] * TILE];

		for (int i = 0; i < n; i++)
			out[i] = (code[i] - z) * s;
		return;
	}
	for (int i = 0; i < n; i++)
		out[i] = (code[i] - zero[group[i] * TILE]) * scale[group[i] * TILE];
}

static int read_tile(const struct moe_turned *x, const struct moe_tensor *t, const struct tile *tile, float *out,
                     struct moe_err *e)
{
	int64_t rows = t->shape[0], cols = t->shape[1], group[SPAN];
	float code[SPAN];

	for (int64_t c = 0; c < cols; c += SPAN) {
		int n = cols - c < SPAN ? (int)(cols - c) : SPAN;
		int rc = groups_of(x, c, n, group, t->name, e);
		bool one_group = !x->group_of && group[0] == group[n - 1];

		if (rc)
			return rc;
		for (int j = 0; j < tile->n; j++) {
			codes_of(x, rows, tile->row + j, c, n, code);
			scale_span(tile, j, group, one_group, code, n, out + j * cols + c);
		}
	}
	return 0;
}

static int turned_read(const struct moe_tensor *t, int64_t row, int64_t n, float *out, struct moe_err *e)
{
	const struct moe_turned *x = (const struct moe_turned *)t->coding;
	float *room = moe_calloc((size_t)x->groups, 2 * TILE * sizeof *room, "scales", e);
	struct tile tile = {.scale = room};
	int rc = room ? 0 : MOE_E_NOMEM;

	if (room)
		tile.zero = room + x->groups * TILE;
	for (int64_t i = 0; i < n && rc == 0; i += TILE) {
		tile.row = row + i;
		tile.n = n - i < TILE ? (int)(n - i) : TILE;
		fill_tile(x, t->shape[0], &tile);
		rc = read_tile(x, t, &tile, out + i * t->shape[1], e);
	}
	free(room);
	return rc ? rc : moe_coded_check(&x->coded, e);
}

struct moe_turned *moe_turned_new(int bits, bool awq, struct moe_err *e)
{
	struct moe_turned *x = moe_calloc(1, sizeof *x, "a coded tensor", e);

	if (!x)
		return NULL;
	x->coded.coding.read = turned_read;
	x->bits = bits;
	x->awq = awq;
	return x;
}
