/* The tests of a command line, one after the other, at each number of threads. */
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench.h"
#include "plot.h"

#define ROOF_SECONDS 2.0
#define NET_SAMPLES 200          /* for each repetition: round trips are short, and their tail is asked for */

struct bench {
	const struct bench_options *o;
	const struct bench_plan *plan;
	struct moe_run_config config;
	struct bench_watch watch;
	struct bench_player player;
	struct moe_roofs roofs;
	struct bench_predictor predictor;
	struct bench_samples readies, loads; /* of starting up */
	double load_rss;
	struct bench_row row;        /* what all rows share, and the present one */
	struct bench_table table;
	struct bench_plot plot;
};

/* ---- one test ---- */

static int make_samples(struct bench_samples *s, size_t n, struct moe_err *e)
{
	*s = (struct bench_samples){.n = (int)n};
	s->ns = moe_calloc(n, sizeof *s->ns, "samples", e);
	s->ts = moe_calloc(n, sizeof *s->ts, "samples", e);
	return s->ns && s->ts ? 0 : MOE_E_NOMEM;
}

static void free_samples(struct bench_samples *s)
{
	free(s->ns);
	free(s->ts);
	*s = (struct bench_samples){0};
}

static struct moe_remote_stats net_now(const struct bench *b)
{
	return b->player.run->remote ? moe_experts_remote_stats(b->player.run->experts) : (struct moe_remote_stats){0};
}

/* Bytes both ways for a row and a layer with experts. */
static double net_bytes(const struct bench *b, const struct moe_remote_stats *before, double rows)
{
	struct moe_remote_stats now = net_now(b);
	uint64_t bytes = now.bytes_out + now.bytes_in - before->bytes_out - before->bytes_in;
	return b->player.run->remote && rows > 0 ? (double)bytes / rows : NAN;
}

static int play(struct bench *b, const struct bench_test *t, struct moe_err *e)
{
	struct bench_samples *s = &b->row.samples;
	struct moe_cost *cost = b->player.meter ? &b->row.cost : NULL;
	uint64_t ns, rows = moe_engine_stats(b->player.run->engine).rows;
	struct moe_remote_stats before = net_now(b);
	int rc = 0;
	b->row.counted = cost != NULL;
	if (!b->o->no_warmup) { /* what is counted is the same each time */
		rc = bench_play(&b->player, t, &ns, cost, e);
		cost = NULL;
	}
	for (int i = 0; i < s->n && !rc; i++) {
		rc = bench_play(&b->player, t, &s->ns[i], cost, e);
		s->ts[i] = (double)bench_test_tokens(t) * 1e9 / (double)(s->ns[i] ? s->ns[i] : 1);
		cost = NULL;
	}
	rows = moe_engine_stats(b->player.run->engine).rows - rows;
	b->row.net_bytes = net_bytes(b, &before, (double)rows * b->row.moe_layers);
	return rc;
}

/* Before there is a run in this process: a child's memory must be its own. */
static int load(struct bench *b, struct moe_err *e)
{
	int n = (int)b->o->repetitions, warm = b->o->no_warmup || b->o->cold ? 0 : 1;
	int rc = make_samples(&b->readies, (size_t)n, e);
	rc = rc ? rc : make_samples(&b->loads, (size_t)n, e);
	b->load_rss = 0;
	for (int i = -warm; i < n && !rc; i++) {
		int k = i < 0 ? 0 : i;
		struct bench_start start;
		rc = b->o->cold ? bench_evict(b->o->model, e) : 0;
		rc = rc ? rc : bench_load_once(&b->config, &start, e);
		if (rc)
			break;
		b->readies.ns[k] = start.ready_ns;
		b->loads.ns[k] = start.token_ns;
		b->readies.ts[k] = b->loads.ts[k] = NAN;
		b->load_rss = start.peak_rss > b->load_rss ? start.peak_rss : b->load_rss;
	}
	return rc;
}

static int loaded(struct bench *b, struct bench_samples *s)
{
	b->row.samples = *s;
	b->row.peak_rss = b->load_rss;
	*s = (struct bench_samples){0};
	return 0;
}

static int net(struct bench *b, const struct bench_test *t, struct moe_err *e)
{
	struct moe_remote_stats before = net_now(b);
	int rc = bench_net(b->player.run, t->batch, &b->row.samples, e);
	b->row.net_bytes = net_bytes(b, &before, (double)(b->row.samples.n + 1) * t->batch);
	return rc;
}

static int measure(struct bench *b, const struct bench_test *t, struct moe_err *e)
{
	size_t n = (size_t)b->o->repetitions * (t->what == BENCH_NET ? NET_SAMPLES : 1);
	if (t->what == BENCH_READY || t->what == BENCH_LOAD)
		return loaded(b, t->what == BENCH_READY ? &b->readies : &b->loads);
	int rc = make_samples(&b->row.samples, n, e);
	if (rc)
		return rc;
	return t->what == BENCH_NET ? net(b, t, e) : play(b, t, e);
}

