/* What follows from the numbers of a layer's attention. */
#include "checkpoint/checkpoint.h"

size_t moe_attention_kv(const struct moe_attention *a)
{
	if (a->kind == MOE_ATTN_MLA)
		return (size_t)a->kv_rank + (size_t)a->rope.dims;
	return 2 * (size_t)a->kv_heads * (size_t)a->head_dim;
}

/* Query and K/V are made of compressed vectors, which have a norm each. */
static uint64_t mla_parameters(const struct moe_attention *a, uint64_t hidden)
{
	uint64_t heads = (uint64_t)a->heads, dim = (uint64_t)a->head_dim, v = (uint64_t)a->v_dim;
	uint64_t q_rank = (uint64_t)a->q_rank, kv_rank = (uint64_t)a->kv_rank, rope = (uint64_t)a->rope.dims;
	uint64_t q = q_rank ? hidden * q_rank + q_rank + q_rank * heads * dim : hidden * heads * dim;

	return q + hidden * (kv_rank + rope) + kv_rank + kv_rank * heads * (dim - rope + v) + heads * v * hidden;
}

static uint64_t gqa_parameters(const struct moe_attention *a, uint64_t hidden)
{
	uint64_t q = (uint64_t)a->heads * (uint64_t)a->head_dim, kv = (uint64_t)a->kv_heads * (uint64_t)a->head_dim;
	uint64_t n = 2 * hidden * (q + kv);

	if (a->qkv_bias)
		n += q + 2 * kv;
	if (a->o_bias)
		n += hidden;
	if (a->qk_norm == MOE_QKN_HEAD)
		n += 2 * (uint64_t)a->head_dim;
	if (a->qk_norm == MOE_QKN_WHOLE)
		n += q + kv;
	return n;
}

uint64_t moe_attention_parameters(const struct moe_attention *a, int hidden)
{
	return a->kind == MOE_ATTN_MLA ? mla_parameters(a, (uint64_t)hidden) : gqa_parameters(a, (uint64_t)hidden);
}

double moe_attention_operations(const struct moe_attention *a)
{
	if (a->kind == MOE_ATTN_MLA)
		return 2.0 * a->heads * (2.0 * a->kv_rank + a->rope.dims);
	return 4.0 * a->heads * a->head_dim;
}
