/* The layout r64: 64 rows of a coded matrix as kernels read them, in one stream.
 *
 * A tile is its blocks of columns one after the other.  A block of a tile is
 *
 *   sub-block codes   q4: the 64 rows' heads (4 bytes a row, 2 where the block has 128 columns)
 *                     q3, q2: for each sub-block 64 bytes, one a row
 *   codes             units of 256 bytes: 4 bytes for each of the 64 rows
 *   scales            64 bf16
 *
 * so that 16 rows' codes fill a vector of 64 bytes, and the 4 bytes of a row are what an instruction like vpdpbusd
 * multiplies and sums.  A byte holds 8 / b fields of b bits; field p of byte c (0..3) belongs to column 4 p + c of the
 * unit's 32 / b columns.  q8 has units of b = 8, q4 of b = 4, q2 of b = 2; q3 has for every 32 columns two units with the
 * low two bits of the codes (b = 2) and one with their third bits (b = 1). */
#include <string.h>

#include "codes.h"

#define UNIT (4 * MOE_TILE_ROWS)

/* 32 columns of a row are b words in a plain row and a word in each of b units of a tile. */

static uint32_t load(const unsigned char *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

static void store(unsigned char *p, uint32_t v)
{
	memcpy(p, &v, sizeof v);
}

/* Four hexadecimal digits, one in each byte; and back. */
static uint32_t spread_digits(uint32_t x)
{
	x = (x | x << 8) & 0x00ff00ff;
	return (x | x << 4) & 0x0f0f0f0f;
}

static uint32_t gather_digits(uint32_t x)
{
	x = (x | x >> 4) & 0x00ff00ff;
	return (x | x >> 8) & 0xffff;
}

/* Sixteen fields of two bits as a square of four by four, mirrored. */
static uint32_t transpose_pairs(uint32_t x)
{
	uint32_t t = (x ^ x >> 6) & 0x00cc00cc;

	x ^= t ^ t << 6;
	t = (x ^ x >> 12) & 0x0000f0f0;
	return x ^ t ^ t << 12;
}

/* Where q3's column i of 32 has its low two bits (in unit i / 16) and its third. */
static int low_shift(int i)
{
	return 8 * (i % 4) + 2 * (i % 16 / 4);
}

static int high_shift(int i)
{
	return 8 * (i % 4) + i / 4;
}

static void pack_threes(const unsigned char *from, unsigned char *to)
{
	uint32_t word[3] = {0};

	for (int i = 0; i < 32; i++) {
		unsigned u = moe_code_get(from, 3, i);

		word[i / 16] |= (uint32_t)(u & 3) << low_shift(i);
		word[2] |= (uint32_t)(u >> 2) << high_shift(i);
	}
	for (int i = 0; i < 3; i++)
		store(to + (size_t)i * UNIT, word[i]);
}

static void unpack_threes(const unsigned char *from, unsigned char *to)
{
	uint32_t word[3];

	for (int i = 0; i < 3; i++)
		word[i] = load(from + (size_t)i * UNIT);
	memset(to, 0, 12);
	for (int i = 0; i < 32; i++)
		moe_code_put(to, 3, i, (word[i / 16] >> low_shift(i) & 3) | (word[2] >> high_shift(i) & 1) << 2);
}

static void pack_columns(enum moe_quant q, const unsigned char *from, unsigned char *to)
{
	if (q == MOE_Q_Q3) {
		pack_threes(from, to);
		return;
	}
	for (int i = 0; i < moe_code_bits(q); i++) {
		uint32_t v = load(from + 4 * i);

		if (q == MOE_Q_Q4)
			v = spread_digits(v & 0xffff) | spread_digits(v >> 16) << 4;
		else if (q == MOE_Q_Q2)
			v = transpose_pairs(v);
		store(to + (size_t)i * UNIT, v);
	}
}

static void unpack_columns(enum moe_quant q, const unsigned char *from, unsigned char *to)
{
	if (q == MOE_Q_Q3) {
		unpack_threes(from, to);
		return;
	}
	for (int i = 0; i < moe_code_bits(q); i++) {
		uint32_t v = load(from + (size_t)i * UNIT);

		if (q == MOE_Q_Q4)
			v = gather_digits(v & 0x0f0f0f0f) | gather_digits(v >> 4 & 0x0f0f0f0f) << 16;
		else if (q == MOE_Q_Q2)
			v = transpose_pairs(v);
		store(to + 4 * i, v);
	}
}

/* Byte i of a row's head: where it lies in the tile's. */
static size_t head_at(enum moe_quant q, const struct moe_quant_shape *s, int row, size_t i)
{
	return q == MOE_Q_Q4 ? (size_t)row * s->head_bytes + i : i * MOE_TILE_ROWS + (size_t)row;
}

/* Parts of a tile's block that starts at p. */
static size_t codes_at(const struct moe_quant_shape *s)
{
	return MOE_TILE_ROWS * s->head_bytes;
}

static size_t scales_at(const struct moe_quant_shape *s)
{
	return MOE_TILE_ROWS * (s->head_bytes + s->code_bytes);
}

static void pack_block(enum moe_quant q, const struct moe_quant_shape *s, const unsigned char *rows, int n, unsigned char *to)
{
	size_t step = 4 * (size_t)moe_code_bits(q);

	for (int r = 0; r < n; r++) {
		const unsigned char *from = rows + (size_t)r * s->row_bytes;

		for (size_t i = 0; i < s->head_bytes; i++)
			to[head_at(q, s, r, i)] = from[i];
		memcpy(to + scales_at(s) + 2 * r, from + s->head_bytes + s->code_bytes, 2);
	}
	for (size_t at = 0; at < s->code_bytes; at += step)
		for (int r = 0; r < n; r++)
			pack_columns(q, rows + (size_t)r * s->row_bytes + s->head_bytes + at,
			             to + codes_at(s) + at * MOE_TILE_ROWS + 4 * r);
}

static void unpack_block(enum moe_quant q, const struct moe_quant_shape *s, const unsigned char *from, int row,
                         unsigned char *to)
{
	size_t step = 4 * (size_t)moe_code_bits(q);

	for (size_t i = 0; i < s->head_bytes; i++)
		to[i] = from[head_at(q, s, row, i)];
	for (size_t at = 0; at < s->code_bytes; at += step)
		unpack_columns(q, from + codes_at(s) + at * MOE_TILE_ROWS + 4 * row, to + s->head_bytes + at);
	memcpy(to + s->head_bytes + s->code_bytes, from + scales_at(s) + 2 * row, 2);
}

void moe_quant_pack(enum moe_quant q, const unsigned char *rows, int n, int64_t cols, unsigned char *tile)
{
	struct moe_quant_shape s;

	moe_quant_shape(q, cols, &s);
	if (n < MOE_TILE_ROWS)
		memset(tile, 0, MOE_TILE_ROWS * s.row_bytes);
	for (int64_t b = 0; b < s.blocks; b++)
		pack_block(q, &s, rows + (size_t)b * s.block_bytes, n, tile + (size_t)b * MOE_TILE_ROWS * s.block_bytes);
}

void moe_quant_unpack(enum moe_quant q, const unsigned char *tile, int n, int64_t cols, unsigned char *rows)
{
	struct moe_quant_shape s;

	moe_quant_shape(q, cols, &s);
	for (int64_t b = 0; b < s.blocks; b++)
		for (int r = 0; r < n; r++)
			unpack_block(q, &s, tile + (size_t)b * MOE_TILE_ROWS * s.block_bytes, r,
			             rows + (size_t)r * s.row_bytes + (size_t)b * s.block_bytes);
}

void moe_quant_tile_row(enum moe_quant q, const unsigned char *tile, int row, int64_t cols, float *out)
{
	struct moe_quant_shape s;
	unsigned char block[512]; /* none has more than 258 bytes */

	moe_quant_shape(q, cols, &s);
	for (int64_t b = 0; b < s.blocks; b++) {
		int64_t at = b * s.block;

		unpack_block(q, &s, tile + (size_t)b * MOE_TILE_ROWS * s.block_bytes, row, block);
		moe_quant_decode_block(q, &s, block, cols - at < s.block ? (int)(cols - at) : s.block, out + at);
	}
}
