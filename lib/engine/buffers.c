/* The arrays of one step, for the widest layer. */
#include "engine/private.h"

static void raise_to(size_t *v, int64_t n)
{
	if (n > 0 && (size_t)n > *v)
		*v = (size_t)n;
}

struct moe_widths moe_widest(const struct moe_model *m)
{
	struct moe_widths w = {0};

	for (int l = 0; l < m->n_layers; l++) {
		const struct moe_attention *a = &m->layers[l].attn;
		const struct moe_ffn *f = &m->layers[l].ffn;

		raise_to(&w.q, (int64_t)a->heads * a->head_dim);
		raise_to(&w.kv, (int64_t)a->kv_heads * a->head_dim);
		raise_to(&w.inner, f->kind == MOE_FFN_DENSE ? f->width : f->shared_width);
		if (f->kind == MOE_FFN_MOE) {
			raise_to(&w.experts, f->experts);
			raise_to(&w.top_k, f->gate.top_k);
			raise_to(&w.expert_inner, f->expert_width);
		}
	}
	return w;
}

void moe_buffers_place(struct moe_buffers *b, const struct moe_model *m, int rows, int logits_rows, struct moe_carve *c)
{
	struct moe_widths w = moe_widest(m);
	size_t r = (size_t)rows, f = sizeof(float);
	size_t hidden = (size_t)m->hidden;

	b->x = moe_carve(c, r, hidden, f);
	b->h = moe_carve(c, r, hidden, f);
	b->y = moe_carve(c, r, hidden, f);
	b->z = moe_carve(c, r, hidden, f);
	b->q = moe_carve(c, r, w.q, f);
	b->mixed = moe_carve(c, r, w.q, f);
	b->k = moe_carve(c, r, w.kv, f);
	b->v = moe_carve(c, r, w.kv, f);
	b->gate = moe_carve(c, r, w.experts, f);
	b->choice = moe_carve(c, r, w.top_k, sizeof(int32_t));
	b->weight = moe_carve(c, r, w.top_k, f);
	b->inner = moe_carve(c, r, w.inner, f);
	b->switches = moe_carve(c, r, 1, f);
	b->logits = moe_carve(c, (size_t)logits_rows, (size_t)m->vocab, f);
}

void moe_host_buffers_place(struct moe_host_buffers *b, const struct moe_model *m, int rows, int sequences,
                            struct moe_carve *c)
{
	struct moe_widths w = moe_widest(m);
	size_t r = (size_t)rows, n = (size_t)sequences, vocab = (size_t)m->vocab;

	b->ids = moe_carve(c, r, 1, sizeof *b->ids);
	b->positions = moe_carve(c, r, 1, sizeof *b->positions);
	b->attn = moe_carve(c, n + 1, 1, sizeof *b->attn);
	b->seq = moe_carve(c, n + 1, 1, sizeof *b->seq);
	b->choice = moe_carve(c, r, w.top_k, sizeof *b->choice);
	b->weight = moe_carve(c, r, w.top_k, sizeof *b->weight);
	b->failed = moe_carve(c, r, 1, sizeof *b->failed);
	b->degraded = moe_carve(c, r, 1, sizeof *b->degraded);
	b->slots = moe_carve(c, r, 1, sizeof *b->slots);
	b->logits = moe_carve(c, vocab, 1, sizeof *b->logits);
	b->p = moe_carve(c, vocab, 1, sizeof *b->p);
	b->order = moe_carve(c, vocab, 1, sizeof *b->order);
}
