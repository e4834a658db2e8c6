/* Every operation of the CPU backend, with each instruction set this machine has, against plain sums in double. */
#include <stdio.h>

#include "compute_vectors.h"

struct run {
	const char *isa;
	void (*fn)(struct moe_backend *b);
};

static void run_vector(void **state)
{
	const struct run *r = *state;
	struct rig g;

	if (!rig_open(&g, r->isa, 2))
		skip();
	if (is_cpu(g.b))
		assert_string_equal(moe_backend_cpu_isa(g.b), r->isa);
	r->fn(g.b);
	rig_close(&g);
}

/* ---- what is refused, and what must not break anything ---- */

static void unknown_cpu_is_refused(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_backend *b;

	(void)state;
	setenv("MOE_CPU", "z80", 1);
	assert_int_equal(moe_backend_cpu(NULL, NULL, &b, &e), MOE_E_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "z80"));
	unsetenv("MOE_CPU");
}

static void token_outside_vocabulary_is_refused(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_matrix m;
	struct pile p;
	struct rig g;
	float *y;

	(void)state;
	assert_true(rig_open(&g, "base", 1));
	p = (struct pile){.b = g.b};
	m = noise_matrix(&p, 1, MOE_Q_F32, 2, 3, 0, NULL);
	y = pile_new(&p, 3 * sizeof *y);
	for (int32_t id = -1; id <= 2; id += 3)
		assert_int_equal(g.b->ops->embed(g.b, NULL, y, &id, 1, &m, &e), MOE_E_RANGE);
	pile_free(&p);
	rig_close(&g);
}

static void hostile_numbers_break_nothing(struct moe_backend *b)
{
	static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f, -0.0f};
	struct moe_gate gate = {MOE_SCORE_SOFTMAX, 3, true, 1};
	struct moe_attention a = {.heads = 2, .kv_heads = 1, .head_dim = 32, .scale = 1, .rope = {1e4, 32, 1}};
	struct moe_matrix m = {MOE_Q_F32, MOE_L_PLAIN, 64, 64, NULL, false};
	struct moe_expert_weights w = {m, m, m};
	struct moe_attn_seq seq = {0, 16, 0, (const int32_t[]){0}};
	struct moe_err e = MOE_ERR_INIT;
	struct pile p = {.b = b};
	float *numbers = noises(1, 64 * 64), *x, *y = pile_new(&p, 64 * 64 * sizeof *y), *kv = pile_new(&p, 64 * 64 * sizeof *kv);
	int32_t ids[48], positions[16] = {0, INT32_MAX}, *chosen = pile_new(&p, sizeof ids);

	for (int i = 0; i < 64 * 64; i += 5)
		numbers[i] = bad[i / 5 % 8];
	x = pile_copy(&p, numbers, 64 * 64 * sizeof *x);
	w.gate.data = w.up.data = w.down.data = m.data = x;
	assert_int_equal(b->ops->matmul(b, NULL, y, x, 64, &m, x, &e), 0);
	assert_int_equal(b->ops->rmsnorm(b, NULL, y, x, 64, 64, x, 1e-5f, &e), 0);
	assert_int_equal(b->ops->clamp(b, NULL, y, 64 * 64, 2, &e), 0);
	assert_int_equal(b->ops->ffn(b, NULL, y, x, 32, &w, MOE_ACT_SILU, kv, &e), 0);
	y = pile_copy(&p, numbers, 64 * 64 * sizeof *y);
	assert_int_equal(b->ops->rope(b, NULL, y, positions, 16, 2, 32, &a.rope, &e), 0);
	for (int t = 0; t < MOE_KV_TYPES; t++) {
		struct moe_kv_view view = {(unsigned char *)kv, 64 * 64 * sizeof *kv, (enum moe_kv_type)t};

		assert_int_equal(b->ops->kv_store(b, NULL, view, x, x, &seq, 1, &a, &e), 0);
		assert_int_equal(b->ops->attention(b, NULL, y, x, view, &seq, 1, &a, &e), 0);
	}
	assert_int_equal(b->ops->gate(b, NULL, x, 16, 8, &gate, chosen, y, &e), 0);
	pile_read(&p, ids, chosen, sizeof ids);
	for (int i = 0; i < 48; i++) /* still three different experts in order */
		assert_in_range(ids[i], i % 3 ? ids[i - 1] + 1 : 0, 7);
	free(numbers);
	pile_free(&p);
}

