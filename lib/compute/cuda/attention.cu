/* Attention: which queries go together, and to which kernel.  Sequences with few queries are cut into parts of the context too, so
 * that there is work for the whole GPU; those with many have tiles enough. */
#include <stdlib.h>

#include "attend.h"

/* The work of one call: tiles of few queries and their pieces, tiles of many, all block tables one behind the other. */
struct lists {
	struct attend_tile *few, *many;
	struct attend_piece *pieces;
	int32_t *blocks;
	size_t n_few, n_many, n_pieces, n_blocks;
	int queries;                 /* of a tile of few */
	bool has_many;               /* the device has that kernel for this head_dim */
};

static size_t queries_of(const struct moe_attn_seq *s, const struct moe_attention *a)
{
	return (size_t)s->rows * (size_t)(a->heads / a->kv_heads);
}

static bool is_few(const struct lists *l, const struct moe_attn_seq *s, const struct moe_attention *a)
{
	return !l->has_many || queries_of(s, a) <= MOE_ATTEND_MOST_FEW;
}

/* The tile from query `first` on, of at most n. */
static struct attend_tile tile_at(const struct moe_attn_seq *s, const struct moe_attention *a, size_t table, size_t first, size_t n)
{
	int group = a->heads / a->kv_heads, rest = (int)(queries_of(s, a) - first);
	struct attend_tile t = {s->row, s->pos, (int)first, rest < (int)n ? rest : (int)n, (int)table, 0, 0, 0};
	int low = s->pos + t.first / group, high = s->pos + (t.first + t.n - 1) / group;

	t.first_part = (a->window > 0 && low >= a->window ? low - a->window + 1 : 0) / MOE_PART;
	t.parts = high / MOE_PART + 1 - t.first_part;
	return t;
}

static void add_few(struct lists *l, struct attend_tile t)
{
	t.piece = (int)l->n_pieces;
	for (int i = 0; i < t.parts; i++, l->n_pieces++)
		if (l->pieces)
			l->pieces[l->n_pieces] = {(int)l->n_few, t.first_part + i};
	if (l->few)
		l->few[l->n_few] = t;
	l->n_few++;
}

/* Counts, and fills what has memory.  Of many the longest come first: the last ones end together. */
static void fill(struct lists *l, const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a)
{
	l->n_few = l->n_many = l->n_pieces = l->n_blocks = 0;
	for (int i = 0; i < n_seqs; i++) {
		const struct moe_attn_seq *s = &seqs[i];
		size_t n = queries_of(s, a), blocks = s->rows > 0 ? (size_t)(s->pos + s->rows + MOE_KV_BLOCK - 1) / MOE_KV_BLOCK : 0;

		for (size_t k = 0; k < blocks && l->blocks; k++)
			l->blocks[l->n_blocks + k] = s->blocks[k];
		if (is_few(l, s, a))
			for (size_t first = 0; first < n; first += l->queries)
				add_few(l, tile_at(s, a, l->n_blocks, first, l->queries));
		else
			for (size_t tiles = (n + MOE_ATTEND_MANY - 1) / MOE_ATTEND_MANY; tiles > 0; tiles--, l->n_many++)
				if (l->many)
					l->many[l->n_many] = tile_at(s, a, l->n_blocks, (tiles - 1) * MOE_ATTEND_MANY, MOE_ATTEND_MANY);
		l->n_blocks += blocks;
	}
}

static void drop(struct lists *l)
{
	free(l->few);
	free(l->many);
	free(l->pieces);
	free(l->blocks);
}

static int make(struct lists *l, const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a, struct moe_err *e)
{
	fill(l, seqs, n_seqs, a);
	l->few = (struct attend_tile *)moe_calloc(l->n_few + 1, sizeof *l->few, "attention's tiles", e);
	l->many = (struct attend_tile *)moe_calloc(l->n_many + 1, sizeof *l->many, "attention's tiles", e);
	l->pieces = (struct attend_piece *)moe_calloc(l->n_pieces + 1, sizeof *l->pieces, "attention's pieces", e);
	l->blocks = (int32_t *)moe_calloc(l->n_blocks + 1, sizeof *l->blocks, "block tables", e);
	if (!l->few || !l->many || !l->pieces || !l->blocks)
		return MOE_E_NOMEM;
	fill(l, seqs, n_seqs, a);
	return 0;
}

