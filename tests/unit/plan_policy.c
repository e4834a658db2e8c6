/* Policies, placements and hardware as JSON: what is read, what is refused and how. */
#include "plan_rig.h"

#include <unistd.h>

static struct moe_json *parse(const char *text)
{
	struct moe_json *j = NULL;

	assert_int_equal(moe_json_parse(text, strlen(text), "test", &j, NULL), 0);
	return j;
}

/* Read a placement of 2 layers of 2 experts, the second dense when `dense`; returns the code, words in e. */
static int read_placement(const char *text, bool dense, int devices, struct moe_placement *p, struct moe_err *e)
{
	struct moe_model m = rig_model(2, 2, dense ? 1 : -1);
	struct moe_json *j = parse(text);
	int rc = moe_placement_from_json(j, "plan.json", &m, devices, p, e);

	moe_json_free(j);
	return rc;
}

static void assert_owner(const struct moe_placement *p, int layer, int expert, int device)
{
	int n;

	assert_int_equal(moe_placement_of(p, layer, expert, &n)[0], device);
}

static void forms_of_placements(void **state)
{
	static const struct {
		const char *text;
		bool dense;
		int devices; /* asked for */
		int found;
	} good[] = {
		{"{\"placement\": [[0, 1], [1, 0]]}", false, 0, 2},
		{"{\"placement\": [[0, 1], [1, 0]]}", false, 4, 4},
		{"{\"placement\": [[0, 1], [1, 0]], \"devices\": [{}, {}, {}]}", false, 0, 3},
		{"{\"placement\": [[[0, 1], 1], [1, [0]]]}", false, 0, 2},
		{"{\"placement\": [[0, 1], null]}", true, 0, 2},
		{"{\"placement\": [[0, 1], []]}", true, 0, 2},
		{"{\"expert_to_ep_rank\": [0, 1]}", false, 0, 2},
		{"{\"expert_to_ep_rank\": [0, 1]}", true, 0, 2},
		{"{\"expert_to_ep_rank\": [[0, 1], [1, 0]]}", false, 0, 2},
		{"{\"expert_to_ep_rank\": [[0, 1]]}", true, 0, 2},
	};
	struct moe_placement p;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_int_equal(read_placement(good[i].text, good[i].dense, good[i].devices, &p, NULL), 0);
		assert_int_equal(p.devices, good[i].found);
		assert_owner(&p, 0, 0, 0);
		assert_owner(&p, 0, 1, 1);
		moe_placement_free(&p);
	}
}

static void replicas_keep_their_order(void **state)
{
	struct moe_placement p;
	int n;

	(void)state;
	assert_int_equal(read_placement("{\"placement\": [[[2, 0], 1], [1, 0]]}", false, 0, &p, NULL), 0);
	assert_int_equal(moe_placement_of(&p, 0, 0, &n)[1], 0);
	assert_int_equal(n, 2);
	assert_owner(&p, 0, 0, 2);
	assert_true(moe_placement_holds(&p, 0, 0, 0));
	moe_placement_free(&p);
}

