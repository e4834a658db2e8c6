/* What fixtures cannot show: refusals by name, limits, long words, streams that do not wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "text/text.h"

#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<unk>\":3,\"\u2581\":4},\"merges\":[\"a b\"]"
#define MODEL "\"model\":{\"type\":\"BPE\"," VOCAB "}"

static struct moe_tokenizer *parse(const char *json)
{
	struct moe_tokenizer *t = NULL;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_tokenizer_parse(json, strlen(json), "test", &t, &e))
		fail_msg("%s", e.msg);
	return t;
}

static void refuses(const char *json, int code, const char *words)
{
	struct moe_tokenizer *t = NULL;
	struct moe_err e = MOE_ERR_INIT;

	assert_int_equal(moe_tokenizer_parse(json, strlen(json), "test", &t, &e), code);
	assert_null(t);
	if (strncmp(e.msg, "test: ", 6) != 0 || !strstr(e.msg, words))
		fail_msg("'%s' does not speak of '%s'", e.msg, words);
}

static struct moe_tokenizer *open_fixture(const char *path)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_tokenizer *t;
	char *json;
	size_t len;

	assert_int_equal(moe_read_file(path, 1u << 24, &json, &len, &e), 0);
	t = parse(json);
	free(json);
	return t;
}

static void what_we_lack_is_refused_by_name(void **state)
{
	(void)state;
	refuses("{\"model\":{\"type\":\"Unigram\"," VOCAB "}}", MOE_E_UNSUPPORTED, "model Unigram");
	refuses("{\"normalizer\":{\"type\":\"Nmt\"}," MODEL "}", MOE_E_UNSUPPORTED, "normalizer Nmt");
	refuses("{\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}," MODEL "}", MOE_E_UNSUPPORTED, "BertPreTokenizer");
	refuses("{\"decoder\":{\"type\":\"CTC\"}," MODEL "}", MOE_E_UNSUPPORTED, "decoder CTC");
	refuses("{\"post_processor\":{\"type\":\"RobertaProcessing\"}," MODEL "}", MOE_E_UNSUPPORTED, "RobertaProcessing");
	refuses("{\"version\":\"2.0\"," MODEL "}", MOE_E_UNSUPPORTED, "version 2.0");
	refuses("{\"model\":{\"dropout\":0.1," VOCAB "}}", MOE_E_UNSUPPORTED, "dropout");
	refuses("{\"model\":{\"end_of_word_suffix\":\"</w>\"," VOCAB "}}", MOE_E_UNSUPPORTED, "end_of_word_suffix");
}

static void refuses_regex(const char *regex, const char *words)
{
	char json[512];

	snprintf(json, sizeof json,
	         "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},\"behavior\":\"Isolated\","
	         "\"invert\":false}," MODEL "}", regex);
	refuses(json, MOE_E_UNSUPPORTED, words);
}

static void regexes_that_differ_are_refused(void **state)
{
	(void)state;
	refuses_regex("[a[bc]]", "a class in a class");
	refuses_regex("[a-z&&b]", "intersected");
	refuses_regex("[^\\\\W_]", "\\W in a class");
	refuses_regex("a(?i)b", "in the middle");
	refuses_regex("(*UTF)a", "(*");
	refuses_regex("\\\\Qa\\\\E", "escape");
	refuses_regex("\\\\p{Nonsense}", "regex");
	refuses_regex("(a", "does not end");
	refuses_regex("a)", "not opened");
	refuses_regex("[a", "does not end");
	refuses_regex("\\\\", "backslash");
	refuses_regex("\\\\xe9", "part of a character");
	refuses_regex("(?~a)", "not known");
}

static void broken_files_are_refused(void **state)
{
	(void)state;
	refuses("[]", MOE_E_INPUT, "not a JSON object");
	refuses("{}", MOE_E_INPUT, "no model");
	refuses("{\"model\":{\"vocab\":[],\"merges\":[]}}", MOE_E_INPUT, "vocab");
	refuses("{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", MOE_E_INPUT, "'a'");
	refuses("{\"model\":{\"vocab\":{\"a\":16777216},\"merges\":[]}}", MOE_E_INPUT, "'a'");
	refuses("{\"model\":{\"vocab\":{\"a\":16777215},\"merges\":[]}}", MOE_E_INPUT, "16777215");
	refuses("{\"model\":{\"vocab\":{\"a\":0.5},\"merges\":[]}}", MOE_E_INPUT, "'a'");
	refuses("{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", MOE_E_INPUT, "same id");
	refuses("{\"model\":{\"vocab\":{\"a\":0},\"merges\":{}}}", MOE_E_INPUT, "merges");
	refuses("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a c\"]}}", MOE_E_INPUT, "'c'");
	refuses("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", MOE_E_INPUT, "'aa'");
	refuses("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", MOE_E_INPUT, "merge 0");
	refuses("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\",\"a\"]]}}", MOE_E_INPUT, "merge 0");
	refuses("{\"added_tokens\":[{\"id\":0}]," MODEL "}", MOE_E_INPUT, "content");
	refuses("{\"added_tokens\":[{\"id\":1,\"content\":\"x\"}],\"model\":{\"vocab\":{\"a\":1},\"merges\":[]}}", MOE_E_INPUT,
	        "would get id 1");
	refuses("{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
	        "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[99]}}}," MODEL "}", MOE_E_INPUT, "'<s>'");
	refuses("{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Glob\":\"*\"},\"content\":\"\"}," MODEL "}", MOE_E_INPUT,
	        "pattern");
	refuses("{\"normalizer\":{\"type\":\"Sequence\"}," MODEL "}", MOE_E_INPUT, "Sequence");
}

static void a_folder_without_one(void **state)
{
	struct moe_tokenizer *t = NULL;
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(moe_tokenizer_open("tests/unit", &t, &e), MOE_E_MISSING);
	assert_null(t);
	assert_non_null(strstr(e.msg, "tests/unit/tokenizer.json"));
}

static void a_folder_with_one(void **state)
{
	struct moe_tokenizer *t = NULL;
	struct moe_err e = MOE_ERR_INIT;
	int bos;

	(void)state;
	assert_int_equal(moe_tokenizer_open("models/kjv-mixtral", &t, &e), 0);
	bos = moe_tokenizer_bos(t);
	assert_int_equal(bos, moe_tokenizer_id(t, "<s>"));
	assert_int_equal(moe_tokenizer_eos(t), moe_tokenizer_id(t, "</s>"));
	assert_true(bos >= 0 && moe_tokenizer_is_special(t, bos));
	assert_false(moe_tokenizer_is_special(t, moe_tokenizer_id(t, "a")));
	assert_false(moe_tokenizer_is_special(t, moe_tokenizer_size(t)));
	assert_false(moe_tokenizer_is_special(t, -1));
	assert_int_equal(moe_tokenizer_id(t, "no such token"), -1);
	moe_tokenizer_free(t);
}

static void texts_that_are_not_utf8(void **state)
{
	static const char *const bad[] = {"\xff", "a\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80"};
	struct moe_tokenizer *t = open_fixture("tests/data/text/gpt2.json");
	struct moe_ids ids = MOE_IDS_INIT;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(moe_encode(t, bad[i], strlen(bad[i]), true, &ids, NULL), MOE_E_INPUT);
	assert_int_equal(ids.n, 0);
	assert_int_equal(moe_encode(t, NULL, 0, true, &ids, NULL), 0);
	assert_int_equal(ids.n, 0);
	moe_ids_free(&ids);
	moe_tokenizer_free(t);
}

static void zero_is_a_character(void **state)
{
	static const char text[] = "a\0b", zero[] = "\xc4\x80"; /* the byte alphabet's name for it */
	struct moe_tokenizer *t = open_fixture("tests/data/text/gpt2.json");
	struct moe_ids ids = MOE_IDS_INIT;
	struct moe_buf out = MOE_BUF_INIT;

	(void)state;
	assert_int_equal(moe_encode(t, text, 3, false, &ids, NULL), 0);
	assert_int_equal(ids.n, 3);
	assert_int_equal(ids.v[1], moe_tokenizer_id(t, zero));
	assert_int_equal(moe_decode(t, ids.v, ids.n, false, &out, NULL), 0);
	assert_int_equal(out.len, 3);
	assert_memory_equal(out.data, text, 3);
	moe_buf_free(&out);
	moe_ids_free(&ids);
	moe_tokenizer_free(t);
}

