/* Starting up, as a process of its own so that its memory can be told from ours.  The system's cache is left as it is:
 * after the first repetition at the latest the files are in it. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "bench.h"

struct report {
	uint64_t ns;
	int64_t peak_kib;
	struct moe_err err;
};

static int first_token(const struct moe_run_config *config, struct moe_err *e)
{
	struct bench_watch watch = {.tokens = 0};
	struct moe_run_config c = *config;
	int32_t token = 0;
	uint64_t ns;
	c.engine.ctx_event = &watch;
	struct bench_player p = {.watch = &watch, .tokens = &token};
	int rc = moe_run_open(&c, &p.run, e);
	if (rc)
		return rc;
	rc = bench_play(&p, &(struct bench_test){BENCH_TG, 0, 1, 0, 1}, &ns, NULL, e);
	moe_run_close(p.run);
	return rc;
}

/* The child's whole life. */
static void child(const struct moe_run_config *c, int out)
{
	struct report r = {0};
	struct rusage u;
	uint64_t start = moe_now_ns();
	int rc = first_token(c, &r.err);
	r.ns = moe_now_ns() - start;
	r.err.code = rc;
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

int bench_load_once(const struct moe_run_config *c, uint64_t *ns, double *peak_rss, struct moe_err *e)
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
	*ns = r.ns;
	*peak_rss = (double)r.peak_kib * 1024;
	return rc;
}
