/* moe-bench compare: is the new one slower? */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "bench.h"
#include "results.h"

#define ENOUGH 3                 /* samples of each side; fewer say nothing */

static struct {
	const char *format;
	double threshold;
	int64_t rounds;
	bool run, tap;
} opt = {.format = "md", .threshold = 5, .rounds = 5};

static const char *const usage[] = {
	"moe-bench compare [OPTION...] OLD NEW",
	"moe-bench compare --run [OPTION...] OLD-PROGRAM NEW-PROGRAM -- ARGUMENT...",
	NULL,
};

static const struct moe_opt options[] = {
	{"threshold", 0, MOE_OPT_NUM, &opt.threshold, "PCT", "a regression is surely more than PCT % slower (5)", 0, 99},
	{"run", 0, MOE_OPT_FLAG, &opt.run, NULL, "run two builds of moe-bench in turn instead of reading files", 0, 0},
	{"rounds", 0, MOE_OPT_INT, &opt.rounds, "N", "with --run: runs of each (5)", 1, 1000},
	{"tap", 0, MOE_OPT_FLAG, &opt.tap, NULL, "a line of TAP for each row", 0, 0},
	{"output", 'o', MOE_OPT_STR, &opt.format, "FORMAT", "md, csv, json, jsonl or sql (md)", 0, 0},
	{0},
};

static const struct moe_tool tool = {"moe-bench compare", usage, "Compares results; exit status 1 when something became slower.", options};

struct comparison {
	struct bench_table table;
	int rows, matched, regressions;
};

static const char *verdict(const struct bench_ratio *r)
{
	if (r->least < ENOUGH)
		return "unsure";
	if (r->hi < 1 - opt.threshold / 100)
		return "regression";
	return r->lo > 1 + opt.threshold / 100 ? "faster" : "same";
}

/* "mixtral-mini pp512, 2 threads, batch 8" */
static void label(const struct bench_result *r, char *buf, size_t cap)
{
	snprintf(buf, cap, "%s %s, %s threads, batch %s", *r->key[KEY_MODEL] ? r->key[KEY_MODEL] : r->key[KEY_TYPE],
	         *r->key[KEY_TEST] ? r->key[KEY_TEST] : "test", *r->key[KEY_THREADS] ? r->key[KEY_THREADS] : "?",
	         *r->key[KEY_BATCH] ? r->key[KEY_BATCH] : "?");
}

static void print_tap(struct comparison *c, const struct bench_result *row, const struct bench_ratio *r, const char *word)
{
	char text[512];
	label(row, text, sizeof text);
	for (char *p = text; *p; p++) /* what follows # is a directive */
		*p = *p == '#' || *p == '\n' ? ' ' : *p;
	if (isnan(r->ratio))
		printf("ok %d - %s # SKIP %s\n", c->rows, text, word);
	else
		printf("%sok %d - %s: %.3f of the old speed (%.3f to %.3f), %s\n", strcmp(word, "regression") ? "" : "not ", c->rows, text, r->ratio,
		       r->lo, r->hi, word);
}

/* Tokens a second; where there are none, nothing. */
static double speed(const struct bench_result *row, double ns)
{
	return row->work > 0 ? row->work * 1e9 / ns : NAN;
}

static void put_speed(char *buf, size_t cap, const struct bench_result *row, double ns)
{
	if (!isfinite(ns))
		buf[0] = 0;
	else if (row->work > 0)
		snprintf(buf, cap, "%.2f", speed(row, ns));
	else
		snprintf(buf, cap, "%.3f ms", ns / 1e6);
}

static void set_columns(const struct bench_result *row, const struct bench_ratio *r, const char *word, struct bench_column *c)
{
	snprintf(c[0].text, sizeof c->text, "%s", *row->key[KEY_MODEL] ? row->key[KEY_MODEL] : row->key[KEY_TYPE]);
	snprintf(c[1].text, sizeof c->text, "%s", row->key[KEY_THREADS]);
	snprintf(c[2].text, sizeof c->text, "%s", row->key[KEY_BATCH]);
	snprintf(c[3].text, sizeof c->text, "%s", row->key[KEY_TEST]);
	put_speed(c[4].text, sizeof c->text, row, r->old_ns);
	put_speed(c[5].text, sizeof c->text, row, r->new_ns);
	if (isfinite(r->ratio)) {
		snprintf(c[6].text, sizeof c->text, "%.3f", r->ratio);
		snprintf(c[7].text, sizeof c->text, "%.3f to %.3f", r->lo, r->hi);
	}
	snprintf(c[8].text, sizeof c->text, "%s", word);
}

