/* Placements in other engines' formats, byte for byte. */
#include "plan_rig.h"

static const struct moe_device fleet[] = {{.host = "a", .kind = "cpu"}, {.host = "a", .kind = "cuda"}, {.host = "b", .kind = "cpu"}};

/* Expert x of layer l on device (x + l * ctx) mod 3; expert 0 on all when ctx is 2. */
static int spread(void *ctx, int layer, int expert, int *ids, int cap)
{
	int step = *(int *)ctx;

	ids[0] = (expert + layer * step) % cap;
	if (step != 2 || expert)
		return 1;
	for (int i = 0; i < cap; i++)
		ids[i] = i;
	return cap;
}

static struct moe_placement place(const struct moe_model *m, int step)
{
	struct moe_placement p;

	assert_int_equal(moe_placement_make(m, 3, spread, &step, &p, NULL), 0);
	return p;
}

static void assert_exports(const char *to, const struct moe_model *m, int step, const char *want)
{
	struct moe_placement p = place(m, step);
	struct moe_buf out = MOE_BUF_INIT;
	enum moe_export format;

	assert_true(moe_export_named(to, &format));
	assert_int_equal(moe_placement_export(format, m, fleet, 3, &p, &out, NULL), 0);
	assert_string_equal(out.data, want);
	moe_buf_free(&out);
	moe_placement_free(&p);
}

static void assert_refuses(const char *to, const struct moe_model *m, int step, const char *word)
{
	struct moe_placement p = place(m, step);
	struct moe_err e = MOE_ERR_INIT;
	struct moe_buf out = MOE_BUF_INIT;
	enum moe_export format;

	assert_true(moe_export_named(to, &format));
	assert_int_equal(moe_placement_export(format, m, fleet, 3, &p, &out, &e), MOE_E_UNSUPPORTED);
	assert_non_null(strstr(e.msg, word));
	moe_buf_free(&out);
	moe_placement_free(&p);
}

static void vllm_has_one_list_when_layers_are_alike(void **state)
{
	struct moe_model m = rig_model(3, 4, 0);

	(void)state;
	assert_exports("vllm", &m, 0, "{\n  \"expert_to_ep_rank\": [0, 1, 2, 0]\n}\n");
}

static void vllm_comes_back(void **state)
{
	struct moe_model m = rig_model(4, 5, 1);
	struct moe_placement p = place(&m, 1), again;
	struct moe_buf out = MOE_BUF_INIT;
	struct moe_json *j;

	(void)state;
	assert_int_equal(moe_placement_export(MOE_EXPORT_VLLM, &m, fleet, 3, &p, &out, NULL), 0);
	assert_int_equal(moe_json_parse(out.data, out.len, "test", &j, NULL), 0);
	assert_int_equal(moe_placement_from_json(j, "test", &m, 3, &again, NULL), 0);
	assert_memory_equal(p.device, again.device, (size_t)p.first[p.start[4]] * sizeof *p.device);
	moe_json_free(j);
	moe_buf_free(&out);
	moe_placement_free(&again);
	moe_placement_free(&p);
}

static void vllm_knows_no_copies(void **state)
{
	struct moe_model m = rig_model(2, 4, -1);

	(void)state;
	assert_refuses("vllm", &m, 2, "layer 0, expert 0 has 3 copies");
}

static void tensorrt_lists_slots(void **state)
{
	struct moe_model m = rig_model(2, 4, 0);

	(void)state;
	assert_exports("tensorrt-llm", &m, 2, "num_slots: 6\ninitial_global_assignments:\n  1: [0, 1, 0, 2, 0, 3]\nlayer_updates_per_iter: 0\n");
}

static void tensorrt_wants_equal_ranks(void **state)
{
	struct moe_model m = rig_model(2, 4, -1);

	(void)state;
	assert_refuses("tensorrt-llm", &m, 0, "device 0 holds 2 experts of layer 0, device 1 holds 1");
}

static void llama_gets_whole_layers_in_proportion(void **state)
{
	struct moe_model m = rig_model(9, 3, 0);

	(void)state;
	assert_exports("llama.cpp", &m, 1,
	               "-ot 'blk\\.(1|2|3)\\.ffn_(gate|up|down|gate_up)_exps\\.=CPU'\n"
	               "-ot 'blk\\.(4|5)\\.ffn_(gate|up|down|gate_up)_exps\\.=CUDA0'\n"
	               "-ot 'blk\\.(6|7|8)\\.ffn_(gate|up|down|gate_up)_exps\\.=RPC[b:50052]'\n");
}

static void hosts_have_slots(void **state)
{
	struct moe_model m = rig_model(1, 3, -1);

	(void)state;
	assert_exports("hosts", &m, 0, "a slots=2\nb slots=1\n");
	assert_exports("slurm", &m, 0, "a\na\nb\n");
}

static void what_cannot_be_is_refused(void **state)
{
	struct moe_model m = rig_model(1, 3, -1), dense = rig_model(1, 0, 0);
	struct moe_placement p = place(&dense, 0);
	struct moe_buf out = MOE_BUF_INIT;
	enum moe_export to;

	(void)state;
	assert_int_equal(moe_placement_export(MOE_EXPORT_VLLM, &m, fleet, 3, &p, &out, NULL), MOE_E_INPUT);
	assert_int_equal(moe_placement_export(MOE_EXPORT_VLLM, &m, fleet, 2, &p, &out, NULL), MOE_E_INPUT);
	assert_false(moe_export_named("sglang", &to));
	moe_placement_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vllm_has_one_list_when_layers_are_alike),
		cmocka_unit_test(vllm_comes_back),
		cmocka_unit_test(vllm_knows_no_copies),
		cmocka_unit_test(tensorrt_lists_slots),
		cmocka_unit_test(tensorrt_wants_equal_ranks),
		cmocka_unit_test(llama_gets_whole_layers_in_proportion),
		cmocka_unit_test(hosts_have_slots),
		cmocka_unit_test(what_cannot_be_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
