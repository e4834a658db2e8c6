/* moe-route: run the decoder, send tokens to the servers that hold their experts, print what comes of it. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "http/http.h"
#include "route.h"

static struct route_options opt = {
	.resident = -1, .timeout = 30, .transport = "auto", .weights = "map", .busy_poll = MOE_BUSY_POLL,
	.memory_pressure = MOE_RUN_MEMORY_PRESSURE, .max_waiting = -1, .temperature = -1, .top_p = -1, .min_p = -1, .top_k = -1,
};

static const char *const usage[] = {
	"moe-route [OPTION...] SHARDS <requests.jsonl >answers.jsonl",
	"moe-route [OPTION...] -p PROMPT [-n MAX] SHARDS",
	"moe-route --check [OPTION...] SHARDS",
	NULL,
};

static const struct moe_opt options[] = {
	{"hosts", 0, MOE_OPT_STR, &opt.hosts, "FILE", "servers: `host slots=N` lines or endpoints (waits for FILE)", 0, 0},
	{"connect", 0, MOE_OPT_LIST, &opt.connect, "ENDPOINT", "a server, or dns://name:port; may be repeated", 0, 0},
	{"client-key", 0, MOE_OPT_STR, &opt.client_key, "FILE", "our secret key, for servers with keys (moe-serve keygen)", 0, 0},
	{"server-key", 0, MOE_OPT_STR, &opt.server_key, "FILE", "public keys of servers, where the hosts file has no key=", 0, 0},
	{"check", 0, MOE_OPT_FLAG, &opt.check, NULL, "only look whether there is a server for every expert", 0, 0},
	{"policy", 0, MOE_OPT_STR, &opt.policy, "FILE", "run as moe-policy planned", 0, 0},
	{"device", 0, MOE_OPT_STR, &opt.device, "WHICH", "compute on cuda, cuda:N, auto, or cpu (which imitates a GPU)", 0, 0},
	{"device-memory", 0, MOE_OPT_SIZE, &opt.device_memory, "SIZE", "use so much of the device's memory", 0, 0},
	{"link-bandwidth", 0, MOE_OPT_SIZE, &opt.link_bandwidth, "RATE", "with --device cpu: copy so many bytes a second", 0, 0},
	{"schedule", 0, MOE_OPT_STR, &opt.schedule, "NAME", "resident, cgopipe, coalesced, flexgen, flexgen-c, zero, on-demand", 0, 0},
	{"micro-batches", 0, MOE_OPT_INT, &opt.micro_batches, "N", "parts that the batch goes through a layer in", 1, 1 << 20},
	{"micro-batch", 0, MOE_OPT_INT, &opt.micro_batch, "N", "most sequences in one of them", 1, 1 << 20},
	{"resident", 0, MOE_OPT_NUM, &opt.resident, "SHARE", "of the experts that stays on the device, 0 to 1 (as many as fit)", 0, 1},
	{"pinned", 0, MOE_OPT_STR, &opt.pinned, "WHEN", "keep the others in pinned memory: auto, on, off", 0, 0},
	{"prompt", 'p', MOE_OPT_STR, &opt.prompt, "TEXT", "generate from TEXT and print text, instead of JSON Lines", 0, 0},
	{"max-tokens", 'n', MOE_OPT_INT, &opt.max_tokens, "MAX", "tokens to generate (0, the default: to the end of the context)", 0, 1 << 24},
	{"score", 0, MOE_OPT_FLAG, &opt.score, NULL, "no generation: log-probabilities of the given tokens", 0, 0},
	{"importance", 0, MOE_OPT_STR, &opt.importance, "FILE", "write what matrices were multiplied with, for moe-shard --importance", 0, 0},
	{"usage", 0, MOE_OPT_STR, &opt.usage, "FILE", "write how often each expert was used, for placing them", 0, 0},
	{"trace", 0, MOE_OPT_STR, &opt.trace, "FILE", "write which experts each token chose, a line a token and layer", 0, 0},
	{"metrics", 0, MOE_OPT_STR, &opt.metrics, "ADDRESS", "HOST:PORT or :PORT where Prometheus may ask while it runs", 0, 0},
	{"metrics-experts", 0, MOE_OPT_FLAG, &opt.metrics_experts, NULL, "count the tokens of each expert there too", 0, 0},
	{"timeline", 0, MOE_OPT_STR, &opt.timeline, "FILE", "write where the time of a request went, for about:tracing", 0, 0},
	{"timeline-request", 0, MOE_OPT_STR, &opt.timeline_request, "ID", "of this one (the first)", 0, 0},
	{"ctx", 0, MOE_OPT_INT, &opt.ctx, "N", "longest prompt plus answer (default: the model's, at most 4096)", 1, 1 << 24},
	{"batch", 0, MOE_OPT_INT, &opt.batch, "N", "most sequences at once (as the policy says, else 8)", 1, 1 << 20},
	{"max-waiting", 0, MOE_OPT_INT, &opt.max_waiting, "N", "refuse requests when N wait (default: read no more for a while)", 0, 1 << 20},
	{"chunk", 0, MOE_OPT_INT, &opt.chunk, "N", "most prompt tokens taken in one step (256, or what fits)", 1, 65536},
	{"kv-memory", 0, MOE_OPT_SIZE, &opt.kv_memory, "SIZE", "memory of the KV cache (default: batch x ctx)", 0, 0},
	{"memory-pressure", 0, MOE_OPT_NUM, &opt.memory_pressure, "SHARE", "of all memory in use, above which less is begun (0.85; 1: never)", 0.001, 1},
	{"kv", 0, MOE_OPT_STR, &opt.kv, "TYPE", "keep keys and values in f32, f16, bf16 or q8 (by the weights: f32 or f16)", 0, 0},
	{"exact", 0, MOE_OPT_FLAG, &opt.exact, NULL, "f32 activations, keys and values whatever the weights are in", 0, 0},
	{"activations", 0, MOE_OPT_STR, &opt.activations, "TYPE", "multiply with i8 (coded weights; the default), f32, or bf16 (bf16 weights)", 0, 0},
	{"no-prefix-cache", 0, MOE_OPT_FLAG, &opt.no_prefix_cache, NULL, "compute every prompt anew, even where one began alike before", 0, 0},
	{"weights", 0, MOE_OPT_STR, &opt.weights, "HOW", "map, or before anything else: read, lock, copy (map)", 0, 0},
	{"verify", 0, MOE_OPT_FLAG, &opt.verify, NULL, "compare the files of this process with their checksums first", 0, 0},
	{"threads", 't', MOE_OPT_INT, &opt.threads, "N", "threads (default: all cores)", 1, 1024},
	{"timeout", 0, MOE_OPT_NUM, &opt.timeout, "S", "seconds servers may take to appear or to answer (30)", 0.001, 1e6},
	{"temp", 0, MOE_OPT_NUM, &opt.temperature, "T", "temperature; 0: the likeliest token (default: the model's)", 0, 1e6},
	{"top-k", 0, MOE_OPT_INT, &opt.top_k, "K", "sample from the K likeliest (0: all)", 0, 1 << 24},
	{"top-p", 0, MOE_OPT_NUM, &opt.top_p, "P", "sample from the likeliest that make up P (1: all)", 0, 1},
	{"min-p", 0, MOE_OPT_NUM, &opt.min_p, "P", "leave out what is below P times the likeliest (0: none)", 0, 1},
	{"seed", 0, MOE_OPT_INT, &opt.seed, "N", "random seed (0)", 0, 9007199254740992.0},
	{"stop", 0, MOE_OPT_LIST, &opt.stop, "TEXT", "end before TEXT; may be repeated", 0, 0},
	{"ignore-eos", 0, MOE_OPT_FLAG, &opt.ignore_eos, NULL, "do not stop at the model's end of text", 0, 0},
	{"logprobs", 0, MOE_OPT_FLAG, &opt.logprobs, NULL, "add each token's log-probability to the answers", 0, 0},
	{"unordered", 0, MOE_OPT_FLAG, &opt.unordered, NULL, "print each answer when it is ready, not in input order", 0, 0},
	{"overlap", 0, MOE_OPT_STR, &opt.overlap, "WHEN", "attention of half a step while servers compute the other: auto, on, off", 0, 0},
	{"wire", 0, MOE_OPT_STR, &opt.wire, "TYPE", "hidden states to and from servers: f32, f16 or bf16 (f32)", 0, 0},
	{"transport", 0, MOE_OPT_STR, &opt.transport, "HOW", "auto; zmq; shm: refuse servers that share no memory (auto)", 0, 0},
	{"busy-poll", 0, MOE_OPT_INT, &opt.busy_poll, "US", "look for answers in shared memory so long before sleeping (20)", 0, 1000000},
	{"presum", 0, MOE_OPT_FLAG, &opt.presum, NULL, "let servers add up their experts (last bits may differ)", 0, 0},
	{"degrade", 0, MOE_OPT_FLAG, &opt.degrade, NULL, "go on without experts that no server can compute; answers say so", 0, 0},
	{"hedge", 0, MOE_OPT_NUM, &opt.hedge, "PCT", "ask again elsewhere what is later than PCT % of answers (0: not)", 0, 100},
	{"mixed-numerics", 0, MOE_OPT_FLAG, &opt.mixed_numerics, NULL, "accept servers with other rounding than ours", 0, 0},
	{0},
};

static const struct moe_tool tool = {"moe-route", usage, "Runs a mixture-of-experts model; its experts may be on servers.", options};

/* An option that was given and means nothing without servers, or NULL. */
static const char *of_servers(void)
{
	if (moe_transport_parse(opt.transport) != MOE_TRANSPORT_AUTO)
		return "--transport";
	if (opt.busy_poll != MOE_BUSY_POLL)
		return "--busy-poll";
	if (opt.presum)
		return "--presum";
	if (opt.check)
		return "--check";
	if (opt.degrade)
		return "--degrade";
	if (opt.hedge > 0)
		return "--hedge";
	return opt.mixed_numerics ? "--mixed-numerics" : NULL;
}

