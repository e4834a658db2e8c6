/* Timing the engine.  Reading (pp): random prompts until their first token.  Generating (tg): from one random token
 * each, with the end of text ignored.  Sequences differ, so that they do not all choose the same experts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench.h"
#include "measure/measure.h"
#include "run/run.h"

#define LIST_MAX 64

struct lists {
	int64_t p[LIST_MAX], n[LIST_MAX], b[LIST_MAX], t[LIST_MAX];
	int np, nn, nb, nt;
};

static int read_list(const char *option, const char *text, int64_t lo, int64_t hi, int64_t *out, int *n, struct moe_err *e)
{
	*n = moe_parse_int_list(text, lo, hi, out, LIST_MAX);
	return *n > 0 ? 0 : moe_fail(e, MOE_E_RANGE, "%s %s: not a list of numbers from %lld to %lld", option, text, (long long)lo, (long long)hi);
}

static int64_t most(const int64_t *v, int n)
{
	int64_t m = 0;
	for (int i = 0; i < n; i++)
		m = v[i] > m ? v[i] : m;
	return m;
}

static int read_lists(const struct bench_options *o, struct lists *l, struct moe_err *e)
{
	int rc = read_list("-p", o->prompts, 0, 1 << 20, l->p, &l->np, e);
	rc = rc ? rc : read_list("-n", o->generates, 0, 1 << 20, l->n, &l->nn, e);
	rc = rc ? rc : read_list("-b", o->batches, 1, 4096, l->b, &l->nb, e);
	if (!rc && *o->threads)
		rc = read_list("-t", o->threads, 1, 1024, l->t, &l->nt, e);
	else if (!rc)
		l->t[0] = 0, l->nt = 1;
	if (!rc && !most(l->p, l->np) && !most(l->n, l->nn))
		rc = moe_fail(e, MOE_E_RANGE, "-p 0 and -n 0 leave nothing to measure");
	return rc;
}

int bench_check_lists(const struct bench_options *o, struct moe_err *e)
{
	struct lists l;
	return read_lists(o, &l, e);
}

/* A generation that fails must not look fast. */
struct watch {
	struct moe_err err;
	int done;
};