static void nothing_to_do_is_fine(struct moe_backend *b)
{
	struct moe_attention a = {.heads = 2, .kv_heads = 1, .head_dim = 32, .scale = 1};
	struct moe_gate gate = {MOE_SCORE_SOFTMAX, 1, true, 1};
	struct moe_matrix m = {MOE_Q_F32, MOE_L_PLAIN, 4, 4, NULL, false};
	struct moe_expert_weights w = {m, m, m};
	struct moe_kv_view kv = {NULL, 0, MOE_KV_F32};
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	float y[1] = {0}, *x;

	assert_int_equal(b->ops->matmul(b, NULL, y, y, 0, &m, NULL, &e), 0);
	assert_int_equal(b->ops->embed(b, NULL, y, NULL, 0, &m, &e), 0);
	assert_int_equal(b->ops->rmsnorm(b, NULL, y, y, 0, 4, y, 1, &e), 0);
	assert_int_equal(b->ops->rope(b, NULL, y, NULL, 0, 2, 32, &a.rope, &e), 0);
	assert_int_equal(b->ops->kv_store(b, NULL, kv, y, y, NULL, 0, &a, &e), 0);
	assert_int_equal(b->ops->attention(b, NULL, y, y, kv, NULL, 0, &a, &e), 0);
	assert_int_equal(b->ops->gate(b, NULL, y, 0, 4, &gate, NULL, y, &e), 0);
	assert_int_equal(b->ops->ffn(b, NULL, y, y, 0, &w, MOE_ACT_SILU, y, &e), 0);
	assert_int_equal(b->ops->experts(b, NULL, y, y, NULL, 0, NULL, NULL, MOE_ACT_SILU, y, &e), 0);
	assert_int_equal(b->ops->combine(b, NULL, y, y, NULL, 0, 2, 4, &e), 0);
	assert_int_equal(b->ops->add(b, NULL, y, y, 0, &e), 0);
	gate.top_k = 5;
	x = pile_new(&p, 64);
	assert_int_equal(b->ops->gate(b, NULL, x, 1, 4, &gate, (int32_t *)(x + 8), x + 4, &e), MOE_E_RANGE);
	pile_free(&p);
}

int main(void)
{
	static struct run runs[COUNT(isas) * (COUNT(vectors) + 2)];
	static char names[COUNT(runs)][64];
	struct CMUnitTest tests[COUNT(runs) + 2] = {
		cmocka_unit_test(unknown_cpu_is_refused),
		cmocka_unit_test(token_outside_vocabulary_is_refused),
	};

	for (size_t i = 0; i < COUNT(runs); i++) {
		size_t v = i % (COUNT(vectors) + 2);

		runs[i].isa = isas[i / (COUNT(vectors) + 2)];
		runs[i].fn = v < COUNT(vectors) ? vectors[v].run
		           : v == COUNT(vectors) ? hostile_numbers_break_nothing : nothing_to_do_is_fine;
		snprintf(names[i], sizeof names[i], "%s: %s", runs[i].isa,
		         v < COUNT(vectors) ? vectors[v].name : v == COUNT(vectors) ? "hostile numbers" : "nothing to do");
		tests[2 + i] = (struct CMUnitTest){names[i], run_vector, NULL, NULL, &runs[i]};
	}
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("compute_ops", tests, NULL, NULL);
}
