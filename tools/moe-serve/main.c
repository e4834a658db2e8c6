/* moe-serve: hold the experts of one device, or of each device of this host, and compute them for others. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/opts.h"
#include "http/http.h"
#include "serve.h"

static struct options opt = {.numa = "auto", .weights = "read", .max_rows = 1024, .busy_poll = MOE_BUSY_POLL};

static const struct moe_opt table[] = {
	{"rank", 0, MOE_OPT_STR, &opt.rank, "N|env", "serve this device only; env: as $MOE_RANK, Slurm, MPI or LWS says", 0, 0},
	{"ranks", 0, MOE_OPT_STR, &opt.ranks, "A-B", "serve these devices, a process each (all of them)", 0, 0},
	{"spare", 0, MOE_OPT_FLAG, &opt.spare, NULL, "stand by: load what other servers held when they are gone", 0, 0},
	{"restart", 0, MOE_OPT_FLAG, &opt.restart, NULL, "start a server of several again when it dies", 0, 0},
	{"bind", 0, MOE_OPT_STR, &opt.bind, "ENDPOINT", "ipc:///path or tcp://host:port (consecutive ports; env: as Slurm says)", 0, 0},
	{"advertise", 0, MOE_OPT_STR, &opt.advertise, "HOST", "the name that others reach this host by", 0, 0},
	{"ready-file", 0, MOE_OPT_STR, &opt.ready_file, "FILE", "appears when all are ready: endpoints for moe-route --hosts", 0, 0},
	{"server-key", 0, MOE_OPT_STR, &opt.server_key, "FILE", "our secret key, for clients with keys (moe-serve keygen FILE)", 0, 0},
	{"authorized-keys", 0, MOE_OPT_STR, &opt.authorized_keys, "FILE", "public keys of the clients that may connect, a line each", 0, 0},
	{"insecure", 0, MOE_OPT_FLAG, &opt.insecure, NULL, "bind tcp without keys: anyone who can connect may ask", 0, 0},
	{"exact", 0, MOE_OPT_FLAG, &opt.exact, NULL, "multiply quantised weights with f32, not int8 (as moe-route --exact)", 0, 0},
	{"activations", 0, MOE_OPT_STR, &opt.activations, "TYPE", "multiply with i8, f32 or bf16 (as moe-route --activations)", 0, 0},
	{"device", 0, MOE_OPT_STR, &opt.device, "WHICH", "compute on cuda (rank R on GPU R), cuda:N, auto, or cpu", 0, 0},
	{"device-memory", 0, MOE_OPT_SIZE, &opt.device_memory, "SIZE", "use so much of the device's memory", 0, 0},
	{"metrics", 0, MOE_OPT_STR, &opt.metrics, "ADDRESS", "HOST:PORT or :PORT where Prometheus may ask; ranks take consecutive ports", 0, 0},
	{"threads", 't', MOE_OPT_INT, &opt.threads, "N", "threads a server computes with (cores / servers here)", 1, 4096},
	{"numa", 0, MOE_OPT_STR, &opt.numa, "NODES", "bind servers to nodes in turn: auto, off, or a list (auto)", 0, 0},
	{"weights", 0, MOE_OPT_STR, &opt.weights, "HOW", "before it is ready: read, lock, copy them, or only map (read)", 0, 0},
	{"verify", 0, MOE_OPT_FLAG, &opt.verify, NULL, "compare the experts' file with its checksums first", 0, 0},
	{"max-rows", 0, MOE_OPT_INT, &opt.max_rows, "N", "most rows of a message (1024)", 1, 65536},
	{"rate", 0, MOE_OPT_NUM, &opt.rate, "N", "most messages a second of one client (any number)", 0.001, 1e9},
	{"no-shm", 0, MOE_OPT_FLAG, &opt.no_shm, NULL, "share no memory with clients on this host", 0, 0},
	{"busy-poll", 0, MOE_OPT_INT, &opt.busy_poll, "US", "look for requests in shared memory so long before sleeping (20)", 0, 1000000},
	{NULL, 0, MOE_OPT_FLAG, NULL, NULL, NULL, 0, 0},
};

static const char *const usage[] = {
	"moe-serve [--rank N|env | --ranks A-B | --spare] [--bind ENDPOINT] [--ready-file FILE] SHARDS",
	"moe-serve keygen FILE",
	"moe-serve status --hosts FILE | --connect ENDPOINT ... | SHARDS",
	NULL,
};

static const struct moe_tool tool = {
	.name = "moe-serve",
	.usage = usage,
	.about = "Serve the routed experts of a shard set, a checkpoint folder or synth:SPEC to moe-route.",
	.opts = table,
};

/* The only server of this process is ready. */
static int tell(void *ctx, const char *endpoint, struct moe_err *e)
{
	const struct plan *p = ctx;

	return ready_tell(p->o.ready_file, &endpoint, 1, p->keys, e);
}

