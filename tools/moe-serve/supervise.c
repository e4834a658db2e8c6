/* One child per rank: started together, ended together, and with --restart started again alone. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "serve.h"

/* How long children may take to finish what they received. */
#define DRAIN_NS 30000000000u

/* Pauses before a child is started again: each twice the one before, unless it lived for long. */
#define PAUSE_NS 500000000u
#define MOST_PAUSE_NS 30000000000u
#define LONG_NS 60000000000u

struct child {
	pid_t pid;                   /* 0: not started, or gone */
	char *endpoint;              /* once ready */
	char *why;                   /* what it said was wrong */
	bool late;                   /* of an epoch that came later: the others do without it */
	bool retired;                /* its rank is no longer of the set */
	bool reloading;              /* it was told to look at the manifest, and has not said what came of it */
	uint64_t started, pause;     /* last time; before the next */
	uint64_t start_at;           /* 0: it is not to be started again */
};

struct supervisor {
	const struct plan *p;
	struct child *children;      /* [MOE_MAX_DEVICES] of which n are used, by rank - first */
	int n, running;
	int at_first;                /* children that there were; each has its beat */
	struct moe_source *source;   /* of the epoch in use, if that is not the plan's */
	int signals, reports, report_to; /* signalfd; the pipe on which children report */
	sigset_t before;             /* signal mask to give to children */
	uint64_t kill_at;            /* 0: not stopping */
	bool reloading;              /* the service manager was told so */
	int quit;                    /* signal that came while stopping */
	struct moe_err err;          /* the first thing that went wrong */
};

/* ---- in the child ---- */

/* Ends with its supervisor, whatever ends that. */
static void tie_to_parent(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
}

/* Child i of a source; which is checked if it is not the one that all began with. */
static void run_child(struct supervisor *s, int i, struct moe_source *source, pid_t parent)
{
	struct reporter to = {.fd = s->report_to, .child = i};
	struct listener listener = report_listener(&to);
	struct moe_err e = MOE_ERR_INIT;
	struct plan p = *s->p;
	int rc;

	tie_to_parent(parent);
	notify_close();
	close(s->signals);
	close(s->reports);
	signal(SIGINT, SIG_IGN);
	sigaddset(&s->before, SIGHUP); /* until the server can act on it */
	sigprocmask(SIG_SETMASK, &s->before, NULL);
	p.check = source != p.source;
	p.source = source;
	p.identity.epoch = source->epoch;
	if (i >= s->at_first) {
		p.neighbours = s->n;
		p.watchdog = 0; /* there is no place for its beat */
		p.beats = NULL;
	}
	rc = serve_one(&p, p.first + i, false, &listener, &e);
	if (rc)
		report_say(&to, REPORT_FAILURE, 0, e.msg, NULL);
	_exit(rc ? 1 : 0);
}

/* ---- in the supervisor ---- */

static void signal_children(struct supervisor *s, int sig)
{
	for (int i = 0; i < s->n; i++)
		if (s->children[i].pid)
			kill(s->children[i].pid, sig);
}

static void stop(struct supervisor *s)
{
	if (s->kill_at)
		return;
	s->kill_at = moe_now_ns() + DRAIN_NS;
	notify("STOPPING=1\nSTATUS=waiting for servers to answer what they received");
	signal_children(s, SIGTERM);
}

static void fail(struct supervisor *s, const struct moe_err *why)
{
	if (!s->err.code)
		s->err = *why;
	stop(s);
}

static int start_child(struct supervisor *s, int i, struct moe_source *source, struct moe_err *e)
{
	pid_t parent = getpid(), pid = fork();
	struct child *c = &s->children[i];

	if (pid < 0)
		return moe_fail_errno(e, "starting rank %d", s->p->first + i);
	if (pid == 0)
		run_child(s, i, source, parent);
	free(c->why);
	c->why = NULL;
	c->retired = false;
	c->pid = pid;
	c->started = moe_now_ns();
	c->start_at = 0;
	s->running++;
	return 0;
}

static int start(struct supervisor *s, struct moe_err *e)
{
	int rc = 0;

	for (int i = 0; i < s->n && !rc; i++)
		rc = start_child(s, i, s->p->source, e);
	return rc;
}

/* The ready file is there when all are ready, and says from then on where those are that there are. */
static void publish(struct supervisor *s)
{
	const char **endpoints = moe_calloc((size_t)s->n, sizeof *endpoints, "endpoints", &s->err);
	struct moe_err e = MOE_ERR_INIT;
	bool all = true;
	int n = 0;

	if (!endpoints) {
		stop(s);
		return;
	}
	for (int i = 0; i < s->n; i++) {
		const struct child *c = &s->children[i];

		if (c->endpoint && !c->retired)
			endpoints[n++] = c->endpoint;
		else if (!c->late && !c->retired)
			all = false;
	}
	if (all && n > 0 && !s->kill_at && ready_tell(s->p->o.ready_file, endpoints, n, s->p->keys, &e))
		fail(s, &e);
	free(endpoints);
}

