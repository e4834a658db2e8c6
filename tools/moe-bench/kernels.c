/* moe-bench kernels: single products beside the roofs of the same run. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "bench.h"
#include "table.h"

#define LIST_MAX 64
#define ROOF_SECONDS 2.0

static struct {
	const char *shapes, *rows, *quants, *format, *activations;
	int64_t threads, experts;
	uint64_t memory;
	double seconds;
	bool exact, no_roofs;
} opt = {.shapes = "3584x2048,1024x384", .rows = "1,2,4,8,16,64,512", .quants = "bf16,q8,q4", .format = "md", .threads = 1, .seconds = 0.5};

static const char *const usage[] = {"moe-bench kernels [OPTION...]", NULL};

static const struct moe_opt options[] = {
	{"shape", 's', MOE_OPT_STR, &opt.shapes, "RxC,...", "matrices: outputs x inputs (3584x2048,1024x384)", 0, 0},
	{"rows", 'm', MOE_OPT_STR, &opt.rows, "N,...", "rows multiplied at once (1,2,4,8,16,64,512)", 0, 0},
	{"quant", 0, MOE_OPT_STR, &opt.quants, "TYPE,...", "f32, f16, bf16, q8, q4, q3, q2 (bf16,q8,q4)", 0, 0},
	{"experts", 0, MOE_OPT_INT, &opt.experts, "N", "whole FFNs of N experts a call, each with all rows", 1, 4096},
	{"exact", 0, MOE_OPT_FLAG, &opt.exact, NULL, "f32 activations for coded weights", 0, 0},
	{"activations", 0, MOE_OPT_STR, &opt.activations, "TYPE", "i8 (coded weights; the default), f32, or bf16 (bf16 weights)", 0, 0},
	{"memory", 0, MOE_OPT_SIZE, &opt.memory, "SIZE", "weights that take turns (twice the largest cache)", 0, 0},
	{"threads", 't', MOE_OPT_INT, &opt.threads, "N", "threads (1)", 1, 1024},
	{"seconds", 0, MOE_OPT_NUM, &opt.seconds, "S", "most time for each (0.5)", 0.001, 600},
	{"no-roofs", 0, MOE_OPT_FLAG, &opt.no_roofs, NULL, "do not measure the machine beside it", 0, 0},
	{"output", 'o', MOE_OPT_STR, &opt.format, "FORMAT", "md, csv, json, jsonl or sql (md)", 0, 0},
	{0},
};

static const struct moe_tool tool = {"moe-bench kernels", usage, "Times single matrix products and expert calls.", options};

struct shape {
	int64_t rows, cols;
};
struct lists {
	struct shape shape[LIST_MAX];
	int64_t m[LIST_MAX];
	enum moe_quant quant[LIST_MAX];
	int n_shapes, n_m, n_quants;
};

/* The next of the words between commas; NULL after the last. */
static const char *next_word(const char **text, char word[32])
{
	size_t n = strcspn(*text, ",");
	if (!**text && !n)
		return NULL;
	snprintf(word, 32, "%.*s", (int)n, *text);
	*text += n + ((*text)[n] == ',');
	return word;
}

static bool parse_shape(char *word, struct shape *out)
{
	char *x = strchr(word, 'x');
	if (!x)
		return false;
	*x = 0;
	return moe_parse_int(word, 1, 1 << 20, &out->rows) && moe_parse_int(x + 1, 1, 1 << 20, &out->cols);
}

static bool parse_lists(struct lists *l, const char **wrong)
{
	char word[32];
	const char *text = opt.shapes;
	*wrong = opt.shapes;
	while (next_word(&text, word))
		if (l->n_shapes == LIST_MAX || !parse_shape(word, &l->shape[l->n_shapes++]))
			return false;
	text = *wrong = opt.quants;
	while (next_word(&text, word))
		if (l->n_quants == LIST_MAX || !moe_quant_parse(word, &l->quant[l->n_quants++]))
			return false;
	*wrong = !l->n_shapes ? opt.shapes : !l->n_quants ? opt.quants : opt.rows;
	l->n_m = moe_parse_int_list(opt.rows, 1, 65536, l->m, LIST_MAX);
	return l->n_shapes && l->n_quants && l->n_m > 0;
}

