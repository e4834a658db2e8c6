/* Who belongs to the fleet: a thread that looks, and a list that is published whole. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/team.h"
#include "net/members.h"

#define FILE_EVERY 1.0
#define NAME_EVERY 5.0
#define FIRST_EVERY_NS 250000000 /* between questions for a name that is not found at first */

/* A --connect: an endpoint that stays, or a name. */
struct connect {
	char *endpoint;              /* NULL: a name */
	struct dns_name name;
	bool troubled;               /* not found, and that was told */
};

struct moe_members {
	struct hosts_file file;      /* path NULL: none */
	char *path;
	struct connect *connect;
	int n_connect;
	uint64_t file_every, name_every, file_due, name_due; /* ns */
	int wake, changed;           /* eventfds */
	pthread_t thread;
	bool running;
	pthread_mutex_t lock;        /* of what follows */
	struct moe_endpoints list;
	bool stop, asking, orphan;
};

/* ---- the list ---- */

static int merge(struct moe_endpoints *to, const char *at, const char *key, struct moe_err *e)
{
	for (int i = 0; i < to->n; i++)
		if (strcmp(to->v[i].at, at) == 0) {
			if (!to->v[i].key[0])
				memcpy(to->v[i].key, key, MOE_KEY_TEXT);
			return 0;
		}
	return endpoints_add(to, at, key, e);
}

/* What is on the command line in its order, then the file: the same servers have the same order every time. */
static int assemble(const struct moe_members *m, struct moe_endpoints *out, struct moe_err *e)
{
	int rc = 0;

	for (int i = 0; i < m->n_connect && !rc; i++) {
		const struct connect *c = &m->connect[i];

		if (c->endpoint)
			rc = merge(out, c->endpoint, "", e);
		for (int j = 0; j < c->name.n && !rc; j++)
			rc = merge(out, c->name.v[j].at, "", e);
	}
	for (int i = 0; i < m->file.list.n && !rc; i++)
		rc = merge(out, m->file.list.v[i].at, m->file.list.v[i].key, e);
	return rc;
}

static bool equal(const struct moe_endpoints *a, const struct moe_endpoints *b)
{
	bool same = a->n == b->n;

	for (int i = 0; i < a->n && same; i++)
		same = strcmp(a->v[i].at, b->v[i].at) == 0 && strcmp(a->v[i].key, b->v[i].key) == 0;
	return same;
}

static void signal_fd(int fd)
{
	uint64_t one = 1;
	int before = errno;
	ssize_t n = write(fd, &one, sizeof one);

	(void)n; /* full means that it was told already */
	errno = before;
}

static void drain_fd(int fd)
{
	uint64_t n;

	while (read(fd, &n, sizeof n) > 0)
		;
}

static int publish(struct moe_members *m, bool first, struct moe_err *e)
{
	struct moe_endpoints list = {NULL, 0};
	int rc = assemble(m, &list, e), before;

	pthread_mutex_lock(&m->lock);
	before = m->list.n;
	if (!rc && !equal(&list, &m->list)) {
		struct moe_endpoints old = m->list;

		m->list = list;
		list = old;
		signal_fd(m->changed);
		if (!first)
			moe_log(MOE_INFO, "the list of servers has changed: %d, %d before", m->list.n, before);
	}
	pthread_mutex_unlock(&m->lock);
	moe_endpoints_free(&list);
	return rc;
}

/* ---- looking ---- */

static void tell(const struct moe_err *e)
{
	moe_log(MOE_WARN, "%s; the list of servers stays as it is", e->msg);
}

/* When to look at the file again; *any: the list is new. */
static void look_at_file(struct moe_members *m, bool *any)
{
	struct moe_err e = MOE_ERR_INIT;
	uint64_t now = moe_now_ns();
	enum file_news news;

	if (hosts_file_look(&m->file, now, &news, &e))
		tell(&e);
	*any |= news == FILE_READ;
	m->file_due = now + (news == FILE_CHANGING ? FILE_SETTLE_NS : m->file_every);
}

