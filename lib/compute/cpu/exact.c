/* Products of f32 rows with a coded matrix: a strip of weights is decoded to f32, exactly, and multiplied as such a
 * matrix is.  Made for comparing, not for speed. */
#include "cpu.h"

struct exact {
	struct moe_cpu *c;
	const struct moe_product *p;
	struct moe_quant_shape shape;
};

static void strip_piece(void *arg, size_t piece, int worker)
{
	const struct exact *m = arg;
	const struct moe_product *p = m->p;
	size_t out = piece * MOE_STRIP_ROWS, ld = (size_t)m->shape.blocks * (size_t)m->shape.block, ldy = (size_t)p->w->rows;
	float *pack = moe_cpu_part(m->c, worker), *weights = pack + MOE_PACK_FLOATS;
	int n = ldy - out < MOE_STRIP_ROWS ? (int)(ldy - out) : MOE_STRIP_ROWS;

	m->c->coded->decode(weights, moe_coded_at(p->w, out / MOE_TILE_ROWS), p->w->quant, &m->shape,
	                    (int)(out % MOE_TILE_ROWS));
	for (int row = 0; row < p->rows; row += MOE_ROW_TILE) {
		struct moe_tile t = {
			.y = p->y + (size_t)row * ldy + out,
			.ldy = ldy,
			.x = (const unsigned char *)(p->x_row ? p->x : p->x + (size_t)row * (size_t)p->w->cols),
			.ldx = (size_t)p->w->cols * sizeof(float),
			.x_row = p->x_row ? p->x_row + row : NULL,
			.w = (const unsigned char *)weights,
			.ldw = ld * sizeof(float),
			.k = (size_t)p->w->cols,
			.rows = p->rows - row < MOE_ROW_TILE ? p->rows - row : MOE_ROW_TILE,
			.n = n,
			.quant = MOE_Q_F32,
			.pack = pack,
		};

		m->c->k->tile(&t);
		for (int i = 0; p->bias && i < t.rows; i++)
			m->c->k->add(t.y + (size_t)i * ldy, p->bias + out, (size_t)n);
	}
}

int moe_exact_product(struct moe_cpu *c, const struct moe_product *p, struct moe_err *e)
{
	struct exact m = {.c = c, .p = p};
	size_t strip;
	int rc = moe_coded_layout(p->w, e);

	moe_quant_shape(p->w->quant, p->w->cols, &m.shape);
	strip = (size_t)m.shape.blocks * (size_t)m.shape.block * MOE_STRIP_ROWS;
	rc = rc ? rc : moe_cpu_scratch(c, MOE_PACK_FLOATS + strip, e);
	if (rc == 0)
		moe_team_run(c->team, ((size_t)p->w->rows + MOE_STRIP_ROWS - 1) / MOE_STRIP_ROWS, strip_piece, &m);
	return rc;
}