static void keep_words(struct supervisor *s, char **to, const char *words)
{
	free(*to);
	*to = moe_strndup(words, sizeof ((struct report *)NULL)->words, &s->err);
	if (!*to)
		stop(s);
}

/* Who is started from now on begins with the epoch that the clients use. */
static void follow(struct supervisor *s, uint64_t epoch)
{
	const struct moe_source *now = s->source ? s->source : s->p->source;
	struct moe_source *next;

	if (now->epoch == epoch || moe_source_open(s->p->source->path, &next, NULL))
		return;
	if (next->epoch == epoch) {
		moe_source_close(s->source);
		s->source = next;
	} else {
		moe_source_close(next);
	}
}

/* ---- a reload, as the service manager is told of it ---- */

static void begin_reload(struct supervisor *s)
{
	s->reloading = !s->kill_at;
	if (s->reloading)
		notify_reloading();
	for (int i = 0; i < s->n; i++)
		s->children[i].reloading = s->children[i].pid != 0;
}

/* It is over when the last child has loaded, or failed to, or is gone. */
static void end_reload(struct supervisor *s)
{
	int servers = 0;

	for (int i = 0; i < s->n; i++) {
		if (s->children[i].reloading)
			return;
		servers += s->children[i].pid && s->children[i].endpoint && !s->children[i].retired;
	}
	if (s->reloading && !s->kill_at)
		notify_ready(servers);
	s->reloading = false;
}

static void take_reports(struct supervisor *s)
{
	struct report r;

	while (read(s->reports, &r, sizeof r) == sizeof r) {
		struct child *c;

		if (r.child < 0 || r.child >= s->n)
			continue;
		c = &s->children[r.child];
		if (r.about == REPORT_READY && s->p->beats && r.child < s->at_first)
			s->p->beats[r.child] = moe_now_ns(); /* from here on its loop is expected to go round */
		if (r.about == REPORT_READY || r.about == REPORT_FAILURE)
			keep_words(s, r.about == REPORT_READY ? &c->endpoint : &c->why, r.words);
		if (r.about == REPORT_END)
			c->retired = true;
		if (r.about == REPORT_RELOADED)
			c->reloading = false;
		if (r.about == REPORT_EPOCH)
			follow(s, r.epoch);
		if (r.about == REPORT_READY || r.about == REPORT_END)
			publish(s);
	}
}

/* ---- children that end ---- */

static void again_later(struct child *c, uint64_t now, const struct moe_err *why)
{
	if (!c->pause || now - c->started > LONG_NS)
		c->pause = PAUSE_NS;
	c->start_at = now + c->pause;
	moe_log(MOE_WARN, "%s: it is started again in %.1f s", why->msg, (double)c->pause / 1e9);
	c->pause = 2 * c->pause < MOST_PAUSE_NS ? 2 * c->pause : MOST_PAUSE_NS;
}

static void describe_end(const struct supervisor *s, int i, int status, struct moe_err *e)
{
	const struct child *c = &s->children[i];
	int rank = s->p->first + i;

	if (c->why)
		moe_fail(e, MOE_E_PEER, "rank %d: %s", rank, c->why);
	else if (WIFSIGNALED(status))
		moe_fail(e, MOE_E_PEER, "rank %d (pid %d) was killed by signal %d (%s)", rank, (int)c->pid, WTERMSIG(status),
		         strsignal(WTERMSIG(status)));
	else
		moe_fail(e, MOE_E_PEER, "rank %d (pid %d) ended with status %d", rank, (int)c->pid, WEXITSTATUS(status));
}

static void gone(struct supervisor *s, int i, int status)
{
	struct child *c = &s->children[i];
	struct moe_err e = MOE_ERR_INIT;
	bool clean = !c->why && WIFEXITED(status) && WEXITSTATUS(status) == 0;

	describe_end(s, i, status, &e);
	c->pid = 0;
	c->reloading = false;
	if (s->p->beats && i < s->at_first)
		s->p->beats[i] = 0;
	s->running--;
	/* While stopping, an end without complaint is what was asked for, and so is one by our own signals. */
	if (s->kill_at && (c->why || (WIFEXITED(status) && WEXITSTATUS(status))))
		fail(s, &e);
	else if (s->kill_at || (c->retired && clean))
		return;
	else if (s->p->o.restart && c->endpoint)
		again_later(c, moe_now_ns(), &e);
	else if (c->late)
		moe_log(MOE_WARN, "%s: the others go on without it", e.msg);
	else
		fail(s, &e);
}

/* Start those whose pause is over. */
static void start_again(struct supervisor *s)
{
	uint64_t now = moe_now_ns();
	struct moe_err e = MOE_ERR_INIT;

	for (int i = 0; i < s->n && !s->kill_at; i++) {
		struct child *c = &s->children[i];

		if (c->start_at && now >= c->start_at && start_child(s, i, s->source ? s->source : s->p->source, &e))
			again_later(c, now, &e);
	}
}

