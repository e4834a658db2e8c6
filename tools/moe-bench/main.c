/* moe-bench: measure how fast prompts are read and tokens are generated; make synthetic checkpoints. */
#include <string.h>

#include "bench.h"
#include "run/run.h"

static struct bench_options opt = {
	.format = "md", .prompts = "512", .generates = "64", .batches = "1", .threads = "", .depths = "0", .repetitions = 5, .chunk = 512, .timeout = 30,
	.transport = "auto", .weights = "map", .busy_poll = MOE_BUSY_POLL,
};

static const char *const usage[] = {
	"moe-bench -m SHARDS [OPTION...]",
	"moe-bench compare [OPTION...] OLD NEW",
	"moe-bench hardware [OPTION...]",
	"moe-bench kernels [OPTION...]",
	"moe-bench offload -m SHARDS --device DEVICE | --virtual HARDWARE [OPTION...]",
	"moe-bench synth --like NAME | --config FILE [OPTION...] OUT",
	"moe-bench divergence -m REFERENCE [OPTION...] SHARDS...",
	NULL,
};

static const struct moe_opt options[] = {
	{"model", 'm', MOE_OPT_STR, &opt.model, "SHARDS", "a shard set, a checkpoint folder, or synth:NAME", 0, 0},
	{"prompt", 'p', MOE_OPT_STR, &opt.prompts, "N,...", "prompt lengths to read (512; 0: none)", 0, 0},
	{"generate", 'n', MOE_OPT_STR, &opt.generates, "N,...", "numbers of tokens to generate (64; 0: none)", 0, 0},
	{"batch", 'b', MOE_OPT_STR, &opt.batches, "N,...", "sequences at once (1)", 0, 0},
	{"pg", 0, MOE_OPT_LIST, &opt.pairs, "PP,TG", "read PP tokens, then generate TG; may be repeated", 0, 0},
	{"depth", 'd', MOE_OPT_STR, &opt.depths, "N,...", "positions filled before, not timed (0)", 0, 0},
	{"mixed", 0, MOE_OPT_FLAG, &opt.mixed, NULL, "requests of many lengths too, admitted as places get free", 0, 0},
	{"load", 0, MOE_OPT_FLAG, &opt.load, NULL, "starting up too: until it is ready, until the first token, its memory", 0, 0},
	{"cold", 0, MOE_OPT_FLAG, &opt.cold, NULL, "with --load: each time with the files out of the system's cache", 0, 0},
	{"weights", 0, MOE_OPT_STR, &opt.weights, "HOW", "map, or at the start: read, lock, copy (map)", 0, 0},
	{"net", 0, MOE_OPT_FLAG, &opt.net, NULL, "with servers: round trips of one batch too", 0, 0},
	{"threads", 't', MOE_OPT_STR, &opt.threads, "N,...", "threads (all cores)", 0, 0},
	{"repetitions", 'r', MOE_OPT_INT, &opt.repetitions, "N", "measurements of each (5)", 1, 1000},
	{"output", 'o', MOE_OPT_STR, &opt.format, "FORMAT", "md, csv, json, jsonl or sql (md)", 0, 0},
	{"chunk", 0, MOE_OPT_INT, &opt.chunk, "N", "most prompt tokens taken in one step (512)", 1, 65536},
	{"kv", 0, MOE_OPT_STR, &opt.kv, "TYPE", "keep keys and values in f32, f16, bf16 or q8 (by the weights: f32 or f16)", 0, 0},
	{"plot", 0, MOE_OPT_STR, &opt.plot, "FILE.svg", "draw the speeds too", 0, 0},
	{"exact", 0, MOE_OPT_FLAG, &opt.exact, NULL, "f32 activations, keys and values whatever the weights are in", 0, 0},
	{"activations", 0, MOE_OPT_STR, &opt.activations, "TYPE", "multiply with i8 (coded weights; the default), f32, or bf16 (bf16 weights)", 0, 0},
	{"predict", 0, MOE_OPT_FLAG, &opt.predict, NULL, "measure the kernels too, and say what the roofline model expects", 0, 0},
	{"no-roofs", 0, MOE_OPT_FLAG, &opt.no_roofs, NULL, "do not measure the machine, nor count what rows cost", 0, 0},
	{"no-warmup", 0, MOE_OPT_FLAG, &opt.no_warmup, NULL, "measure the first run too", 0, 0},
	{"hosts", 0, MOE_OPT_STR, &opt.hosts, "FILE", "compute the experts on these servers", 0, 0},
	{"client-key", 0, MOE_OPT_STR, &opt.client_key, "FILE", "our secret key, for servers with keys (moe-serve keygen)", 0, 0},
	{"server-key", 0, MOE_OPT_STR, &opt.server_key, "FILE", "public keys of servers, where the hosts file has no key=", 0, 0},
	{"connect", 0, MOE_OPT_LIST, &opt.connect, "ENDPOINT", "a server, or dns://name:port; may be repeated", 0, 0},
	{"overlap", 0, MOE_OPT_STR, &opt.overlap, "WHEN", "attention of half a step while servers compute the other: auto, on, off", 0, 0},
	{"transport", 0, MOE_OPT_STR, &opt.transport, "HOW", "auto; zmq; shm: refuse servers that share no memory (auto)", 0, 0},
	{"busy-poll", 0, MOE_OPT_INT, &opt.busy_poll, "US", "look for answers in shared memory so long before sleeping (20)", 0, 1000000},
	{"hedge", 0, MOE_OPT_NUM, &opt.hedge, "PCT", "ask again elsewhere what is later than PCT % of answers (0: not)", 0, 100},
	{"wire", 0, MOE_OPT_STR, &opt.wire, "TYPE", "hidden states to and from servers: f32, f16 or bf16 (f32)", 0, 0},
	{"timeout", 0, MOE_OPT_NUM, &opt.timeout, "S", "seconds servers may take to appear or to answer (30)", 0.001, 1e6},
	{0},
};

