/* In place of cmocka: groups of tests that print TAP.  A test that fails is left by longjmp, as cmocka does; what it holds stays.
 * See README. */
#ifndef ABSENT_CMOCKA_H
#define ABSENT_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
	const char *name;
	void (*fn)(void **state);
	int (*setup)(void **state), (*teardown)(void **state);
	void *initial;               /* what *state is at first */
};
#define cmocka_unit_test(f) {#f, f, NULL, NULL, NULL}
#define cmocka_set_message_output(how) ((void)0)
enum { ABSENT_RAN, ABSENT_FAILED, ABSENT_SKIPPED };

static jmp_buf absent_out;
static char absent_why[1024];

__attribute__((noreturn, format(printf, 3, 4), unused)) static void absent_fail(const char *file, int line, const char *format, ...)
{
	va_list ap;
	int n = snprintf(absent_why, sizeof absent_why, "%s:%d: ", file, line);

	va_start(ap, format);
	vsnprintf(absent_why + n, sizeof absent_why - (size_t)n, format, ap);
	va_end(ap);
	longjmp(absent_out, ABSENT_FAILED);
}

#define fail_msg(...) absent_fail(__FILE__, __LINE__, __VA_ARGS__)
#define fail() fail_msg("failed")
#define skip() longjmp(absent_out, ABSENT_SKIPPED)
#define assert_true(c) ((c) ? (void)0 : fail_msg("%s is false", #c))
#define assert_false(c) ((c) ? fail_msg("%s is true", #c) : (void)0)
#define assert_null(p) assert_true((p) == NULL)
#define assert_non_null(p) assert_true((p) != NULL)
#define assert_ptr_equal(a, b) assert_true((const void *)(a) == (const void *)(b))
#define assert_int_equal(a, b) absent_equal((intmax_t)(a), (intmax_t)(b), #a, __FILE__, __LINE__)
#define assert_in_range(v, from, to) assert_true((uintmax_t)(v) >= (uintmax_t)(from) && (uintmax_t)(v) <= (uintmax_t)(to))
#define assert_string_equal(a, b) absent_same_text((a), (b), __FILE__, __LINE__)
#define assert_memory_equal(a, b, n) assert_true(memcmp((a), (b), (n)) == 0)
#define test_malloc malloc
#define test_calloc calloc
#define test_realloc realloc
#define test_free free

__attribute__((unused)) static void absent_equal(intmax_t a, intmax_t b, const char *what, const char *file, int line)
{
	if (a != b)
		absent_fail(file, line, "%s is %jd, not %jd", what, a, b);
}

__attribute__((unused)) static void absent_same_text(const char *a, const char *b, const char *file, int line)
{
	if (strcmp(a, b) != 0)
		absent_fail(file, line, "\"%s\" is not \"%s\"", a, b);
}

__attribute__((unused)) static int absent_group(const struct CMUnitTest *tests, size_t n, int (*begin)(void **state), int (*end)(void **state))
{
	volatile int failed = 0;
	void *volatile state = NULL;

	printf("1..%zu\n", n);
	if (begin && begin((void **)&state) != 0)
		return 1;
	for (volatile size_t i = 0; i < n; i = i + 1) {
		int how;

		if (tests[i].initial)
			state = tests[i].initial;
		how = setjmp(absent_out);
		if (how == ABSENT_RAN)
			tests[i].fn((void **)&state);
		printf("%s %zu - %s%s\n", how == ABSENT_FAILED ? "not ok" : "ok", i + 1, tests[i].name, how == ABSENT_SKIPPED ? " # SKIP" : "");
		if (how == ABSENT_FAILED)
			printf("# %s\n", absent_why);
		fflush(stdout);
		failed = failed + (how == ABSENT_FAILED);
	}
	return (end && end((void **)&state) != 0) + failed;
}
#define cmocka_run_group_tests(tests, begin, end) absent_group((tests), sizeof(tests) / sizeof *(tests), (begin), (end))
#define cmocka_run_group_tests_name(name, tests, begin, end) cmocka_run_group_tests(tests, begin, end)

#endif
