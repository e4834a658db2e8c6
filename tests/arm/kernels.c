/* Kernels for AArch64 with products of bytes, against those for any machine: the same bits, and values as the reference
 * decodes them.  Cross-compiled and run by an emulator: make check-arm. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compute/cpu/coded.h"

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
	printf("1..%d\n", tests);
	return failed != 0;
}
