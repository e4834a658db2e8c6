/* Attention: which queries go together, and who computes what.
 *
 * A tile is queries of one sequence that share a KV head.  Usually a worker takes a tile as a whole.  Where there are
 * fewer tiles than keep the team busy (one sequence that generates, say), long contexts are divided too: a worker takes
 * one part of the positions of a tile, and the parts are joined afterwards.  The sums are the same either way. */
#include <math.h>
#include <string.h>

#include "cpu.h"

_Static_assert(MOE_KV_BLOCK == 64 && MOE_ATTEND_PART % MOE_KV_BLOCK == 0, "attend.inc is written for blocks of 64");

struct attention {
	struct moe_cpu *c;
	float *out;
	const float *query;
	struct moe_kv_view kv;
	const struct moe_attn_seq *seqs;
	size_t n_seqs;
	const struct moe_attention *a;
	bool divided;                /* sequences of one tile are cut into parts */
	size_t divided_n;            /* most queries of such a tile */
};

/* Queries of one sequence that share a KV head, in order: row by row, and in a row the heads of the group. */
static size_t queries_of(const struct attention *m, const struct moe_attn_seq *s)
{
	return (size_t)s->rows * (size_t)(m->a->heads / m->a->kv_heads);
}

static size_t tiles_of(const struct attention *m, const struct moe_attn_seq *s)
{
	return (queries_of(m, s) + MOE_ATTEND_TILE - 1) / MOE_ATTEND_TILE;
}

/* Parts from the first to the last position that queries at first_pos .. last_pos see. */
struct parts {
	int first, n;
};

static struct parts parts_between(const struct attention *m, int first_pos, int last_pos)
{
	int window = m->a->window, first = window > 0 && first_pos >= window ? first_pos - window + 1 : 0;

	first /= MOE_ATTEND_PART;
	return (struct parts){first, last_pos / MOE_ATTEND_PART + 1 - first};
}

static struct parts parts_of(const struct attention *m, const struct moe_attn_seq *s)
{
	return parts_between(m, s->pos, s->pos + s->rows - 1);
}

static bool is_divided(const struct attention *m, const struct moe_attn_seq *s)
{
	return m->divided && tiles_of(m, s) == 1 && parts_of(m, s).n > 1;
}

static size_t pieces_of(const struct attention *m, const struct moe_attn_seq *s)
{
	return (size_t)m->a->kv_heads * (is_divided(m, s) ? (size_t)parts_of(m, s).n : tiles_of(m, s));
}

/* A tile; out[j] is where its query j's result goes. */
struct tile {
	struct moe_attend t;
	float *out[MOE_ATTEND_TILE];
};

static void tile_at(const struct attention *m, const struct moe_attn_seq *s, size_t kv_head, size_t first, struct tile *tile)
{
	size_t group = (size_t)(m->a->heads / m->a->kv_heads), dim = (size_t)m->a->head_dim;
	size_t head_bytes = MOE_KV_BLOCK * moe_kv_vector_bytes(m->kv.type, m->a->head_dim);
	size_t left = queries_of(m, s) - first;

	tile->t = (struct moe_attend){
		.n = left < MOE_ATTEND_TILE ? (int)left : MOE_ATTEND_TILE,
		.head_dim = m->a->head_dim,
		.window = m->a->window,
		.scale = m->a->scale,
		.type = m->kv.type,
		.kv = m->kv.base + kv_head * head_bytes,
		.stride = m->kv.stride,
		.v_offset = (size_t)m->a->kv_heads * head_bytes,
		.blocks = s->blocks,
	};
	for (int j = 0; j < tile->t.n; j++) {
		size_t query = first + (size_t)j, row = (size_t)s->row + query / group;
		size_t from = (row * (size_t)m->a->heads + kv_head * group + query % group) * dim;

		tile->t.query[j] = m->query + from;
		tile->t.pos[j] = s->pos + (int)(query / group);
		tile->out[j] = m->out + from;
	}
}

static void finish(const struct tile *tile, struct moe_attend_part all)
{
	size_t dim = (size_t)tile->t.head_dim;

	for (int i = 0; i < tile->t.n; i++)
		for (size_t d = 0; d < dim; d++)
			tile->out[i][d] = all.out[(size_t)i * dim + d] / all.sum[i];
}

/* `to` begins as nothing and takes in what is joined to it. */
static void nothing_yet(struct moe_attend_part to, int n, int head_dim)
{
	memset(to.sum, 0, (size_t)n * sizeof *to.sum);
	memset(to.out, 0, (size_t)n * (size_t)head_dim * sizeof *to.out);
	for (int i = 0; i < n; i++)
		to.max[i] = -INFINITY;
}