struct session {
	struct moe_team *team;
	struct moe_backend *backend;
	struct moe_numerics numerics;
	struct moe_roofs roofs;
	struct bench_table table;
};

/* What was not measured is empty. */
static void put_fraction(char *buf, size_t cap, double v)
{
	if (isfinite(v))
		snprintf(buf, cap, "%.2f", v);
}

static double fraction(double rate, double roof)
{
	return roof > 0 ? rate / roof : NAN;
}

static int print(struct session *s, const struct moe_kernel_case *k, const struct moe_kernel_rate *r, struct moe_err *e)
{
	double gb = r->calls.steady * r->bytes / 1e9, gop = r->calls.steady * r->operations / 1e9;
	enum moe_arithmetic a = moe_arithmetic_of(k->quant, s->numerics.activation);
	double of_memory = fraction(gb * 1e9, s->roofs.memory.steady), of_dot = fraction(gop * 1e9, s->roofs.dot[a].steady);
	char shape[48];
	snprintf(shape, sizeof shape, "%lldx%lld", (long long)k->rows, (long long)k->cols);
	const struct bench_cell cells[] = {
		{.name = "isa", .text = moe_backend_cpu_isa(s->backend)},
		{.name = "n_threads", .kind = BENCH_WHOLE, .whole = (uint64_t)moe_team_size(s->team)},
		{.name = "shape", .text = shape},
		{.name = "quant", .text = moe_quant_name(k->quant)},
		{.name = "layout", .text = moe_layout_name(k->layout)},
		{.name = "arithmetic", .text = moe_arithmetic_name(a)},
		{.name = "experts", .kind = BENCH_WHOLE, .whole = (uint64_t)k->experts},
		{.name = "rows", .kind = BENCH_WHOLE, .whole = (uint64_t)k->m},
		{.name = "copies", .kind = BENCH_WHOLE, .whole = (uint64_t)r->copies},
		{.name = "ns", .kind = BENCH_REAL, .real = 1e9 / r->calls.steady},
		{.name = "spread", .kind = BENCH_REAL, .real = r->calls.spread},
		{.name = "samples", .kind = BENCH_WHOLE, .whole = (uint64_t)r->calls.samples},
		{.name = "gb_s", .kind = BENCH_REAL, .real = gb},
		{.name = "gop_s", .kind = BENCH_REAL, .real = gop},
		{.name = "bandwidth", .kind = BENCH_REAL, .real = opt.no_roofs ? NAN : s->roofs.memory.steady / 1e9},
		{.name = "peak", .kind = BENCH_REAL, .real = opt.no_roofs ? NAN : s->roofs.dot[a].steady / 1e9},
		{.name = "bandwidth_fraction", .kind = BENCH_REAL, .real = of_memory},
		{.name = "peak_fraction", .kind = BENCH_REAL, .real = of_dot},
	};
	struct bench_column columns[] = {{"shape", 12, ""}, {"quant", 5, ""}, {"rows", 5, ""}, {"us", 10, ""}, {"GB/s", 7, ""},
	                                 {"of memory", 9, ""}, {"GOP/s", 8, ""}, {"of peak", 7, ""}, {"peak", 4, ""}, {"±", 5, ""}};
	snprintf(columns[0].text, sizeof columns->text, "%s", shape);
	snprintf(columns[1].text, sizeof columns->text, "%s", moe_quant_name(k->quant));
	snprintf(columns[2].text, sizeof columns->text, "%d", k->m);
	snprintf(columns[3].text, sizeof columns->text, "%.1f", 1e6 / r->calls.steady);
	snprintf(columns[4].text, sizeof columns->text, "%.2f", gb);
	put_fraction(columns[5].text, sizeof columns->text, of_memory);
	snprintf(columns[6].text, sizeof columns->text, "%.1f", gop);
	put_fraction(columns[7].text, sizeof columns->text, of_dot);
	snprintf(columns[8].text, sizeof columns->text, "%s", moe_arithmetic_name(a));
	snprintf(columns[9].text, sizeof columns->text, "%.0f %%", 100 * r->calls.spread);
	const struct bench_line line = {cells, sizeof cells / sizeof *cells, columns, sizeof columns / sizeof *columns};
	return bench_table_add(&s->table, &line, e);
}

