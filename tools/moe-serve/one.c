/* One server: the experts of one rank, from the files to the last answer. */
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/team.h"
#include "compute/compute.h"
#include "metrics.h"
#include "serve.h"

struct one {
	const struct plan *p;
	int rank, experts;
	const struct moe_node *node; /* that it is bound to, or NULL */
	uint8_t *has;
	struct moe_tensors *tensors;
	struct moe_team *team;
	struct moe_backend *backend;
	struct moe_experts *local;
	struct moe_server *server;
	struct metrics metrics;
};

/* ---- signals ---- */

static struct moe_server *volatile stop_this;
static struct metrics *volatile stop_metrics;
static atomic_int quit_at_once;

static void on_signal(int sig)
{
	static atomic_int seen;

	if (seen && quit_at_once)
		_exit(128 + sig);
	seen = 1;
	notify("STOPPING=1\nSTATUS=answering what was received");
	metrics_health(stop_metrics, "draining");
	moe_server_stop(stop_this);
}

static void catch_signals(struct one *o, bool quit_twice)
{
	struct sigaction sa = {.sa_handler = on_signal};

	stop_this = o->server;
	stop_metrics = &o->metrics;
	quit_at_once = quit_twice;
	sigemptyset(&sa.sa_mask);
	sigaction(SIGTERM, &sa, NULL);
	/* Ctrl-C reaches every process of the terminal; under a supervisor it is the supervisor's to act on. */
	if (!quit_twice)
		sa.sa_handler = SIG_IGN;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
}

static void ignore_signals(void)
{
	struct sigaction sa = {.sa_handler = SIG_IGN};

	sigemptyset(&sa.sa_mask);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
}

/* ---- opening ---- */

static int list_experts(struct one *o, struct moe_err *e)
{
	const struct moe_model *m = &o->p->source->model;
	int wide = moe_model_max_experts(m);

	o->has = moe_calloc((size_t)m->n_layers * (size_t)wide, 1, "list of experts", e);
	if (!o->has)
		return MOE_E_NOMEM;
	for (int l = 0; l < m->n_layers; l++)
		for (int x = 0; x < m->layers[l].ffn.experts; x++) {
			bool held = moe_placement_holds(&o->p->source->placement, o->rank, l, x);

			o->has[l * wide + x] = held;
			o->experts += held;
		}
	return 0;
}

/* Servers of one supervisor read side by side; one bar tells of them all. */
static int load(struct one *o, struct moe_err *e)
{
	struct moe_progress bar = {.what = "reading"};
	struct moe_load_tick tick = {moe_progress_tick, &bar};
	int rc = moe_tensors_load(o->tensors, o->p->o.load, o->team, o->rank == o->p->first ? &tick : NULL, e);

	moe_progress_end(&bar);
	return rc;
}

static int verify(const struct one *o, struct moe_err *e)
{
	struct moe_progress bar = {.what = "verifying"};
	struct moe_shard_options c = MOE_SHARD_OPTIONS_INIT;
	int rc;

	if (!o->p->o.verify)
		return 0;
	c.threads = plan_threads(o->p, o->rank, o->node);
	if (o->rank == o->p->first)
		c.tick = moe_progress_tick;
	c.ctx = &bar;
	rc = moe_source_verify(o->p->source, o->rank, &c, e);
	moe_progress_end(&bar);
	return rc;
}

static int open_compute(struct one *o, struct moe_err *e)
{
	const struct plan *p = o->p;
	char words[256];
	int rc = verify(o, e);

	if (!rc)
		rc = moe_source_tensors(p->source, o->rank, &o->tensors, e);
	if (!rc && moe_source_made_words(p->source, words, sizeof words))
		moe_log(MOE_INFO, "%s", words);
	if (!rc)
		rc = moe_team_new(plan_threads(p, o->rank, o->node), &o->team, e);
	if (!rc)
		rc = device_open(p, o->rank, o->team, &o->backend, e);
	if (!rc)
		rc = load(o, e);
	if (!rc)
		rc = moe_experts_local(o->backend, o->tensors, &p->source->model, o->has, (int)p->o.max_rows, &o->local, e);
	return rc;
}

/* The loop goes round: told to the supervisor, or to the service manager. */
static void alive(void *ctx)
{
	const struct one *o = ctx;

	if (o->p->beats)
		o->p->beats[o->rank - o->p->first] = moe_now_ns();
	else
		notify("WATCHDOG=1");
}

static int open_server(struct one *o, struct moe_err *e)
{
	const struct plan *p = o->p;
	char *bind = plan_endpoint(p, o->rank, e);
	struct moe_server_config c = {
		.bind = bind, .advertise = p->o.advertise, .keys = p->keys, .rank = o->rank, .model = &p->source->model, .identity = p->identity,
		.hold = {.epoch = p->identity.epoch, .has = o->has, .experts = o->local}, .max_rows = (int)p->o.max_rows, .credits = CREDITS, .rate = p->o.rate,
		.no_shm = p->o.no_shm, .busy_poll = (int)p->o.busy_poll, .alive = p->watchdog > 0 ? alive : NULL,
		.alive_every = p->watchdog / 4, .ctx = o, .watch = o->metrics.watch,
	};
	int rc = bind ? moe_server_new(&c, &o->server, e) : e->code;

	free(bind);
	return rc;
}

