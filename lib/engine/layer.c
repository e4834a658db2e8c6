/* What a layer computes, wherever its weights and rows lie: the plain decoder and the pipeline are put together from these. */
#include "engine/private.h"

/* ---- attention's projections ---- */

static size_t q_width(const struct moe_attention *a)
{
	return (size_t)a->heads * (size_t)a->head_dim;
}

static size_t k_width(const struct moe_attention *a)
{
	return (size_t)a->kv_heads * (size_t)a->head_dim;
}

static int project(const struct moe_layer_on *l, const struct moe_heads *h, const float *x, int rows, struct moe_err *e)
{
	const struct moe_backend_ops *op = l->b->ops;

	TRY(op->matmul(l->b, l->q, h->q, x, rows, &l->w->q, l->v->q_bias, e));
	TRY(op->matmul(l->b, l->q, h->k, x, rows, &l->w->k, l->v->k_bias, e));
	return op->matmul(l->b, l->q, h->v, x, rows, &l->w->v, l->v->v_bias, e);
}

static int norm_heads(const struct moe_layer_on *l, const struct moe_heads *h, int rows, struct moe_err *e)
{
	const struct moe_backend_ops *op = l->b->ops;
	const struct moe_attention *a = &l->layer->attn;

	if (a->qk_norm == MOE_QKN_NONE)
		return 0;
	if (a->qk_norm == MOE_QKN_WHOLE) {
		TRY(op->rmsnorm(l->b, l->q, h->q, h->q, rows, (int)q_width(a), l->v->q_norm, l->m->norm_eps, e));
		return op->rmsnorm(l->b, l->q, h->k, h->k, rows, (int)k_width(a), l->v->k_norm, l->m->norm_eps, e);
	}
	TRY(op->rmsnorm(l->b, l->q, h->q, h->q, rows * a->heads, a->head_dim, l->v->q_norm, l->m->norm_eps, e));
	return op->rmsnorm(l->b, l->q, h->k, h->k, rows * a->kv_heads, a->head_dim, l->v->k_norm, l->m->norm_eps, e);
}

static int clip_heads(const struct moe_layer_on *l, const struct moe_heads *h, int rows, struct moe_err *e)
{
	const struct moe_backend_ops *op = l->b->ops;
	const struct moe_attention *a = &l->layer->attn;

	if (a->clip <= 0.0f)
		return 0;
	TRY(op->clamp(l->b, l->q, h->q, (size_t)rows * q_width(a), a->clip, e));
	TRY(op->clamp(l->b, l->q, h->k, (size_t)rows * k_width(a), a->clip, e));
	return op->clamp(l->b, l->q, h->v, (size_t)rows * k_width(a), a->clip, e);
}

/* Norm of q and k stands before the clip, as in OLMoE. */
int moe_layer_heads(const struct moe_layer_on *l, const struct moe_heads *h, const float *x, float *normed, const int32_t *positions,
                    int rows, struct moe_err *e)
{
	const struct moe_backend_ops *op = l->b->ops;
	const struct moe_attention *a = &l->layer->attn;

	TRY(op->rmsnorm(l->b, l->q, normed, x, rows, l->m->hidden, l->v->attn_norm, l->m->norm_eps, e));
	TRY(project(l, h, normed, rows, e));
	TRY(norm_heads(l, h, rows, e));
	TRY(clip_heads(l, h, rows, e));
	TRY(op->rope(l->b, l->q, h->q, positions, rows, a->heads, a->head_dim, &a->rope, e));
	return op->rope(l->b, l->q, h->k, positions, rows, a->kv_heads, a->head_dim, &a->rope, e);
}

int moe_layer_output(const struct moe_layer_on *l, float *x, const float *mixed, float *h, int rows, struct moe_err *e)
{
	const struct moe_backend_ops *op = l->b->ops;

	TRY(op->matmul(l->b, l->q, h, mixed, rows, &l->w->o, l->v->o_bias, e));
	return op->add(l->b, l->q, x, h, (size_t)rows * (size_t)l->m->hidden, e);
}

/* ---- the FFN ---- */

