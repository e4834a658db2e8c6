/* model.safetensors.index.json by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/private.h"

static int parse(const char *text, struct moe_hf_index *x, struct moe_err *e)
{
	return moe_hf_index_parse(text, strlen(text), "i", x, e);
}

static void files_once_in_order(void **state)
{
	struct moe_hf_index x;

	(void)state;
	assert_int_equal(parse("{\"metadata\":{\"total_size\":3},\"weight_map\":{\"a\":\"2.st\",\"b\":\"1.st\",\"c\":\"2.st\"}}",
	                       &x, NULL), 0);
	assert_int_equal(x.n_files, 2);
	assert_string_equal(x.files[0], "2.st");
	assert_string_equal(x.files[1], "1.st");
	assert_string_equal(moe_json_str(moe_json_get(x.map, "c"), ""), "2.st");
	moe_hf_index_free(&x);
}

static const struct {
	const char *text, *says;
} bad[] = {
	{"", "i: "},
	{"[]", "no \"weight_map\""},
	{"{}", "no \"weight_map\""},
	{"{\"weight_map\":[]}", "no \"weight_map\""},
	{"{\"weight_map\":{}}", "is empty"},
	{"{\"weight_map\":{\"a\":1}}", "tensor a: the file name is no string"},
	{"{\"weight_map\":{\"a\":{\"file\":\"x\"}}}", "tensor a: the file name is no string"},
	{"{\"weight_map\":{\"a\":null}}", "tensor a: the file name is no string"},
	{"{\"weight_map\":{\"a\":\"\"}}", "no plain file name"},
	{"{\"weight_map\":{\"a\":\"..\"}}", "no plain file name"},
	{"{\"weight_map\":{\"a\":\"../x\"}}", "\"../x\" is no plain file name"},
	{"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "no plain file name"},
	{"{\"weight_map\":{\"a\":\"x/y\"}}", "no plain file name"},
	{"{\"weight_map\":{\"a\":\"x\\n\"}}", "no plain file name"},
	{"{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}", "\"a\""},
};

static void refused_with_its_name(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct moe_hf_index x;
		struct moe_err e = MOE_ERR_INIT;

		if (parse(bad[i].text, &x, &e) != MOE_E_INPUT || !strstr(e.msg, bad[i].says))
			fail_msg("%s: \"%s\", wanted \"%s\"", bad[i].text, e.msg, bad[i].says);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_once_in_order),
		cmocka_unit_test(refused_with_its_name),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("checkpoint_index", tests, NULL, NULL);
}
