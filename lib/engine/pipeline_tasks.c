/* What each task of a schedule does.  Which buffers it may touch is said in schedule.h. */
#include "engine/pipeline_private.h"

/* ---- where things are ---- */

struct moe_layer_on moe_pipeline_layer(const struct moe_pipeline *p, struct moe_stream_q *q, int layer)
{
	return (struct moe_layer_on){p->b, q, p->m, &p->m->layers[layer], &p->w.layers[layer], &p->vectors.layers[layer]};
}

const struct moe_expert_weights *moe_pipeline_experts(const struct moe_pipeline *p, const struct moe_spot *at)
{
	if (!p->pager)
		return p->host.experts + (size_t)at->t->layer * (size_t)moe_model_max_experts(p->m);
	return moe_pager_experts(p->pager, at->t->layer, (int)(at->pass & 1));
}

static bool coalesced(const struct moe_pipeline *p)
{
	return p->form.coalesced && !p->s->prefill;
}

/* Where the task's micro-batch is in every buffer.  Nothing that a step changes is read here: the KV cache travels while the next step's
 * rows are made up. */
static struct moe_spot spot(const struct moe_pipeline *p, const struct moe_task *t, struct moe_stream_q *q)
{
	const struct moe_schedule_shape *s = p->s;
	int64_t j = t->micro_batch < 0 ? 0 : t->micro_batch;
	int64_t layer = t->layer < 0 ? 0 : t->layer == s->layers ? t->layer - 1 : t->layer;
	struct moe_spot at = {.t = t, .q = q, .mb = &p->mb[j], .pass = (int64_t)t->step * s->layers + layer};
	size_t qkv;

	at.turn = at.pass * s->micro_batches + j;
	at.own = (size_t)j * (size_t)p->capacity;
	qkv = s->prefill ? (size_t)(at.turn & 1) * (size_t)p->capacity : at.own;
	at.heads = (struct moe_heads){p->dev.q + qkv * p->widths.q, p->dev.k + qkv * p->widths.kv, p->dev.v + qkv * p->widths.kv};
	at.mixed = p->dev.mixed + (p->form.attention_on_cpu && !s->prefill ? at.own * p->widths.q : 0);
	return at;
}

/* And its rows of this step. */
static void find_rows(const struct moe_pipeline *p, struct moe_spot *at)
{
	size_t x = p->s->hidden_moves ? (size_t)(at->turn & 1) * (size_t)p->capacity : at->own;

	at->rows = at->mb->pass.all.rows;
	if (coalesced(p))
		x = at->choice = (size_t)at->mb->first_row;
	else if (p->form.experts_on_cpu)
		at->choice = at->own;
	at->x = p->dev.x + x * (size_t)p->m->hidden;
	at->h = p->dev.h + at->choice * (size_t)p->m->hidden;
}

static size_t row_bytes(const struct moe_spot *at, int heads, const struct moe_attention *a)
{
	return (size_t)at->rows * (size_t)heads * (size_t)a->head_dim * sizeof(float);
}

static size_t hidden_bytes(const struct moe_pipeline *p, const struct moe_spot *at)
{
	return (size_t)at->rows * (size_t)p->m->hidden * sizeof(float);
}

/* ---- the lane that computes ---- */

static int embed(struct moe_pipeline *p, struct moe_spot *at, struct moe_err *e)
{
	struct moe_micro_batch *mb = at->mb;
	const struct moe_part *all = &mb->pass.all;

	mb->pass.all = (struct moe_part){0};
	TRY(p->client.next(p->client.ctx, mb, at->t->step, e));
	if (all->rows > p->capacity || all->n > p->form.sequences)
		return moe_fail(e, MOE_E_RANGE, "micro-batch %d has %d rows of %d sequences, at most %d of %d", mb->index, all->rows, all->n,
		                p->capacity, p->form.sequences);
	if (mb->index > 0)
		mb->first_row = mb[-1].first_row + mb[-1].pass.all.rows;
	TRY(moe_pipeline_kv_step(p, mb, at->t->step, e));
	find_rows(p, at);
	return at->rows > 0 ? p->b->ops->embed(p->b, at->q, at->x, mb->pass.ids, at->rows, &p->w.embed, e) : 0;
}

