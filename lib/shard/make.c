/* Bytes of pieces that are not in the source as they are written: encoded, converted, in another layout. */
#include <math.h>
#include <string.h>

#include "shard/private.h"

#define READ_ROWS 8 /* rows that are turned to f32 at a time */

static bool is_coded(const struct moe_piece *p)
{
	return p->packed_name != NULL;
}

bool moe_piece_is_tiled(const struct moe_piece *p, enum moe_layout l)
{
	return is_coded(p) && l == MOE_L_R64;
}

bool moe_piece_is_there(const struct moe_piece *p, enum moe_layout l)
{
	return p->view.data && !moe_piece_is_tiled(p, l);
}

int moe_piece_unit_rows(const struct moe_piece *p, enum moe_layout l)
{
	return moe_piece_is_tiled(p, l) || moe_piece_is_tiled(p, p->has_layout) ? MOE_TILE_ROWS : 1;
}

size_t moe_piece_row_bytes(const struct moe_piece *p)
{
	return p->rows ? p->view.bytes / (size_t)p->rows : 0;
}

uint64_t moe_piece_bytes(const struct moe_piece *p, enum moe_layout l)
{
	uint64_t rows = (uint64_t)p->rows;

	if (!moe_piece_is_tiled(p, l))
		return p->view.bytes;
	return (rows + MOE_TILE_ROWS - 1) / MOE_TILE_ROWS * MOE_TILE_ROWS * moe_piece_row_bytes(p);
}

size_t moe_piece_scratch(const struct moe_piece *p)
{
	return READ_ROWS * (size_t)p->cols;
}

void moe_piece_source(const struct moe_piece *p, int64_t row, int64_t n, const unsigned char **data, size_t *bytes)
{
	const struct moe_tensor *t = p->from;
	size_t one = p->has == p->quant && is_coded(p) ? moe_piece_row_bytes(p) : (size_t)p->cols * moe_dtype_size(t->dtype);

	*data = NULL;
	*bytes = 0;
	if (t->coding)
		return;
	if (moe_piece_is_tiled(p, p->has_layout))
		n = (n + MOE_TILE_ROWS - 1) / MOE_TILE_ROWS * MOE_TILE_ROWS;
	*data = t->data + (size_t)(p->row + row) * one;
	*bytes = (size_t)n * one;
}

uint64_t moe_piece_read_bytes(const struct moe_piece *p)
{
	const unsigned char *data;
	size_t bytes;

	if (moe_piece_is_there(p, MOE_L_PLAIN))
		return p->view.bytes;
	moe_piece_source(p, 0, p->rows, &data, &bytes);
	return bytes;
}

/* Codes that are there, in the layout they have, to plain rows. */
static void take_codes(const struct moe_piece *p, int64_t row, int64_t n, unsigned char *plain)
{
	const unsigned char *from;
	size_t bytes;

	moe_piece_source(p, row, n, &from, &bytes);
	if (p->has_layout == MOE_L_PLAIN)
		memcpy(plain, from, bytes);
	else
		moe_quant_unpack(p->quant, from, (int)n, p->cols, plain);
}

static int encode(const struct moe_piece *p, int64_t row, int64_t n, unsigned char *plain, float *scratch,
                  struct moe_err *e)
{
	int rc = 0;

	for (int64_t at = 0, step; at < n && rc == 0; at += step) {
		step = n - at < READ_ROWS ? n - at : READ_ROWS;
		rc = moe_tensor_read(p->from, p->row + row + at, step, scratch, e);
		rc = rc ? rc : moe_quant_encode(p->quant, scratch, step, p->cols, p->importance,
		                                plain + (size_t)at * moe_piece_row_bytes(p), e);
		if (rc)
			moe_fail_prefix(e, rc, "tensor %s", p->from->name);
	}
	return rc;
}

/* At most a tile of rows. */
static int make_coded(const struct moe_piece *p, enum moe_layout l, int64_t row, int64_t n, unsigned char *out,
                      unsigned char *plain, float *scratch, struct moe_err *e)
{
	const unsigned char *from;
	size_t bytes;
	int rc = 0;

	if (p->has == p->quant)
		take_codes(p, row, n, plain);
	else
		rc = encode(p, row, n, plain, scratch, e);
	if (rc || l == MOE_L_PLAIN)
		return rc;
	moe_piece_source(p, row, n, &from, &bytes);
	if (p->has == p->quant && p->has_layout == l)
		memcpy(out, from, bytes);
	else
		moe_quant_pack(p->quant, plain, (int)n, p->cols, out);
	return 0;
}

static void convert(enum moe_dtype to, const float *from, size_t n, unsigned char *out)
{
	if (to == MOE_F32) {
		memcpy(out, from, n * sizeof *from);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		uint16_t h = to == MOE_F16 ? moe_f32_to_f16(from[i]) : moe_f32_to_bf16(from[i]);

		memcpy(out + 2 * i, &h, sizeof h);
	}
}

/* Infinities and what is no number are not made out of weights, nor carried on. */
static int check_fits(const struct moe_piece *p, const float *x, int64_t row, int64_t n, struct moe_err *e)
{
	/* From the halfway point behind the largest number on, rounding gives infinity. */
	float end = p->view.dtype == MOE_F16 ? 65520.0f : p->view.dtype == MOE_BF16 ? 0x1.ffp127f : INFINITY;

	for (int64_t i = 0; i < n * p->cols; i++)
		if (!(fabsf(x[i]) < end))
			return moe_fail(e, MOE_E_INPUT, "tensor %s: row %lld, column %lld is %g, which %s cannot hold", p->from->name,
			                (long long)(p->row + row + i / p->cols), (long long)(i % p->cols), (double)x[i],
			                moe_dtype_name(p->view.dtype));
	return 0;
}

static int make_uncoded(const struct moe_piece *p, int64_t row, int64_t n, unsigned char *out, float *scratch,
                        struct moe_err *e)
{
	for (int64_t at = 0, step; at < n; at += step) {
		int rc;

		step = n - at < READ_ROWS ? n - at : READ_ROWS;
		rc = moe_tensor_read(p->from, p->row + row + at, step, scratch, e);
		rc = rc ? rc : check_fits(p, scratch, row + at, step, e);
		if (rc)
			return rc;
		convert(p->view.dtype, scratch, (size_t)(step * p->cols), out + (size_t)at * moe_piece_row_bytes(p));
	}
	return 0;
}

int moe_piece_make(const struct moe_piece *p, enum moe_layout l, int64_t row, int64_t n, unsigned char *out,
                   unsigned char *plain, float *scratch, struct moe_err *e)
{
	size_t one = moe_piece_row_bytes(p);
	int rc = 0;

	if (!is_coded(p))
		return make_uncoded(p, row, n, out, scratch, e);
	for (int64_t at = 0, step; at < n && rc == 0; at += step) {
		step = n - at < MOE_TILE_ROWS ? n - at : MOE_TILE_ROWS;
		rc = make_coded(p, l, row + at, step, out, l == MOE_L_R64 ? plain : out, scratch, e);
		out += (size_t)(l == MOE_L_R64 ? MOE_TILE_ROWS : step) * one;
		if (plain)
			plain += (size_t)step * one;
	}
	return rc;
}

struct moe_extent moe_piece_extent(const struct moe_piece *p, enum moe_layout l, struct moe_hash *sum,
                                   struct moe_hash *group)
{
	struct moe_extent x = {.map = p->view.map, .bytes = moe_piece_bytes(p, l), .sum = sum, .group = group, .layout = l};

	if (moe_piece_is_there(p, l))
		x.data = p->view.data;
	else
		x.piece = p;
	return x;
}