static int print_row(struct comparison *c, const struct bench_result *row, const struct bench_ratio *r, const char *word, struct moe_err *e)
{
	struct bench_cell cells[BENCH_KEYS + 8];
	static const char *const names[BENCH_KEYS] = {"model", "model_type", "model_n_params", "model_size", "isa", "n_threads", "n_servers", "type_k",
		"type_v", "n_batch", "n_ubatch", "n_prompt", "n_gen", "n_depth", "test"};
	struct bench_column columns[] = {{"model", -24, ""}, {"threads", 7, ""}, {"batch", 5, ""}, {"test", 12, ""}, {"old t/s", 10, ""},
	                                 {"new t/s", 10, ""}, {"new/old", 7, ""}, {"95 %", 14, ""}, {"", -10, ""}};
	int n = 0;
	c->rows++;
	if (opt.tap) {
		print_tap(c, row, r, word);
		return 0;
	}
	for (; n < BENCH_KEYS; n++)
		cells[n] = (struct bench_cell){.name = names[n], .text = row->key[n]};
	cells[n++] = (struct bench_cell){.name = "old_ns", .kind = BENCH_REAL, .real = r->old_ns};
	cells[n++] = (struct bench_cell){.name = "new_ns", .kind = BENCH_REAL, .real = r->new_ns};
	cells[n++] = (struct bench_cell){.name = "old_ts", .kind = BENCH_REAL, .real = speed(row, r->old_ns)};
	cells[n++] = (struct bench_cell){.name = "new_ts", .kind = BENCH_REAL, .real = speed(row, r->new_ns)};
	cells[n++] = (struct bench_cell){.name = "ratio", .kind = BENCH_REAL, .real = r->ratio};
	cells[n++] = (struct bench_cell){.name = "ratio_lo", .kind = BENCH_REAL, .real = r->lo};
	cells[n++] = (struct bench_cell){.name = "ratio_hi", .kind = BENCH_REAL, .real = r->hi};
	cells[n++] = (struct bench_cell){.name = "verdict", .text = word};
	set_columns(row, r, word, columns);
	const struct bench_line line = {cells, n, columns, sizeof columns / sizeof *columns};
	return bench_table_add(&c->table, &line, e);
}

static const struct bench_result *find(const struct bench_results *all, const struct bench_result *row)
{
	for (int i = 0; i < all->n; i++)
		if (bench_result_same(&all->v[i], row))
			return &all->v[i];
	return NULL;
}

/* Rows in the order of the old results; then those that only the new ones have. */
static int compare(struct comparison *c, const struct bench_results *old, const struct bench_results *new, struct moe_err *e)
{
	const struct bench_ratio none = {NAN, NAN, NAN, NAN, NAN, 0};
	int rc = 0;
	for (int i = 0; i < old->n && !rc; i++) {
		const struct bench_result *now = find(new, &old->v[i]);
		struct bench_ratio r;
		if (!now) {
			rc = print_row(c, &old->v[i], &none, "only old", e);
			continue;
		}
		rc = bench_ratio(&old->v[i], now, opt.run, &r, e);
		c->matched++;
		c->regressions += !rc && !strcmp(verdict(&r), "regression");
		rc = rc ? rc : print_row(c, &old->v[i], &r, verdict(&r), e);
	}
	for (int i = 0; i < new->n && !rc; i++)
		if (!find(old, &new->v[i]))
			rc = print_row(c, &new->v[i], &none, "only new", e);
	if (opt.tap)
		printf("1..%d\n", c->rows);
	bench_table_end(&c->table);
	if (!rc && !c->matched)
		rc = moe_fail(e, MOE_E_INPUT, "no row is in both, so nothing was compared");
	return rc;
}

static int gather(char **argv, int argc, struct bench_results r[2], struct moe_err *e)
{
	const char *const bin[2] = {argv[0], argv[1]};
	if (opt.run)
		return bench_alternate(bin, argv + 2, argc - 2, (int)opt.rounds, r, e);
	int rc = bench_results_read(&r[0], argv[0], e);
	return rc ? rc : bench_results_read(&r[1], argv[1], e);
}

int bench_compare_main(int argc, char **argv)
{
	int rc = moe_opts_parse(&tool, &argc, argv);
	if (rc >= 0)
		return rc;
	if (argc < 2 || (argc > 2 && !opt.run))
		return moe_usage(&tool, opt.run ? "which two programs?" : "which two files?");
	if (bench_format_parse(opt.format) < 0)
		return moe_usage(&tool, "-o %s: not md, csv, json, jsonl or sql", opt.format);

	struct moe_err e = MOE_ERR_INIT;
	struct bench_results r[2] = {{NULL, 0}, {NULL, 0}};
	struct comparison c = {.table = {.f = stdout, .format = (enum bench_format)bench_format_parse(opt.format), .name = "comparison"}};
	rc = gather(argv, argc, r, &e);
	rc = rc ? rc : compare(&c, &r[0], &r[1], &e);
	bench_results_free(&r[0]);
	bench_results_free(&r[1]);
	if (rc)
		return moe_die(&tool, &e);
	rc = moe_close_stdout(&tool);
	return rc ? rc : c.regressions > 0;
}
