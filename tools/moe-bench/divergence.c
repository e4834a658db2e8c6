/* moe-bench divergence: what rounding costs.  The same tokens are read by a reference, in its exact numerics, and by other
 * models of the same vocabulary (its quantised forms, say); their next-token distributions are compared. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "bench.h"
#include "run/run.h"
#include "table.h"
#include "text/text.h"

#define LENGTH 256               /* of a sequence, when nothing is said and the models have such a context */
#define TEXT_CAP ((size_t)256 << 20)

static struct {
	const char *model, *text, *format, *activations;
	int64_t length, positions, threads, seed;
	bool exact;
	struct moe_numerics numerics;    /* of the others, by exact and activations */
} opt = {.format = "md", .positions = 4096};

static const char *const usage[] = {"moe-bench divergence -m REFERENCE [OPTION...] SHARDS...", NULL};

static const struct moe_opt options[] = {
	{"model", 'm', MOE_OPT_STR, &opt.model, "REFERENCE", "what the others are compared with; always run exactly", 0, 0},
	{"text", 0, MOE_OPT_STR, &opt.text, "FILE", "read this text (default: random tokens)", 0, 0},
	{"positions", 0, MOE_OPT_INT, &opt.positions, "N", "most positions to compare (4096)", 1, 1 << 24},
	{"length", 0, MOE_OPT_INT, &opt.length, "N", "tokens of a sequence (256, or the shortest context of the models)", 2, 65536},
	{"seed", 0, MOE_OPT_INT, &opt.seed, "S", "of random tokens (0)", 0, 9007199254740992.0},
	{"threads", 't', MOE_OPT_INT, &opt.threads, "N", "threads (default: all cores)", 1, 1024},
	{"output", 'o', MOE_OPT_STR, &opt.format, "FORMAT", "md, csv, json, jsonl or sql (md)", 0, 0},
	{"exact", 0, MOE_OPT_FLAG, &opt.exact, NULL, "run the others exactly too: only what their weights lost", 0, 0},
	{"activations", 0, MOE_OPT_STR, &opt.activations, "TYPE", "of the others: i8 (coded weights; the default), f32, or bf16 (bf16 weights)", 0, 0},
	{0},
};

static const struct moe_tool tool = {"moe-bench divergence", usage, "Measures how far models are from a reference.", options};

/* One model that is open, and where the logits of the sequence at hand go: kept (the reference), or compared. */
struct subject {
	struct moe_run *run;
	float *keep;                     /* [length, vocab], the reference's own */
	const float *against;            /* the reference's, or NULL */
	double *kl;                      /* [positions] in nats */
	int64_t n, agree;
	struct moe_err err;
};

/* KL(p || q) of two rows of logits. */
static double divergence(const float *p, const float *q, int vocab)
{
	double pm = -INFINITY, qm = -INFINITY, ps = 0, qs = 0, sum = 0;

	for (int i = 0; i < vocab; i++) {
		pm = p[i] > pm ? p[i] : pm;
		qm = q[i] > qm ? q[i] : qm;
	}
	for (int i = 0; i < vocab; i++) {
		ps += exp(p[i] - pm);
		qs += exp(q[i] - qm);
	}
	for (int i = 0; i < vocab; i++)
		sum += exp(p[i] - pm) / ps * ((p[i] - pm - log(ps)) - (q[i] - qm - log(qs)));
	return sum > 0 ? sum : 0; /* what is below zero is rounding */
}

static int likeliest(const float *v, int n)
{
	int best = 0;

	for (int i = 1; i < n; i++)
		best = v[i] > v[best] ? i : best;
	return best;
}

static int on_event(void *ctx, const struct moe_event *ev)
{
	struct subject *s = ctx;
	size_t vocab = s->run ? (size_t)s->run->model->vocab : 0, at = (size_t)ev->position * vocab;

	if (ev->kind == MOE_EV_DONE && ev->err)
		s->err = *ev->err;
	if (ev->kind != MOE_EV_SCORE)
		return 0;
	if (s->keep) {
		memcpy(s->keep + at, ev->logits, vocab * sizeof *s->keep);
		return 0;
	}
	s->kl[s->n++] = divergence(s->against + at, ev->logits, (int)vocab);
	s->agree += likeliest(s->against + at, (int)vocab) == likeliest(ev->logits, (int)vocab);
	return 0;
}

