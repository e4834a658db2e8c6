/* JSON, read: what is taken, what is refused and in what words, and what the tree answers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"

/* From memory of exactly that size, so that a sanitizer sees a read past the end. */
static int parse(const char *text, size_t len, struct moe_json **out, struct moe_err *e)
{
	char *exact = malloc(len ? len : 1);
	int rc;

	assert_non_null(exact);
	memcpy(exact, text, len);
	rc = moe_json_parse(exact, len, "t.json", out, e);
	free(exact);
	return rc;
}

static struct moe_json *good(const char *text)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_json *v = NULL;

	if (parse(text, strlen(text), &v, &e))
		fail_msg("%s: refused: %s", text, e.msg);
	return v;
}

static void refused_n(const char *text, size_t len, const char *words)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_json *v = NULL;

	if (parse(text, len, &v, &e) != MOE_E_INPUT)
		fail_msg("%s: not refused", text);
	if (!strstr(e.msg, words) || strncmp(e.msg, "t.json: ", 8) != 0)
		fail_msg("%s: refused with '%s', '%s' was expected", text, e.msg, words);
	assert_null(v);
}

static void refused(const char *text, const char *words)
{
	refused_n(text, strlen(text), words);
}

static void scalars(void **state)
{
	static const struct {
		const char *text;
		double num;
	} numbers[] = {{"0", 0}, {" -0 ", 0}, {"12", 12}, {"-1.5e3", -1500}, {"1E-2", 0.01}, {"1e+2", 100},
	               {"0.30000000000000004", 0.30000000000000004}, {"1e-400", 0}};
	struct moe_json *v;

	(void)state;
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		v = good(numbers[i].text);
		assert_int_equal(moe_json_type(v), MOE_JSON_NUMBER);
		assert_true(moe_json_num(v, 77) == numbers[i].num);
		moe_json_free(v);
	}
	v = good("true");
	assert_true(moe_json_bool(v, false));
	moe_json_free(v);
	v = good("false");
	assert_false(moe_json_bool(v, true));
	moe_json_free(v);
	v = good("\t\r\n null");
	assert_int_equal(moe_json_type(v), MOE_JSON_NULL);
	moe_json_free(v);
}

