/* A new epoch, or more experts, beside what is served: loaded by a thread of its own, of low priority, then offered to the clients. */
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/team.h"
#include "serve.h"

/* As linux/ioprio.h has them, which not every system installs. */
#define IOPRIO_OF_THREAD 1
#define IOPRIO_LOWEST (2 << 13 | 7) /* best effort: it always gets on, if slowly */
#define NICE 15

struct reloader {
	struct reload_config c;
	pthread_t thread;
	bool started;
	int bell;                    /* eventfd: may be rung by a signal handler */
	atomic_bool told, stop;      /* to load what the manifest says now; to end */

	pthread_mutex_t lock;        /* over what the server's thread says: */
	bool wanted, settled;
	uint8_t *want;               /* [places] experts to take over */
	enum moe_hold_event what;
	char words[256];

	/* The thread's own. */
	bool reloading;              /* SIGHUP was heard, and what comes of it is not known */
	size_t places;
	uint8_t *taken;              /* [places] experts taken over so far */
	struct moe_held *now, *offered;
	struct moe_source *source;   /* of the epoch in use, if that is not the plan's */
	struct moe_source *next;     /* of what is offered, if it is another epoch */
	struct moe_server *server;
	char name[SERVER_NAME];
};

static void ring(const struct reloader *r)
{
	uint64_t one = 1;
	ssize_t n = write(r->bell, &one, sizeof one);

	(void)n; /* full means that it rings already */
}

/* ---- told by others ---- */

void reloader_hup(struct reloader *r)
{
	/* At once, and not after a load: who was taken off the list is to be cut off. */
	if (r->c.p->keys)
		moe_keys_look(r->c.p->keys);
	atomic_store(&r->told, true);
	ring(r);
}

int reloader_take(struct reloader *r, const uint8_t *want, struct moe_err *e)
{
	(void)e;
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->places; i++)
		r->want[i] |= want[i] != 0;
	r->wanted = true;
	pthread_mutex_unlock(&r->lock);
	ring(r);
	return 0;
}

void reloader_event(struct reloader *r, enum moe_hold_event what, const char *words)
{
	pthread_mutex_lock(&r->lock);
	r->settled = true;
	r->what = what;
	snprintf(r->words, sizeof r->words, "%s", words);
	pthread_mutex_unlock(&r->lock);
	ring(r);
}

/* ---- what came of it ---- */

static void count(struct reloader *r, const char *result)
{
	moe_count(moe_metric_series(moe_watch_metric(r->c.watch, MOE_COUNTER, "moe_serve_reloads_total",
	                                             "Epochs and experts loaded while serving, by what became of them.", "result", NULL, 0),
	                            (const char *const[]){result}),
	          1);
}

