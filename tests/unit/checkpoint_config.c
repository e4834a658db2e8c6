/* config.json of the four families as they are published and as transformers 4 and 5 write them; and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/checkpoint.h"

static int parse(const char *text, struct moe_model *m, struct moe_err *e)
{
	struct moe_json *json;
	int rc = moe_json_parse(text, strlen(text), "c", &json, e);

	assert_int_equal(rc, 0);
	rc = moe_model_from_config(json, "c", m, e);
	moe_json_free(json);
	return rc;
}

static struct moe_model accept(const char *text)
{
	struct moe_model m = {0};
	struct moe_err e = MOE_ERR_INIT;

	if (parse(text, &m, &e))
		fail_msg("%s", e.msg);
	return m;
}

static const char mixtral_8x7b[] =
	"{\"architectures\":[\"MixtralForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":1,\"eos_token_id\":2,"
	"\"hidden_act\":\"silu\",\"hidden_size\":4096,\"initializer_range\":0.02,\"intermediate_size\":14336,"
	"\"max_position_embeddings\":32768,\"model_type\":\"mixtral\",\"num_attention_heads\":32,\"num_experts_per_tok\":2,"
	"\"num_hidden_layers\":32,\"num_key_value_heads\":8,\"num_local_experts\":8,\"output_router_logits\":false,"
	"\"rms_norm_eps\":1e-05,\"rope_theta\":1000000.0,\"router_aux_loss_coef\":0.02,\"sliding_window\":null,"
	"\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.36.0.dev0\",\"use_cache\":true,"
	"\"vocab_size\":32000}";

static const char qwen3_30b[] =
	"{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":151643,"
	"\"decoder_sparse_step\":1,\"eos_token_id\":151645,\"head_dim\":128,\"hidden_act\":\"silu\",\"hidden_size\":2048,"
	"\"initializer_range\":0.02,\"intermediate_size\":6144,\"max_position_embeddings\":40960,\"max_window_layers\":48,"
	"\"mlp_only_layers\":[],\"model_type\":\"qwen3_moe\",\"moe_intermediate_size\":768,\"norm_topk_prob\":true,"
	"\"num_attention_heads\":32,\"num_experts\":128,\"num_experts_per_tok\":8,\"num_hidden_layers\":48,"
	"\"num_key_value_heads\":4,\"output_router_logits\":false,\"rms_norm_eps\":1e-06,\"rope_scaling\":null,"
	"\"rope_theta\":1000000.0,\"router_aux_loss_coef\":0.001,\"sliding_window\":null,\"tie_word_embeddings\":false,"
	"\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.51.0\",\"use_cache\":true,\"use_sliding_window\":false,"
	"\"vocab_size\":151936}";

static const char qwen15_moe[] =
	"{\"architectures\":[\"Qwen2MoeForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":151643,\"eos_token_id\":151643,"
	"\"hidden_act\":\"silu\",\"hidden_size\":2048,\"initializer_range\":0.02,\"intermediate_size\":5632,"
	"\"max_position_embeddings\":8192,\"max_window_layers\":21,\"model_type\":\"qwen2_moe\",\"num_attention_heads\":16,"
	"\"num_hidden_layers\":24,\"num_key_value_heads\":16,\"rms_norm_eps\":1e-06,\"rope_theta\":1000000.0,"
	"\"sliding_window\":32768,\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\","
	"\"transformers_version\":\"4.39.0.dev0\",\"use_cache\":true,\"use_sliding_window\":false,\"vocab_size\":151936,"
	"\"decoder_sparse_step\":1,\"moe_intermediate_size\":1408,\"shared_expert_intermediate_size\":5632,"
	"\"num_experts_per_tok\":4,\"num_experts\":60,\"norm_topk_prob\":false,\"output_router_logits\":false,"
	"\"router_aux_loss_coef\":0.001}";

static const char qwen2_57b[] =
	"{\"architectures\":[\"Qwen2MoeForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":151643,"
	"\"decoder_sparse_step\":1,\"eos_token_id\":151643,\"hidden_act\":\"silu\",\"hidden_size\":3584,"
	"\"initializer_range\":0.02,\"intermediate_size\":18944,\"max_position_embeddings\":131072,\"max_window_layers\":28,"
	"\"model_type\":\"qwen2_moe\",\"moe_intermediate_size\":2560,\"norm_topk_prob\":false,\"num_attention_heads\":28,"
	"\"num_experts\":64,\"num_experts_per_tok\":8,\"num_hidden_layers\":28,\"num_key_value_heads\":4,"
	"\"output_router_logits\":false,\"rms_norm_eps\":1e-06,\"rope_theta\":1000000.0,\"router_aux_loss_coef\":0.001,"
	"\"shared_expert_intermediate_size\":20480,\"sliding_window\":65536,\"tie_word_embeddings\":false,"
	"\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.39.0.dev0\",\"use_cache\":true,"
	"\"use_sliding_window\":false,\"vocab_size\":151936}";

static const char olmoe[] =
	"{\"architectures\":[\"OlmoeForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,\"clip_qkv\":null,"
	"\"eos_token_id\":50279,\"hidden_act\":\"silu\",\"hidden_size\":2048,\"initializer_range\":0.02,"
	"\"intermediate_size\":1024,\"max_position_embeddings\":4096,\"model_type\":\"olmoe\",\"norm_topk_prob\":false,"
	"\"num_attention_heads\":16,\"num_experts\":64,\"num_experts_per_tok\":8,\"num_hidden_layers\":16,"
	"\"num_key_value_heads\":16,\"output_router_logits\":false,\"pad_token_id\":1,\"rms_norm_eps\":1e-05,"
	"\"rope_scaling\":null,\"rope_theta\":10000.0,\"router_aux_loss_coef\":0.01,\"tie_word_embeddings\":false,"
	"\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.43.0.dev0\",\"use_cache\":true,\"vocab_size\":50304}";

/* Parameters as their publishers count them. */
static void published_ones(void **state)
{
	static const struct {
		const char *text;
		double all, active; /* in thousands of millions, rounded */
	} them[] = {{mixtral_8x7b, 46.7, 12.9}, {qwen3_30b, 30.5, 3.3}, {qwen15_moe, 14.3, 2.7}, {qwen2_57b, 57.4, 14.2}, {olmoe, 6.9, 1.3}};

	(void)state;
	for (size_t i = 0; i < sizeof them / sizeof them[0]; i++) {
		struct moe_model m = accept(them[i].text);

		assert_true(fabs((double)moe_model_parameters(&m, false) / 1e9 - them[i].all) < 0.06);
		assert_true(fabs((double)moe_model_parameters(&m, true) / 1e9 - them[i].active) < 0.06);
		moe_model_free(&m);
	}
}