static void strings(void **state)
{
	static const char *const pairs[][2] = {
		{"\"\"", ""},
		{"\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "a\"\\/\b\f\n\r\t"},
		{"\"\\u00e9\\u20AC\\ud83d\\ude00\"", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
		{"\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f\"", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f"},
		{"\"\\u0001\"", "\x01"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
		struct moe_json *v = good(pairs[i][0]);

		assert_string_equal(moe_json_str(v, NULL), pairs[i][1]);
		moe_json_free(v);
	}
}

static void wrong_numbers(void **state)
{
	static const char *const texts[] = {"01", "-", "+1", ".5", "1.", "1e", "1e+", "-01", "0x10", "NaN", "Infinity",
	                                    "-Infinity", "1.e3", "--1"};
	char longest[80];

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		refused(texts[i], "column");
	refused("1e999", "too large");
	refused("[-1e999]", "too large");
	memset(longest, '1', sizeof longest);
	longest[63] = 0;
	moe_json_free(good(longest));
	longest[63] = '1';
	longest[64] = 0;
	refused(longest, "more than 63 characters");
}

static void wrong_strings(void **state)
{
	(void)state;
	refused("\"abc", "does not end");
	refused("\"abc\\", "does not end");
	refused("\"a\nb\"", "raw control character");
	refused_n("\"a\0b\"", 5, "raw control character");
	refused("\"\\u0000\"", "\\u0000");
	refused("\"\\ud800\"", "surrogate");
	refused("\"\\ud800\\u0041\"", "surrogate");
	refused("\"\\udc00\"", "surrogate");
	refused("\"\\u12g4\"", "hexadecimal");
	refused("\"\\u12", "hexadecimal");
	refused("\"\\x41\"", "escape");
	refused_n("\"\\\0\"", 4, "escape");
	refused("'a'", "value is expected");
}

static void wrong_utf8(void **state)
{
	static const char *const bad[] = {"\x80", "\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
	                                  "\xf5\x80\x80\x80", "\xff", "\xe2\x82", "\xf0\x9f\x98"};
	char text[16];

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		snprintf(text, sizeof text, "\"%s\"", bad[i]);
		refused(text, "UTF-8");
		snprintf(text, sizeof text, "\"%s", bad[i]);
		refused(text, "UTF-8");
	}
	refused("\xef\xbb\xbf{}", "byte order mark");
	refused("\xc2\xa0{}", "value is expected");
}

static void wrong_structure(void **state)
{
	static const char *const texts[] = {"",      " ",       "{",       "[",        "]",        "}",          "[1,]",
	                                    "[,1]",  "[1 2]",   "{\"a\"}", "{\"a\":}", "{a:1}",    "{\"a\":1,}", "{\"a\" 1}",
	                                    "[1}",   "{\"a\":1]", "tru",   "nulls",    "True",     "{} {}",      "[1] x",
	                                    "1 2",   "[\"a\"", "{\"a\":1", "//x\n1",   "[1]/**/",  "{1:2}",      "{\"a\":1 \"b\":2}"};

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		refused(texts[i], ":");
	refused_n("[1]\0", 4, "follows");
	refused_n("\0", 1, "value is expected");
}

static void depth_is_bounded(void **state)
{
	char text[2 * (MOE_JSON_DEPTH + 1) + 1];

	(void)state;
	for (int depth = MOE_JSON_DEPTH; depth <= MOE_JSON_DEPTH + 1; depth++) {
		memset(text, '[', (size_t)depth);
		memset(text + depth, ']', (size_t)depth);
		text[2 * depth] = 0;
		if (depth == MOE_JSON_DEPTH)
			moe_json_free(good(text));
		else
			refused(text, "nested too deep");
	}
}

static void values_are_bounded(void **state)
{
	size_t n = 2 * (size_t)MOE_JSON_VALUES + 1; /* "[0,0,...,0]": as many zeros as there may be values */
	char *text = malloc(n);

	(void)state;
	assert_non_null(text);
	for (size_t i = 0; i < n; i++)
		text[i] = i % 2 ? '0' : ',';
	text[0] = '[';
	text[n - 1] = ']';
	refused_n(text, n, "too many values");
	free(text);
}

static void duplicates_are_named_with_their_line(void **state)
{
	struct moe_buf b = MOE_BUF_INIT;

	(void)state;
	refused("{\"a\":1,\n \"b\": [{}, 2],\n \"a\":3}", "t.json: line 3: duplicate name \"a\"");
	refused("{\"x\":{\"a\":1,\"\\u0061\":2}}", "duplicate name \"a\"");
	for (int i = 0; i < 100; i++)
		moe_buf_printf(&b, NULL, "%c\"k%d\":\n%d", i ? ',' : '{', i == 99 ? 50 : i, i);
	moe_buf_printf(&b, NULL, "}");
	refused(b.data, "line 101: duplicate name \"k50\"");
	moe_buf_free(&b);
	moe_json_free(good("{\"a\":1,\"A\":2,\"\":3,\"a \":4}"));
}

static void lines_are_counted(void **state)
{
	(void)state;
	refused("{\n\"a\": 1,\n\"b\": x\n}", "t.json: line 3: ");
	refused("{\"a\": x}\n", "t.json: column 7: ");
}

static void tree_answers(void **state)
{
	struct moe_json *v = good("{\"n\": 5, \"list\": [1, \"two\", {\"k\": null}], \"s\": \"x\", \"b\": true}");
	const struct moe_json *list = moe_json_get(v, "list");

	(void)state;
	assert_int_equal(moe_json_count(v), 4);
	assert_int_equal(moe_json_count(list), 3);
	assert_string_equal(moe_json_name(list), "list");
	assert_null(moe_json_name(v));
	assert_null(moe_json_name(moe_json_at(list, 0)));
	assert_string_equal(moe_json_str(moe_json_at(list, 1), ""), "two");
	assert_null(moe_json_at(list, 3));
	assert_null(moe_json_at(moe_json_get(v, "s"), 0));
	assert_string_equal(moe_json_name(moe_json_at(v, 2)), "s");
	assert_null(moe_json_get(v, "N"));
	assert_null(moe_json_get(list, "n"));
	assert_true(moe_json_num(moe_json_get(v, "s"), 3) == 3);
	assert_int_equal(moe_json_type(moe_json_get(moe_json_at(list, 2), "k")), MOE_JSON_NULL);
	moe_json_free(v);
}

static void absent_answers_too(void **state)
{
	int64_t n = 4;

	(void)state;
	assert_int_equal(moe_json_type(NULL), MOE_JSON_NULL);
	assert_int_equal(moe_json_count(NULL), 0);
	assert_null(moe_json_at(NULL, 0));
	assert_null(moe_json_get(NULL, "a"));
	assert_null(moe_json_name(NULL));
	assert_string_equal(moe_json_str(NULL, "d"), "d");
	assert_true(moe_json_num(NULL, 2) == 2);
	assert_true(moe_json_bool(NULL, true));
	assert_false(moe_json_int(NULL, &n));
	assert_int_equal(n, 4);
	moe_json_free(NULL);
}

static void large_objects_are_found_by_name(void **state)
{
	struct moe_buf b = MOE_BUF_INIT;
	struct moe_json *v;

	(void)state;
	for (int i = 0; i < 3000; i++)
		moe_buf_printf(&b, NULL, "%c\"key %d\":%d", i ? ',' : '{', i, i);
	moe_buf_printf(&b, NULL, "}");
	v = good(b.data);
	for (int i = 0; i < 3000; i++) {
		char name[16];

		snprintf(name, sizeof name, "key %d", i);
		assert_int_equal((int)moe_json_num(moe_json_get(v, name), -1), i);
		assert_string_equal(moe_json_name(moe_json_at(v, (size_t)i)), name);
	}
	assert_null(moe_json_get(v, "key 3000"));
	moe_json_free(v);
	moe_buf_free(&b);
}

static void integers_are_exact(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		int64_t n;
	} cases[] = {{"9007199254740992", true, 9007199254740992},
	             {"-9007199254740992", true, -9007199254740992},
	             {"9007199254740991", true, 9007199254740991},
	             {"9007199254740993", false, 0},
	             {"9007199254740992.5", false, 0},
	             {"18446744073709551615", false, 0},
	             {"1.5", false, 0},
	             {"1e3", true, 1000},
	             {"1.0", true, 1},
	             {"-0", true, 0},
	             {"1e300", false, 0},
	             {"\"1\"", false, 0}};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct moe_json *v = good(cases[i].text);
		int64_t n = 0;

		if (moe_json_int(v, &n) != cases[i].ok || n != cases[i].n)
			fail_msg("%s: %lld", cases[i].text, (long long)n);
		moe_json_free(v);
	}
}

