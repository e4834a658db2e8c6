/* moe-bench hardware: this machine's roofs as a hardware profile. */
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/mem.h"
#include "bench.h"

#define COUNTS_MAX 32

static struct {
	const char *threads, *disk, *name;
	double seconds;
} opt = {.threads = "", .seconds = 3};

static const char *const usage[] = {"moe-bench hardware [OPTION...]", NULL};

static const struct moe_opt options[] = {
	{"threads", 't', MOE_OPT_STR, &opt.threads, "N,...", "numbers of threads (all cores)", 0, 0},
	{"seconds", 0, MOE_OPT_NUM, &opt.seconds, "S", "most time for each number of threads (3)", 0.01, 3600},
	{"disk", 0, MOE_OPT_STR, &opt.disk, "FILE", "read this file's disk too", 0, 0},
	{"name", 0, MOE_OPT_STR, &opt.name, "NAME", "the profile's name (the host's)", 0, 0},
	{0},
};

static const struct moe_tool tool = {"moe-bench hardware", usage, "Measures this machine: a hardware profile for moe-policy.", options};

static uint64_t free_bytes(const char *path)
{
	struct statvfs s;
	return statvfs(path, &s) == 0 ? (uint64_t)s.f_bavail * s.f_frsize : 0;
}

static int print(const struct moe_machine *m, struct moe_err *e)
{
	struct moe_jw w;
	moe_jw_init(&w, true);
	moe_profile_write(&w, m);
	char *text = moe_jw_done(&w, NULL, e);
	if (!text)
		return MOE_E_NOMEM;
	puts(text);
	free(text);
	return 0;
}

static int run(const int64_t *threads, int n, struct moe_err *e)
{
	struct moe_roofs roofs[COUNTS_MAX];
	char host[256] = "";
	struct moe_machine m = {.name = opt.name, .memory = moe_memory_available(), .roofs = roofs, .n_roofs = n};
	int rc = 0;
	if (!m.name)
		m.name = gethostname(host, sizeof host - 1) == 0 ? host : "this";
	for (int i = 0; i < n && !rc; i++)
		rc = bench_roofs((int)threads[i], opt.seconds, &roofs[i], e);
	if (!rc && opt.disk) {
		rc = moe_measure_disk(opt.disk, opt.seconds, &m.disk, e);
		m.disk_bytes = free_bytes(opt.disk);
	}
	return rc ? rc : print(&m, e);
}

int bench_hardware_main(int argc, char **argv)
{
	int64_t threads[COUNTS_MAX] = {0};
	int n = 1, rc = moe_opts_parse(&tool, &argc, argv);
	if (rc >= 0)
		return rc;
	if (argc)
		return moe_usage(&tool, "what is %s?", argv[0]);
	if (*opt.threads)
		n = moe_parse_int_list(opt.threads, 1, 1024, threads, COUNTS_MAX);
	if (n < 1)
		return moe_usage(&tool, "-t %s: not a list of numbers from 1 to 1024", opt.threads);
	if (opt.name && strlen(opt.name) > 255)
		return moe_usage(&tool, "--name: longer than 255 bytes");

	struct moe_err e = MOE_ERR_INIT;
	rc = run(threads, n, &e);
	return rc ? moe_die(&tool, &e) : moe_close_stdout(&tool);
}