static void mixtral_in_full(void **state)
{
	struct moe_model m = accept(mixtral_8x7b), copy;
	const struct moe_layer *l = &m.layers[31];

	(void)state;
	assert_string_equal(m.name, "mixtral");
	assert_int_equal(m.n_layers, 32);
	assert_int_equal(l->attn.head_dim, 128);
	assert_int_equal(l->attn.rope.dims, 128);
	assert_true(l->attn.rope.theta == 1e6 && l->attn.rope.factor == 1);
	assert_int_equal(l->attn.window, 0);
	assert_true(l->attn.scale == (float)(1 / sqrt(128)));
	assert_int_equal(l->ffn.kind, MOE_FFN_MOE);
	assert_int_equal(l->ffn.expert_width, 14336);
	assert_int_equal(l->ffn.width, 0);
	assert_true(l->ffn.gate.renorm);
	assert_true(l->ffn.gate.factor == 1);
	assert_int_equal(m.bos, 1);
	assert_int_equal(m.n_eos, 1);
	assert_int_equal(m.eos[0], 2);
	assert_int_equal(moe_model_kv_bytes_per_token(&m, 2), 32 * 2 * 8 * 128 * 2);
	assert_int_equal(moe_model_moe_layers(&m), 32);
	assert_int_equal(moe_model_max_experts(&m), 8);
	assert_int_equal(moe_model_expert_size(&m, 0, 2), 3ull * 4096 * 14336 * 2);
	assert_int_equal(moe_model_copy(&m, &copy, NULL), 0);
	moe_model_free(&m);
	assert_int_equal(copy.layers[31].ffn.experts, 8);
	moe_model_free(&copy);
	moe_model_free(&copy);
}

