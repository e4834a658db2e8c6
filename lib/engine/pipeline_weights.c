/* Everything but routed experts always lies on the device: attention, routers, shared experts, dense layers, embedding and head. */
#include "engine/pipeline_private.h"

/* The matrices of a model in a fixed order, those that it does not have left out.  `visit` gets the same matrix of two sets. */
typedef int visit_fn(void *ctx, struct moe_matrix *a, const struct moe_matrix *b, struct moe_err *e);

static int each_ffn(struct moe_expert_weights *a, const struct moe_expert_weights *b, visit_fn *visit, void *ctx, struct moe_err *e)
{
	TRY(visit(ctx, &a->gate, &b->gate, e));
	TRY(visit(ctx, &a->up, &b->up, e));
	return visit(ctx, &a->down, &b->down, e);
}

static int each_layer(const struct moe_ffn *f, struct moe_layer_weights *a, const struct moe_layer_weights *b, visit_fn *visit,
                      void *ctx, struct moe_err *e)
{
	TRY(visit(ctx, &a->q, &b->q, e));
	TRY(visit(ctx, &a->k, &b->k, e));
	TRY(visit(ctx, &a->v, &b->v, e));
	TRY(visit(ctx, &a->o, &b->o, e));
	if (f->kind == MOE_FFN_DENSE)
		TRY(each_ffn(&a->ffn, &b->ffn, visit, ctx, e));
	else
		TRY(visit(ctx, &a->gate, &b->gate, e));
	if (f->shared_width)
		TRY(each_ffn(&a->shared, &b->shared, visit, ctx, e));
	return f->shared_gate ? visit(ctx, &a->shared_switch, &b->shared_switch, e) : 0;
}

static int each_matrix(const struct moe_model *m, struct moe_base_weights *a, const struct moe_base_weights *b, visit_fn *visit,
                       void *ctx, struct moe_err *e)
{
	TRY(visit(ctx, &a->embed, &b->embed, e));
	if (!m->tied)
		TRY(visit(ctx, &a->head, &b->head, e));
	for (int l = 0; l < m->n_layers; l++)
		TRY(each_layer(&m->layers[l].ffn, &a->layers[l], &b->layers[l], visit, ctx, e));
	return 0;
}

static int place(void *ctx, struct moe_matrix *a, const struct moe_matrix *b, struct moe_err *e)
{
	(void)b, (void)e;
	a->data = moe_carve(ctx, moe_matrix_bytes(a), 1, 1);
	return 0;
}

void moe_base_place(struct moe_base_weights *w, const struct moe_model *m, struct moe_carve *c)
{
	each_matrix(m, w, w, place, c, NULL);
	if (m->tied)
		w->head = w->embed;
}

static int fill(void *ctx, struct moe_matrix *a, const struct moe_matrix *b, struct moe_err *e)
{
	struct moe_backend *to = ctx;

	return to->ops->copy_in(to, NULL, (void *)(uintptr_t)a->data, b->data, moe_matrix_bytes(b), e);
}

int moe_base_fill(struct moe_base_weights *to, const struct moe_base_weights *from, const struct moe_model *m, struct moe_backend *b,
                  struct moe_err *e)
{
	TRY(each_matrix(m, to, from, fill, b, e));
	return b->ops->sync(b, NULL, e);
}
