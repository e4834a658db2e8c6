/* What the parts of moe-route share. */
#ifndef ROUTE_H
#define ROUTE_H

#include <signal.h>
#include <stdatomic.h>

#include "base/log.h"
#include "base/opts.h"
#include "engine/engine.h"
#include "run/run.h"
#include "text/text.h"

struct route_options {
	const char *prompt, *importance, *usage, *trace, *hosts, *client_key, *server_key, *activations, *kv, *wire, *overlap, *transport, *weights;
	const char *policy, *device, *schedule, *pinned, *metrics, *timeline, *timeline_request;
	struct moe_strings connect, stop;
	int64_t max_tokens, ctx, batch, max_waiting, chunk, threads, top_k, seed, busy_poll;
	enum moe_load load;          /* by weights */
	int64_t micro_batches, micro_batch;
	uint64_t kv_memory, device_memory, link_bandwidth;
	double timeout, temperature, top_p, min_p, resident, hedge, memory_pressure;
	bool check, metrics_experts, degrade, exact, verify, no_prefix_cache, score, unordered, ignore_eos, logprobs, presum, mixed_numerics;
};

/* What a request has when it says nothing itself. */
struct route_defaults {
	struct moe_sampling sampling;
	int max_tokens;
	bool ignore_eos, logprobs, score;
	struct moe_strings stop;
};

/* How it is to be opened; *shards, o and tick outlive it.  MOE_E_RANGE: words that mean nothing, or not together. */
int route_config(const char *shards, const struct route_options *o, struct moe_load_tick tick, struct moe_run_config *out, struct moe_err *e);

/* Everything that is open while requests run. */
struct route {
	struct moe_run *run;
	struct moe_tokenizer *text;       /* NULL: the checkpoint has none */
	struct moe_tally *tally;          /* NULL: neither --usage nor --trace */
	struct metrics *metrics;          /* NULL: nobody watches */
	struct timeline *timeline;        /* NULL: not wanted */
	struct route_defaults defaults;
};

/* Open the model, its tokenizer and its experts.  On failure what was opened is still route_close's to close. */
int route_open(struct route *r, const char *shards, const struct route_options *o, struct moe_err *e);
void route_close(struct route *r);
/* One step of the engine, watched by who watches. */
int route_step(struct route *r, bool *busy, struct moe_err *e);
/* What --importance, --usage and --trace want of the run, which ended with rc; returns rc, or why a file could not be written. */
int route_write(struct route *r, const struct route_options *o, int rc, struct moe_err *e);
/* -v: what is in effect, on stderr. */
void route_describe(const struct route *r, const struct route_options *o);
/* Words of many lines, each a line of the log. */
void route_log_lines(const struct moe_buf *b, enum moe_level level);
/* And, at the end, what was done. */
void route_report(const struct route *r);

/* --check: a line on stdout when there is a server for every expert; else e says what is missing. */
int route_check(const struct moe_run_config *c, struct moe_err *e);
/* -p: one prompt, text on stdout as it comes.  0, or 1 after its error was put in e. */
int route_prompt(struct route *r, const struct route_options *o, struct moe_err *e);
/* JSON Lines from stdin to stdout.  *failed: lines that got an error. */
int route_lines(struct route *r, const struct route_options *o, uint64_t *failed, struct moe_err *e);
/* All of it to stdout, at once; signals do not cut it short. */
int route_put(const char *s, size_t n, struct moe_err *e);
/* Whoever read stdout has gone, which is why route_put failed. */
extern bool route_unread;
/* Set by signals: 1 drain (SIGTERM), 2 cancel (SIGINT). */
extern atomic_int route_stop;
/* SIGHUP, from the start; the others once there is something to finish. */
void route_signals_early(void);
void route_signals(void);
/* SIGHUP has come: look at the list of servers and at keys again. */
void route_look(const struct route *r);

#endif
