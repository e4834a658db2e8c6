/* From lists on the command line to tests. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "bench.h"

#define LIST_MAX 64
#define LONGEST (1 << 20)

struct list {
	int64_t v[LIST_MAX];
	int n;
};
struct lists {
	struct list p, n, b, d;
};

static int read_list(const char *option, const char *text, int64_t lo, int64_t hi, struct list *out, struct moe_err *e)
{
	out->n = moe_parse_int_list(text, lo, hi, out->v, LIST_MAX);
	return out->n > 0 ? 0 : moe_fail(e, MOE_E_RANGE, "%s %s: not a list of numbers from %lld to %lld", option, text, (long long)lo, (long long)hi);
}

static int add(struct bench_plan *plan, struct bench_test t, struct moe_err *e)
{
	struct bench_test *v = moe_realloc(plan->tests, (size_t)plan->n + 1, sizeof *v, "tests", e);
	if (!v)
		return MOE_E_NOMEM;
	plan->tests = v;
	v[plan->n++] = t;
	return 0;
}

/* A step that reads prompts takes a chunk of them: where the timed part begins must be where a step does. */
static int add_reading(struct bench_plan *plan, const struct bench_options *o, struct bench_test t, struct moe_err *e)
{
	if (t.depth && (t.batch != 1 || t.depth % o->chunk))
		return moe_fail(e, MOE_E_RANGE, "reading prompts at -d %d needs -b 1 and a depth that is a multiple of --chunk %lld", t.depth, (long long)o->chunk);
	return add(plan, t, e);
}

static int add_pair(struct bench_plan *plan, const struct bench_options *o, const char *text, struct bench_test t, struct moe_err *e)
{
	int64_t v[3];
	if (moe_parse_int_list(text, 1, LONGEST, v, 3) != 2)
		return moe_fail(e, MOE_E_RANGE, "--pg %s: not two numbers, tokens to read and to generate", text);
	t.prompt = (int)v[0];
	t.generate = (int)v[1];
	return add_reading(plan, o, t, e);
}

static int add_all_at(struct bench_plan *plan, const struct bench_options *o, const struct lists *l, int batch, int depth, struct moe_err *e)
{
	int rc = 0;
	for (int i = 0; i < l->p.n && !rc; i++)
		if (l->p.v[i])
			rc = add_reading(plan, o, (struct bench_test){BENCH_PP, (int)l->p.v[i], 0, depth, batch}, e);
	for (int i = 0; i < l->n.n && !rc; i++)
		if (l->n.v[i])
			rc = add(plan, (struct bench_test){BENCH_TG, 0, (int)l->n.v[i], depth, batch}, e);
	for (int i = 0; i < o->pairs.n && !rc; i++)
		rc = add_pair(plan, o, o->pairs.v[i], (struct bench_test){.what = BENCH_PG, .depth = depth, .batch = batch}, e);
	return rc;
}

static int add_mixed(struct bench_plan *plan, const struct lists *l, int batch, struct moe_err *e)
{
	int rc = 0;
	for (int i = 0; i < l->p.n; i++)
		for (int k = 0; k < l->n.n && !rc; k++)
			if (l->p.v[i] && l->n.v[k])
				rc = add(plan, (struct bench_test){BENCH_MIXED, (int)l->p.v[i], (int)l->n.v[k], 0, batch}, e);
	return rc;
}

static bool any(const struct list *l)
{
	for (int i = 0; i < l->n; i++)
		if (l->v[i])
			return true;
	return false;
}

static int add_all(struct bench_plan *plan, const struct bench_options *o, const struct lists *l, struct moe_err *e)
{
	if (o->mixed && (!any(&l->p) || !any(&l->n)))
		return moe_fail(e, MOE_E_RANGE, "--mixed reads and generates: it needs a number above 0 in -p and in -n");
	int rc = o->load ? add(plan, (struct bench_test){BENCH_READY, 0, 0, 0, 1}, e) : 0;
	if (!rc && o->load)
		rc = add(plan, (struct bench_test){BENCH_LOAD, 1, 1, 0, 1}, e);
	for (int b = 0; b < l->b.n; b++) {
		for (int d = 0; d < l->d.n && !rc; d++)
			rc = add_all_at(plan, o, l, (int)l->b.v[b], (int)l->d.v[d], e);
		if (!rc && o->mixed)
			rc = add_mixed(plan, l, (int)l->b.v[b], e);
		if (!rc && o->net)
			rc = add(plan, (struct bench_test){.what = BENCH_NET, .batch = (int)l->b.v[b]}, e);
	}
	if (!rc && !plan->n)
		rc = moe_fail(e, MOE_E_RANGE, "-p 0 and -n 0 leave nothing to measure");
	return rc;
}

