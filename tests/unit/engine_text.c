/* A request's text: stop strings wherever tokens cut them, nothing handed out that might have to be taken back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "engine/engine.h"

static struct moe_tokenizer *tokenizer; /* byte-level, so that any cut of a text has tokens of its own */

static void must(int rc, const struct moe_err *e)
{
	if (rc != 0)
		fail_msg("%s", e->msg);
}

static struct moe_tokenizer *read_tokenizer(const char *path)
{
	struct moe_tokenizer *t;
	struct moe_err e;
	char *json;
	size_t len;

	must(moe_read_file(path, 1 << 24, &json, &len, &e), &e);
	must(moe_tokenizer_parse(json, len, path, &t, &e), &e);
	free(json);
	return t;
}

static int setup(void **state)
{
	(void)state;
	tokenizer = read_tokenizer("tests/data/text/gpt2.json");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	moe_tokenizer_free(tokenizer);
	return 0;
}

/* ---- running a text through ---- */

struct outcome {
	struct moe_buf text;
	int pushed;                  /* tokens until it stopped, or all */
	bool stopped;
};

/* text[0..n) as tokens: as the tokenizer does it, or each piece of `cut` bytes by itself. */
static struct moe_ids tokens_of(const char *text, size_t n, size_t cut)
{
	struct moe_ids ids = MOE_IDS_INIT;
	struct moe_err e;

	for (size_t at = 0; at < n; at += cut) {
		size_t len = n - at < cut ? n - at : cut;

		must(moe_encode(tokenizer, text + at, len, false, &ids, &e), &e);
	}
	return ids;
}

static struct outcome run(const char *text, size_t cut, const char *const *stop, int n_stop)
{
	struct moe_ids ids = tokens_of(text, strlen(text), cut);
	struct outcome o = {MOE_BUF_INIT, 0, false};
	struct moe_text_out *t;
	struct moe_err e;

	must(moe_text_out_new(tokenizer, stop, n_stop, &t, &e), &e);
	for (size_t i = 0; i < ids.n && !o.stopped; i++) {
		must(moe_text_out_push(t, ids.v[i], &o.text, &o.stopped, &e), &e);
		o.pushed++;
	}
	must(moe_text_out_end(t, &o.text, &o.stopped, &e), &e);
	moe_text_out_free(t);
	moe_ids_free(&ids);
	return o;
}

static const char *shown(const struct outcome *o)
{
	return o->text.data ? o->text.data : "";
}

/* The same with tokens of every size; text is ASCII. */
static void check(const char *text, const char *const *stop, int n_stop, const char *want, bool stopped)
{
	for (size_t cut = 1; cut <= strlen(text); cut++) {
		struct outcome o = run(text, cut, stop, n_stop);

		assert_string_equal(shown(&o), want);
		assert_int_equal(o.stopped, stopped);
		moe_buf_free(&o.text);
	}
}

/* ---- tests ---- */

static void no_stop(void **state)
{
	(void)state;
	check("plain words, nothing more", NULL, 0, "plain words, nothing more", false);
}

static void stop_is_cut(void **state)
{
	const char *const stop[] = {"END"};

	(void)state;
	check("some text END and more", stop, 1, "some text ", true);
	check("END", stop, 1, "", true);
	check("some text EN", stop, 1, "some text EN", false);
	check("EENEND.", stop, 1, "EEN", true);
}

static void repeated_beginning(void **state)
{
	const char *const stop[] = {"aab"};

	(void)state;
	check("aaaab", stop, 1, "aa", true);
	check("aaaa", stop, 1, "aaaa", false);
	check("aacaab", stop, 1, "aac", true);
}

static void first_complete_counts(void **state)
{
	const char *const stop[] = {"abcd", "bc"}, *const nested[] = {"d", "bcd", "cd"};

	(void)state;
	check("xabcd", stop, 2, "xa", true);
	check("xabcd", nested, 3, "xa", true); /* all end together: the longest */
}