static void needs_check_type_and_range(void **state)
{
	struct moe_json *v = good("{\"n\": 5, \"x\": 1.5, \"s\": \"w\", \"b\": true, \"z\": null}");
	struct moe_err e = MOE_ERR_INIT;
	int64_t n = -7;
	double x = -7;
	bool b = false;
	const char *s = "old";

	(void)state;
	assert_int_equal(moe_json_need_int(v, "n", true, 0, 5, &n, "cfg", &e), 0);
	assert_int_equal(n, 5);
	assert_int_equal(moe_json_need_num(v, "x", true, 1, 2, &x, "cfg", &e), 0);
	assert_true(x == 1.5);
	assert_int_equal(moe_json_need_bool(v, "b", true, &b, "cfg", &e), 0);
	assert_true(b);
	assert_int_equal(moe_json_need_str(v, "s", true, &s, "cfg", &e), 0);
	assert_string_equal(s, "w");
	n = 3;
	assert_int_equal(moe_json_need_int(v, "none", false, 0, 9, &n, "cfg", &e), 0);
	assert_int_equal(moe_json_need_int(v, "z", false, 0, 9, &n, "cfg", &e), 0);
	assert_int_equal(n, 3);
	assert_int_equal(moe_json_need_int(v, "z", true, 0, 9, &n, "cfg", &e), MOE_E_INPUT);
	assert_string_equal(e.msg, "cfg: \"z\" is missing");
	assert_int_equal(moe_json_need_int(v, "n", true, 6, 9, &n, "cfg", &e), MOE_E_INPUT);
	assert_string_equal(e.msg, "cfg: \"n\" is 5, outside 6 to 9");
	assert_int_equal(moe_json_need_int(v, "x", false, 0, 9, &n, "cfg", &e), MOE_E_INPUT);
	assert_string_equal(e.msg, "cfg: \"x\" is 1.5, not a whole number up to 2^53");
	assert_int_equal(moe_json_need_int(v, "s", false, 0, 9, &n, "cfg", &e), MOE_E_INPUT);
	assert_string_equal(e.msg, "cfg: \"s\" is of type string, number is expected");
	assert_int_equal(moe_json_need_num(v, "n", true, 6, INFINITY, &x, "cfg", &e), MOE_E_INPUT);
	assert_int_equal(moe_json_need_str(v, "n", true, &s, "cfg", &e), MOE_E_INPUT);
	assert_int_equal(moe_json_need_bool(NULL, "n", true, &b, "cfg", &e), MOE_E_INPUT);
	assert_int_equal(n, 3);
	moe_json_free(v);
}