/* The resolver may take half a minute, which whoever frees the list does not wait for. */
static bool begin_asking(struct moe_members *m, bool asking)
{
	bool go_on;

	pthread_mutex_lock(&m->lock);
	m->asking = asking;
	go_on = !m->stop;
	pthread_mutex_unlock(&m->lock);
	return go_on;
}

static int ask(struct connect *c, struct moe_err *e)
{
	struct moe_endpoints found = {NULL, 0};
	int rc = dns_ask(&c->name, &found, e);

	rc = rc ? rc : dns_take(&c->name, &found, moe_now_ns(), e);
	moe_endpoints_free(&found);
	return rc;
}

/* False: it is over. */
static bool look_at_names(struct moe_members *m, bool *any)
{
	bool go_on = true;

	for (int i = 0; i < m->n_connect && go_on; i++) {
		struct connect *c = &m->connect[i];
		struct moe_err e = MOE_ERR_INIT;
		bool failed;

		if (c->endpoint)
			continue;
		if (!begin_asking(m, true))
			return false;
		failed = ask(c, &e) != 0;
		if (failed && !c->troubled)
			tell(&e);
		c->troubled = failed;
		go_on = begin_asking(m, false);
		*any = true;
	}
	m->name_due = moe_now_ns() + m->name_every;
	return go_on;
}

static int wait_ms(const struct moe_members *m)
{
	uint64_t due = UINT64_MAX, now = moe_now_ns();

	if (m->path && m->file_due < due)
		due = m->file_due;
	if (m->name_every && m->name_due < due)
		due = m->name_due;
	if (due == UINT64_MAX)
		return -1;
	return due <= now ? 0 : (int)((due - now) / 1000000) + 1;
}

static void destroy(struct moe_members *m);

static bool over(struct moe_members *m)
{
	bool stop;

	pthread_mutex_lock(&m->lock);
	stop = m->stop;
	pthread_mutex_unlock(&m->lock);
	return stop;
}

static void *look(void *arg)
{
	struct moe_members *m = arg;
	bool go_on = true, orphan;

	while (go_on) {
		struct pollfd woken = {.fd = m->wake, .events = POLLIN};
		struct moe_err e;
		bool any = false, now = poll(&woken, 1, wait_ms(m)) > 0;

		drain_fd(m->wake);
		go_on = !over(m);
		if (go_on && m->path && (now || moe_now_ns() >= m->file_due))
			look_at_file(m, &any);
		if (go_on && m->name_every && (now || moe_now_ns() >= m->name_due))
			go_on = look_at_names(m, &any);
		if (go_on && any)
			publish(m, false, &e); /* no memory for it: at the next look, perhaps */
	}
	pthread_mutex_lock(&m->lock);
	orphan = m->orphan;
	pthread_mutex_unlock(&m->lock);
	if (orphan)
		destroy(m);
	return NULL;
}

/* ---- life ---- */

int moe_members_check(const char *connect, struct moe_err *e)
{
	struct moe_endpoints p = {NULL, 0};
	struct dns_name name;
	int rc;

	if (dns_is(connect))
		return dns_parse(connect, &name, e);
	rc = moe_endpoints_add(&p, connect, e);
	moe_endpoints_free(&p);
	return rc;
}

static int copy_connect(struct moe_members *m, const struct moe_members_config *c, struct moe_err *e)
{
	int rc = 0;

	m->connect = moe_calloc((size_t)c->n_connect, sizeof *m->connect, "servers", e);
	if (!m->connect)
		return MOE_E_NOMEM;
	for (int i = 0; i < c->n_connect && !rc; i++) {
		rc = moe_members_check(c->connect[i], e);
		if (!rc && dns_is(c->connect[i])) {
			rc = dns_parse(c->connect[i], &m->connect[i].name, e);
			m->name_every = (uint64_t)((c->every > 0 ? c->every : NAME_EVERY) * 1e9);
		} else if (!rc) {
			m->connect[i].endpoint = moe_strdup(c->connect[i], e);
			rc = m->connect[i].endpoint ? 0 : MOE_E_NOMEM;
		}
		m->n_connect++;
	}
	return rc;
}

