/* moe-bench compare: is the new one slower? */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "bench.h"
#include "results.h"

#define ROUNDS 5
#define ENOUGH 3                 /* samples of each side; fewer say nothing */

static struct {
	const char *format, *ignore;
	double threshold;
	int64_t rounds;
	bool run, tap;
} opt = {.format = "md", .threshold = 5};

static unsigned ignored;         /* keys of rows, of --ignore */

static const char *const usage[] = {
	"moe-bench compare [OPTION...] OLD NEW",
	"moe-bench compare --run [OPTION...] OLD-PROGRAM NEW-PROGRAM -- ARGUMENT...",
	NULL,
};

static const struct moe_opt options[] = {
	{"threshold", 0, MOE_OPT_NUM, &opt.threshold, "PCT", "a regression is surely more than PCT % slower (5)", 0, 99},
	{"run", 0, MOE_OPT_FLAG, &opt.run, NULL, "run two builds of moe-bench in turn instead of reading files", 0, 0},
	{"rounds", 0, MOE_OPT_INT, &opt.rounds, "N", "with --run: runs of each (5)", 1, 1000},
	{"ignore", 0, MOE_OPT_STR, &opt.ignore, "FIELD,...", "match rows that differ in these; model: whatever the model", 0, 0},
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
	const char *threads = r->key[KEY_THREADS];
	snprintf(buf, cap, "%s %s, %s thread%s, batch %s", *r->key[KEY_MODEL] ? r->key[KEY_MODEL] : r->key[KEY_TYPE],
	         *r->key[KEY_TEST] ? r->key[KEY_TEST] : "test", *threads ? threads : "?", strcmp(threads, "1") ? "s" : "",
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

static bool is_text(int key)
{
	return key == KEY_MODEL || key == KEY_TYPE || key == KEY_ISA || key == KEY_TYPE_K || key == KEY_TYPE_V || key == KEY_TEST;
}

/* A key as the rows themselves have it; a number that a row does not say is none. */
static struct bench_cell key_cell(const char *name, const char *value, bool text)
{
	int64_t n;
	if (text)
		return (struct bench_cell){.name = name, .text = value};
	if (moe_parse_int(value, 0, INT64_MAX, &n))
		return (struct bench_cell){.name = name, .kind = BENCH_WHOLE, .whole = (uint64_t)n};
	return (struct bench_cell){.name = name, .kind = BENCH_REAL, .real = NAN};
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
		cells[n] = key_cell(names[n], row->key[n], is_text(n));
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

/* The row of `all` that is the same measurement; NULL: none.  *several: there are more, which --ignore made alike. */
static const struct bench_result *find(const struct bench_results *all, const struct bench_result *row, bool *several)
{
	const struct bench_result *found = NULL;
	*several = false;
	for (int i = 0; i < all->n; i++)
		if (bench_result_same(&all->v[i], row, ignored)) {
			*several = found != NULL;
			found = &all->v[i];
		}
	return found;
}

static int fail_several(const struct bench_result *row, struct moe_err *e)
{
	char text[256];
	label(row, text, sizeof text);
	return moe_fail(e, MOE_E_INPUT, "several new rows match the old %s; let --ignore name less", text);
}

/* Rows in the order of the old results; then those that only the new ones have. */
static int compare(struct comparison *c, const struct bench_results *old, const struct bench_results *new, struct moe_err *e)
{
	const struct bench_ratio none = {NAN, NAN, NAN, NAN, NAN, 0};
	bool several;
	int rc = 0;
	for (int i = 0; i < old->n && !rc; i++) {
		const struct bench_result *now = find(new, &old->v[i], &several);
		struct bench_ratio r;
		if (several)
			return fail_several(&old->v[i], e);
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
		if (!find(old, &new->v[i], &several))
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
		return bench_alternate(bin, argv + 2, argc - 2, opt.rounds ? (int)opt.rounds : ROUNDS, r, e);
	int rc = bench_results_read(&r[0], argv[0], e);
	return rc ? rc : bench_results_read(&r[1], argv[1], e);
}

/* Of --run, what comes after -- is for the programs: the first two operands must be no options of theirs. */
static bool are_two(int argc, char **argv)
{
	return opt.run ? argc >= 2 && argv[0][0] != '-' && argv[1][0] != '-' : argc == 2;
}

int bench_compare_main(int argc, char **argv)
{
	struct moe_err e = MOE_ERR_INIT;
	int rc = moe_opts_parse(&tool, &argc, argv);
	if (rc >= 0)
		return rc;
	if (!are_two(argc, argv))
		return moe_usage(&tool, opt.run ? "which two programs?" : "which two files?");
	if (opt.rounds && !opt.run)
		return moe_usage(&tool, "--rounds needs --run: files are read once");
	if (opt.ignore && bench_keys_parse(opt.ignore, &ignored, &e))
		return moe_usage(&tool, "--ignore: %s", e.msg);
	if (bench_format_parse(opt.format) < 0)
		return moe_usage(&tool, "-o %s: not md, csv, json, jsonl or sql", opt.format);

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
