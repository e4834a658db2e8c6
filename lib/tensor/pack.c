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

/* Where column k's bits lie in the codes of a block: byte (without the row's part) and shift. */
struct place {
	size_t byte;
	int shift;
};

static struct place place_of(int bits, size_t unit, int k)
{
	return (struct place){unit * UNIT + (size_t)(k % 4), k / 4 * bits};
}

/* The place of column k of a block, in its main plane; q3's third bits: high_place. */
static struct place main_place(enum moe_quant q, int k)
{
	switch (q) {
	case MOE_Q_Q8: return place_of(8, (size_t)k / 4, k % 4);
	case MOE_Q_Q4: return place_of(4, (size_t)k / 8, k % 8);
	case MOE_Q_Q3: return place_of(2, (size_t)(k / 32 * 3 + k % 32 / 16), k % 16);
	default: return place_of(2, (size_t)k / 16, k % 16);
	}
}

static struct place high_place(int k)
{
	return place_of(1, (size_t)(k / 32 * 3 + 2), k % 32);
}

static void put(unsigned char *codes, enum moe_quant q, int row, int k, unsigned u)
{
	struct place p = main_place(q, k);

	codes[p.byte + (size_t)row * 4] |= (unsigned char)((q == MOE_Q_Q3 ? u & 3 : u) << p.shift);
	if (q == MOE_Q_Q3) {
		p = high_place(k);
		codes[p.byte + (size_t)row * 4] |= (unsigned char)(u >> 2 << p.shift);
	}
}

static unsigned get(const unsigned char *codes, enum moe_quant q, int row, int k)
{
	struct place p = main_place(q, k);
	int bits = q == MOE_Q_Q3 ? 2 : moe_code_bits(q);
	unsigned u = (unsigned)codes[p.byte + (size_t)row * 4] >> p.shift & ((1u << bits) - 1);

	if (q == MOE_Q_Q3) {
		p = high_place(k);
		u |= ((unsigned)codes[p.byte + (size_t)row * 4] >> p.shift & 1) << 2;
	}
	return u;
}

/* Byte i of a row's head: where it lies in the tile's. */
static size_t head_at(enum moe_quant q, const struct moe_quant_shape *s, int row, size_t i)
{
	return q == MOE_Q_Q4 ? (size_t)row * s->head_bytes + i : i * MOE_TILE_ROWS + (size_t)row;
}

void moe_quant_pack(enum moe_quant q, const unsigned char *rows, int n, int64_t cols, unsigned char *tile)
{
	struct moe_quant_shape s;
	int bits = moe_code_bits(q);

	moe_quant_shape(q, cols, &s);
	memset(tile, 0, MOE_TILE_ROWS * s.row_bytes);
	for (int64_t b = 0; b < s.blocks; b++) {
		unsigned char *to = tile + (size_t)b * MOE_TILE_ROWS * s.block_bytes;
		unsigned char *codes = to + MOE_TILE_ROWS * s.head_bytes, *scales = codes + MOE_TILE_ROWS * s.code_bytes;

		for (int r = 0; r < n; r++) {
			const unsigned char *from = rows + (size_t)r * s.row_bytes + (size_t)b * s.block_bytes;

			for (size_t i = 0; i < s.head_bytes; i++)
				to[head_at(q, &s, r, i)] = from[i];
			for (int k = 0; k < s.block; k++)
				put(codes, q, r, k, moe_code_get(from + s.head_bytes, bits, k));
			memcpy(scales + 2 * r, from + s.head_bytes + s.code_bytes, 2);
		}
	}
}

static void unpack_row(enum moe_quant q, const struct moe_quant_shape *s, const unsigned char *tile, int row,
                       unsigned char *out)
{
	int bits = moe_code_bits(q);

	memset(out, 0, s->row_bytes);
	for (int64_t b = 0; b < s->blocks; b++) {
		const unsigned char *from = tile + (size_t)b * MOE_TILE_ROWS * s->block_bytes;
		const unsigned char *codes = from + MOE_TILE_ROWS * s->head_bytes;
		unsigned char *to = out + (size_t)b * s->block_bytes;

		for (size_t i = 0; i < s->head_bytes; i++)
			to[i] = from[head_at(q, s, row, i)];
		for (int k = 0; k < s->block; k++)
			moe_code_put(to + s->head_bytes, bits, k, get(codes, q, row, k));
		memcpy(to + s->head_bytes + s->code_bytes, codes + MOE_TILE_ROWS * s->code_bytes + 2 * row, 2);
	}
}

void moe_quant_unpack(enum moe_quant q, const unsigned char *tile, int n, int64_t cols, unsigned char *rows)
{
	struct moe_quant_shape s;

	moe_quant_shape(q, cols, &s);
	for (int r = 0; r < n; r++)
		unpack_row(q, &s, tile, r, rows + (size_t)r * s.row_bytes);
}

void moe_quant_tile_row(enum moe_quant q, const unsigned char *tile, int row, int64_t cols, float *out)
{
	struct moe_quant_shape s;

	moe_quant_shape(q, cols, &s);
	for (int64_t k = 0; k < cols; k++) {
		int at = (int)(k % s.block);
		const unsigned char *from = tile + (size_t)(k / s.block) * MOE_TILE_ROWS * s.block_bytes;
		const unsigned char *codes = from + MOE_TILE_ROWS * s.head_bytes;
		struct moe_sub x = moe_sub_of(q, 0);
		uint16_t d;

		if (s.sub) {
			int i = at / s.sub, per = 8 / moe_sub_bits(q);

			x = moe_sub_of(q, moe_code_get(from + head_at(q, &s, row, (size_t)(i / per)), moe_sub_bits(q), i % per));
		}
		memcpy(&d, codes + MOE_TILE_ROWS * s.code_bytes + 2 * row, 2);
		out[k] = moe_bf16_to_f32(d) * (float)(x.s * (int)get(codes, q, row, at) - x.o);
	}
}