static void bad_placements(void **state)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{"{}", "no \"placement\""},
		{"[]", "no \"placement\""},
		{"{\"placement\": 3}", "a list is expected, not number"},
		{"{\"placement\": [[0, 1]]}", "1 layers, the model has 2"},
		{"{\"placement\": [[0, 1], [0]]}", "layer 1: 1 experts, the model has 2"},
		{"{\"placement\": [[0, 1], {}]}", "layer 1: a list is expected"},
		{"{\"placement\": [[0, 1], null]}", "layer 1: a list is expected"},
		{"{\"placement\": [[0, 1], [0, -1]]}", "layer 1, expert 1: not a device number"},
		{"{\"placement\": [[0, 1], [0, 0.5]]}", "layer 1, expert 1: not a device number"},
		{"{\"placement\": [[0, 1], [0, \"1\"]]}", "layer 1, expert 1: not a device number"},
		{"{\"placement\": [[0, 1], [0, 4096]]}", "layer 1, expert 1: not a device number"},
		{"{\"placement\": [[0, 1], [0, 1e300]]}", "layer 1, expert 1: not a device number"},
		{"{\"placement\": [[0, []], [0, 1]]}", "layer 0, expert 1: 0 devices"},
		{"{\"placement\": [[0, [1, 1]], [0, 1]]}", "named twice"},
		{"{\"placement\": [[0, [[1]]], [0, 1]]}", "not a device number"},
		{"{\"expert_to_ep_rank\": [0, 1, 2]}", "3 experts, the model has 2"},
		{"{\"expert_to_ep_rank\": [[0, 1], [0, 1], [0, 1]]}", "3 layers, the model has 2"},
		{"{\"expert_to_ep_rank\": [0, null]}", "expert 1: not a device number"},
	};
	struct moe_placement p;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct moe_err e = MOE_ERR_INIT;

		assert_int_equal(read_placement(bad[i].text, false, 0, &p, &e), MOE_E_INPUT);
		if (!strstr(e.msg, bad[i].words) || strncmp(e.msg, "plan.json: ", 11) != 0)
			fail_msg("%s gave: %s", bad[i].text, e.msg);
	}
}

static void more_devices_than_asked_for(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_placement p;

	(void)state;
	assert_int_equal(read_placement("{\"placement\": [[0, 1], [2, 0]]}", false, 2, &p, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "layer 1, expert 0: no device 2"));
}

static char path[] = "/tmp/moe-plan-policy-XXXXXX";

static int read_policy(const char *text, size_t len, const struct moe_model *m, struct moe_device **d,
                       struct moe_placement *p, struct moe_err *e)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
	return moe_policy_read(path, m, d, p, e);
}

static void written_is_read(void **state)
{
	const struct moe_device devices[] = {{.host = "a\"b", .kind = "cpu", .memory = 1ull << 52}, {.kind = "cpu", .quant = "q4"}};
	struct moe_model m = rig_model(3, 4, 1);
	struct moe_placement p, q;
	struct moe_device *d = NULL;
	struct moe_buf text = MOE_BUF_INIT;
	struct moe_policy policy = {.model = &m, .model_name = "x", .devices = devices, .placement = &p};

	(void)state;
	assert_int_equal(moe_place_round_robin(&m, 2, &p, NULL), 0);
	assert_int_equal(moe_policy_write(&policy, &text, NULL), 0);
	assert_int_equal(read_policy(text.data, text.len, &m, &d, &q, NULL), 0);
	assert_string_equal(d[0].host, "a\"b");
	assert_true(d[0].memory == 1ull << 52);
	assert_string_equal(d[1].kind, "cpu");
	assert_string_equal(d[0].layout, "");
	assert_string_equal(d[1].layout, "packed");
	assert_int_equal(q.devices, 2);
	for (int x = 0; x < 4; x++) {
		assert_owner(&q, 0, x, x % 2);
		assert_owner(&q, 2, x, x % 2);
	}
	free(d);
	moe_buf_free(&text);
	moe_placement_free(&p);
	moe_placement_free(&q);
}

/* A policy that has everything, for two layers on two hosts. */
struct whole {
	struct moe_model model;
	struct moe_fleet fleet;
	struct moe_device *devices;
	int n;
	struct moe_placement placement;
	struct moe_setting setting;
	struct moe_execution execution;
	struct moe_prediction prediction;
	struct moe_policy policy;
};

static void make_whole(struct whole *w)
{
	*w = (struct whole){.model = rig_model(2, 4, -1)};
	assert_int_equal(moe_hardware_named("t4+epyc-1s", &w->fleet, NULL), 0);
	assert_int_equal(moe_devices_from_fleet(&w->fleet, &w->devices, &w->n, NULL), 0);
	assert_int_equal(moe_place_round_robin(&w->model, w->n, &w->placement, NULL), 0);
	w->setting = (struct moe_setting){.model = &w->model, .hardware = w->fleet.hosts, .workload = {"w", 10, 20, 5, true},
	                                  .quants = MOE_QUANTS_INIT, .kv_bytes = 2};
	w->setting.quants.experts = MOE_Q_Q4;
	w->execution = (struct moe_execution){MOE_SCHEDULE_CGOPIPE, 504, 36, 12, 1, 0, {0.25, 0.75}, {0, 1}};
	w->prediction = (struct moe_prediction){.tokens_per_second = 30, .fits = true};
	w->prediction.decode.bottleneck = MOE_LANE_H2D;
	w->policy = (struct moe_policy){.model = &w->model, .model_name = "x", .fleet = &w->fleet, .setting = &w->setting,
	                                .execution = &w->execution, .prediction = &w->prediction, .devices = w->devices,
	                                .placement = &w->placement};
}

