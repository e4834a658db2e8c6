/* Binding: experts in all three forms, everything else, and what a set lacks or has wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/private.h"

static struct moe_checkpoint *synth(const char *spec)
{
	struct moe_checkpoint *c;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_synth_open(spec, &c, &e))
		fail_msg("%s", e.msg);
	return c;
}

static struct moe_tensors *empty(void)
{
	struct moe_tensors *s;

	assert_int_equal(moe_tensors_new(&s, NULL), 0);
	return s;
}

/* All views of c but the tensor `without`. */
static struct moe_tensors *all_but(const struct moe_checkpoint *c, const char *without)
{
	struct moe_tensors *s = empty();

	for (size_t i = 0; i < moe_tensors_count(c->tensors); i++)
		if (strcmp(moe_tensors_at(c->tensors, i)->name, without))
			assert_int_equal(moe_tensors_add(s, moe_tensors_at(c->tensors, i), NULL), 0);
	return s;
}

/* Every expert's part of the fused tensors as a tensor of its own: what a shard set holds. */
static struct moe_tensors *parts(const struct moe_checkpoint *c)
{
	struct moe_tensors *s = empty();

	for (size_t i = 0; i < moe_tensors_count(c->tensors); i++) {
		struct moe_tensor t = *moe_tensors_at(c->tensors, i);
		char name[200];

		if (t.ndim < 3)
			continue;
		t.bytes /= (size_t)t.shape[0];
		t.ndim = 2;
		for (int64_t x = 0; x < t.shape[0]; x++) {
			struct moe_tensor part = t;

			snprintf(name, sizeof name, "%s.%d", t.name, (int)x);
			part.name = name;
			part.shape[0] = t.shape[1];
			part.shape[1] = t.shape[2];
			part.data += (size_t)x * t.bytes;
			assert_int_equal(moe_tensors_add(s, &part, NULL), 0);
		}
	}
	return s;
}

static void assert_matrix(const struct moe_matrix *a, const struct moe_matrix *b)
{
	assert_int_equal(a->rows, b->rows);
	assert_int_equal(a->cols, b->cols);
	assert_int_equal(a->quant, b->quant);
	assert_memory_equal(a->data, b->data, moe_matrix_bytes(a));
}

static void assert_same_experts(const struct moe_model *m, const struct moe_tensors *a, const struct moe_tensors *b)
{
	for (int l = 0; l < m->n_layers; l++)
		for (int x = 0; x < m->layers[l].ffn.experts; x++) {
			struct moe_expert_weights u, v;

			assert_int_equal(moe_bind_expert(a, m, l, x, &u, NULL), 0);
			assert_int_equal(moe_bind_expert(b, m, l, x, &v, NULL), 0);
			assert_int_equal(u.down.rows, m->hidden);
			assert_matrix(&u.gate, &v.gate);
			assert_matrix(&u.up, &v.up);
			assert_matrix(&u.down, &v.down);
		}
}

static void three_forms_one_expert(void **state)
{
	static const char *const names[] = {"tiny-mixtral", "tiny-qwen3-moe", "tiny-qwen2-moe", "tiny-olmoe"};

	(void)state;
	for (int i = 0; i < 4; i++) {
		char fused[64];
		struct moe_checkpoint *a = synth(names[i]), *b;
		struct moe_tensors *p;

		snprintf(fused, sizeof fused, "%s,fused", names[i]);
		b = synth(fused);
		p = parts(b);
		assert_same_experts(&a->model, a->tensors, b->tensors);
		assert_same_experts(&a->model, a->tensors, p);
		moe_tensors_free(p);
		moe_checkpoint_close(a);
		moe_checkpoint_close(b);
	}
}

