/* Whole files, names, the private folder. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"

static char dir[] = "/tmp/moe-base-file-XXXXXX", path[64];

static int make_dir(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/f", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

static int entries(void)
{
	DIR *d = opendir(dir);
	int n = 0;

	assert_non_null(d);
	for (struct dirent *entry; (entry = readdir(d));)
		n += entry->d_name[0] != '.';
	closedir(d);
	return n;
}

static void assert_content(const char *want)
{
	char *data = NULL;
	size_t len = 0;

	assert_int_equal(moe_read_file(path, 1000, &data, &len, NULL), 0);
	assert_string_equal(data, want);
	assert_int_equal(len, strlen(want));
	free(data);
}

static void written_is_read(void **state)
{
	(void)state;
	assert_int_equal(moe_write_file(path, "one", 3, NULL), 0);
	assert_content("one");
	assert_int_equal(moe_write_file(path, "", 0, NULL), 0);
	assert_content("");
	assert_int_equal(entries(), 1);
	unlink(path);
}

static void reading_stops_at_the_cap(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	char *data = NULL;
	size_t len;

	(void)state;
	assert_int_equal(moe_write_file(path, "12345", 5, NULL), 0);
	assert_int_equal(moe_read_file(path, 5, &data, &len, &e), 0);
	free(data);
	data = NULL;
	assert_int_equal(moe_read_file(path, 4, &data, &len, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "larger than the 4 bytes"));
	assert_int_equal(moe_read_file("/dev/zero", 200000, &data, &len, &e), MOE_E_INPUT);
	assert_int_equal(moe_read_file(dir, 100, &data, &len, &e), MOE_E_IO);
	assert_int_equal(moe_read_file("/nonexistent", 100, &data, &len, &e), MOE_E_MISSING);
	assert_int_equal(moe_read_regular(path, 5, &data, &len, &e), 0);
	free(data);
	data = NULL;
	assert_int_equal(moe_read_regular("/dev/zero", 100, &data, &len, &e), MOE_E_IO);
	assert_int_equal(moe_read_regular(dir, 100, &data, &len, &e), MOE_E_IO);
	assert_int_equal(moe_read_regular("/nonexistent", 100, &data, &len, &e), MOE_E_MISSING);
	assert_null(data);
	unlink(path);
}

static void files_without_a_size_are_read(void **state)
{
	char *data = NULL;
	size_t len = 0;

	(void)state;
	assert_int_equal(moe_read_file("/proc/self/status", SIZE_MAX, &data, &len, NULL), 0);
	assert_true(len > 100 && strlen(data) == len);
	free(data);
}

static void growing_read_keeps_all(void **state)
{
	size_t n = 300000, len = 0;
	char *bytes = malloc(n), *data = NULL;
	int fds[2];
	pid_t pid;
	char name[32];

	(void)state;
	for (size_t i = 0; i < n; i++)
		bytes[i] = (char)('a' + i % 23);
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0)
		_exit(moe_write_all(fds[1], bytes, n, "pipe", NULL));
	close(fds[1]);
	snprintf(name, sizeof name, "/proc/self/fd/%d", fds[0]);
	assert_int_equal(moe_read_file(name, n, &data, &len, NULL), 0);
	assert_int_equal(len, n);
	assert_memory_equal(data, bytes, n);
	waitpid(pid, NULL, 0);
	close(fds[0]);
	free(data);
	free(bytes);
}

/* A full disk, made of a file size limit: the old file stays, no other is left. */
static void failed_write_leaves_the_old_file(void **state)
{
	static char big[8192];
	int status = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(moe_write_file(path, "old", 3, NULL), 0);
	pid = fork();
	if (pid == 0) {
		struct rlimit r = {4096, 4096};

		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &r);
		_exit(moe_write_file(path, big, sizeof big, NULL) == MOE_E_IO ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	assert_content("old");
	assert_int_equal(entries(), 1);
	unlink(path);
}

static void no_folder_no_file(void **state)
{
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(moe_write_file("/nonexistent/f", "x", 1, &e), MOE_E_MISSING);
	assert_string_equal(e.msg, "/nonexistent/f: No such file or directory");
	assert_int_equal(moe_write_file(dir, "x", 1, &e), MOE_E_IO);
	assert_int_equal(entries(), 0);
	assert_int_equal(moe_fsync_dir(dir, NULL), 0);
	assert_int_equal(moe_fsync_dir("/nonexistent", NULL), MOE_E_MISSING);
}

static void temporary_name_may_be_taken(void **state)
{
	char temp[128];
	int fd;

	(void)state;
	snprintf(temp, sizeof temp, "%s.tmp-%ld", path, (long)getpid());
	fd = open(temp, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(moe_write_file(path, "new", 3, NULL), 0);
	assert_content("new");
	unlink(temp);
	unlink(path);
	assert_int_equal(entries(), 0);
}

static void devices_are_written_not_replaced(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(moe_write_file("/dev/null", "x", 1, NULL), 0);
	assert_int_equal(stat("/dev/null", &st), 0);
	assert_true(S_ISCHR(st.st_mode));
	assert_int_equal(moe_write_file("/dev/full", "x", 1, NULL), MOE_E_IO);
}

/* A regular file too, when it is open already: another one in its place would not be the one that is open. */
static void what_is_open_is_written_not_replaced(void **state)
{
	char name[32];
	int fd = open(path, O_CREAT | O_RDWR, 0600);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "a", 1), 1);
	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof name, i ? "/dev/fd/%d" : "/proc/self/fd/%d", fd);
		assert_int_equal(moe_write_file(name, "bc", 2, NULL), 0);
	}
	assert_int_equal(write(fd, "d", 1), 1);
	close(fd);
	assert_content("abcbcd");
	assert_int_equal(moe_write_file("/dev/fd/9999", "x", 1, NULL), MOE_E_IO);
	unlink(path);
}