int moe_layer_norm(const struct moe_layer_on *l, float *h, const float *x, int rows, struct moe_err *e)
{
	return l->b->ops->rmsnorm(l->b, l->q, h, x, rows, l->m->hidden, l->v->ffn_norm, l->m->norm_eps, e);
}

int moe_layer_choose(const struct moe_layer_on *l, const struct moe_choice *c, const float *h, int rows, struct moe_err *e)
{
	const struct moe_backend_ops *op = l->b->ops;
	const struct moe_ffn *f = &l->layer->ffn;
	size_t n = (size_t)rows * (size_t)f->gate.top_k;

	TRY(op->matmul(l->b, l->q, c->logits, h, rows, &l->w->gate, NULL, e));
	TRY(op->gate(l->b, l->q, c->logits, rows, f->experts, &f->gate, c->ids, c->weights, e));
	TRY(op->copy_out(l->b, l->q, c->host_ids, c->ids, n * sizeof(int32_t), e));
	TRY(op->copy_out(l->b, l->q, c->host_weights, c->weights, n * sizeof(float), e));
	return op->sync(l->b, l->q, e);
}

int moe_layer_shared(const struct moe_layer_on *l, float *z, const float *h, float *inner, float *switches, int rows,
                     struct moe_err *e)
{
	const struct moe_backend_ops *op = l->b->ops;
	const struct moe_ffn *f = &l->layer->ffn;

	if (f->shared_width == 0)
		return 0;
	TRY(op->ffn(l->b, l->q, z, h, rows, &l->w->shared, f->act, inner, e));
	if (!f->shared_gate)
		return 0;
	TRY(op->matmul(l->b, l->q, switches, h, rows, &l->w->shared_switch, NULL, e));
	return op->sigmoid_scale(l->b, l->q, z, switches, rows, l->m->hidden, e);
}

int moe_layer_add_up(const struct moe_layer_on *l, float *x, float *y, const float *z, int rows, struct moe_err *e)
{
	const struct moe_backend_ops *op = l->b->ops;
	size_t n = (size_t)rows * (size_t)l->m->hidden;

	if (l->layer->ffn.shared_width > 0)
		TRY(op->add(l->b, l->q, y, z, n, e));
	return op->add(l->b, l->q, x, y, n, e);
}

int moe_layer_dense(const struct moe_layer_on *l, float *x, float *y, const float *h, float *inner, int rows, struct moe_err *e)
{
	const struct moe_backend_ops *op = l->b->ops;
	const struct moe_ffn *f = &l->layer->ffn;

	TRY(op->ffn(l->b, l->q, y, h, rows, &l->w->ffn, f->act, inner, e));
	return op->add(l->b, l->q, x, y, (size_t)rows * (size_t)l->m->hidden, e);
}

void moe_report_routes(moe_route_fn *fn, void *ctx, const struct moe_pass *p, const struct moe_part *part, const struct moe_routed *r)
{
	for (int i = part->first; i < part->first + part->n && fn; i++) {
		const struct moe_seq *s = p->seq[i];
		struct moe_routing out = {.id = s->id, .layer = r->layer, .k = r->k};

		for (int row = 0; row < p->attn[i].rows && !s->ended; row++) {
			size_t at = (size_t)(p->attn[i].row - part->row + row) * (size_t)r->k;

			out.position = p->attn[i].pos + row;
			out.prefill = out.position < s->n_prompt;
			out.ids = r->ids + at;
			out.weights = r->weights + at;
			fn(ctx, &out);
		}
	}
}

/* ---- the head ---- */

int moe_head_logits(const struct moe_head_on *l, float *logits, float *h, const float *x, const int32_t *rows, int n,
                    struct moe_err *e)
{
	const struct moe_backend_ops *op = l->b->ops;

	/* One part a row: combine gathers. */
	TRY(op->combine(l->b, l->q, h, x, rows, n, 1, l->m->hidden, e));
	TRY(op->rmsnorm(l->b, l->q, h, h, n, l->m->hidden, l->final_norm, l->m->norm_eps, e));
	return op->matmul(l->b, l->q, logits, h, n, l->head, NULL, e);
}
