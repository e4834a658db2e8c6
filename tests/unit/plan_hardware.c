/* Hardware: profiles and fleets from JSON, by name, and changed number by number. */
#include "plan_rig.h"

#include <math.h>

#include "base/opts.h"

#define GiB 1073741824.0

static struct moe_err err;

static int read_fleet(const char *text, struct moe_fleet *f)
{
	struct moe_json *j = NULL;
	int rc;

	assert_int_equal(moe_json_parse(text, strlen(text), "test", &j, NULL), 0);
	rc = moe_fleet_from_json(j, "test", f, &err);
	moe_json_free(j);
	return rc;
}

static void refuse(const char *text, const char *words)
{
	struct moe_fleet f;

	assert_int_equal(read_fleet(text, &f), MOE_E_INPUT);
	if (!strstr(err.msg, words))
		fail_msg("\"%s\" does not say \"%s\"", err.msg, words);
}

#define GPU "{\"name\": \"gpu\", \"count\": 2, \"memory\": 16e9, \"bandwidth\": 3e11, \"call\": 1e-5, " \
            "\"flops\": {\"f16\": 65e12, \"i8\": 130e12}, \"kernels\": {\"q4\": {\"rows\": [1, 4, 64], \"bandwidth\": [3e11, 2e11, 1e10]}, " \
            "\"attention\": {\"rows\": [1], \"bandwidth\": [2e11]}}}"
#define CPU "{\"name\": \"cpu\", \"memory\": 2e11, \"bandwidth\": 1e11, \"flops\": 8e11}"
#define DISK "{\"name\": \"disk\", \"memory\": 1e12, \"bandwidth\": 2e9}"
#define LINK "{\"from\": \"cpu\", \"to\": \"gpu\", \"bandwidth\": 16e9, \"latency\": 1e-5, \"shared\": true}"
#define HOST(name, levels, links) "{\"name\": \"" name "\", \"levels\": [" levels "], \"links\": [" links "]}"

static void profile_is_read(void **state)
{
	struct moe_fleet f;
	const struct moe_hardware *h;

	(void)state;
	assert_int_equal(read_fleet("{\"name\": \"a\", \"colour\": \"red\", \"levels\": [" GPU "," CPU "," DISK "], \"links\": [" LINK
	                            "], \"network\": {\"bandwidth\": 1.25e9, \"latency\": 5e-5}}", &f), 0);
	h = f.hosts;
	assert_int_equal(f.n, 1);
	assert_string_equal(h->name, "a");
	assert_int_equal(h->n_levels, 3);
	assert_int_equal(h->levels[0].count, 2);
	assert_true(h->levels[0].call == 1e-5);
	assert_int_equal(h->levels[0].kernels[MOE_Q_Q4].n, 3);
	assert_int_equal(h->levels[0].kernels[MOE_Q_Q8].n, 0);
	assert_true(h->levels[0].kernels[MOE_KERNEL_ATTENTION].bandwidth[0] == 2e11);
	assert_int_equal(moe_level_find(h, "disk"), 2);
	assert_int_equal(moe_level_find(h, "tape"), -1);
	assert_true(h->levels[2].bandwidth == 0); /* no processor there */
	assert_true(moe_link_find(h, 1, 0)->bandwidth == 16e9 && moe_link_find(h, 1, 0)->shared);
	assert_null(moe_link_find(h, 0, 1));
	assert_true(h->network_bandwidth == 1.25e9 && h->network_latency == 5e-5);
	moe_fleet_free(&f);
}

static void types_stand_in(void **state)
{
	struct moe_fleet f;

	(void)state;
	assert_int_equal(read_fleet(HOST("a", GPU "," CPU, ""), &f), 0);
	assert_true(moe_level_flops(&f.hosts->levels[0], MOE_FLOPS_BF16) == 65e12);
	assert_true(moe_level_flops(&f.hosts->levels[0], MOE_FLOPS_I8) == 130e12);
	assert_true(moe_level_flops(&f.hosts->levels[0], MOE_FLOPS_F32) == 65e12); /* none is wider */
	assert_true(moe_level_flops(&f.hosts->levels[1], MOE_FLOPS_I8) == 8e11);   /* one number is for all */
	moe_fleet_free(&f);
}