/* Words of what happens to an epoch, with its name for programs. */
__attribute__((format(printf, 5, 6)))
static void say(const struct reloader *r, enum moe_level level, const char *event, uint64_t epoch, const char *fmt, ...)
{
	const struct moe_log_field fields[] = {{"rank", NULL, r->c.rank}, {"epoch", NULL, (int64_t)epoch}};
	char words[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(words, sizeof words, fmt, ap);
	va_end(ap);
	moe_log_event(level, event, fields, 2, "%s", words);
}

static void refused(struct reloader *r, const struct moe_err *why)
{
	if (why->code == MOE_E_CANCELLED)
		return;
	say(r, MOE_WARN, "reload_failed", moe_held_epoch(r->now), "%s: not loaded: %s; epoch %llu goes on", r->name, why->msg,
	    (unsigned long long)moe_held_epoch(r->now));
	moe_server_say(r->server, false, why->msg);
	count(r, "refused");
}

static const struct moe_source *source_now(const struct reloader *r)
{
	return r->source ? r->source : r->c.p->source;
}

/* Does this server's rank exist no longer?  Others have its experts then, and the clients ask them. */
static bool is_retired(const struct reloader *r)
{
	return !r->c.p->o.spare && r->c.rank >= source_now(r)->placement.devices;
}

static void taken(struct reloader *r, const char *words)
{
	say(r, MOE_INFO, "reload_taken", moe_held_epoch(r->offered), "%s: epoch %llu, %d expert%s: %s", r->name,
	    (unsigned long long)moe_held_epoch(r->offered), moe_held_count(r->offered), moe_held_count(r->offered) == 1 ? "" : "s", words);
	moe_held_release(r->now);
	r->now = r->offered;
	if (r->next) {
		moe_source_close(r->source);
		r->source = r->next;
	}
	moe_server_say(r->server, false, "");
	count(r, "taken");
	if (r->c.to->epoch)
		r->c.to->epoch(r->c.to->ctx, moe_held_epoch(r->now));
	if (!is_retired(r))
		return;
	say(r, MOE_INFO, "server_retired", moe_held_epoch(r->now), "%s: is no longer of the set, and ends", r->name);
	if (r->c.to->retired)
		r->c.to->retired(r->c.to->ctx);
	moe_server_stop(r->server);
}

static void withdrawn(struct reloader *r, const char *words)
{
	say(r, MOE_WARN, "reload_failed", moe_held_epoch(r->offered), "%s: epoch %llu was taken back: %s; epoch %llu goes on", r->name,
	    (unsigned long long)moe_held_epoch(r->offered), words, (unsigned long long)moe_held_epoch(r->now));
	moe_held_release(r->offered);
	moe_source_close(r->next);
	moe_server_say(r->server, false, words);
	count(r, "withdrawn");
}

static void settle(struct reloader *r)
{
	enum moe_hold_event what;
	char words[sizeof r->words];
	bool settled;

	pthread_mutex_lock(&r->lock);
	settled = r->settled;
	r->settled = false;
	what = r->what;
	memcpy(words, r->words, sizeof words);
	pthread_mutex_unlock(&r->lock);
	if (!settled || !r->offered)
		return;
	if (what == MOE_HOLD_TAKEN)
		taken(r, words);
	else
		withdrawn(r, words);
	r->offered = NULL;
	r->next = NULL;
}

/* ---- loading ---- */

static bool goes_on(void *ctx, uint64_t done, uint64_t total)
{
	struct reloader *r = ctx;

	(void)done, (void)total;
	return !atomic_load(&r->stop);
}

/* What this server is to hold of a source: its rank's, and what it has taken over. */
static int list(const struct reloader *r, const struct moe_source *s, uint8_t **out, struct moe_err *e)
{
	const struct moe_model *m = &r->c.p->source->model;
	int wide = moe_model_max_experts(m);
	bool mine = r->c.rank >= 0 && r->c.rank < s->placement.devices;

	*out = moe_calloc(r->places, 1, "list of experts", e);
	if (!*out)
		return MOE_E_NOMEM;
	for (int l = 0; l < m->n_layers; l++)
		for (int x = 0; x < m->layers[l].ffn.experts; x++)
			(*out)[l * wide + x] = r->taken[l * wide + x] || (mine && moe_placement_holds(&s->placement, r->c.rank, l, x));
	return 0;
}

static void say_loaded(const struct reloader *r, const struct moe_held *h, const struct moe_held_report *report, uint64_t ns)
{
	char kept[32], loaded[32];

	say(r, MOE_INFO, "reload_loaded", moe_held_epoch(h),
	    "%s: epoch %llu: %d expert%s kept (%s), %d loaded (%s) in %.2f s%s; offered to the clients", r->name,
	    (unsigned long long)moe_held_epoch(h), report->kept, report->kept == 1 ? "" : "s", moe_size_text((double)report->kept_bytes, kept),
	    report->loaded, moe_size_text((double)report->loaded_bytes, loaded), (double)ns / 1e9,
	    report->loaded && !report->probed ? ", without probes, which the set has not" : "");
}

/* Load from s what this server is to hold, and offer it. */
static int offer(struct reloader *r, struct moe_source *s, struct moe_err *e)
{
	const struct plan *p = r->c.p;
	struct moe_held_config c = {
		.model = &p->source->model, .backend = r->c.backend, .fingerprint = p->identity.fingerprint, .rank = r->c.rank,
		.max_rows = (int)p->o.max_rows, .weights = p->o.load, .check = true, .tick = {goes_on, r},
	};
	struct moe_held_report report;
	struct moe_held *h = NULL;
	struct moe_hold hold;
	uint8_t *want;
	uint64_t start = moe_now_ns();
	int rc = list(r, s, &want, e);

	moe_server_say(r->server, true, "");
	rc = rc ? rc : moe_held_open(&c, s, want, r->now, &h, &report, e);
	free(want);
	if (rc)
		return rc;
	say_loaded(r, h, &report, moe_now_ns() - start);
	r->offered = h;
	hold = moe_held_hold(h);
	rc = moe_server_offer(r->server, &hold, e);
	if (rc) {
		hold.release(hold.ctx);
		moe_held_release(h);
		r->offered = NULL;
	}
	return rc;
}

/* Is there another epoch, that may follow ours? */
static int check_epoch(const struct reloader *r, const struct moe_source *s, bool *same, struct moe_err *e)
{
	uint64_t now = moe_held_epoch(r->now);

	*same = false;
	if (!s->sharded)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: is no shard set any more", s->path);
	if (s->epoch < now)
		return moe_fail(e, MOE_E_INPUT, "%s: epoch %llu is older than the one that is served", s->path, (unsigned long long)s->epoch);
	*same = s->epoch == now;
	return 0;
}

static int reload(struct reloader *r, struct moe_err *e)
{
	const char *path = r->c.p->source->path;
	struct moe_source *s;
	bool same;
	int rc;

	if (!r->c.p->source->sharded)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: is no shard set, which alone has epochs", path);
	rc = moe_source_open(path, &s, e);
	if (rc)
		return rc;
	rc = check_epoch(r, s, &same, e);
	if (same) {
		say(r, MOE_INFO, "reload_unchanged", s->epoch, "%s: epoch %llu is served already", r->name, (unsigned long long)s->epoch);
		count(r, "unchanged");
	}
	if (!rc && !same)
		rc = offer(r, s, e);
	if (r->offered)
		r->next = s;
	else
		moe_source_close(s);
	return rc;
}

/* The experts of a server that is gone, in the epoch in use. */
static int take_over(struct reloader *r, struct moe_err *e)
{
	const uint8_t *has = moe_held_has(r->now);
	bool new = false;

	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->places; i++) {
		new = new || (r->want[i] && !has[i]);
		r->taken[i] |= r->want[i];
		r->want[i] = 0;
	}
	r->wanted = false;
	pthread_mutex_unlock(&r->lock);
	return new ? offer(r, r->source ? r->source : r->c.p->source, e) : 0;
}

