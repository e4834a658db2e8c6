/* What the parts of moe-bench share: tests, rows, formats. */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/opts.h"
#include "measure/measure.h"
#include "table.h"

/* One test: prompt tokens to read (pp) or tokens to generate (tg), for `batch` sequences at once. */
struct bench_test {
	int prompt, generate, batch, threads;
};

/* What a test measured. */
struct bench_row {
	struct bench_test test;
	char name[32];               /* "pp512", "tg64" */
	const char *model_file, *model_type, *cpu, *isa, *numerics;
	uint64_t model_size, model_params;
	int servers, chunk;
	char time[32];               /* when it began, ISO 8601 */
	int repetitions;
	uint64_t *ns;                /* [repetitions] */
	double *ts;                  /* [repetitions] tokens a second, all sequences together */
	double avg_ns, stddev_ns, avg_ts, stddev_ts;
};

struct bench_options {
	const char *model, *hosts, *kv, *format, *prompts, *generates, *batches, *threads, *wire;
	struct moe_strings connect;
	int64_t repetitions, chunk;
	double timeout;
	bool no_warmup;
};

/* Print a row; the first brings the table's head. */
int bench_row_print(struct bench_table *t, const struct bench_row *r, struct moe_err *e);

/* Are -p, -n, -b and -t lists, with something to measure?  e says what is wrong. */
int bench_check_lists(const struct bench_options *o, struct moe_err *e);
/* Run every combination and print a row each to stdout. */
int bench_run(const struct bench_options *o, struct moe_err *e);

/* A line on stderr, unless -q. */
void bench_roofs_log(const struct moe_roofs *r);

/* The subcommands: command lines of their own. */
int bench_synth_main(int argc, char **argv);
int bench_kernels_main(int argc, char **argv);
int bench_hardware_main(int argc, char **argv);
int bench_divergence_main(int argc, char **argv);

#endif
