/* Folders: one file, several with an index, and everything that may not fit together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "checkpoint/checkpoint.h"

static char dir[] = "/tmp/moe-folder-XXXXXX";
static struct moe_checkpoint *whole; /* what is cut into folders */

#define A "model-00001-of-00002.safetensors"
#define B "model-00002-of-00002.safetensors"
#define ONE "model.safetensors"
#define INDEX "model.safetensors.index.json"

static int begin(void **state)
{
	(void)state;
	return mkdtemp(dir) && moe_synth_open("tiny-olmoe", &whole, NULL) == 0 ? 0 : -1;
}

static int end(void **state)
{
	char command[64];

	(void)state;
	moe_checkpoint_close(whole);
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

static const char *at(const char *name)
{
	static char path[128];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	return path;
}

static void put(const char *name, const char *text)
{
	assert_int_equal(moe_write_file(at(name), text, strlen(text), NULL), 0);
}

/* Tensors first, first + step, ... before `last` of the whole as a file. */
static void put_tensors(const char *name, size_t first, size_t last, size_t step)
{
	struct moe_st_entry v[256];
	struct moe_buf b = MOE_BUF_INIT;
	unsigned char *header;
	size_t n = 0, len;

	for (size_t i = first; i < last; i += step) {
		const struct moe_tensor *t = moe_tensors_at(whole->tensors, i);

		v[n] = (struct moe_st_entry){.name = t->name, .dtype = t->dtype, .ndim = t->ndim};
		memcpy(v[n++].shape, t->shape, sizeof t->shape);
	}
	assert_int_equal(moe_st_header_make(v, n, NULL, 8, &header, &len, NULL), 0);
	assert_int_equal(moe_buf_add(&b, header, len, NULL), 0);
	free(header);
	for (size_t i = first; i < last; i += step) {
		const struct moe_tensor *t = moe_tensors_at(whole->tensors, i);

		assert_int_equal(moe_buf_add(&b, t->data, t->bytes, NULL), 0);
	}
	assert_int_equal(moe_write_file(at(name), b.data, b.len, NULL), 0);
	moe_buf_free(&b);
}

/* Tensor i is in A when i is even, else in B; but tensor `odd` is said to be in `elsewhere`, or, if that is NULL, not
 * listed. */
static void put_index(size_t odd, const char *elsewhere, const char *more)
{
	struct moe_buf b = MOE_BUF_INIT;
	const char *comma = "";

	moe_buf_printf(&b, NULL, "{\"weight_map\": {");
	for (size_t i = 0; i < moe_tensors_count(whole->tensors); i++) {
		const char *file = i == odd ? elsewhere : i % 2 ? B : A;

		if (!file)
			continue;
		moe_buf_printf(&b, NULL, "%s\"%s\": \"%s\"", comma, moe_tensors_at(whole->tensors, i)->name, file);
		comma = ", ";
	}
	moe_buf_printf(&b, NULL, "%s}}", more);
	assert_int_equal(moe_write_file(at(INDEX), b.data, b.len, NULL), 0);
	moe_buf_free(&b);
}

static void fresh(void)
{
	const char *const names[] = {A, B, ONE, INDEX, "manifest.json", "generation_config.json"};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		remove(at(names[i]));
	put("config.json", whole->config);
}

static void fresh_split(void)
{
	size_t n = moe_tensors_count(whole->tensors);

	fresh();
	put_tensors(A, 0, n, 2);
	put_tensors(B, 1, n, 2);
	put_index(SIZE_MAX, NULL, "");
}

static void assert_opens(void)
{
	struct moe_checkpoint *c;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_checkpoint_open(dir, &c, &e))
		fail_msg("%s", e.msg);
	assert_int_equal(moe_tensors_count(c->tensors), moe_tensors_count(whole->tensors));
	for (size_t i = 0; i < moe_tensors_count(whole->tensors); i++) {
		const struct moe_tensor *t = moe_tensors_at(whole->tensors, i), *u = moe_tensors_find(c->tensors, t->name);

		assert_memory_equal(t->data, u->data, t->bytes);
	}
	assert_string_equal(c->config, whole->config);
	assert_string_equal(c->path, dir);
	assert_int_equal(moe_tensors_check(c->tensors, &e), 0);
	moe_checkpoint_close(c);
}

static void assert_refused(int code, const char *says)
{
	struct moe_checkpoint *c;
	struct moe_err e = MOE_ERR_INIT;
	int rc = moe_checkpoint_open(dir, &c, &e);

	if (rc != code || !strstr(e.msg, says) || !strstr(e.msg, dir))
		fail_msg("%d \"%s\", wanted %d \"%s\"", rc, e.msg, code, says);
	assert_int_equal(moe_checkpoint_open(dir, &c, NULL), code);
}

static const char *name_of(size_t i)
{
	return moe_tensors_at(whole->tensors, i)->name;
}

