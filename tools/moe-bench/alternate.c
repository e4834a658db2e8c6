/* Two programs in turn: what disturbs the machine disturbs both. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "results.h"

extern char **environ;

static int read_all(int fd, struct moe_buf *out, struct moe_err *e)
{
	char block[4096];
	ssize_t n;
	int rc = 0;
	while (!rc && (n = read(fd, block, sizeof block)) != 0) {
		if (n > 0)
			rc = moe_buf_add(out, block, (size_t)n, e);
		else if (errno != EINTR)
			rc = moe_fail_errno(e, "reading results");
	}
	return rc;
}

static int spawn(const char *bin, char **argv, int out, pid_t *pid, struct moe_err *e)
{
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	errno = posix_spawnp(pid, bin, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return errno ? moe_fail_errno(e, "%s", bin) : 0;
}

/* What it prints; an exit status other than 0 is an error. */
static int output_of(const char *bin, char **argv, struct moe_buf *out, struct moe_err *e)
{
	int p[2], status = 0;
	pid_t pid;
	if (pipe2(p, O_CLOEXEC) != 0)
		return moe_fail_errno(e, "a pipe");
	int rc = spawn(bin, argv, p[1], &pid, e);
	close(p[1]);
	if (!rc) {
		rc = read_all(p[0], out, e);
		close(p[0]);
		p[0] = -1;
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		if (!rc && status != 0)
			rc = moe_fail(e, MOE_E_PEER, "%s ended with %s %d", bin, WIFEXITED(status) ? "status" : "signal",
			              WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	}
	if (p[0] >= 0)
		close(p[0]);
	return rc;
}

static int run_once(const char *bin, char **argv, struct bench_results *r, struct moe_err *e)
{
	struct moe_buf b = MOE_BUF_INIT;
	int rc = output_of(bin, argv, &b, e);
	if (!rc && !b.len)
		rc = moe_fail(e, MOE_E_INPUT, "%s printed no rows", bin);
	rc = rc ? rc : bench_results_parse(r, b.data, b.len, bin, e);
	moe_buf_free(&b);
	return rc;
}

int bench_alternate(const char *const bin[2], char **args, int n_args, int rounds, struct bench_results out[2], struct moe_err *e)
{
	static char output[] = "-o", format[] = "jsonl", quiet[] = "-q";
	char **argv = moe_calloc((size_t)n_args + 5, sizeof *argv, "arguments", e);
	int rc = argv ? 0 : MOE_E_NOMEM;
	for (int i = 0; i < n_args && argv; i++)
		argv[i + 1] = args[i];
	for (int i = 0; i < 2 * rounds && !rc; i++) {
		int which = (i + i / 2) % 2; /* old new, new old, old new ...: a slow drift falls on both */
		argv[0] = (char *)(uintptr_t)bin[which];
		argv[n_args + 1] = output;
		argv[n_args + 2] = format;
		argv[n_args + 3] = quiet;
		rc = run_once(bin[which], argv, &out[which], e);
	}
	free(argv);
	return rc;
}
