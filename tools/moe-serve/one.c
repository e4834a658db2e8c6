/* One server: the experts of one rank, from the files to the last answer. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
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
	int rank;
	const struct moe_node *node; /* that it is bound to, or NULL */
	struct moe_team *team;
	struct moe_backend *backend;
	struct moe_held *held;       /* when it began */
	struct reloader *reloader;
	struct moe_server *server;
	struct metrics metrics;
};

/* ---- signals ---- */

static struct moe_server *volatile stop_this;
static struct metrics *volatile stop_metrics;
static struct reloader *volatile tell_this;
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

static void on_hup(int sig)
{
	(void)sig;
	reloader_hup(tell_this);
}

/* A SIGHUP that comes before the server can act on it waits. */
static void delay_hup(int how)
{
	sigset_t hup;

	sigemptyset(&hup);
	sigaddset(&hup, SIGHUP);
	sigprocmask(how, &hup, NULL);
}

static void catch_signals(struct one *o, bool quit_twice)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	stop_this = o->server;
	stop_metrics = &o->metrics;
	tell_this = o->reloader;
	quit_at_once = quit_twice;
	sigemptyset(&sa.sa_mask);
	sigaction(SIGTERM, &sa, NULL);
	/* Ctrl-C reaches every process of the terminal; under a supervisor it is the supervisor's to act on. */
	if (!quit_twice)
		sa.sa_handler = SIG_IGN;
	sigaction(SIGINT, &sa, NULL);
	sa.sa_handler = on_hup;
	sigaction(SIGHUP, &sa, NULL);
	delay_hup(SIG_UNBLOCK);
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

/* Servers of one supervisor read side by side; one bar tells of them all. */
static int load(struct one *o, struct moe_err *e)
{
	const struct plan *p = o->p;
	struct moe_progress bar = {.what = "reading"};
	struct moe_held_report report;
	struct moe_held_config c = {
		.model = &p->source->model, .backend = o->backend, .fingerprint = p->identity.fingerprint, .rank = o->rank,
		.max_rows = (int)p->o.max_rows, .weights = p->o.load, .team = o->team, .check = p->check,
	};
	int rc;

	if (o->rank == p->first)
		c.tick = (struct moe_load_tick){moe_progress_tick, &bar};
	rc = moe_held_open(&c, p->source, NULL, NULL, &o->held, &report, e);
	moe_progress_end(&bar);
	return rc;
}

static int open_compute(struct one *o, struct moe_err *e)
{
	const struct plan *p = o->p;
	char words[256];
	int rc = verify(o, e);

	if (!rc)
		rc = moe_team_new(plan_threads(p, o->rank, o->node), &o->team, e);
	if (!rc)
		rc = device_open(p, o->rank, o->team, &o->backend, e);
	if (!rc)
		rc = load(o, e);
	if (!rc && moe_source_made_words(p->source, words, sizeof words))
		moe_log(MOE_INFO, "%s", words);
	return rc;
}

/* ---- what the server's thread says ---- */

/* The loop goes round: told to the supervisor, or to the service manager. */
static void alive(void *ctx)
{
	const struct one *o = ctx;

	if (o->p->beats)
		o->p->beats[o->rank - o->p->first] = moe_now_ns();
	else
		notify("WATCHDOG=1");
}

static int take(void *ctx, const uint8_t *want, struct moe_err *e)
{
	return reloader_take(((struct one *)ctx)->reloader, want, e);
}

static void event(void *ctx, uint64_t epoch, enum moe_hold_event what, const char *words)
{
	(void)epoch;
	reloader_event(((struct one *)ctx)->reloader, what, words);
}

static int open_reloader(struct one *o, const struct listener *to, struct moe_err *e)
{
	struct reload_config c = {.p = o->p, .rank = o->rank, .backend = o->backend, .to = to, .watch = o->metrics.watch};

	return reloader_new(&c, o->held, &o->reloader, e);
}

static int open_server(struct one *o, struct moe_err *e)
{
	const struct plan *p = o->p;
	char *bind = plan_endpoint(p, o->rank, e);
	struct moe_server_config c = {
		.bind = bind, .advertise = p->o.advertise, .keys = p->keys, .rank = o->rank, .model = &p->source->model, .identity = p->identity,
		.hold = moe_held_hold(o->held), .take = p->o.spare ? take : NULL, .event = event, .max_rows = (int)p->o.max_rows, .credits = CREDITS,
		.rate = p->o.rate,
		.no_shm = p->o.no_shm, .busy_poll = (int)p->o.busy_poll, .alive = p->watchdog > 0 ? alive : NULL,
		.alive_every = p->watchdog / 4, .ctx = o, .watch = o->metrics.watch,
	};
	int rc = bind ? moe_server_new(&c, &o->server, e) : e->code;

	if (rc)
		c.hold.release(c.hold.ctx);
	free(bind);
	return rc ? rc : reloader_start(o->reloader, o->server, e);
}