static void ids_past_the_vocabulary(void **state)
{
	struct moe_tokenizer *t = parse("{" MODEL "}");
	struct moe_buf out = MOE_BUF_INIT;
	struct moe_stream *s = NULL;
	int32_t past[] = {5, -1, INT32_MIN, INT32_MAX};

	(void)state;
	assert_int_equal(moe_tokenizer_size(t), 5);
	assert_int_equal(moe_stream_new(t, &s, NULL), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(moe_decode(t, &past[i], 1, false, &out, NULL), MOE_E_RANGE);
		assert_int_equal(moe_stream_push(s, past[i], &out, NULL), MOE_E_RANGE);
	}
	moe_stream_free(s);
	moe_stream_free(NULL);
	moe_tokenizer_free(t);
	moe_tokenizer_free(NULL);
	moe_buf_free(&out);
}

static void an_unknown_token_that_is_not_there(void **state)
{
	struct moe_tokenizer *t = parse("{\"model\":{\"unk_token\":\"<none>\"," VOCAB "}}");
	struct moe_ids ids = MOE_IDS_INIT;
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(moe_encode(t, "ab", 2, false, &ids, &e), 0);
	assert_int_equal(ids.n, 1);
	assert_int_equal(moe_encode(t, "abc", 3, false, &ids, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "<none>"));
	assert_int_equal(ids.n, 1); /* what was there stays, nothing is added */
	moe_ids_free(&ids);
	moe_tokenizer_free(t);
}

