/* moe-bench offload on a device: the schedules in turn, round by round, so that what disturbs the machine disturbs them all. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "offload.h"

#define LINK_SECONDS 1.0
#define WARM_GENERATE 2          /* tokens before time is taken */
#define TIMEOUT 30
#define MOST_SEQUENCES 65536

/* Graphs of one shape that a schedule ran. */
struct shape {
	struct moe_schedule_shape s;
	int times;
};
/* What a schedule has left over the rounds. */
struct history {
	struct shape *shapes;
	int n_shapes;
};
struct rounds {
	const struct offload_options *o;
	const struct offload_plan *plan;
	struct offload_results *out;
	struct offload_forecast forecast;
	struct history history[MOE_SCHEDULES];
	int32_t *tokens;             /* a prompt */

	/* the run at hand */
	struct moe_run_config config;
	struct offload_result *r;
	struct history *h;
	struct bench_watch watch;
	struct moe_traffic *traffic;
	struct moe_link_bytes before; /* the graph at hand */
	bool counting, tracing;      /* it is no warm-up */
	bool traced[2];              /* decode, prefill: written */
	uint64_t tokens_id;
	struct moe_err err;          /* the first of on_graph */
};

/* ---- what an engine tells ---- */

static int on_event(void *ctx, const struct moe_event *ev)
{
	struct rounds *s = ctx;

	if (s->counting && ev->kind == MOE_EV_TOKEN) {
		/* Added up: whose token comes first does not matter. */
		const uint64_t what[] = {ev->id, (uint64_t)ev->position, (uint64_t)ev->token};

		s->tokens_id += XXH3_64bits(what, sizeof what);
	}
	return bench_on_event(&s->watch, ev);
}

/* Of one schedule, in one engine. */
static bool same_shape(const struct moe_schedule_shape *a, const struct moe_schedule_shape *b)
{
	return a->prefill == b->prefill && a->micro_batches == b->micro_batches && a->pages == b->pages && a->steps == b->steps;
}

static int count_shape(struct history *h, const struct moe_schedule_shape *shape, struct moe_err *e)
{
	struct shape *v;

	for (int i = 0; i < h->n_shapes; i++)
		if (same_shape(&h->shapes[i].s, shape)) {
			h->shapes[i].times++;
			return 0;
		}
	v = moe_realloc(h->shapes, (size_t)h->n_shapes + 1, sizeof *v, "shapes of graphs", e);
	if (!v)
		return MOE_E_NOMEM;
	h->shapes = v;
	h->shapes[h->n_shapes++] = (struct shape){*shape, 1};
	return 0;
}

static int count_graph(struct rounds *s, const struct moe_graph *g, const struct moe_timeline *t, struct moe_err *e)
{
	struct offload_phase *p = g->shape.prefill ? &s->r->prefill : &s->r->decode;
	struct moe_link_bytes now = moe_traffic_so_far(s->traffic);

	p->seconds += t->makespan;
	for (int l = 0; l < MOE_LANES; l++)
		p->busy[l] += t->busy[l];
	p->in += (double)(now.in - s->before.in);
	p->out += (double)(now.out - s->before.out);
	s->before = now;
	return count_shape(s->h, &g->shape, e);
}

/* The first of each kind. */
static int trace_graph(struct rounds *s, const struct moe_graph *g, const struct moe_timeline *t, struct moe_err *e)
{
	bool *traced = &s->traced[g->shape.prefill];

	if (*traced)
		return 0;
	*traced = true;
	return offload_trace(s->o->trace, g, t, e);
}

static void on_graph(void *ctx, const struct moe_graph *g, const struct moe_span *spans)
{
	struct rounds *s = ctx;
	struct moe_timeline t;

	if ((!s->counting && !s->tracing) || s->err.code || moe_spans_timeline(g, spans, &t, &s->err))
		return;
	if (s->counting)
		count_graph(s, g, &t, &s->err);
	else
		trace_graph(s, g, &t, &s->err);
	moe_timeline_free(&t);
}

/* ---- one run ---- */

