/* Products with a weight matrix, and rows of one; what is special about coded ones is in coded.c and exact.c. */
#include "cpu.h"

#define DIRECT_BYTES (128 << 10) /* weights of a tile with few rows */

struct moe_cut moe_cpu_cut(const struct moe_kernels *k, int rows, const struct moe_matrix *w)
{
	struct moe_cut c = {.rows = rows, .n = (int)w->rows, .n_tile = MOE_TILE_N};

	if (rows <= k->direct_rows) {
		size_t n = w->cols > 0 ? DIRECT_BYTES / moe_cpu_row_bytes(w) / 4 * 4 : 4;
		size_t most = MOE_TILE_FLOATS / 4 / (size_t)k->direct_rows * 4;

		c.n_tile = n < 4 ? 4 : n > most ? (int)most : (int)n;
	}
	c.row_tiles = (rows + MOE_ROW_TILE - 1) / MOE_ROW_TILE;
	c.row_tile = c.row_tiles ? (rows + c.row_tiles - 1) / c.row_tiles : 0;
	c.n_tiles = (c.n + c.n_tile - 1) / c.n_tile;
	return c;
}

struct moe_tile_at moe_cut_at(const struct moe_cut *c, size_t i)
{
	struct moe_tile_at t;

	t.row = (int)(i / (size_t)c->n_tiles) * c->row_tile;
	t.out = (int)(i % (size_t)c->n_tiles) * c->n_tile;
	t.rows = c->rows - t.row < c->row_tile ? c->rows - t.row : c->row_tile;
	t.n = c->n - t.out < c->n_tile ? c->n - t.out : c->n_tile;
	return t;
}

struct moe_tile moe_cpu_tile(const struct moe_cpu *c, const struct moe_matrix *w, const struct moe_tile_at *at, float *pack)
{
	size_t ldw = moe_cpu_row_bytes(w);

	return (struct moe_tile){
		.w = (const unsigned char *)w->data + (size_t)at->out * ldw,
		.ldw = ldw,
		.k = (size_t)w->cols,
		.rows = at->rows,
		.n = at->n,
		.quant = w->quant,
		.pairs = moe_cpu_pairs(c, w),
		.pack = pack,
	};
}

void moe_tile_rows(struct moe_tile *t, const struct moe_rows *x, const int32_t *x_row, size_t row)
{
	t->x = x_row ? x->x : x->x + row * x->ldx;
	t->ldx = x->ldx;
	t->x_row = x_row ? x_row + row : NULL;
}

void moe_cpu_run_tile(const struct moe_cpu *c, const struct moe_tile *t)
{
	if (t->pairs)
		c->pairs->tile(t);
	else
		c->k->tile(t);
}

struct plain {
	struct moe_cpu *c;
	const struct moe_product *p;
	struct moe_rows x;
	struct moe_cut cut;
};

static void plain_tile(void *arg, size_t piece, int worker)
{
	const struct plain *m = arg;
	const struct moe_product *p = m->p;
	struct moe_tile_at at = moe_cut_at(&m->cut, piece);
	struct moe_tile t = moe_cpu_tile(m->c, p->w, &at, moe_cpu_part(m->c, worker));

	moe_tile_rows(&t, &m->x, p->x_row, (size_t)at.row);
	t.ldy = (size_t)p->w->rows;
	t.y = p->y + (size_t)at.row * t.ldy + at.out;
	moe_cpu_run_tile(m->c, &t);
	for (int i = 0; p->bias && i < t.rows; i++)
		m->c->k->add(t.y + (size_t)i * t.ldy, p->bias + at.out, (size_t)t.n);
}

int moe_cpu_product(struct moe_cpu *c, const struct moe_product *p, struct moe_err *e)
{
	struct plain m = {.c = c, .p = p, .x = moe_rows_f32(p->x, p->w->cols)};
	int rc;

	if (moe_quant_is_coded(p->w->quant))
		return c->numerics.activation == MOE_A_F32 ? moe_exact_product(c, p, e) : moe_coded_product(c, p, e);
	rc = moe_cpu_scratch(c, MOE_PACK_FLOATS, e);
	if (rc == 0 && moe_cpu_pairs(c, p->w))
		rc = moe_pairs_round(c, &c->x, p->x, moe_coded_bound(p->x_row, (size_t)p->rows), p->w->cols, &m.x, e);
	m.cut = moe_cpu_cut(c->k, p->rows, p->w);
	if (rc == 0)
		moe_team_run(c->team, moe_cut_tiles(&m.cut), plain_tile, &m);
	return rc;
}

int moe_cpu_matmul(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
                   const struct moe_matrix *w, const float *bias, struct moe_err *e)
{
	struct moe_product p = {.y = y, .x = x, .rows = rows, .w = w, .bias = bias};

	(void)q;
	return moe_cpu_product(moe_cpu(b), &p, e);
}

struct embed {
	struct moe_cpu *c;
	float *y;
	const int32_t *ids;
	const struct moe_matrix *w;
};

static void embed_rows(void *arg, struct moe_range r)
{
	const struct embed *m = arg;
	size_t n = (size_t)m->w->cols, ldw = moe_cpu_row_bytes(m->w);

	for (size_t i = r.from; i < r.to; i++) {
		if (moe_quant_is_coded(m->w->quant)) {
			moe_matrix_row(m->w, m->ids[i], m->y + i * n);
			continue;
		}
		m->c->k->convert(m->y + i * n, (const unsigned char *)m->w->data + (size_t)m->ids[i] * ldw, m->w->quant, n);
	}
}

int moe_cpu_embed(struct moe_backend *b, struct moe_stream_q *q, float *y, const int32_t *ids, int rows,
                  const struct moe_matrix *w, struct moe_err *e)
{
	struct embed m = {moe_cpu(b), y, ids, w};

	(void)q;
	for (int i = 0; i < rows; i++)
		if (ids[i] < 0 || ids[i] >= w->rows)
			return moe_fail(e, MOE_E_RANGE, "token %d: the vocabulary has %lld", ids[i], (long long)w->rows);
	moe_cpu_each(moe_cpu(b), (size_t)rows, 16, embed_rows, &m);
	return 0;
}
