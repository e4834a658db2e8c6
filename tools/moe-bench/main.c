/* moe-bench: measure how fast prompts are read and tokens are generated; make synthetic checkpoints. */
#include <string.h>

#include "bench.h"
#include "run/run.h"

static struct bench_options opt = {
	.format = "md", .prompts = "512", .generates = "64", .batches = "1", .threads = "", .repetitions = 5, .chunk = 512, .timeout = 30,
};

static const char *const usage[] = {
	"moe-bench -m SHARDS [OPTION...]",
	"moe-bench hardware [OPTION...]",
	"moe-bench kernels [OPTION...]",
	"moe-bench synth --like NAME | --config FILE [OPTION...] OUT",
	"moe-bench divergence -m REFERENCE [OPTION...] SHARDS...",
	NULL,
};

static const struct moe_opt options[] = {
	{"model", 'm', MOE_OPT_STR, &opt.model, "SHARDS", "a shard set, a checkpoint folder, or synth:NAME", 0, 0},
	{"prompt", 'p', MOE_OPT_STR, &opt.prompts, "N,...", "prompt lengths to read (512; 0: none)", 0, 0},
	{"generate", 'n', MOE_OPT_STR, &opt.generates, "N,...", "numbers of tokens to generate (64; 0: none)", 0, 0},
	{"batch", 'b', MOE_OPT_STR, &opt.batches, "N,...", "sequences at once (1)", 0, 0},
	{"threads", 't', MOE_OPT_STR, &opt.threads, "N,...", "threads (all cores)", 0, 0},
	{"repetitions", 'r', MOE_OPT_INT, &opt.repetitions, "N", "measurements of each (5)", 1, 1000},
	{"output", 'o', MOE_OPT_STR, &opt.format, "FORMAT", "md, csv, json, jsonl or sql (md)", 0, 0},
	{"chunk", 0, MOE_OPT_INT, &opt.chunk, "N", "most prompt tokens taken in one step (512)", 1, 65536},
	{"kv", 0, MOE_OPT_STR, &opt.kv, "TYPE", "keep keys and values in f32, f16, bf16 or q8 (by the weights: f32 or f16)", 0, 0},
	{"no-warmup", 0, MOE_OPT_FLAG, &opt.no_warmup, NULL, "measure the first run too", 0, 0},
	{"hosts", 0, MOE_OPT_STR, &opt.hosts, "FILE", "compute the experts on these servers", 0, 0},
	{"connect", 0, MOE_OPT_LIST, &opt.connect, "ENDPOINT", "a server; may be repeated", 0, 0},
	{"wire", 0, MOE_OPT_STR, &opt.wire, "TYPE", "hidden states to and from servers: f32, f16 or bf16 (f32)", 0, 0},
	{"timeout", 0, MOE_OPT_NUM, &opt.timeout, "S", "seconds servers may take to appear or to answer (30)", 0.001, 1e6},
	{0},
};

static const struct moe_tool tool = {"moe-bench", usage, "Measures mixture-of-experts models, and makes synthetic ones.", options};

static const struct {
	const char *name;
	int (*main)(int argc, char **argv);
} commands[] = {
	{"synth", bench_synth_main}, {"kernels", bench_kernels_main}, {"hardware", bench_hardware_main},
	{"divergence", bench_divergence_main},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (argc > 1 && !strcmp(argv[1], commands[i].name))
			return commands[i].main(argc - 1, argv + 1);
	int rc = moe_opts_parse(&tool, &argc, argv);
	if (rc >= 0)
		return rc;
	if (argc)
		return moe_usage(&tool, "what is %s? (the model goes with -m)", argv[0]);
	if (!opt.model)
		return moe_usage(&tool, "which model? (-m SHARDS)");
	if (bench_format_parse(opt.format) < 0)
		return moe_usage(&tool, "-o %s: not md, csv, json, jsonl or sql", opt.format);
	struct moe_err e = MOE_ERR_INIT;
	struct moe_run_config numerics = {.hosts = opt.hosts, .n_connect = opt.connect.n};
	if (bench_check_lists(&opt, &e) || moe_run_numerics(&numerics, false, opt.kv, opt.wire, &e))
		return moe_usage(&tool, "%s", e.msg);

	rc = bench_run(&opt, &e);
	moe_opts_free(&tool);
	return rc ? moe_die(&tool, &e) : moe_close_stdout(&tool);
}