static void others_where_they_differ(void **state)
{
	struct moe_model q3 = accept(qwen3_30b), q2 = accept(qwen15_moe), o = accept(olmoe);

	(void)state;
	assert_int_equal(q3.layers[0].attn.qk_norm, MOE_QKN_HEAD);
	assert_true(q3.layers[0].ffn.gate.renorm && !q3.layers[0].attn.qkv_bias);
	assert_int_equal(q2.layers[0].attn.qk_norm, MOE_QKN_NONE);
	assert_true(q2.layers[0].attn.qkv_bias && !q2.layers[0].attn.o_bias && !q2.layers[0].ffn.gate.renorm);
	assert_true(q2.layers[0].ffn.shared_gate);
	assert_int_equal(q2.layers[0].ffn.shared_width, 5632);
	assert_int_equal(q2.layers[0].attn.window, 0);
	assert_int_equal(o.layers[0].attn.qk_norm, MOE_QKN_WHOLE);
	assert_true(o.layers[0].attn.clip == 0 && !o.layers[0].ffn.gate.renorm);
	assert_int_equal(o.layers[0].ffn.expert_width, 1024);
	assert_int_equal(o.bos, -1);
	moe_model_free(&q3);
	moe_model_free(&q2);
	moe_model_free(&o);
}

/* A small model of a family with these members too. */
static const char *small(const char *family, const char *more)
{
	static char text[2048];

	snprintf(text, sizeof text, "{\"model_type\":\"%s\",\"hidden_size\":32,\"num_hidden_layers\":4,\"num_attention_heads\":4,"
	         "\"num_key_value_heads\":2,\"vocab_size\":100,\"intermediate_size\":24,\"num_experts_per_tok\":2%s%s}", family,
	         *more ? "," : "", more);
	return text;
}

static struct moe_model one(const char *family, const char *more)
{
	return accept(small(family, more));
}

/* What transformers' classes have for absent keys. */
static void absent_keys(void **state)
{
	struct moe_model m = accept("{\"model_type\":\"mixtral\"}"), q3 = accept("{\"model_type\":\"qwen3_moe\"}");
	struct moe_model q2 = accept("{\"model_type\":\"qwen2_moe\"}"), o = accept("{\"model_type\":\"olmoe\"}");

	(void)state;
	assert_int_equal(m.layers[0].attn.kv_heads, 8);
	assert_int_equal(m.max_positions, 131072);
	assert_true(m.layers[0].attn.rope.theta == 1e6);
	assert_int_equal(m.eos[0], 2);
	assert_int_equal(q3.layers[0].ffn.experts, 128);
	assert_int_equal(q3.n_eos, 0);
	assert_false(q3.layers[0].ffn.gate.renorm);
	assert_int_equal(q2.layers[0].ffn.shared_width, 5632);
	assert_true(q2.norm_eps == 1e-6f && q2.layers[0].attn.rope.theta == 1e4);
	assert_int_equal(o.layers[0].attn.kv_heads, 16);
	assert_int_equal(o.eos[0], 50279);
	moe_model_free(&m);
	moe_model_free(&q3);
	moe_model_free(&q2);
	moe_model_free(&o);
}

