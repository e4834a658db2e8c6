/* With offload an engine says what the plain decoder says, bit by bit: tokens, log-probabilities and logits, whatever the schedule, the
 * micro-batches and the share of the experts that stays on the device, which has no byte more than was planned. */
#include "engine_offload_rig.h"

struct size {
	int micro_batches, micro_batch;
	double weights;
	bool no_prefix_cache;
};

static void assert_same_life(const struct rig *a, const struct rig *b, const char *name, const struct size *s)
{
	for (uint64_t id = 1; id <= N_LIFE; id++) {
		const struct record *x = record_of(a, id), *y = record_of(b, id);

		if (x->n != y->n || memcmp(x->logits, y->logits, (size_t)x->n * sizeof *x->logits) != 0)
			fail_msg("%s, %d micro-batches, %g of the experts: request %d says other things", name, s->micro_batches, s->weights,
			         (int)id);
		assert_same_answer(x, y);
	}
}

static void compare(const struct rig *plain, const struct way *way, const struct size *s, enum moe_kv_type kv)
{
	struct moe_engine_config c = life_config(kv);
	struct moe_offload o = way->o;
	struct rig *r = rig_beside(plain);
	struct moe_device_memory used;
	struct moe_engine_stats stats;
	size_t cap;

	o.micro_batches = s->micro_batches;
	o.micro_batch = s->micro_batch;
	o.weights = s->weights;
	o.prefill_rows = LIFE_PREFILL;
	o.steps = 4;
	c.offload = &o;
	c.no_prefix_cache = s->no_prefix_cache;
	o.device = tight_device(plain, c, &cap);
	live(r, c, true);
	assert_same_life(r, plain, way->name, s);
	stats = moe_engine_stats(r->g);
	assert_int_equal(stats.generated, moe_engine_stats(plain->g).generated);
	assert_true(stats.prefill_graphs > 0 && stats.graphs > stats.prefill_graphs && stats.steps >= stats.graphs);
	assert_true(stats.admitted_while_decoding > 0);
	o.device->ops->memory(o.device, &used);
	assert_true(used.most <= cap);
	rig_leave(r);
	o.device->ops->memory(o.device, &used);
	assert_int_equal(used.used, 0);
	o.device->ops->close(o.device);
}

/* A sanitizer that makes this many times slower sees the same from every `stride`th. */
static int stride(void)
{
	const char *san = getenv("MOE_SAN");

	return san && *san && !getenv("MOE_LONG") ? 5 : 1;
}

static void compare_all(const char *spec, const struct size *sizes, int n, enum moe_kv_type kv)
{
	struct rig *plain = plain_life(spec, kv);

	for (int i = 0; i < n * (int)N_WAYS; i += stride())
		compare(plain, &ways[i / n], &sizes[i % n], kv);
	rig_close(plain);
}

static const struct size sizes[] = {
	{1, 5, 0.0, false}, {1, 6, 0.5, true},  {1, 5, 1.0, false}, {2, 3, 0.0, true},  {2, 4, 0.5, false}, {2, 3, 1.0, false},
	{3, 2, 0.0, false}, {3, 3, 0.5, false}, {3, 2, 1.0, true},  {7, 1, 0.0, false}, {7, 2, 0.5, true},  {7, 1, 1.0, false},
};
#define N_SIZES ((int)(sizeof sizes / sizeof *sizes))

static void even_layers(void **state)
{
	(void)state;
	compare_all("tiny-mixtral,seed=1", sizes, N_SIZES, MOE_KV_F32);
}

static void odd_layers(void **state)
{
	(void)state;
	compare_all("tiny-mixtral,seed=1,layers=3", sizes, N_SIZES, MOE_KV_F32);
}

static void a_single_layer(void **state)
{
	static const struct size few[] = {{1, 5, 0.0, false}, {3, 2, 0.5, false}};

	(void)state;
	compare_all("tiny-mixtral,seed=1,layers=1", few, 2, MOE_KV_F16);
}

static void every_model_and_quant(void **state)
{
	static const char *const models[] = {"tiny-mixtral", "tiny-qwen3-moe", "tiny-qwen2-moe", "tiny-olmoe"};
	static const char *const quants[] = {"dtype=bf16", "quant=q8", "quant=q4"};
	static const struct size one = {3, 2, 0.5, false};
	bool all = getenv("MOE_LONG") != NULL;

	(void)state;
	for (int m = 0; m < 4; m++)
		for (int q = 0; q < 3; q++) {
			char spec[64];

			snprintf(spec, sizeof spec, "%s,seed=%d,%s", models[m], m + 1, quants[q]);
			compare_all(spec, all ? sizes : &one, all ? N_SIZES : 1, MOE_KV_Q8);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(even_layers),
		cmocka_unit_test(odd_layers),
		cmocka_unit_test(a_single_layer),
		cmocka_unit_test(every_model_and_quant),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine offload", tests, NULL, NULL);
}
