/* The fixtures of tests/data/text (see make.py there): ids, decodings and streams as the reference has them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "text/text.h"

#define FOLDER "tests/data/text"

static const char *const names[] = {
	"added", "behaviors", "cl100k", "decoders", "deepseek", "falcon", "fused", "gpt2", "kjv", "llama2", "llama3", "meta",
	"metasplit", "o200k", "pieces_cl100k", "pieces_classes", "pieces_deepseek", "pieces_gpt2", "pieces_o200k",
	"pieces_qwen", "prefixed", "qwen", "whitespace",
};

struct fixture {
	const char *name;
	struct moe_tokenizer *t;
	char *lines, *next;
	struct moe_ids before, after;
};

static void read_ids(const struct moe_json *v, struct moe_ids *out)
{
	out->n = out->cap = moe_json_count(v);
	out->v = calloc(out->n + 1, sizeof *out->v);
	for (size_t i = 0; i < out->n; i++) {
		int64_t id;

		assert_true(moe_json_int(moe_json_at(v, i), &id));
		out->v[i] = (int32_t)id;
	}
}

static struct moe_json *next_line(struct fixture *f)
{
	struct moe_json *v = NULL;
	struct moe_err e = MOE_ERR_INIT;
	char *end = strchr(f->next, '\n');

	if (!end)
		return NULL;
	assert_int_equal(moe_json_parse(f->next, (size_t)(end - f->next), f->name, &v, &e), 0);
	f->next = end + 1;
	return v;
}

static void open_fixture(struct fixture *f, const char *name)
{
	char path[256], *json;
	size_t len;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_json *head;

	*f = (struct fixture){.name = name};
	snprintf(path, sizeof path, strcmp(name, "kjv") ? FOLDER "/%s.json" : "models/%s-mixtral/tokenizer.json", name);
	assert_int_equal(moe_read_file(path, 1u << 24, &json, &len, &e), 0);
	if (moe_tokenizer_parse(json, len, name, &f->t, &e))
		fail_msg("%s", e.msg);
	free(json);
	snprintf(path, sizeof path, FOLDER "/%s.jsonl", name);
	assert_int_equal(moe_read_file(path, 1u << 24, &f->lines, &len, &e), 0);
	f->next = f->lines;
	head = next_line(f);
	read_ids(moe_json_get(head, "before"), &f->before);
	read_ids(moe_json_get(head, "after"), &f->after);
	moe_json_free(head);
}

static void close_fixture(struct fixture *f)
{
	moe_tokenizer_free(f->t);
	free(f->lines);
	moe_ids_free(&f->before);
	moe_ids_free(&f->after);
}

static bool same_ids(const struct moe_ids *a, const int32_t *v, size_t n)
{
	return a->n == n && (n == 0 || memcmp(a->v, v, n * sizeof *v) == 0);
}

/* before + ids + after. */
static struct moe_ids around(const struct fixture *f, const struct moe_ids *ids)
{
	struct moe_ids all = {calloc(f->before.n + ids->n + f->after.n + 1, sizeof(int32_t)), 0, 0};
	const struct moe_ids *parts[] = {&f->before, ids, &f->after};

	for (int i = 0; i < 3; i++)
		for (size_t k = 0; k < parts[i]->n; k++)
			all.v[all.n++] = parts[i]->v[k];
	return all;
}

static bool encodes(const struct fixture *f, const char *text, const struct moe_ids *ids, const struct moe_ids *all)
{
	struct moe_ids got = MOE_IDS_INIT;
	struct moe_err e = MOE_ERR_INIT;
	bool same = moe_encode(f->t, text, strlen(text), false, &got, &e) == 0 && same_ids(ids, got.v, got.n);
	size_t n = got.n;

	/* Appended to what is there. */
	same = same && moe_encode(f->t, text, strlen(text), true, &got, &e) == 0 && same_ids(all, got.v + n, got.n - n);
	moe_ids_free(&got);
	return same;
}