static void kernels_are_curves(void **state)
{
	struct moe_kernel_roof k = {3, {1, 4, 64}, {4e11, 1e11, 1e10}}, none = {.n = 0};

	(void)state;
	assert_true(moe_kernel_bandwidth(&k, 1) == 4e11 && moe_kernel_bandwidth(&k, 0.5) == 4e11);
	assert_true(fabs(moe_kernel_bandwidth(&k, 2) / 2e11 - 1) < 1e-12);
	assert_true(fabs(moe_kernel_bandwidth(&k, 4) / 1e11 - 1) < 1e-12);
	assert_true(fabs(moe_kernel_bandwidth(&k, 128) / 5e9 - 1) < 1e-12);
	assert_true(moe_kernel_bandwidth(&none, 1) == 0);
}

#define KERNEL(text) HOST("a", "{\"name\": \"cpu\", \"memory\": 1e11, \"bandwidth\": 1e11, \"flops\": 1e12, \"kernels\": " text "}", "")

static void bad_kernels(void **state)
{
	(void)state;
	refuse(KERNEL("[]"), "\"kernels\" is no object");
	refuse(KERNEL("{\"q4\": 3}"), "\"rows\" is no list");
	refuse(KERNEL("{\"q4\": {\"rows\": [1]}}"), "\"bandwidth\" is no list");
	refuse(KERNEL("{\"q4\": {\"rows\": [1, 2], \"bandwidth\": [1]}}"), "2 \"rows\" and 1");
	refuse(KERNEL("{\"q4\": {\"rows\": [2, 1], \"bandwidth\": [1, 1]}}"), "not ascending");
	refuse(KERNEL("{\"q4\": {\"rows\": [1], \"bandwidth\": [-1]}}"), "\"bandwidth\" is -1");
	refuse(KERNEL("{\"q4\": {\"rows\": [\"a\"], \"bandwidth\": [1]}}"), "no number");
	refuse(KERNEL("{\"q4\": {\"rows\": [1,2,3,4,5,6,7,8,9,10,11,12,13], \"bandwidth\": [1]}}"), "1 to 12");
}

static void bad_profiles(void **state)
{
	(void)state;
	refuse("[]", "an object");
	refuse("{\"hosts\": []}", "hosts");
	refuse("{\"name\": \"a\"}", "levels");
	refuse(HOST("a", DISK, ""), "nothing there computes");
	refuse(HOST("a", CPU "," GPU, ""), "last level");
	refuse(HOST("a", CPU "," CPU, ""), "two levels \"cpu\"");
	refuse(HOST("a", GPU "," CPU, LINK "," LINK), "two of link cpu-gpu");
	refuse(HOST("a", CPU, LINK), "\"gpu\"");
	refuse(HOST("a", CPU, "{\"from\": \"cpu\", \"to\": \"cpu\", \"bandwidth\": 1}"), "leads nowhere");
	refuse(HOST("a", CPU "," GPU, "{\"from\": \"cpu\", \"to\": \"gpu\"}"), "bandwidth");
	refuse(HOST("a", "{\"name\": \"cpu\", \"memory\": -1, \"bandwidth\": 1, \"flops\": 1}", ""), "host \"a\": cpu: \"memory\" is -1");
	refuse(HOST("a", "{\"name\": \"cpu\", \"memory\": 1, \"bandwidth\": 0, \"flops\": 1}", ""), "\"bandwidth\" is 0");
	refuse(HOST("a", "{\"name\": \"cpu\", \"memory\": 1, \"flops\": 1}", ""), "\"bandwidth\" is missing");
	refuse(HOST("a", "{\"name\": \"cpu\", \"memory\": 1, \"bandwidth\": 1, \"flops\": {\"f99\": 1}}", ""), "none of f32");
	refuse(HOST("a", "{\"name\": \"cpu\", \"memory\": 1e300, \"bandwidth\": 1, \"flops\": 1}", ""), "memory");
	refuse(HOST("a", "{\"name\": \"cpu\", \"count\": 0, \"memory\": 1, \"bandwidth\": 1, \"flops\": 1}", ""), "count");
	refuse(HOST("a", "{\"name\": \"a name that is long\", \"memory\": 1}", ""), "longer than");
	refuse(HOST("a", "{\"name\": \"cpu\", \"memory\": \"big\"}", ""), "memory");
	refuse("{\"hosts\": [" HOST("a", CPU, "") "," HOST("a", CPU, "") "]}", "two hosts \"a\"");
}

