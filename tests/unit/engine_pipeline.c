/* The pipeline's logits are those of the plain decoder, bit by bit, whatever the schedule. */
#include "engine_pipeline_rig.h"

static const char *const specs[] = {"tiny-mixtral,seed=1", "tiny-qwen3-moe,seed=2", "tiny-qwen2-moe,seed=3", "tiny-olmoe,seed=4"};
#define N_SPECS (sizeof specs / sizeof *specs)

/* How many micro-batches and sequences, of how many in one; share of the experts; rows of prompts in a graph of their own, steps. */
struct size {
	int micro_batches, micro_batch, sequences;
	double weights;
	int prefill_rows, steps;
};

static void compare(const struct rig *plain, const struct way *way, const struct size *s, enum moe_kv_type kv)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_offload o;
	struct moe_backend *device;
	struct moe_team *team;
	struct flow f;

	must(moe_team_new(2, &team, &e), &e);
	must(moe_backend_cpu(team, NULL, &device, &e), &e);
	o = way_offload(way, device, s->micro_batches, s->micro_batch);
	o.weights = s->weights;
	o.prefill_rows = s->prefill_rows;
	must(flow_open(&f, plain, &o, kv, &e), &e);
	flow_fill(&f, s->sequences);
	if (flow_run(&f, s->steps, &e) != 0)
		fail_msg("%s: %s", way->name, e.msg);
	assert_int_equal(f.compared, flow_expected(&f));
	flow_close(&f);
	device->ops->close(device);
	moe_team_free(team);
}

static void compare_all(const char *spec, const struct size *s, enum moe_kv_type kv)
{
	struct rig *plain = plain_answers(spec, kv);

	for (size_t w = 0; w < N_WAYS; w++)
		compare(plain, &ways[w], s, kv);
	rig_close(plain);
}

static void every_schedule_and_model(void **state)
{
	static const struct size s = {3, 3, 8, 0.5, 0, 4};

	(void)state;
	for (size_t i = 0; i < N_SPECS; i++)
		compare_all(specs[i], &s, MOE_KV_F32);
}

static void prompts_in_a_graph_of_their_own(void **state)
{
	static const struct size s = {3, 3, 8, 0.5, 300, 4};

	(void)state;
	for (size_t i = 0; i < N_SPECS; i++)
		compare_all(specs[i], &s, MOE_KV_F32);
}

static void any_number_of_micro_batches(void **state)
{
	static const struct size some[] = {{1, 8, 8, 0.5, 0, 3}, {2, 4, 7, 0.0, 0, 1},  {7, 2, 9, 1.0, 0, 5},
	                                   {1, 9, 9, 0.0, 400, 2}, {2, 5, 10, 1.0, 400, 7}, {7, 2, 14, 0.3, 200, 3}};

	(void)state;
	for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
		compare_all("tiny-mixtral,seed=1", &some[i], MOE_KV_F32);
		compare_all("tiny-qwen2-moe,seed=3,layers=5", &some[i], MOE_KV_Q8);
	}
}

static void empty_micro_batches(void **state)
{
	static const struct size some[] = {{7, 2, 3, 0.5, 0, 2}, {7, 2, 3, 0.5, 200, 2}};

	(void)state;
	for (size_t i = 0; i < sizeof some / sizeof *some; i++)
		compare_all("tiny-qwen2-moe,seed=3", &some[i], MOE_KV_F32);
}

static void a_single_layer(void **state)
{
	static const struct size some[] = {{1, 8, 8, 0.5, 0, 3}, {3, 3, 8, 0.0, 0, 2}, {3, 3, 8, 0.0, 300, 2}, {1, 8, 8, 0.5, 400, 3}};

	(void)state;
	for (size_t i = 0; i < sizeof some / sizeof *some; i++)
		compare_all("tiny-mixtral,seed=5,layers=1", &some[i], MOE_KV_F16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_schedule_and_model),
		cmocka_unit_test(prompts_in_a_graph_of_their_own),
		cmocka_unit_test(any_number_of_micro_batches),
		cmocka_unit_test(empty_micro_batches),
		cmocka_unit_test(a_single_layer),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine_pipeline", tests, NULL, NULL);
}