static int one(struct bench *b, const struct bench_test *t, struct moe_err *e)
{
	struct bench_row *row = &b->row;
	row->test = *t;
	row->counted = false;
	row->peak_rss = row->net_bytes = NAN;
	row->predicted_ts = b->o->predict ? bench_predict(&b->predictor, t, (int)b->o->chunk) : NAN;
	bench_test_name(t, row->name, sizeof row->name);
	moe_time_text(row->time);
	int rc = measure(b, t, e);
	rc = rc ? rc : bench_statistics(&row->samples, e);
	rc = rc ? rc : bench_row_print(&b->table, row, e);
	rc = rc ? rc : bench_plot_add(&b->plot, row, e);
	free_samples(&row->samples);
	return rc;
}

/* ---- all of them ---- */

static int configure(struct bench *b, int threads, struct moe_err *e)
{
	const struct bench_options *o = b->o;
	b->config = (struct moe_run_config){
		.shards = o->model, .hosts = o->hosts, .connect = o->connect.v, .n_connect = o->connect.n,
		.client_key = o->client_key, .server_key = o->server_key,
		.timeout = o->timeout, .threads = threads, .busy_poll = (int)o->busy_poll, .hedge = o->hedge / 100,
		.transport = (enum moe_transport)moe_transport_parse(o->transport),
		.weights = o->load_how,
		.engine = {.max_sequences = b->plan->max_batch, .ctx = b->plan->ctx, .chunk = (int)o->chunk,
		           .no_prefix_cache = true, .on_event = bench_on_event, .ctx_event = &b->watch},
	};
	int rc = moe_run_numerics(&b->config, o->exact, o->activations, o->kv, o->wire, e);
	return rc ? rc : moe_run_overlap(&b->config, o->overlap, e);
}

static int play_all(struct bench *b, struct moe_err *e)
{
	struct moe_run *r = b->player.run;
	char cpu[128], numerics[MOE_NUMERICS_TEXT], quants[MOE_QUANTS_TEXT];
	int rc = moe_run_quants(r, quants, e);
	moe_numerics_id(&r->numerics, numerics);
	b->row.cpu = moe_machine_cpu(cpu);
	b->row.isa = moe_backend_cpu_isa(r->backend);
	b->row.numerics = numerics;
	b->row.kv = moe_kv_type_name(r->numerics.kv);
	b->row.model_file = b->o->model;
	b->row.model_type = r->model->name;
	b->row.quants = quants;
	b->row.model_params = moe_model_parameters(r->model, false);
	b->row.model_size = moe_run_weight_bytes(r);
	b->row.moe_layers = moe_model_moe_layers(r->model);
	b->row.threads = moe_team_size(r->team);
	b->row.servers = r->endpoints.n;
	b->row.chunk = (int)b->o->chunk;
	for (int i = 0; i < b->plan->n && !rc; i++)
		rc = one(b, &b->plan->tests[i], e);
	return rc;
}

static int with_threads(struct bench *b, int threads, struct moe_err *e)
{
	bool roofs = !b->o->no_roofs && !b->o->hosts && !b->o->connect.n;
	b->row.roofs = roofs ? &b->roofs : NULL;
	int rc = configure(b, threads, e);
	if (!rc && b->o->load)
		rc = load(b, e);
	rc = rc ? rc : moe_run_open(&b->config, &b->player.run, e);
	if (rc)
		return rc;
	if (roofs) /* which take seconds: not before it is known that there is a model */
		rc = bench_roofs(threads, ROOF_SECONDS, &b->roofs, e);
	if (roofs && !rc)
		rc = moe_meter_new(b->player.run, &b->player.meter, e);
	if (!rc && b->o->predict)
		rc = bench_predictor_make(b->player.run, &b->roofs, &b->predictor, e);
	rc = rc ? rc : play_all(b, e);
	moe_meter_free(b->player.meter);
	b->player.meter = NULL;
	moe_run_close(b->player.run);
	return rc;
}

int bench_run(const struct bench_options *o, const struct bench_plan *plan, struct moe_err *e)
{
	struct bench b = {.o = o, .plan = plan,
	                  .table = {.f = stdout, .format = (enum bench_format)bench_format_parse(o->format), .name = "test"}};
	b.player.watch = &b.watch;
	b.row.predicting = o->predict;
	b.player.tokens = moe_calloc((size_t)plan->max_prompt, sizeof *b.player.tokens, "a prompt", e);
	int rc = b.player.tokens ? 0 : MOE_E_NOMEM;
	for (int t = 0; t < plan->n_threads && !rc; t++)
		rc = with_threads(&b, (int)plan->threads[t], e);
	bench_table_end(&b.table);
	if (!rc && o->plot)
		rc = bench_plot_write(&b.plot, o->model, o->plot, e);
	bench_plot_free(&b.plot);
	free_samples(&b.readies);
	free_samples(&b.loads);
	free(b.player.tokens);
	return rc;
}