static int open_all(struct one *o, const struct listener *to, struct moe_err *e)
{
	int rc = nodes_bind(o->p, o->rank, &o->node, e); /* first: memory is then got from there */

	if (!rc)
		rc = metrics_open(o->p, o->rank, &o->metrics, e);
	if (!rc)
		rc = open_compute(o, e);
	if (!rc)
		rc = open_reloader(o, to, e);
	rc = rc ? rc : open_server(o, e);
	return rc ? rc : metrics_of(&o->metrics, o->server, e);
}

static void close_all(struct one *o)
{
	metrics_hide(&o->metrics);
	moe_server_free(o->server);
	reloader_free(o->reloader);
	moe_held_release(o->held);
	if (o->backend)
		o->backend->ops->close(o->backend);
	moe_team_free(o->team);
	metrics_close(&o->metrics);
}

/* ---- the words when ready ---- */

/* One write, so that the lines of several servers on one pipe do not mix. */
static int print_ready(const struct one *o, struct moe_err *e)
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
	if (o->rank == MOE_BASE)
		moe_jw_null(&w);
	else
		moe_jw_int(&w, o->rank);
	moe_jw_key(&w, "endpoint");
	moe_jw_str(&w, moe_server_endpoint(o->server));
	moe_jw_key(&w, "experts");
	moe_jw_int(&w, moe_held_count(o->held));
	moe_jw_key(&w, "bytes");
	moe_jw_int(&w, (int64_t)moe_held_bytes(o->held));
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
	if (o->p->o.spare) {
		moe_jw_key(&w, "spare");
		moe_jw_bool(&w, true);
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

static void print_config(const struct one *o)
{
	const struct options *c = &o->p->o;
	char a[32], b[32], device[MOE_DEVICE_TEXT], name[SERVER_NAME];
	int experts = moe_held_count(o->held);

	moe_log(MOE_DEBUG,
	        "%s: %s, %d expert%s (%s, %s), %s, %d thread%s, at most %d rows a message and %d requests a client, "
	        "buffers %s, numerics %s",
	        server_name(o->rank, name), moe_server_endpoint(o->server), experts, experts == 1 ? "" : "s",
	        moe_size_text((double)moe_held_bytes(o->held), a), moe_load_text(c->load),
	        moe_device_text(o->backend, device), moe_team_size(o->team), moe_team_size(o->team) == 1 ? "" : "s", (int)c->max_rows, CREDITS,
	        moe_size_text((double)moe_server_bytes(&o->p->source->model, (int)c->max_rows, c->no_shm), b),
	        o->p->identity.numerics_text);
	moe_log(MOE_DEBUG, "%s: shared memory: %s", name,
	        moe_server_no_shm(o->server) ? moe_server_no_shm(o->server) : "offered");
}

static void print_end(const struct one *o)
{
	struct moe_server_stats s = moe_server_stats(o->server);
	char name[SERVER_NAME];

	moe_log(MOE_DEBUG, "%s: %llu batches, %llu rows, %llu pairs, %llu refused, %llu bytes in, %llu out", server_name(o->rank, name),
	        (unsigned long long)s.batches, (unsigned long long)s.rows, (unsigned long long)s.pairs,
	        (unsigned long long)s.refused, (unsigned long long)s.bytes_in, (unsigned long long)s.bytes_out);
	moe_log(MOE_DEBUG, "%s: of these through shared memory %llu batches, %llu bytes in, %llu out", name,
	        (unsigned long long)s.shm_batches, (unsigned long long)s.shm_bytes_in, (unsigned long long)s.shm_bytes_out);
}

const char *server_name(int rank, char name[SERVER_NAME])
{
	if (rank == MOE_BASE)
		snprintf(name, SERVER_NAME, "spare");
	else
		snprintf(name, SERVER_NAME, "rank %d", rank);
	return name;
}

static int serve(struct one *o, bool quit_twice, const struct listener *to, struct moe_err *e)
{
	int rc, ended;
	struct moe_err why = MOE_ERR_INIT;

	metrics_health(&o->metrics, NULL);
	catch_signals(o, quit_twice);
	rc = print_ready(o, e);
	if (!rc) {
		print_config(o);
		rc = to->ready(to->ctx, moe_server_endpoint(o->server), e);
	}
	if (!rc)
		rc = moe_server_run(o->server, e);
	ended = reloader_end(o->reloader, &why);
	if (!rc && ended)
		*e = why;
	print_end(o);
	ignore_signals();
	return rc ? rc : ended;
}

int serve_one(const struct plan *p, int rank, bool quit_twice, const struct listener *to, struct moe_err *e)
{
	struct one o = {.p = p, .rank = rank};
	int rc;

	delay_hup(SIG_BLOCK);
	rc = open_all(&o, to, e);
	if (!rc)
		rc = serve(&o, quit_twice, to, e);
	else if (o.reloader)
		reloader_end(o.reloader, NULL);
	close_all(&o);
	return rc;
}