static void base_of_each_family(void **state)
{
	struct moe_checkpoint *q2 = synth("tiny-qwen2-moe"), *q3 = synth("tiny-qwen3-moe"), *o = synth("tiny-olmoe");
	struct moe_base_weights b;

	(void)state;
	assert_int_equal(moe_bind_base(q2->tensors, &q2->model, &b, NULL), 0);
	assert_non_null(b.layers[0].q_bias.t);
	assert_null(b.layers[0].o_bias.t);
	assert_null(b.layers[0].q_norm.t);
	assert_non_null(b.layers[0].shared_switch.data);
	assert_int_equal(b.layers[0].shared.down.cols, q2->model.layers[0].ffn.shared_width);
	assert_null(b.layers[0].ffn.gate.data);
	assert_null(b.layers[1].gate.data);
	assert_int_equal(b.layers[1].ffn.up.rows, q2->model.layers[1].ffn.width);
	moe_base_free(&b);
	assert_int_equal(moe_bind_base(q3->tensors, &q3->model, &b, NULL), 0);
	assert_int_equal(b.layers[0].q_norm.n, 16);
	assert_int_equal(b.layers[0].gate.rows, 7);
	assert_int_equal(b.head.rows, q3->model.vocab);
	moe_base_free(&b);
	assert_int_equal(moe_bind_base(o->tensors, &o->model, &b, NULL), 0);
	assert_int_equal(b.layers[0].q_norm.n, 48);
	assert_int_equal(b.layers[0].k_norm.n, 24);
	moe_base_free(&b);
	moe_checkpoint_close(q2);
	moe_checkpoint_close(q3);
	moe_checkpoint_close(o);
}

static void tied_head_is_the_embedding(void **state)
{
	struct moe_checkpoint *c = synth("tiny-mixtral");
	struct moe_tensors *s = all_but(c, "lm_head.weight");
	struct moe_base_weights b;
	struct moe_err e;

	(void)state;
	assert_int_equal(moe_bind_base(s, &c->model, &b, &e), MOE_E_MISSING);
	assert_string_equal(e.msg, "tensor lm_head.weight is missing");
	c->model.tied = true;
	assert_int_equal(moe_bind_base(s, &c->model, &b, &e), 0);
	assert_ptr_equal(b.head.data, b.embed.data);
	moe_base_free(&b);
	/* One that is there all the same is passed over, as transformers does. */
	assert_int_equal(moe_bind_base(c->tensors, &c->model, &b, &e), 0);
	assert_ptr_equal(b.head.data, b.embed.data);
	moe_base_free(&b);
	moe_tensors_free(s);
	moe_checkpoint_close(c);
}

static void what_is_missing_is_named(void **state)
{
	struct moe_checkpoint *c = synth("tiny-qwen2-moe");

	(void)state;
	assert_int_equal(moe_checkpoint_check(c->tensors, &c->model, "c", NULL), 0);
	for (size_t i = 0; i < moe_tensors_count(c->tensors); i++) {
		const char *name = moe_tensors_at(c->tensors, i)->name;
		struct moe_tensors *s = all_but(c, name);
		struct moe_err e = MOE_ERR_INIT;

		if (moe_checkpoint_check(s, &c->model, "c", &e) != MOE_E_MISSING || !strstr(e.msg, name))
			fail_msg("without %s: %s", name, e.msg);
		moe_tensors_free(s);
	}
	moe_checkpoint_close(c);
}

/* The set with that tensor changed; its data are not looked at. */
static void assert_refused(const struct moe_checkpoint *c, const char *name, const struct moe_tensor *instead, int code,
                           const char *says)
{
	struct moe_tensors *s = all_but(c, name);
	struct moe_err e = MOE_ERR_INIT;
	int rc;

	assert_int_equal(moe_tensors_add(s, instead, NULL), 0);
	rc = moe_checkpoint_check(s, &c->model, "c", &e);
	if (rc != code || strcmp(e.msg, says))
		fail_msg("%s: %d \"%s\", wanted \"%s\"", name, rc, e.msg, says);
	moe_tensors_free(s);
}

static void wrong_shapes_are_named(void **state)
{
	struct moe_checkpoint *c = synth("tiny-mixtral"), *f = synth("tiny-mixtral,fused");
	static const char q[] = "model.layers.1.self_attn.k_proj.weight", w1[] = "model.layers.0.block_sparse_moe.experts.4.w1.weight";
	static const char fused[] = "model.layers.0.mlp.experts.gate_up_proj";
	struct moe_tensor t = *moe_tensors_find(c->tensors, q);

	(void)state;
	t.shape[0] = 48;
	t.shape[1] = 16;
	assert_refused(c, q, &t, MOE_E_INPUT, "c: tensor model.layers.1.self_attn.k_proj.weight has shape [48, 16], [16, 48] is wanted");
	t = *moe_tensors_find(c->tensors, w1);
	t.ndim = 3;
	t.shape[2] = 1;
	assert_refused(c, w1, &t, MOE_E_INPUT, "c: tensor model.layers.0.block_sparse_moe.experts.4.w1.weight has shape [72, 48, 1], [72, 48] is wanted");
	t = *moe_tensors_find(f->tensors, fused);
	t.shape[1] = 48;
	t.shape[2] = 144;
	assert_refused(f, fused, &t, MOE_E_INPUT, "c: tensor model.layers.0.mlp.experts.gate_up_proj has shape [5, 48, 144], [5, 144, 48] is wanted");
	t = *moe_tensors_find(c->tensors, "model.norm.weight");
	t.ndim = 0;
	assert_refused(c, "model.norm.weight", &t, MOE_E_INPUT, "c: tensor model.norm.weight has shape [], [48] is wanted");
	moe_checkpoint_close(c);
	moe_checkpoint_close(f);
}

