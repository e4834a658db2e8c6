/* When a server is late, and how long it is left alone: pure functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "net/pulse.h"

#define MS 1000000u

static void shares_of_what_was_seen(void **state)
{
	struct pulse p = {.suspect = false};

	(void)state;
	assert_int_equal(pulse_share(&p, 8, 0.5), 0);
	for (int i = 0; i < 98; i++)
		pulse_saw(&p, 8, 2 * MS);
	for (int i = 0; i < 2; i++)
		pulse_saw(&p, 8, 300 * MS);
	/* A bucket is half of a power of two wide at most. */
	assert_in_range(pulse_share(&p, 8, 0.5), 2 * MS, 3 * MS);
	assert_in_range(pulse_share(&p, 8, 0.99), 300 * MS, 450 * MS);
	assert_true(pulse_share(&p, 15, 0.5) == pulse_share(&p, 8, 0.5)); /* the same size, about */
	assert_true(pulse_share(&p, 32, 0.5) == 4 * pulse_share(&p, 8, 0.5));
	assert_true(pulse_share(&p, 1, 0.5) == pulse_share(&p, 8, 0.5));
	pulse_saw(&p, 8, UINT64_MAX);
	pulse_saw(&p, INT32_MAX, 0);
	pulse_saw(&p, 0, 0);
}

static void old_times_are_forgotten(void **state)
{
	struct pulse p = {.suspect = false};

	(void)state;
	for (int i = 0; i < 400; i++)
		pulse_saw(&p, 1, 100 * MS);
	for (int i = 0; i < 20000; i++)
		pulse_saw(&p, 1, MS);
	assert_in_range(pulse_share(&p, 1, 0.99), MS, 2 * MS);
}

static void late_by_its_own_measure(void **state)
{
	struct pulse p = {.suspect = false};

	(void)state;
	assert_true(pulse_patience(&p, 4, 0) == PULSE_UNKNOWN_NS);
	assert_true(pulse_hedge(&p, 4, 0, 0.9) == UINT64_MAX);
	pulse_saw(&p, 4, MS);
	assert_true(pulse_patience(&p, 4, 0) == PULSE_LEAST_NS);
	assert_true(pulse_patience(&p, 4, 7 * MS) == PULSE_LEAST_NS + 14 * MS);
	assert_in_range(pulse_hedge(&p, 4, 0, 0.9), MS, 2 * MS);
	assert_true(pulse_hedge(&p, 4, 0, 0) == UINT64_MAX);
	for (int i = 0; i < 100; i++)
		pulse_saw(&p, 4, 100 * MS);
	assert_in_range(pulse_patience(&p, 4, 0), 400 * MS, 600 * MS);
}

static void pauses_double_within_bounds(void **state)
{
	struct pulse p = {.suspect = false};
	uint64_t random = 42, mean = PULSE_PAUSE_NS;

	(void)state;
	pulse_failed(&p, 0, &random);
	pulse_failed(&p, 0, &random);
	assert_true(p.open_until == 0);
	for (int i = 0; i < 12; i++) {
		pulse_failed(&p, 1000, &random);
		assert_in_range(p.open_until, 1000 + mean / 2, 1000 + mean / 2 + mean);
		mean = 2 * mean < PULSE_PAUSE_MOST_NS ? 2 * mean : PULSE_PAUSE_MOST_NS;
		pulse_try(&p); /* one more failure is enough */
		assert_true(p.open_until == 0);
	}
	pulse_good(&p);
	pulse_failed(&p, 0, &random);
	assert_true(p.open_until == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares_of_what_was_seen),
		cmocka_unit_test(old_times_are_forgotten),
		cmocka_unit_test(late_by_its_own_measure),
		cmocka_unit_test(pauses_double_within_bounds),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