static int score(struct subject *s, const int32_t *tokens, int n, struct moe_err *e)
{
	struct moe_request q = {.tokens = tokens, .n_tokens = n, .sampling = MOE_SAMPLING_GREEDY, .score = true};
	bool busy = true;
	uint64_t id;
	int rc = moe_engine_submit(s->run->engine, &q, &id, e);

	while (!rc && busy)
		rc = moe_engine_step(s->run->engine, &busy, e);
	if (!rc && s->err.code) {
		*e = s->err;
		rc = e->code;
	}
	return rc;
}

static int open_subject(struct subject *s, const char *shards, const struct moe_numerics *n, struct moe_err *e)
{
	struct moe_run_config c = {
		.shards = shards, .timeout = 30, .threads = (int)opt.threads, .numerics = *n,
		.most_ctx = LENGTH,
		.engine = {.max_sequences = 1, .ctx = (int)opt.length, .chunk = 256, .on_event = on_event, .ctx_event = s},
	};

	return moe_run_open(&c, &s->run, e);
}

/* ---- tokens ---- */

static int tokens_of_text(const struct moe_run *r, struct moe_ids *out, struct moe_err *e)
{
	const char *dir = moe_source_text_dir(r->source);
	struct moe_tokenizer *t = NULL;
	char *text = NULL;
	size_t len = 0;
	int rc;

	if (!dir)
		return moe_fail(e, MOE_E_MISSING, "%s has no tokenizer, it can only be compared on random tokens", opt.model);
	rc = moe_read_file(opt.text, TEXT_CAP, &text, &len, e);
	rc = rc ? rc : moe_tokenizer_open(dir, &t, e);
	rc = rc ? rc : moe_encode(t, text, len, false, out, e);
	moe_tokenizer_free(t);
	free(text);
	if (!rc && out->n < 2)
		rc = moe_fail(e, MOE_E_INPUT, "%s: fewer than two tokens", opt.text);
	return rc;
}

static int random_tokens(const struct moe_run *r, struct moe_ids *out, struct moe_err *e)
{
	uint64_t x = (uint64_t)opt.seed * 2 + 1;

	out->v = moe_calloc((size_t)opt.positions, sizeof *out->v, "tokens", e);
	if (!out->v)
		return MOE_E_NOMEM;
	out->cap = (size_t)opt.positions;
	for (; out->n < (size_t)opt.positions; out->n++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		out->v[out->n] = (int32_t)((x >> 33) % (uint64_t)r->model->vocab);
	}
	return 0;
}

/* ---- the comparison ---- */

