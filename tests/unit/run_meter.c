/* What rows cost, against sums made by hand for a small model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "run/run.h"

struct rig {
	struct moe_run *run;
	struct moe_meter *meter;
	bool counting;
};

static int on_event(void *ctx, const struct moe_event *ev)
{
	struct rig *r = ctx;

	if (ev->kind == MOE_EV_TOKEN && r->counting)
		moe_meter_logits(r->meter);
	return 0;
}

static void open_rig(struct rig *r, const char *spec, int chunk)
{
	struct moe_run_config c = {
		.shards = spec, .threads = 1, .numerics = MOE_NUMERICS_EXACT, .timeout = 5,
		.engine = {.max_sequences = 4, .ctx = 64, .chunk = chunk, .on_event = on_event, .ctx_event = r},
	};

	*r = (struct rig){0};
	assert_int_equal(moe_run_open(&c, &r->run, NULL), 0);
	assert_int_equal(moe_meter_new(r->run, &r->meter, NULL), 0);
}

static void close_rig(struct rig *r)
{
	moe_meter_free(r->meter);
	moe_run_close(r->run);
}

static struct moe_cost count(struct rig *r, int sequences, int prompt, int generate)
{
	int32_t tokens[64];
	bool busy = true;

	for (int s = 0; s < sequences; s++) {
		struct moe_request q = {.tokens = tokens, .n_tokens = prompt, .max_tokens = generate, .ignore_eos = true};

		for (int i = 0; i < prompt; i++)
			tokens[i] = (s * 31 + i * 7) % r->run->model->vocab;
		assert_int_equal(moe_engine_submit(r->run->engine, &q, NULL, NULL), 0);
	}
	moe_meter_start(r->meter);
	r->counting = true;
	while (busy) {
		moe_meter_step(r->meter);
		assert_int_equal(moe_engine_step(r->run->engine, &busy, NULL), 0);
	}
	r->counting = false;
	return moe_meter_stop(r->meter);
}

/* Weights that every row passes, without the head. */
static double body_weights(const struct moe_model *m)
{
	double n = 0;

	for (int l = 0; l < m->n_layers; l++) {
		const struct moe_attention *a = &m->layers[l].attn;

		n += (double)m->hidden * a->head_dim * (2 * a->heads + 2 * a->kv_heads) + (double)m->hidden * m->layers[l].ffn.experts;
	}
	return n;
}

static void one_token(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, "synth:tiny-mixtral,seed=1,dtype=f32", 8);

	const struct moe_model *m = r.run->model;
	const struct moe_attention *a = &m->layers[0].attn;
	struct moe_cost c = count(&r, 1, 1, 1);
	double expert = (double)moe_model_expert_size(m, 0, 1), k = m->layers[0].ffn.gate.top_k;
	double weights = body_weights(m) + (double)m->vocab * m->hidden + m->n_layers * k * expert;

	assert_int_equal(c.steps, 1);
	assert_int_equal(c.rows, 1);
	assert_int_equal(c.logits, 1);
	assert_int_equal(c.experts, m->n_layers * m->layers[0].ffn.gate.top_k);
	assert_true(c.weight_bytes == 4 * weights);
	assert_true(c.kv_bytes == 2.0 * 4 * a->kv_heads * a->head_dim * m->n_layers);
	assert_true(c.operations[MOE_F32_DOT] == 2 * weights + 4.0 * a->heads * a->head_dim * m->n_layers);
	assert_true(c.operations[MOE_I8_DOT] == 0);
	close_rig(&r);
}

static void a_prompt_in_chunks(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, "synth:tiny-mixtral,seed=1", 8);

	const struct moe_model *m = r.run->model;
	const struct moe_attention *a = &m->layers[0].attn;
	struct moe_cost c = count(&r, 1, 12, 1);

	assert_int_equal(c.steps, 2); /* 8 rows and 4 */
	assert_int_equal(c.rows, 12);
	assert_int_equal(c.logits, 1);
	assert_in_range(c.experts, m->n_layers * 4, m->n_layers * 2 * m->layers[0].ffn.experts);
	/* the first step reads what it wrote, 8 positions, the second 12; of 4 bytes */
	assert_true(c.kv_bytes == 2.0 * 4 * a->kv_heads * a->head_dim * m->n_layers * (8 + 12));
	close_rig(&r);
}

static void a_batch_reads_weights_once(void **state)
{
	struct rig r;

	(void)state;
	open_rig(&r, "synth:tiny-mixtral,seed=1", 8);

	const struct moe_model *m = r.run->model;
	struct moe_cost one = count(&r, 1, 1, 6), four = count(&r, 4, 1, 6);

	assert_int_equal(one.steps, 6);
	assert_int_equal(four.steps, 6);
	assert_int_equal(four.rows, 24);
	assert_int_equal(four.logits, 24);
	assert_true(four.experts >= one.experts && four.experts <= 6 * (uint64_t)(m->n_layers * m->layers[0].ffn.experts));
	assert_true(four.weight_bytes - one.weight_bytes ==
	            (double)(four.experts - one.experts) * (double)moe_model_expert_size(m, 0, 2));
	close_rig(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_token),
		cmocka_unit_test(a_prompt_in_chunks),
		cmocka_unit_test(a_batch_reads_weights_once),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("run_meter", tests, NULL, NULL);
}