static const struct moe_tool tool = {"moe-bench", usage, "Measures mixture-of-experts models, and makes synthetic ones.", options};

static const struct {
	const char *name;
	int (*main)(int argc, char **argv);
} commands[] = {
	{"compare", bench_compare_main}, {"divergence", bench_divergence_main}, {"hardware", bench_hardware_main}, {"kernels", bench_kernels_main},
	{"offload", bench_offload_main}, {"synth", bench_synth_main},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (argc > 1 && !strcmp(argv[1], commands[i].name))
			return commands[i].main(argc - 1, argv + 1);
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "-pg")) /* as llama-bench spells it */
			argv[i] = "--pg";
	int rc = moe_opts_parse(&tool, &argc, argv);
	if (rc >= 0)
		return rc;
	if (argc)
		return moe_usage(&tool, "what is %s? (the model goes with -m)", argv[0]);
	if (!opt.model)
		return moe_usage(&tool, "which model? (-m SHARDS)");
	if (bench_format_parse(opt.format) < 0)
		return moe_usage(&tool, "-o %s: not md, csv, json, jsonl or sql", opt.format);
	if (opt.net && !opt.hosts && !opt.connect.n)
		return moe_usage(&tool, "--net needs servers (--hosts or --connect)");
	if (opt.predict && (opt.no_roofs || opt.hosts || opt.connect.n))
		return moe_usage(&tool, "--predict needs the roofs, and no servers");
	if (moe_transport_parse(opt.transport) < 0)
		return moe_usage(&tool, "--transport %s: not auto, zmq or shm", opt.transport);
	if (moe_transport_parse(opt.transport) != MOE_TRANSPORT_AUTO && !opt.hosts && !opt.connect.n)
		return moe_usage(&tool, "--transport %s needs servers (--hosts or --connect)", opt.transport);
	if (opt.hedge > 0 && !opt.hosts && !opt.connect.n)
		return moe_usage(&tool, "--hedge needs servers (--hosts or --connect)");
	if (!moe_load_parse(opt.weights, &opt.load_how))
		return moe_usage(&tool, "--weights %s: not map, read, lock or copy", opt.weights);
	if (opt.cold && !opt.load)
		return moe_usage(&tool, "--cold is about --load");
	if (opt.cold && strncmp(opt.model, "synth:", 6) == 0)
		return moe_usage(&tool, "--cold needs files, %s has none", opt.model);
	struct moe_err e = MOE_ERR_INIT;
	struct moe_run_config check = {
		.hosts = opt.hosts, .n_connect = opt.connect.n, .client_key = opt.client_key, .server_key = opt.server_key,
	};
	struct bench_plan plan;
	if (bench_plan_make(&opt, &plan, &e) || moe_run_check_connect(opt.connect.v, opt.connect.n, &e) || moe_run_check_keys(&check, &e) ||
	    moe_run_numerics(&check, opt.exact, opt.activations, opt.kv, opt.wire, &e) || moe_run_overlap(&check, opt.overlap, &e)) {
		bench_plan_free(&plan);
		return moe_usage(&tool, "%s", e.msg);
	}

	rc = bench_run(&opt, &plan, &e);
	bench_plan_free(&plan);
	moe_opts_free(&tool);
	return rc ? moe_die(&tool, &e) : moe_close_stdout(&tool);
}
