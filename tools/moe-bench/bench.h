/* What the parts of moe-bench share: tests, rows, options. */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/opts.h"
#include "measure/measure.h"
#include "run/run.h"
#include "table.h"

/* ---- tests ---- */

enum bench_what {
	BENCH_PP,                    /* read prompts, up to the first token of each */
	BENCH_TG,                    /* generate, one token a sequence and step */
	BENCH_PG,                    /* the one, then the other */
	BENCH_MIXED,                 /* requests of many lengths, admitted as places get free */
	BENCH_READY,                 /* from the start to where a request could be taken */
	BENCH_LOAD,                  /* from the start to the first token */
	BENCH_NET,                   /* a batch of rows to the servers and back */
};
struct bench_test {
	enum bench_what what;
	int prompt, generate;        /* tokens; of BENCH_MIXED at most */
	int depth;                   /* positions filled before, not timed */
	int batch;                   /* sequences at once; of BENCH_NET rows */
};
struct bench_options {
	const char *model, *hosts, *client_key, *server_key, *activations, *kv, *format, *prompts, *generates, *batches, *threads, *depths, *wire, *overlap, *plot, *transport, *weights;
	enum moe_load load_how;      /* by weights */
	int64_t busy_poll;
	struct moe_strings connect, pairs;
	int64_t repetitions, chunk;
	double timeout, hedge;
	bool no_warmup, no_roofs, exact, mixed, load, cold, net, predict;
};
/* The lists of options as numbers, and the tests they make. */
struct bench_plan {
	struct bench_test *tests;
	int n;
	int64_t threads[64];         /* 0: all cores */
	int n_threads;
	int max_batch, ctx;          /* what the engine must have room for */
	int max_prompt;              /* longest prompt, its depth included */
};
/* e says what is wrong with the lists.  bench_plan_free also after a failure. */
int bench_plan_make(const struct bench_options *o, struct bench_plan *out, struct moe_err *e);
void bench_plan_free(struct bench_plan *p);
/* "pp512", "tg64 @ d4096", "pp512+tg64", "mixed512+64", "ready", "load", "net" */
void bench_test_name(const struct bench_test *t, char *buf, size_t cap);
/* Tokens that a test reads and generates while it is timed. */
int64_t bench_test_tokens(const struct bench_test *t);
/* Request i of BENCH_MIXED: its lengths; there are BENCH_MIXED_ROUNDS for each place. */
#define BENCH_MIXED_ROUNDS 4
void bench_mixed_lengths(const struct bench_test *t, int i, int *prompt, int *generate);

/* ---- playing a test ---- */

/* An engine's events as a test needs them. */
struct bench_watch {
	struct moe_err err;          /* of the first request that failed */
	uint64_t tokens, firsts;     /* events; those that were a request's first */
	struct moe_meter *meter;     /* told of logits, when not NULL */
};
int bench_on_event(void *watch, const struct moe_event *ev);
/* One repetition: fill what is not timed, time the rest, leave the engine empty.  cost: also count (NULL: not). */
struct bench_player {
	struct moe_run *run;
	struct bench_watch *watch;
	struct moe_meter *meter;     /* NULL: none */
	int32_t *tokens;             /* [max_prompt] */
};
int bench_play(const struct bench_player *p, const struct bench_test *t, uint64_t *ns, struct moe_cost *cost, struct moe_err *e);

/* ---- rows ---- */

/* What repetitions gave. */
struct bench_samples {
	int n;
	uint64_t *ns;                /* [n] */
	double *ts;                  /* [n] tokens a second, all sequences together; NAN where there are none */
	double avg_ns, stddev_ns, median_ns, p99_ns, avg_ts, stddev_ts;
};
int bench_statistics(struct bench_samples *s, struct moe_err *e);

struct bench_row {
	struct bench_test test;
	char name[64];
	const char *model_file, *model_type, *quants, *cpu, *isa, *numerics, *kv;
	uint64_t model_size, model_params;
	int threads, servers, chunk, moe_layers;
	char time[32];               /* when it began, ISO 8601 */
	struct bench_samples samples;
	const struct moe_roofs *roofs; /* NULL: not measured */
	struct moe_cost cost;        /* of a repetition, when there are roofs */
	bool counted;
	double peak_rss, net_bytes;  /* of starting up: bytes; with servers: bytes for a row and layer; else NAN */
	bool predicting;             /* --predict: there is a column for it */
	double predicted_ts;         /* NAN: not predicted */
};
/* How near a row came to its roof: the one that would have taken it longest. */
struct bench_roof {
	const char *name;            /* "bandwidth", "f32", "bf16", "i8"; NULL: unknown */
	double gb_s, gflop_s;        /* NAN: unknown */
	double fraction;
};
struct bench_roof bench_row_roof(const struct bench_row *r);
/* Print a row; the first brings the table's head. */
int bench_row_print(struct bench_table *t, const struct bench_row *r, struct moe_err *e);

/* ---- the machine ---- */

/* Measure at this number of threads (0: all) and say it in a line on stderr, unless -q. */
int bench_roofs(int threads, double seconds, struct moe_roofs *out, struct moe_err *e);
const char *bench_commit(void); /* of the source this was built from; "" when that is not known */

/* ---- predictions ---- */

struct bench_predictor {
	const struct moe_model *model;
	struct moe_hardware hardware; /* with the run's kernels, measured */
	struct moe_quants quants;
	int kv_bytes;
	bool exact;
};
/* Measure the kernels of r's quants; `roofs` are of r's number of threads.  r outlives it. */
int bench_predictor_make(const struct moe_run *r, const struct moe_roofs *roofs, struct bench_predictor *out, struct moe_err *e);
/* Tokens a second; NAN for tests that no prediction is for. */
double bench_predict(const struct bench_predictor *p, const struct bench_test *t, int chunk);

/* ---- tests that need more than an engine ---- */

/* One start, in a process of its own: until a request could be taken, until the first token, and the most memory that was
 * resident. */
struct bench_start {
	uint64_t ready_ns, token_ns;
	double peak_rss;
};
int bench_load_once(const struct moe_run_config *c, struct bench_start *out, struct moe_err *e);
/* Take the data files of a folder out of the system's cache, as far as nobody else has them mapped. */
int bench_evict(const char *dir, struct moe_err *e);
/* Batches of `rows` rows through the experts, one after the other: the round trip of each. */
int bench_net(struct moe_run *r, int rows, struct bench_samples *out, struct moe_err *e);

/* ---- commands ---- */

int bench_run(const struct bench_options *o, const struct bench_plan *plan, struct moe_err *e);
/* Command lines of their own. */
int bench_synth_main(int argc, char **argv);
int bench_kernels_main(int argc, char **argv);
int bench_hardware_main(int argc, char **argv);
int bench_offload_main(int argc, char **argv);
int bench_compare_main(int argc, char **argv);
int bench_divergence_main(int argc, char **argv);

#endif