static int pre_attention(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	const struct moe_layer_on on = moe_pipeline_layer(p, at->q, at->t->layer);
	const struct moe_pass *pass = &at->mb->pass;

	if (p->form.experts_on_cpu && at->t->layer > 0)
		TRY(moe_pipeline_take_back(p, at, at->t->layer - 1, e));
	TRY(moe_layer_heads(&on, &at->heads, at->x, at->h, pass->positions, at->rows, e));
	if (!p->s->prefill || !p->form.kv_stored)
		return 0;
	/* Blocks travel while attention reads them: they are whole before either begins. */
	return p->b->ops->kv_store(p->b, at->q, moe_pipeline_kv_here(p, at->t->layer, at->turn), at->heads.k, at->heads.v,
	                           p->host.kv[at->mb->index].here, pass->all.n, &on.layer->attn, e);
}

/* Where attention reads and writes. */
struct place {
	struct moe_backend *b;
	struct moe_stream_q *q;
	struct moe_heads heads;
	float *out;
	struct moe_kv_view kv;
	const struct moe_attn_seq *seqs;
};

static struct place attention_place(const struct moe_pipeline *p, const struct moe_spot *at)
{
	const struct moe_pipeline_pinned *host = &p->pinned;
	struct place w = {.b = p->b, .q = at->q, .heads = at->heads, .out = at->mixed, .seqs = at->mb->pass.attn};

	if (at->t->lane == MOE_LANE_CPU && !p->form.all_cpu) {
		w.b = p->host_backend;
		w.q = NULL;
		w.heads = (struct moe_heads){host->q + at->own * p->widths.q, host->k + at->own * p->widths.kv,
		                             host->v + at->own * p->widths.kv};
		w.out = host->mixed + at->own * p->widths.q;
	} else if (p->s->prefill ? p->form.kv_stored : p->form.kv_fetched) {
		w.kv = moe_pipeline_kv_here(p, at->t->layer, at->turn);
		w.seqs = p->host.kv[at->mb->index].here;
		return w;
	}
	w.kv = moe_kv_view(p->kv, at->t->layer);
	return w;
}

static int attention(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	const struct moe_attention *a = &p->m->layers[at->t->layer].attn;
	struct place w = attention_place(p, at);
	int n = at->mb->pass.all.n;

	if (!(p->s->prefill && p->form.kv_stored))
		TRY(w.b->ops->kv_store(w.b, w.q, w.kv, w.heads.k, w.heads.v, w.seqs, n, a, e));
	return w.b->ops->attention(w.b, w.q, w.out, w.heads.q, w.kv, w.seqs, n, a, e);
}

static int choose(struct moe_pipeline *p, const struct moe_layer_on *on, const struct moe_spot *at, struct moe_err *e)
{
	int k = on->layer->ffn.gate.top_k;
	size_t first = at->choice * (size_t)k;
	struct moe_choice c = {.logits = p->dev.gate,
	                       .ids = p->dev.choice,
	                       .weights = p->dev.weight,
	                       .host_ids = p->pinned.choice + first,
	                       .host_weights = p->pinned.weight + first};
	struct moe_routed routed = {at->t->layer, k, c.host_ids, c.host_weights};

	TRY(moe_layer_choose(on, &c, at->h, at->rows, e));
	moe_report_routes(p->on_route, p->ctx_route, &at->mb->pass, &at->mb->pass.all, &routed);
	return 0;
}

static int post_attention(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	const struct moe_layer_on on = moe_pipeline_layer(p, at->q, at->t->layer);
	bool moe = on.layer->ffn.kind == MOE_FFN_MOE;

	TRY(moe_layer_output(&on, at->x, at->mixed, at->h, at->rows, e));
	TRY(moe_layer_norm(&on, at->h, at->x, at->rows, e));
	if (moe)
		TRY(choose(p, &on, at, e));
	if (moe && (coalesced(p) || p->form.experts_on_cpu))
		return 0;
	return moe_pipeline_ffn(p, at, at->x, at->choice, at->rows, e);
}

static int experts(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	int rows = 0;

	if (p->m->layers[at->t->layer].ffn.kind != MOE_FFN_MOE)
		return 0;
	if (p->form.experts_on_cpu)
		return moe_pipeline_cpu_experts(p, at, e);
	for (int j = 0; j < p->n; j++)
		rows += p->mb[j].pass.all.rows;
	return moe_pipeline_ffn(p, at, p->dev.x, 0, rows, e);
}