static int one(struct session *s, struct shape shape, enum moe_quant q, int m, struct moe_err *e)
{
	struct moe_kernel_case k = {
		.quant = q, .layout = moe_quant_is_coded(q) ? MOE_L_R64 : MOE_L_PLAIN,
		.rows = shape.rows, .cols = shape.cols, .m = m, .experts = (int)opt.experts,
	};
	struct moe_kernel_rate r;
	size_t memory = opt.memory ? (size_t)opt.memory : 2 * moe_machine_cache();
	int rc = moe_measure_kernel(s->backend, &k, memory, opt.seconds, &r, e);
	return rc ? moe_fail_prefix(e, rc, "%lldx%lld %s", (long long)k.rows, (long long)k.cols, moe_quant_name(q)) : print(s, &k, &r, e);
}

static int all(struct session *s, const struct lists *l, struct moe_err *e)
{
	int rc = 0;
	for (int i = 0; i < l->n_shapes; i++)
		for (int q = 0; q < l->n_quants; q++)
			for (int m = 0; m < l->n_m && !rc; m++)
				rc = one(s, l->shape[i], l->quant[q], (int)l->m[m], e);
	return rc;
}

static int run(const struct lists *l, const struct moe_numerics *numerics, struct moe_err *e)
{
	struct session s = {.table = {.f = stdout, .format = (enum bench_format)bench_format_parse(opt.format), .name = "kernel"}};
	s.numerics = *numerics;
	int rc = moe_team_new((int)opt.threads, &s.team, e);
	rc = rc ? rc : moe_backend_cpu(s.team, &s.numerics, &s.backend, e);
	if (!rc && !opt.no_roofs)
		rc = bench_roofs((int)opt.threads, ROOF_SECONDS, &s.roofs, e);
	rc = rc ? rc : all(&s, l, e);
	bench_table_end(&s.table);
	if (s.backend)
		s.backend->ops->close(s.backend);
	moe_team_free(s.team);
	return rc;
}

int bench_kernels_main(int argc, char **argv)
{
	struct lists l = {.n_shapes = 0};
	const char *wrong;
	int rc = moe_opts_parse(&tool, &argc, argv);
	if (rc >= 0)
		return rc;
	if (argc)
		return moe_usage(&tool, "what is %s?", argv[0]);
	if (bench_format_parse(opt.format) < 0)
		return moe_usage(&tool, "-o %s: not md, csv, json, jsonl or sql", opt.format);
	if (!parse_lists(&l, &wrong))
		return moe_usage(&tool, "%s: not a list of %s", wrong,
		                 wrong == opt.shapes   ? "shapes, as 3584x2048"
		                 : wrong == opt.quants ? "f32, f16, bf16, q8, q4, q3 and q2"
		                                       : "numbers from 1 to 65536");

	struct moe_err e = MOE_ERR_INIT;
	struct moe_numerics numerics;
	if (moe_numerics_choose(opt.exact, opt.activations, &numerics, &e))
		return moe_usage(&tool, "%s", e.msg);
	rc = run(&l, &numerics, &e);
	return rc ? moe_die(&tool, &e) : moe_close_stdout(&tool);
}
