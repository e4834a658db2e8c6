/* Names of tensors to what they are and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/checkpoint.h"

static struct moe_model model(const char *text)
{
	struct moe_json *json;
	struct moe_model m;

	assert_int_equal(moe_json_parse(text, strlen(text), "c", &json, NULL), 0);
	assert_int_equal(moe_model_from_config(json, "c", &m, NULL), 0);
	moe_json_free(json);
	return m;
}

/* Layers 0 and 2 have experts, 1 is dense; biases, norms, a shared expert where the family has them. */
#define SIZES "\"hidden_size\":32,\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2," \
	"\"vocab_size\":100,\"intermediate_size\":24,\"num_experts_per_tok\":2,\"num_experts\":12}"
#define MIXTRAL "{\"model_type\":\"mixtral\"," SIZES
#define QWEN3 "{\"model_type\":\"qwen3_moe\",\"attention_bias\":true,\"mlp_only_layers\":[1]," SIZES
#define QWEN2 "{\"model_type\":\"qwen2_moe\",\"mlp_only_layers\":[1]," SIZES
#define OLMOE "{\"model_type\":\"olmoe\"," SIZES

static const char *const configs[] = {MIXTRAL, QWEN3, QWEN2, OLMOE};

static const struct {
	int config;
	const char *name;
	struct moe_tensor_id id;
	bool back; /* this is the name the role is written under */
} known[] = {
	{0, "model.embed_tokens.weight", {MOE_R_EMBED, -1, -1}, true},
	{0, "model.norm.weight", {MOE_R_FINAL_NORM, -1, -1}, true},
	{0, "lm_head.weight", {MOE_R_HEAD, -1, -1}, true},
	{0, "model.layers.0.input_layernorm.weight", {MOE_R_ATTN_NORM, 0, -1}, true},
	{0, "model.layers.2.self_attn.q_proj.weight", {MOE_R_Q, 2, -1}, true},
	{0, "model.layers.2.self_attn.k_proj.weight", {MOE_R_K, 2, -1}, true},
	{0, "model.layers.2.self_attn.v_proj.weight", {MOE_R_V, 2, -1}, true},
	{0, "model.layers.2.self_attn.o_proj.weight", {MOE_R_O, 2, -1}, true},
	{0, "model.layers.1.post_attention_layernorm.weight", {MOE_R_FFN_NORM, 1, -1}, true},
	{0, "model.layers.1.block_sparse_moe.gate.weight", {MOE_R_GATE, 1, -1}, true},
	{0, "model.layers.1.mlp.gate.weight", {MOE_R_GATE, 1, -1}, false},
	{0, "model.layers.1.block_sparse_moe.experts.11.w1.weight", {MOE_R_EXPERT_GATE, 1, 11}, true},
	{0, "model.layers.1.block_sparse_moe.experts.0.w2.weight", {MOE_R_EXPERT_DOWN, 1, 0}, true},
	{0, "model.layers.1.block_sparse_moe.experts.10.w3.weight", {MOE_R_EXPERT_UP, 1, 10}, true},
	{0, "model.layers.0.mlp.experts.gate_up_proj", {MOE_R_EXPERTS_GATE_UP, 0, -1}, true},
	{0, "model.layers.0.mlp.experts.down_proj", {MOE_R_EXPERTS_DOWN, 0, -1}, true},
	{0, "model.layers.0.mlp.experts.gate_up_proj.3", {MOE_R_EXPERT_GATE_UP, 0, 3}, true},
	{0, "model.layers.0.mlp.experts.down_proj.3", {MOE_R_EXPERT_DOWN_PART, 0, 3}, true},
	{0, "model.layers.0.self_attn.rotary_emb.inv_freq", {MOE_R_ROTARY, 0, -1}, false},
	{0, "model.rotary_emb.inv_freq", {MOE_R_ROTARY, -1, -1}, false},
	{1, "model.layers.0.self_attn.q_norm.weight", {MOE_R_Q_NORM, 0, -1}, true},
	{1, "model.layers.0.self_attn.k_norm.weight", {MOE_R_K_NORM, 0, -1}, true},
	{1, "model.layers.0.self_attn.q_proj.bias", {MOE_R_Q_BIAS, 0, -1}, true},
	{1, "model.layers.0.self_attn.o_proj.bias", {MOE_R_O_BIAS, 0, -1}, true},
	{1, "model.layers.2.mlp.gate.weight", {MOE_R_GATE, 2, -1}, true},
	{1, "model.layers.2.mlp.experts.7.gate_proj.weight", {MOE_R_EXPERT_GATE, 2, 7}, true},
	{1, "model.layers.2.mlp.experts.7.up_proj.weight", {MOE_R_EXPERT_UP, 2, 7}, true},
	{1, "model.layers.2.mlp.experts.7.down_proj.weight", {MOE_R_EXPERT_DOWN, 2, 7}, true},
	{1, "model.layers.1.mlp.gate_proj.weight", {MOE_R_DENSE_GATE, 1, -1}, true},
	{1, "model.layers.1.mlp.up_proj.weight", {MOE_R_DENSE_UP, 1, -1}, true},
	{1, "model.layers.1.mlp.down_proj.weight", {MOE_R_DENSE_DOWN, 1, -1}, true},
	{2, "model.layers.0.self_attn.k_proj.bias", {MOE_R_K_BIAS, 0, -1}, true},
	{2, "model.layers.0.self_attn.v_proj.bias", {MOE_R_V_BIAS, 0, -1}, true},
	{2, "model.layers.0.mlp.shared_expert.gate_proj.weight", {MOE_R_SHARED_GATE, 0, -1}, true},
	{2, "model.layers.0.mlp.shared_expert.up_proj.weight", {MOE_R_SHARED_UP, 0, -1}, true},
	{2, "model.layers.0.mlp.shared_expert.down_proj.weight", {MOE_R_SHARED_DOWN, 0, -1}, true},
	{2, "model.layers.0.mlp.shared_expert_gate.weight", {MOE_R_SHARED_SWITCH, 0, -1}, true},
	{3, "model.layers.0.self_attn.q_norm.weight", {MOE_R_Q_NORM, 0, -1}, true},
};

