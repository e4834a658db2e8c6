/* Kernels for AArch64 with products of bytes, against those for any machine: the same bits, and values as the reference
 * decodes them.  Cross-compiled and run by an emulator: make check-arm. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compute/cpu/coded.h"
#include "compute/cpu/kernels.h"

#define ROWS 14

static uint64_t state = 1;
static int failed, tests;

static unsigned next(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(state >> 33);
}

static void *room(size_t n)
{
	void *p = aligned_alloc(64, (n + 63) / 64 * 64);

	if (!p)
		abort();
	memset(p, 0, (n + 63) / 64 * 64);
	return p;
}

static unsigned char *random_tile(const struct moe_quant_shape *s)
{
	size_t bytes = MOE_TILE_ROWS * s->row_bytes, block = MOE_TILE_ROWS * s->block_bytes;
	unsigned char *p = room(bytes);

	for (size_t i = 0; i < bytes; i++)
		p[i] = (unsigned char)next();
	for (size_t at = block; at <= bytes; at += block)
		for (size_t j = 1; j <= 2 * MOE_TILE_ROWS; j += 2)
			p[at - j] = 0x3c; /* a moderate scale */
	return p;
}

static float *random_rows(int cols)
{
	float *x = room((size_t)(ROWS * cols) * sizeof *x);

	for (int i = 0; i < ROWS * cols; i++)
		x[i] = (float)(int)next() / 1e6f - 1000;
	x[3] = 1e30f; /* one block of small codes, one of none */
	memset(x + cols, 0, (size_t)cols * sizeof *x);
	return x;
}

/* sums[ROWS, 64] of the first `rows` rows. */
static float *product(const struct moe_coded_kernels *k, enum moe_quant q, const struct moe_quant_shape *s,
                      const unsigned char *tile, const float *x, int cols, int rows)
{
	size_t ld = moe_coded_row_bytes(k, cols);
	unsigned char *codes = room(ld * ROWS), *form = room(MOE_FORM_BYTES);
	struct moe_coded_tile t = {.sums = room(ROWS * MOE_TILE_ROWS * sizeof(float)), .x = codes, .ldx = ld, .w = tile,
	                           .quant = q, .shape = *s, .rows = rows, .form = form};

	for (size_t i = 0; i < ROWS; i++)
		k->quantise(codes + i * ld, x + i * (size_t)cols, (size_t)cols, s->block);
	k->tile(&t);
	free(codes), free(form);
	return t.sums;
}

static int any(const float *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (v[i] != 0)
			return 1;
	return 0;
}

static void result(int ok, const char *what, enum moe_quant q, int cols)
{
	printf("%sok %d - %s: %s, %d columns\n", ok ? "" : "not ", ++tests, what, moe_quant_name(q), cols);
	failed += !ok;
}

static void try_products(const struct moe_coded_kernels *neon, const struct moe_coded_kernels *base, enum moe_quant q,
                         int cols)
{
	struct moe_quant_shape s;
	unsigned char *tile;
	float *x = random_rows(cols);
	int ok = 1;

	moe_quant_shape(q, cols, &s);
	tile = random_tile(&s);
	for (int rows = 1; rows <= ROWS; rows++) {
		float *a = product(neon, q, &s, tile, x, cols, rows), *b = product(base, q, &s, tile, x, cols, rows);

		ok = ok && memcmp(a, b, ROWS * MOE_TILE_ROWS * sizeof *a) == 0 && any(a, MOE_TILE_ROWS);
		free(a), free(b);
	}
	result(ok, "products", q, cols);
	free(tile), free(x);
}

static void try_decoding(const struct moe_coded_kernels *k, enum moe_quant q, int cols)
{
	struct moe_quant_shape s;
	unsigned char *tile;
	size_t ld;
	float *rows, *want = room((size_t)cols * sizeof *want);
	int ok = 1;

	moe_quant_shape(q, cols, &s);
	ld = (size_t)s.blocks * (size_t)s.block;
	rows = room(MOE_STRIP_ROWS * ld * sizeof *rows);
	tile = random_tile(&s);
	for (int row = 0; row < MOE_TILE_ROWS; row++) {
		k->decode(rows, tile, q, &s, row / MOE_STRIP_ROWS * MOE_STRIP_ROWS);
		moe_quant_tile_row(q, tile, row, cols, want);
		ok = ok && memcmp(rows + (size_t)(row % MOE_STRIP_ROWS) * ld, want, (size_t)cols * sizeof *want) == 0;
	}
	result(ok, "decoding", q, cols);
	free(tile), free(rows), free(want);
}

