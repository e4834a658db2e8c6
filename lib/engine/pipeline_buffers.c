/* Where the pipeline's buffers lie: one piece of memory for each kind. */
#include "engine/pipeline_private.h"

#define F sizeof(float)

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* How many rows there are of what is kept by micro-batch in decode, and by parity of the turn in prefill. */
static size_t rows_by_turn(const struct moe_pipeline_form *f)
{
	return larger((size_t)f->micro_batches * (size_t)f->rows, 2 * (size_t)f->prefill_rows);
}

static size_t residual_rows(const struct moe_pipeline_form *f)
{
	size_t prefill = f->hidden_moves ? 2 : (size_t)f->micro_batches;

	return larger((size_t)f->micro_batches * (size_t)f->rows, prefill * (size_t)f->prefill_rows);
}

/* What the FFN takes, a few rows at a time. */
static void place_ffn(struct moe_pipeline_device *d, const struct moe_model *m, const struct moe_pipeline_form *f, struct moe_carve *c)
{
	struct moe_widths w = moe_widest(m);
	size_t hidden = (size_t)m->hidden, n = (size_t)f->expert_rows, pairs = f->experts_on_cpu ? 0 : n * w.top_k;

	d->y = moe_carve(c, n, hidden, F);
	d->z = moe_carve(c, n, hidden, F);
	d->inner = moe_carve(c, n, w.inner, F);
	d->switches = moe_carve(c, n, 1, F);
	d->parts = moe_carve(c, pairs, hidden, F);
	d->scratch = moe_carve(c, pairs, w.expert_inner, F);
}

/* Blocks of one layer, of the widest. */
static void place_kv(struct moe_pipeline_device *d, const struct moe_model *m, const struct moe_pipeline_form *f, enum moe_kv_type t,
                     size_t *kv_bytes, struct moe_carve *c)
{
	size_t before = c->used, widest = 0;

	for (int l = 0; l < m->n_layers; l++) {
		size_t n = 0;

		if (!moe_kv_layer_bytes(&m->layers[l].attn, t, &n))
			c->overflow = true;
		widest = larger(widest, n);
	}
	for (int i = 0; i < 2; i++)
		d->kv[i] = moe_carve(c, (size_t)f->kv_blocks, widest, 1);
	*kv_bytes = c->used - before;
}

void moe_pipeline_place_device(struct moe_pipeline_device *d, const struct moe_model *m, const struct moe_pipeline_form *f,
                               enum moe_kv_type t, size_t *kv_bytes, struct moe_carve *c)
{
	struct moe_widths w = moe_widest(m);
	size_t hidden = (size_t)m->hidden, turns = rows_by_turn(f), rows = (size_t)f->most_rows;
	size_t by_micro_batch = (size_t)f->micro_batches * (size_t)f->rows;

	d->x = moe_carve(c, residual_rows(f), hidden, F);
	d->h = moe_carve(c, (size_t)f->choice_rows, hidden, F);
	d->q = moe_carve(c, turns, w.q, F);
	d->k = moe_carve(c, turns, w.kv, F);
	d->v = moe_carve(c, turns, w.kv, F);
	d->mixed = moe_carve(c, f->attention_on_cpu ? larger(by_micro_batch, rows) : rows, w.q, F);
	d->back = moe_carve(c, f->experts_on_cpu ? (size_t)f->choice_rows : 0, hidden, F);
	d->gate = moe_carve(c, rows, w.experts, F);
	d->weight = moe_carve(c, rows, w.top_k, F);
	d->choice = moe_carve(c, rows, w.top_k, sizeof *d->choice);
	place_ffn(d, m, f, c);
	d->logits = moe_carve(c, (size_t)f->logits_rows, (size_t)m->vocab, F);
	place_kv(d, m, f, t, kv_bytes, c);
}

void moe_pipeline_place_pinned(struct moe_pipeline_pinned *d, const struct moe_model *m, const struct moe_pipeline_form *f,
                               struct moe_carve *c)
{
	struct moe_widths w = moe_widest(m);
	size_t hidden = (size_t)m->hidden, all = (size_t)f->micro_batches * (size_t)f->rows;
	size_t attended = f->attention_on_cpu ? all : 0, moved = f->experts_on_cpu ? (size_t)f->choice_rows : 0;
	size_t fetched = f->kv_fetched ? (size_t)f->rows : 0;

	d->q = moe_carve(c, attended, w.q, F);
	d->k = moe_carve(c, attended, w.kv, F);
	d->v = moe_carve(c, attended, w.kv, F);
	d->mixed = moe_carve(c, attended, w.q, F);
	d->home = moe_carve(c, f->hidden_moves ? (size_t)f->micro_batches * (size_t)f->prefill_rows : 0, hidden, F);
	d->rows_out = moe_carve(c, moved, hidden, F);
	d->rows_done = moe_carve(c, moved, hidden, F);
	d->new_k = moe_carve(c, fetched, w.kv, F);
	d->new_v = moe_carve(c, fetched, w.kv, F);
	d->choice = moe_carve(c, (size_t)f->choice_rows, w.top_k, sizeof *d->choice);
	d->weight = moe_carve(c, (size_t)f->choice_rows, w.top_k, F);
	d->logits = moe_carve(c, (size_t)m->vocab, 1, F);
}

static void place_micro_kv(struct moe_micro_kv *kv, const struct moe_pipeline_form *f, struct moe_carve *c)
{
	size_t n = (size_t)f->sequences;

	kv->blocks = moe_carve(c, (size_t)f->kv_blocks, 1, sizeof *kv->blocks);
	kv->first = moe_carve(c, n, 1, sizeof *kv->first);
	kv->here = moe_carve(c, n, 1, sizeof *kv->here);
	for (int i = 0; i < 2; i++) {
		kv->have[i] = moe_carve(c, n, 1, sizeof *kv->have[i]);
		kv->home[i] = moe_carve(c, n, 1, sizeof *kv->home[i]);
	}
}

void moe_pipeline_place_host(struct moe_pipeline_host *d, const struct moe_model *m, const struct moe_pipeline_form *f,
                             struct moe_carve *c)
{
	struct moe_widths w = moe_widest(m);
	size_t rows = (size_t)f->most_rows, sequences = (size_t)f->sequences;
	size_t pairs = f->experts_on_cpu ? (size_t)f->expert_rows * w.top_k : 0;
	size_t experts = f->experts_on_cpu || f->all_cpu ? (size_t)m->n_layers * (size_t)moe_model_max_experts(m) : 0;

	for (int j = 0; j < f->micro_batches; j++) {
		struct moe_pass *p = &d->pass[j];

		p->ids = moe_carve(c, rows, 1, sizeof *p->ids);
		p->positions = moe_carve(c, rows, 1, sizeof *p->positions);
		p->attn = moe_carve(c, sequences, 1, sizeof *p->attn);
		p->seq = moe_carve(c, sequences, 1, sizeof(struct moe_seq *));
		place_micro_kv(&d->kv[j], f, c);
	}
	d->identity = moe_carve(c, (size_t)f->kv_blocks, 1, sizeof *d->identity);
	d->experts = moe_carve(c, experts, 1, sizeof *d->experts);
	d->parts = moe_carve(c, pairs, (size_t)m->hidden, F);
	d->scratch = moe_carve(c, pairs, w.expert_inner, F);
}
