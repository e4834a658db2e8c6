/* Gated FFNs, one or many: gate, up and activation in a first run of the team, down in a second.  Threads share pieces
 * of (group, tile of rows, tile of outputs), so that one popular expert keeps all of them busy. */
#include <string.h>

#include "cpu.h"

/* Which piece of which group; *first: the tile's first pair. */
static struct moe_tile_at find_tile(const struct moe_cpu_ffns *f, size_t piece, bool down, const struct moe_expert_group **group,
                                    size_t *first)
{
	size_t i = moe_cpu_find(f->c->starts, f->n_groups, piece);
	const struct moe_expert_group *g = &f->groups[i];
	struct moe_cut cut = moe_cpu_cut(f->c->k, g->pairs, down ? &g->w.down : &g->w.gate);
	struct moe_tile_at at = moe_cut_at(&cut, piece - f->c->starts[i]);

	*group = g;
	*first = (size_t)(g->first + at.row);
	return at;
}

static void hidden_piece(void *arg, size_t piece, int worker)
{
	const struct moe_cpu_ffns *f = arg;
	const struct moe_kernels *k = f->c->k;
	const struct moe_expert_group *g;
	size_t first;
	struct moe_tile_at at = find_tile(f, piece, false, &g, &first);
	float *pack = moe_cpu_part(f->c, worker), *up = pack + MOE_PACK_FLOATS;
	struct moe_tile t = moe_cpu_tile(f->c, &g->w.gate, &at, pack), u = moe_cpu_tile(f->c, &g->w.up, &at, pack);
	struct moe_rows x = moe_rows_f32(f->x, g->w.gate.cols);

	moe_tile_rows(&t, t.pairs ? &f->rounded_x : &x, f->x_row, first);
	moe_tile_rows(&u, u.pairs ? &f->rounded_x : &x, f->x_row, first);
	t.ldy = (size_t)g->w.gate.rows;
	t.y = f->hidden + first * t.ldy + at.out;
	u.y = up;
	u.ldy = (size_t)at.n;
	moe_cpu_run_tile(f->c, &t);
	moe_cpu_run_tile(f->c, &u);
	for (size_t i = 0; i < (size_t)at.rows; i++)
		k->silu_mul(t.y + i * t.ldy, t.y + i * t.ldy, up + i * u.ldy, (size_t)at.n);
}

static void down_piece(void *arg, size_t piece, int worker)
{
	const struct moe_cpu_ffns *f = arg;
	const struct moe_expert_group *g;
	size_t first;
	struct moe_tile_at at = find_tile(f, piece, true, &g, &first);
	struct moe_tile t = moe_cpu_tile(f->c, &g->w.down, &at, moe_cpu_part(f->c, worker));
	struct moe_rows hidden = moe_rows_f32(f->hidden, g->w.down.cols);

	moe_tile_rows(&t, t.pairs ? &f->rounded_hidden : &hidden, NULL, first);
	t.ldy = (size_t)g->w.down.rows;
	t.y = f->y + first * t.ldy + at.out;
	moe_cpu_run_tile(f->c, &t);
	for (size_t i = 0; f->weight && i < (size_t)at.rows; i++)
		f->c->k->scale(t.y + i * t.ldy, f->weight[first + i], (size_t)at.n);
}

/* Number the pieces of all groups. */
static size_t number_pieces(struct moe_cpu_ffns *f, bool down)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n_groups; i++) {
		const struct moe_expert_group *g = &f->groups[i];
		struct moe_cut cut = moe_cpu_cut(f->c->k, g->pairs, down ? &g->w.down : &g->w.gate);

		f->c->starts[i] = n;
		n += moe_cut_tiles(&cut);
	}
	f->c->starts[f->n_groups] = n;
	return n;
}

/* Rows of bf16, if any matrix is multiplied with them. */
static int round_x(struct moe_cpu_ffns *f, struct moe_err *e)
{
	size_t bound = moe_coded_bound(f->x_row, moe_cpu_ffn_pairs(f));

	for (size_t i = 0; i < f->n_groups; i++) {
		const struct moe_expert_weights *w = &f->groups[i].w;

		if (moe_cpu_pairs(f->c, &w->gate) || moe_cpu_pairs(f->c, &w->up))
			return moe_pairs_round(f->c, &f->c->x, f->x, bound, w->gate.cols, &f->rounded_x, e);
	}
	return 0;
}

static int round_hidden(struct moe_cpu_ffns *f, struct moe_err *e)
{
	for (size_t i = 0; i < f->n_groups; i++) {
		const struct moe_matrix *down = &f->groups[i].w.down;

		if (moe_cpu_pairs(f->c, down))
			return moe_pairs_round(f->c, &f->c->hidden, f->hidden, moe_cpu_ffn_pairs(f), down->cols, &f->rounded_hidden, e);
	}
	return 0;
}

static int run_plain(struct moe_cpu_ffns *f, struct moe_err *e)
{
	int rc = moe_cpu_scratch(f->c, MOE_PACK_FLOATS + MOE_TILE_FLOATS, e);

	rc = rc ? rc : moe_cpu_starts(f->c, f->n_groups, e);
	rc = rc ? rc : round_x(f, e);
	if (rc)
		return rc;
	moe_team_run(f->c->team, number_pieces(f, false), hidden_piece, f);
	rc = round_hidden(f, e);
	if (rc == 0)
		moe_team_run(f->c->team, number_pieces(f, true), down_piece, f);
	return rc;
}

/* ---- groups that mix coded and plain matrices, or multiply coded ones in f32: one product after the other ---- */

