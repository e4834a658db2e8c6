/* The inner kernels for coded weights: one source, coded.inc, compiled per instruction set; each gives one table.
 * They multiply tiles of the layout r64 with rows quantised to int8 in blocks. */
#ifndef MOE_CPU_CODED_H
#define MOE_CPU_CODED_H

#include "tensor/tensor.h"

#define MOE_FORM_BYTES (MOE_TILE_ROWS * 256) /* a block of a tile with a byte for each weight */
#define MOE_STRIP_ROWS 16                    /* rows of a tile that .decode takes at a time */

/* A quantised row is its blocks one after the other, a block these eight bytes and then its codes, in the order that
 * the instruction set's product likes. */
struct moe_coded_block {
	float scale;
	int32_t start;               /* where integer sums start: makes up for the offset of unsigned weights */
};

/* A product: sums[i * MOE_TILE_ROWS + j] = row i . row j of the tile. */
struct moe_coded_tile {
	float *sums;                 /* [rows, MOE_TILE_ROWS] */
	const unsigned char *x;      /* row i: x + (x_row ? x_row[i] : i) * ldx */
	size_t ldx;
	const int32_t *x_row;
	const unsigned char *w;      /* the tile */
	const unsigned char *next;   /* the tile that will be read after this one, or NULL: asked for ahead of time */
	enum moe_quant quant;
	struct moe_quant_shape shape;
	int rows;
	unsigned char *form;         /* MOE_FORM_BYTES of the thread's own */
};

struct moe_coded_kernels {
	const char *isa;
	size_t group_bytes;          /* what four codes of a row take */
	/* n values of a row, from the start of a block on, to blocks of codes; the last one is filled up with zeros. */
	void (*quantise)(unsigned char *to, const float *x, size_t n, int block);
	void (*tile)(const struct moe_coded_tile *t);
	/* Rows [row, row + MOE_STRIP_ROWS) of a tile as f32 [MOE_STRIP_ROWS, blocks * block]. */
	void (*decode)(float *out, const unsigned char *tile, enum moe_quant q, const struct moe_quant_shape *s, int row);
};

/* Bytes of a quantised block, and of a row of them in whole cache lines. */
static inline size_t moe_coded_block_bytes(const struct moe_coded_kernels *k, int block)
{
	return sizeof(struct moe_coded_block) + (size_t)block / 4 * k->group_bytes;
}

static inline size_t moe_coded_row_bytes(const struct moe_coded_kernels *k, int64_t cols)
{
	size_t block = (size_t)moe_quant_block(cols);

	return (((size_t)cols + block - 1) / block * moe_coded_block_bytes(k, (int)block) + 63) / 64 * 64;
}

/* NULL where not compiled in.  Whether this CPU can run them is the caller's to know. */
const struct moe_coded_kernels *moe_coded_base(void);
const struct moe_coded_kernels *moe_coded_avx2(void);
const struct moe_coded_kernels *moe_coded_avx2vnni(void);
const struct moe_coded_kernels *moe_coded_avx512(void);
const struct moe_coded_kernels *moe_coded_avx512vnni(void);
const struct moe_coded_kernels *moe_coded_neon(void);

#endif
