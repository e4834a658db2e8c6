/* Products of quantised rows with a coded matrix: how rows are quantised and the work is divided. */
#include <string.h>

#include "cpu.h"

#define RUN_BYTES (128 << 10)    /* weights of a piece with few rows: enough to stream */
#define FEW_ROWS 12
#define QUANTISE_GRAIN 4         /* rows a piece */

int moe_coded_layout(const struct moe_matrix *w, struct moe_err *e)
{
	if (w->layout == MOE_L_R64)
		return 0;
	return moe_fail(e, MOE_E_UNSUPPORTED, "a %s matrix in layout %s: the CPU multiplies layout %s",
	                moe_quant_name(w->quant), moe_layout_name(w->layout), moe_layout_name(MOE_L_R64));
}

/* ---- rows ---- */

struct quantise {
	const struct moe_coded_kernels *k;
	unsigned char *to;
	size_t ldx, cols;
	const float *x;
};

static void quantise_rows(void *arg, struct moe_range r)
{
	const struct quantise *q = arg;

	for (size_t i = r.from; i < r.to; i++)
		q->k->quantise(q->to + i * q->ldx, q->x + i * q->cols, q->cols, moe_quant_block((int64_t)q->cols));
}

size_t moe_coded_bound(const int32_t *x_row, size_t rows)
{
	size_t bound = x_row ? 0 : rows;

	for (size_t i = 0; x_row && i < rows; i++)
		if ((size_t)x_row[i] >= bound)
			bound = (size_t)x_row[i] + 1;
	return bound;
}

int moe_coded_quantise(struct moe_cpu *c, struct moe_room *room, const float *x, size_t bound, int64_t cols,
                       struct moe_coded_rows *out, struct moe_err *e)
{
	struct quantise q = {c->coded, NULL, moe_coded_row_bytes(c->coded, cols), (size_t)cols, x};
	int rc = moe_cpu_room(room, bound, q.ldx, "quantised rows", e);

	if (rc)
		return rc;
	q.to = room->mem;
	moe_cpu_each(c, bound, QUANTISE_GRAIN, quantise_rows, &q);
	out->x = q.to;
	out->ldx = q.ldx;
	return 0;
}

/* ---- tiles ---- */

static size_t tile_bytes(const struct moe_matrix *w)
{
	struct moe_quant_shape s;

	moe_quant_shape(w->quant, w->cols, &s);
	return MOE_TILE_ROWS * s.row_bytes;
}

struct moe_coded_cut moe_coded_cut(int rows, const struct moe_matrix *w)
{
	size_t bytes = tile_bytes(w);
	struct moe_coded_cut c = {.rows = rows, .run = 1};

	c.tiles = ((size_t)w->rows + MOE_TILE_ROWS - 1) / MOE_TILE_ROWS;
	if (rows <= FEW_ROWS && bytes > 0 && bytes < RUN_BYTES)
		c.run = RUN_BYTES / bytes;
	c.runs = (c.tiles + c.run - 1) / c.run;
	c.row_tiles = (rows + MOE_CODED_ROWS - 1) / MOE_CODED_ROWS;
	c.row_tile = c.row_tiles ? (rows + c.row_tiles - 1) / c.row_tiles : 0;
	return c;
}

const unsigned char *moe_coded_at(const struct moe_matrix *w, size_t tile)
{
	if (tile * MOE_TILE_ROWS >= (size_t)w->rows)
		return NULL;
	return (const unsigned char *)w->data + tile * tile_bytes(w);
}

struct moe_coded_tile moe_coded_tile(const struct moe_matrix *w, size_t tile, const struct moe_coded_rows *x, int row,
                                     int rows, struct moe_coded_own own)
{
	struct moe_coded_tile t = {
		.sums = own.sums,
		.x = x->x_row ? x->x : x->x + (size_t)row * x->ldx,
		.ldx = x->ldx,
		.x_row = x->x_row ? x->x_row + row : NULL,
		.w = moe_coded_at(w, tile),
		.quant = w->quant,
		.rows = rows,
		.form = own.form,
	};

	moe_quant_shape(w->quant, w->cols, &t.shape);
	return t;
}

/* ---- a product ---- */

struct coded_product {
	struct moe_cpu *c;
	const struct moe_product *p;
	struct moe_coded_rows x;
	struct moe_coded_cut cut;
};

/* A tile's sums to their place in y. */
static void put_sums(const struct coded_product *m, const float *sums, size_t tile, int row, int rows)
{
	size_t ldy = (size_t)m->p->w->rows, out = tile * MOE_TILE_ROWS, n = ldy - out;

	n = n < MOE_TILE_ROWS ? n : MOE_TILE_ROWS;
	for (int i = 0; i < rows; i++) {
		float *y = m->p->y + (size_t)(row + i) * ldy + out;

		memcpy(y, sums + (size_t)i * MOE_TILE_ROWS, n * sizeof *y);
		if (m->p->bias)
			m->c->k->add(y, m->p->bias + out, n);
	}
}

static void product_piece(void *arg, size_t piece, int worker)
{
	const struct coded_product *m = arg;
	const struct moe_coded_cut *c = &m->cut;
	int row = (int)(piece % (size_t)c->row_tiles) * c->row_tile;
	int rows = c->rows - row < c->row_tile ? c->rows - row : c->row_tile;
	size_t from = piece / (size_t)c->row_tiles * c->run, to = from + c->run < c->tiles ? from + c->run : c->tiles;
	struct moe_coded_own own = moe_coded_own(moe_cpu_part(m->c, worker));

	for (size_t i = from; i < to; i++) {
		struct moe_coded_tile t = moe_coded_tile(m->p->w, i, &m->x, row, rows, own);

		t.next = moe_coded_at(m->p->w, i + 1);
		m->c->coded->tile(&t);
		put_sums(m, own.sums, i, row, rows);
	}
}

int moe_coded_product(struct moe_cpu *c, const struct moe_product *p, struct moe_err *e)
{
	struct coded_product m = {.c = c, .p = p, .cut = moe_coded_cut(p->rows, p->w)};
	int rc = moe_coded_layout(p->w, e);

	rc = rc ? rc : moe_cpu_scratch(c, MOE_CODED_FLOATS, e);
	rc = rc ? rc : moe_coded_quantise(c, &c->x, p->x, moe_coded_bound(p->x_row, (size_t)p->rows), p->w->cols, &m.x, e);
	if (rc)
		return rc;
	m.x.x_row = p->x_row;
	moe_team_run(c->team, moe_coded_pieces(&m.cut), product_piece, &m);
	return 0;
}
