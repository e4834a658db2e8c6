/* JSON, written. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"

static void assert_text(struct moe_jw *w, const char *want)
{
	size_t len = 0;
	char *text = moe_jw_done(w, &len, NULL);

	assert_non_null(text);
	assert_string_equal(text, want);
	assert_int_equal(len, strlen(want));
	free(text);
}

static void write_sample(struct moe_jw *w)
{
	moe_jw_obj(w);
	moe_jw_key(w, "a");
	moe_jw_arr(w);
	moe_jw_int(w, 1);
	moe_jw_bool(w, true);
	moe_jw_null(w);
	moe_jw_arr_end(w);
	moe_jw_key(w, "none");
	moe_jw_arr(w);
	moe_jw_arr_end(w);
	moe_jw_key(w, "rows");
	moe_jw_arr(w);
	moe_jw_arr(w);
	moe_jw_int(w, 2);
	moe_jw_arr_end(w);
	moe_jw_obj(w);
	moe_jw_end(w);
	moe_jw_arr_end(w);
	moe_jw_end(w);
}

static void compact(void **state)
{
	struct moe_jw w;

	(void)state;
	moe_jw_init(&w, false);
	write_sample(&w);
	assert_text(&w, "{\"a\":[1,true,null],\"none\":[],\"rows\":[[2],{}]}");
}

static void pretty(void **state)
{
	struct moe_jw w;

	(void)state;
	moe_jw_init(&w, true);
	write_sample(&w);
	assert_text(&w, "{\n  \"a\": [1, true, null],\n  \"none\": [],\n  \"rows\": [\n    [2],\n    {}\n  ]\n}");
}

static void nothing_is_an_empty_text(void **state)
{
	struct moe_jw w;

	(void)state;
	moe_jw_init(&w, false);
	assert_text(&w, "");
}

static void strings_are_escaped(void **state)
{
	struct moe_jw w;

	(void)state;
	moe_jw_init(&w, false);
	moe_jw_arr(&w);
	moe_jw_str(&w, "\"\\\b\f\n\r\t\x01\x1f\x7f/");
	moe_jw_str(&w, "\xc3\xa9\xf0\x9f\x98\x80");
	moe_jw_str(&w, "a\xff" "b\xc3");
	moe_jw_strn(&w, "x\0y", 3);
	moe_jw_str(&w, NULL);
	moe_jw_arr_end(&w);
	assert_text(&w, "[\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\x7f/\",\"\xc3\xa9\xf0\x9f\x98\x80\","
	                "\"a\xef\xbf\xbd" "b\xef\xbf\xbd\",\"x\\u0000y\",null]");
}

static void numbers_come_back(void **state)
{
	static const double values[] = {0, -0.0, 0.1, 1.0 / 3, 1e300, DBL_MIN, DBL_TRUE_MIN, DBL_MAX, 123456789012345678.0,
	                                0.1 + 0.2, M_PI};

	(void)state;
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		struct moe_jw w;
		char *text;

		moe_jw_init(&w, false);
		moe_jw_num(&w, values[i]);
		text = moe_jw_done(&w, NULL, NULL);
		assert_true(strtod(text, NULL) == values[i]);
		free(text);
		moe_jw_init(&w, false);
		moe_jw_float(&w, (float)values[i]);
		text = moe_jw_done(&w, NULL, NULL);
		if (isfinite((float)values[i]))
			assert_true(strtof(text, NULL) == (float)values[i]);
		free(text);
	}
}

static void numbers_are_short(void **state)
{
	struct moe_jw w;

	(void)state;
	moe_jw_init(&w, false);
	moe_jw_arr(&w);
	moe_jw_num(&w, 0.1);
	moe_jw_num(&w, 1000000);
	moe_jw_float(&w, 0.1f);
	moe_jw_float(&w, 16777216.0f);
	moe_jw_num(&w, NAN);
	moe_jw_float(&w, -INFINITY);
	moe_jw_int(&w, INT64_MIN);
	moe_jw_arr_end(&w);
	assert_text(&w, "[0.1,1000000,0.1,16777216,null,null,-9223372036854775808]");
}

/* Unknown keys of a file are kept, numbers digit by digit. */
static void print_gives_back_what_was_read(void **state)
{
	static const char text[] = "{\"b\":18446744073709551615,\"a\":[0.30000000000000004,-1.25,[],{}],\"s\":\"\\n\xc3\xa9\","
	                           "\"t\":true,\"n\":null}";
	struct moe_json *v = NULL;
	struct moe_buf b = MOE_BUF_INIT;

	(void)state;
	assert_int_equal(moe_json_parse(text, sizeof text - 1, "t", &v, NULL), 0);
	assert_int_equal(moe_buf_add(&b, "> ", 2, NULL), 0);
	assert_int_equal(moe_json_print(v, &b, NULL), 0);
	assert_string_equal(b.data + 2, text);
	assert_memory_equal(b.data, "> ", 2);
	moe_buf_free(&b);
	moe_json_free(v);
}

static void too_deep_is_an_error(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_jw w;

	(void)state;
	moe_jw_init(&w, true);
	for (int i = 0; i < MOE_JSON_DEPTH + 5; i++)
		moe_jw_arr(&w);
	moe_jw_int(&w, 1);
	for (int i = 0; i < MOE_JSON_DEPTH + 5; i++)
		moe_jw_arr_end(&w);
	assert_null(moe_jw_done(&w, NULL, &e));
	assert_int_not_equal(e.code, 0);
	moe_jw_drop(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(compact),
		cmocka_unit_test(pretty),
		cmocka_unit_test(nothing_is_an_empty_text),
		cmocka_unit_test(strings_are_escaped),
		cmocka_unit_test(numbers_come_back),
		cmocka_unit_test(numbers_are_short),
		cmocka_unit_test(print_gives_back_what_was_read),
		cmocka_unit_test(too_deep_is_an_error),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("base_json_write", tests, NULL, NULL);
}
