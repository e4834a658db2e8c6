/* Words for people: the nearest name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/words.h"

static const char *const names[] = {"mixtral-8x7b", "mixtral-8x22b", "olmoe-1b-7b", "t4", "h100", "h200", NULL};

static void nearest(void **state)
{
	(void)state;
	assert_string_equal(moe_nearest("mixtral-8x7", names), "mixtral-8x7b");
	assert_string_equal(moe_nearest("Mixtral-8X22B", names), "mixtral-8x22b");
	assert_string_equal(moe_nearest("mixtral8x22", names), "mixtral-8x22b");
	assert_string_equal(moe_nearest("olmoe", names), "olmoe-1b-7b");   /* how it begins */
	assert_string_equal(moe_nearest("h010", names), "h100");           /* two letters swapped */
	assert_string_equal(moe_nearest("4t", names), "t4");
}

static void none_is_near(void **state)
{
	static const char *const nothing[] = {NULL};
	static const char letters[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

	(void)state;
	assert_null(moe_nearest("banana-split", names));
	assert_null(moe_nearest("", names));
	assert_null(moe_nearest("xy", names)); /* all letters would change */
	assert_null(moe_nearest(letters, names));
	assert_null(moe_nearest("t4", nothing));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nearest),
		cmocka_unit_test(none_is_near),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("base_words", tests, NULL, NULL);
}
