/* What shape every tensor of a model must have. */
#include "checkpoint/private.h"

static bool vector(int64_t n, int64_t *shape, int *ndim)
{
	shape[0] = n;
	*ndim = 1;
	return n > 0;
}

static bool matrix(int64_t rows, int64_t cols, int64_t *shape, int *ndim)
{
	shape[0] = rows;
	shape[1] = cols;
	*ndim = 2;
	return rows > 0 && cols > 0;
}

static bool cube(int64_t n, int64_t rows, int64_t cols, int64_t *shape, int *ndim)
{
	bool there = matrix(rows, cols, shape + 1, ndim);

	shape[0] = n;
	*ndim = 3;
	return there && n > 0;
}

static bool of_attention(const struct moe_attention *a, int64_t hidden, enum moe_role r, int64_t *shape, int *ndim)
{
	int64_t q = (int64_t)a->heads * a->head_dim, kv = (int64_t)a->kv_heads * a->head_dim;
	bool whole = a->qk_norm == MOE_QKN_WHOLE;

	if (a->kind != MOE_ATTN_GQA)
		return false;
	switch (r) {
	case MOE_R_Q:
		return matrix(q, hidden, shape, ndim);
	case MOE_R_K:
	case MOE_R_V:
		return matrix(kv, hidden, shape, ndim);
	case MOE_R_O:
		return matrix(hidden, q, shape, ndim);
	case MOE_R_Q_BIAS:
		return a->qkv_bias && vector(q, shape, ndim);
	case MOE_R_K_BIAS:
	case MOE_R_V_BIAS:
		return a->qkv_bias && vector(kv, shape, ndim);
	case MOE_R_O_BIAS:
		return a->o_bias && vector(hidden, shape, ndim);
	case MOE_R_Q_NORM:
		return a->qk_norm != MOE_QKN_NONE && vector(whole ? q : a->head_dim, shape, ndim);
	case MOE_R_K_NORM:
		return a->qk_norm != MOE_QKN_NONE && vector(whole ? kv : a->head_dim, shape, ndim);
	default:
		return false;
	}
}

/* One expert's own tensors; a model without that expert has none. */
static bool of_expert(const struct moe_ffn *f, int64_t hidden, struct moe_tensor_id id, int64_t *shape, int *ndim)
{
	if (id.expert < 0 || id.expert >= f->experts)
		return false;
	switch (id.role) {
	case MOE_R_EXPERT_GATE:
	case MOE_R_EXPERT_UP:
		return matrix(f->expert_width, hidden, shape, ndim);
	case MOE_R_EXPERT_DOWN:
	case MOE_R_EXPERT_DOWN_PART:
		return matrix(hidden, f->expert_width, shape, ndim);
	case MOE_R_EXPERT_GATE_UP:
		return matrix(2 * (int64_t)f->expert_width, hidden, shape, ndim);
	default:
		return false;
	}
}

static bool of_ffn(const struct moe_ffn *f, int64_t hidden, struct moe_tensor_id id, int64_t *shape, int *ndim)
{
	switch (id.role) {
	case MOE_R_GATE:
		return matrix(f->experts, hidden, shape, ndim);
	case MOE_R_EXPERTS_GATE_UP:
		return cube(f->experts, 2 * (int64_t)f->expert_width, hidden, shape, ndim);
	case MOE_R_EXPERTS_DOWN:
		return cube(f->experts, hidden, f->expert_width, shape, ndim);
	case MOE_R_SHARED_GATE:
	case MOE_R_SHARED_UP:
		return matrix(f->shared_width, hidden, shape, ndim);
	case MOE_R_SHARED_DOWN:
		return matrix(hidden, f->shared_width, shape, ndim);
	case MOE_R_SHARED_SWITCH:
		return f->shared_gate && matrix(1, hidden, shape, ndim);
	case MOE_R_DENSE_GATE:
	case MOE_R_DENSE_UP:
		return matrix(f->width, hidden, shape, ndim);
	case MOE_R_DENSE_DOWN:
		return matrix(hidden, f->width, shape, ndim);
	default:
		return of_expert(f, hidden, id, shape, ndim);
	}
}

bool moe_tensor_shape(const struct moe_model *m, struct moe_tensor_id id, int64_t *shape, int *ndim)
{
	switch (id.role) {
	case MOE_R_EMBED:
	case MOE_R_HEAD: /* one that is tied may be there all the same */
		return matrix(m->vocab, m->hidden, shape, ndim);
	case MOE_R_FINAL_NORM:
		return vector(m->hidden, shape, ndim);
	default:
		break;
	}
	if (id.layer < 0 || id.layer >= m->n_layers)
		return false;
	if (id.role == MOE_R_ATTN_NORM || id.role == MOE_R_FFN_NORM)
		return vector(m->hidden, shape, ndim);
	return of_attention(&m->layers[id.layer].attn, m->hidden, id.role, shape, ndim) ||
	       of_ffn(&m->layers[id.layer].ffn, m->hidden, id, shape, ndim);
}
