/* Folders in the making: which names are ours, what is swept, what is never touched. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "shard/private.h"

static char dir[] = "/tmp/moe-shard-stage-XXXXXX", out[64];
static long gone; /* a process number that is free */

static char *in_dir(const char *name)
{
	static char buf[4][160];
	static int i;

	snprintf(buf[i = (i + 1) % 4], sizeof buf[0], "%s/%s", dir, name);
	return buf[i];
}

static void touch(const char *folder, const char *name)
{
	char path[320];

	snprintf(path, sizeof path, "%s/%s", folder, name);
	assert_int_equal(moe_write_file(path, "x", 1, NULL), 0);
}

static void names_of_data_files(void **state)
{
	static const char *const yes[] = {"base-0123456789abcdef.safetensors", "experts-0000-0123456789abcdef.safetensors",
	                                  "experts-12345-0123456789abcdef.safetensors"};
	static const char *const no[] = {"base-0123456789abcde.safetensors", "base-0123456789abcdef0.safetensors",
	                                 "base-0123456789abcdef.safetensors.bak", "experts-000-0123456789abcdef.safetensors",
	                                 "experts-0000-0123456789ABCDEF.safetensors", "model.safetensors", "base-.safetensors",
	                                 "", "experts-"};

	(void)state;
	for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
		assert_true(moe_is_data_name(yes[i]));
	for (size_t i = 0; i < sizeof no / sizeof *no; i++)
		assert_false(moe_is_data_name(no[i]));
}

static void names_of_copied_files(void **state)
{
	static const char *const yes[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
	                                  "chat_template.jinja", "chat_template.json"};
	static const char *const no[] = {"README.md", "config.json.bak", "tokenizer.model", "model.safetensors", "..",
	                                 "tokenizer/x.json", "chat_template.json.tmp-12"};

	(void)state;
	for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
		assert_true(moe_is_copied_name(yes[i]));
	for (size_t i = 0; i < sizeof no / sizeof *no; i++)
		assert_false(moe_is_copied_name(no[i]));
}

static void left_overs_have_a_dead_number(void **state)
{
	char name[64];

	(void)state;
	snprintf(name, sizeof name, "x.tmp-%ld", gone);
	assert_true(moe_is_left_over(name));
	snprintf(name, sizeof name, "x.tmp-%ld-3", gone);
	assert_true(moe_is_left_over(name));
	snprintf(name, sizeof name, "x.tmp-%ld", (long)getppid());
	assert_false(moe_is_left_over(name));
	assert_false(moe_is_left_over("x.tmp-"));
	assert_false(moe_is_left_over("x.tmp-12x"));
	assert_false(moe_is_left_over("x"));
	assert_false(moe_is_left_over("x.tmp-99999999999999999999999"));
}

static void a_stage_is_renamed_or_gone(void **state)
{
	struct moe_stage s;
	char path[160];

	(void)state;
	for (int commit = 0; commit < 2; commit++) {
		assert_int_equal(moe_stage_open(out, true, &s, NULL), 0);
		snprintf(path, sizeof path, "%s", s.dir);
		assert_true(moe_is_dir(path));
		touch(path, "manifest.json");
		if (commit)
			assert_int_equal(moe_stage_rename(&s, NULL), 0);
		moe_stage_close(&s);
		assert_false(moe_exists(path));
		assert_int_equal(moe_is_dir(out), commit);
	}
	assert_true(moe_is_shards(out));
	unlink(in_dir("out/manifest.json"));
	rmdir(out);
}

static void what_is_no_shard_set_is_not_replaced(void **state)
{
	struct moe_stage s;
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	mkdir(out, 0755);
	touch(out, "notes");
	assert_int_equal(moe_stage_open(out, true, &s, &e), MOE_E_IO);
	assert_non_null(strstr(e.msg, "not a shard set"));
	unlink(in_dir("out/notes"));
	touch(out, "manifest.json");
	assert_int_equal(moe_stage_open(out, false, &s, &e), MOE_E_IO);
	unlink(in_dir("out/manifest.json"));
	rmdir(out);
	assert_int_equal(symlink("nowhere", out), 0);
	assert_int_equal(moe_stage_open(out, true, &s, &e), MOE_E_IO);
	unlink(out);
	assert_int_equal(moe_stage_open(in_dir("no/such/out"), true, &s, &e), MOE_E_MISSING);
}

