/* The KV cache on its way: from the host to where attention on the device reads it, and back.
 *
 * On the device lie the blocks of one micro-batch in one layer, twice, by parity of the turn.  All of a sequence's blocks lie one after
 * the other, so that a block table there is a part of 0, 1, 2 ...  In decode, what the cache has is fetched, a step's keys and values are
 * added to it where attention is, and travel to the cache as the rows they are: a row is less than a block.  In prefill
 * the blocks are made on the device and travel whole. */
#include <string.h>

#include "engine/pipeline_private.h"

/* ---- before a graph ---- */

static bool has_own_blocks(const struct moe_pipeline *p)
{
	return p->s->prefill ? p->form.kv_stored : p->form.kv_fetched;
}

static int begin_micro_batch(struct moe_pipeline *p, int j, struct moe_err *e)
{
	const struct moe_micro_batch *mb = &p->mb[j];
	struct moe_micro_kv *kv = &p->host.kv[j];
	int at = 0;

	for (int i = 0; i < mb->n; i++) {
		const struct moe_seq *s = mb->seq[i];
		int n = p->s->prefill ? moe_kv_blocks_for(s->n_prompt) : s->n_blocks;

		if (n > p->form.kv_blocks - at)
			return moe_fail(e, MOE_E_RANGE, "the sequences of micro-batch %d have more than the %d KV blocks there is room for", j,
			                p->form.kv_blocks);
		memcpy(kv->blocks + at, s->blocks, (size_t)n * sizeof *kv->blocks);
		kv->first[i] = at;
		at += n;
		kv->have[1][i] = s->n_done;
	}
	return 0;
}

int moe_pipeline_kv_begin(struct moe_pipeline *p, struct moe_err *e)
{
	for (int j = 0; j < p->n && has_own_blocks(p); j++)
		TRY(begin_micro_batch(p, j, e));
	return 0;
}

/* ---- a step's rows are known ---- */

/* Which of the micro-batch's sequences it is; they mostly come in the same order. */
static int find_sequence(const struct moe_micro_batch *mb, const struct moe_seq *s, int after)
{
	for (int i = 0; i < mb->n; i++) {
		int at = (after + i) % mb->n;

		if (mb->seq[at] == s)
			return at;
	}
	return -1;
}

static void carry_over(struct moe_micro_kv *kv, const struct moe_micro_batch *mb, int step)
{
	for (int i = 0; i < mb->n; i++)
		kv->have[step & 1][i] = mb->seq[i]->ended ? 0 : kv->have[(step + 1) & 1][i];
}

int moe_pipeline_kv_step(struct moe_pipeline *p, const struct moe_micro_batch *mb, int step, struct moe_err *e)
{
	struct moe_micro_kv *kv = &p->host.kv[mb->index];
	struct moe_attn_seq *home = kv->home[step & 1];
	int at = 0;

	if (!has_own_blocks(p))
		return 0;
	carry_over(kv, mb, step);
	for (int i = 0; i < mb->pass.all.n; i++) {
		const struct moe_attn_seq *a = &mb->pass.attn[i];

		at = find_sequence(mb, mb->pass.seq[i], at);
		if (at < 0)
			return moe_fail(e, MOE_E_INPUT, "a pass of micro-batch %d has a sequence of another one", mb->index);
		if (a->pos != (p->s->prefill ? 0 : kv->have[(step + 1) & 1][at]))
			return moe_fail(e, MOE_E_INPUT, "a sequence of micro-batch %d is at position %d, its KV cache at %d", mb->index, a->pos,
			                kv->have[(step + 1) & 1][at]);
		kv->have[step & 1][at] = a->pos + a->rows;
		kv->here[i] = (struct moe_attn_seq){a->row, a->rows, a->pos, p->host.identity + kv->first[at]};
		home[i] = (struct moe_attn_seq){a->row, a->rows, a->pos, kv->blocks + kv->first[at]};
	}
	kv->n_home[step & 1] = mb->pass.all.n;
	return 0;
}

/* ---- on the way ---- */

struct moe_kv_view moe_pipeline_kv_here(const struct moe_pipeline *p, int layer, int64_t turn)
{
	struct moe_kv_view v = {.base = p->dev.kv[turn & 1], .type = p->kv->type};

	moe_kv_layer_bytes(&p->m->layers[layer].attn, v.type, &v.stride);
	return v;
}

int moe_pipeline_kv_load(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	const struct moe_micro_kv *kv = &p->host.kv[at->mb->index];
	const int32_t *have = kv->have[(at->t->step + 1) & 1];
	struct moe_kv_view to = moe_pipeline_kv_here(p, at->t->layer, at->turn), from = moe_kv_view(p->kv, at->t->layer);

	for (int i = 0; i < at->mb->n; i++)
		for (int b = 0, n = moe_kv_blocks_for(have[i]); b < n; b++) {
			size_t here = (size_t)(kv->first[i] + b), home = (size_t)kv->blocks[here];

			TRY(p->b->ops->copy_in(p->b, at->q, to.base + here * to.stride, from.base + home * from.stride, to.stride, e));
		}
	return 0;
}

/* Of all sequences of a prompt pass: home's tables are those of `here` with other numbers. */
static int store_blocks(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	const struct moe_micro_kv *kv = &p->host.kv[at->mb->index];
	const struct moe_attn_seq *home = kv->home[at->t->step & 1];
	struct moe_kv_view to = moe_kv_view(p->kv, at->t->layer), from = moe_pipeline_kv_here(p, at->t->layer, at->turn);

	for (int i = 0; i < kv->n_home[at->t->step & 1]; i++)
		for (int b = 0, n = moe_kv_blocks_for(home[i].rows); b < n; b++) {
			size_t here = (size_t)(home[i].blocks - kv->blocks) + (size_t)b;

			TRY(p->b->ops->copy_out(p->b, at->q, to.base + (size_t)home[i].blocks[b] * to.stride, from.base + here * from.stride,
			                        from.stride, e));
		}
	return 0;
}

/* The host's backend has no other work in schedules that fetch: attention is on the device. */
static int store_rows(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	const struct moe_micro_kv *kv = &p->host.kv[at->mb->index];
	const struct moe_attention *a = &p->m->layers[at->t->layer].attn;
	const struct moe_attn_seq *home = kv->home[at->t->step & 1];
	int n = kv->n_home[at->t->step & 1], rows = n > 0 ? home[n - 1].row + home[n - 1].rows : 0;
	size_t bytes = (size_t)rows * (size_t)a->kv_heads * (size_t)a->head_dim * sizeof(float);

	if (rows == 0)
		return 0;
	TRY(p->b->ops->copy_out(p->b, at->q, p->pinned.new_k, at->heads.k, bytes, e));
	TRY(p->b->ops->copy_out(p->b, at->q, p->pinned.new_v, at->heads.v, bytes, e));
	TRY(p->b->ops->sync(p->b, at->q, e));
	return p->host_backend->ops->kv_store(p->host_backend, NULL, moe_kv_view(p->kv, at->t->layer), p->pinned.new_k, p->pinned.new_v,
	                                      home, n, a, e);
}

int moe_pipeline_kv_store(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	return p->s->prefill ? store_blocks(p, at, e) : store_rows(p, at, e);
}