static void free_whole(struct whole *w)
{
	free(w->devices);
	moe_placement_free(&w->placement);
	moe_fleet_free(&w->fleet);
}

static void execution_is_read_again(void **state)
{
	struct moe_buf text = MOE_BUF_INIT;
	struct moe_execution x;
	struct moe_fleet fleet;
	struct moe_json *j;
	struct whole w;

	(void)state;
	make_whole(&w);
	assert_int_equal(moe_policy_write(&w.policy, &text, NULL), 0);
	j = parse(text.data);
	assert_int_equal(moe_execution_from_json(j, "p", w.fleet.hosts, &x, NULL), 0);
	assert_memory_equal(&x, &w.execution, sizeof x);
	assert_true(moe_json_num(moe_json_get(moe_json_get(j, "policy"), "micro_batches"), 0) == 14);
	assert_string_equal(moe_json_str(moe_json_get(moe_json_get(moe_json_get(j, "policy"), "quants"), "experts"), ""), "q4");
	assert_string_equal(moe_json_str(moe_json_get(moe_json_get(j, "prediction"), "bottleneck"), ""), "h2d");
	assert_true(moe_json_bool(moe_json_get(moe_json_get(j, "workload"), "padded"), false));
	assert_int_equal(moe_fleet_from_json(moe_json_get(j, "hardware"), "p", &fleet, NULL), 0);
	assert_memory_equal(&fleet.hosts[1], &w.fleet.hosts[1], sizeof *fleet.hosts);
	moe_fleet_free(&fleet);
	moe_json_free(j);
	moe_buf_free(&text);
	free_whole(&w);
}

static void unknown_names_are_kept(void **state)
{
	static const char before[] =
		"{\"schema\": 1, \"owner\": \"me\", \"placement\": [], \"policy\": {\"batch\": 1, \"note\": [1, 2]}, "
		"\"devices\": [{\"index\": 1, \"host\": \"epyc-1s\", \"rack\": 7}, {\"index\": 0, \"host\": \"other\", \"rack\": 8}]}";
	struct moe_buf text = MOE_BUF_INIT;
	struct moe_json *old = parse(before), *j;
	const struct moe_json *devices;
	struct whole w;

	(void)state;
	make_whole(&w);
	w.policy.before = old;
	assert_int_equal(moe_policy_write(&w.policy, &text, NULL), 0);
	j = parse(text.data);
	devices = moe_json_get(j, "devices");
	assert_string_equal(moe_json_str(moe_json_get(j, "owner"), ""), "me");
	assert_int_equal(moe_json_count(moe_json_get(moe_json_get(j, "policy"), "note")), 2);
	assert_true(moe_json_num(moe_json_get(moe_json_get(j, "policy"), "batch"), 0) == 504);
	assert_true(moe_json_num(moe_json_get(moe_json_at(devices, 1), "rack"), 0) == 7);
	assert_null(moe_json_get(moe_json_at(devices, 0), "rack")); /* that was another host */
	assert_int_equal(moe_json_count(moe_json_get(j, "placement")), 2);
	moe_json_free(j);
	moe_json_free(old);
	moe_buf_free(&text);
	free_whole(&w);
}

#define EXECUTION(batch, on, weights) \
	"{\"policy\": {\"schedule\": \"cgopipe\", \"batch\": " batch ", \"micro_batch\": 4, \"attention_on\": \"" on \
	"\", \"ffn_on\": \"gpu\", \"weights\": " weights ", \"kv\": {\"cpu\": 1}}}"