static void an_empty_folder_is_replaced(void **state)
{
	struct moe_stage s;

	(void)state;
	for (int may_replace = 0; may_replace < 2; may_replace++) {
		mkdir(out, 0755);
		assert_int_equal(moe_stage_open(out, may_replace, &s, NULL), 0);
		assert_false(s.replaces);
		touch(s.dir, "manifest.json");
		assert_int_equal(moe_stage_rename(&s, NULL), 0);
		moe_stage_close(&s);
		assert_true(moe_is_shards(out));
		unlink(in_dir("out/manifest.json"));
		rmdir(out);
	}
	mkdir(out, 0755); /* what comes into it meanwhile stays */
	assert_int_equal(moe_stage_open(out, true, &s, NULL), 0);
	touch(out, "notes");
	assert_int_equal(moe_stage_rename(&s, NULL), MOE_E_IO);
	moe_stage_close(&s);
	assert_int_equal(unlink(in_dir("out/notes")), 0);
	rmdir(out);
}

static void a_set_has_one_writer(void **state)
{
	struct moe_stage a, b;
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	mkdir(out, 0755);
	touch(out, "manifest.json");
	assert_int_equal(moe_stage_open(out, true, &a, NULL), 0);
	assert_true(a.replaces);
	assert_int_equal(moe_stage_open(out, true, &b, &e), MOE_E_BUSY);
	moe_stage_close(&a);
	assert_int_equal(moe_stage_open(out, true, &b, NULL), 0);
	moe_stage_close(&b);
	unlink(in_dir("out/manifest.json"));
	rmdir(out);
}

static int swept(bool dry_run)
{
	int found = -1;

	assert_int_equal(moe_stage_sweep(out, dry_run, NULL, NULL, &found, NULL), 0);
	return found;
}

static void only_our_left_overs_are_swept(void **state)
{
	char mine[160], foreign[160], other[160], live[160];

	(void)state;
	snprintf(mine, sizeof mine, "%s.tmp-%ld", out, gone);
	snprintf(other, sizeof other, "%s2.tmp-%ld", out, gone);
	snprintf(live, sizeof live, "%s.tmp-%ld", out, (long)getppid());
	snprintf(foreign, sizeof foreign, "%s.tmp-%ld-1", out, gone);
	mkdir(mine, 0755);
	mkdir(other, 0755);
	mkdir(live, 0755);
	mkdir(foreign, 0755);
	touch(mine, "base.part");
	touch(mine, "experts-0000.part");
	touch(mine, "config.json.tmp-5");
	touch(foreign, "thesis.tex");
	assert_int_equal(swept(true), 1);
	assert_true(moe_exists(mine));
	assert_int_equal(swept(false), 1);
	assert_false(moe_exists(mine));
	assert_true(moe_exists(other) && moe_exists(live));
	assert_int_equal(rmdir(other), 0);
	assert_int_equal(rmdir(live), 0);
	strcat(foreign, "/thesis.tex");
	assert_int_equal(unlink(foreign), 0);
	*strrchr(foreign, '/') = 0;
	assert_int_equal(rmdir(foreign), 0);
}

static void a_locked_folder_is_not_swept(void **state)
{
	char mine[160];
	int lock;

	(void)state;
	snprintf(mine, sizeof mine, "%s.tmp-%ld", out, gone);
	mkdir(mine, 0755);
	lock = moe_stage_lock(mine, NULL);
	assert_true(lock >= 0);
	assert_int_equal(swept(false), 0);
	close(lock);
	assert_int_equal(swept(false), 1);
}

static void space_is_told_with_numbers(void **state)
{
	struct moe_stage s;
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(moe_stage_look(out, true, &s, NULL), 0);
	assert_int_equal(moe_stage_space(&s, 1, NULL), 0);
	assert_int_equal(moe_stage_space(&s, (uint64_t)1 << 60, &e), MOE_E_IO);
	assert_non_null(strstr(e.msg, "needed"));
	assert_non_null(strstr(e.msg, "free"));
	moe_stage_close(&s);
}

static int open_all(void **state)
{
	pid_t child = fork();

	(void)state;
	if (child == 0)
		_exit(0);
	if (child < 0 || waitpid(child, NULL, 0) != child || !mkdtemp(dir))
		return -1;
	gone = (long)child;
	snprintf(out, sizeof out, "%s/out", dir);
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_of_data_files),
		cmocka_unit_test(names_of_copied_files),
		cmocka_unit_test(left_overs_have_a_dead_number),
		cmocka_unit_test(a_stage_is_renamed_or_gone),
		cmocka_unit_test(what_is_no_shard_set_is_not_replaced),
		cmocka_unit_test(an_empty_folder_is_replaced),
		cmocka_unit_test(a_set_has_one_writer),
		cmocka_unit_test(only_our_left_overs_are_swept),
		cmocka_unit_test(a_locked_folder_is_not_swept),
		cmocka_unit_test(space_is_told_with_numbers),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_all, close_all);
}
