/* The KV store's layout on the CPU: per block and head keys as [head_dim, 64], values as [64, head_dim], of q8 each
 * followed by 64 scales. */
#include "cpu.h"

struct store {
	const struct moe_kernels *kernels;
	struct moe_kv_view kv;
	const float *k, *v;
	const struct moe_attn_seq *seqs;
	size_t kv_heads, head_dim, head_bytes;
};

static void store_row(const struct store *m, const struct moe_attn_seq *s, int i, size_t head)
{
	size_t row = (size_t)(s->row + i), pos = (size_t)s->pos + (size_t)i, in_block = pos % MOE_KV_BLOCK;
	size_t element = moe_kv_element_bytes(m->kv.type), from = (row * m->kv_heads + head) * m->head_dim;
	unsigned char *keys = m->kv.base + (size_t)s->blocks[pos / MOE_KV_BLOCK] * m->kv.stride + head * m->head_bytes;
	unsigned char *values = keys + m->kv_heads * m->head_bytes;
	size_t scale = MOE_KV_BLOCK * m->head_dim * element + 2 * in_block;
	struct moe_kv_vector k = {m->k + from, (int)m->head_dim, m->kv.type, keys + in_block * element, MOE_KV_BLOCK, keys + scale};
	struct moe_kv_vector v = {m->v + from, (int)m->head_dim, m->kv.type, values + in_block * m->head_dim * element, 1,
	                          values + scale};

	m->kernels->kv_store(&k);
	m->kernels->kv_store(&v);
}

/* A piece is one head of one sequence. */
static void store_piece(void *arg, size_t piece, int worker)
{
	const struct store *m = arg;
	const struct moe_attn_seq *s = &m->seqs[piece / m->kv_heads];

	(void)worker;
	for (int i = 0; i < s->rows; i++)
		store_row(m, s, i, piece % m->kv_heads);
}

int moe_cpu_kv_store(struct moe_backend *b, struct moe_stream_q *q, struct moe_kv_view kv, const float *k, const float *v,
                     const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a, struct moe_err *e)
{
	struct store m = {moe_cpu(b)->k, kv, k, v, seqs, (size_t)a->kv_heads, (size_t)a->head_dim,
	                  MOE_KV_BLOCK * moe_kv_vector_bytes(kv.type, a->head_dim)};

	(void)q, (void)e;
	moe_team_run(moe_cpu(b)->team, (size_t)n_seqs * m.kv_heads, store_piece, &m);
	return 0;
}
