/* Traces: what is written is read again, line by line; what is not a trace of this model is refused where it goes wrong. */
#include "plan_rig.h"

#include <unistd.h>

#define LINES 3000

static char path[] = "/tmp/moe-trace.XXXXXX";

static struct moe_model model(void)
{
	struct moe_model m = rig_model(3, 8, 1);

	for (int l = 0; l < 3; l++)
		rig_layers[l].ffn.gate.top_k = l == 1 ? 0 : 2;
	return m;
}

static int make_path(void **state)
{
	(void)state;
	close(mkstemp(path));
	return 0;
}

static int remove_path(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

static struct moe_trace_line line_of(int i, int32_t ids[2])
{
	ids[0] = i % 7;
	ids[1] = 7;
	return (struct moe_trace_line){.request = (uint64_t)i / 10 + 1, .position = i % 10, .layer = i % 2 * 2,
	                               .prefill = i % 10 < 6, .n = 2, .ids = ids};
}

/* More than what is written in one piece. */
static void written_and_read(void **state)
{
	struct moe_model m = model();
	struct moe_trace_writer *w;
	struct moe_trace *t;
	struct moe_trace_line got, want;
	int32_t ids[2];
	bool more;

	(void)state;
	assert_int_equal(moe_trace_create(path, &m, "abc", &w, NULL), 0);
	for (int i = 0; i < LINES; i++) {
		want = line_of(i, ids);
		assert_int_equal(moe_trace_put(w, &want, NULL), 0);
	}
	assert_int_equal(moe_trace_commit(w, NULL), 0);
	assert_int_equal(moe_trace_open(path, &m, &t, NULL), 0);
	assert_true(moe_trace_header(t)->layers == 3 && moe_trace_header(t)->experts == 8 && moe_trace_header(t)->top_k == 2);
	assert_string_equal(moe_trace_header(t)->fingerprint, "abc");
	for (int i = 0; i < LINES; i++) {
		assert_int_equal(moe_trace_next(t, &got, &more, NULL), 0);
		assert_true(more);
		want = line_of(i, ids);
		assert_true(got.request == want.request && got.position == want.position && got.layer == want.layer);
		assert_true(got.prefill == want.prefill && got.n == 2 && got.ids[0] == ids[0] && got.ids[1] == ids[1]);
	}
	assert_int_equal(moe_trace_next(t, &got, &more, NULL), 0);
	assert_false(more);
	moe_trace_close(t);
}

static void dropped_is_gone(void **state)
{
	struct moe_model m = model();
	struct moe_trace_writer *w;
	char missing[] = "/tmp/moe-trace-none.XXXXXX";

	(void)state;
	close(mkstemp(missing));
	unlink(missing);
	assert_int_equal(moe_trace_create(missing, &m, "abc", &w, NULL), 0);
	moe_trace_drop(w);
	assert_int_not_equal(access(missing, F_OK), 0);
}

/* The code of reading all of a text, the words in e. */
static int read_all(const char *text, const struct moe_model *m, struct moe_err *e)
{
	struct moe_trace *t;
	struct moe_trace_line l;
	bool more = true;
	FILE *f = fopen(path, "w");
	int rc;

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	rc = moe_trace_open(path, m, &t, e);
	if (rc)
		return rc;
	while (more && rc == 0)
		rc = moe_trace_next(t, &l, &more, e);
	moe_trace_close(t);
	return rc;
}

#define HEADER(model, layers, experts, top_k) \
	"{\"schema\":1,\"format\":\"moe-trace\",\"model\":\"" model "\",\"fingerprint\":\"\",\"layers\":" #layers \
	",\"experts\":" #experts ",\"top_k\":" #top_k "}\n"
#define HEAD HEADER("mixtral", 3, 8, 2)

static const struct {
	const char *text, *words;
	bool anywhere; /* also without a model */
} bad[] = {
	{"", "without a header", true},
	{"{}\n", "schema", true},
	{"{\"schema\":1,\"format\":\"moe-usage\"}\n", "not moe-trace", true},
	{"{\"schema\":2,\"format\":\"moe-trace\"}\n", "newer", true},
	{HEADER("mixtral", 3, 2, 8), "8 of 2 experts", true},
	{HEADER("mixtral", 0, 8, 2), "layers", true},
	{HEADER("mixtral", 3, 99999999, 2), "experts", true},
	{HEADER("olmoe", 3, 8, 2), "of model type olmoe, not mixtral", false},
	{HEADER("mixtral", 4, 8, 2), "4 layers, the model has 3", false},
	{HEADER("mixtral", 3, 9, 2), "2 of 9 experts a token, the model has 2 of 8", false},
	{HEAD "{}\n", "line 2: ", true},
	{HEAD "\n", "line 2: ", true},
	{HEAD "{\"r\":1,\"p\":0,\"l\":0,\"d\":0,\"x\":[1,2]}", "line 2: cut short", true},
	{HEAD "{\"r\":0,\"p\":0,\"l\":0,\"d\":0,\"x\":[1,2]}\n", "\"r\"", true},
	{HEAD "{\"r\":1,\"p\":-1,\"l\":0,\"d\":0,\"x\":[1,2]}\n", "\"p\"", true},
	{HEAD "{\"r\":1,\"p\":0,\"l\":3,\"d\":0,\"x\":[1,2]}\n", "\"l\"", true},
	{HEAD "{\"r\":1,\"p\":0,\"l\":0,\"d\":2,\"x\":[1,2]}\n", "\"d\"", true},
	{HEAD "{\"r\":1,\"p\":0,\"l\":1,\"d\":0,\"x\":[1,2]}\n", "layer 1 has no experts", false},
	{HEAD "{\"r\":1,\"p\":0,\"l\":0,\"d\":0,\"x\":[]}\n", "1 to 2 experts", true},
	{HEAD "{\"r\":1,\"p\":0,\"l\":0,\"d\":0,\"x\":[1,2,3]}\n", "1 to 2 experts", true},
	{HEAD "{\"r\":1,\"p\":0,\"l\":0,\"d\":0,\"x\":[2,1]}\n", "ascending", true},
	{HEAD "{\"r\":1,\"p\":0,\"l\":0,\"d\":0,\"x\":[1,8]}\n", "ascending numbers below 8", true},
	{HEAD "{\"r\":1,\"p\":0,\"l\":0,\"d\":0,\"x\":[1,2]}\n{\"r\":1,\"p\":0,\"l\":2}\n", "line 3: ", true},
};

static void others_are_refused(void **state)
{
	struct moe_model m = model();

	(void)state;
	for (size_t i = 0; i < 2 * sizeof bad / sizeof *bad; i++) {
		struct moe_err e = MOE_ERR_INIT;
		bool with = i % 2 == 0;
		int rc = read_all(bad[i / 2].text, with ? &m : NULL, &e);

		if (!with && !bad[i / 2].anywhere) {
			assert_int_equal(rc, 0);
			continue;
		}
		assert_int_not_equal(rc, 0);
		if (!strstr(e.msg, bad[i / 2].words) || strncmp(e.msg, path, strlen(path)) != 0)
			fail_msg("%s: %s", bad[i / 2].text, e.msg);
	}
}

static void a_line_has_an_end(void **state)
{
	struct moe_model m = model();
	struct moe_err e = MOE_ERR_INIT;
	size_t n = 200000;
	char *text = malloc(n + 1);

	(void)state;
	assert_non_null(text);
	memset(text, ' ', n);
	text[n] = 0;
	memcpy(text, HEAD, strlen(HEAD));
	assert_int_equal(read_all(text, &m, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "line 2: longer"));
	free(text);
}

static void unknown_names_are_ignored(void **state)
{
	struct moe_model m = model();

	(void)state;
	assert_int_equal(read_all(HEAD "{\"x\":[0], \"d\":1, \"w\":[1.0], \"l\":2, \"p\":5, \"r\":7}\n", &m, NULL), 0);
	assert_int_equal(read_all(HEAD, &m, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_and_read),
		cmocka_unit_test(dropped_is_gone),
		cmocka_unit_test(others_are_refused),
		cmocka_unit_test(a_line_has_an_end),
		cmocka_unit_test(unknown_names_are_ignored),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("plan trace", tests, make_path, remove_path);
}
