/* The families, one entry each: what their config.json may say, what an absent key means, what their tensors are
 * called.  Facts from transformers' configuration_*.py and modeling_*.py. */
#include <string.h>

#include "checkpoint/private.h"

#define L "model.layers.*."

/* What all four call the same. */
#define COMMON_NAMES \
	{MOE_R_EMBED, "model.embed_tokens.weight"}, \
	{MOE_R_FINAL_NORM, "model.norm.weight"}, \
	{MOE_R_HEAD, "lm_head.weight"}, \
	{MOE_R_ATTN_NORM, L "input_layernorm.weight"}, \
	{MOE_R_Q, L "self_attn.q_proj.weight"}, \
	{MOE_R_K, L "self_attn.k_proj.weight"}, \
	{MOE_R_V, L "self_attn.v_proj.weight"}, \
	{MOE_R_O, L "self_attn.o_proj.weight"}, \
	{MOE_R_Q_BIAS, L "self_attn.q_proj.bias"}, \
	{MOE_R_K_BIAS, L "self_attn.k_proj.bias"}, \
	{MOE_R_V_BIAS, L "self_attn.v_proj.bias"}, \
	{MOE_R_O_BIAS, L "self_attn.o_proj.bias"}, \
	{MOE_R_Q_NORM, L "self_attn.q_norm.weight"}, \
	{MOE_R_K_NORM, L "self_attn.k_norm.weight"}, \
	{MOE_R_FFN_NORM, L "post_attention_layernorm.weight"}, \
	{MOE_R_EXPERTS_GATE_UP, L "mlp.experts.gate_up_proj"}, \
	{MOE_R_EXPERTS_DOWN, L "mlp.experts.down_proj"}, \
	{MOE_R_EXPERT_GATE_UP, L "mlp.experts.gate_up_proj.*"}, \
	{MOE_R_EXPERT_DOWN_PART, L "mlp.experts.down_proj.*"}, \
	{MOE_R_ROTARY, L "self_attn.rotary_emb.inv_freq"}, \
	{MOE_R_ROTARY, "model.rotary_emb.inv_freq"}

static const struct moe_name_form mixtral_names[] = {
	COMMON_NAMES,
	{MOE_R_GATE, L "block_sparse_moe.gate.weight"},
	{MOE_R_GATE, L "mlp.gate.weight"}, /* beside fused experts, as transformers 5 calls it in memory */
	{MOE_R_EXPERT_GATE, L "block_sparse_moe.experts.*.w1.weight"},
	{MOE_R_EXPERT_UP, L "block_sparse_moe.experts.*.w3.weight"},
	{MOE_R_EXPERT_DOWN, L "block_sparse_moe.experts.*.w2.weight"},
	{0, NULL},
};

static const struct moe_name_form mlp_names[] = {
	COMMON_NAMES,
	{MOE_R_GATE, L "mlp.gate.weight"},
	{MOE_R_EXPERT_GATE, L "mlp.experts.*.gate_proj.weight"},
	{MOE_R_EXPERT_UP, L "mlp.experts.*.up_proj.weight"},
	{MOE_R_EXPERT_DOWN, L "mlp.experts.*.down_proj.weight"},
	{MOE_R_SHARED_GATE, L "mlp.shared_expert.gate_proj.weight"},
	{MOE_R_SHARED_UP, L "mlp.shared_expert.up_proj.weight"},
	{MOE_R_SHARED_DOWN, L "mlp.shared_expert.down_proj.weight"},
	{MOE_R_SHARED_SWITCH, L "mlp.shared_expert_gate.weight"},
	{MOE_R_DENSE_GATE, L "mlp.gate_proj.weight"},
	{MOE_R_DENSE_UP, L "mlp.up_proj.weight"},
	{MOE_R_DENSE_DOWN, L "mlp.down_proj.weight"},
	{0, NULL},
};

static const struct moe_family families[] = {
	{
		.name = "mixtral",
		.architecture = "MixtralForCausalLM",
		.features = MOE_F_WINDOW,
		.defaults = {.vocab = 32000, .hidden = 4096, .width = 14336, .layers = 32, .heads = 32, .kv_heads = 8,
		             .experts = 8, .top_k = 2, .max_positions = 131072, .bos = 1, .eos = 2,
		             .theta = 1e6, .eps = 1e-5},
		.names = mixtral_names,
	}, {
		.name = "qwen3_moe",
		.architecture = "Qwen3MoeForCausalLM",
		.features = MOE_F_WINDOW | MOE_F_SWITCH | MOE_F_SPARSE | MOE_F_RENORM_KEY | MOE_F_ALL_BIAS,
		.qk_norm = MOE_QKN_HEAD,
		.defaults = {.vocab = 151936, .hidden = 2048, .width = 6144, .expert_width = 768, .layers = 24, .heads = 32,
		             .kv_heads = 4, .experts = 128, .top_k = 8, .max_positions = 32768, .window = 4096, .bos = -1,
		             .eos = -1, .theta = 1e4, .eps = 1e-6},
		.names = mlp_names,
	}, {
		.name = "qwen2_moe",
		.architecture = "Qwen2MoeForCausalLM",
		.features = MOE_F_WINDOW | MOE_F_SWITCH | MOE_F_BY_LAYER | MOE_F_SPARSE | MOE_F_SHARED | MOE_F_RENORM_KEY |
		            MOE_F_QKV_BIAS,
		.defaults = {.vocab = 151936, .hidden = 2048, .width = 5632, .expert_width = 1408, .layers = 24, .heads = 16,
		             .kv_heads = 16, .experts = 60, .top_k = 4, .max_positions = 32768, .window = 4096, .bos = -1,
		             .eos = -1, .theta = 1e4, .eps = 1e-6},
		.names = mlp_names,
	}, {
		.name = "olmoe",
		.architecture = "OlmoeForCausalLM",
		.features = MOE_F_RENORM_KEY | MOE_F_CLIP | MOE_F_ALL_BIAS,
		.qk_norm = MOE_QKN_WHOLE,
		.defaults = {.vocab = 50304, .hidden = 2048, .width = 2048, .layers = 16, .heads = 16, .experts = 64,
		             .top_k = 8, .max_positions = 4096, .bos = -1, .eos = 50279, .theta = 1e4, .eps = 1e-5},
		.names = mlp_names,
	},
};

static const struct moe_name_form no_names[] = {{0, NULL}};
const struct moe_family moe_family_shape_only = {.name = "", .architecture = "", .names = no_names};

const struct moe_family *moe_family_at(size_t i)
{
	return i < sizeof families / sizeof families[0] ? &families[i] : NULL;
}

const struct moe_family *moe_family_find(const char *name)
{
	for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
		if (strcmp(families[i].name, name) == 0)
			return &families[i];
	return NULL;
}
