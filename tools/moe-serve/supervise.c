/* One child per rank: started together, ended together. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "serve.h"

/* How long children may take to finish what they received. */
#define DRAIN_NS 30000000000u

struct child {
	pid_t pid;                   /* 0: not started, or gone */
	char *endpoint;              /* once ready */
	char *why;                   /* what it said was wrong */
};

struct supervisor {
	const struct plan *p;
	struct child *children;      /* [n], by rank - first */
	int n, running, ready;
	int signals, reports, report_to; /* signalfd; the pipe on which children report */
	sigset_t before;             /* signal mask to give to children */
	uint64_t kill_at;            /* 0: not stopping */
	int quit;                    /* signal that came while stopping */
	struct moe_err err;          /* the first thing that went wrong */
};

/* What a child says, once: written in one piece, as a pipe keeps it whole. */
struct report {
	int child, code;             /* code 0: ready, words are the endpoint */
	char words[504];
};
_Static_assert(sizeof(struct report) <= 512, "POSIX keeps writes of 512 bytes to a pipe whole");

/* ---- in the child ---- */

struct reporter {
	int fd, child;
};

static int report(const struct reporter *to, int code, const char *words, struct moe_err *e)
{
	struct report r = {.child = to->child, .code = code};

	memcpy(r.words, words, strnlen(words, sizeof r.words - 1));
	return moe_write_all(to->fd, &r, sizeof r, "the supervisor", e);
}

static int report_ready(void *ctx, const char *endpoint, struct moe_err *e)
{
	return report(ctx, 0, endpoint, e);
}

/* Ends with its supervisor, whatever ends that. */
static void tie_to_parent(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
}

static void run_child(struct supervisor *s, int i, pid_t parent)
{
	struct reporter to = {.fd = s->report_to, .child = i};
	struct moe_err e = MOE_ERR_INIT;
	int rc;

	tie_to_parent(parent);
	notify_close();
	close(s->signals);
	close(s->reports);
	signal(SIGINT, SIG_IGN);
	sigaddset(&s->before, SIGHUP); /* until the server can act on it */
	sigprocmask(SIG_SETMASK, &s->before, NULL);
	rc = serve_one(s->p, s->p->first + i, false, &(struct listener){.ready = report_ready, .ctx = &to}, &e);
	if (rc)
		report(&to, rc, e.msg, NULL);
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

static int start(struct supervisor *s, struct moe_err *e)
{
	pid_t parent = getpid();

	for (int i = 0; i < s->n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return moe_fail_errno(e, "starting rank %d", s->p->first + i);
		if (pid == 0)
			run_child(s, i, parent);
		s->children[i].pid = pid;
		s->running++;
	}
	return 0;
}

static void all_ready(struct supervisor *s)
{
	const char **endpoints = moe_calloc((size_t)s->n, sizeof *endpoints, "endpoints", &s->err);
	struct moe_err e = MOE_ERR_INIT;

	if (!endpoints) {
		stop(s);
		return;
	}
	for (int i = 0; i < s->n; i++)
		endpoints[i] = s->children[i].endpoint;
	if (ready_tell(s->p->o.ready_file, endpoints, s->n, s->p->keys, &e))
		fail(s, &e);
	free(endpoints);
}

static void take_reports(struct supervisor *s)
{
	struct report r;

	while (read(s->reports, &r, sizeof r) == sizeof r) {
		struct child *c;
		char **to;

		if (r.child < 0 || r.child >= s->n)
			continue;
		c = &s->children[r.child];
		to = r.code ? &c->why : &c->endpoint;
		free(*to);
		*to = moe_strndup(r.words, sizeof r.words, &s->err);
		if (!r.code && s->p->beats)
			s->p->beats[r.child] = moe_now_ns(); /* from here on its loop is expected to go round */
		if (!*to)
			stop(s);
		else if (!r.code && ++s->ready == s->n && !s->kill_at)
			all_ready(s);
	}
}

static void gone(struct supervisor *s, int i, int status)
{
	struct child *c = &s->children[i];
	int rank = s->p->first + i;
	struct moe_err e = MOE_ERR_INIT;

	if (c->why)
		moe_fail(&e, MOE_E_PEER, "rank %d: %s", rank, c->why);
	else if (WIFSIGNALED(status))
		moe_fail(&e, MOE_E_PEER, "rank %d (pid %d) was killed by signal %d (%s)", rank, (int)c->pid, WTERMSIG(status),
		         strsignal(WTERMSIG(status)));
	else
		moe_fail(&e, MOE_E_PEER, "rank %d (pid %d) ended with status %d", rank, (int)c->pid, WEXITSTATUS(status));
	/* While stopping, an end without complaint is what was asked for, and so is one by our own signals. */
	if (!s->kill_at || c->why || (WIFEXITED(status) && WEXITSTATUS(status)))
		fail(s, &e);
	c->pid = 0;
	if (s->p->beats)
		s->p->beats[i] = 0;
	s->running--;
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
			signal_children(s, SIGHUP);
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

	for (int i = 0; s->p->beats && i < s->n; i++) {
		uint64_t last = s->p->beats[i];

		if (last && now > last && now - last > late)
			return;
	}
	if (s->p->beats)
		notify("WATCHDOG=1");
}

static int patience_ms(const struct supervisor *s)
{
	uint64_t now = moe_now_ns();

	if (!s->kill_at)
		return s->p->beats ? (int)(s->p->watchdog * 250) + 1 : -1;
	return now >= s->kill_at ? 1000 : (int)((s->kill_at - now) / 1000000) + 1;
}

/* Until the last child is gone. */
static void watch(struct supervisor *s)
{
	while (s->running) {
		struct pollfd fds[] = {{.fd = s->signals, .events = POLLIN}, {.fd = s->reports, .events = POLLIN}};

		poll(fds, 2, patience_ms(s));
		take_reports(s);
		take_signals(s);
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
	s->n = p->last - p->first + 1;
	s->signals = s->reports = s->report_to = -1;
	s->children = moe_calloc((size_t)s->n, sizeof *s->children, "children", e);
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