static int first_addresses(struct moe_members *m, double timeout, struct moe_err *e)
{
	static const struct timespec pause = {.tv_nsec = FIRST_EVERY_NS};
	uint64_t start = moe_now_ns();

	for (int i = 0; i < m->n_connect; i++) {
		struct connect *c = &m->connect[i];
		bool told = false;
		int rc;

		while (!c->endpoint && (rc = ask(c, e)) != 0) {
			if ((double)(moe_now_ns() - start) >= timeout * 1e9)
				return rc;
			if (!told)
				moe_log(MOE_INFO, "%s: waiting for it, up to %g s", e->msg, timeout);
			told = true;
			nanosleep(&pause, NULL);
		}
	}
	m->name_due = moe_now_ns() + m->name_every;
	return 0;
}

static int set_up(struct moe_members *m, const struct moe_members_config *c, struct moe_err *e)
{
	int rc = copy_connect(m, c, e);

	m->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	m->changed = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!rc && (m->wake < 0 || m->changed < 0))
		rc = moe_fail_errno(e, "eventfd");
	if (!rc && c->hosts) {
		m->path = moe_strdup(c->hosts, e);
		m->file_every = (uint64_t)((c->every > 0 ? c->every : FILE_EVERY) * 1e9);
		m->file_due = moe_now_ns() + m->file_every;
		rc = m->path ? hosts_file_open(&m->file, m->path, c->timeout, e) : MOE_E_NOMEM;
	}
	rc = rc ? rc : first_addresses(m, c->timeout, e);
	rc = rc ? rc : publish(m, true, e);
	if (!rc && !m->list.n)
		rc = moe_fail(e, MOE_E_INPUT, "no servers are listed");
	if (!rc && (m->path || m->name_every)) {
		rc = moe_thread_start(look, m, &m->thread, e);
		m->running = !rc;
	}
	return rc;
}

int moe_members_new(const struct moe_members_config *c, struct moe_members **out, struct moe_err *e)
{
	struct moe_members *m = moe_calloc(1, sizeof *m, "list of servers", e);
	int rc;

	if (!m)
		return MOE_E_NOMEM;
	m->wake = m->changed = -1;
	pthread_mutex_init(&m->lock, NULL);
	rc = set_up(m, c, e);
	if (rc)
		moe_members_free(m);
	else
		*out = m;
	return rc;
}

static void destroy(struct moe_members *m)
{
	for (int i = 0; i < m->n_connect; i++) {
		free(m->connect[i].endpoint);
		dns_free(&m->connect[i].name);
	}
	free(m->connect);
	hosts_file_close(&m->file);
	moe_endpoints_free(&m->list);
	if (m->wake >= 0)
		close(m->wake);
	if (m->changed >= 0)
		close(m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m->path);
	free(m);
}

void moe_members_free(struct moe_members *m)
{
	if (!m)
		return;
	if (m->running) {
		pthread_mutex_lock(&m->lock);
		m->stop = true;
		m->orphan = m->asking;
		if (m->orphan)
			pthread_detach(m->thread);
		signal_fd(m->wake);
		bool orphan = m->orphan;

		pthread_mutex_unlock(&m->lock);
		if (orphan)
			return;
		pthread_join(m->thread, NULL);
	}
	destroy(m);
}

/* ---- for who uses it ---- */

int moe_members_fd(const struct moe_members *m)
{
	return m->changed;
}

void moe_members_look(struct moe_members *m)
{
	signal_fd(m->wake);
}

int moe_members_get(struct moe_members *m, struct moe_endpoints *out, struct moe_err *e)
{
	int rc = 0;

	*out = (struct moe_endpoints){NULL, 0};
	pthread_mutex_lock(&m->lock);
	drain_fd(m->changed);
	for (int i = 0; i < m->list.n && !rc; i++)
		rc = endpoints_add(out, m->list.v[i].at, m->list.v[i].key, e);
	if (rc)
		signal_fd(m->changed); /* it is still to be had */
	pthread_mutex_unlock(&m->lock);
	if (rc)
		moe_endpoints_free(out);
	return rc;
}