static void tell_reloaded(void *ctx)
{
	(void)ctx;
	notify_ready(1);
}

static int serve(struct plan *p, struct moe_err *e)
{
	int rc;

	if (p->supervise)
		return supervise(p, e);
	rc = serve_one(p, p->first, true, &(struct listener){.ready = tell, .reloaded = tell_reloaded, .ctx = p}, e);
	ready_file_remove(p->o.ready_file);
	return rc;
}

/* A connection is a file, also one that nobody uses. */
static void allow_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static bool is_endpoint(const char *bind, struct moe_err *e)
{
	char *form = bind_form(bind, e), *first = form ? moe_endpoint_nth(form, 0, e) : NULL;

	free(form);
	free(first);
	return first != NULL;
}

int main(int argc, char **argv)
{
	struct moe_err e = MOE_ERR_INIT;
	struct plan plan;
	int first, last, rc;

	if (argc > 1 && strcmp(argv[1], "keygen") == 0)
		return keygen_main(argc - 1, argv + 1);
	if (argc > 1 && strcmp(argv[1], "status") == 0)
		return status_main(argc - 1, argv + 1);
	rc = moe_opts_parse(&tool, &argc, argv);
	if (rc >= 0)
		return rc;
	if (argc != 1)
		return moe_usage(&tool, argc ? "one SHARDS at a time, not '%s' too" : "SHARDS is missing", argc ? argv[1] : "");
	if (opt.rank && opt.ranks)
		return moe_usage(&tool, "--rank and --ranks exclude each other");
	if (opt.rank && strcmp(opt.rank, "env") != 0 && (!rank_range(opt.rank, &first, &last) || first != last))
		return moe_usage(&tool, "--rank: '%s' is neither a rank nor env", opt.rank);
	if (opt.ranks && !rank_range(opt.ranks, &first, &last))
		return moe_usage(&tool, "--ranks: '%s' is not of the form A-B", opt.ranks);
	if (opt.bind && !is_endpoint(opt.bind, &e))
		return moe_usage(&tool, "--bind %s", e.msg);
	if (opt.restart && (opt.rank || (opt.spare && !opt.ranks)))
		return moe_usage(&tool, "--restart is for a process of several servers: one that is alone is its service manager's to start again");
	if (!opt.server_key != !opt.authorized_keys)
		return moe_usage(&tool, "--server-key and --authorized-keys need each other: who we are, and who may ask");
	if (opt.server_key && opt.insecure)
		return moe_usage(&tool, "--insecure says that there are no keys, --server-key that there are");
	if (opt.metrics && moe_http_check(opt.metrics, &e))
		return moe_usage(&tool, "--metrics %s", e.msg);
	if (opt.device && moe_device_check(opt.device, &e))
		return moe_usage(&tool, "%s", e.msg);
	if (opt.device_memory && !opt.device)
		return moe_usage(&tool, "--device-memory needs --device");
	if (opt.no_shm && opt.busy_poll != MOE_BUSY_POLL)
		return moe_usage(&tool, "--busy-poll looks into shared memory, and --no-shm says that there is none");
	if (!nodes_word(opt.numa))
		return moe_usage(&tool, "--numa: '%s' is neither auto, off nor a list of nodes such as 0,1", opt.numa);
	if (moe_numerics_choose(opt.exact, opt.activations, &opt.numerics, &e))
		return moe_usage(&tool, "%s", e.msg);
	if (!moe_load_parse(opt.weights, &opt.load))
		return moe_usage(&tool, "--weights: '%s' is neither map, read, lock nor copy", opt.weights);
	allow_files();
	notify_open();
	rc = plan_open(&opt, argv[0], &plan, &e);
	if (!rc) {
		rc = serve(&plan, &e);
		plan_close(&plan);
	}
	return rc ? moe_die(&tool, &e) : 0;
}
