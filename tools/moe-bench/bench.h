/* What the parts of moe-bench share: tests, rows, formats. */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/opts.h"

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
	const char *model, *hosts, *format, *prompts, *generates, *batches, *threads;
	struct moe_strings connect;
	int64_t repetitions, chunk;
	double timeout;
	bool no_warmup;
};

enum bench_format { BENCH_MD, BENCH_CSV, BENCH_JSON, BENCH_JSONL, BENCH_SQL, BENCH_FORMATS };
/* -1: no such format. */
int bench_format_parse(const char *name);
/* Rows are printed as they come; first and last frame them, when there are any. */
void bench_print_first(FILE *f, enum bench_format format);
int bench_print_row(FILE *f, enum bench_format format, const struct bench_row *r, int index, struct moe_err *e);
void bench_print_last(FILE *f, enum bench_format format);

/* Are -p, -n, -b and -t lists, with something to measure?  e says what is wrong. */
int bench_check_lists(const struct bench_options *o, struct moe_err *e);
/* Run every combination and print a row each to stdout. */
int bench_run(const struct bench_options *o, struct moe_err *e);

/* The subcommand `moe-bench synth`: its own command line. */
int bench_synth_main(int argc, char **argv);

#endif
