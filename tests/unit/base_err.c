/* Errors: codes, words, their limits. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

static void fail_fills_and_returns(void **state)
{
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(moe_fail(&e, MOE_E_SUM, "%s: layer %d", "f", 3), MOE_E_SUM);
	assert_int_equal(e.code, MOE_E_SUM);
	assert_string_equal(e.msg, "f: layer 3");
	assert_int_equal(moe_fail(NULL, MOE_E_IO, "nobody listens"), MOE_E_IO);
}

static void errno_chooses_the_code(void **state)
{
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	errno = ENOENT;
	assert_int_equal(moe_fail_errno(&e, "f"), MOE_E_MISSING);
	assert_string_equal(e.msg, "f: No such file or directory");
	errno = ENOMEM;
	assert_int_equal(moe_fail_errno(&e, "f"), MOE_E_NOMEM);
	errno = EACCES;
	assert_int_equal(moe_fail_errno(&e, "f"), MOE_E_IO);
	assert_int_equal(errno, EACCES);
}

static void prefix_keeps_code_and_words(void **state)
{
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	moe_fail(&e, MOE_E_INPUT, "bad header");
	assert_int_equal(moe_fail_prefix(&e, MOE_E_IO, "shard %d", 7), MOE_E_INPUT);
	assert_string_equal(e.msg, "shard 7: bad header");
	assert_int_equal(moe_fail_prefix(NULL, MOE_E_IO, "x"), MOE_E_IO);
}

static void message_may_be_its_own_argument(void **state)
{
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	moe_fail(&e, MOE_E_INPUT, "inner");
	moe_fail(&e, MOE_E_PEER, "outer (%s)", e.msg);
	assert_string_equal(e.msg, "outer (inner)");
}

static void long_words_are_cut_between_characters(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	char text[2000];

	(void)state;
	for (int shift = 0; shift < 4; shift++) {
		memset(text, 'a', sizeof text);
		for (size_t i = (size_t)shift; i + 3 < sizeof text; i += 3)
			memcpy(text + i, "\xe2\x82\xac", 3);
		text[sizeof text - 1] = 0;
		moe_fail(&e, MOE_E_INPUT, "%s", text);
		assert_true(strlen(e.msg) >= sizeof e.msg - 4);
		assert_int_equal((strlen(e.msg) - (size_t)shift) % 3, 0);
		moe_fail_prefix(&e, MOE_E_INPUT, "%s", text);
		assert_true(strlen(e.msg) < sizeof e.msg);
	}
}

static void control_characters_do_not_reach_the_terminal(void **state)
{
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	moe_fail(&e, MOE_E_INPUT, "a\nb\033[31m\x7f");
	assert_string_equal(e.msg, "a?b?[31m?");
}

static void every_code_has_a_name(void **state)
{
	(void)state;
	for (int c = MOE_OK; c <= MOE_E_OVERLOADED; c++)
		assert_string_not_equal(moe_code_name(c), "unknown");
	assert_string_equal(moe_code_name(MOE_E_SUM), "checksum");
	assert_string_equal(moe_code_name(MOE_E_OVERLOADED + 1), "unknown");
	assert_string_equal(moe_code_name(-1), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fail_fills_and_returns),
		cmocka_unit_test(errno_chooses_the_code),
		cmocka_unit_test(prefix_keeps_code_and_words),
		cmocka_unit_test(message_may_be_its_own_argument),
		cmocka_unit_test(long_words_are_cut_between_characters),
		cmocka_unit_test(control_characters_do_not_reach_the_terminal),
		cmocka_unit_test(every_code_has_a_name),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("base_err", tests, NULL, NULL);
}