/* A megabyte without a space is one word to a tokenizer that does not split. */
static void a_word_of_a_megabyte(void **state)
{
	struct moe_tokenizer *t = open_fixture("tests/data/text/llama2.json");
	size_t len = 1u << 20;
	char *text = malloc(len + 1);
	struct moe_ids ids = MOE_IDS_INIT;
	struct moe_buf out = MOE_BUF_INIT;

	(void)state;
	for (size_t i = 0; i < len; i++)
		text[i] = "thequickandtheslow"[i % 18];
	text[len] = 0;
	assert_int_equal(moe_encode(t, text, len, false, &ids, NULL), 0);
	assert_int_equal(moe_decode(t, ids.v, ids.n, false, &out, NULL), 0);
	assert_string_equal(out.data, text);
	free(text);
	moe_ids_free(&ids);
	moe_buf_free(&out);
	moe_tokenizer_free(t);
}

/* Half a megabyte of marks in the wrong order, which a sort by exchanging neighbours would not survive; of white space,
 * which regexes try again and again; and of the start of an added token. */
static void texts_made_to_be_slow(void **state)
{
	static const char *const parts[] = {"\u0301\u0316", "  ", "<|", "\u00e9\n", "'"};
	struct moe_tokenizer *t = open_fixture("tests/data/text/qwen.json");

	(void)state;
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		struct moe_ids ids = MOE_IDS_INIT;
		struct moe_buf text = MOE_BUF_INIT;

		for (int k = 0; k < 100000; k++)
			moe_buf_add(&text, parts[i], strlen(parts[i]), NULL);
		assert_int_equal(moe_encode(t, text.data, text.len, false, &ids, NULL), 0);
		moe_ids_free(&ids);
		moe_buf_free(&text);
	}
	moe_tokenizer_free(t);
}

/* The first character, composed with what follows, is longer than it was alone. */
static void forms_one_after_the_other(void **state)
{
	struct moe_tokenizer *t = parse(
		"{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"NFKD\"},{\"type\":\"NFKC\"},"
		"{\"type\":\"NFC\"}]},\"model\":{\"vocab\":{\"a\":0,\"\u00e9\":1,\"b\":2},\"merges\":[]}}");
	struct moe_ids ids = MOE_IDS_INIT;

	(void)state;
	assert_int_equal(moe_encode(t, "e\u0301ab", strlen("e\u0301ab"), false, &ids, NULL), 0);
	assert_int_equal(ids.n, 3);
	assert_int_equal(ids.v[0], 1);
	moe_ids_free(&ids);
	moe_tokenizer_free(t);
}

/* A regex that tries everything is stopped. */
static void a_regex_that_would_not_end(void **state)
{
	struct moe_tokenizer *t = parse("{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a|aa|a)+$\"},"
	                                "\"behavior\":\"Isolated\",\"invert\":false}," MODEL "}");
	struct moe_ids ids = MOE_IDS_INIT;
	struct moe_err e = MOE_ERR_INIT;
	char text[201];

	(void)state;
	memset(text, 'a', 200);
	text[200] = 'b';
	assert_int_equal(moe_encode(t, text, 201, false, &ids, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "too long"));
	moe_ids_free(&ids);
	moe_tokenizer_free(t);
}