static int configure(struct rounds *s, enum moe_schedule schedule, struct moe_err *e)
{
	const struct offload_options *o = s->o;
	bool whole = schedule == MOE_SCHEDULE_ZERO, stays = schedule == MOE_SCHEDULE_RESIDENT;

	s->config = (struct moe_run_config){
		.shards = o->model, .timeout = TIMEOUT, .threads = (int)o->threads,
		.offload = {.device = o->device, .memory = o->device_memory, .link_bandwidth = o->link_bandwidth, .schedule = moe_schedule_name(schedule),
		            .micro_batches = whole ? 0 : (int)o->micro_batches, .micro_batch = whole ? 0 : (int)o->micro_batch, .has_resident = !stays,
		            .resident = o->weights, .on_graph = on_graph, .ctx_graph = s},
		.engine = {.max_sequences = (int)(o->micro_batches * o->micro_batch), .ctx = (int)(o->prompt + o->generate), .chunk = 512,
		           .no_prefix_cache = true, .on_event = on_event, .ctx_event = s},
	};
	int rc = moe_run_numerics(&s->config, o->exact, o->activations, o->kv, NULL, e);

	rc = rc ? rc : moe_run_pinned(&s->config, o->pinned, e);
	return rc ? rc : moe_run_check_offload(&s->config, e);
}

int offload_check(const struct offload_options *o, const struct offload_plan *p, struct moe_err *e)
{
	struct rounds s = {.o = o};

	if (strcmp(o->device, "auto") == 0)
		return moe_fail(e, MOE_E_RANGE, "--device auto: without a GPU there would be nothing to compare");
	if (o->micro_batches * o->micro_batch > MOST_SEQUENCES)
		return moe_fail(e, MOE_E_RANGE, "%lld micro-batches of %lld: at most %d sequences", (long long)o->micro_batches, (long long)o->micro_batch, MOST_SEQUENCES);
	return configure(&s, p->schedules[0], e);
}

static int play(struct rounds *s, struct moe_run *run, int generate, uint64_t *ns, struct moe_err *e)
{
	const struct bench_player player = {.run = run, .watch = &s->watch, .tokens = s->tokens};
	const struct bench_test t = {.what = BENCH_PG, .prompt = (int)s->o->prompt, .generate = generate, .batch = (int)s->r->batch};
	int rc = bench_play(&player, &t, ns, NULL, e);

	if (!rc && s->err.code) {
		rc = s->err.code;
		if (e)
			*e = s->err;
	}
	return rc;
}

static int play_timed(struct rounds *s, struct moe_run *run, int round, struct moe_err *e)
{
	struct bench_samples *samples = &s->r->samples;
	uint64_t ns = 0;
	int rc;

	s->tokens_id = 0;
	s->before = moe_traffic_so_far(s->traffic);
	s->counting = true;
	rc = play(s, run, (int)s->o->generate, &ns, e);
	s->counting = false;
	samples->ns[round] = ns;
	samples->ts[round] = (double)(s->r->batch * s->o->generate) * 1e9 / (double)(ns ? ns : 1);
	return rc;
}

/* Time is taken when memory has been touched and threads have been started; files are written when it is not. */
static int play_all(struct rounds *s, struct moe_run *run, int round, struct moe_err *e)
{
	uint64_t ns;
	int rc = moe_traffic_start(run->device, &s->traffic, e);

	if (rc)
		return rc;
	rc = play(s, run, WARM_GENERATE, &ns, e);
	rc = rc ? rc : play_timed(s, run, round, e);
	s->tracing = s->o->trace && round + 1 == s->o->rounds;
	if (!rc && s->tracing)
		rc = play(s, run, (int)s->o->generate, &ns, e);
	s->tracing = false;
	moe_traffic_stop(s->traffic);
	return rc;
}

/* The same tokens from every schedule, in every round. */
static void compare_tokens(struct rounds *s)
{
	uint64_t first = s->out->of[0].tokens_id;

	s->r->tokens_id = s->tokens_id;
	if (first && first != s->tokens_id)
		moe_log(MOE_WARN, "%s generated other tokens than %s", moe_schedule_name(s->r->schedule), moe_schedule_name(s->out->of[0].schedule));
}

/* While the run is open, whose model it is about. */
static void predict(struct rounds *s, const struct moe_run *run)
{
	struct offload_result *r = s->r;
	struct moe_execution x = offload_execution(r->schedule, 1, r->weights, r->micro_batch, r->micro_batches);
	double rounds = (double)s->o->rounds;

	s->forecast.predictor.model = run->model;
	r->prefill.predicted = r->decode.predicted = s->forecast.made ? 0 : NAN;
	for (int i = 0; i < s->h->n_shapes && s->forecast.made && !isnan(r->prefill.predicted + r->decode.predicted); i++) {
		const struct shape *h = &s->h->shapes[i];

		*(h->s.prefill ? &r->prefill.predicted : &r->decode.predicted) += h->times * offload_forecast_graph(&s->forecast, s->o, &x, &h->s);
	}
	r->predicted_ts = (double)(r->batch * s->o->generate) * rounds / (r->prefill.predicted + r->decode.predicted);
}

