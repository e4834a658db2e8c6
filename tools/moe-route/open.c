/* Opening what a run needs, and what requests take when they say nothing. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "client.h"
#include "metrics.h"
#include "pool/pool.h"
#include "timeline.h"

static int on_event(void *ctx, const struct moe_event *ev)
{
	const struct route *r = ctx;
	struct route_client *c = ev->user;
	metrics_event(r->metrics, c, ev);
	timeline_event(r->timeline, ev);
	return c->on_event(c, ev);
}

static int set_defaults(struct route *r, const struct route_options *o, struct moe_err *e)
{
	struct route_defaults *d = &r->defaults;
	struct moe_sampling *s = &d->sampling;
	d->max_tokens = (int)o->max_tokens;
	d->ignore_eos = o->ignore_eos;
	d->logprobs = o->logprobs;
	d->score = o->score;
	d->stop = o->stop;
	int rc = moe_run_sampling(r->run, s, e);
	s->seed = (uint64_t)o->seed;
	if (o->temperature >= 0)
		s->temperature = (float)o->temperature;
	if (o->top_p >= 0)
		s->top_p = (float)o->top_p;
	if (o->min_p >= 0)
		s->min_p = (float)o->min_p;
	if (o->top_k >= 0)
		s->top_k = (int)o->top_k;
	return rc;
}

int route_config(const char *shards, const struct route_options *o, struct moe_load_tick tick, struct moe_run_config *out, struct moe_err *e)
{
	*out = (struct moe_run_config){
		.shards = shards,
		.hosts = o->hosts,
		.connect = o->connect.v,
		.n_connect = o->connect.n,
		.client_key = o->client_key,
		.server_key = o->server_key,
		.presum = o->presum,
		.mixed_numerics = o->mixed_numerics,
		.degrade = o->degrade,
		.hedge = o->hedge / 100,
		.memory_pressure = o->memory_pressure,
		.transport = (enum moe_transport)moe_transport_parse(o->transport),
		.busy_poll = (int)o->busy_poll,
		.timeout = o->timeout,
		.record = o->importance != NULL,
		.threads = (int)o->threads,
		.verify = o->verify,
		.weights = o->load,
		.tick = tick,
		.offload = {
			.device = o->device,
			.memory = o->device_memory,
			.link_bandwidth = o->link_bandwidth,
			.policy = o->policy,
			.schedule = o->schedule,
			.micro_batches = (int)o->micro_batches,
			.micro_batch = (int)o->micro_batch,
			.has_resident = o->resident >= 0,
			.resident = o->resident,
		},
		.engine = {
			.max_sequences = (int)o->batch,
			.ctx = (int)o->ctx,
			.kv_memory = o->kv_memory,
			.no_prefix_cache = o->no_prefix_cache,
			.chunk = (int)o->chunk,
			.shed = o->max_waiting >= 0,
			.max_waiting = o->max_waiting < 0 ? 0 : (int)o->max_waiting,
			.on_event = on_event,
		},
	};
	int rc = moe_run_check_connect(o->connect.v, o->connect.n, e);
	rc = rc ? rc : moe_run_check_keys(out, e);
	rc = rc ? rc : moe_run_numerics(out, o->exact, o->activations, o->kv, o->wire, e);
	rc = rc ? rc : moe_run_overlap(out, o->overlap, e);
	rc = rc ? rc : moe_run_pinned(out, o->pinned, e);
	return rc ? rc : moe_run_check_offload(out, e);
}

void route_log_lines(const struct moe_buf *b, enum moe_level level)
{
	for (const char *s = b->data; s && *s; s += strcspn(s, "\n") + 1)
		moe_log(level, "%.*s", (int)strcspn(s, "\n"), s);
}

int route_open(struct route *r, const char *shards, const struct route_options *o, struct moe_err *e)
{
	struct moe_progress bar = {.what = "reading"};
	struct moe_run_config c;
	int rc = route_config(shards, o, (struct moe_load_tick){moe_progress_tick, &bar}, &c, e);
	rc = rc ? rc : metrics_open(o, shards, &r->metrics, e);
	c.engine.ctx_event = r;
	c.watch = metrics_watch(r->metrics);
	rc = rc ? rc : timeline_new(o, &r->timeline, e);
	c.on_ask = r->timeline ? timeline_ask : NULL;
	c.ctx_ask = r->timeline;
	rc = rc ? rc : moe_run_open(&c, &r->run, e);
	moe_progress_end(&bar);
	if (rc)
		return rc;
	route_log_lines(&r->run->notes, MOE_WARN); /* where the run is not what was asked for */
	char words[256];
	if (moe_source_made_words(r->run->source, words, sizeof words))
		moe_log(MOE_INFO, "%s", words);
	const char *dir = moe_source_text_dir(r->run->source);
	if (dir && (rc = moe_tokenizer_open(dir, &r->text, e)))
		return rc;
	rc = set_defaults(r, o, e);
	if (!rc && (o->usage || o->trace))
		rc = moe_tally_new(r->run, o->usage, o->trace, &r->tally, e);
	rc = rc ? rc : metrics_run(r->metrics, o, r->run, e);
	if (!rc && r->metrics)
		moe_log(MOE_INFO, "metrics at http://%s/metrics", metrics_address(r->metrics));
	return rc;
}