static void rope_in_both_words(void **state)
{
	static const struct {
		const char *more;
		double theta, factor;
	} them[] = {
		{"", 1e6, 1},
		{"\"rope_theta\":5", 5, 1},
		{"\"rope_theta\":5,\"rope_scaling\":null,\"rope_parameters\":null", 5, 1},
		{"\"rope_theta\":5,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}", 5, 2.5},
		{"\"rope_scaling\":{\"rope_type\":\"linear\",\"type\":\"linear\",\"factor\":4}", 1e6, 4},
		{"\"rope_scaling\":{\"rope_type\":\"default\"}", 1e6, 1},
		{"\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":7}", 7, 1},
		{"\"rope_parameters\":{\"rope_theta\":7}", 7, 1},
		{"\"rope_theta\":7,\"rope_parameters\":{\"rope_type\":\"linear\",\"rope_theta\":7,\"factor\":3}", 7, 3},
		{"\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":7,\"partial_rotary_factor\":1.0}", 7, 1},
		{"\"partial_rotary_factor\":1.0", 1e6, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof them / sizeof them[0]; i++) {
		struct moe_model m = one("mixtral", them[i].more);

		assert_true(m.layers[3].attn.rope.theta == them[i].theta);
		assert_true(m.layers[3].attn.rope.factor == them[i].factor);
		moe_model_free(&m);
	}
}

static void windows_by_layer(void **state)
{
	static const struct {
		const char *family, *more;
		int windows[4];
	} them[] = {
		{"mixtral", "\"sliding_window\":9", {9, 9, 9, 9}},
		{"mixtral", "\"sliding_window\":null", {0}},
		{"mixtral", "", {0}},
		{"mixtral", "\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"full_attention\"]", {0}},
		{"qwen3_moe", "\"sliding_window\":9", {0}},
		{"qwen3_moe", "\"sliding_window\":9,\"use_sliding_window\":true,\"max_window_layers\":1", {9, 9, 9, 9}},
		{"qwen3_moe", "\"use_sliding_window\":true", {4096, 4096, 4096, 4096}},
		{"qwen3_moe", "\"sliding_window\":null,\"use_sliding_window\":true", {0}},
		{"qwen2_moe", "\"sliding_window\":0,\"use_sliding_window\":false", {0}},
		{"qwen2_moe", "\"sliding_window\":9,\"use_sliding_window\":true", {9, 0, 9, 0}},
		{"qwen2_moe", "\"sliding_window\":9,\"use_sliding_window\":true,\"max_window_layers\":2", {9, 0, 0, 0}},
		{"qwen2_moe", "\"sliding_window\":9,\"use_sliding_window\":true,\"max_window_layers\":2,\"layer_types\":"
		 "[\"full_attention\",\"sliding_attention\",\"sliding_attention\",\"full_attention\"]", {0, 9, 9, 0}},
		{"olmoe", "\"sliding_window\":null", {0}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof them / sizeof them[0]; i++) {
		struct moe_model m = one(them[i].family, them[i].more);

		for (int l = 0; l < 4; l++)
			assert_int_equal(m.layers[l].attn.window, them[i].windows[l]);
		moe_model_free(&m);
	}
}

static void dense_layers_between(void **state)
{
	struct moe_model m = one("qwen3_moe", "\"decoder_sparse_step\":2,\"mlp_only_layers\":[3,99],\"num_local_experts\":5,"
	                         "\"moe_intermediate_size\":8");
	static const int kinds[] = {MOE_FFN_DENSE, MOE_FFN_MOE, MOE_FFN_DENSE, MOE_FFN_DENSE};

	(void)state;
	for (int l = 0; l < 4; l++) {
		bool moe = kinds[l] == MOE_FFN_MOE;

		assert_int_equal(m.layers[l].ffn.kind, kinds[l]);
		assert_int_equal(m.layers[l].ffn.width, moe ? 0 : 24);
		assert_int_equal(m.layers[l].ffn.experts, moe ? 5 : 0);
		assert_int_equal(m.layers[l].ffn.expert_width, moe ? 8 : 0);
	}
	assert_int_equal(moe_model_moe_layers(&m), 1);
	moe_model_free(&m);
}

static void small_print(void **state)
{
	struct moe_model m = one("olmoe", "\"attention_bias\":true,\"clip_qkv\":8,\"norm_topk_prob\":true,\"num_local_experts\":4,"
	                         "\"num_experts\":4,\"tie_word_embeddings\":true");

	(void)state;
	assert_true(m.layers[0].attn.qkv_bias && m.layers[0].attn.o_bias && m.layers[0].ffn.gate.renorm && m.tied);
	assert_true(m.layers[0].attn.clip == 8);
	assert_int_equal(m.layers[0].ffn.experts, 4);
	moe_model_free(&m);
	m = one("qwen2_moe", "\"qkv_bias\":false,\"head_dim\":6");
	assert_false(m.layers[0].attn.qkv_bias);
	assert_int_equal(m.layers[0].attn.head_dim, 6);
	moe_model_free(&m);
	m = accept("{\"model_type\":\"mixtral\",\"num_key_value_heads\":null}");
	assert_int_equal(m.layers[0].attn.kv_heads, 32);
	moe_model_free(&m);
	/* Switched off, it does no harm whatever it is. */
	m = one("mixtral", "\"attention_bias\":false,\"swiglu_limit\":null,\"pruned_heads\":{},\"temperature\":0.7");
	moe_model_free(&m);
}

static int add_generation(struct moe_model *m, const char *text)
{
	struct moe_json *g;
	int rc;

	assert_int_equal(moe_json_parse(text, strlen(text), "g", &g, NULL), 0);
	rc = moe_model_add_generation(m, g, "g", NULL);
	moe_json_free(g);
	return rc;
}

static void where_texts_end(void **state)
{
	struct moe_model m = one("mixtral", "\"eos_token_id\":[5,6,5,100,-1],\"bos_token_id\":null");

	(void)state;
	assert_int_equal(m.bos, -1);
	assert_int_equal(m.n_eos, 2); /* 100 is outside the vocabulary */
	assert_int_equal(add_generation(&m, "{\"bos_token_id\":3,\"eos_token_id\":[6,7],\"top_p\":1}"), 0);
	assert_int_equal(m.bos, 3);
	assert_int_equal(m.n_eos, 3);
	assert_int_equal(m.eos[2], 7);
	assert_int_equal(add_generation(&m, "{}"), 0);
	assert_int_equal(m.bos, 3);
	assert_int_equal(add_generation(&m, "{\"eos_token_id\":\"x\"}"), MOE_E_INPUT);
	assert_int_equal(add_generation(&m, "[]"), MOE_E_INPUT);
	moe_model_free(&m);
}

static const struct {
	const char *family, *more;
	int code;
	const char *says;
} bad[] = {
	{"llama", "", MOE_E_UNSUPPORTED, "model_type \"llama\" is not supported"},
	{"", "", MOE_E_UNSUPPORTED, "model_type"},
	{"mixtral", "\"foo\":1", MOE_E_UNSUPPORTED, "key \"foo\" is not understood"},
	{"mixtral", "\"foo\":\"\"", MOE_E_UNSUPPORTED, "key \"foo\""},
	{"mixtral", "\"clip_qkv\":8.0", MOE_E_UNSUPPORTED, "key \"clip_qkv\""},
	{"mixtral", "\"moe_intermediate_size\":8", MOE_E_UNSUPPORTED, "key \"moe_intermediate_size\""},
	{"mixtral", "\"attention_bias\":true", MOE_E_UNSUPPORTED, "key \"attention_bias\""},
	{"olmoe", "\"sliding_window\":8", MOE_E_UNSUPPORTED, "key \"sliding_window\""},
	{"olmoe", "\"mlp_only_layers\":[1]", MOE_E_UNSUPPORTED, "key \"mlp_only_layers\""},
	{"mixtral", "\"quantization_config\":{\"quant_method\":\"hqq\"}", MOE_E_UNSUPPORTED, "quant_method \"hqq\" is not supported"},
	{"mixtral", "\"hidden_act\":\"gelu\"", MOE_E_UNSUPPORTED, "hidden_act \"gelu\""},
	{"mixtral", "\"hidden_act\":1", MOE_E_INPUT, "hidden_act"},
	{"mixtral", "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":64}",
	 MOE_E_UNSUPPORTED, "c: rope_scaling yarn is not supported"},
	{"mixtral", "\"rope_parameters\":{\"rope_type\":\"llama3\"}", MOE_E_UNSUPPORTED, "rope_parameters llama3 is not supported"},
	{"mixtral", "\"rope_scaling\":{\"type\":\"linear\"}", MOE_E_INPUT, "\"factor\" is missing"},
	{"mixtral", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}", MOE_E_INPUT, "\"factor\""},
	{"mixtral", "\"rope_scaling\":{\"type\":\"default\",\"mrope_section\":[1]}", MOE_E_UNSUPPORTED, "\"mrope_section\""},
	{"mixtral", "\"rope_scaling\":7", MOE_E_INPUT, "\"rope_scaling\" is no object"},
	{"mixtral", "\"rope_scaling\":{\"type\":\"default\"},\"rope_parameters\":{\"rope_theta\":4}", MOE_E_INPUT, "both"},
	{"mixtral", "\"rope_theta\":5,\"rope_parameters\":{\"rope_theta\":4}", MOE_E_INPUT, "\"rope_theta\" is 5 here and 4 there"},
	{"mixtral", "\"rope_theta\":0", MOE_E_INPUT, "\"rope_theta\""},
	{"mixtral", "\"rope_theta\":\"1e6\"", MOE_E_INPUT, "\"rope_theta\""},
	{"mixtral", "\"partial_rotary_factor\":0.5", MOE_E_UNSUPPORTED, "partial_rotary_factor 0.5"},
	{"mixtral", "\"rope_parameters\":{\"partial_rotary_factor\":0.25}", MOE_E_UNSUPPORTED, "partial_rotary_factor 0.25"},
	{"mixtral", "\"sliding_window\":0", MOE_E_INPUT, "\"sliding_window\""},
	{"mixtral", "\"sliding_window\":-1", MOE_E_INPUT, "\"sliding_window\""},
	{"mixtral", "\"layer_types\":[\"full_attention\"]", MOE_E_INPUT, "\"layer_types\""},
	{"mixtral", "\"layer_types\":\"full_attention\"", MOE_E_INPUT, "\"layer_types\""},
	{"mixtral", "\"layer_types\":[\"full_attention\",\"full_attention\",\"linear_attention\",\"full_attention\"]",
	 MOE_E_UNSUPPORTED, "\"linear_attention\" of layer 2"},
	{"mixtral", "\"layer_types\":[\"sliding_attention\",\"full_attention\",\"full_attention\",\"full_attention\"]",
	 MOE_E_INPUT, "layer 0 contradicts"},
	{"qwen2_moe", "\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\"]",
	 MOE_E_INPUT, "layer 1 contradicts"},
	{"qwen2_moe", "\"max_window_layers\":-1", MOE_E_INPUT, "\"max_window_layers\""},
	{"qwen2_moe", "\"use_sliding_window\":\"yes\"", MOE_E_INPUT, "\"use_sliding_window\""},
	{"mixtral", "\"num_experts\":4,\"num_local_experts\":8", MOE_E_INPUT, "\"num_experts\" is 4, \"num_local_experts\" is 8"},
	{"mixtral", "\"num_experts\":1", MOE_E_INPUT, "\"num_experts_per_tok\" is 2, there are 1 experts"},
	{"mixtral", "\"num_experts\":0", MOE_E_INPUT, "\"num_experts\""},
	{"mixtral", "\"num_experts\":65537", MOE_E_INPUT, "\"num_experts\""},
	{"mixtral", "\"head_dim\":7", MOE_E_INPUT, "heads of 7 elements"},
	{"mixtral", "\"head_dim\":0", MOE_E_INPUT, "\"head_dim\""},
	{"mixtral", "\"head_dim\":1e9", MOE_E_INPUT, "\"head_dim\""},
	{"olmoe", "\"head_dim\":16", MOE_E_UNSUPPORTED, "\"head_dim\" 16"},
	{"olmoe", "\"clip_qkv\":0", MOE_E_INPUT, "\"clip_qkv\""},
	{"olmoe", "\"clip_qkv\":-8", MOE_E_INPUT, "\"clip_qkv\""},
	{"qwen3_moe", "\"decoder_sparse_step\":0", MOE_E_INPUT, "\"decoder_sparse_step\""},
	{"qwen3_moe", "\"decoder_sparse_step\":5", MOE_E_UNSUPPORTED, "no layer has experts"},
	{"qwen3_moe", "\"mlp_only_layers\":[0,1,2,3]", MOE_E_UNSUPPORTED, "no layer has experts"},
	{"qwen3_moe", "\"mlp_only_layers\":7", MOE_E_INPUT, "\"mlp_only_layers\""},
	{"qwen3_moe", "\"mlp_only_layers\":[-1]", MOE_E_INPUT, "\"mlp_only_layers\""},
	{"qwen3_moe", "\"mlp_only_layers\":[0.5]", MOE_E_INPUT, "\"mlp_only_layers\""},
	{"qwen3_moe", "\"norm_topk_prob\":1", MOE_E_INPUT, "\"norm_topk_prob\""},
	{"qwen2_moe", "\"shared_expert_intermediate_size\":0", MOE_E_INPUT, "\"shared_expert_intermediate_size\""},
	{"mixtral", "\"eos_token_id\":\"</s>\"", MOE_E_INPUT, "\"eos_token_id\""},
	{"mixtral", "\"eos_token_id\":[1.5]", MOE_E_INPUT, "\"eos_token_id\""},
	{"mixtral", "\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", MOE_E_UNSUPPORTED, "\"eos_token_id\""},
	{"mixtral", "\"bos_token_id\":-2", MOE_E_INPUT, "\"bos_token_id\""},
	{"mixtral", "\"rms_norm_eps\":0", MOE_E_INPUT, "\"rms_norm_eps\""},
	{"mixtral", "\"rms_norm_eps\":2", MOE_E_INPUT, "\"rms_norm_eps\""},
	{"mixtral", "\"tie_word_embeddings\":0", MOE_E_INPUT, "\"tie_word_embeddings\""},
	{"mixtral", "\"max_position_embeddings\":0", MOE_E_INPUT, "\"max_position_embeddings\""},
};