static void silu_rows(void *arg, struct moe_range r)
{
	const struct moe_cpu_ffns *f = arg;
	size_t n = (size_t)f->groups->w.gate.rows, at = ((size_t)f->groups->first + r.from) * n;

	f->c->k->silu_mul(f->hidden + at, f->hidden + at, (const float *)f->c->up.mem + r.from * n, (r.to - r.from) * n);
}

static void weigh_rows(void *arg, struct moe_range r)
{
	const struct moe_cpu_ffns *f = arg;
	size_t n = (size_t)f->groups->w.down.rows;

	for (size_t i = (size_t)f->groups->first + r.from; i < (size_t)f->groups->first + r.to; i++)
		f->c->k->scale(f->y + i * n, f->weight[i], n);
}

/* f has one group. */
static int run_mixed(struct moe_cpu_ffns *f, struct moe_err *e)
{
	const struct moe_expert_group *g = f->groups;
	const struct moe_expert_weights *w = &g->w;
	size_t first = (size_t)g->first, pairs = (size_t)g->pairs, width = (size_t)w->gate.rows;
	struct moe_product p = {.rows = g->pairs, .w = &w->gate, .y = f->hidden + first * width, .x = f->x};
	int rc = moe_cpu_room(&f->c->up, pairs, width * sizeof(float), "products with up", e);

	if (f->x_row)
		p.x_row = f->x_row + first;
	else
		p.x += first * (size_t)w->gate.cols;
	rc = rc ? rc : moe_cpu_product(f->c, &p, e);
	p.w = &w->up;
	p.y = f->c->up.mem;
	rc = rc ? rc : moe_cpu_product(f->c, &p, e);
	if (rc)
		return rc;
	moe_cpu_each(f->c, pairs, 4, silu_rows, f);
	p = (struct moe_product){.y = f->y + first * (size_t)w->down.rows, .x = f->hidden + first * width, .rows = g->pairs,
	                         .w = &w->down};
	rc = moe_cpu_product(f->c, &p, e);
	if (rc == 0 && f->weight)
		moe_cpu_each(f->c, pairs, 4, weigh_rows, f);
	return rc;
}

/* ---- any groups ---- */

size_t moe_cpu_ffn_pairs(const struct moe_cpu_ffns *f)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n_groups; i++)
		if ((size_t)(f->groups[i].first + f->groups[i].pairs) > n)
			n = (size_t)(f->groups[i].first + f->groups[i].pairs);
	return n;
}

/* How many of a group's three matrices are coded. */
static int coded_of(const struct moe_expert_group *g)
{
	return moe_quant_is_coded(g->w.gate.quant) + moe_quant_is_coded(g->w.up.quant) +
	       moe_quant_is_coded(g->w.down.quant);
}

static int run(struct moe_cpu_ffns *f, enum moe_act act, struct moe_err *e)
{
	size_t plain = 0, coded = 0;
	int rc = 0;

	if (act != MOE_ACT_SILU)
		return moe_fail(e, MOE_E_UNSUPPORTED, "activation %d: not one the CPU has", (int)act);
	for (size_t i = 0; i < f->n_groups; i++) {
		plain += coded_of(&f->groups[i]) == 0;
		coded += coded_of(&f->groups[i]) == 3;
	}
	if (f->n_groups == 0)
		return 0;
	if (plain == f->n_groups)
		return run_plain(f, e);
	if (coded == f->n_groups && f->c->numerics.activation != MOE_A_F32)
		return moe_coded_ffn(f, e);
	for (size_t i = 0; i < f->n_groups && rc == 0; i++) {
		struct moe_cpu_ffns one = *f;

		one.groups = &f->groups[i];
		one.n_groups = 1;
		rc = run_mixed(&one, e);
	}
	return rc;
}

int moe_cpu_ffn(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
                const struct moe_expert_weights *w, enum moe_act act, float *scratch, struct moe_err *e)
{
	struct moe_expert_group one = {*w, 0, rows};
	struct moe_cpu_ffns f = {.c = moe_cpu(b), .groups = &one, .n_groups = 1, .x = x, .hidden = scratch, .y = y};

	(void)q;
	return run(&f, act, e);
}

int moe_cpu_experts(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x,
                    const struct moe_expert_group *groups, int n_groups, const int32_t *x_row, const float *weight,
                    enum moe_act act, float *scratch, struct moe_err *e)
{
	struct moe_cpu_ffns f = {.c = moe_cpu(b), .groups = groups, .n_groups = (size_t)n_groups, .x = x, .weight = weight,
	                         .x_row = x_row, .hidden = scratch, .y = y};

	(void)q;
	return run(&f, act, e);
}

struct combine {
	const struct moe_kernels *kernels;
	float *y;
	const float *parts;
	const int32_t *slot;
	size_t k, n;
};

static void combine_rows(void *arg, struct moe_range r)
{
	const struct combine *c = arg;

	for (size_t i = r.from; i < r.to; i++) {
		float *y = c->y + i * c->n;

		for (size_t j = 0; j < c->k; j++) {
			const float *part = c->parts + (size_t)c->slot[i * c->k + j] * c->n;

			if (j == 0)
				memcpy(y, part, c->n * sizeof *y);
			else
				c->kernels->add(y, part, c->n);
		}
	}
}

int moe_cpu_combine(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *parts, const int32_t *slot,
                    int rows, int k, int n, struct moe_err *e)
{
	struct combine c = {moe_cpu(b)->k, y, parts, slot, (size_t)k, (size_t)n};

	(void)q, (void)e;
	moe_cpu_each(moe_cpu(b), (size_t)rows, 16, combine_rows, &c);
	return 0;
}