static void bad_executions(void **state)
{
	static const struct {
		const char *text, *words;
		int code;
	} rows[] = {
		{EXECUTION("8", "cpu", "{\"gpu\": 0.5, \"cpu\": 0.5}"), "", 0},
		{"{}", "only a placement", MOE_E_MISSING},
		{"{\"policy\": {\"schedule\": \"fast\"}}", "no schedule \"fast\"", MOE_E_UNSUPPORTED},
		{EXECUTION("0", "cpu", "{\"cpu\": 1}"), "\"batch\"", MOE_E_INPUT},
		{EXECUTION("3", "cpu", "{\"cpu\": 1}"), "\"micro_batch\"", MOE_E_INPUT},
		{EXECUTION("8", "tpu", "{\"cpu\": 1}"), "\"attention_on\" is \"tpu\"", MOE_E_INPUT},
		{EXECUTION("8", "disk", "{\"cpu\": 1}"), "\"attention_on\" is \"disk\"", MOE_E_INPUT},
		{EXECUTION("8", "cpu", "{\"gpu\": 0.5, \"cpu\": 0.6}"), "add up to 1.1", MOE_E_INPUT},
		{EXECUTION("8", "cpu", "{\"gpu\": -1, \"cpu\": 2}"), "between 0 and 1", MOE_E_INPUT},
		{EXECUTION("8", "cpu", "{\"tape\": 1}"), "no level \"tape\"", MOE_E_INPUT},
		{EXECUTION("8", "cpu", "1"), "no object", MOE_E_INPUT},
	};
	struct moe_fleet f;

	(void)state;
	assert_int_equal(moe_hardware_named("t4", &f, NULL), 0);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct moe_err e = MOE_ERR_INIT;
		struct moe_json *j = parse(rows[i].text);
		struct moe_execution x;

		assert_int_equal(moe_execution_from_json(j, "p", f.hosts, &x, &e), rows[i].code);
		if (!strstr(e.msg, rows[i].words))
			fail_msg("%s", e.msg);
		moe_json_free(j);
	}
	moe_fleet_free(&f);
}

static void bad_policies(void **state)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{"{", ""},
		{"{\"placement\": [[0, 1], [0, 1]]}", "schema"},
		{"{\"schema\": 2, \"devices\": [{\"index\": 0}], \"placement\": [[0, 0], [0, 0]]}", "schema 2 is newer"},
		{"{\"schema\": 1, \"placement\": [[0, 1], [0, 1]]}", "\"devices\""},
		{"{\"schema\": 1, \"devices\": [], \"placement\": [[0, 1], [0, 1]]}", "\"devices\""},
		{"{\"schema\": 1, \"devices\": [{\"index\": 0}]}", "\"placement\""},
		{"{\"schema\": 1, \"devices\": [{\"index\": 1}], \"placement\": [[0, 0], [0, 0]]}", "index"},
		{"{\"schema\": 1, \"devices\": [{\"index\": 0}, {\"index\": 0}], \"placement\": [[0, 0], [0, 0]]}", "twice"},
		{"{\"schema\": 1, \"devices\": [{\"index\": 0}], \"placement\": [[0, 1], [0, 0]]}", "no device 1"},
		{"{\"schema\": 1, \"devices\": [{\"index\": 0, \"memory\": -1}], \"placement\": [[0, 0], [0, 0]]}", "memory"},
		{"{\"schema\": 1, \"devices\": [{\"index\": 0, \"layout\": \"r16\"}], \"placement\": [[0, 0], [0, 0]]}", "r16"},
		{"{\"schema\": 1, \"devices\": [{\"index\": 0, \"quant\": \"q5\"}], \"placement\": [[0, 0], [0, 0]]}", "q5"},
		{"{\"schema\": 1, \"devices\": [{\"index\": 0, \"kind\": \"0123456789abcdef\"}], \"placement\": [[0, 0], [0, 0]]}", "longer"},
	};
	struct moe_model m = rig_model(2, 2, -1);
	struct moe_placement p;
	struct moe_device *d;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct moe_err e = MOE_ERR_INIT;

		assert_int_not_equal(read_policy(bad[i].text, strlen(bad[i].text), &m, &d, &p, &e), 0);
		if (!strstr(e.msg, bad[i].words) || strncmp(e.msg, path, strlen(path)) != 0)
			fail_msg("%s gave: %s", bad[i].text, e.msg);
	}
}

