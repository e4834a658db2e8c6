/* Coded tensors: their names and sizes, what may be coded, how they are bound; words for quants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/private.h"

#define EXPERT "model.layers.1.block_sparse_moe.experts.3."

static struct moe_checkpoint *synth(const char *spec)
{
	struct moe_checkpoint *c;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_synth_open(spec, &c, &e))
		fail_msg("%s", e.msg);
	return c;
}

static void names_are_those_of_their_stems(void **state)
{
	struct moe_checkpoint *c = synth("tiny-mixtral");
	static const char *const names[] = {EXPERT "w1.weight", EXPERT "w1.weight.q4", EXPERT "w1.weight.q2.r64"};
	static const char *const none[] = {EXPERT "w1.weight.q5", EXPERT "w1.weight.r64", EXPERT "w1.weight.q4.q4", "q4", ".q4"};
	struct moe_tensor_id id;

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		assert_true(moe_tensor_identify(&c->model, names[i], &id));
		assert_int_equal(id.role, MOE_R_EXPERT_GATE);
		assert_int_equal(id.layer, 1);
		assert_int_equal(id.expert, 3);
	}
	for (size_t i = 0; i < sizeof none / sizeof *none; i++)
		assert_false(moe_tensor_identify(&c->model, none[i], &id));
	moe_checkpoint_close(c);
}

/* check_shape of a tensor of that name, type and shape; what e says. */
static int check(const struct moe_model *m, const char *name, enum moe_dtype type, int64_t rows, int64_t cols,
                 struct moe_err *e)
{
	struct moe_tensor t = {.name = name, .dtype = type, .ndim = 2, .shape = {rows, cols}};
	struct moe_tensor_id id;

	*e = (struct moe_err)MOE_ERR_INIT;
	assert_true(moe_tensor_identify(m, name, &id));
	return moe_tensor_check_shape(m, id, &t, e);
}

/* w1 of tiny-mixtral is [72, 48]: one block of 128 columns, 2 tiles. */
static void sizes_follow_from_the_model(void **state)
{
	struct moe_checkpoint *c = synth("tiny-mixtral");
	struct moe_quant_shape s;
	struct moe_err e;

	(void)state;
	for (int q = MOE_Q_Q8; q < MOE_QUANTS; q++) {
		char plain[80], packed[90];
		int64_t row;

		moe_quant_shape((enum moe_quant)q, 48, &s);
		row = (int64_t)s.row_bytes;
		snprintf(plain, sizeof plain, EXPERT "w1.weight.%s", moe_quant_name((enum moe_quant)q));
		snprintf(packed, sizeof packed, "%s.r64", plain);
		assert_int_equal(check(&c->model, plain, MOE_U8, 72, row, &e), 0);
		assert_int_equal(check(&c->model, packed, MOE_U8, 2, 64 * row, &e), 0);
		assert_int_equal(check(&c->model, packed, MOE_U8, 72, row, &e), MOE_E_INPUT);
		assert_int_equal(check(&c->model, plain, MOE_U8, 72, row - 1, &e), MOE_E_INPUT);
		assert_non_null(strstr(e.msg, "is wanted"));
		assert_int_equal(check(&c->model, plain, MOE_I8, 72, row, &e), MOE_E_INPUT);
		assert_non_null(strstr(e.msg, "type U8, not I8"));
	}
	moe_checkpoint_close(c);
}

static void some_are_never_coded(void **state)
{
	struct moe_checkpoint *c = synth("tiny-qwen2-moe");
	static const char *const names[] = {
		"model.norm.weight.q8", "model.layers.0.mlp.gate.weight.q4", "model.layers.0.mlp.shared_expert_gate.weight.q8.r64",
		"model.layers.0.self_attn.q_proj.bias.q8", "model.layers.0.mlp.experts.gate_up_proj.q4",
		"model.layers.0.mlp.experts.down_proj.2.q4.r64",
	};
	struct moe_err e;

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		assert_int_equal(check(&c->model, names[i], MOE_U8, 1, 130, &e), MOE_E_INPUT);
		assert_non_null(strstr(e.msg, "never coded"));
	}
	moe_checkpoint_close(c);
}

static void matrices_are_bound_with_their_quant(void **state)
{
	static const enum moe_quant quants[] = {MOE_Q_Q8, MOE_Q_Q4, MOE_Q_Q3, MOE_Q_Q2};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct moe_expert_weights w;
		struct moe_base_weights b;
		struct moe_checkpoint *c;
		char spec[40];

		snprintf(spec, sizeof spec, "tiny-qwen2-moe,quant=%s", moe_quant_name(quants[i]));
		c = synth(spec);
		assert_int_equal(moe_checkpoint_check(c->tensors, &c->model, "c", NULL), 0);
		assert_int_equal(moe_bind_expert(c->tensors, &c->model, 2, 1, &w, NULL), 0);
		assert_int_equal(w.down.quant, quants[i]);
		assert_int_equal(w.down.layout, MOE_L_R64);
		assert_int_equal(w.down.rows, 48);
		assert_int_equal(w.down.cols, 24);
		assert_int_equal(moe_bind_base(c->tensors, &c->model, &b, NULL), 0);
		assert_int_equal(b.embed.quant, MOE_Q_Q8);
		assert_int_equal(b.layers[0].q.quant, quants[i] == MOE_Q_Q4 ? MOE_Q_Q4 : MOE_Q_Q8);
		assert_int_equal(b.layers[0].gate.quant, MOE_Q_BF16);
		moe_base_free(&b);
		moe_checkpoint_close(c);
	}
}