static void names(void **state)
{
	struct moe_fleet f;
	const struct moe_hardware *h;

	(void)state;
	for (const char *const *name = moe_hardware_names(); *name; name++) {
		assert_int_equal(moe_hardware_named(*name, &f, &err), 0);
		assert_int_equal(f.n, 1);
		assert_string_equal(f.hosts->name, *name);
		moe_fleet_free(&f);
	}
	assert_int_equal(moe_hardware_named("rtx4090x2@epyc-2s/100g+2*epyc-1s+epyc-1s", &f, &err), 0);
	assert_int_equal(f.n, 4);
	h = f.hosts;
	assert_string_equal(h[0].name, "rtx4090x2@epyc-2s/100g");
	assert_int_equal(h[0].levels[0].count, 2);
	assert_true(h[0].levels[1].memory == 768 * GiB);
	assert_true(h[0].network_bandwidth == 12.5e9);
	assert_string_equal(h[1].name, "epyc-1s");
	assert_string_equal(h[2].name, "epyc-1s#2");
	assert_string_equal(h[3].name, "epyc-1s#3");
	assert_int_equal(moe_level_find(&h[3], "gpu"), -1);
	moe_fleet_free(&f);
}

/* The constants of MoE-Lightning's artifact. */
static void published_machines(void **state)
{
	struct moe_fleet f;
	const struct moe_hardware *h;

	(void)state;
	assert_int_equal(moe_hardware_named("t4x4", &f, &err), 0);
	h = f.hosts;
	assert_int_equal(h->levels[0].count, 4);
	assert_true(h->levels[0].memory == 15 * GiB && h->levels[0].bandwidth == 300 * GiB);
	assert_true(moe_level_flops(&h->levels[0], MOE_FLOPS_F16) == 65e12);
	assert_true(moe_level_flops(&h->levels[1], MOE_FLOPS_F32) == 0.8e12 && h->levels[1].bandwidth == 100 * GiB);
	assert_true(moe_link_find(h, 1, 0)->bandwidth == 16 * GiB && moe_link_find(h, 0, 1)->bandwidth == 16 * GiB);
	moe_fleet_free(&f);
	assert_int_equal(moe_hardware_named("l4", &f, &err), 0);
	h = f.hosts;
	assert_true(h->levels[0].memory == 24 * GiB && h->levels[0].bandwidth == 285 * GiB);
	assert_true(moe_level_flops(&h->levels[0], MOE_FLOPS_BF16) == 104e12);
	assert_true(moe_level_flops(&h->levels[1], MOE_FLOPS_F32) == 1.6e12);
	moe_fleet_free(&f);
}

static void unknown_names(void **state)
{
	static const char *const pairs[][2] = {
		{"a100", "is a100-40 meant"}, {"h1oo", "is h100 meant"}, {"t4@xeon-2", "is xeon-2s meant"}, {"t4/10gb", "is 10g meant"},
		{"epyc", "is epyc-1s meant"}, {"zzzzzzzz", "no hardware \"zzzzzzzz\""}, {"", "no hardware"}, {"t4+", "no hardware"},
	};
	struct moe_fleet f;

	(void)state;
	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
		assert_int_equal(moe_hardware_named(pairs[i][0], &f, &err), MOE_E_MISSING);
		if (!strstr(err.msg, pairs[i][1]))
			fail_msg("%s: %s", pairs[i][0], err.msg);
	}
	assert_int_equal(moe_hardware_named("0*t4", &f, &err), MOE_E_INPUT);
	assert_int_equal(moe_hardware_named("t4x0", &f, &err), MOE_E_MISSING);
	assert_int_equal(moe_hardware_named("1024*t4+t4", &f, &err), MOE_E_RANGE);
}

