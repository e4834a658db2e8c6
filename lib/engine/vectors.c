/* Norm weights and biases: small, used by every row, so turned to f32 once whatever the file holds. */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/private.h"

static float *place(struct moe_carve *c, bool present, int64_t n)
{
	return present ? moe_carve(c, (size_t)n, 1, sizeof(float)) : NULL;
}

void moe_vectors_place(struct moe_vectors *v, const struct moe_model *m, struct moe_carve *c)
{
	v->final_norm = place(c, true, m->hidden);
	for (int l = 0; l < m->n_layers; l++) {
		const struct moe_attention *a = &m->layers[l].attn;
		int64_t q = (int64_t)a->heads * a->head_dim, k = (int64_t)a->kv_heads * a->head_dim;
		bool norm = a->qk_norm != MOE_QKN_NONE, whole = a->qk_norm == MOE_QKN_WHOLE;

		v->layers[l] = (struct moe_layer_vectors){
			.attn_norm = place(c, true, m->hidden),
			.ffn_norm = place(c, true, m->hidden),
			.q_norm = place(c, norm, whole ? q : a->head_dim),
			.k_norm = place(c, norm, whole ? k : a->head_dim),
			.q_bias = place(c, a->qkv_bias, q),
			.k_bias = place(c, a->qkv_bias, k),
			.v_bias = place(c, a->qkv_bias, k),
			.o_bias = place(c, a->o_bias, m->hidden),
		};
	}
}

static int fill(float *to, const struct moe_vector *from, struct moe_backend *b, struct moe_err *e)
{
	if (!to)
		return 0;
	if (!from->t)
		return moe_fail(e, MOE_E_MISSING, "a norm or bias that the model has was not bound");

	size_t n = (size_t)from->n;
	float *host = moe_calloc(n, sizeof *host, "a norm weight", e);
	int rc;

	if (!host)
		return MOE_E_NOMEM;
	rc = moe_to_f32(from->t->dtype, from->t->data, host, n, e);
	if (rc != 0)
		rc = moe_fail_prefix(e, rc, "%s: ", from->t->name);
	else
		rc = b->ops->copy_in(b, NULL, to, host, n * sizeof *host, e);
	if (rc == 0)
		rc = b->ops->sync(b, NULL, e); /* the staging copy goes away */
	free(host);
	return rc;
}

static int fill_layer(const struct moe_layer_vectors *v, const struct moe_layer_weights *w, struct moe_backend *b,
                      struct moe_err *e)
{
	TRY(fill(v->attn_norm, &w->attn_norm, b, e));
	TRY(fill(v->ffn_norm, &w->ffn_norm, b, e));
	TRY(fill(v->q_norm, &w->q_norm, b, e));
	TRY(fill(v->k_norm, &w->k_norm, b, e));
	TRY(fill(v->q_bias, &w->q_bias, b, e));
	TRY(fill(v->k_bias, &w->k_bias, b, e));
	TRY(fill(v->v_bias, &w->v_bias, b, e));
	return fill(v->o_bias, &w->o_bias, b, e);
}

int moe_vectors_fill(const struct moe_vectors *v, const struct moe_model *m, const struct moe_base_weights *w,
                     struct moe_backend *b, struct moe_err *e)
{
	TRY(fill(v->final_norm, &w->final_norm, b, e));
	for (int l = 0; l < m->n_layers; l++)
		TRY(fill_layer(&v->layers[l], &w->layers[l], b, e));
	return 0;
}