/* Sequences that have read their prompt generate while the others still read: so many tokens more. */
static int slack(const struct bench_test *t, int64_t chunk)
{
	return t->what == BENCH_TG && t->depth ? (int)((int64_t)t->batch * t->depth / chunk) + 2 : 0;
}

static void set_room(struct bench_plan *plan, const struct bench_options *o)
{
	plan->max_batch = 1;
	for (int i = 0; i < plan->n; i++) {
		const struct bench_test *t = &plan->tests[i];
		int prompt = t->depth + (t->prompt ? t->prompt : 1), all = prompt + t->generate + slack(t, o->chunk) + 1;
		plan->max_batch = t->batch > plan->max_batch ? t->batch : plan->max_batch;
		plan->max_prompt = prompt > plan->max_prompt ? prompt : plan->max_prompt;
		plan->ctx = all > plan->ctx ? all : plan->ctx;
	}
}

int bench_plan_make(const struct bench_options *o, struct bench_plan *out, struct moe_err *e)
{
	struct lists l;
	struct list threads = {.v = {0}, .n = 1};
	*out = (struct bench_plan){0};
	int rc = read_list("-p", o->prompts, 0, LONGEST, &l.p, e);
	rc = rc ? rc : read_list("-n", o->generates, 0, LONGEST, &l.n, e);
	rc = rc ? rc : read_list("-b", o->batches, 1, 4096, &l.b, e);
	rc = rc ? rc : read_list("-d", o->depths, 0, LONGEST, &l.d, e);
	if (!rc && *o->threads)
		rc = read_list("-t", o->threads, 1, 1024, &threads, e);
	rc = rc ? rc : add_all(out, o, &l, e);
	if (rc)
		return rc;
	memcpy(out->threads, threads.v, sizeof threads.v);
	out->n_threads = threads.n;
	set_room(out, o);
	return 0;
}

void bench_plan_free(struct bench_plan *p)
{
	free(p->tests);
}

void bench_test_name(const struct bench_test *t, char *buf, size_t cap)
{
	int n = 0;
	switch (t->what) {
	case BENCH_PP: n = snprintf(buf, cap, "pp%d", t->prompt); break;
	case BENCH_TG: n = snprintf(buf, cap, "tg%d", t->generate); break;
	case BENCH_PG: n = snprintf(buf, cap, "pp%d+tg%d", t->prompt, t->generate); break;
	case BENCH_MIXED: n = snprintf(buf, cap, "mixed%d+%d", t->prompt, t->generate); break;
	case BENCH_READY: n = snprintf(buf, cap, "ready"); break;
	case BENCH_LOAD: n = snprintf(buf, cap, "load"); break;
	case BENCH_NET: n = snprintf(buf, cap, "net"); break;
	}
	if (t->depth && (size_t)n < cap)
		snprintf(buf + n, cap - (size_t)n, " @ d%d", t->depth);
}

/* Prompts of an eighth, two eighths ... all of the length, answers of a quarter, two quarters ... */
void bench_mixed_lengths(const struct bench_test *t, int i, int *prompt, int *generate)
{
	*prompt = (int)((int64_t)t->prompt * (i * 5 % 8 + 1) / 8);
	*generate = (int)((int64_t)t->generate * (i * 3 % 4 + 1) / 4);
	*prompt += *prompt == 0;
	*generate += *generate == 0;
}

int64_t bench_test_tokens(const struct bench_test *t)
{
	int64_t sum = 0;
	if (t->what == BENCH_READY || t->what == BENCH_LOAD || t->what == BENCH_NET)
		return 0;
	if (t->what != BENCH_MIXED)
		return (int64_t)t->batch * (t->prompt + t->generate);
	for (int i = 0; i < BENCH_MIXED_ROUNDS * t->batch; i++) {
		int p, n;
		bench_mixed_lengths(t, i, &p, &n);
		sum += p + n;
	}
	return sum;
}