/* Of tiny-mixtral's many small matrices together: deviation 1 / sqrt(72), mean 0. */
static void random_codes_are_spread_like_weights(void **state)
{
	static const char *const specs[] = {"tiny-mixtral,layers=20,quant=q8", "tiny-mixtral,layers=20,quant=q4",
	                                    "tiny-mixtral,layers=20,quant=q3", "tiny-mixtral,layers=20,quant=q2"};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct moe_checkpoint *c = synth(specs[i]);
		double sum = 0, squares = 0, n = 0;
		float row[72];

		for (int x = 0; x < 100; x++) {
			struct moe_expert_weights w;

			assert_int_equal(moe_bind_expert(c->tensors, &c->model, x / 5, x % 5, &w, NULL), 0);
			for (int64_t r = 0; r < w.down.rows; r++) {
				moe_matrix_row(&w.down, r, row);
				for (int64_t k = 0; k < w.down.cols; k++, n++) {
					sum += row[k];
					squares += (double)row[k] * row[k];
				}
			}
		}
		assert_true(squares / n * 72 > 0.96 && squares / n * 72 < 1.04);
		assert_true(sum / n * sum / n * 72 < 0.0003);
		moe_checkpoint_close(c);
	}
}

static void a_tensor_twice_is_refused(void **state)
{
	static const char *const specs[] = {"tiny-mixtral,quant=q8", "tiny-mixtral"};
	static const char *const names[] = {EXPERT "w1.weight.q8.r64", EXPERT "w1.weight"};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct moe_checkpoint *c = synth("tiny-mixtral,quant=q4"), *other = synth(specs[i]);
		struct moe_err e = MOE_ERR_INIT;
		struct moe_expert_weights w;

		assert_int_equal(moe_tensors_add(c->tensors, moe_tensors_find(other->tensors, names[i]), NULL), 0);
		assert_int_equal(moe_checkpoint_check(c->tensors, &c->model, "c", &e), MOE_E_INPUT);
		assert_non_null(strstr(e.msg, "are the same thing"));
		assert_int_equal(moe_bind_expert(c->tensors, &c->model, 1, 3, &w, &e), MOE_E_INPUT);
		assert_non_null(strstr(e.msg, "are the same thing"));
		moe_checkpoint_close(c);
		moe_checkpoint_close(other);
	}
}

static void words_for_quants(void **state)
{
	static const struct {
		const char *text;
		struct moe_quants want;
	} good[] = {
		{"keep", MOE_QUANTS_INIT},
		{"q8", {MOE_Q_Q8, MOE_Q_Q8, MOE_Q_Q8, MOE_Q_Q8}},
		{"q4", {MOE_Q_Q4, MOE_Q_Q4, MOE_Q_Q8, MOE_Q_Q8}},
		{"q3", {MOE_Q_Q3, MOE_Q_Q8, MOE_Q_Q8, MOE_Q_Q8}},
		{"q2", {MOE_Q_Q2, MOE_Q_Q8, MOE_Q_Q8, MOE_Q_Q8}},
		{"f16", {MOE_Q_F16, MOE_Q_F16, MOE_Q_F16, MOE_Q_F16}},
		{"experts=q2", {MOE_Q_Q2, MOE_Q_KEEP, MOE_Q_KEEP, MOE_Q_KEEP}},
		{"head=q4,embed=bf16,rest=q8,experts=q3", {MOE_Q_Q3, MOE_Q_Q8, MOE_Q_BF16, MOE_Q_Q4}},
	};
	static const char *const bad[] = {"", "q5", "Q4", "rest=q2", "head=q3", "embed=q2", "experts", "experts=", "=q4", "experts=q4,",
	                                  ",experts=q4", "experts=q4;rest=q4", "norms=q8", "q4,q8",
	                                  "experts=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	struct moe_quants q;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_int_equal(moe_quants_parse(good[i].text, &q, NULL), 0);
		assert_memory_equal(&q, &good[i].want, sizeof q);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(moe_quants_parse(bad[i], &q, NULL), MOE_E_RANGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_those_of_their_stems),
		cmocka_unit_test(sizes_follow_from_the_model),
		cmocka_unit_test(some_are_never_coded),
		cmocka_unit_test(matrices_are_bound_with_their_quant),
		cmocka_unit_test(random_codes_are_spread_like_weights),
		cmocka_unit_test(a_tensor_twice_is_refused),
		cmocka_unit_test(words_for_quants),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("checkpoint_quants", tests, NULL, NULL);
}