static int compare(struct subject *ref, struct subject *others, int n, const struct moe_ids *ids, struct moe_err *e)
{
	size_t most = ids->n < (size_t)opt.positions ? ids->n : (size_t)opt.positions;
	struct moe_progress bar = {0};
	int rc = 0;

	moe_progress_start(&bar, "comparing", most);
	for (size_t at = 0; !rc && at + 1 < most; at += (size_t)opt.length) {
		int len = (int)(most - at < (size_t)opt.length ? most - at : (size_t)opt.length);

		rc = score(ref, ids->v + at, len, e);
		for (int i = 0; !rc && i < n; i++) {
			others[i].against = ref->keep;
			rc = score(&others[i], ids->v + at, len, e);
		}
		moe_progress_add(&bar, (size_t)len);
	}
	moe_progress_end(&bar);
	return rc;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

enum { BITS, POSITIONS, MEAN, MEDIAN, P99, WORST, SAME, NUMBERS };

static void find_numbers(struct subject *s, double v[NUMBERS])
{
	double sum = 0;

	for (int64_t i = 0; i < s->n; i++)
		sum += s->kl[i];
	qsort(s->kl, (size_t)s->n, sizeof *s->kl, by_value);
	v[BITS] = 8.0 * (double)moe_run_weight_bytes(s->run) / (double)moe_model_parameters(s->run->model, false);
	v[POSITIONS] = (double)s->n;
	v[MEAN] = sum / (double)s->n;
	v[MEDIAN] = s->kl[s->n / 2];
	v[P99] = s->kl[s->n * 99 / 100];
	v[WORST] = s->kl[s->n - 1];
	v[SAME] = 100.0 * (double)s->agree / (double)s->n;
}

static int print_row(struct bench_table *t, const char *name, struct subject *s, struct moe_err *e)
{
	static const char *const fields[NUMBERS] = {"bits_per_weight", "n_positions", "kl_mean", "kl_median", "kl_p99", "kl_max",
	                                            "same_top_percent"};
	static const char *const forms[NUMBERS] = {"%.3f", "%.0f", "%.3e", "%.3e", "%.3e", "%.3e", "%.2f"};
	struct bench_column columns[1 + NUMBERS] = {{"model", -24, ""}, {"bits/weight", 11, ""}, {"positions", 9, ""}, {"mean KL", 9, ""},
	                                            {"median", 9, ""}, {"99 %", 9, ""}, {"worst", 9, ""}, {"same top-1 %", 12, ""}};
	struct bench_cell cells[3 + NUMBERS] = {{.name = "reference", .text = opt.model}, {.name = "model_filename", .text = name}};
	char quants[MOE_QUANTS_TEXT];
	double v[NUMBERS];
	int rc = moe_run_quants(s->run, quants, e);

	if (rc)
		return rc;
	find_numbers(s, v);
	cells[2] = (struct bench_cell){.name = "model_quants", .text = quants};
	snprintf(columns[0].text, sizeof columns->text, "%s", name);
	for (int i = 0; i < NUMBERS; i++) {
		cells[3 + i] = (struct bench_cell){.name = fields[i], .kind = BENCH_REAL, .real = v[i]};
		snprintf(columns[1 + i].text, sizeof columns->text, forms[i], v[i]);
	}
	cells[3 + POSITIONS] = (struct bench_cell){.name = fields[POSITIONS], .kind = BENCH_WHOLE, .whole = (uint64_t)s->n};
	return bench_table_add(t, &(struct bench_line){cells, 3 + NUMBERS, columns, 1 + NUMBERS}, e);
}

/* The context that all have; of those that are open. */
static int shortest(const struct subject *ref, const struct subject *others, int n)
{
	int length = ref->run ? ref->run->ctx : LENGTH;

	for (int i = 0; i < n; i++)
		if (others[i].run && others[i].run->ctx < length)
			length = others[i].run->ctx;
	return length;
}

static int open_all(struct subject *ref, struct subject *others, char **names, int n, struct moe_err *e)
{
	const struct moe_numerics exact = MOE_NUMERICS_EXACT;
	int rc = open_subject(ref, opt.model, &exact, e);

	for (int i = 0; !rc && i < n; i++) {
		rc = open_subject(&others[i], names[i], &opt.numerics, e);
		if (!rc && others[i].run->model->vocab != ref->run->model->vocab)
			rc = moe_fail(e, MOE_E_INPUT, "%s has a vocabulary of %d, %s of %d", names[i], others[i].run->model->vocab, opt.model,
			              ref->run->model->vocab);
		others[i].kl = rc ? NULL : moe_calloc((size_t)opt.positions + 1, sizeof(double), "results", e);
		if (!rc && !others[i].kl)
			rc = MOE_E_NOMEM;
	}
	opt.length = opt.length ? opt.length : shortest(ref, others, n);
	if (!rc) {
		ref->keep = moe_calloc((size_t)opt.length, (size_t)ref->run->model->vocab * sizeof(float), "the reference's logits", e);
		rc = ref->keep ? 0 : MOE_E_NOMEM;
	}
	return rc;
}

static int run(char **names, int n, struct moe_err *e)
{
	struct subject ref = {0}, *others = moe_calloc((size_t)n, sizeof *others, "models", e);
	struct bench_table table = {.f = stdout, .format = (enum bench_format)bench_format_parse(opt.format), .name = "divergence"};
	struct moe_ids ids = {0};
	int rc = others ? open_all(&ref, others, names, n, e) : MOE_E_NOMEM;

	if (!rc)
		rc = opt.text ? tokens_of_text(ref.run, &ids, e) : random_tokens(ref.run, &ids, e);
	rc = rc ? rc : compare(&ref, others, n, &ids, e);
	for (int i = 0; others && i < n; i++) {
		rc = rc ? rc : print_row(&table, names[i], &others[i], e);
		moe_run_close(others[i].run);
		free(others[i].kl);
	}
	bench_table_end(&table);
	moe_run_close(ref.run);
	free(ref.keep);
	moe_ids_free(&ids);
	free(others);
	return rc;
}

int bench_divergence_main(int argc, char **argv)
{
	int rc = moe_opts_parse(&tool, &argc, argv);

	if (rc >= 0)
		return rc;
	if (!opt.model)
		return moe_usage(&tool, "which reference? (-m SHARDS)");
	if (argc < 1)
		return moe_usage(&tool, "which models are to be compared with it?");
	if (bench_format_parse(opt.format) < 0)
		return moe_usage(&tool, "-o %s: not md, csv, json, jsonl or sql", opt.format);
	struct moe_err e = MOE_ERR_INIT;
	if (moe_numerics_choose(opt.exact, opt.activations, &opt.numerics, &e))
		return moe_usage(&tool, "%s", e.msg);
	rc = run(argv, argc, &e);
	moe_opts_free(&tool);
	return rc ? moe_die(&tool, &e) : moe_close_stdout(&tool);
}