static void whole_characters(void **state)
{
	const char *const stop[] = {"\xc3\xa9t\xc3\xa9"};
	struct outcome o = run("un \xc3\xa9t\xc3\xa8, un \xc3\xa9t\xc3\xa9 !", 1000, stop, 1);

	(void)state;
	assert_string_equal(shown(&o), "un \xc3\xa9t\xc3\xa8, un ");
	assert_true(o.stopped);
	moe_buf_free(&o.text);
}

/* What is certain is handed out at once; what is not is held. */
static void held_back(void **state)
{
	const char *const stop[] = {"\nUser:"};
	struct moe_buf out = MOE_BUF_INIT;
	struct moe_text_out *t;
	struct moe_err e;
	bool stopped = false;
	struct moe_ids ids = tokens_of("ok\nUs\nUser:x", 12, 1);
	const size_t after[] = {1, 2, 2, 2, 2, 5, 5, 5, 5, 5, 5};

	(void)state;
	assert_int_equal(ids.n, 12);
	must(moe_text_out_new(tokenizer, stop, 1, &t, &e), &e);
	for (size_t i = 0; i < 11; i++) {
		must(moe_text_out_push(t, ids.v[i], &out, &stopped, &e), &e);
		assert_int_equal(out.len, after[i]);
		assert_int_equal(stopped, i == 10);
	}
	must(moe_text_out_push(t, ids.v[11], &out, &stopped, &e), &e); /* nothing comes after the stop */
	assert_true(stopped);
	assert_string_equal(out.data, "ok\nUs");
	moe_buf_free(&out);
	moe_text_out_free(t);
	moe_ids_free(&ids);
}

static void empty_stop_refused(void **state)
{
	const char *const stop[] = {"a", ""};
	struct moe_text_out *t = NULL;
	struct moe_err e;

	(void)state;
	assert_int_equal(moe_text_out_new(tokenizer, stop, 2, &t, &e), MOE_E_INPUT);
	assert_null(t);
}

/* Any ids at all, valid text or not: the pieces make what decoding at once makes. */
static void check_pieces(const struct moe_tokenizer *t, uint32_t x)
{
	uint32_t size = (uint32_t)moe_tokenizer_size(t);
	struct moe_buf pieces = MOE_BUF_INIT, whole = MOE_BUF_INIT;
	struct moe_text_out *o;
	struct moe_err e;
	int32_t ids[40];
	bool stopped;

	must(moe_text_out_new(t, NULL, 0, &o, &e), &e);
	for (int i = 0; i < 40; i++) {
		x = x * 1664525u + 1013904223u;
		ids[i] = (int32_t)((x >> 8) % size);
		must(moe_text_out_push(o, ids[i], &pieces, &stopped, &e), &e);
	}
	must(moe_text_out_end(o, &pieces, &stopped, &e), &e);
	must(moe_decode(t, ids, 40, true, &whole, &e), &e);
	assert_int_equal(pieces.len, whole.len);
	if (whole.len > 0)
		assert_memory_equal(pieces.data, whole.data, whole.len);
	assert_false(stopped);
	moe_text_out_free(o);
	moe_buf_free(&pieces);
	moe_buf_free(&whole);
}

static void pieces_equal_decode(void **state)
{
	struct moe_tokenizer *spaces = read_tokenizer("tests/data/text/llama2.json");

	(void)state;
	for (uint32_t round = 0; round < 200; round++) {
		check_pieces(tokenizer, round);
		check_pieces(spaces, round);
	}
	moe_tokenizer_free(spaces);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_stop),
		cmocka_unit_test(stop_is_cut),
		cmocka_unit_test(repeated_beginning),
		cmocka_unit_test(first_complete_counts),
		cmocka_unit_test(whole_characters),
		cmocka_unit_test(held_back),
		cmocka_unit_test(empty_stop_refused),
		cmocka_unit_test(pieces_equal_decode),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine text", tests, setup, teardown);
}
