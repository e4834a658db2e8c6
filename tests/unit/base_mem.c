/* Memory: sizes, allocations, buffers, the index, what is available. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

static void sums_and_products_do_not_overflow(void **state)
{
	size_t out = 7;

	(void)state;
	assert_false(moe_mul_size(SIZE_MAX / 2, 3, &out));
	assert_false(moe_add_size(SIZE_MAX, 1, &out));
	assert_int_equal(out, 7);
	assert_true(moe_mul_size(SIZE_MAX, 1, &out) && out == SIZE_MAX);
	assert_true(moe_add_size(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX);
}

static void too_much_is_an_error_with_words(void **state)
{
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_null(moe_calloc(SIZE_MAX, 16, "experts", &e));
	assert_int_equal(e.code, MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "experts"));
	assert_null(moe_realloc(NULL, SIZE_MAX / 2, 4, "rows", NULL));
}

static void nothing_can_be_freed(void **state)
{
	void *p = moe_calloc(0, 8, "none", NULL), *q = moe_aligned(0, "none", NULL);

	(void)state;
	assert_non_null(p);
	assert_non_null(q);
	free(p);
	free(q);
}

static void aligned_is_aligned_and_zero(void **state)
{
	static const size_t sizes[] = {1, 100, 4096, (size_t)2 << 20, ((size_t)2 << 20) + 1};

	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		unsigned char *p = moe_aligned(sizes[i], "block", NULL), any = 0;

		assert_non_null(p);
		assert_int_equal((uintptr_t)p % (sizes[i] < (size_t)2 << 20 ? 64 : 4096), 0);
		for (size_t k = 0; k < sizes[i]; k++)
			any |= p[k];
		assert_int_equal(any, 0);
		free(p);
	}
}

static void strings_are_copied(void **state)
{
	char *a = moe_strdup("abc", NULL), *b = moe_strndup("abcdef", 2, NULL), *c = moe_sprintf(NULL, "%d-%s", 5, "x");

	(void)state;
	assert_string_equal(a, "abc");
	assert_string_equal(b, "ab");
	assert_string_equal(c, "5-x");
	free(a);
	free(b);
	free(c);
}

static void buffer_grows_and_stays_terminated(void **state)
{
	struct moe_buf b = MOE_BUF_INIT;

	(void)state;
	assert_int_equal(moe_buf_add(&b, NULL, 0, NULL), 0);
	assert_string_equal(b.data, "");
	for (int i = 0; i < 1000; i++)
		assert_int_equal(moe_buf_printf(&b, NULL, "%d,", i % 10), 0);
	assert_int_equal(b.len, 2000);
	assert_int_equal(b.data[2000], 0);
	assert_int_equal(moe_buf_add(&b, "a\0b", 3, NULL), 0);
	assert_memory_equal(b.data + 2000, "a\0b", 4);
	moe_buf_free(&b);
	assert_null(b.data);
	assert_int_equal(b.len + b.cap, 0);
}

#define KEYS 5000

static void index_finds_what_was_added(void **state)
{
	static char keys[KEYS][16];
	struct moe_index *x = moe_index_new(4, NULL); /* so that it has to grow */
	uint64_t v = 0;

	(void)state;
	assert_non_null(x);
	for (unsigned i = 0; i < KEYS; i++) {
		int n = snprintf(keys[i], sizeof keys[i], "key%u", i);

		assert_int_equal(moe_index_add(x, keys[i], (size_t)n, i, NULL), 1);
	}
	for (unsigned i = 0; i < KEYS; i++) {
		assert_true(moe_index_get(x, keys[i], strlen(keys[i]), &v));
		assert_int_equal(v, i);
	}
	assert_int_equal(moe_index_add(x, "key17", 5, 99, &v), 0);
	assert_int_equal(v, 17);
	assert_true(moe_index_get(x, "key17", 5, &v) && v == 17);
	assert_false(moe_index_get(x, "key", 3, &v));
	moe_index_free(x);
	moe_index_free(NULL);
}

static void index_keys_are_bytes(void **state)
{
	struct moe_index *x = moe_index_new(0, NULL);
	uint64_t v = 0;

	(void)state;
	assert_int_equal(moe_index_add(x, "a\0b", 3, 1, NULL), 1);
	assert_int_equal(moe_index_add(x, "a\0c", 3, 2, NULL), 1);
	assert_int_equal(moe_index_add(x, NULL, 0, 3, NULL), 1);
	assert_int_equal(moe_index_add(x, "", 0, 4, &v), 0);
	assert_int_equal(v, 3);
	assert_true(moe_index_get(x, "a\0c", 3, &v) && v == 2);
	moe_index_free(x);
}

static void some_memory_is_available(void **state)
{
	size_t total = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);

	(void)state;
	assert_in_range(moe_memory_available(), 1, total);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they take the whole address space */
static void address_space_limit_counts(void **state)
{
	int status = 0;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		struct rlimit r = {(rlim_t)256 << 20, (rlim_t)256 << 20};
		size_t left;

		if (setrlimit(RLIMIT_AS, &r) != 0)
			_exit(2);
		left = moe_memory_available();
		_exit(left > 0 && left < r.rlim_cur ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_and_products_do_not_overflow),
		cmocka_unit_test(too_much_is_an_error_with_words),
		cmocka_unit_test(nothing_can_be_freed),
		cmocka_unit_test(aligned_is_aligned_and_zero),
		cmocka_unit_test(strings_are_copied),
		cmocka_unit_test(buffer_grows_and_stays_terminated),
		cmocka_unit_test(index_finds_what_was_added),
		cmocka_unit_test(index_keys_are_bytes),
		cmocka_unit_test(some_memory_is_available),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		cmocka_unit_test(address_space_limit_counts),
#endif
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("base_mem", tests, NULL, NULL);
}