static void attend_tile(const struct attention *m, const struct moe_attn_seq *s, size_t at, float *mem)
{
	size_t tiles = tiles_of(m, s), part_floats = moe_attend_part_floats(MOE_ATTEND_TILE, m->a->head_dim);
	struct moe_attend_part all = moe_attend_part(mem, MOE_ATTEND_TILE), one = moe_attend_part(mem + part_floats, MOE_ATTEND_TILE);
	struct tile tile;
	struct parts p;

	tile_at(m, s, at / tiles, (tiles - 1 - at % tiles) * MOE_ATTEND_TILE, &tile); /* the longest first */
	tile.t.scratch = mem + 2 * part_floats;
	p = parts_between(m, tile.t.pos[0], tile.t.pos[tile.t.n - 1]);
	nothing_yet(all, tile.t.n, tile.t.head_dim);
	for (int i = p.first; i < p.first + p.n; i++) {
		m->c->k->attend(&tile.t, i, one);
		m->c->k->attend_join(all, one, tile.t.n, tile.t.head_dim);
	}
	finish(&tile, all);
}

/* Where a piece of a divided sequence leaves its part. */
static struct moe_attend_part part_at(const struct attention *m, size_t piece)
{
	return moe_attend_part((float *)m->c->parts.mem + piece * moe_attend_part_floats(m->divided_n, m->a->head_dim), m->divided_n);
}

static void attend_piece(void *arg, size_t piece, int worker)
{
	const struct attention *m = arg;
	size_t i = moe_cpu_find(m->c->starts, m->n_seqs, piece), at = piece - m->c->starts[i];
	const struct moe_attn_seq *s = &m->seqs[i];
	struct parts p = parts_of(m, s);
	struct tile tile;

	if (!is_divided(m, s)) {
		attend_tile(m, s, at, moe_cpu_part(m->c, worker));
		return;
	}
	tile_at(m, s, at / (size_t)p.n, 0, &tile);
	tile.t.scratch = moe_cpu_part(m->c, worker);
	m->c->k->attend(&tile.t, p.first + (int)(at % (size_t)p.n), part_at(m, piece));
}

/* Join the parts of one KV head of a divided sequence. */
static void join_piece(void *arg, size_t piece, int worker)
{
	const struct attention *m = arg;
	size_t kv_heads = (size_t)m->a->kv_heads, i = piece / kv_heads, kv_head = piece % kv_heads;
	const struct moe_attn_seq *s = &m->seqs[i];
	struct moe_attend_part all = moe_attend_part(moe_cpu_part(m->c, worker), MOE_ATTEND_TILE);
	struct parts p = parts_of(m, s);
	struct tile tile;

	if (!is_divided(m, s))
		return;
	tile_at(m, s, kv_head, 0, &tile);
	nothing_yet(all, tile.t.n, tile.t.head_dim);
	for (size_t j = 0; j < (size_t)p.n; j++)
		m->c->k->attend_join(all, part_at(m, m->c->starts[i] + kv_head * (size_t)p.n + j), tile.t.n, tile.t.head_dim);
	finish(&tile, all);
}

static size_t count_pieces(const struct attention *m)
{
	size_t pieces = 0;

	for (size_t i = 0; i < m->n_seqs; i++) {
		m->c->starts[i] = pieces;
		pieces += pieces_of(m, &m->seqs[i]);
	}
	m->c->starts[m->n_seqs] = pieces;
	return pieces;
}

/* Fewer tiles than three times the team leave workers idle at the end: cut what is long into parts. */
static int divide(struct attention *m, size_t *pieces, struct moe_err *e)
{
	m->divided = moe_team_size(m->c->team) > 1 && *pieces < 3 * (size_t)moe_team_size(m->c->team);
	for (size_t i = 0; i < m->n_seqs; i++)
		if (is_divided(m, &m->seqs[i]) && queries_of(m, &m->seqs[i]) > m->divided_n)
			m->divided_n = queries_of(m, &m->seqs[i]);
	m->divided = m->divided_n > 0;
	if (!m->divided)
		return 0;
	*pieces = count_pieces(m);
	return moe_cpu_room(&m->c->parts, *pieces, moe_attend_part_floats(m->divided_n, m->a->head_dim) * sizeof(float),
	                    "parts of attention", e);
}

int moe_cpu_attention(struct moe_backend *b, struct moe_stream_q *q, float *out, const float *query,
                      struct moe_kv_view kv, const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a,
                      struct moe_err *e)
{
	struct attention m = {moe_cpu(b), out, query, kv, seqs, (size_t)n_seqs, a, false, 0};
	size_t pieces;
	int rc;

	(void)q;
	rc = moe_cpu_scratch(m.c, moe_attend_floats(a->head_dim) + 2 * moe_attend_part_floats(MOE_ATTEND_TILE, a->head_dim), e);
	rc = rc ? rc : moe_cpu_starts(m.c, m.n_seqs, e);
	if (rc)
		return rc;
	pieces = count_pieces(&m);
	rc = divide(&m, &pieces, e);
	if (rc)
		return rc;
	moe_team_run(m.c->team, pieces, attend_piece, &m);
	if (m.divided)
		moe_team_run(m.c->team, m.n_seqs * (size_t)a->kv_heads, join_piece, &m);
	return 0;
}
