/* One thread polls libmicrohttpd's epoll descriptor and gives up connections that take too long.  libmicrohttpd's own thread would bound
 * only how long a connection is silent; a byte now and then would keep it for ever. */
#include "http/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "private.h"

#define CONNECTIONS 32           /* at a time */
#define CONNECTIONS_OF_ONE 24    /* from one address, so that one cannot keep all others out */
#define REQUEST_BYTES 8192       /* request line and headers, and what we answer with besides the page */
#define SILENT_SECONDS 5         /* a connection on which nothing moves */
#define MOST_NS 15000000000u     /* from accepted to answered and read */

struct connection {
	int fd;                      /* -1: free */
	uint64_t since;
};

struct moe_http {
	struct MHD_Daemon *daemon;
	struct moe_http_page *pages;
	int n;
	char address[HTTP_ADDRESS];
	int stop;                    /* eventfd */
	void *kept;                  /* freed at the end */
	bool running;
	pthread_t thread;
	struct connection connections[CONNECTIONS]; /* the thread's */
};

/* ---- answers ---- */

static const struct moe_http_page *find_page(const struct moe_http *h, const char *path)
{
	for (int i = 0; i < h->n; i++)
		if (strcmp(h->pages[i].path, path) == 0)
			return &h->pages[i];
	return NULL;
}

/* Sends body, which the response takes over, and then ends the connection: a page is asked for every few seconds, and what is closed
 * needs no watching. */
static enum MHD_Result answer(struct MHD_Connection *c, int status, const char *type, const struct moe_buf *body)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(body->len, body->data, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result ok;

	if (!r) {
		free(body->data);
		return MHD_NO;
	}
	ok = MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (ok == MHD_YES)
		ok = MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
	if (ok == MHD_YES && status == MHD_HTTP_METHOD_NOT_ALLOWED)
		ok = MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	if (ok == MHD_YES)
		ok = MHD_queue_response(c, (unsigned)status, r);
	MHD_destroy_response(r);
	return ok;
}

static enum MHD_Result answer_words(struct MHD_Connection *c, int status, const char *words)
{
	struct moe_buf body = MOE_BUF_INIT;

	if (moe_buf_printf(&body, NULL, "%s\n", words)) {
		moe_buf_free(&body);
		return MHD_NO;
	}
	return answer(c, status, "text/plain; charset=utf-8", &body);
}

static enum MHD_Result answer_page(struct MHD_Connection *c, const struct moe_http_page *page)
{
	struct moe_buf body = MOE_BUF_INIT;
	struct moe_err e = MOE_ERR_INIT;
	int status = MHD_HTTP_OK, rc = page->make(page->ctx, &body, &status, &e);

	if (rc == 0 && body.data)
		return answer(c, status, page->type, &body);
	moe_buf_free(&body);
	return answer_words(c, rc ? MHD_HTTP_INTERNAL_SERVER_ERROR : status, rc ? e.msg : "");
}

/* Called when the headers are there.  It answers at once; whatever body there is will not be read. */
static enum MHD_Result handle(void *ctx, struct MHD_Connection *c, const char *url, const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **state)
{
	const struct moe_http *h = ctx;
	const struct moe_http_page *page = find_page(h, url);