static void draft_is_unseen_until_it_is_whole(void **state)
{
	struct moe_draft *d;

	(void)state;
	assert_int_equal(moe_write_file(path, "old", 3, NULL), 0);
	assert_int_equal(moe_draft_open(path, &d, NULL), 0);
	assert_int_equal(moe_draft_add(d, "ne", 2, NULL), 0);
	assert_content("old");
	assert_int_equal(moe_draft_add(d, "w", 1, NULL), 0);
	assert_int_equal(moe_draft_commit(d, NULL), 0);
	assert_content("new");
	assert_int_equal(moe_draft_open(path, &d, NULL), 0);
	assert_int_equal(moe_draft_add(d, "newer", 5, NULL), 0);
	moe_draft_drop(d);
	assert_content("new");
	unlink(path);
	assert_int_equal(entries(), 0);
}

static void names(void **state)
{
	static const char *const plain[] = {"a", "a.b", "...", ".hidden", "model 1.safetensors", "\xc3\xa9"};
	static const char *const not_plain[] = {"", ".", "..", "a/b", "/a", "a\n", "\x7f"};
	static const char *const joins[][3] = {{"d", "n", "d/n"}, {"d/", "n", "d/n"}, {"", "n", "n"}, {"/", "n", "/n"}};

	(void)state;
	for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
		assert_true(moe_path_is_plain(plain[i]));
	for (size_t i = 0; i < sizeof not_plain / sizeof *not_plain; i++)
		assert_false(moe_path_is_plain(not_plain[i]));
	assert_false(moe_path_is_plain(NULL));
	for (size_t i = 0; i < sizeof joins / sizeof *joins; i++) {
		char *p = moe_path_join(joins[i][0], joins[i][1], NULL);

		assert_string_equal(p, joins[i][2]);
		free(p);
	}
	assert_true(moe_is_dir(dir) && moe_exists(dir));
	assert_false(moe_is_dir(path) || moe_exists(path));
}

static void assert_runtime_dir(const char *want)
{
	struct moe_err e = MOE_ERR_INIT;
	struct stat st;
	char *p = moe_runtime_dir(&e);

	if (!p)
		fail_msg("%s", e.msg);
	assert_string_equal(p, want);
	assert_int_equal(lstat(p, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	free(p);
}

static void runtime_dir_is_private(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	char want[128];

	(void)state;
	setenv("XDG_RUNTIME_DIR", dir, 1);
	snprintf(want, sizeof want, "%s/moe", dir);
	assert_runtime_dir(want);
	assert_runtime_dir(want); /* there already */
	assert_int_equal(chmod(want, 0750), 0);
	assert_null(moe_runtime_dir(&e));
	assert_non_null(strstr(e.msg, "others may enter"));
	rmdir(want);
	assert_int_equal(symlink("/", want), 0);
	assert_null(moe_runtime_dir(&e));
	assert_non_null(strstr(e.msg, "not a folder"));
	unlink(want);
	setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
	setenv("TMPDIR", dir, 1);
	snprintf(want, sizeof want, "%s/moe-%lu", dir, (unsigned long)geteuid());
	assert_runtime_dir(want);
	rmdir(want);
	unsetenv("XDG_RUNTIME_DIR");
	unsetenv("TMPDIR");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_is_read),
		cmocka_unit_test(reading_stops_at_the_cap),
		cmocka_unit_test(files_without_a_size_are_read),
		cmocka_unit_test(growing_read_keeps_all),
		cmocka_unit_test(failed_write_leaves_the_old_file),
		cmocka_unit_test(no_folder_no_file),
		cmocka_unit_test(temporary_name_may_be_taken),
		cmocka_unit_test(devices_are_written_not_replaced),
		cmocka_unit_test(what_is_open_is_written_not_replaced),
		cmocka_unit_test(draft_is_unseen_until_it_is_whole),
		cmocka_unit_test(names),
		cmocka_unit_test(runtime_dir_is_private),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("base_file", tests, make_dir, remove_dir);
}