static void numbers_are_set(void **state)
{
	struct moe_fleet f;
	struct moe_hardware *h;

	(void)state;
	assert_int_equal(moe_hardware_named("t4+epyc-1s", &f, &err), 0);
	h = f.hosts;
	assert_int_equal(moe_hardware_set(&f, "gpu.memory=12GiB", &err), 0);
	assert_true(h[0].levels[0].memory == 12 * GiB);
	assert_int_equal(moe_hardware_set(&f, "gpu.count=3", &err), 0);
	assert_int_equal(h[0].levels[0].count, 3);
	assert_int_equal(moe_hardware_set(&f, "host_memory=184GiB", &err), 0);
	assert_true(h[0].levels[1].memory == 184 * GiB && h[1].levels[0].memory == 184 * GiB);
	assert_int_equal(moe_hardware_set(&f, "epyc-1s:cpu.memory=64G", &err), 0);
	assert_true(h[0].levels[1].memory == 184 * GiB && h[1].levels[0].memory == 64e9);
	assert_int_equal(moe_hardware_set(&f, "network=10Gb/s", &err), 0);
	assert_true(h[0].network_bandwidth == 1.25e9 && h[1].network_bandwidth == 1.25e9);
	assert_int_equal(moe_hardware_set(&f, "network.latency=20us", &err), 0);
	assert_true(h[0].network_latency == 20 * 1e-6);
	assert_int_equal(moe_hardware_set(&f, "link.cpu-gpu.bandwidth=16GiB", &err), 0);
	assert_true(moe_link_find(h, 1, 0)->bandwidth == 16 * GiB);
	assert_int_equal(moe_hardware_set(&f, "link.cpu-gpu.shared=true", &err), 0);
	assert_true(moe_link_find(h, 1, 0)->shared);
	assert_int_equal(moe_hardware_set(&f, "cpu.flops.f32=0.8e12", &err), 0);
	assert_int_equal(moe_hardware_set(&f, "cpu.flops.i8=3TFLOP/s", &err), 0);
	assert_true(h[0].levels[1].flops[MOE_FLOPS_F32] == 0.8e12 && h[0].levels[1].flops[MOE_FLOPS_I8] == 3e12);
	assert_int_equal(moe_hardware_set(&f, "gpu.call=3us", &err), 0);
	moe_fleet_free(&f);
}

static void bad_settings(void **state)
{
	static const struct {
		const char *text;
		int code;
		const char *words;
	} rows[] = {
		{"gpu.memory", MOE_E_INPUT, "KEY=VALUE"}, {"gpu.memory=", MOE_E_INPUT, "bytes such as"},
		{"gpu.memory=0", MOE_E_INPUT, "positive"}, {"gpu.memory=-1", MOE_E_INPUT, "positive"},
		{"gpu.memory=nan", MOE_E_INPUT, "positive"}, {"gpu.memory=inf", MOE_E_INPUT, "positive"},
		{"gpu.memory=15Gib", MOE_E_INPUT, "bytes such as"}, {"gpu.memory=1e400", MOE_E_INPUT, "positive"},
		{"gpu.memory=1e30", MOE_E_INPUT, "memory"}, {"gpu.count=1.5", MOE_E_INPUT, "whole number"},
		{"gpu.count=5000", MOE_E_INPUT, "at most"}, {"network=10Gb", MOE_E_INPUT, "bits a second"},
		{"gpu.call=50ms", 0, ""}, {"gpu.memroy=1", MOE_E_MISSING, "is gpu.memory meant"},
		{"netwrok=1", MOE_E_MISSING, "is network meant"}, {"link.gpu-disk.bandwidth=1e9", MOE_E_MISSING, "meant"},
		{"other:gpu.memory=1e9", MOE_E_MISSING, "no host \"other\""}, {"disk.bandwidth=1e9", MOE_E_MISSING, "meant"},
	};
	struct moe_fleet f;

	(void)state;
	moe_common.quiet = true;
	assert_int_equal(moe_hardware_named("t4", &f, &err), 0);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		err.msg[0] = 0;
		if (moe_hardware_set(&f, rows[i].text, &err) != rows[i].code || !strstr(err.msg, rows[i].words))
			fail_msg("%s: %s", rows[i].text, err.msg);
	}
	moe_fleet_free(&f);
}