	(void)version;
	(void)upload;
	(void)upload_size;
	(void)state;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return answer_words(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD");
	return page ? answer_page(c, page) : answer_words(c, MHD_HTTP_NOT_FOUND, "no such page");
}

/* ---- connections ---- */

/* libmicrohttpd tells of each before it reads from it, and before it closes it. */
static void notify(void *ctx, struct MHD_Connection *c, void **state, enum MHD_ConnectionNotificationCode what)
{
	struct moe_http *h = ctx;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	bool begins = what == MHD_CONNECTION_NOTIFY_STARTED;
	int fd = info ? info->connect_fd : -1;

	(void)state;
	for (int i = 0; i < CONNECTIONS && fd >= 0; i++)
		if (h->connections[i].fd == (begins ? -1 : fd)) {
			h->connections[i] = (struct connection){begins ? fd : -1, moe_now_ns()};
			return;
		}
}

/* Milliseconds until the next connection has taken too long, and those that have are cut off; -1: there are none. */
static int cut_off(struct moe_http *h)
{
	uint64_t now = moe_now_ns();
	int ms = -1;

	for (int i = 0; i < CONNECTIONS; i++) {
		struct connection *c = &h->connections[i];
		uint64_t age = now - c->since;
		int left;

		if (c->fd < 0)
			continue;
		if (age >= MOST_NS)
			shutdown(c->fd, SHUT_RDWR); /* which libmicrohttpd sees, and closes */
		left = age >= MOST_NS ? 1000 : (int)((MOST_NS - age) / 1000000) + 1;
		ms = ms < 0 || left < ms ? left : ms;
	}
	return ms;
}

static int patience(struct moe_http *h)
{
	int ms = cut_off(h);
	MHD_UNSIGNED_LONG_LONG asked;

	if (MHD_get_timeout(h->daemon, &asked) == MHD_YES && (ms < 0 || asked < (unsigned)ms))
		ms = (int)asked;
	return ms;
}

static void *serve(void *arg)
{
	struct moe_http *h = arg;
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	struct pollfd fds[2] = {{.fd = h->stop, .events = POLLIN}, {.fd = info->epoll_fd, .events = POLLIN}};

	for (;;) {
		poll(fds, 2, patience(h));
		if (fds[0].revents)
			return NULL;
		MHD_run(h->daemon);
	}
}

/* ---- beginning and end ---- */

static int open_daemon(struct moe_http *h, const char *address, struct moe_err *e)
{
	int fd, rc = http_listen(address, &fd, h->address, e);

	if (rc)
		return rc;
	h->daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, handle, h, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
	                             (unsigned)CONNECTIONS, MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)CONNECTIONS_OF_ONE,
	                             MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)SILENT_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
	                             (size_t)REQUEST_BYTES, MHD_OPTION_NOTIFY_CONNECTION, notify, h, MHD_OPTION_END);
	if (h->daemon)
		return 0;
	close(fd);
	return moe_fail(e, MOE_E_IO, "%s: no HTTP server can be started", h->address);
}

/* Signals are for the process's other threads. */
static int start_thread(struct moe_http *h, struct moe_err *e)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&h->thread, NULL, serve, h);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		errno = rc;
		return moe_fail_errno(e, "starting a thread");
	}
	h->running = true;
	return 0;
}

static int start(struct moe_http *h, const char *address, const struct moe_http_page *pages, int n, struct moe_err *e)
{
	int rc;

	for (int i = 0; i < CONNECTIONS; i++)
		h->connections[i].fd = -1;
	h->pages = moe_calloc((size_t)n, sizeof *pages, "pages", e);
	if (!h->pages)
		return MOE_E_NOMEM;
	if (n)
		memcpy(h->pages, pages, (size_t)n * sizeof *pages);
	h->n = n;
	h->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (h->stop < 0)
		return moe_fail_errno(e, "eventfd");
	rc = open_daemon(h, address, e);
	return rc ? rc : start_thread(h, e);
}

int moe_http_start(const char *address, const struct moe_http_page *pages, int n, struct moe_http **out, struct moe_err *e)
{
	struct moe_http *h = moe_calloc(1, sizeof *h, "an HTTP server", e);
	int rc;

	if (!h)
		return MOE_E_NOMEM;
	h->stop = -1;
	rc = start(h, address, pages, n, e);
	if (rc)
		moe_http_stop(h);
	else
		*out = h;
	return rc;
}

void http_keep(struct moe_http *h, void *memory)
{
	h->kept = memory;
}

const char *moe_http_address(const struct moe_http *h)
{
	return h->address;
}

void moe_http_stop(struct moe_http *h)
{
	uint64_t one = 1;

	if (!h)
		return;
	/* An eventfd that nobody reads takes one. */
	if (h->running && write(h->stop, &one, sizeof one) == sizeof one)
		pthread_join(h->thread, NULL);
	if (h->daemon)
		MHD_stop_daemon(h->daemon); /* closes the socket it listens on */
	if (h->stop >= 0)
		close(h->stop);
	free(h->pages);
	free(h->kept);
	free(h);
}
