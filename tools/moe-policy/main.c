/* moe-policy: plan how a model runs on given machines, and where its experts go. */
#include <string.h>

#include "plan.h"
#include "replay.h"

#define MOST_TOKENS 1e9
#define MOST_SEQUENCES 1e9

static struct options arg = {.steps = 4};
static struct place_args where;
static struct replay_args replay = {.grace = -1};

static const char *const usage[] = {
	"moe-policy --model DIR|NAME --hardware FILE|NAME|auto [OPTION...]",
	"moe-policy --model DIR|NAME --devices N [--placement HOW]",
	"moe-policy --replay TRACE [--model DIR|NAME] [--slots N,...] [--cache HOW]",
	"moe-policy --model DIR|NAME --hardware FILE|NAME|auto --simulate SCHEDULE [OPTION...]",
	"moe-policy --compare A.json B.json",
	"moe-policy --list",
	NULL,
};

static const struct moe_opt options[] = {
	{"model", 'm', MOE_OPT_STR, &arg.model, "DIR|NAME", "a checkpoint, a shard set, or a known model (mixtral-8x7b, deepseek-v3, ...)", 0, 0},
	{"hardware", 0, MOE_OPT_STR, &arg.hardware, "FILE|NAME", "machines: a profile or fleet, a name (t4, h100x8, epyc-2s, t4+epyc-1s), auto: this one", 0, 0},
	{"set", 0, MOE_OPT_LIST, &arg.set, "KEY=VALUE", "change a number of the hardware (gpu.memory=15GiB, network=10Gb/s, host_memory=184GiB)", 0, 0},
	{"workload", 0, MOE_OPT_STR, &arg.workload, "FILE|NAME", "lengths of prompts and answers (chat; mtbench, helm-reasoning, ...)", 0, 0},
	{"prompt", 0, MOE_OPT_NUM, &arg.prompt, "N", "mean tokens of a prompt", 1, MOST_TOKENS},
	{"prompt-max", 0, MOE_OPT_NUM, &arg.prompt_max, "N", "tokens of the longest", 1, MOST_TOKENS},
	{"padded", 0, MOE_OPT_FLAG, &arg.padded, NULL, "every prompt takes as much as the longest", 0, 0},
	{"generate", 0, MOE_OPT_NUM, &arg.generate, "N", "tokens of an answer", 1, MOST_TOKENS},
	{"variant", 0, MOE_OPT_STR, &arg.variant, "full|paper", "the roofline model: with all costs (full), or MoE-Lightning's own", 0, 0},
	{"objective", 0, MOE_OPT_STR, &arg.objective, "WHAT", "throughput (default) or latency", 0, 0},
	{"max-step", 0, MOE_OPT_NUM, &arg.max_step, "S", "seconds that a decode step may take", 1e-9, 1e9},
	{"schedule", 0, MOE_OPT_STR, &arg.schedule, "NAME", "only this schedule (resident, cgopipe, ...)", 0, 0},
	{"batch", 0, MOE_OPT_INT, &arg.batch, "N", "sequences in a batch", 1, MOST_SEQUENCES},
	{"micro-batch", 0, MOE_OPT_INT, &arg.micro_batch, "N", "sequences in a micro-batch", 1, MOST_SEQUENCES},
	{"attention-on", 0, MOE_OPT_STR, &arg.attention_on, "LEVEL", "gpu or cpu", 0, 0},
	{"ffn-on", 0, MOE_OPT_STR, &arg.ffn_on, "LEVEL", "gpu or cpu", 0, 0},
	{"quant", 0, MOE_OPT_STR, &arg.quant, "TYPE", "of the weights: q4, experts=q4,rest=q8, ..., or auto: what is fastest", 0, 0},
	{"kv", 0, MOE_OPT_STR, &arg.kv, "TYPE", "keys and values: f32, f16 (default), bf16, q8", 0, 0},
	{"devices", 0, MOE_OPT_INT, &arg.devices, "N", "place experts on N devices that are all alike, and no more", 1, MOE_MAX_DEVICES},
	{"placement", 0, MOE_OPT_STR, &where.how, "HOW", "round-robin, balanced, capacity, usage, hierarchical, or a file", 0, 0},
	{"usage", 0, MOE_OPT_STR, &where.usage, "FILE", "how often experts were used (moe-route --usage)", 0, 0},
	{"replicas", 0, MOE_OPT_STR, &where.replicas, "N|auto", "copies of experts a layer beyond the first", 0, 0},
	{"groups", 0, MOE_OPT_INT, &where.groups, "N", "expert groups a layer that stay on one host", 1, 65536},
	{"coactivation", 0, MOE_OPT_STR, &where.coactivation, "TRACE", "keep together experts that tokens choose together (moe-route --trace)", 0, 0},
	{"keep", 0, MOE_OPT_STR, &where.keep, "POLICY", "an earlier policy: where experts lie now, and names in it that are not known", 0, 0},
	{"move-cost", 0, MOE_OPT_NUM, &where.move_cost, "X", "of moving an expert, in tokens of load", 0, 1e18},
	{"export", 0, MOE_OPT_STR, &arg.export, "FORMAT", "print the placement for vllm, tensorrt-llm, llama.cpp, hosts or slurm instead", 0, 0},
	{"replay", 0, MOE_OPT_STR, &replay.trace, "TRACE", "would a cache of experts help, or a static choice? (moe-route --trace)", 0, 0},
	{"slots", 0, MOE_OPT_STR, &replay.slots, "N,...", "experts a layer that fit (an eighth, a quarter, half of them)", 0, 0},
	{"cache", 0, MOE_OPT_STR, &replay.cache, "HOW", "lru, frequency or grace: its layers too; all (default): the verdict only", 0, 0},
	{"grace", 0, MOE_OPT_INT, &replay.grace, "N", "tokens that an expert stays once it is loaded (16)", 0, 1 << 30},
	{"shared", 0, MOE_OPT_FLAG, &replay.shared, NULL, "one cache for all layers, as large as theirs together", 0, 0},
	{"prompts", 0, MOE_OPT_FLAG, &replay.prompts, NULL, "count the tokens of prompts too", 0, 0},
	{"simulate", 0, MOE_OPT_STR, &arg.simulate, "SCHEDULE", "play this schedule with the best sizes for it: how busy which lane is", 0, 0},
	{"steps", 0, MOE_OPT_INT, &arg.steps, "N", "with --simulate: decode steps (4), or batches with --prefill", 1, 1000},
	{"prefill", 0, MOE_OPT_FLAG, &arg.prefill, NULL, "with --simulate: the prompts instead", 0, 0},
	{"timeline", 0, MOE_OPT_STR, &arg.timeline, "FILE", "with --simulate: all tasks, for chrome://tracing or Perfetto", 0, 0},
	{"plot", 0, MOE_OPT_STR, &arg.plot, "FILE.svg", "draw the roofline with the policy's operations; with --simulate: three layers of the tasks", 0, 0},
	{"explain", 0, MOE_OPT_FLAG, &arg.explain, NULL, "a page for people instead: what binds, roofs, memory, what would help most", 0, 0},
	{"compare", 0, MOE_OPT_FLAG, &arg.compare, NULL, "what differs between two policies", 0, 0},
	{"no-cache", 0, MOE_OPT_FLAG, &arg.no_cache, NULL, "search again, though the answer is kept", 0, 0},
	{"list", 0, MOE_OPT_FLAG, &arg.list, NULL, "models, hardware and workloads that have a name", 0, 0},
	{0},
};

