/* Attention: the KV store's layout, and which queries go together.  Pieces are (sequence, KV head, tile of queries);
 * what is done with a tile is in attend.inc. */
#include <string.h>

#include "cpu.h"

_Static_assert(MOE_KV_BLOCK == 64, "attend.inc is written for blocks of 64");

struct store {
	struct moe_kv_view kv;
	const float *k, *v;
	const struct moe_attn_seq *seqs;
	size_t kv_heads, head_dim;
};

static void store_row(const struct store *m, const struct moe_attn_seq *s, int i)
{
	size_t row = (size_t)(s->row + i), pos = (size_t)s->pos + (size_t)i;
	size_t block_floats = m->kv_heads * MOE_KV_BLOCK * m->head_dim, bytes = m->head_dim * sizeof(float);
	float *block = m->kv.base + (size_t)s->blocks[pos / MOE_KV_BLOCK] * m->kv.stride;

	for (size_t h = 0; h < m->kv_heads; h++) {
		float *to = block + (h * MOE_KV_BLOCK + pos % MOE_KV_BLOCK) * m->head_dim;
		size_t from = (row * m->kv_heads + h) * m->head_dim;

		memcpy(to, m->k + from, bytes);
		memcpy(to + block_floats, m->v + from, bytes);
	}
}

static void store_seqs(void *arg, struct moe_range r)
{
	const struct store *m = arg;

	for (size_t i = r.from; i < r.to; i++)
		for (int j = 0; j < m->seqs[i].rows; j++)
			store_row(m, &m->seqs[i], j);
}

int moe_cpu_kv_store(struct moe_backend *b, struct moe_stream_q *q, struct moe_kv_view kv, const float *k, const float *v,
                     const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a, struct moe_err *e)
{
	struct store m = {kv, k, v, seqs, (size_t)a->kv_heads, (size_t)a->head_dim};

	(void)q, (void)e;
	moe_cpu_each(moe_cpu(b), (size_t)n_seqs, 4, store_seqs, &m);
	return 0;
}

struct attention {
	struct moe_cpu *c;
	float *out;
	const float *query;
	struct moe_kv_view kv;
	const struct moe_attn_seq *seqs;
	size_t n_seqs;
	const struct moe_attention *a;
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

static void attend_piece(void *arg, size_t piece, int worker)
{
	const struct attention *m = arg;
	size_t i = moe_cpu_find(m->c->starts, m->n_seqs, piece), at = piece - m->c->starts[i];
	const struct moe_attn_seq *s = &m->seqs[i];
	size_t group = (size_t)(m->a->heads / m->a->kv_heads), dim = (size_t)m->a->head_dim;
	size_t tiles = tiles_of(m, s), kv_head = at / tiles;
	size_t first = (tiles - 1 - at % tiles) * MOE_ATTEND_TILE; /* the longest first */
	size_t left = queries_of(m, s) - first;
	struct moe_attend t = {
		.n = left < MOE_ATTEND_TILE ? (int)left : MOE_ATTEND_TILE,
		.head_dim = m->a->head_dim,
		.window = m->a->window,
		.scale = m->a->scale,
		.kv = m->kv.base + kv_head * MOE_KV_BLOCK * dim,
		.stride = m->kv.stride,
		.v_offset = (size_t)m->a->kv_heads * MOE_KV_BLOCK * dim,
		.blocks = s->blocks,
		.scratch = moe_cpu_part(m->c, worker),
	};

	for (int j = 0; j < t.n; j++) {
		size_t query = first + (size_t)j, row = (size_t)s->row + query / group;
		size_t from = (row * (size_t)m->a->heads + kv_head * group + query % group) * dim;

		t.query[j] = m->query + from;
		t.out[j] = m->out + from;
		t.pos[j] = s->pos + (int)(query / group);
	}
	m->c->k->attend(&t);
}

int moe_cpu_attention(struct moe_backend *b, struct moe_stream_q *q, float *out, const float *query,
                      struct moe_kv_view kv, const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a,
                      struct moe_err *e)
{
	struct attention m = {moe_cpu(b), out, query, kv, seqs, (size_t)n_seqs, a};
	size_t pieces = 0;
	int rc;

	(void)q;
	rc = moe_cpu_scratch(m.c, moe_attend_floats(a->head_dim), e);
	rc = rc ? rc : moe_cpu_starts(m.c, m.n_seqs, e);
	if (rc)
		return rc;
	for (size_t i = 0; i < m.n_seqs; i++) {
		m.c->starts[i] = pieces;
		pieces += tiles_of(&m, &seqs[i]) * (size_t)a->kv_heads;
	}
	m.c->starts[m.n_seqs] = pieces;
	moe_team_run(m.c->team, pieces, attend_piece, &m);
	return 0;
}
