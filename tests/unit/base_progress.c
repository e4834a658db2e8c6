/* The progress bar, on a terminal of our own. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/opts.h"

#define SECOND 1000000000u

static char seen[4096];

/* What a child writes to its stderr: a terminal, or a pipe. */
static void watch(void (*act)(void), bool terminal)
{
	int ends[2] = {-1, -1};
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	if (terminal) {
		ends[0] = posix_openpt(O_RDWR | O_NOCTTY);
		assert_true(ends[0] >= 0 && grantpt(ends[0]) == 0 && unlockpt(ends[0]) == 0);
		ends[1] = open(ptsname(ends[0]), O_RDWR | O_NOCTTY);
	} else {
		assert_int_equal(pipe(ends), 0);
	}
	assert_true(ends[1] >= 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		dup2(ends[1], STDERR_FILENO);
		act();
		_exit(0);
	}
	close(ends[1]);
	while (len + 1 < sizeof seen && (n = read(ends[0], seen + len, sizeof seen - 1 - len)) > 0)
		len += (size_t)n;
	seen[len] = 0;
	close(ends[0]);
	waitpid(pid, NULL, 0);
}

static void long_work(void)
{
	struct moe_progress p;

	moe_log_name("moe-test");
	moe_progress_start(&p, "writing", 4096);
	p.start -= 2 * (uint64_t)SECOND; /* as if it had begun earlier */
	moe_progress_add(&p, 1024);
	moe_progress_add(&p, 1); /* too soon to draw again */
	moe_log(MOE_WARN, "a word between");
	p.shown = 0;
	moe_progress_add(&p, 3071);
	moe_progress_end(&p);
}

static void short_work(void)
{
	struct moe_progress p;

	moe_progress_start(&p, "writing", 4096);
	moe_progress_add(&p, 4096);
	moe_progress_end(&p);
}

static void quiet_work(void)
{
	moe_common.quiet = true;
	long_work();
}

static void long_work_is_shown(void **state)
{
	(void)state;
	watch(long_work, true);
	assert_non_null(strstr(seen, "writing [####............]  25%  1.0 KiB of 4.0 KiB"));
	assert_non_null(strstr(seen, "\r\033[Kmoe-test: a word between\r\n"));
	assert_non_null(strstr(seen, "100%"));
	assert_string_equal(seen + strlen(seen) - 4, "\r\033[K");
}

static void short_work_is_not(void **state)
{
	(void)state;
	watch(short_work, true);
	assert_string_equal(seen, "");
}

static void quiet_shows_no_bar(void **state)
{
	(void)state;
	watch(quiet_work, true);
	assert_string_equal(seen, "moe-test: a word between\r\n");
}

static void a_pipe_gets_no_bar(void **state)
{
	(void)state;
	watch(long_work, false);
	assert_string_equal(seen, "moe-test: a word between\n");
}

static bool have_terminals(void)
{
	int fd = posix_openpt(O_RDWR | O_NOCTTY), other = -1;

	if (fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0)
		other = open(ptsname(fd), O_RDWR | O_NOCTTY);
	close(fd);
	close(other);
	return other >= 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(long_work_is_shown),
		cmocka_unit_test(short_work_is_not),
		cmocka_unit_test(quiet_shows_no_bar),
		cmocka_unit_test(a_pipe_gets_no_bar),
	};

	if (!have_terminals()) {
		puts("1..0 # SKIP no pseudo-terminals here");
		return 0;
	}
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("base_progress", tests, NULL, NULL);
}
