#include "metrics.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "http/http.h"
#include "pool/pool.h"

#define RATE_NS 1000000000u      /* tokens per second are counted over so long, */
#define RATE_KEEP 0.8            /* and the last value weighs so much against a new one */

/* Stems and units are vLLM's, whose dashboards then need another prefix only. */
struct metrics {
	struct moe_watch *watch;
	struct moe_http *http;
	const char *_Atomic trouble; /* NULL: it is well */
	bool uncovered;              /* the last that was known, in health's thread */
	struct moe_run *run;
	struct balance *balance;
	struct moe_series *running, *waiting, *kv, *queries, *hits, *prompt, *generated;
	struct moe_series *first, *between, *all, *queued, *prefill, *decode, *prompt_tokens, *generated_tokens;
	struct moe_series *cache_hits, *cache_misses, *cache_evictions, *measured, *degraded;
	struct moe_metric *success, *errors;
	uint64_t rate_since, rate_tokens; /* where the rate's count began */
	double rate;
};

static const double token_bounds[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
#define TOKEN_BOUNDS ((int)(sizeof token_bounds / sizeof token_bounds[0]))

/* ---- what is counted ---- */

static struct moe_series *counter(struct metrics *m, const char *name, const char *help)
{
	return moe_watch_one(m->watch, MOE_COUNTER, name, help);
}

static struct moe_series *gauge(struct metrics *m, const char *name, const char *help)
{
	return moe_watch_one(m->watch, MOE_GAUGE, name, help);
}

static struct moe_series *seconds(struct metrics *m, const char *name, const char *help)
{
	return moe_watch_one(m->watch, MOE_HISTOGRAM, name, help);
}

static struct moe_series *tokens(struct metrics *m, const char *name, const char *help)
{
	return moe_metric_series(moe_watch_metric(m->watch, MOE_HISTOGRAM, name, help, NULL, token_bounds, TOKEN_BOUNDS), NULL);
}

static void make_requests(struct metrics *m)
{
	m->running = gauge(m, "moe_num_requests_running", "Requests that are computed.");
	m->waiting = gauge(m, "moe_num_requests_waiting", "Requests that wait for a place.");
	m->kv = gauge(m, "moe_kv_cache_usage_perc", "Share of the KV cache that requests hold: 1 is all.");
	m->queries = counter(m, "moe_prefix_cache_queries_total", "Prompt tokens looked up in the KV cache.");
	m->hits = counter(m, "moe_prefix_cache_hits_total", "Prompt tokens found in the KV cache.");
	m->prompt = counter(m, "moe_prompt_tokens_total", "Tokens of prompts, of requests that have ended.");
	m->generated = counter(m, "moe_generation_tokens_total", "Tokens generated.");
	m->success = moe_watch_metric(m->watch, MOE_COUNTER, "moe_request_success_total", "Requests that have ended without an error.", "finished_reason",
	                              NULL, 0);
	m->errors = moe_watch_metric(m->watch, MOE_COUNTER, "moe_request_errors_total", "Requests answered with an error.", "code", NULL, 0);
	m->degraded = counter(m, "moe_request_degraded_total", "Requests answered without some of their experts.");
	m->first = seconds(m, "moe_time_to_first_token_seconds", "From submission to the first token.");
	m->between = seconds(m, "moe_inter_token_latency_seconds", "Between two tokens of a request.");
	m->all = seconds(m, "moe_e2e_request_latency_seconds", "From submission to the end.");
	m->queued = seconds(m, "moe_request_queue_time_seconds", "From submission to a place in the batch.");
	m->prefill = seconds(m, "moe_request_prefill_time_seconds", "From a place in the batch to the first token.");
	m->decode = seconds(m, "moe_request_decode_time_seconds", "From the first token to the last.");
	m->prompt_tokens = tokens(m, "moe_request_prompt_tokens", "Tokens of a request's prompt.");
	m->generated_tokens = tokens(m, "moe_request_generation_tokens", "Tokens generated for a request.");
}

static void make_run(struct metrics *m)
{
	if (m->run->predicted > 0)
		moe_gauge(gauge(m, "moe_plan_predicted_tokens_per_second", "As the policy's prediction says."), m->run->predicted);
	m->measured = gauge(m, "moe_measured_tokens_per_second", "Tokens generated a second, over the last seconds.");
	if (!m->run->on_demand)
		return;
	m->cache_hits = counter(m, "moe_expert_cache_hits_total", "Experts that the device held when they were needed.");
	m->cache_misses = counter(m, "moe_expert_cache_misses_total", "Experts that had to be copied to the device.");
	m->cache_evictions = counter(m, "moe_expert_cache_evictions_total", "Experts that gave way to others on the device.");
}

/* ---- beginning and end ---- */

static const char *health(void *ctx)
{
	struct metrics *m = ctx;
	const char *trouble = atomic_load(&m->trouble);
	int covers = !trouble && m->run->remote ? moe_experts_remote_covers(m->run->experts) : 1;

	if (covers >= 0)
		m->uncovered = !covers; /* else it is as it was */
	return trouble ? trouble : m->uncovered ? "some experts have no server that can be asked" : NULL;
}

static int open_watch(struct metrics *m, const char *shards, struct moe_err *e)
{
	struct moe_buf labels = MOE_BUF_INIT;
	int rc = moe_watch_label_model(&labels, shards, e);

	if (rc == 0 && !(m->watch = moe_watch_new(labels.data, e)))
		rc = MOE_E_NOMEM;
	moe_buf_free(&labels);
	return rc ? rc : moe_watch_process(m->watch, e);
}

int metrics_open(const struct route_options *o, const char *shards, struct metrics **out, struct moe_err *e)
{
	struct metrics *m;
	int rc;

	*out = NULL;
	if (!o->metrics)
		return 0;
	m = moe_calloc(1, sizeof *m, "metrics", e);
	if (!m)
		return MOE_E_NOMEM;
	atomic_store(&m->trouble, "starting");
	rc = open_watch(m, shards, e);
	if (rc == 0)
		make_requests(m);
	rc = rc ? rc : moe_http_watch(o->metrics, m->watch, health, m, &m->http, e);
	if (rc) {
		metrics_close(m);
		return moe_fail_prefix(e, rc, "--metrics");
	}
	*out = m;
	return 0;
}

int metrics_run(struct metrics *m, const struct route_options *o, struct moe_run *run, struct moe_err *e)
{
	int rc;

	if (!m)
		return 0;
	m->run = run;
	make_run(m);
	rc = balance_open(m->watch, run, o->metrics_experts, &m->balance, e);
	m->rate_since = moe_now_ns();
	if (rc == 0)
		atomic_store(&m->trouble, NULL);
	return rc;
}

void metrics_leave(struct metrics *m)
{
	if (!m)
		return;
	moe_http_stop(m->http); /* its thread asks the run how it is */
	m->http = NULL;
	balance_close(m->balance);
	m->balance = NULL;
}

void metrics_close(struct metrics *m)
{
	if (!m)
		return;
	moe_http_stop(m->http);
	moe_watch_free(m->watch);
	free(m);
}

struct moe_watch *metrics_watch(const struct metrics *m)
{
	return m ? m->watch : NULL;
}

const char *metrics_address(const struct metrics *m)
{
	return m ? moe_http_address(m->http) : NULL;
}

/* ---- counting ---- */

static double apart(uint64_t from, uint64_t to)
{
	return to > from ? (double)(to - from) * 1e-9 : 0;
}

static void token(struct metrics *m, struct route_client *c, const struct moe_event *ev)
{
	uint64_t now = moe_now_ns();

	moe_count(m->generated, 1);
	if (c->first) {
		moe_observe(m->between, apart(c->last, now));
	} else {
		c->first = now;
		moe_observe(m->first, apart(ev->submitted, now));
		moe_observe(m->prefill, apart(ev->admitted, now));
	}
	c->last = now;
}

static void done(struct metrics *m, const struct route_client *c, const struct moe_event *ev)
{
	uint64_t now = moe_now_ns();

	if (ev->finish == MOE_FINISH_ERROR)
		metrics_refused(m, ev->err);
	else
		moe_count(moe_metric_series(m->success, (const char *const[]){moe_finish_name(ev->finish)}), 1);
	if (ev->degraded)
		moe_count(m->degraded, 1);
	moe_observe(m->all, apart(ev->submitted, now));
	moe_observe(m->queued, apart(ev->submitted, ev->admitted ? ev->admitted : now));
	if (c->first)
		moe_observe(m->decode, apart(c->first, c->last));
	if (!ev->admitted)
		return;
	moe_count(m->prompt, (uint64_t)ev->prompt_tokens);
	moe_observe(m->prompt_tokens, ev->prompt_tokens);
	moe_observe(m->generated_tokens, ev->completion_tokens);
}

void metrics_event(struct metrics *m, struct route_client *c, const struct moe_event *ev)
{
	if (!m)
		return;
	if (ev->kind == MOE_EV_TOKEN)
		token(m, c, ev);
	else if (ev->kind == MOE_EV_DONE)
		done(m, c, ev);
}

void metrics_refused(struct metrics *m, const struct moe_err *why)
{
	if (m)
		moe_count(moe_metric_series(m->errors, (const char *const[]){moe_code_name(why->code)}), 1);
}

/* Who has nothing to do generates nothing, and may not be asked again for a while. */
static void measure_rate(struct metrics *m, uint64_t now, uint64_t generated, bool busy)
{
	double rate;

	if (now - m->rate_since < RATE_NS && busy)
		return;
	rate = (double)(generated - m->rate_tokens) / apart(m->rate_since, now);
	m->rate = !busy ? 0 : m->rate > 0 ? RATE_KEEP * m->rate + (1 - RATE_KEEP) * rate : rate;
	m->rate_since = now;
	m->rate_tokens = generated;
	moe_gauge(m->measured, m->rate);
}

void metrics_step(struct metrics *m)
{
	struct moe_engine_stats s;
	uint64_t now;

	if (!m)
		return;
	now = moe_now_ns();
	s = moe_engine_stats(m->run->engine);
	moe_gauge(m->running, s.running);
	moe_gauge(m->waiting, s.waiting);
	moe_gauge(m->kv, s.kv_blocks ? (double)s.kv_blocks_used / (double)s.kv_blocks : 0);
	moe_count_to(m->queries, s.prefix_lookup_tokens);
	moe_count_to(m->hits, s.prefix_hit_tokens);
	measure_rate(m, now, s.generated, s.running + s.waiting > 0);
	balance_look(m->balance, now);
	if (m->run->on_demand) {
		struct moe_pooled_stats p;

		moe_pooled_stats(m->run->experts, &p);
		moe_count_to(m->cache_hits, p.hits);
		moe_count_to(m->cache_misses, p.misses);
		moe_count_to(m->cache_evictions, p.evictions);
	}
}