/* Options that cannot be meant, alone or together: 2, told; else 0 and how it is to be opened. */
static int wrong_usage(int argc, char **argv, struct moe_run_config *config, struct moe_err *e)
{
	if (argc != 1)
		return moe_usage(&tool, argc ? "one SHARDS at a time" : "which SHARDS? (a shard set, a checkpoint folder, or synth:NAME)");
	if (moe_transport_parse(opt.transport) < 0)
		return moe_usage(&tool, "--transport %s: not auto, zmq or shm", opt.transport);
	if (!moe_load_parse(opt.weights, &opt.load))
		return moe_usage(&tool, "--weights %s: not map, read, lock or copy", opt.weights);
	const char *remote = of_servers();
	if (remote && !opt.hosts && !opt.connect.n)
		return moe_usage(&tool, "%s needs servers (--hosts or --connect)", remote);
	if (opt.prompt && opt.score)
		return moe_usage(&tool, "--score reads JSON Lines, it does not go with -p");
	if (opt.prompt && opt.max_waiting >= 0)
		return moe_usage(&tool, "--max-waiting is for JSON Lines, it does not go with -p");
	if (opt.importance && (opt.hosts || opt.connect.n))
		return moe_usage(&tool, "--importance needs the experts in this process, without --hosts and --connect");
	if (opt.check && opt.prompt)
		return moe_usage(&tool, "--check generates nothing, it does not go with -p");
	if (opt.timeline_request && !opt.timeline)
		return moe_usage(&tool, "--timeline-request needs --timeline");
	if (opt.metrics_experts && !opt.metrics)
		return moe_usage(&tool, "--metrics-experts needs --metrics");
	if (opt.metrics && moe_http_check(opt.metrics, e))
		return moe_usage(&tool, "--metrics %s", e->msg);
	for (int i = 0; i < opt.stop.n; i++)
		if (!opt.stop.v[i][0])
			return moe_usage(&tool, "--stop: nothing to end before");
	return route_config(argv[0], &opt, (struct moe_load_tick){0}, config, e) ? moe_usage(&tool, "%s", e->msg) : 0;
}

