/* Models by name: their sizes are the published ones. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/checkpoint.h"

/* Parameters in billions as the makers publish them; of active ones they leave the embedding table out. */
static const struct {
	const char *name;
	double all, active;
	size_t kv;             /* bytes a token at two bytes a number */
	bool runs;
} published[] = {
	{"mixtral-8x7b", 46.7, 12.9, 131072, true},
	{"mixtral-8x22b", 140.6, 39.1, 229376, true},
	{"qwen3-30b-a3b", 30.5, 3.0, 98304, true},
	{"qwen3-235b-a22b", 235, 22, 192512, true},
	{"olmoe-1b-7b", 6.9, 1.2, 131072, true},
	{"dbrx", 132, 36, 163840, false},
	{"deepseek-v2-lite", 15.7, 2.4, 31104, false},
	{"deepseek-v2", 236, 21, 69120, false},
	{"deepseek-v3", 671, 37, 70272, false},
	{"kimi-k2", 1026, 32, 70272, false},
	{"gpt-oss-20b", 20.9, 3.6, 49152, false},
	{"gpt-oss-120b", 116.8, 5.1, 73728, false},
	{"phi-3.5-moe", 41.9, 6.6, 131072, false},
};

static void sizes(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
		struct moe_err e = MOE_ERR_INIT;
		struct moe_model m;
		double all, active;

		if (moe_named_model(published[i].name, &m, &e))
			fail_msg("%s", e.msg);
		all = (double)moe_model_parameters(&m, false) / 1e9;
		active = ((double)moe_model_parameters(&m, true) - (double)m.vocab * m.hidden) / 1e9;
		if (fabs(all / published[i].all - 1) > 0.01 || fabs(active / published[i].active - 1) > 0.04)
			fail_msg("%s: %.2f billion, %.2f active", m.name, all, active);
		assert_int_equal(moe_model_kv_bytes_per_token(&m, 2), published[i].kv);
		assert_int_equal(moe_model_runs(&m), published[i].runs);
		moe_model_free(&m);
	}
}

static void every_name_is_known(void **state)
{
	int n = 0;

	(void)state;
	for (const char *const *name = moe_named_models(); *name; name++, n++) {
		struct moe_model m;

		assert_int_equal(moe_named_model(*name, &m, NULL), 0);
		assert_true(m.n_layers > 0 && moe_model_max_experts(&m) > 0);
		moe_model_free(&m);
	}
	assert_true(n > 13);
}

static void layers_differ(void **state)
{
	struct moe_model m;

	(void)state;
	assert_int_equal(moe_named_model("deepseek-v3", &m, NULL), 0);
	assert_int_equal(m.layers[2].ffn.kind, MOE_FFN_DENSE);
	assert_int_equal(m.layers[3].ffn.kind, MOE_FFN_MOE);
	assert_int_equal(moe_model_moe_layers(&m), 58);
	assert_int_equal(moe_attention_kv(&m.layers[0].attn), 576);
	assert_true(moe_attention_operations(&m.layers[0].attn) == 2.0 * 128 * (512 + 64 + 512));
	moe_model_free(&m);
	assert_int_equal(moe_named_model("gpt-oss-20b", &m, NULL), 0);
	assert_int_equal(m.layers[0].attn.window, 128);
	assert_int_equal(m.layers[1].attn.window, 0);
	moe_model_free(&m);
	assert_int_equal(moe_named_model("mixtral-8x7b,layers=2", &m, NULL), 0);
	assert_int_equal(m.n_layers, 2);
	assert_true(moe_attention_operations(&m.layers[0].attn) == 4.0 * 4096);
	moe_model_free(&m);
}

static void no_weights_of_a_shape(void **state)
{
	struct moe_tensor_id id = {MOE_R_Q, 0, -1};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_checkpoint *c;
	struct moe_model m;
	char name[64];

	(void)state;
	assert_int_equal(moe_synth_open("deepseek-v3", &c, &e), MOE_E_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "planned for, not run"));
	assert_int_equal(moe_named_model("deepseek-v3", &m, NULL), 0);
	assert_false(moe_tensor_name(&m, id, name, sizeof name));
	assert_false(moe_tensor_identify(&m, "model.embed_tokens.weight", &id));
	moe_model_free(&m);
}

static void unknown_names(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_model m;

	(void)state;
	assert_int_equal(moe_named_model("mixtral-8x70b", &m, &e), MOE_E_MISSING);
	assert_non_null(strstr(e.msg, "is mixtral-8x7b meant"));
	assert_int_equal(moe_named_model("deepseek_v3", &m, &e), MOE_E_MISSING);
	assert_non_null(strstr(e.msg, "is deepseek-v3 meant"));
	assert_int_equal(moe_named_model("", &m, &e), MOE_E_MISSING);
	assert_int_equal(moe_synth_model("mixtral-mni", &m, &e), MOE_E_RANGE);
	assert_non_null(strstr(e.msg, "is mixtral-mini meant"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),
		cmocka_unit_test(every_name_is_known),
		cmocka_unit_test(layers_differ),
		cmocka_unit_test(no_weights_of_a_shape),
		cmocka_unit_test(unknown_names),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("checkpoint_known", tests, NULL, NULL);
}