/* ---- products of bf16 with bf16, as doc/numerics.md says them ---- */

static float factor(uint16_t bits)
{
	float f = moe_bf16_to_f32(bits);

	return fabsf(f) < 0x1p-56f ? 0 : f;
}

static float plain_pairs(const uint16_t *w, const float *x, int n)
{
	float total = 0;

	for (int at = 0; at < n; at += 256) {
		float lane[16] = {0};

		for (int i = at; i < n && i < at + 256; i += 2) {
			float *sum = &lane[i / 2 % 16];

			if (i + 1 < n)
				*sum = fmaf(factor(w[i + 1]), factor(moe_f32_to_bf16(x[i + 1])), *sum);
			*sum = fmaf(factor(w[i]), factor(moe_f32_to_bf16(x[i])), *sum);
		}
		for (int step = 8; step; step /= 2)
			for (int l = 0; l < step; l++)
				lane[l] += lane[l + step];
		total += lane[0];
	}
	return total;
}

#define OUTPUTS 5

/* Of the first `rows` rows; with few rows weights are used as they are, with many they are packed. */
static int pairs_agree(const struct moe_kernels *k, const uint16_t *w, const float *x, int cols, int rows)
{
	size_t ldx = (size_t)(cols + 31) / 32 * 32 * k->pairs.x_bytes;
	unsigned char *rounded = room((size_t)rows * ldx);
	float *y = room((size_t)(rows * OUTPUTS) * sizeof *y), *pack = room(MOE_PACK_FLOATS * sizeof *pack);
	struct moe_tile t = {.y = y, .ldy = OUTPUTS, .x = rounded, .ldx = ldx, .w = (const unsigned char *)w,
	                     .ldw = (size_t)cols * sizeof *w, .k = (size_t)cols, .rows = rows, .n = OUTPUTS,
	                     .quant = MOE_Q_BF16, .pairs = true, .pack = pack};
	int ok = 1;

	for (int i = 0; i < rows; i++)
		k->pairs.round(rounded + (size_t)i * ldx, x + i * cols, (size_t)cols);
	k->pairs.tile(&t);
	for (int i = 0; i < rows * OUTPUTS; i++) {
		float want = plain_pairs(w + i % OUTPUTS * cols, x + i / OUTPUTS * cols, cols);

		ok = ok && memcmp(&y[i], &want, sizeof want) == 0;
	}
	free(rounded), free(y), free(pack);
	return ok;
}

static void try_pairs(const struct moe_kernels *k, int cols)
{
	float *x = random_rows(cols);
	uint16_t *w = room((size_t)(OUTPUTS * cols) * sizeof *w);
	int ok = 1;

	for (int i = 0; i < OUTPUTS * cols; i++)
		w[i] = (uint16_t)((next() & 0x807f) | (70 + next() % 60) << 7); /* about 2^-57 to 4 */
	for (int rows = 1; rows <= ROWS; rows++)
		ok = ok && pairs_agree(k, w, x, cols, rows);
	result(ok, "products of pairs", MOE_Q_BF16, cols);
	free(w), free(x);
}

int main(void)
{
	static const int cols[] = {1, 128, 300, 512};
	const struct moe_coded_kernels *neon = moe_coded_neon(), *base = moe_coded_base();

	if (!neon) {
		puts("Bail out! these kernels were not compiled for products of bytes");
		return 1;
	}
	for (int q = MOE_Q_Q8; q < MOE_QUANTS; q++)
		for (size_t i = 0; i < sizeof cols / sizeof *cols; i++) {
			try_products(neon, base, (enum moe_quant)q, cols[i]);
			try_decoding(neon, (enum moe_quant)q, cols[i]);
			try_decoding(base, (enum moe_quant)q, cols[i]);
		}
	for (size_t i = 0; i < sizeof cols / sizeof *cols; i++)
		try_pairs(moe_kernels_base(), cols[i]);
	printf("1..%d\n", tests);
	return failed != 0;
}
