/* When memory counts as short. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "run/run.h"

static void levels_begin(void **state)
{
	(void)state;
	assert_int_equal(moe_pressure_of(0.0, 0.85, MOE_PRESSURE_NONE), MOE_PRESSURE_NONE);
	assert_int_equal(moe_pressure_of(0.849, 0.85, MOE_PRESSURE_NONE), MOE_PRESSURE_NONE);
	assert_int_equal(moe_pressure_of(0.851, 0.85, MOE_PRESSURE_NONE), MOE_PRESSURE_HIGH);
	assert_int_equal(moe_pressure_of(0.949, 0.85, MOE_PRESSURE_NONE), MOE_PRESSURE_HIGH);
	assert_int_equal(moe_pressure_of(0.951, 0.85, MOE_PRESSURE_NONE), MOE_PRESSURE_SEVERE);
	assert_int_equal(moe_pressure_of(1.0, 0.85, MOE_PRESSURE_NONE), MOE_PRESSURE_SEVERE);
}

static void levels_end_a_little_below(void **state)
{
	(void)state;
	assert_int_equal(moe_pressure_of(0.84, 0.85, MOE_PRESSURE_HIGH), MOE_PRESSURE_HIGH);
	assert_int_equal(moe_pressure_of(0.82, 0.85, MOE_PRESSURE_HIGH), MOE_PRESSURE_NONE);
	assert_int_equal(moe_pressure_of(0.94, 0.85, MOE_PRESSURE_SEVERE), MOE_PRESSURE_SEVERE);
	assert_int_equal(moe_pressure_of(0.92, 0.85, MOE_PRESSURE_SEVERE), MOE_PRESSURE_HIGH);
	assert_int_equal(moe_pressure_of(0.94, 0.85, MOE_PRESSURE_HIGH), MOE_PRESSURE_HIGH);
	assert_int_equal(moe_pressure_of(0.1, 0.85, MOE_PRESSURE_SEVERE), MOE_PRESSURE_NONE);
}

/* A run with hardly any memory allowed: the first look says so, and the engine takes one request at a time, or none. */
static void a_run_looks(void **state)
{
	struct moe_run_config c = {.shards = "synth:tiny-mixtral,seed=1", .threads = 1, .memory_pressure = 1e-6,
	                           .engine = {.ctx = 64, .max_sequences = 1, .chunk = 8}};
	struct moe_run *r;
	struct moe_err e;
	double share;

	(void)state;
	if (moe_run_open(&c, &r, &e) != 0)
		fail_msg("%s", e.msg);
	assert_int_not_equal(moe_run_press(r, &share), MOE_PRESSURE_NONE);
	assert_true(share > 0 && share <= 1);
	moe_run_close(r);
	c.memory_pressure = 1; /* no matter */
	if (moe_run_open(&c, &r, &e) != 0)
		fail_msg("%s", e.msg);
	assert_int_equal(moe_run_press(r, &share), MOE_PRESSURE_NONE);
	moe_run_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(levels_begin),
		cmocka_unit_test(levels_end_a_little_below),
		cmocka_unit_test(a_run_looks),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("memory that gets short", tests, NULL, NULL);
}