static void written_is_read(void **state)
{
	struct moe_fleet f, again;
	struct moe_jw w;
	char *text;

	(void)state;
	assert_int_equal(moe_hardware_named("l4x2", &f, &err), 0);
	f.hosts->levels[0].kernels[MOE_KERNEL_ATTENTION] = (struct moe_kernel_roof){2, {1, 8}, {2e11, 1e11}};
	moe_jw_init(&w, false);
	moe_hardware_write(f.hosts, &w);
	text = moe_jw_done(&w, NULL, &err);
	assert_non_null(text);
	assert_int_equal(read_fleet(text, &again), 0);
	assert_memory_equal(f.hosts, again.hosts, sizeof *f.hosts);
	free(text);
	moe_fleet_free(&f);
	moe_fleet_free(&again);
}

static void workloads(void **state)
{
	struct moe_workload w;
	struct moe_json *j;
	static const char text[] = "{\"name\": \"x\", \"prompt_mean\": 10, \"generate\": 5}";

	(void)state;
	for (const char *const *name = moe_workload_names(); *name; name++) {
		assert_int_equal(moe_workload_named(*name, &w, &err), 0);
		assert_string_equal(w.name, *name);
		assert_true(w.prompt_mean >= 1 && w.prompt_max >= w.prompt_mean && w.generate >= 1);
	}
	assert_int_equal(moe_workload_named("mtbench", &w, &err), 0);
	assert_true(moe_workload_prompt(&w) == 77);
	w.padded = true;
	assert_true(moe_workload_prompt(&w) == 418);
	assert_int_equal(moe_workload_named("mt-bench", &w, &err), MOE_E_MISSING);
	assert_non_null(strstr(err.msg, "is mtbench meant"));
	assert_int_equal(moe_json_parse(text, strlen(text), "w", &j, NULL), 0);
	assert_int_equal(moe_workload_from_json(j, "w", &w, &err), 0);
	assert_true(w.prompt_max == 10 && w.generate == 5 && !w.padded);
	moe_json_free(j);
}

static void bad_workloads(void **state)
{
	static const char *const texts[] = {
		"[]", "{}", "{\"prompt_mean\": 10}", "{\"prompt_mean\": 10, \"generate\": 0}", "{\"prompt_mean\": -1, \"generate\": 1}",
		"{\"prompt_mean\": 10, \"generate\": 1, \"prompt_max\": 9}", "{\"prompt_mean\": \"10\", \"generate\": 1}",
		"{\"prompt_mean\": 10, \"generate\": 1, \"padded\": 1}",
	};
	struct moe_workload w;

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		struct moe_json *j;

		assert_int_equal(moe_json_parse(texts[i], strlen(texts[i]), "w", &j, NULL), 0);
		assert_int_equal(moe_workload_from_json(j, "w", &w, &err), MOE_E_INPUT);
		moe_json_free(j);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(profile_is_read),
		cmocka_unit_test(types_stand_in),
		cmocka_unit_test(kernels_are_curves),
		cmocka_unit_test(bad_kernels),
		cmocka_unit_test(bad_profiles),
		cmocka_unit_test(names),
		cmocka_unit_test(published_machines),
		cmocka_unit_test(unknown_names),
		cmocka_unit_test(numbers_are_set),
		cmocka_unit_test(bad_settings),
		cmocka_unit_test(written_is_read),
		cmocka_unit_test(workloads),
		cmocka_unit_test(bad_workloads),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("plan_hardware", tests, NULL, NULL);
}