static size_t push(struct moe_stream *s, const struct moe_tokenizer *t, const char *token, struct moe_buf *out)
{
	int id = moe_tokenizer_id(t, token);

	assert_true(id >= 0);
	assert_int_equal(moe_stream_push(s, id, out, NULL), 0);
	return out->len;
}

static void streams_give_characters_as_soon_as_they_are_whole(void **state)
{
	struct moe_tokenizer *t = open_fixture("tests/data/text/gpt2.json");
	struct moe_stream *s = NULL;
	struct moe_buf out = MOE_BUF_INIT;

	(void)state;
	assert_int_equal(moe_stream_new(t, &s, NULL), 0);
	assert_int_equal(push(s, t, "a", &out), 1);
	assert_int_equal(push(s, t, "\u00e2", &out), 1); /* E2 82 AC: the euro sign */
	assert_int_equal(push(s, t, "\u0124", &out), 1);
	assert_int_equal(push(s, t, "\u00ac", &out), 4);
	assert_int_equal(push(s, t, "\u00f0", &out), 4); /* F0, then a letter: U+FFFD and the letter */
	assert_int_equal(push(s, t, "b", &out), 8);
	assert_int_equal(push(s, t, "\u00e2", &out), 8); /* the end comes within */
	assert_int_equal(moe_stream_end(s, &out, NULL), 0);
	assert_string_equal(out.data, "a\u20ac\ufffdb\ufffd");
	moe_stream_free(s);
	moe_buf_free(&out);
	moe_tokenizer_free(t);
}

static void streams_hold_bytes_while_they_may_turn_out_wrong(void **state)
{
	struct moe_tokenizer *t = open_fixture("tests/data/text/llama2.json");
	struct moe_stream *s = NULL;
	struct moe_buf out = MOE_BUF_INIT;

	(void)state;
	assert_int_equal(moe_stream_new(t, &s, NULL), 0);
	assert_int_equal(push(s, t, "\u2581", &out), 0); /* the space in front goes */
	assert_int_equal(push(s, t, "a", &out), 1);
	assert_int_equal(push(s, t, "<0xC3>", &out), 1);
	assert_int_equal(push(s, t, "<0xA9>", &out), 1); /* whole, but the run may yet go wrong */
	assert_int_equal(push(s, t, "b", &out), 4);
	assert_int_equal(push(s, t, "<0xC3>", &out), 4);
	assert_int_equal(push(s, t, "<0x41>", &out), 10); /* now it has: one U+FFFD a byte, at once */
	assert_int_equal(push(s, t, "<0x42>", &out), 13);
	assert_int_equal(push(s, t, "<s>", &out), 13);    /* left out, and the run goes on */
	assert_int_equal(push(s, t, "<0x43>", &out), 16);
	assert_int_equal(moe_stream_end(s, &out, NULL), 0);
	assert_string_equal(out.data, "a\u00e9b\ufffd\ufffd\ufffd\ufffd");
	moe_stream_free(s);
	moe_buf_free(&out);
	moe_tokenizer_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_we_lack_is_refused_by_name),
		cmocka_unit_test(regexes_that_differ_are_refused),
		cmocka_unit_test(broken_files_are_refused),
		cmocka_unit_test(a_folder_without_one),
		cmocka_unit_test(a_folder_with_one),
		cmocka_unit_test(texts_that_are_not_utf8),
		cmocka_unit_test(zero_is_a_character),
		cmocka_unit_test(ids_past_the_vocabulary),
		cmocka_unit_test(an_unknown_token_that_is_not_there),
		cmocka_unit_test(a_word_of_a_megabyte),
		cmocka_unit_test(texts_made_to_be_slow),
		cmocka_unit_test(forms_one_after_the_other),
		cmocka_unit_test(a_regex_that_would_not_end),
		cmocka_unit_test(streams_give_characters_as_soon_as_they_are_whole),
		cmocka_unit_test(streams_hold_bytes_while_they_may_turn_out_wrong),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("text_tokenizer", tests, NULL, NULL);
}
