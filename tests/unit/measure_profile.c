/* The hardware profile is what moe-policy reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "measure/measure.h"
#include "plan/plan.h"

static struct moe_json *profile(const struct moe_machine *m)
{
	struct moe_jw w;
	struct moe_json *j;
	char *text;

	moe_jw_init(&w, true);
	moe_profile_write(&w, m);
	text = moe_jw_done(&w, NULL, NULL);
	assert_non_null(text);
	assert_int_equal(moe_json_parse(text, strlen(text), "profile", &j, NULL), 0);
	free(text);
	return j;
}

static const struct moe_roofs roofs[] = {
	{.threads = 4, .memory = {.steady = 4e10}, .dot = {{.steady = 8e11}, {.steady = 0}, {.steady = 3e12}}},
	{.threads = 1, .memory = {.steady = 1e10}, .dot = {{.steady = 2e11}, {.steady = 0}, {.steady = 1e12}}},
};

static void the_level_has_most_threads(void **state)
{
	const struct moe_machine m = {.name = "box", .memory = 1 << 30, .roofs = roofs, .n_roofs = 2};
	struct moe_json *j = profile(&m);
	const struct moe_json *levels = moe_json_get(j, "levels"), *cpu = moe_json_at(levels, 0), *flops = moe_json_get(cpu, "flops");

	(void)state;
	assert_string_equal(moe_json_name(moe_json_at(j, 0)), "schema");
	assert_int_equal(moe_json_count(levels), 1);
	assert_true(moe_json_num(moe_json_get(cpu, "bandwidth"), 0) == 4e10);
	assert_true(moe_json_num(moe_json_get(flops, "f32"), 0) == 8e11);
	assert_true(moe_json_num(moe_json_get(flops, "i8"), 0) == 3e12);
	assert_null(moe_json_get(flops, "bf16")); /* not there, not zero */
	assert_int_equal(moe_json_count(moe_json_get(j, "measured")), 2);
	moe_json_free(j);
}

static void devices_are_read_from_it(void **state)
{
	const struct moe_machine m = {
		.name = "box", .memory = 123456789, .roofs = roofs, .n_roofs = 2, .disk = {.steady = 2e9}, .disk_bytes = 1u << 31,
	};
	struct moe_json *j = profile(&m);
	struct moe_device *d;
	int n;

	(void)state;
	assert_int_equal(moe_json_count(moe_json_get(j, "levels")), 2);
	assert_int_equal(moe_devices_from_json(j, "profile", &d, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_string_equal(d->host, "box");
	assert_string_equal(d->kind, "cpu");
	assert_true(d->memory == 123456789);
	free(d);
	moe_json_free(j);
}

static void a_device_comes_first(void **state)
{
	const struct moe_device_rates device = {
		.text = "cuda:0", .bytes = 1 << 20, .memory = {.steady = 3e12, .median = 2e12}, .flops = {{.median = 5e13}, {.median = 0}, {.median = 1e15}},
		.calls = {.median = 2e5}, .link = {{.median = 5e10}, {.median = 4e10}}, .both = {.median = 2e10},
	};
	const struct moe_machine m = {.name = "box", .memory = 1 << 30, .roofs = roofs, .n_roofs = 2, .device = &device,
	                              .disk = {.steady = 2e9}, .disk_bytes = 1u << 31};
	struct moe_hardware h;
	struct moe_json *j = profile(&m);

	(void)state;
	moe_machine_hardware(&m, &h);
	assert_int_equal(h.n_levels, 3);
	assert_string_equal(h.levels[0].name, "gpu");
	assert_string_equal(h.levels[1].name, "cpu");
	assert_true(h.levels[0].bandwidth == 2e12 && h.levels[0].call == 5e-6 && h.levels[0].memory == 1 << 20);
	assert_true(moe_link_find(&h, 1, 0)->bandwidth == 5e10);
	assert_true(moe_link_find(&h, 0, 1)->bandwidth == 4e10);
	assert_non_null(moe_link_find(&h, 2, 1)); /* the disk's */
	assert_true(moe_json_bool(moe_json_get(moe_json_at(moe_json_get(j, "measured"), 2), "ways_shared"), false));
	moe_json_free(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_level_has_most_threads),
		cmocka_unit_test(devices_are_read_from_it),
		cmocka_unit_test(a_device_comes_first),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("measure_profile", tests, NULL, NULL);
}