static const struct moe_tool tool = {"moe-policy", usage, "Plans how a model runs on given machines; policy.json on stdout.", options};

static int replay_trace(struct moe_err *e)
{
	struct subject subject;
	int rc;

	if (!arg.model)
		return print_replay(&replay, NULL, e);
	rc = subject_open(&arg, &subject, e);
	if (rc)
		return rc;
	rc = print_replay(&replay, &subject, e);
	subject_close(&subject);
	return rc;
}

/* What is missing or does not go together, in words; NULL: fine. */
static const char *conflict(int operands)
{
	bool sized = arg.workload || arg.prompt > 0 || arg.prompt_max > 0 || arg.generate > 0 || arg.padded;
	bool asked = arg.variant || arg.objective || arg.schedule || arg.attention_on || arg.ffn_on || arg.kv || arg.max_step > 0 ||
	             arg.batch > 0 || arg.micro_batch > 0;

	if (arg.compare)
		return operands == 2 ? NULL : "--compare takes two policies";
	if (operands)
		return "no operands are expected";
	if (arg.list)
		return NULL;
	if (replay.trace && (arg.hardware || arg.devices || arg.set.n || arg.export || sized || asked || place_is_asked(&where)))
		return "--replay only judges caches: --model, --slots, --cache, --grace, --shared and --prompts go with it";
	if (replay.trace || replay_is_asked(&replay))
		return replay_conflict(&replay);
	if (!arg.model)
		return "--model is needed";
	if (!arg.devices == !arg.hardware)
		return "either --devices or --hardware is needed";
	if (arg.devices && (arg.simulate || arg.plot || arg.explain))
		return "--simulate, --plot and --explain need --hardware";
	if (!arg.simulate && (arg.timeline || arg.prefill))
		return "--prefill and --timeline need --simulate";
	if (arg.simulate && (arg.schedule || arg.export || arg.explain))
		return "--simulate goes with none of --schedule, --export and --explain";
	if (arg.explain && arg.export)
		return "--explain and --export both want the output";
	if (arg.devices && (sized || asked || arg.set.n))
		return "--devices only places experts: how a batch runs needs --hardware";
	if (arg.devices && where.how && strcmp(where.how, "capacity") == 0)
		return "--placement capacity needs the devices' memories: --hardware";
	return place_conflict(&where);
}

int main(int argc, char **argv)
{
	struct moe_err e = MOE_ERR_INIT;
	int rc = moe_opts_parse(&tool, &argc, argv), out;
	const char *wrong;

	if (rc >= 0)
		return rc;
	wrong = conflict(argc);
	if (wrong)
		return moe_usage(&tool, "%s", wrong);
	if (arg.list)
		print_names();
	else if (arg.compare)
		rc = print_comparison(argv[0], argv[1], &e);
	else if (replay.trace)
		rc = replay_trace(&e);
	else
		rc = plan(&arg, &where, &e);
	if (rc > 0)
		rc = moe_die(&tool, &e);
	out = moe_close_stdout(&tool);
	moe_opts_free(&tool);
	return rc > 0 ? rc : out;
}
