/* A model description as a value, and what follows from its numbers. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "checkpoint/private.h"

void moe_model_free(struct moe_model *m)
{
	free(m->layers);
	m->layers = NULL;
	m->n_layers = 0;
}

int moe_model_copy(const struct moe_model *m, struct moe_model *out, struct moe_err *e)
{
	struct moe_model copy = *m;

	copy.layers = moe_calloc((size_t)m->n_layers, sizeof *m->layers, "layers", e);
	if (!copy.layers)
		return MOE_E_NOMEM;
	if (m->n_layers)
		memcpy(copy.layers, m->layers, (size_t)m->n_layers * sizeof *m->layers);
	*out = copy;
	return 0;
}

size_t moe_model_kv_bytes_per_token(const struct moe_model *m, size_t element)
{
	size_t n = 0;

	for (int i = 0; i < m->n_layers; i++)
		n += moe_attention_kv(&m->layers[i].attn) * element;
	return n;
}

int moe_model_moe_layers(const struct moe_model *m)
{
	int n = 0;

	for (int i = 0; i < m->n_layers; i++)
		n += m->layers[i].ffn.kind == MOE_FFN_MOE;
	return n;
}

int moe_model_max_experts(const struct moe_model *m)
{
	int most = 0;

	for (int i = 0; i < m->n_layers; i++)
		if (m->layers[i].ffn.experts > most)
			most = m->layers[i].ffn.experts;
	return most;
}

int moe_model_max_top_k(const struct moe_model *m)
{
	int most = 0;

	for (int i = 0; i < m->n_layers; i++)
		if (m->layers[i].ffn.kind == MOE_FFN_MOE && m->layers[i].ffn.gate.top_k > most)
			most = m->layers[i].ffn.gate.top_k;
	return most;
}

int moe_model_max_expert_width(const struct moe_model *m)
{
	int most = 0;

	for (int i = 0; i < m->n_layers; i++)
		if (m->layers[i].ffn.kind == MOE_FFN_MOE && m->layers[i].ffn.expert_width > most)
			most = m->layers[i].ffn.expert_width;
	return most;
}

uint64_t moe_model_expert_size(const struct moe_model *m, int layer, uint64_t element)
{
	return 3 * (uint64_t)m->hidden * (uint64_t)m->layers[layer].ffn.expert_width * element;
}

static uint64_t elements(const struct moe_model *m, enum moe_role role, int layer)
{
	struct moe_tensor_id id = {role, layer, -1};
	int64_t shape[MOE_MAX_DIMS];
	uint64_t n = 1;
	int ndim;

	if (!moe_tensor_shape(m, id, shape, &ndim))
		return 0;
	for (int i = 0; i < ndim; i++)
		n *= (uint64_t)shape[i];
	return n;
}

static bool is_attention(enum moe_role r)
{
	return r >= MOE_R_Q && r <= MOE_R_K_NORM;
}

static bool counts(enum moe_role r)
{
	return r != MOE_R_ROTARY && r != MOE_R_EMBED && r != MOE_R_HEAD && r != MOE_R_FINAL_NORM && !moe_role_is_expert(r) &&
	       !is_attention(r);
}

uint64_t moe_model_parameters(const struct moe_model *m, bool active_only)
{
	uint64_t n = elements(m, MOE_R_EMBED, -1) + elements(m, MOE_R_FINAL_NORM, -1);

	if (!m->tied)
		n += elements(m, MOE_R_HEAD, -1);
	for (int i = 0; i < m->n_layers; i++) {
		const struct moe_ffn *f = &m->layers[i].ffn;

		for (int r = 0; r < MOE_ROLES; r++)
			if (counts((enum moe_role)r))
				n += elements(m, (enum moe_role)r, i);
		n += moe_attention_parameters(&m->layers[i].attn, m->hidden);
		n += moe_model_expert_size(m, i, 1) * (uint64_t)(active_only ? f->gate.top_k : f->experts);
	}
	return n;
}
