/* Starting up, as a process of its own so that its memory can be told from ours. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "bench.h"

struct report {
	uint64_t ready_ns, token_ns;
	int64_t peak_kib;
	struct moe_err err;
};

static int first_token(const struct moe_run_config *config, struct report *r)
{
	struct bench_watch watch = {.tokens = 0};
	struct moe_run_config c = *config;
	int32_t token = 0;
	uint64_t ns, start = moe_now_ns();
	c.engine.ctx_event = &watch;
	struct bench_player p = {.watch = &watch, .tokens = &token};
	int rc = moe_run_open(&c, &p.run, &r->err);
	if (rc)
		return rc;
	r->ready_ns = moe_now_ns() - start;
	rc = bench_play(&p, &(struct bench_test){BENCH_TG, 0, 1, 0, 1}, &ns, NULL, &r->err);
	r->token_ns = moe_now_ns() - start;
	moe_run_close(p.run);
	return rc;
}

/* The child's whole life. */
static void child(const struct moe_run_config *c, int out)
{
	struct report r = {0};
	struct rusage u;
	r.err.code = first_token(c, &r);
	r.peak_kib = getrusage(RUSAGE_SELF, &u) == 0 ? u.ru_maxrss : 0;
	_exit(moe_write_all(out, &r, sizeof r, "report", NULL) != 0);
}

static int collect(int in, pid_t pid, struct report *r, struct moe_err *e)
{
	size_t got = 0;
	int status = 0;
	for (ssize_t n = 1; n > 0 && got < sizeof *r; got += (size_t)(n > 0 ? n : 0))
		n = read(in, (char *)r + got, sizeof *r - got);
	close(in);
	if (waitpid(pid, &status, 0) < 0 || got < sizeof *r)
		return moe_fail(e, MOE_E_PEER, "the process that loads the model ended early (status %d)", status);
	if (r->err.code && e)
		*e = r->err;
	return r->err.code;
}

int bench_load_once(const struct moe_run_config *c, struct bench_start *out, struct moe_err *e)
{
	struct report r;
	int p[2];
	if (pipe(p) != 0)
		return moe_fail_errno(e, "a pipe");
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0) {
		int rc = moe_fail_errno(e, "a process");
		close(p[0]);
		close(p[1]);
		return rc;
	}
	if (pid == 0) {
		close(p[0]);
		child(c, p[1]);
	}
	close(p[1]);
	int rc = collect(p[0], pid, &r, e);
	*out = (struct bench_start){r.ready_ns, r.token_ns, (double)r.peak_kib * 1024};
	return rc;
}

static int evict_file(const char *path, struct moe_err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc;
	if (fd < 0)
		return moe_fail_errno(e, "%s", path);
	fsync(fd); /* pages that are not written back cannot go */
	rc = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	return rc ? moe_fail(e, MOE_E_IO, "%s: cannot be evicted: %s", path, strerror(rc)) : 0;
}

static bool is_data(const char *name)
{
	static const char end[] = ".safetensors";
	size_t n = strlen(name);
	return n > strlen(end) && strcmp(name + n - strlen(end), end) == 0;
}

int bench_evict(const char *dir, struct moe_err *e)
{
	DIR *d = opendir(dir);
	int rc = d ? 0 : moe_fail_errno(e, "%s", dir);
	for (struct dirent *entry; !rc && (entry = readdir(d));) {
		char *path = is_data(entry->d_name) ? moe_path_join(dir, entry->d_name, e) : NULL;
		if (is_data(entry->d_name))
			rc = path ? evict_file(path, e) : MOE_E_NOMEM;
		free(path);
	}
	if (d)
		closedir(d);
	return rc;
}