static void types_no_kernel_reads(void **state)
{
	struct moe_checkpoint *c = synth("tiny-mixtral");
	static const char w2[] = "model.layers.0.block_sparse_moe.experts.4.w2.weight";
	struct moe_tensor t = *moe_tensors_find(c->tensors, w2);

	(void)state;
	t.dtype = MOE_F8_E4M3;
	assert_refused(c, w2, &t, MOE_E_UNSUPPORTED,
	               "c: tensor model.layers.0.block_sparse_moe.experts.4.w2.weight: weights of type F8_E4M3 are not supported");
	t = *moe_tensors_find(c->tensors, "model.norm.weight");
	t.dtype = MOE_I8;
	assert_refused(c, "model.norm.weight", &t, MOE_E_UNSUPPORTED, "c: tensor model.norm.weight: weights of type I8 are not supported");
	moe_checkpoint_close(c);
}

static void assert_extra(const struct moe_checkpoint *c, const struct moe_tensor *t, const char *name, int code, const char *says)
{
	struct moe_tensor extra = *t;

	extra.name = name;
	assert_refused(c, "", &extra, code, says);
}

static void nothing_twice_nothing_strange(void **state)
{
	struct moe_checkpoint *c = synth("tiny-mixtral"), *f = synth("tiny-mixtral,fused");
	const struct moe_tensor *gate = moe_tensors_find(c->tensors, "model.layers.0.block_sparse_moe.gate.weight");

	(void)state;
	assert_extra(c, gate, "model.layers.0.mlp.gate.weight", MOE_E_INPUT,
	             "c: tensors model.layers.0.block_sparse_moe.gate.weight and model.layers.0.mlp.gate.weight are the same thing");
	assert_extra(c, moe_tensors_find(f->tensors, "model.layers.1.mlp.experts.down_proj"), "model.layers.1.mlp.experts.down_proj",
	             MOE_E_INPUT, "c: layer 1, expert 0 is there twice: as three tensors and as fused tensors");
	assert_extra(c, gate, "model.layers.0.mlp.bias", MOE_E_UNSUPPORTED,
	             "c: tensor model.layers.0.mlp.bias is none that this mixtral model has");
	assert_extra(c, gate, "model.layers.2.block_sparse_moe.gate.weight", MOE_E_UNSUPPORTED,
	             "c: tensor model.layers.2.block_sparse_moe.gate.weight is none that this mixtral model has");
	moe_checkpoint_close(c);
	moe_checkpoint_close(f);
}

static void only_experts_that_exist(void **state)
{
	struct moe_checkpoint *c = synth("tiny-qwen2-moe");
	struct moe_expert_weights w;
	static const int no[][2] = {{-1, 0}, {3, 0}, {0, -1}, {0, 6}, {1, 0}};
	struct moe_tensors *s = empty();
	struct moe_err e;

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_int_equal(moe_bind_expert(c->tensors, &c->model, no[i][0], no[i][1], &w, &e), MOE_E_RANGE);
	assert_int_equal(moe_bind_expert(s, &c->model, 2, 5, &w, &e), MOE_E_MISSING);
	assert_string_equal(e.msg, "tensor model.layers.2.mlp.experts.5.gate_proj.weight is missing (layer 2, expert 5)");
	moe_tensors_free(s);
	moe_checkpoint_close(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(three_forms_one_expert),
		cmocka_unit_test(base_of_each_family),
		cmocka_unit_test(tied_head_is_the_embedding),
		cmocka_unit_test(what_is_missing_is_named),
		cmocka_unit_test(wrong_shapes_are_named),
		cmocka_unit_test(types_no_kernel_reads),
		cmocka_unit_test(nothing_twice_nothing_strange),
		cmocka_unit_test(only_experts_that_exist),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("checkpoint_bind", tests, NULL, NULL);
}