static int open_all(struct one *o, struct moe_err *e)
{
	int rc = nodes_bind(o->p, o->rank, &o->node, e); /* first: memory is then got from there */

	if (!rc)
		rc = metrics_open(o->p, o->rank, &o->metrics, e);
	if (!rc)
		rc = list_experts(o, e);
	if (!rc)
		rc = open_compute(o, e);
	rc = rc ? rc : open_server(o, e);
	return rc ? rc : metrics_of(&o->metrics, o->server, e);
}

static void close_all(struct one *o)
{
	metrics_hide(&o->metrics);
	moe_server_free(o->server);
	if (o->local)
		o->local->ops->close(o->local);
	if (o->backend)
		o->backend->ops->close(o->backend);
	moe_team_free(o->team);
	moe_tensors_free(o->tensors);
	free(o->has);
	metrics_close(&o->metrics);
}

/* ---- the words when ready ---- */

/* One write, so that the lines of several servers on one pipe do not mix. */
static int print_ready(const struct one *o, uint64_t bytes, struct moe_err *e)
{
	const struct moe_identity *id = &o->p->identity;
	struct moe_jw w;
	size_t len;
	char *line, device[DEVICE_NAME];
	int rc;

	moe_jw_init(&w, false);
	moe_jw_obj(&w);
	moe_jw_key(&w, "event");
	moe_jw_str(&w, "ready");
	moe_jw_key(&w, "rank");
	moe_jw_int(&w, o->rank);
	moe_jw_key(&w, "endpoint");
	moe_jw_str(&w, moe_server_endpoint(o->server));
	moe_jw_key(&w, "experts");
	moe_jw_int(&w, o->experts);
	moe_jw_key(&w, "bytes");
	moe_jw_int(&w, (int64_t)bytes);
	moe_jw_key(&w, "fingerprint");
	moe_jw_str(&w, id->fingerprint);
	moe_jw_key(&w, "epoch");
	moe_jw_int(&w, (int64_t)id->epoch);
	moe_jw_key(&w, "numerics");
	moe_jw_str(&w, id->numerics_text);
	moe_jw_key(&w, "device");
	moe_jw_str(&w, device_name(o->p, o->rank, device));
	if (o->p->keys) {
		moe_jw_key(&w, "key");
		moe_jw_str(&w, moe_keys_public(o->p->keys));
	}
	if (o->node) {
		moe_jw_key(&w, "node");
		moe_jw_int(&w, o->node->id);
	}
	if (o->metrics.http) {
		moe_jw_key(&w, "metrics");
		moe_jw_str(&w, moe_http_address(o->metrics.http));
	}
	moe_jw_key(&w, "pid");
	moe_jw_int(&w, getpid());
	moe_jw_end(&w);
	line = moe_jw_done(&w, &len, e);
	if (!line)
		return MOE_E_NOMEM;
	line[len] = '\n';
	rc = moe_write_all(STDOUT_FILENO, line, len + 1, "standard output", e);
	free(line);
	return rc;
}

static void print_config(const struct one *o, uint64_t bytes)
{
	const struct options *c = &o->p->o;
	char a[32], b[32], device[MOE_DEVICE_TEXT];

	moe_log(MOE_DEBUG,
	        "rank %d: %s, %d expert%s (%s, %s), %s, %d thread%s, at most %d rows a message and %d requests a client, "
	        "buffers %s, numerics %s",
	        o->rank, moe_server_endpoint(o->server), o->experts, o->experts == 1 ? "" : "s", moe_size_text((double)bytes, a), moe_load_text(c->load),
	        moe_device_text(o->backend, device), moe_team_size(o->team), moe_team_size(o->team) == 1 ? "" : "s", (int)c->max_rows, CREDITS,
	        moe_size_text((double)moe_server_bytes(&o->p->source->model, (int)c->max_rows, c->no_shm), b),
	        o->p->identity.numerics_text);
	moe_log(MOE_DEBUG, "rank %d: shared memory: %s", o->rank,
	        moe_server_no_shm(o->server) ? moe_server_no_shm(o->server) : "offered");
}

static void print_end(const struct one *o)
{
	struct moe_server_stats s = moe_server_stats(o->server);

	moe_log(MOE_DEBUG, "rank %d: %llu batches, %llu rows, %llu pairs, %llu refused, %llu bytes in, %llu out", o->rank,
	        (unsigned long long)s.batches, (unsigned long long)s.rows, (unsigned long long)s.pairs,
	        (unsigned long long)s.refused, (unsigned long long)s.bytes_in, (unsigned long long)s.bytes_out);
	moe_log(MOE_DEBUG, "rank %d: of these through shared memory %llu batches, %llu bytes in, %llu out", o->rank,
	        (unsigned long long)s.shm_batches, (unsigned long long)s.shm_bytes_in, (unsigned long long)s.shm_bytes_out);
}

int serve_one(const struct plan *p, int rank, bool quit_twice, ready_fn *ready, void *ctx, struct moe_err *e)
{
	struct one o = {.p = p, .rank = rank};
	uint64_t bytes = 0;
	int rc = open_all(&o, e);

	if (!rc) {
		metrics_health(&o.metrics, NULL);
		catch_signals(&o, quit_twice);
		rc = plan_weight_bytes(p, rank, &bytes, e);
	}
	if (!rc)
		rc = print_ready(&o, bytes, e);
	if (!rc) {
		print_config(&o, bytes);
		rc = ready(ctx, moe_server_endpoint(o.server), e);
	}
	if (!rc)
		rc = moe_server_run(o.server, e);
	if (!rc)
		rc = moe_tensors_check(o.tensors, e);
	if (o.server) {
		print_end(&o);
		ignore_signals();
	}
	close_all(&o);
	return rc;
}