/* How many queries a tile of few has: as many as share a KV head in a row, if the device has shared memory for it. */
static int choose(const struct moe_cuda *c, struct lists *l, const struct moe_kv_view *kv, const struct moe_attention *a, struct moe_err *e)
{
	const size_t beside = 4096; /* what the kernels declare */

	if (((uintptr_t)kv->base | kv->stride) % 16)
		return moe_fail(e, MOE_E_INPUT, "cuda:%d: attention: blocks of keys and values begin at multiples of 16 bytes", c->index);
	l->queries = a->heads / a->kv_heads > 4 ? MOE_ATTEND_FEW : 4;
	if (moe_attend_few_bytes(l->queries, a->head_dim) + beside > c->shared)
		l->queries = 4;
	if (moe_attend_few_bytes(l->queries, a->head_dim) + beside > c->shared)
		return moe_fail(e, MOE_E_UNSUPPORTED, "cuda:%d: attention: heads of %d elements need %zu bytes of shared memory, it has %zu", c->index,
		                a->head_dim, moe_attend_few_bytes(l->queries, a->head_dim) + beside, c->shared);
	l->has_many = a->head_dim <= MOE_ATTEND_MANY_DIM && moe_attend_many_bytes(a->head_dim) <= c->shared;
	return 0;
}

static int launch(struct moe_cuda *c, struct moe_stream_q *q, struct lists *l, struct attend *m, struct moe_err *e)
{
	struct moe_staged s[4] = {{l->few, l->n_few * sizeof *l->few, NULL}, {l->many, l->n_many * sizeof *l->many, NULL},
	                          {l->pieces, l->n_pieces * sizeof *l->pieces, NULL}, {l->blocks, l->n_blocks * sizeof *l->blocks, NULL}};
	size_t floats = l->n_pieces * (size_t)m->kv_heads * moe_attend_scratch(l->queries, m->head_dim);
	void *scratch;
	int rc = moe_cuda_stage(c, q, s, 4, e);

	rc = rc ? rc : moe_cuda_room(c, q, MOE_ROOM_ATTENTION, floats * sizeof(float), &scratch, e);
	if (rc)
		return rc;
	m->pieces = (const struct attend_piece *)s[2].device;
	m->blocks = (const int32_t *)s[3].device;
	m->scratch = (float *)scratch;
	m->queries = l->queries;
	if (l->n_many) {
		m->tiles = (const struct attend_tile *)s[1].device;
		rc = moe_cuda_check(c, moe_attend_many(m, (int)l->n_many, q->s), "attention of many queries", e);
	}
	if (rc || !l->n_few)
		return rc;
	m->tiles = (const struct attend_tile *)s[0].device;
	rc = moe_cuda_check(c, moe_attend_few(m, (int)l->n_pieces, moe_attend_few_bytes(l->queries, m->head_dim), q->s), "attention of few queries", e);
	return rc ? rc : moe_cuda_check(c, moe_attend_join(m, (int)l->n_few, q->s), "joining parts of attention", e);
}

extern "C" int moe_cuda_attention(struct moe_backend *b, struct moe_stream_q *q, float *out, const float *query, struct moe_kv_view kv,
                                  const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a, struct moe_err *e)
{
	struct moe_cuda *c = moe_cuda(b);
	struct lists l = {};
	struct attend m = {};
	int rc = moe_cuda_begin(c, &q, "attention", e);

	rc = rc ? rc : choose(c, &l, &kv, a, e);
	rc = rc ? rc : make(&l, seqs, n_seqs, a, e);
	m.out = out;
	m.query = query;
	m.kv = kv.base;
	m.stride = kv.stride;
	m.head_bytes = MOE_KV_BLOCK * moe_kv_vector_bytes(kv.type, a->head_dim);
	m.type = (int)kv.type;
	m.size = (int)moe_kv_element_bytes(kv.type);
	m.heads = a->heads;
	m.kv_heads = a->kv_heads;
	m.head_dim = a->head_dim;
	m.window = a->window;
	m.scale = a->scale;
	rc = rc ? rc : launch(c, q, &l, &m, e);
	drop(&l);
	return rc;
}
