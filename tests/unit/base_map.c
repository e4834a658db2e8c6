/* Guarded mappings: a file cut short under us is an error that names it, not the end of the process. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"

#define PAGES 8

static char dir[] = "/tmp/moe-base-map-XXXXXX", path[64];
static size_t page;

static int make_dir(void **state)
{
	(void)state;
	page = (size_t)sysconf(_SC_PAGESIZE);
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return rmdir(dir);
}

/* A file of PAGES pages, full of 'x'. */
static int make_file(void **state)
{
	size_t n = PAGES * page;
	char *bytes = malloc(n);
	int fd, rc;

	(void)state;
	snprintf(path, sizeof path, "%s/f", dir);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	if (!bytes || fd < 0)
		return -1;
	memset(bytes, 'x', n);
	rc = write(fd, bytes, n) == (ssize_t)n ? 0 : -1;
	close(fd);
	free(bytes);
	return rc;
}

static int remove_file(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

static struct moe_map *map(void)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_map *m = NULL;

	if (moe_map_open(path, &m, &e))
		fail_msg("%s", e.msg);
	return m;
}

static size_t count_x(const struct moe_map *m)
{
	const volatile unsigned char *p = m->data;
	size_t n = 0;

	for (size_t i = 0; i < m->size; i++)
		n += p[i] == 'x';
	return n;
}

static void whole_file_is_there(void **state)
{
	struct moe_map *m = map();

	(void)state;
	assert_int_equal(m->size, PAGES * page);
	assert_string_equal(m->path, path);
	assert_int_equal(count_x(m), m->size);
	assert_int_equal(moe_map_check(m, NULL), 0);
	moe_map_close(m);
}

static void cut_file_reads_zeros_and_tells(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_map *m = map(), *other = map();

	(void)state;
	assert_int_equal(truncate(path, (off_t)(3 * page)), 0);
	assert_int_equal(moe_map_check(m, NULL), 0);
	assert_int_equal(count_x(m), 3 * page);
	assert_int_equal(moe_map_check(m, &e), MOE_E_IO);
	assert_non_null(strstr(e.msg, path));
	assert_non_null(strstr(e.msg, "cut short"));
	assert_int_equal(moe_map_check(other, NULL), 0); /* it touched nothing yet */
	assert_int_equal(count_x(other), 3 * page);
	assert_int_equal(moe_map_check(other, NULL), MOE_E_IO);
	moe_map_close(m);
	moe_map_close(other);
	m = map(); /* a guard used again forgets */
	assert_int_equal(count_x(m), 3 * page);
	assert_int_equal(moe_map_check(m, NULL), 0);
	moe_map_close(m);
}

static void empty_file_has_no_data(void **state)
{
	struct moe_map *m;

	(void)state;
	assert_int_equal(truncate(path, 0), 0);
	m = map();
	assert_null(m->data);
	assert_int_equal(m->size, 0);
	assert_int_equal(moe_map_check(m, NULL), 0);
	moe_map_close(m);
	moe_map_close(NULL);
}

static void what_is_no_file_is_refused(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_map *m = NULL;

	(void)state;
	assert_int_equal(moe_map_open("/nonexistent/file", &m, &e), MOE_E_MISSING);
	assert_int_equal(moe_map_open(dir, &m, &e), MOE_E_IO);
	assert_non_null(strstr(e.msg, "a folder"));
	assert_int_equal(moe_map_open("/dev/null", &m, &e), MOE_E_IO);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(moe_map_open(path, &m, &e), MOE_E_IO);
	assert_null(m);
}

static atomic_bool stop;

/* Opens and closes other files all the while, so that guards change hands under the handler. */
static void *open_and_close(void *name)
{
	while (!atomic_load(&stop)) {
		struct moe_map *m = NULL;

		if (moe_map_open(name, &m, NULL) == 0)
			moe_map_close(m);
	}
	return NULL;
}

static void *read_all(void *m)
{
	return (void *)(uintptr_t)count_x(m);
}

static void many_threads_meet_the_cut(void **state)
{
	pthread_t busy, readers[4];

	(void)state;
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&busy, NULL, open_and_close, (void *)(uintptr_t)"/proc/self/exe"), 0);
	for (int round = 0; round < 20; round++) {
		struct moe_map *m;

		assert_int_equal(make_file(NULL), 0);
		m = map();
		assert_int_equal(truncate(path, (off_t)page), 0);
		for (int i = 0; i < 4; i++)
			assert_int_equal(pthread_create(&readers[i], NULL, read_all, m), 0);
		for (int i = 0; i < 4; i++) {
			void *seen;

			pthread_join(readers[i], &seen);
			assert_int_equal((size_t)(uintptr_t)seen, page);
		}
		assert_int_equal(moe_map_check(m, NULL), MOE_E_IO);
		moe_map_close(m);
	}
	atomic_store(&stop, true);
	pthread_join(busy, NULL);
}

/* A fault elsewhere, and a signal that was sent, end the process as if we were not there. */
static int child_status(void (*act)(void))
{
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		signal(SIGBUS, SIG_DFL);
		moe_map_close(map()); /* the handler is in place */
		act();
		_exit(0);
	}
	waitpid(pid, &status, 0);
	return status;
}

static void touch_unguarded(void)
{
	int fd = open(path, O_RDWR);
	volatile char *p = mmap(NULL, PAGES * page, PROT_READ, MAP_SHARED, fd, 0);

	if (ftruncate(fd, 0) == 0)
		(void)p[0];
}

static void send_signal(void)
{
	raise(SIGBUS);
}

static void other_faults_are_not_ours(void **state)
{
	int status = child_status(touch_unguarded);

	(void)state;
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	assert_int_equal(make_file(NULL), 0);
	status = child_status(send_signal);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

int main(void)
{
#define WITH_FILE(f) cmocka_unit_test_setup_teardown(f, make_file, remove_file)
	const struct CMUnitTest tests[] = {
		WITH_FILE(whole_file_is_there),
		WITH_FILE(cut_file_reads_zeros_and_tells),
		WITH_FILE(empty_file_has_no_data),
		WITH_FILE(what_is_no_file_is_refused),
		WITH_FILE(many_threads_meet_the_cut),
		WITH_FILE(other_faults_are_not_ours),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("base_map", tests, make_dir, remove_dir);
}