static int run_once(struct rounds *s, int which, int round, struct moe_err *e)
{
	struct moe_run *run;
	int rc;

	s->r = &s->out->of[which];
	s->h = &s->history[which];
	s->traced[0] = s->traced[1] = false;
	rc = configure(s, s->r->schedule, e);
	rc = rc ? rc : moe_run_open(&s->config, &run, e);
	if (rc)
		return rc;
	if (!s->forecast.made && !s->o->no_roofs && !round && !which)
		rc = offload_forecast_make(run, s->out, &s->forecast, e);
	s->r->weights = run->offload.weights;
	rc = rc ? rc : play_all(s, run, round, e);
	if (!rc)
		compare_tokens(s);
	if (!rc && round + 1 == s->o->rounds)
		predict(s, run);
	moe_run_close(run);
	return rc;
}

/* ---- all of them ---- */

/* What copies reach, or what they are limited to. */
static int measure_link(struct rounds *s, struct moe_err *e)
{
	const struct offload_options *o = s->o;
	const struct moe_device_config c = {.device = o->device, .link_bandwidth = (double)o->link_bandwidth, .threads = (int)o->threads,
	                                    .numerics = MOE_NUMERICS_INIT};
	struct moe_link_rates rates;
	struct moe_backend *b;
	int rc = moe_device_open(&c, &b, e);

	if (rc)
		return rc;
	moe_device_text(b, s->out->machine);
	s->out->link_in = s->out->link_out = o->link_bandwidth ? (double)o->link_bandwidth : NAN;
	if (!o->link_bandwidth && !o->no_roofs) {
		rc = moe_measure_link(b, LINK_SECONDS, &rates, e);
		s->out->link_in = rates.in.steady;
		s->out->link_out = rates.out.steady;
	}
	b->ops->close(b);
	return rc;
}

static int prepare(struct rounds *s, struct moe_err *e)
{
	const struct offload_options *o = s->o;

	s->tokens = moe_calloc((size_t)o->prompt, sizeof *s->tokens, "a prompt", e);
	if (!s->tokens)
		return MOE_E_NOMEM;
	for (int i = 0; i < s->plan->n; i++) {
		struct offload_result *r = &s->out->of[s->out->n++];

		*r = (struct offload_result){.schedule = s->plan->schedules[i], .policy = "equal", .micro_batches = o->micro_batches,
		                             .micro_batch = o->micro_batch, .batch = o->micro_batches * o->micro_batch, .fits = true};
		if (r->schedule == MOE_SCHEDULE_ZERO) {
			r->micro_batches = 1;
			r->micro_batch = r->batch;
		}
		r->samples.n = (int)o->rounds;
		r->samples.ns = moe_calloc((size_t)o->rounds, sizeof *r->samples.ns, "samples", e);
		r->samples.ts = moe_calloc((size_t)o->rounds, sizeof *r->samples.ts, "samples", e);
		if (!r->samples.ns || !r->samples.ts)
			return MOE_E_NOMEM;
	}
	return 0;
}

static int finish(struct rounds *s, int which, struct moe_err *e)
{
	struct offload_result *r = &s->out->of[which];

	/* The first token of each comes out of the prefill. */
	r->decode_ts = (double)(r->batch * (s->o->generate - 1)) * (double)s->o->rounds / r->decode.seconds;
	return bench_statistics(&r->samples, e);
}

int offload_measured(const struct offload_options *o, const struct offload_plan *p, struct offload_results *out, struct moe_err *e)
{
	struct rounds s = {.o = o, .plan = p, .out = out};
	int rc = prepare(&s, e);

	out->model = o->model;
	rc = rc ? rc : measure_link(&s, e);
	for (int round = 0; round < o->rounds && !rc; round++)
		for (int i = 0; i < p->n && !rc; i++) {
			int which = (i + round) % p->n; /* who goes first changes too */

			rc = run_once(&s, which, round, e);
			rc = rc ? moe_fail_prefix(e, rc, "%s", moe_schedule_name(out->of[which].schedule)) : 0;
		}
	for (int i = 0; i < p->n && !rc; i++)
		rc = finish(&s, i, e);
	for (int i = 0; i < p->n; i++)
		free(s.history[i].shapes);
	free(s.tokens);
	return rc;
}