static void refused_with_its_name(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct moe_err e = MOE_ERR_INIT;
		struct moe_model m;
		int rc = parse(small(bad[i].family, bad[i].more), &m, &e);

		if (rc != bad[i].code || !strstr(e.msg, bad[i].says) || strncmp(e.msg, "c: ", 3))
			fail_msg("%s: %s: %d \"%s\", wanted %d \"%s\"", bad[i].family, bad[i].more, rc, e.msg, bad[i].code, bad[i].says);
		assert_int_equal(parse(small(bad[i].family, bad[i].more), &m, NULL), bad[i].code);
	}
}

/* Every size, each with every kind of nonsense. */
static void sizes_are_sizes(void **state)
{
	static const char *const keys[] = {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
		"vocab_size", "intermediate_size", "num_experts_per_tok", "num_local_experts"};
	static const char *const values[] = {"0", "-1", "1.5", "\"8\"", "[8]", "{}", "true", "1e30", "9007199254740993", "2147483648"};
	char text[256];

	(void)state;
	for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++)
		for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
			struct moe_err e = MOE_ERR_INIT;
			struct moe_model m;

			snprintf(text, sizeof text, "{\"model_type\":\"mixtral\",\"%s\":%s}", keys[k], values[v]);
			if (parse(text, &m, &e) != MOE_E_INPUT || !strstr(e.msg, keys[k]))
				fail_msg("%s: \"%s\"", text, e.msg);
		}
}