static void hardware_lists_cpus(void **state)
{
	struct moe_json *j = parse("{\"hosts\": ["
	                           "{\"name\": \"a\", \"levels\": [{\"name\": \"gpu\", \"count\": 2, \"memory\": 5},"
	                           "                               {\"name\": \"cpu\", \"count\": 2, \"memory\": 1e3}]},"
	                           "{\"name\": \"b\", \"levels\": [{\"name\": \"cpu\", \"memory\": 77}]}]}");
	struct moe_device *d = NULL;
	int n;

	(void)state;
	assert_int_equal(moe_devices_from_json(j, "fleet", &d, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_string_equal(d[1].host, "a");
	assert_true(d[1].memory == 1000);
	assert_string_equal(d[2].host, "b");
	assert_true(d[2].memory == 77);
	free(d);
	moe_json_free(j);
}

static void devices_are_as_fast_as_their_memories(void **state)
{
	struct moe_json *j = parse("{\"hosts\": ["
	                           "{\"name\": \"a\", \"levels\": [{\"name\": \"cpu\", \"memory\": 1}]},"
	                           "{\"name\": \"b\", \"levels\": [{\"name\": \"cpu\", \"memory\": 1, \"bandwidth\": 2e10}]},"
	                           "{\"name\": \"c\", \"levels\": [{\"name\": \"cpu\", \"memory\": 1, \"bandwidth\": 5e10}]}]}");
	struct moe_device *d = NULL;
	int n;

	(void)state;
	assert_int_equal(moe_devices_from_json(j, "fleet", &d, &n, NULL), 0);
	assert_true(d[0].speed == 1 && d[1].speed == 1 && d[2].speed == 2.5);
	free(d);
	moe_json_free(j);
}

static void bad_hardware(void **state)
{
	static const char *const bad[] = {
		"{}", "[]", "{\"hosts\": []}", "{\"hosts\": 3}", "{\"hosts\": [{}]}", "{\"levels\": []}",
		"{\"levels\": [{\"name\": \"gpu\", \"memory\": 1}]}", "{\"levels\": [{\"memory\": 1}]}",
		"{\"levels\": [{\"name\": \"cpu\", \"memory\": -1}]}", "{\"levels\": [{\"name\": \"cpu\", \"memory\": \"1\"}]}",
		"{\"levels\": [{\"name\": \"cpu\", \"count\": 0}]}", "{\"levels\": [{\"name\": \"cpu\", \"count\": 4097}]}",
		"{\"levels\": [{\"name\": \"cpu\", \"count\": 4096}, {\"name\": \"cpu\"}]}", "{\"levels\": [3]}",
	};
	struct moe_device *d;
	int n;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct moe_json *j = parse(bad[i]);
		struct moe_err e = MOE_ERR_INIT;

		if (moe_devices_from_json(j, "hw", &d, &n, &e) == 0)
			fail_msg("%s was taken", bad[i]);
		assert_true(strncmp(e.msg, "hw: ", 4) == 0);
		moe_json_free(j);
	}
}

static int make_file(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forms_of_placements),
		cmocka_unit_test(replicas_keep_their_order),
		cmocka_unit_test(bad_placements),
		cmocka_unit_test(more_devices_than_asked_for),
		cmocka_unit_test(written_is_read),
		cmocka_unit_test(execution_is_read_again),
		cmocka_unit_test(unknown_names_are_kept),
		cmocka_unit_test(bad_executions),
		cmocka_unit_test(bad_policies),
		cmocka_unit_test(hardware_lists_cpus),
		cmocka_unit_test(devices_are_as_fast_as_their_memories),
		cmocka_unit_test(bad_hardware),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_file, remove_file);
}