static void cut_anywhere_is_refused(void **state)
{
	static const char text[] = "{\"a\": [1.5e-3, true, \"x\\u00e9\\ud83d\\ude00\"], \"b\": {\"c\": null}}";

	(void)state;
	for (size_t n = 0; n < sizeof text - 1; n++)
		refused_n(text, n, ":");
}

/* Any change of one byte is refused or gives a tree that can be walked; a sanitizer watches. */
static void damage_does_no_harm(void **state)
{
	static const char text[] = "{\"a\": [1.5e-3, true, \"x\\u00e9\\ud83d\\ude00\"], \"b\": {\"c\": null, \"\xc3\xa9\": 123}}";
	char damaged[sizeof text];

	(void)state;
	for (size_t at = 0; at < sizeof text - 1; at++)
		for (int byte = 0; byte < 256; byte++) {
			struct moe_json *v = NULL;
			struct moe_buf b = MOE_BUF_INIT;

			memcpy(damaged, text, sizeof text);
			damaged[at] = (char)byte;
			if (parse(damaged, sizeof text - 1, &v, NULL))
				continue;
			assert_int_equal(moe_json_print(v, &b, NULL), 0);
			moe_buf_free(&b);
			moe_json_free(v);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scalars),
		cmocka_unit_test(strings),
		cmocka_unit_test(wrong_numbers),
		cmocka_unit_test(wrong_strings),
		cmocka_unit_test(wrong_utf8),
		cmocka_unit_test(wrong_structure),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(values_are_bounded),
		cmocka_unit_test(duplicates_are_named_with_their_line),
		cmocka_unit_test(lines_are_counted),
		cmocka_unit_test(tree_answers),
		cmocka_unit_test(absent_answers_too),
		cmocka_unit_test(large_objects_are_found_by_name),
		cmocka_unit_test(integers_are_exact),
		cmocka_unit_test(needs_check_type_and_range),
		cmocka_unit_test(cut_anywhere_is_refused),
		cmocka_unit_test(damage_does_no_harm),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("base_json", tests, NULL, NULL);
}