static void sizes_fit_together(void **state)
{
	static const struct {
		const char *text, *says;
	} them[] = {
		{"{\"model_type\":\"mixtral\",\"num_attention_heads\":30}", "30 heads do not divide"},
		{"{\"model_type\":\"mixtral\",\"num_attention_heads\":24}", "\"hidden_size\" 4096 does not divide"},
		{"{\"model_type\":\"mixtral\",\"num_attention_heads\":4096}", "heads of 1 elements"},
		{"{\"model_type\":\"mixtral\",\"num_attention_heads\":65536,\"head_dim\":512}", "too large"},
		{"{\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":4096,\"num_experts\":65536,\"hidden_size\":1048576,"
		 "\"moe_intermediate_size\":16777216}", "too large"},
		{"{\"model_type\":\"mixtral\",\"num_hidden_layers\":4096,\"num_local_experts\":257}", "1052672 experts"},
		{"[]", "not an object"},
		{"{}", "\"model_type\" is missing"},
		{"{\"model_type\":7}", "\"model_type\""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof them / sizeof them[0]; i++) {
		struct moe_err e = MOE_ERR_INIT;
		struct moe_model m;

		if (!parse(them[i].text, &m, &e) || !strstr(e.msg, them[i].says))
			fail_msg("%s: \"%s\"", them[i].text, e.msg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_ones),
		cmocka_unit_test(mixtral_in_full),
		cmocka_unit_test(others_where_they_differ),
		cmocka_unit_test(absent_keys),
		cmocka_unit_test(rope_in_both_words),
		cmocka_unit_test(windows_by_layer),
		cmocka_unit_test(dense_layers_between),
		cmocka_unit_test(small_print),
		cmocka_unit_test(where_texts_end),
		cmocka_unit_test(refused_with_its_name),
		cmocka_unit_test(sizes_are_sizes),
		cmocka_unit_test(sizes_fit_together),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("checkpoint_config", tests, NULL, NULL);
}
