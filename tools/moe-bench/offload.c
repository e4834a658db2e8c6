/* moe-bench offload: schedules for models bigger than their device, side by side. */
#include "offload.h"

#include <string.h>

#include "base/file.h"
#include "base/log.h"

static struct offload_options opt = {
	.schedules = "cgopipe,coalesced,flexgen,flexgen-c,zero", .prompt = 512, .generate = 32, .rounds = 5, .format = "md",
};
#define MICRO_BATCHES 4          /* on a device, when nobody says */
#define MICRO_BATCH 8

static const char *const usage[] = {
	"moe-bench offload -m SHARDS --device cpu|cuda[:N] [OPTION...]",
	"moe-bench offload -m NAME --virtual HARDWARE [OPTION...]",
	NULL,
};

static const struct moe_opt options[] = {
	{"model", 'm', MOE_OPT_STR, &opt.model, "SHARDS", "a shard set, checkpoint folder, synth:NAME; with --virtual a name too", 0, 0},
	{"device", 0, MOE_OPT_STR, &opt.device, "DEVICE", "cuda, cuda:N, or cpu, which imitates one", 0, 0},
	{"device-memory", 0, MOE_OPT_SIZE, &opt.device_memory, "SIZE", "use so much of its memory (all; of cpu: no limit)", 0, 0},
	{"link-bandwidth", 0, MOE_OPT_SIZE, &opt.link_bandwidth, "RATE", "bytes a second to and from cpu as a device (as fast as it goes)", 0, 0},
	{"pinned", 0, MOE_OPT_STR, &opt.pinned, "WHEN", "experts that move in pinned memory: auto, on, off (auto)", 0, 0},
	{"threads", 't', MOE_OPT_INT, &opt.threads, "N", "threads of the host, and of cpu as a device (all cores)", 1, 1024},
	{"repetitions", 'r', MOE_OPT_INT, &opt.rounds, "N", "rounds, in each of which every schedule runs (5)", 1, 1000},
	{"no-roofs", 0, MOE_OPT_FLAG, &opt.no_roofs, NULL, "measure neither link nor kernels, and predict nothing", 0, 0},
	{"virtual", 0, MOE_OPT_STR, &opt.virtual, "HARDWARE", "compute nothing, reckon with this device: a name, or a profile", 0, 0},
	{"set", 0, MOE_OPT_LIST, &opt.set, "KEY=VALUE", "with --virtual: change a number of it; may be repeated", 0, 0},
	{"best", 0, MOE_OPT_FLAG, &opt.best, NULL, "with --virtual: each schedule with the policy that is best for it", 0, 0},
	{"quant", 0, MOE_OPT_STR, &opt.quant, "TYPE", "with --virtual: weights in bf16, q8, q4 ... (bf16)", 0, 0},
	{"schedules", 0, MOE_OPT_STR, &opt.schedules, "LIST", "of resident, cgopipe, coalesced, flexgen, flexgen-c, zero (all but the first)", 0, 0},
	{"micro-batches", 0, MOE_OPT_INT, &opt.micro_batches, "N", "micro-batches (4; virtual: what is best for the first schedule)", 1, 4096},
	{"micro-batch", 0, MOE_OPT_INT, &opt.micro_batch, "N", "sequences in each (8; virtual: the same)", 1, 65536},
	{"weights", 0, MOE_OPT_NUM, &opt.weights, "SHARE", "share of the experts that stays on the device (0)", 0, 1},
	{"prompt", 'p', MOE_OPT_INT, &opt.prompt, "N", "tokens of each prompt (512)", 1, 1 << 20},
	{"generate", 'n', MOE_OPT_INT, &opt.generate, "N", "tokens to generate for each (32)", 2, 1 << 20},
	{"kv", 0, MOE_OPT_STR, &opt.kv, "TYPE", "keep keys and values in f32, f16, bf16 or q8 (by the weights: f32 or f16)", 0, 0},
	{"exact", 0, MOE_OPT_FLAG, &opt.exact, NULL, "f32 activations, keys and values whatever the weights are in", 0, 0},
	{"activations", 0, MOE_OPT_STR, &opt.activations, "TYPE", "multiply with i8 (coded weights; the default), f32, or bf16", 0, 0},
	{"trace", 0, MOE_OPT_STR, &opt.trace, "DIR", "write what happened there, for a browser's tracing page", 0, 0},
	{"output", 'o', MOE_OPT_STR, &opt.format, "FORMAT", "md, csv, json, jsonl or sql (md)", 0, 0},
	{0},
};

