/* Usage: what is counted, written and read; whose usage is refused and how. */
#include "plan_rig.h"

#include <unistd.h>

#define TOKENS 1000

static void counts_add_up(void **state)
{
	struct moe_model m = rig_model(3, 4, 1);
	struct moe_usage u;
	const int32_t a[] = {0, 3}, b[] = {3};
	const float wa[] = {0.25f, 0.75f}, wb[] = {0.5f};

	(void)state;
	assert_int_equal(moe_usage_new(&m, "abc", &u, NULL), 0);
	moe_usage_add(&u, 0, true, a, wa, 2);
	moe_usage_add(&u, 0, false, a, wa, 2);
	moe_usage_add(&u, 0, false, b, wb, 1);
	moe_usage_add(&u, 2, true, b, wb, 1);
	assert_true(u.layers == 3 && u.experts[0] == 4 && u.experts[1] == 0);
	assert_true(u.prefill[0][0] == 1 && u.prefill[0][3] == 1 && u.decode[0][3] == 2 && u.decode[0][1] == 0);
	assert_true(u.mass[0][0] == 0.5 && u.mass[0][3] == 2.0 && u.mass[2][3] == 0.5);
	moe_usage_free(&u);
}

/* Weights whose sum in double would depend on the order. */
static void order_does_not_matter(void **state)
{
	struct moe_model m = rig_model(1, 1, -1);
	struct moe_usage forth, back;
	const int32_t id[] = {0};
	float w[TOKENS];

	(void)state;
	for (int i = 0; i < TOKENS; i++)
		w[i] = i % 3 ? 1.0f / (float)(i * i + 1) : 1e-20f * (float)i;
	assert_int_equal(moe_usage_new(&m, "", &forth, NULL), 0);
	assert_int_equal(moe_usage_new(&m, "", &back, NULL), 0);
	for (int i = 0; i < TOKENS; i++) {
		moe_usage_add(&forth, 0, true, id, &w[i], 1);
		moe_usage_add(&back, 0, true, id, &w[TOKENS - 1 - i], 1);
	}
	assert_true(forth.mass[0][0] == back.mass[0][0]);
	assert_true(forth.mass[0][0] > 0.4 && forth.prefill[0][0] == TOKENS);
	moe_usage_free(&forth);
	moe_usage_free(&back);
}

static void written_and_read(void **state)
{
	struct moe_model m = rig_model(2, 3, 0);
	struct moe_usage u, v;
	const int32_t ids[] = {0, 2};
	const float w[] = {0.1f, 0.9f};
	char path[] = "/tmp/moe-usage.XXXXXX";

	(void)state;
	close(mkstemp(path));
	assert_int_equal(moe_usage_new(&m, "0123456789abcdef0123456789abcdef", &u, NULL), 0);
	moe_usage_add(&u, 1, true, ids, w, 2);
	moe_usage_add(&u, 1, false, ids, w, 2);
	assert_int_equal(moe_usage_write(&u, path, NULL), 0);
	assert_int_equal(moe_usage_read(path, &m, &v, NULL), 0);
	assert_true(v.layers == 2 && v.experts[0] == 0 && v.experts[1] == 3);
	assert_string_equal(v.model, "mixtral");
	assert_string_equal(v.fingerprint, u.fingerprint);
	for (int x = 0; x < 3; x++)
		assert_true(v.prefill[1][x] == u.prefill[1][x] && v.decode[1][x] == u.decode[1][x] && v.mass[1][x] == u.mass[1][x]);
	moe_usage_free(&u);
	moe_usage_free(&v);
	unlink(path);
}

#define HEAD "\"schema\": 1, \"format\": \"moe-usage\", \"model\": \"mixtral\", "
#define ROWS "[[1, 2], [3, 4]]"

static void others_are_refused(void **state)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{"[]", "schema"},
		{"{\"format\": \"moe-usage\"}", "schema"},
		{"{\"schema\": 2, \"format\": \"moe-usage\"}", "newer"},
		{"{\"schema\": 1, \"format\": \"moe-trace\"}", "moe-trace, not moe-usage"},
		{"{\"schema\": 1, \"format\": \"moe-usage\", \"model\": \"olmoe\"}", "of model type olmoe, not mixtral"},
		{"{" HEAD "\"prefill\": " ROWS "}", "decode"},
		{"{" HEAD "\"prefill\": [[1, 2]]}", "1 layers, the model has 2"},
		{"{" HEAD "\"prefill\": [[1, 2], [1, 2, 3]]}", "layer 1: 3 experts, the model has 2"},
		{"{" HEAD "\"prefill\": [[1, 2], 3]}", "layer 1: a list is expected, not number"},
		{"{" HEAD "\"prefill\": [[1, 2], [1, -1]]}", "layer 1, expert 1: not a whole number"},
		{"{" HEAD "\"prefill\": [[1, 2], [1.5, 1]]}", "layer 1, expert 0: not a whole number"},
		{"{" HEAD "\"prefill\": [[1, 2], [\"1\", 1]]}", "layer 1, expert 0: not a whole number"},
		{"{" HEAD "\"prefill\": [[1, 2], [1e300, 1]]}", "layer 1, expert 0: not a whole number"},
		{"{" HEAD "\"prefill\": " ROWS ", \"decode\": " ROWS ", \"mass\": [[1, 2], [0.5, null]]}", "mass: layer 1, expert 1: not a number"},
	};
	struct moe_model m = rig_model(2, 2, -1);

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct moe_err e = MOE_ERR_INIT;
		struct moe_usage u;
		struct moe_json *j;

		assert_int_equal(moe_json_parse(bad[i].text, strlen(bad[i].text), "test", &j, NULL), 0);
		assert_int_not_equal(moe_usage_from_json(j, "u.json", &m, &u, &e), 0);
		assert_non_null(strstr(e.msg, "u.json: "));
		if (!strstr(e.msg, bad[i].words))
			fail_msg("%s: %s", bad[i].text, e.msg);
		moe_json_free(j);
	}
}

static void unknown_names_are_ignored(void **state)
{
	static const char text[] = "{" HEAD "\"prefill\": " ROWS ", \"note\": {\"x\": 1}, \"decode\": " ROWS ", \"mass\": [[0.5, 1], [2, 3]]}";
	struct moe_model m = rig_model(2, 2, -1);
	struct moe_usage u;
	struct moe_json *j;

	(void)state;
	assert_int_equal(moe_json_parse(text, strlen(text), "test", &j, NULL), 0);
	assert_int_equal(moe_usage_from_json(j, "u.json", &m, &u, NULL), 0);
	assert_true(u.prefill[1][0] == 3 && u.decode[0][1] == 2 && u.mass[0][0] == 0.5);
	assert_string_equal(u.fingerprint, "");
	moe_usage_free(&u);
	moe_json_free(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_add_up),
		cmocka_unit_test(order_does_not_matter),
		cmocka_unit_test(written_and_read),
		cmocka_unit_test(others_are_refused),
		cmocka_unit_test(unknown_names_are_ignored),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("plan usage", tests, NULL, NULL);
}