/* ---- the thread ---- */

static bool wanted(struct reloader *r)
{
	bool is;

	pthread_mutex_lock(&r->lock);
	is = r->wanted;
	pthread_mutex_unlock(&r->lock);
	return is;
}

/* Serving comes first.  Threads that this one starts inherit both. */
static void be_patient(void)
{
	(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
	(void)syscall(SYS_ioprio_set, IOPRIO_OF_THREAD, 0, IOPRIO_LOWEST);
}

static void begin(struct reloader *r)
{
	r->reloading = true;
	notify_reloading(); /* nothing in a child, whose supervisor has said so */
	say(r, MOE_INFO, "reload_begin", moe_held_epoch(r->now), "%s: looks for another epoch than %llu", r->name,
	    (unsigned long long)moe_held_epoch(r->now));
}

/* Done or not, it is over. */
static void end(struct reloader *r)
{
	r->reloading = false;
	if (!atomic_load(&r->stop) && r->c.to->reloaded)
		r->c.to->reloaded(r->c.to->ctx);
}

/* One thing after the other: while an offer is under way, what else is to be done is remembered. */
static void attend(struct reloader *r)
{
	struct moe_err e = MOE_ERR_INIT;

	settle(r);
	if (!r->offered && wanted(r) && take_over(r, &e))
		refused(r, &e);
	if (!r->offered && atomic_exchange(&r->told, false)) {
		begin(r);
		if (reload(r, &e))
			refused(r, &e);
	}
	if (r->reloading && !r->offered && !atomic_load(&r->told))
		end(r);
}

static void *work(void *arg)
{
	struct reloader *r = arg;
	uint64_t rings;

	be_patient();
	while (!atomic_load(&r->stop)) {
		if (read(r->bell, &rings, sizeof rings) == sizeof rings)
			attend(r);
	}
	return NULL;
}

/* ---- life ---- */

int reloader_new(const struct reload_config *c, struct moe_held *first, struct reloader **out, struct moe_err *e)
{
	const struct moe_model *m = &c->p->source->model;
	struct reloader *r = moe_calloc(1, sizeof *r, "loader", e);

	if (!r)
		return MOE_E_NOMEM;
	pthread_mutex_init(&r->lock, NULL);
	r->c = *c;
	server_name(c->rank, r->name);
	r->places = (size_t)m->n_layers * (size_t)moe_model_max_experts(m);
	r->now = moe_held_keep(first);
	r->want = moe_calloc(r->places, 1, "list of experts", e);
	r->taken = moe_calloc(r->places, 1, "list of experts", e);
	r->bell = r->want && r->taken ? eventfd(0, EFD_CLOEXEC) : -1;
	if (r->bell < 0) {
		int rc = r->want && r->taken ? moe_fail_errno(e, "eventfd") : MOE_E_NOMEM;

		reloader_free(r);
		return rc;
	}
	*out = r;
	return 0;
}

int reloader_start(struct reloader *r, struct moe_server *s, struct moe_err *e)
{
	int rc;

	r->server = s;
	rc = moe_thread_start(work, r, &r->thread, e);
	r->started = rc == 0;
	return rc;
}

int reloader_end(struct reloader *r, struct moe_err *e)
{
	atomic_store(&r->stop, true);
	ring(r);
	if (r->started)
		pthread_join(r->thread, NULL);
	r->started = false;
	return moe_held_check(r->now, e);
}

void reloader_free(struct reloader *r)
{
	if (!r)
		return;
	moe_held_release(r->now);
	moe_held_release(r->offered);
	moe_source_close(r->source);
	moe_source_close(r->next);
	if (r->bell >= 0)
		close(r->bell);
	pthread_mutex_destroy(&r->lock);
	free(r->want);
	free(r->taken);
	free(r);
}
