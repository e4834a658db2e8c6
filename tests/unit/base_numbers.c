/* Numbers as people write and read them, and the clock's text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/opts.h"

static void sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {{"0", 0},          {"4096", 4096},           {"1K", 1024},
	            {"512M", 512u << 20}, {"1.5G", 3ull << 29},     {"2T", 2ull << 40},
	            {"0.25k", 256},    {"18446744073709551615", UINT64_MAX}, {"16777215T", 16777215ull << 40}};
	static const char *const bad[] = {"", "K", "-1", "+1", " 1", "1 ", "1KB", "1.5", "1.K", ".5K", "1e3", "0x10",
	                                  "18446744073709551616", "16777216T", "1P", "1.5.5K"};
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_true(moe_parse_size(good[i].text, &v));
		assert_true(v == good[i].bytes);
	}
	v = 7;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (moe_parse_size(bad[i], &v) || v != 7)
			fail_msg("'%s' was taken", bad[i]);
}

static void whole_numbers(void **state)
{
	static const char *const bad[] = {"", "-", "+1", " 1", "1 ", "1.0", "1e3", "0x1", "11", "-6",
	                                  "99999999999999999999"};
	int64_t v = 7;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (moe_parse_int(bad[i], -5, 10, &v) || v != 7)
			fail_msg("'%s' was taken", bad[i]);
	assert_true(moe_parse_int("-5", -5, 10, &v) && v == -5);
	assert_true(moe_parse_int("010", -5, 10, &v) && v == 10);
	assert_true(moe_parse_int("-9223372036854775808", INT64_MIN, INT64_MAX, &v) && v == INT64_MIN);
}

static void real_numbers(void **state)
{
	static const char *const bad[] = {"", "inf", "nan", "1e999", "0x1p3", " 1", "1 ", "1.5x", "-", "e5"};
	double v = 7;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (moe_parse_num(bad[i], &v) || v != 7)
			fail_msg("'%s' was taken", bad[i]);
	assert_true(moe_parse_num("-1.5e-3", &v) && v == -1.5e-3);
	assert_true(moe_parse_num("2", &v) && v == 2);
}

static void lists(void **state)
{
	static const char *const bad[] = {"", ",", "1,", ",1", "4-1", "1-", "1-4+0", "1-4+", "1 2", "0", "65", "1-65",
	                                  "1-64", "1,2,3,4,5,6,7,8,9,10,11", "a"};
	int64_t v[10];

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (moe_parse_int_list(bad[i], 1, 64, v, 10) != -1)
			fail_msg("'%s' was taken", bad[i]);
	assert_int_equal(moe_parse_int_list("1,7,64", 1, 64, v, 10), 3);
	assert_int_equal(v[2], 64);
	assert_int_equal(moe_parse_int_list("1-9+2,3", 1, 64, v, 10), 6);
	assert_int_equal(v[4], 9);
	assert_int_equal(v[5], 3);
	assert_int_equal(moe_parse_int_list("1-4+2", 1, 64, v, 10), 2);
	assert_int_equal(v[1], 3);
	assert_int_equal(moe_parse_int_list("9223372036854775806-9223372036854775807", 0, INT64_MAX, v, 10), 2);
	assert_true(v[1] == INT64_MAX);
}

static void sizes_for_people(void **state)
{
	char buf[32];

	(void)state;
	assert_string_equal(moe_size_text(0, buf), "0 B");
	assert_string_equal(moe_size_text(1023, buf), "1023 B");
	assert_string_equal(moe_size_text(1.5 * (1 << 30), buf), "1.5 GiB");
	assert_true(strlen(moe_size_text(1e308, buf)) < sizeof buf);
}

static void time_runs(void **state)
{
	uint64_t a = moe_now_ns();
	char buf[32];

	(void)state;
	assert_true(moe_now_ns() >= a);
	moe_time_text(buf);
	assert_int_equal(strlen(buf), 20);
	assert_int_equal(buf[10], 'T');
	assert_int_equal(buf[19], 'Z');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),
		cmocka_unit_test(whole_numbers),
		cmocka_unit_test(real_numbers),
		cmocka_unit_test(lists),
		cmocka_unit_test(sizes_for_people),
		cmocka_unit_test(time_runs),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("base_numbers", tests, NULL, NULL);
}
