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

	(void)state;
	assert_int_equal(moe_place_round_robin(&m, 2, &p, NULL), 0);
	assert_int_equal(moe_policy_write(&m, "x", NULL, devices, &p, &text, NULL), 0);
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
		cmocka_unit_test(bad_policies),
		cmocka_unit_test(hardware_lists_cpus),
		cmocka_unit_test(bad_hardware),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_file, remove_file);
}
