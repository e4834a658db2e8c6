/* Gated FFNs whose matrices are all coded.  In a first run of the team a piece is one block of hidden values: the tiles
 * of gate and up for it, SiLU, product and quantisation, so that hidden values never leave the cache as f32; in a second
 * down, and the gate's weight. */
#include <string.h>

#include "cpu.h"

#define BLOCK_MAX 256

struct coded_ffn {
	const struct moe_cpu_ffns *f;
	struct moe_coded_rows x, hidden; /* of all rows and of all pairs */
	unsigned char *hidden_mem;       /* hidden.x, to be written */
};

/* How a group's first run is cut: pieces are (block of hidden values, tile of rows), rows innermost. */
static struct moe_coded_cut hidden_cut(const struct moe_expert_group *g)
{
	struct moe_coded_cut c = moe_coded_cut(g->pairs, &g->w.gate);

	c.run = (size_t)moe_quant_block(g->w.gate.rows) / MOE_TILE_ROWS;
	c.runs = (c.tiles + c.run - 1) / c.run;
	return c;
}

static struct moe_coded_cut cut_of(const struct moe_expert_group *g, bool down)
{
	return down ? moe_coded_cut(g->pairs, &g->w.down) : hidden_cut(g);
}

/* A piece: rows [row, row + rows) of a group, tiles [from, to). */
struct piece {
	const struct moe_expert_group *g;
	int row, rows;
	size_t from, to;
	struct moe_coded_own own;
};

static struct piece find_piece(const struct coded_ffn *m, size_t number, int worker, bool down)
{
	struct moe_cpu *cpu = m->f->c;
	size_t i = moe_cpu_find(cpu->starts, m->f->n_groups, number);
	struct piece p = {.g = &m->f->groups[i], .own = moe_coded_own(moe_cpu_part(cpu, worker))};
	struct moe_coded_cut c = cut_of(p.g, down);

	number -= cpu->starts[i];
	p.row = (int)(number % (size_t)c.row_tiles) * c.row_tile;
	p.rows = c.rows - p.row < c.row_tile ? c.rows - p.row : c.row_tile;
	p.from = number / (size_t)c.row_tiles * c.run;
	p.to = p.from + c.run < c.tiles ? p.from + c.run : c.tiles;
	return p;
}

/* The rows of a group among all rows of x. */
static struct moe_coded_rows group_x(const struct coded_ffn *m, const struct moe_expert_group *g)
{
	struct moe_coded_rows x = m->x;

	if (m->f->x_row)
		x.x_row = m->f->x_row + g->first;
	else
		x.x += (size_t)g->first * x.ldx;
	return x;
}

/* The f32 hidden values of a piece are quantised. */
static void put_hidden(const struct coded_ffn *m, const struct piece *p, const float *values)
{
	const struct moe_coded_kernels *k = m->f->c->coded;
	int64_t width = p->g->w.gate.rows;
	int block = moe_quant_block(width);
	size_t at = p->from * MOE_TILE_ROWS, n = (size_t)width - at;
	unsigned char *to = m->hidden_mem + (size_t)(p->g->first + p->row) * m->hidden.ldx;

	to += at / (size_t)block * moe_coded_block_bytes(k, block);
	n = n < (size_t)block ? n : (size_t)block;
	for (int i = 0; i < p->rows; i++)
		k->quantise(to + (size_t)i * m->hidden.ldx, values + i * BLOCK_MAX, n, block);
}

static void hidden_piece(void *arg, size_t number, int worker)
{
	const struct coded_ffn *m = arg;
	const struct moe_kernels *k = m->f->c->k;
	const struct moe_coded_kernels *coded = m->f->c->coded;
	struct piece p = find_piece(m, number, worker, false);
	struct moe_coded_rows x = group_x(m, p.g);
	struct moe_coded_own up = p.own;
	float *values;

	up.sums += MOE_CODED_ROWS * MOE_TILE_ROWS;
	values = up.sums + MOE_CODED_ROWS * MOE_TILE_ROWS;
	for (size_t i = p.from; i < p.to; i++) {
		struct moe_coded_tile t = moe_coded_tile(&p.g->w.gate, i, &x, p.row, p.rows, p.own);
		struct moe_coded_tile u = moe_coded_tile(&p.g->w.up, i, &x, p.row, p.rows, up);

		t.next = u.w;
		u.next = moe_coded_at(&p.g->w.gate, i + 1);
		coded->tile(&t);
		coded->tile(&u);
		for (int j = 0; j < p.rows; j++)
			k->silu_mul(values + (size_t)j * BLOCK_MAX + (i - p.from) * MOE_TILE_ROWS, t.sums + j * MOE_TILE_ROWS,
			            u.sums + j * MOE_TILE_ROWS, MOE_TILE_ROWS);
	}
	put_hidden(m, &p, values);
}