int route_step(struct route *r, bool *busy, struct moe_err *e)
{
	int rc = moe_engine_step(r->run->engine, busy, e);
	metrics_step(r->metrics);
	return rc;
}

/* What was counted is true however the run ended; an error of the run comes before one of a file. */
int route_write(struct route *r, const struct route_options *o, int rc, struct moe_err *e)
{
	if (!rc && o->importance)
		rc = moe_run_write_importance(r->run, o->importance, e);
	if (r->tally) {
		int failed = moe_tally_end(r->tally, rc ? NULL : e);
		r->tally = NULL;
		rc = rc ? rc : failed;
	}
	rc = rc ? rc : timeline_write(r->timeline, e);
	return rc;
}

void route_close(struct route *r)
{
	moe_tokenizer_free(r->text);
	metrics_leave(r->metrics);
	moe_run_close(r->run);
	metrics_close(r->metrics);
	timeline_free(r->timeline);
}

void route_describe(const struct route *r, const struct route_options *o)
{
	const struct moe_sampling *s = &r->defaults.sampling;
	struct moe_buf b = MOE_BUF_INIT;
	if (!moe_run_describe(r->run, &b, NULL))
		route_log_lines(&b, MOE_DEBUG);
	moe_buf_free(&b);
	if (o->max_waiting >= 0)
		moe_log(MOE_DEBUG, "load: %lld requests wait at most, more are refused, and those that would be late", (long long)o->max_waiting);
	else
		moe_log(MOE_DEBUG, "load: when many wait no more are read");
	if (o->memory_pressure < 1)
		moe_log(MOE_DEBUG, "memory: above %g %% in use requests wait, above %.3g %% they are refused", 100 * o->memory_pressure,
		        100 * moe_pressure_severe(o->memory_pressure));
	moe_log(MOE_DEBUG, "tokenizer: %s", r->text ? "yes" : "none, tokens only");
	moe_log(MOE_DEBUG, "sampling: temperature %g, top-k %d, top-p %g, min-p %g, seed %llu", (double)s->temperature, s->top_k,
	        (double)s->top_p, (double)s->min_p, (unsigned long long)s->seed);
}

void route_report(const struct route *r)
{
	struct moe_engine_stats s = moe_engine_stats(r->run->engine);
	moe_log(MOE_DEBUG, "%llu steps (%llu in halves), %llu rows, %llu tokens generated; at most %d sequences at once, %llu "
	        "admitted while others were generating", (unsigned long long)s.steps, (unsigned long long)s.halved,
	        (unsigned long long)s.rows, (unsigned long long)s.generated, s.most_running,
	        (unsigned long long)s.admitted_while_decoding);
	moe_log(MOE_DEBUG, "prefix cache: %llu of %llu prompt tokens found, %zu of %zu blocks kept",
	        (unsigned long long)s.prefix_hit_tokens, (unsigned long long)s.prefix_lookup_tokens, s.kv_blocks_cached, s.kv_blocks);
	struct moe_device_memory m;
	if (r->run->device) {
		char most[32];
		r->run->device->ops->memory(r->run->device, &m);
		moe_log(MOE_DEBUG, "device memory: at most %s", moe_size_text((double)m.most, most));
	}
	if (r->run->on_demand) {
		struct moe_pooled_stats p;
		moe_pooled_stats(r->run->experts, &p);
		moe_log(MOE_DEBUG, "experts on the device: %llu hits, %llu misses, %llu evictions, %llu bytes copied", (unsigned long long)p.hits,
		        (unsigned long long)p.misses, (unsigned long long)p.evictions, (unsigned long long)p.bytes);
	}
	if (!r->run->remote)
		return;
	struct moe_remote_stats n = moe_experts_remote_stats(r->run->experts);
	moe_log(MOE_DEBUG, "%llu batches in %llu messages to servers, %llu bytes out, %llu in, %.3f s waiting for answers",
	        (unsigned long long)n.batches, (unsigned long long)n.messages, (unsigned long long)n.bytes_out,
	        (unsigned long long)n.bytes_in, (double)n.wait_ns * 1e-9);
	moe_log(MOE_DEBUG, "of these through shared memory: %llu messages, %llu bytes out, %llu in", (unsigned long long)n.shm_messages,
	        (unsigned long long)n.shm_bytes_out, (unsigned long long)n.shm_bytes_in);
	moe_log(MOE_DEBUG, "messages: %llu sent again after a loss, %llu hedged; epoch %llu", (unsigned long long)n.retried,
	        (unsigned long long)n.hedged, (unsigned long long)n.epoch);
}
