/* moe-bench hardware: this machine's roofs as a hardware profile. */
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/mem.h"
#include "bench.h"

#define COUNTS_MAX 32
#define POINT_SHARE 0.1          /* of --seconds, for each point of a kernel's curve */
#define NETWORK_SHARE 0.3

static struct {
	const char *threads, *disk, *name, *quants, *device;
	uint64_t device_memory, link_bandwidth;
	double seconds;
	bool no_kernels, no_network;
} opt = {.threads = "", .seconds = 3, .quants = "f32,bf16,q8,q4"};

static const char *const usage[] = {"moe-bench hardware [OPTION...]", NULL};

static const struct moe_opt options[] = {
	{"threads", 't', MOE_OPT_STR, &opt.threads, "N,...", "numbers of threads (all cores)", 0, 0},
	{"seconds", 0, MOE_OPT_NUM, &opt.seconds, "S", "most time for each number of threads (3)", 0.01, 3600},
	{"disk", 0, MOE_OPT_STR, &opt.disk, "FILE", "read this file's disk too", 0, 0},
	{"quant", 0, MOE_OPT_STR, &opt.quants, "TYPE,...", "time the kernels of these: f32, f16, bf16, q8, q4, q3, q2 (f32,bf16,q8,q4)", 0, 0},
	{"no-kernels", 0, MOE_OPT_FLAG, &opt.no_kernels, NULL, "only the roofs, not the kernels under them", 0, 0},
	{"no-network", 0, MOE_OPT_FLAG, &opt.no_network, NULL, "do not measure the loopback", 0, 0},
	{"device", 0, MOE_OPT_STR, &opt.device, "DEVICE", "measure this too: cuda, cuda:N, or cpu, which imitates one", 0, 0},
	{"device-memory", 0, MOE_OPT_SIZE, &opt.device_memory, "SIZE", "use so much of its memory (all; of cpu: no limit)", 0, 0},
	{"link-bandwidth", 0, MOE_OPT_SIZE, &opt.link_bandwidth, "RATE", "bytes a second to and from cpu as a device (as fast as it goes)", 0, 0},
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

/* The kernels at the most threads that were asked for. */
static int measure_kernels(const struct moe_roofs *roofs, int n, unsigned quants, struct moe_kernels *out, struct moe_err *e)
{
	struct moe_team *team = NULL;
	struct moe_backend *b = NULL;
	int most = 0;
	for (int i = 0; i < n; i++)
		most = roofs[i].threads > most ? roofs[i].threads : most;
	int rc = moe_team_new(most, &team, e);
	rc = rc ? rc : moe_backend_cpu(team, NULL, &b, e);
	rc = rc ? rc : moe_measure_kernels(b, quants, MOE_KV_F16, opt.seconds * POINT_SHARE, out, e);
	if (b)
		b->ops->close(b);
	moe_team_free(team);
	return rc;
}

/* With the most threads that were asked for, where it is the CPU. */
static int measure_device(const int64_t *threads, int n, struct moe_device_rates *out, struct moe_err *e)
{
	struct moe_device_config c = {.device = opt.device, .memory = (size_t)opt.device_memory, .link_bandwidth = (double)opt.link_bandwidth};

	for (int i = 0; i < n; i++)
		c.threads = threads[i] > c.threads ? (int)threads[i] : c.threads;
	return moe_measure_device(&c, opt.seconds, out, e);
}

static int run(const int64_t *threads, int n, unsigned quants, struct moe_err *e)
{
	struct moe_kernels kernels;
	struct moe_device_rates device;
	struct moe_roofs roofs[COUNTS_MAX];
	char host[256] = "";
	struct moe_machine m = {.name = opt.name, .memory = moe_memory_available(), .roofs = roofs, .n_roofs = n};
	int rc = 0;
	if (!m.name)
		m.name = gethostname(host, sizeof host - 1) == 0 ? host : "this";
	if (opt.device) { /* first: one that is not there is told at once */
		rc = measure_device(threads, n, &device, e);
		m.device = &device;
	}
	for (int i = 0; i < n && !rc; i++)
		rc = bench_roofs((int)threads[i], opt.seconds, &roofs[i], e);
	if (!rc && !opt.no_kernels) {
		rc = measure_kernels(roofs, n, quants, &kernels, e);
		m.kernels = &kernels;
	}
	if (!rc && !opt.no_network)
		rc = moe_measure_loopback(opt.seconds * NETWORK_SHARE, &m.loopback, e);
	if (!rc && opt.disk) {
		rc = moe_measure_disk(opt.disk, opt.seconds, &m.disk, e);
		m.disk_bytes = free_bytes(opt.disk);
	}
	return rc ? rc : print(&m, e);
}

/* "bf16,q4" as a set of bits. */
static bool parse_quants(const char *text, unsigned *out)
{
	enum moe_quant q;
	char word[16];
	*out = 0;
	while (*text) {
		size_t n = strcspn(text, ",");
		snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word), text);
		if (!moe_quant_parse(word, &q))
			return false;
		*out |= 1u << q;
		text += n + (text[n] == ',');
	}
	return *out != 0;
}

static int check_device(struct moe_err *e)
{
	if (!opt.device)
		return opt.device_memory || opt.link_bandwidth ? moe_fail(e, MOE_E_RANGE, "--device-memory and --link-bandwidth: of which --device?") : 0;
	if (strcmp(opt.device, "auto") == 0)
		return moe_fail(e, MOE_E_RANGE, "--device auto: a profile says of which one it is");
	if (opt.link_bandwidth && strcmp(opt.device, "cpu") != 0)
		return moe_fail(e, MOE_E_RANGE, "--link-bandwidth: only the link of --device cpu can be slowed down");
	return moe_device_check(opt.device, e);
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
	unsigned quants;
	if (!parse_quants(opt.quants, &quants))
		return moe_usage(&tool, "--quant %s: not a list of f32, f16, bf16, q8, q4, q3 and q2", opt.quants);
	if (opt.name && strlen(opt.name) > 255)
		return moe_usage(&tool, "--name: longer than 255 bytes");

	struct moe_err e = MOE_ERR_INIT;
	if (check_device(&e))
		return moe_usage(&tool, "%s", e.msg);
	rc = run(threads, n, quants, &e);
	return rc ? moe_die(&tool, &e) : moe_close_stdout(&tool);
}