static void down_piece(void *arg, size_t number, int worker)
{
	const struct coded_ffn *m = arg;
	struct piece p = find_piece(m, number, worker, true);
	const struct moe_matrix *w = &p.g->w.down;
	struct moe_coded_rows x = m->hidden;
	size_t ldy = (size_t)w->rows, first = (size_t)(p.g->first + p.row);

	x.x += (size_t)p.g->first * x.ldx;
	for (size_t i = p.from; i < p.to; i++) {
		struct moe_coded_tile t = moe_coded_tile(w, i, &x, p.row, p.rows, p.own);
		size_t out = i * MOE_TILE_ROWS, n = ldy - out < MOE_TILE_ROWS ? ldy - out : MOE_TILE_ROWS;

		t.next = moe_coded_at(w, i + 1);
		m->f->c->coded->tile(&t);
		for (size_t j = 0; j < (size_t)p.rows; j++) {
			float *y = m->f->y + (first + j) * ldy + out;

			memcpy(y, t.sums + j * MOE_TILE_ROWS, n * sizeof *y);
			if (m->f->weight)
				m->f->c->k->scale(y, m->f->weight[first + j], n);
		}
	}
}

/* Number the pieces of all groups. */
static size_t number_pieces(const struct coded_ffn *m, bool down)
{
	size_t n = 0, *starts = m->f->c->starts;

	for (size_t i = 0; i < m->f->n_groups; i++) {
		struct moe_coded_cut c = cut_of(&m->f->groups[i], down);

		starts[i] = n;
		n += moe_coded_pieces(&c);
	}
	starts[m->f->n_groups] = n;
	return n;
}

static int check(const struct moe_cpu_ffns *f, struct moe_err *e)
{
	int rc = 0;

	for (size_t i = 0; i < f->n_groups && rc == 0; i++) {
		rc = moe_coded_layout(&f->groups[i].w.gate, e);
		rc = rc ? rc : moe_coded_layout(&f->groups[i].w.up, e);
		rc = rc ? rc : moe_coded_layout(&f->groups[i].w.down, e);
	}
	return rc;
}

/* Room for the hidden states of all pairs, as codes. */
static int hidden_room(struct coded_ffn *m, size_t pairs, struct moe_err *e)
{
	struct moe_cpu *c = m->f->c;

	for (size_t i = 0; i < m->f->n_groups; i++) {
		size_t ld = moe_coded_row_bytes(c->coded, m->f->groups[i].w.gate.rows);

		m->hidden.ldx = ld > m->hidden.ldx ? ld : m->hidden.ldx;
	}
	if (moe_cpu_room(&c->hidden, pairs, m->hidden.ldx, "quantised hidden states", e))
		return MOE_E_NOMEM;
	m->hidden_mem = c->hidden.mem;
	m->hidden.x = m->hidden_mem;
	return 0;
}

int moe_coded_ffn(const struct moe_cpu_ffns *f, struct moe_err *e)
{
	struct coded_ffn m = {.f = f};
	size_t pairs = moe_cpu_ffn_pairs(f);
	int rc = check(f, e);

	rc = rc ? rc : moe_cpu_scratch(f->c, MOE_CODED_FLOATS + MOE_CODED_ROWS * (MOE_TILE_ROWS + BLOCK_MAX), e);
	rc = rc ? rc : moe_cpu_starts(f->c, f->n_groups, e);
	rc = rc ? rc : moe_coded_quantise(f->c, &f->c->x, f->x, moe_coded_bound(f->x_row, pairs),
	                                  f->groups[0].w.gate.cols, &m.x, e);
	rc = rc ? rc : hidden_room(&m, pairs, e);
	if (rc)
		return rc;
	moe_team_run(f->c->team, number_pieces(&m, false), hidden_piece, &m);
	moe_team_run(f->c->team, number_pieces(&m, true), down_piece, &m);
	return 0;
}