static int head(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	if (p->form.experts_on_cpu)
		TRY(moe_pipeline_take_back(p, at, p->m->n_layers - 1, e));
	p->speaker = *at;
	return p->client.speak(p->client.ctx, at->mb, at->t->step, e);
}

/* ---- the lanes that copy ---- */

static int store_qkv(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	const struct moe_backend_ops *op = p->b->ops;
	const struct moe_attention *a = &p->m->layers[at->t->layer].attn;
	size_t kv = row_bytes(at, a->kv_heads, a);

	TRY(op->copy_out(p->b, at->q, p->pinned.q + at->own * p->widths.q, at->heads.q, row_bytes(at, a->heads, a), e));
	TRY(op->copy_out(p->b, at->q, p->pinned.k + at->own * p->widths.kv, at->heads.k, kv, e));
	return op->copy_out(p->b, at->q, p->pinned.v + at->own * p->widths.kv, at->heads.v, kv, e);
}

static int load_hidden(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	const struct moe_backend_ops *op = p->b->ops;
	const struct moe_layer *l = &p->m->layers[at->t->layer];
	size_t own = at->own * (size_t)p->m->hidden;

	if (p->s->hidden_moves)
		return op->copy_in(p->b, at->q, at->x, p->pinned.home + own, hidden_bytes(p, at), e);
	if (!p->form.experts_on_cpu)
		return op->copy_in(p->b, at->q, at->mixed, p->pinned.mixed + at->own * p->widths.q,
		                   row_bytes(at, l->attn.heads, &l->attn), e);
	if (l->ffn.kind != MOE_FFN_MOE)
		return 0;
	return op->copy_in(p->b, at->q, p->dev.back + own, p->pinned.rows_done + own, hidden_bytes(p, at), e);
}

static int store_hidden(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	const struct moe_backend_ops *op = p->b->ops;
	size_t own = at->own * (size_t)p->m->hidden;

	if (p->s->hidden_moves)
		return op->copy_out(p->b, at->q, p->pinned.home + own, at->x, hidden_bytes(p, at), e);
	if (p->m->layers[at->t->layer].ffn.kind != MOE_FFN_MOE)
		return 0;
	return op->copy_out(p->b, at->q, p->pinned.rows_out + own, at->h, hidden_bytes(p, at), e);
}

/* ---- all of them ---- */

/* Without rows only what does not look at rows is left to do. */
static int run_rows(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	if (at->rows == 0 && at->t->kind != MOE_TASK_EXPERTS)
		return 0;
	switch (at->t->kind) {
	case MOE_TASK_PRE_ATTENTION: return pre_attention(p, at, e);
	case MOE_TASK_STORE_QKV: return store_qkv(p, at, e);
	case MOE_TASK_ATTENTION: return attention(p, at, e);
	case MOE_TASK_LOAD_HIDDEN: return load_hidden(p, at, e);
	case MOE_TASK_STORE_HIDDEN: return store_hidden(p, at, e);
	case MOE_TASK_POST_ATTENTION: return post_attention(p, at, e);
	default: return experts(p, at, e);
	}
}

int moe_pipeline_task(void *ctx, const struct moe_task *t, struct moe_stream_q *q, struct moe_err *e)
{
	struct moe_pipeline *p = ctx;
	struct moe_spot at;

	switch (t->kind) {
	case MOE_TASK_READ_WEIGHTS: return moe_pager_read(p->pager, t->layer, t->page, e);
	case MOE_TASK_PIN_WEIGHTS: return moe_pager_pin(p->pager, t->layer, t->page, e);
	case MOE_TASK_LOAD_WEIGHTS: return moe_pager_load(p->pager, q, t->layer, t->page, t->slot, e);
	default: break;
	}
	at = spot(p, t, q);
	switch (t->kind) {
	case MOE_TASK_EMBED: return embed(p, &at, e);
	case MOE_TASK_LOAD_KV: return moe_pipeline_kv_load(p, &at, e);
	case MOE_TASK_STORE_KV: return moe_pipeline_kv_store(p, &at, e);
	default: break;
	}
	find_rows(p, &at);
	return t->kind == MOE_TASK_HEAD ? head(p, &at, e) : run_rows(p, &at, e);
}
