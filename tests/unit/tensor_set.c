/* Sets of tensors: names, order, what they own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tensor/tensor.h"

static void order_and_names(void **state)
{
	struct moe_tensors *s;
	const struct moe_tensor *first;
	char name[32];

	(void)state;
	assert_int_equal(moe_tensors_new(&s, NULL), 0);
	for (int i = 0; i < 1000; i++) {
		struct moe_tensor t = {.name = name, .dtype = MOE_F32, .ndim = 1, .shape = {i}};

		snprintf(name, sizeof name, "t%d", i * 7919 % 1000);
		assert_int_equal(moe_tensors_add(s, &t, NULL), 0);
		if (i == 0)
			first = moe_tensors_at(s, 0);
	}
	snprintf(name, sizeof name, "gone"); /* names were copied */
	assert_int_equal(moe_tensors_count(s), 1000);
	assert_ptr_equal(moe_tensors_at(s, 0), first); /* addresses stay */
	for (size_t i = 0; i < 1000; i++) {
		const struct moe_tensor *t = moe_tensors_at(s, i);

		assert_int_equal(t->shape[0], i);
		assert_ptr_equal(moe_tensors_find(s, t->name), t);
	}
	assert_null(moe_tensors_find(s, "gone"));
	assert_null(moe_tensors_find(s, ""));
	moe_tensors_free(s);
	moe_tensors_free(NULL);
}

static void one_name_once(void **state)
{
	struct moe_tensors *s;
	struct moe_tensor t = {.name = "a", .dtype = MOE_U8};
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(moe_tensors_new(&s, NULL), 0);
	assert_int_equal(moe_tensors_add(s, &t, &e), 0);
	assert_int_equal(moe_tensors_add(s, &t, &e), MOE_E_INPUT);
	assert_string_equal(e.msg, "there are two tensors a");
	assert_int_equal(moe_tensors_count(s), 1);
	moe_tensors_free(s);
}

static void owns_mappings_and_memory(void **state)
{
	char path[] = "/tmp/moe-tensor-set-XXXXXX";
	int fd = mkstemp(path);
	struct moe_tensors *s, *views;
	struct moe_tensor t = {.name = "a", .dtype = MOE_U8};
	struct moe_map *m;
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(ftruncate(fd, 3 * 4096), 0);
	assert_int_equal(moe_tensors_new(&s, NULL), 0);
	assert_int_equal(moe_map_open(path, &m, NULL), 0);
	assert_int_equal(moe_tensors_own_map(s, m, NULL), 0);
	assert_int_equal(moe_tensors_own_memory(s, malloc(100), NULL), 0);
	assert_int_equal(moe_tensors_new(&views, NULL), 0);
	t.map = m;
	assert_int_equal(moe_tensors_add(views, &t, NULL), 0);
	assert_int_equal(moe_tensors_check(s, &e), 0);
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(((const volatile unsigned char *)m->data)[2 * 4096], 0);
	assert_int_equal(moe_tensors_check(s, &e), MOE_E_IO);
	assert_non_null(strstr(e.msg, path));
	assert_int_equal(moe_tensors_check(views, &e), MOE_E_IO); /* though the mapping is another's */
	moe_tensors_free(views);
	moe_tensors_free(s);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order_and_names),
		cmocka_unit_test(one_name_once),
		cmocka_unit_test(owns_mappings_and_memory),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tensor_set", tests, NULL, NULL);
}