static void one_file(void **state)
{
	(void)state;
	fresh();
	assert_false(moe_checkpoint_is(dir));
	assert_refused(MOE_E_MISSING, "neither model.safetensors nor model.safetensors.index.json");
	put_tensors(ONE, 0, moe_tensors_count(whole->tensors), 1);
	assert_true(moe_checkpoint_is(dir));
	assert_opens();
	put("manifest.json", "{}");
	assert_false(moe_checkpoint_is(dir));
	remove(at("config.json"));
	assert_refused(MOE_E_MISSING, "config.json");
	put("config.json", "{");
	assert_refused(MOE_E_INPUT, "config.json");
	put("config.json", "{\"model_type\": \"bert\"}");
	assert_refused(MOE_E_UNSUPPORTED, "config.json: model_type \"bert\"");
}

static void several_files(void **state)
{
	char blob[64], link[64];

	(void)state;
	snprintf(blob, sizeof blob, "%s.blob", dir);
	snprintf(link, sizeof link, "..%s", strrchr(blob, '/'));
	fresh_split();
	assert_true(moe_checkpoint_is(dir));
	assert_opens();
	/* As hubs' caches have it: links to files elsewhere. */
	assert_int_equal(rename(at(B), blob), 0);
	assert_int_equal(symlink(link, at(B)), 0);
	assert_opens();
	unlink(blob);
	assert_refused(MOE_E_MISSING, B);
}

static void files_that_are_none(void **state)
{
	(void)state;
	fresh_split();
	remove(at(B));
	assert_refused(MOE_E_MISSING, B);
	assert_int_equal(mkdir(at(B), 0700), 0);
	assert_refused(MOE_E_IO, B);
	assert_int_equal(rmdir(at(B)), 0);
	assert_int_equal(mkfifo(at(B), 0600), 0);
	assert_refused(MOE_E_IO, B);
	remove(at(B));
	put(B, "no safetensors");
	assert_refused(MOE_E_INPUT, B);
}

static void index_and_files_disagree(void **state)
{
	(void)state;
	fresh_split();
	put_index(4, B, "");
	assert_refused(MOE_E_INPUT, "is said to be in " B ", it is in " A);
	assert_refused(MOE_E_INPUT, name_of(4));
	put_index(4, NULL, "");
	assert_refused(MOE_E_INPUT, "of " A " is not listed");
	assert_refused(MOE_E_INPUT, name_of(4));
	put_index(SIZE_MAX, NULL, ", \"more\": \"" A "\"");
	assert_refused(MOE_E_INPUT, "tensor more is not in " A);
	put_index(4, "../" A, "");
	assert_refused(MOE_E_INPUT, "no plain file name");
	put_index(SIZE_MAX, NULL, "");
	put_tensors(B, 0, 3, 1);
	assert_refused(MOE_E_INPUT, "there are two tensors");
	put_tensors(B, 3, moe_tensors_count(whole->tensors), 2);
	assert_refused(MOE_E_INPUT, "is not in " B);
	put(INDEX, "{}");
	assert_refused(MOE_E_INPUT, "no \"weight_map\"");
}

static void too_short_or_too_long(void **state)
{
	struct stat st;

	(void)state;
	fresh();
	put_tensors(ONE, 0, moe_tensors_count(whole->tensors), 1);
	assert_int_equal(stat(at(ONE), &st), 0);
	for (off_t n = 0; n < st.st_size; n = n * 2 + 1) {
		assert_int_equal(truncate(at(ONE), n), 0);
		assert_refused(MOE_E_INPUT, ONE);
		put_tensors(ONE, 0, moe_tensors_count(whole->tensors), 1);
	}
	assert_int_equal(truncate(at(ONE), st.st_size - 1), 0);
	assert_refused(MOE_E_INPUT, "past the file's end");
	assert_int_equal(truncate(at(ONE), st.st_size + 1), 0);
	assert_refused(MOE_E_INPUT, "bytes after the last tensor");
}

static void generation_config_counts(void **state)
{
	struct moe_model m;
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	fresh();
	assert_int_equal(moe_model_open(dir, &m, &e), 0);
	assert_int_equal(m.n_eos, 1);
	moe_model_free(&m);
	put("generation_config.json", "{\"eos_token_id\": [2, 7]}");
	assert_int_equal(moe_model_open(dir, &m, &e), 0);
	assert_int_equal(m.n_eos, 2);
	assert_int_equal(m.eos[1], 7);
	moe_model_free(&m);
	put("generation_config.json", "{\"eos_token_id\": \"x\"}");
	assert_int_equal(moe_model_open(dir, &m, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "generation_config.json: \"eos_token_id\""));
	assert_int_equal(moe_model_open("/nonexistent", &m, &e), MOE_E_MISSING);
	moe_checkpoint_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_file),
		cmocka_unit_test(several_files),
		cmocka_unit_test(files_that_are_none),
		cmocka_unit_test(index_and_files_disagree),
		cmocka_unit_test(too_short_or_too_long),
		cmocka_unit_test(generation_config_counts),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("checkpoint_folder", tests, begin, end);
}