/* A new epoch may have ranks that nobody serves yet. */
static void start_new(struct supervisor *s)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_source *next;
	bool all = !s->p->o.ranks && s->p->source->sharded;

	/* What is wrong with the manifest the children say. */
	if (!all || s->kill_at || moe_source_open(s->p->source->path, &next, NULL))
		return;
	for (int i = 0; next->sharded && i < next->placement.devices; i++) {
		struct child *c = &s->children[i];

		if (i < s->n && (c->pid || c->start_at))
			continue;
		c->late = true;
		s->n = i < s->n ? s->n : i + 1;
		moe_log(MOE_INFO, "rank %d is new in epoch %llu: it is started", i, (unsigned long long)next->epoch);
		if (start_child(s, i, next, &e))
			moe_log(MOE_WARN, "%s", e.msg);
	}
	moe_source_close(next);
}

static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		/* What it said last is in the pipe by now. */
		take_reports(s);
		for (int i = 0; i < s->n; i++)
			if (s->children[i].pid == pid)
				gone(s, i, status);
	}
}

static void take_signals(struct supervisor *s)
{
	struct signalfd_siginfo info;

	while (read(s->signals, &info, sizeof info) == sizeof info) {
		if (info.ssi_signo == SIGCHLD) {
			reap(s);
		} else if (info.ssi_signo == SIGHUP) {
			begin_reload(s);
			signal_children(s, SIGHUP);
			start_new(s);
		} else if (!s->kill_at) {
			stop(s);
		} else {
			s->quit = (int)info.ssi_signo;
			signal_children(s, SIGKILL);
		}
	}
}

/* While the loop of every server goes round, the service manager hears so; else it stops hearing of us, and restarts us. */
static void beat(const struct supervisor *s)
{
	uint64_t now = moe_now_ns(), late = (uint64_t)(s->p->watchdog * 0.5e9);

	for (int i = 0; s->p->beats && i < s->at_first; i++) {
		uint64_t last = s->p->beats[i];

		if (last && now > last && now - last > late)
			return;
	}
	if (s->p->beats)
		notify("WATCHDOG=1");
}

/* When something is to be done next, though nothing happens; 0: never. */
static uint64_t next_deed(const struct supervisor *s, uint64_t now)
{
	uint64_t at = s->kill_at;

	if (!s->kill_at && s->p->beats)
		at = now + (uint64_t)(s->p->watchdog * 0.25e9);
	for (int i = 0; i < s->n && !s->kill_at; i++)
		if (s->children[i].start_at && (!at || s->children[i].start_at < at))
			at = s->children[i].start_at;
	return at;
}

static int patience_ms(const struct supervisor *s)
{
	uint64_t now = moe_now_ns(), at = next_deed(s, now);

	if (!at)
		return -1;
	if (now >= at)
		return s->kill_at ? 1000 : 0;
	return (int)((at - now) / 1000000) + 1;
}

static bool goes_on(const struct supervisor *s)
{
	bool again = false;

	for (int i = 0; i < s->n && !s->kill_at; i++)
		again = again || s->children[i].start_at;
	return s->running || again;
}

/* Until the last child is gone for good. */
static void watch(struct supervisor *s)
{
	while (goes_on(s)) {
		struct pollfd fds[] = {{.fd = s->signals, .events = POLLIN}, {.fd = s->reports, .events = POLLIN}};

		poll(fds, 2, patience_ms(s));
		take_reports(s);
		take_signals(s);
		end_reload(s);
		start_again(s);
		beat(s);
		if (s->kill_at && moe_now_ns() >= s->kill_at)
			signal_children(s, SIGKILL);
	}
}

static int open_supervisor(struct supervisor *s, const struct plan *p, struct moe_err *e)
{
	static const int caught[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};
	sigset_t set;
	int fds[2];

	s->p = p;
	s->n = s->at_first = p->last - p->first + 1;
	s->signals = s->reports = s->report_to = -1;
	s->children = moe_calloc(MOE_MAX_DEVICES, sizeof *s->children, "children", e);
	if (!s->children)
		return MOE_E_NOMEM;
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
		sigaddset(&set, caught[i]);
	sigprocmask(SIG_BLOCK, &set, &s->before);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signals < 0)
		return moe_fail_errno(e, "signalfd");
	if (pipe2(fds, O_CLOEXEC) != 0)
		return moe_fail_errno(e, "pipe");
	s->reports = fds[0];
	s->report_to = fds[1];
	return fcntl(s->reports, F_SETFL, O_NONBLOCK) == 0 ? 0 : moe_fail_errno(e, "pipe");
}

static void close_supervisor(struct supervisor *s)
{
	for (int i = 0; s->children && i < s->n; i++) {
		free(s->children[i].endpoint);
		free(s->children[i].why);
	}
	free(s->children);
	moe_source_close(s->source);
	close(s->signals);
	close(s->reports);
	close(s->report_to);
}

int supervise(const struct plan *p, struct moe_err *e)
{
	struct supervisor s = {.err = MOE_ERR_INIT};
	struct moe_err why;

	if (open_supervisor(&s, p, &s.err) == 0) {
		if (start(&s, &why))
			fail(&s, &why);
		watch(&s);
		ready_file_remove(p->o.ready_file);
	}
	close_supervisor(&s);
	if (s.quit)
		_exit(128 + s.quit);
	if (s.err.code)
		*e = s.err;
	return s.err.code;
}