static int on_event(void *ctx, const struct moe_event *ev)
{
	struct watch *w = ctx;
	if (ev->kind == MOE_EV_DONE) {
		w->done++;
		if (ev->err && !w->err.code)
			w->err = *ev->err;
	}
	return 0;
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static int submit(struct moe_run *r, const struct bench_test *t, int sequence, int32_t *tokens, struct moe_err *e)
{
	int n = t->prompt ? t->prompt : 1;
	for (int i = 0; i < n; i++)
		tokens[i] = (int32_t)(mix((uint64_t)sequence << 32 | (uint32_t)i) % (uint64_t)r->model->vocab);
	struct moe_request q = {
		.tokens = tokens, .n_tokens = n, .max_tokens = t->prompt ? 1 : t->generate, .sampling = MOE_SAMPLING_GREEDY, .ignore_eos = true,
	};
	uint64_t id;
	return moe_engine_submit(r->engine, &q, &id, e);
}

static int once(struct moe_run *r, struct watch *w, const struct bench_test *t, int32_t *tokens, uint64_t *ns, struct moe_err *e)
{
	bool busy = true;
	w->done = 0;
	uint64_t start = moe_now_ns();
	for (int s = 0; s < t->batch; s++) {
		int rc = submit(r, t, s, tokens, e);
		if (rc)
			return rc;
	}
	while (busy) {
		int rc = moe_engine_step(r->engine, &busy, e);
		if (rc)
			return rc;
	}
	*ns = moe_now_ns() - start;
	if (w->err.code && e)
		*e = w->err;
	return w->err.code;
}

static void statistics(struct bench_row *row)
{
	int n = row->repetitions;
	double s_ns = 0, s_ts = 0, v_ns = 0, v_ts = 0;
	for (int i = 0; i < n; i++) {
		s_ns += (double)row->ns[i];
		s_ts += row->ts[i];
	}
	row->avg_ns = s_ns / n;
	row->avg_ts = s_ts / n;
	for (int i = 0; i < n; i++) {
		v_ns += ((double)row->ns[i] - row->avg_ns) * ((double)row->ns[i] - row->avg_ns);
		v_ts += (row->ts[i] - row->avg_ts) * (row->ts[i] - row->avg_ts);
	}
	row->stddev_ns = n > 1 ? sqrt(v_ns / (n - 1)) : 0;
	row->stddev_ts = n > 1 ? sqrt(v_ts / (n - 1)) : 0;
}

static int measure(struct moe_run *r, struct watch *w, bool warm, struct bench_row *row, struct moe_err *e)
{
	const struct bench_test *t = &row->test;
	uint64_t ns;
	int32_t *tokens = moe_calloc((size_t)t->prompt + 1, sizeof *tokens, "a prompt", e);
	int rc = tokens ? 0 : MOE_E_NOMEM;
	if (!rc && warm)
		rc = once(r, w, t, tokens, &ns, e);
	moe_time_text(row->time);
	for (int i = 0; i < row->repetitions && !rc; i++) {
		rc = once(r, w, t, tokens, &row->ns[i], e);
		row->ts[i] = (double)t->batch * (t->prompt ? t->prompt : t->generate) * 1e9 / (double)(row->ns[i] ? row->ns[i] : 1);
	}
	free(tokens);
	if (!rc)
		statistics(row);
	return rc;
}

struct printer {
	const struct bench_options *o;
	struct moe_run *run;
	struct watch watch;
	struct bench_row row;
	struct bench_table table;
};

static int one_test(struct printer *p, struct bench_test t, struct moe_err *e)
{
	struct bench_row *row = &p->row;
	row->test = t;
	row->test.threads = moe_team_size(p->run->team);
	snprintf(row->name, sizeof row->name, t.prompt ? "pp%d" : "tg%d", t.prompt ? t.prompt : t.generate);
	int rc = measure(p->run, &p->watch, !p->o->no_warmup, row, e);
	return rc ? rc : bench_row_print(&p->table, row, e);
}

static int all_tests(struct printer *p, const struct lists *l, struct moe_err *e)
{
	int rc = 0;
	for (int b = 0; b < l->nb; b++) {
		for (int i = 0; i < l->np && !rc; i++)
			if (l->p[i])
				rc = one_test(p, (struct bench_test){.prompt = (int)l->p[i], .batch = (int)l->b[b]}, e);
		for (int i = 0; i < l->nn && !rc; i++)
			if (l->n[i])
				rc = one_test(p, (struct bench_test){.generate = (int)l->n[i], .batch = (int)l->b[b]}, e);
	}
	return rc;
}

static int with_threads(struct printer *p, const struct lists *l, int threads, struct moe_err *e)
{
	const struct bench_options *o = p->o;
	int longest = (int)most(l->p, l->np) + 1, generated = (int)most(l->n, l->nn) + 1;
	struct moe_run_config c = {
		.shards = o->model, .hosts = o->hosts, .connect = o->connect.v, .n_connect = o->connect.n,
		.timeout = o->timeout, .threads = threads,
		.engine = {.max_sequences = (int)most(l->b, l->nb), .ctx = longest > generated ? longest : generated,
		           .chunk = (int)o->chunk, .no_prefix_cache = true, .on_event = on_event, .ctx_event = &p->watch},
	};
	int rc = moe_run_numerics(&c, false, o->kv, o->wire, e);
	rc = rc ? rc : moe_run_open(&c, &p->run, e);
	if (rc)
		return rc;
	char cpu[128], numerics[MOE_NUMERICS_TEXT];
	moe_numerics_id(&p->run->numerics, numerics);
	p->row.cpu = moe_machine_cpu(cpu);
	p->row.isa = moe_backend_cpu_isa(p->run->backend);
	p->row.numerics = numerics;
	p->row.model_file = o->model;
	p->row.model_type = p->run->model->name;
	p->row.model_params = moe_model_parameters(p->run->model, false);
	p->row.model_size = moe_run_weight_bytes(p->run);
	p->row.servers = p->run->endpoints.n;
	p->row.chunk = (int)o->chunk;
	rc = all_tests(p, l, e);
	moe_run_close(p->run);
	return rc;
}

int bench_run(const struct bench_options *o, struct moe_err *e)
{
	struct lists l;
	struct printer p = {.o = o, .row = {.repetitions = (int)o->repetitions},
	                    .table = {.f = stdout, .format = (enum bench_format)bench_format_parse(o->format), .name = "test"}};
	int rc = read_lists(o, &l, e);
	if (rc)
		return rc;
	p.row.ns = moe_calloc((size_t)o->repetitions, sizeof *p.row.ns, "samples", e);
	p.row.ts = moe_calloc((size_t)o->repetitions, sizeof *p.row.ts, "samples", e);
	rc = p.row.ns && p.row.ts ? 0 : MOE_E_NOMEM;
	for (int t = 0; t < l.nt && !rc; t++)
		rc = with_threads(&p, &l, (int)l.t[t], e);
	bench_table_end(&p.table);
	free(p.row.ns);
	free(p.row.ts);
	return rc;
}