static bool decodes(const struct fixture *f, const struct moe_ids *ids, bool skip, const char *want)
{
	struct moe_buf out = MOE_BUF_INIT;
	struct moe_err e = MOE_ERR_INIT;
	bool same = moe_decode(f->t, ids->v, ids->n, skip, &out, &e) == 0 && out.len == strlen(want) &&
	            memcmp(out.data ? out.data : "", want, out.len) == 0;

	moe_buf_free(&out);
	return same;
}

static bool whole_characters(const char *p, size_t n)
{
	struct moe_json *v = NULL;
	struct moe_buf quoted = MOE_BUF_INIT;
	bool ok = true;

	/* A JSON reader refuses what is not UTF-8; only what it would take for itself is left out. */
	moe_buf_add(&quoted, "\"", 1, NULL);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)p[i] >= 0x80)
			moe_buf_add(&quoted, p + i, 1, NULL);
	moe_buf_add(&quoted, "\"", 1, NULL);
	ok = moe_json_parse(quoted.data, quoted.len, "text", &v, NULL) == 0;
	moe_json_free(v);
	moe_buf_free(&quoted);
	return ok;
}

static bool streams(const struct fixture *f, const struct moe_ids *ids, const char *want)
{
	struct moe_stream *s = NULL;
	struct moe_buf out = MOE_BUF_INIT;
	struct moe_err e = MOE_ERR_INIT;
	size_t seen = 0;
	bool same = moe_stream_new(f->t, &s, &e) == 0;

	for (size_t i = 0; i <= ids->n && same; i++) {
		same = (i < ids->n ? moe_stream_push(s, ids->v[i], &out, &e) : moe_stream_end(s, &out, &e)) == 0 &&
		       whole_characters(out.data + seen, out.len - seen);
		seen = out.len;
	}
	same = same && out.len == strlen(want) && memcmp(out.data ? out.data : "", want, out.len) == 0;
	moe_stream_free(s);
	moe_buf_free(&out);
	return same;
}

/* One case; a word for what differs, or NULL. */
static const char *check(const struct fixture *f, const struct moe_json *line)
{
	const char *text = moe_json_str(moe_json_at(line, 0), NULL);
	const char *plain = moe_json_str(moe_json_at(line, 2), text), *skipped = moe_json_str(moe_json_at(line, 3), text);
	struct moe_ids ids, all;
	const char *differs = NULL;

	read_ids(moe_json_at(line, 1), &ids);
	all = around(f, &ids);
	if (text && !encodes(f, text, &ids, &all))
		differs = "ids";
	else if (!decodes(f, &all, false, plain))
		differs = "decode";
	else if (!decodes(f, &all, true, skipped))
		differs = "decode-skip";
	else if (!streams(f, &all, skipped))
		differs = "stream";
	moe_ids_free(&ids);
	moe_ids_free(&all);
	return differs;
}

/* tests/data/text/known.txt: one "NAME LINE WHAT" per known difference.  What differs must be there, and nothing else. */
static void the_reference_agrees(void **state)
{
	struct moe_buf found = MOE_BUF_INIT;
	struct moe_err e = MOE_ERR_INIT;
	size_t len, cases = 0;
	char *known;

	(void)state;
	assert_int_equal(moe_read_file(FOLDER "/known.txt", 1u << 20, &known, &len, &e), 0);
	moe_buf_add(&found, "", 0, &e);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct fixture f;
		struct moe_json *line;

		open_fixture(&f, names[i]);
		for (int number = 2; (line = next_line(&f)); number++, cases++) {
			const char *what = check(&f, line);

			if (what)
				moe_buf_printf(&found, &e, "%s %d %s\n", names[i], number, what);
			moe_json_free(line);
		}
		close_fixture(&f);
	}
	print_message("# %zu cases\n", cases);
	assert_true(cases >= 3000);
	assert_string_equal(found.data, known);
	moe_buf_free(&found);
	free(known);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(the_reference_agrees)};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("text_fixtures", tests, NULL, NULL);
}