static void both_ways(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		struct moe_model m = model(configs[known[i].config]);
		struct moe_tensor_id id;
		char buf[160];

		if (!moe_tensor_identify(&m, known[i].name, &id))
			fail_msg("%s is not known", known[i].name);
		assert_int_equal(id.role, known[i].id.role);
		assert_int_equal(id.layer, known[i].id.layer);
		assert_int_equal(id.expert, known[i].id.expert);
		if (known[i].back) {
			assert_true(moe_tensor_name(&m, id, buf, sizeof buf));
			assert_string_equal(buf, known[i].name);
			assert_false(moe_tensor_name(&m, id, buf, strlen(known[i].name)));
			assert_true(moe_tensor_name(&m, id, buf, strlen(known[i].name) + 1));
		}
		moe_model_free(&m);
	}
}

static const struct {
	int config;
	const char *name;
} unknown[] = {
	{0, ""},
	{0, "model"},
	{0, "model.norm.weight "},
	{0, "model.norm.weightx"},
	{0, "norm.weight"},
	{0, "model.layers.3.input_layernorm.weight"},
	{0, "model.layers.00.input_layernorm.weight"},
	{0, "model.layers.01.input_layernorm.weight"},
	{0, "model.layers.-1.input_layernorm.weight"},
	{0, "model.layers.+1.input_layernorm.weight"},
	{0, "model.layers. 1.input_layernorm.weight"},
	{0, "model.layers..input_layernorm.weight"},
	{0, "model.layers.4294967296.input_layernorm.weight"},
	{0, "model.layers.18446744073709551616.input_layernorm.weight"},
	{0, "model.layers.1.block_sparse_moe.experts.12.w1.weight"},
	{0, "model.layers.1.block_sparse_moe.experts.1.w4.weight"},
	{0, "model.layers.1.mlp.experts.1.gate_proj.weight"},
	{0, "model.layers.1.mlp.experts.gate_up_proj.12"},
	{0, "model.layers.1.mlp.experts.gate_up_proj."},
	{0, "model.layers.1.self_attn.q_proj.bias"},
	{0, "model.layers.1.self_attn.q_norm.weight"},
	{1, "model.layers.1.mlp.experts.1.gate_proj.weight"}, /* dense there */
	{1, "model.layers.1.mlp.gate.weight"},
	{1, "model.layers.0.mlp.gate_proj.weight"},           /* experts there */
	{1, "model.layers.0.mlp.shared_expert_gate.weight"},
	{1, "model.layers.0.block_sparse_moe.gate.weight"},
	{2, "model.layers.0.self_attn.o_proj.bias"},
	{2, "model.layers.1.mlp.shared_expert_gate.weight"},
};

static void nothing_of_ours(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
		struct moe_model m = model(configs[unknown[i].config]);
		struct moe_tensor_id id;

		if (moe_tensor_identify(&m, unknown[i].name, &id))
			fail_msg("%s is taken for role %d", unknown[i].name, id.role);
		moe_model_free(&m);
	}
}

static void no_name_for_what_is_not_there(void **state)
{
	struct moe_model m = model(QWEN3);
	static const struct moe_tensor_id none[] = {
		{MOE_R_Q, 3, -1}, {MOE_R_Q, -1, -1}, {MOE_R_GATE, 1, -1}, {MOE_R_EXPERT_UP, 0, 12}, {MOE_R_EXPERT_UP, 0, -1},
		{MOE_R_DENSE_UP, 0, -1}, {MOE_R_SHARED_UP, 0, -1}, {MOE_R_EXPERTS_DOWN, 1, -1},
	};
	char buf[160];

	(void)state;
	for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
		assert_false(moe_tensor_name(&m, none[i], buf, sizeof buf));
	moe_model_free(&m);
}

static void roles_of_experts(void **state)
{
	(void)state;
	for (int r = 0; r < MOE_ROLES; r++)
		assert_int_equal(moe_role_is_expert((enum moe_role)r),
		                 r == MOE_R_EXPERT_GATE || r == MOE_R_EXPERT_UP || r == MOE_R_EXPERT_DOWN ||
		                 r == MOE_R_EXPERTS_GATE_UP || r == MOE_R_EXPERTS_DOWN || r == MOE_R_EXPERT_GATE_UP ||
		                 r == MOE_R_EXPERT_DOWN_PART);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_ways),
		cmocka_unit_test(nothing_of_ours),
		cmocka_unit_test(no_name_for_what_is_not_there),
		cmocka_unit_test(roles_of_experts),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("checkpoint_names", tests, NULL, NULL);
}