static const struct moe_tool tool = {"moe-bench offload", usage, "Compares schedules for models bigger than their device.", options};

/* false: a word is no schedule, or there twice. */
static bool parse_schedules(const char *text, struct offload_plan *out, char word[32])
{
	bool has[MOE_SCHEDULES] = {false};

	out->n = 0;
	while (*text) {
		size_t n = strcspn(text, ",");
		enum moe_schedule s;

		snprintf(word, 32, "%.*s", (int)(n < 32 ? n : 31), text);
		if (!moe_schedule_parse(word, &s) || has[s])
			return false;
		has[s] = true;
		out->schedules[out->n++] = s;
		text += n + (text[n] == ',');
	}
	*word = 0;
	return out->n > 0;
}

/* What is about the one kind of device must not be said of the other.  NULL: all is well. */
static const char *wrong_options(void)
{
	if (opt.virtual && opt.device)
		return "--device and --virtual: which of them?";
	if (!opt.virtual && !opt.device)
		return "on which device? (--device, or --virtual HARDWARE)";
	if (opt.virtual && (opt.device_memory || opt.link_bandwidth || opt.pinned || opt.threads || opt.activations || opt.no_roofs))
		return "--virtual goes with none of --device-memory, --link-bandwidth, --pinned, --threads, --activations and --no-roofs";
	if (opt.device && (opt.set.n || opt.best || opt.quant))
		return "--set, --best and --quant go with --virtual";
	return NULL;
}

static int run(const struct offload_plan *p, struct moe_err *e)
{
	struct offload_results results = {.n = 0};
	int rc = opt.trace && !moe_is_dir(opt.trace) ? moe_fail(e, MOE_E_MISSING, "--trace %s: no such folder", opt.trace) : 0;

	if (opt.device) {
		opt.micro_batches = opt.micro_batches ? opt.micro_batches : MICRO_BATCHES;
		opt.micro_batch = opt.micro_batch ? opt.micro_batch : MICRO_BATCH;
	}
	rc = rc ? rc : opt.device ? offload_measured(&opt, p, &results, e) : offload_virtual(&opt, p, &results, e);
	rc = rc ? rc : offload_print(&opt, &results, e);
	offload_results_free(&results);
	return rc;
}

int bench_offload_main(int argc, char **argv)
{
	struct offload_plan plan;
	char word[32] = "";
	struct moe_err e = MOE_ERR_INIT;
	int rc = moe_opts_parse(&tool, &argc, argv);

	if (rc >= 0)
		return rc;
	if (argc)
		return moe_usage(&tool, "what is %s? (the model goes with -m)", argv[0]);
	if (!opt.model)
		return moe_usage(&tool, "which model? (-m SHARDS)");
	const char *wrong = wrong_options();
	if (wrong)
		return moe_usage(&tool, "%s", wrong);
	if (bench_format_parse(opt.format) < 0)
		return moe_usage(&tool, "-o %s: not md, csv, json, jsonl or sql", opt.format);
	if (!parse_schedules(opt.schedules, &plan, word))
		return moe_usage(&tool, "--schedules %s: %s%s", opt.schedules, *word ? word : "empty", *word ? " is none, or there twice" : "");
	if (opt.device && offload_check(&opt, &plan, &e))
		return moe_usage(&tool, "%s", e.msg);
	rc = run(&plan, &e);
	moe_opts_free(&tool);
	return rc ? moe_die(&tool, &e) : moe_close_stdout(&tool);
}