/* Our answers are read no more: a silent end, as the system gives it to programs that have nothing to put in order before. */
static void leave_as_unread(void)
{
	signal(SIGPIPE, SIG_DFL);
	raise(SIGPIPE);
}

int main(int argc, char **argv)
{
	int rc = moe_opts_parse(&tool, &argc, argv);
	if (rc >= 0)
		return rc;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_run_config config;
	rc = wrong_usage(argc, argv, &config, &e);
	if (rc)
		return rc;
	route_signals_early();
	if (opt.check) {
		rc = route_check(&config, &e);
		moe_opts_free(&tool);
		return rc ? moe_die(&tool, &e) : moe_close_stdout(&tool);
	}
	struct route r = {0};
	uint64_t failed = 0;
	rc = route_open(&r, argv[0], &opt, &e);
	if (!rc) {
		route_signals(); /* not before: while servers are waited for there is nothing to finish */
		route_describe(&r, &opt);
	}
	if (!rc)
		rc = opt.prompt ? route_prompt(&r, &opt, &e) : route_lines(&r, &opt, &failed, &e);
	rc = route_write(&r, &opt, rc, &e);
	if (r.run)
		route_report(&r);
	route_close(&r);
	moe_opts_free(&tool);
	if (route_unread)
		leave_as_unread();
	if (rc)
		return moe_die(&tool, &e);
	if (moe_close_stdout(&tool) || failed)
		return 1;
	return route_stop == 2 ? 130 : 0;
}
