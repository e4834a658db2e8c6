/* Pages over HTTP, and those who ask for them badly: slowly, at length, too often, in another language. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "http/http.h"
#include "watch/watch.h"

#define PATIENCE_MS 60000
#define LARGE ((size_t)32 << 20) /* more than sockets keep for who does not read */

static struct moe_http *h;
static struct moe_watch *w;

/* ---- pages ---- */

static int hello(void *ctx, struct moe_buf *out, int *status, struct moe_err *e)
{
	(void)status;
	return moe_buf_printf(out, e, "%s", (const char *)ctx);
}

static int not_ready(void *ctx, struct moe_buf *out, int *status, struct moe_err *e)
{
	(void)ctx;
	*status = 503;
	return moe_buf_printf(out, e, "loading\n");
}

static int broken(void *ctx, struct moe_buf *out, int *status, struct moe_err *e)
{
	(void)ctx;
	(void)status;
	moe_buf_printf(out, NULL, "half a page");
	return moe_fail(e, MOE_E_NOMEM, "no room for a page");
}

static int nothing(void *ctx, struct moe_buf *out, int *status, struct moe_err *e)
{
	(void)ctx;
	(void)out;
	(void)status;
	(void)e;
	return 0;
}

static int large(void *ctx, struct moe_buf *out, int *status, struct moe_err *e)
{
	char *mem = calloc(1, LARGE);
	int rc = mem ? moe_buf_add(out, mem, LARGE, e) : MOE_E_NOMEM;

	(void)ctx;
	(void)status;
	free(mem);
	return rc;
}

static int metrics(void *ctx, struct moe_buf *out, int *status, struct moe_err *e)
{
	(void)status;
	return moe_watch_text(ctx, out, e);
}

static int open_server(void **state)
{
	struct moe_http_page pages[] = {
		{"/hello", "text/plain", hello, "hello\n"}, {"/health", "text/plain", not_ready, NULL}, {"/broken", "text/plain", broken, NULL},
		{"/nothing", "text/plain", nothing, NULL},  {"/large", "application/octet-stream", large, NULL},
		{"/metrics", "text/plain; version=0.0.4", metrics, NULL},
	};

	(void)state;
	w = moe_watch_new(NULL, NULL);
	pages[5].ctx = w;
	return moe_http_start("127.0.0.1:0", pages, 6, &h, NULL);
}

static int close_server(void **state)
{
	(void)state;
	moe_http_stop(h);
	moe_watch_free(w);
	return 0;
}

/* ---- asking ---- */

static int dial(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	to.sin_port = htons((uint16_t)atoi(strrchr(moe_http_address(h), ':') + 1));
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
	return fd;
}

/* What comes until the other side closes; who resets the connection has closed it too. */
static void read_all(int fd, struct moe_buf *out)
{
	char part[65536];

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
		n = recv(fd, part, sizeof part, 0);
		if (n <= 0)
			return;
		assert_int_equal(moe_buf_add(out, part, (size_t)n, NULL), 0);
	}
}

/* The answer to these bytes, "" for none; the caller frees. */
static char *ask(const char *bytes, size_t n)
{
	struct moe_buf out = MOE_BUF_INIT;
	int fd = dial();

	assert_int_equal(moe_buf_add(&out, "", 0, NULL), 0);
	while (n > 0) {
		ssize_t put = send(fd, bytes, n, MSG_NOSIGNAL);

		if (put < 0)
			break; /* it does not want to hear more */
		bytes += put;
		n -= (size_t)put;
	}
	read_all(fd, &out);
	close(fd);
	return out.data;
}

static char *get(const char *path)
{
	char request[256];

	snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: here\r\n\r\n", path);
	return ask(request, strlen(request));
}

static void answers(const char *got, const char *status, const char *body)
{
	const char *end = strstr(got, "\r\n\r\n");

	assert_memory_equal(got, "HTTP/1.1 ", 9);
	assert_memory_equal(got + 9, status, strlen(status));
	assert_non_null(end);
	assert_string_equal(end + 4, body);
}

static void says(char *got, const char *status, const char *body)
{
	answers(got, status, body);
	free(got);
}

static void still_works(void)
{
	says(get("/hello"), "200", "hello\n");
}

#define ASK(text) ask(text, sizeof(text) - 1)

/* ---- tests ---- */

static void pages_are_made(void **state)
{
	char *got = get("/hello");

	(void)state;
	answers(got, "200", "hello\n");
	assert_non_null(strstr(got, "\r\nContent-Type: text/plain\r\n"));
	assert_non_null(strstr(got, "\r\nContent-Length: 6\r\n"));
	assert_non_null(strstr(got, "\r\nConnection: close\r\n"));
	free(got);
	says(get("/hello?a=b"), "200", "hello\n");
	says(get("/health"), "503", "loading\n");
	says(get("/broken"), "500", "no room for a page\n");
	says(get("/nothing"), "200", "\n");
	says(ASK("HEAD /hello HTTP/1.1\r\nHost: here\r\n\r\n"), "200", "");
	got = ASK("GET /hello HTTP/1.0\r\n\r\n");
	assert_non_null(strstr(got, "\r\n\r\nhello\n"));
	free(got);
}

static void other_things_are_refused(void **state)
{
	char *got = ASK("POST /hello HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nhello");

	(void)state;
	answers(got, "405", "only GET and HEAD\n");
	assert_non_null(strstr(got, "\r\nAllow: GET, HEAD\r\n"));
	free(got);
	says(ASK("DELETE /hello HTTP/1.1\r\nHost: here\r\n\r\n"), "405", "only GET and HEAD\n");
	says(ASK("POST /hello HTTP/1.1\r\nHost: here\r\nContent-Length: 99999999999\r\n\r\n"), "405", "only GET and HEAD\n");
	says(get("/"), "404", "no such page\n");
	says(get("/hello/"), "404", "no such page\n");
	says(get("/../../etc/passwd"), "404", "no such page\n");
}

static void garbage(void **state)
{
	static const char *const texts[] = {"\r\n\r\n\r\n", "hello\r\n\r\n", "GET\r\n\r\n", "GET /hello\r\n\r\n", "GET /hello HTTP/9.9\r\nHost: x\r\n\r\n",
	                                    "GET /hello HTTP/1.1\r\n: :\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"};
	char noise[4096];

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		int fd = dial();

		send(fd, texts[i], strlen(texts[i]), MSG_NOSIGNAL);
		close(fd);
		still_works();
	}
	srand(1);
	for (int round = 0; round < 50; round++) {
		int fd = dial();

		for (size_t i = 0; i < sizeof noise; i++)
			noise[i] = (char)rand();
		send(fd, noise, sizeof noise, MSG_NOSIGNAL);
		close(fd);
	}
	still_works();
}

static void headers_are_bounded(void **state)
{
	size_t n = 1 << 20;
	char *request = malloc(n), *got;
	int begin = snprintf(request, n, "GET /hello HTTP/1.1\r\nHost: here\r\nX: ");

	(void)state;
	memset(request + begin, 'x', n - (size_t)begin);
	memcpy(request + n - 4, "\r\n\r\n", 4);
	got = ask(request, n);
	assert_null(strstr(got, "hello"));
	free(got);
	memset(request + 5, 'y', n - 5); /* a path without an end */
	got = ask(request, n);
	assert_null(strstr(got, "hello"));
	free(got);
	free(request);
	still_works();
}

/* Who does not read what it asked for keeps nobody waiting; who reads in the end gets all of it. */
static void slow_readers(void **state)
{
	static const char request[] = "GET /large HTTP/1.1\r\nHost: here\r\n\r\n";
	int fds[4];
	struct moe_buf out = MOE_BUF_INIT;

	(void)state;
	for (int i = 0; i < 4; i++) {
		fds[i] = dial();
		assert_int_equal(send(fds[i], request, sizeof request - 1, MSG_NOSIGNAL), sizeof request - 1);
	}
	still_works();
	read_all(fds[0], &out);
	assert_true(out.len > LARGE);
	moe_buf_free(&out);
	still_works();
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	still_works();
}

/* More connections than there may be: some are refused, none for longer than the others last. */
static void many_connections(void **state)
{
	enum { MANY = 100 };
	int fds[MANY], closed = 0;

	(void)state;
	for (int i = 0; i < MANY; i++) {
		fds[i] = dial();
		send(fds[i], "GET /hel", 8, MSG_NOSIGNAL);
	}
	for (int i = 0; i < MANY; i++) {
		struct pollfd p = {.fd = fds[i], .events = POLLIN};

		closed += poll(&p, 1, i == 0 ? 100 : 0) == 1;
	}
	assert_true(closed < MANY);
	for (int i = 0; i < MANY; i++)
		close(fds[i]);
	/* Their ends may be noticed a little after our next connection. */
	for (int tries = 0;; tries++) {
		char *got = get("/hello");
		bool there = *got;

		if (there)
			answers(got, "200", "hello\n");
		free(got);
		if (there)
			break;
		assert_true(tries < PATIENCE_MS / 10);
		usleep(10000);
	}
}

/* A connection that says nothing, and one that says a little now and then, are given up. */
static void slow_writers(void **state)
{
	int silent, fd;
	char c;

	(void)state;
	if (!getenv("MOE_LONG")) /* it takes as long as they are borne with */
		return;
	silent = dial();
	fd = dial();
	send(fd, "GET /hello HTTP/1.1\r\nX: ", 24, MSG_NOSIGNAL);
	for (int i = 0;; i++) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		assert_true(i < PATIENCE_MS / 500);
		if (poll(&p, 1, 500) == 1 && recv(fd, &c, 1, MSG_PEEK) <= 0)
			break;
		if (send(fd, "x", 1, MSG_NOSIGNAL) < 0)
			break;
	}
	assert_true(recv(silent, &c, 1, 0) <= 0);
	close(fd);
	close(silent);
	still_works();
}

static atomic_bool counting;

static void *count(void *arg)
{
	while (atomic_load(&counting))
		moe_count(arg, 1);
	return NULL;
}

static void *scrape(void *arg)
{
	for (int i = 0; i < 20; i++) {
		char *got = get("/metrics");

		answers(got, "200", strstr(got, "# HELP"));
		assert_non_null(strstr(got, "# TYPE c_total counter\nc_total "));
		free(got);
	}
	return arg;
}

static void metrics_while_counting(void **state)
{
	struct moe_series *s = moe_watch_one(w, MOE_COUNTER, "c_total", "C.");
	pthread_t counter, readers[8];

	(void)state;
	atomic_store(&counting, true);
	assert_int_equal(pthread_create(&counter, NULL, count, s), 0);
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, scrape, NULL), 0);
	for (int i = 0; i < 8; i++)
		pthread_join(readers[i], NULL);
	atomic_store(&counting, false);
	pthread_join(counter, NULL);
}

static void stopped_while_asked(void **state)
{
	struct moe_http_page page = {"/large", "text/plain", large, NULL};
	struct moe_http *was = h;
	int fd, idle;

	(void)state;
	assert_int_equal(moe_http_start(":0", &page, 1, &h, NULL), 0);
	assert_memory_equal(moe_http_address(h), "127.0.0.1:", 10);
	idle = dial();
	fd = dial();
	send(fd, "GET /large HTTP/1.1\r\nHost: here\r\n\r\n", 35, MSG_NOSIGNAL);
	assert_int_equal(recv(fd, &(char){0}, 1, 0), 1);
	moe_http_stop(h);
	close(fd);
	close(idle);
	h = was;
	moe_http_stop(NULL);
}

static void refused(const char *address, int code, const char *words)
{
	struct moe_http *other = NULL;
	struct moe_err e = MOE_ERR_INIT;

	assert_int_equal(moe_http_start(address, NULL, 0, &other, &e), code);
	assert_null(other);
	assert_string_equal(e.msg, words);
}

static void addresses(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_http *six = NULL;
	char words[256], at[64];

	(void)state;
	refused("9100", MOE_E_INPUT, "9100: not of the form HOST:PORT");
	refused("", MOE_E_INPUT, ": not of the form HOST:PORT");
	refused("here:", MOE_E_INPUT, "here:: '' is not a port (0 to 65535)");
	refused(":70000", MOE_E_INPUT, ":70000: '70000' is not a port (0 to 65535)");
	refused("::1:9100", MOE_E_INPUT, "::1:9100: an address with colons stands in brackets");
	refused("256.0.0.1.:1x", MOE_E_INPUT, "256.0.0.1.:1x: '1x' is not a port (0 to 65535)");
	snprintf(words, sizeof words, "%s: cannot listen: %s", moe_http_address(h), strerror(EADDRINUSE));
	refused(moe_http_address(h), MOE_E_IO, words);
	assert_int_equal(moe_http_check("[::]:9100", &e), 0);
	assert_int_equal(moe_http_check("nonsense", &e), MOE_E_INPUT);
	assert_int_equal(moe_http_nth("[::]:9100", 3, at, sizeof at, &e), 0);
	assert_string_equal(at, "[::]:9103");
	assert_int_equal(moe_http_nth(":9100", 1, at, sizeof at, &e), 0);
	assert_string_equal(at, "127.0.0.1:9101");
	assert_int_equal(moe_http_nth("localhost:0", 7, at, sizeof at, &e), 0);
	assert_string_equal(at, "localhost:0");
	assert_int_equal(moe_http_nth(":65535", 1, at, sizeof at, &e), MOE_E_RANGE);
	if (moe_http_start("[::1]:0", NULL, 0, &six, NULL) == 0) /* where there is IPv6 */
		assert_memory_equal(moe_http_address(six), "[::1]:", 6);
	moe_http_stop(six);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages_are_made),
		cmocka_unit_test(other_things_are_refused),
		cmocka_unit_test(garbage),
		cmocka_unit_test(headers_are_bounded),
		cmocka_unit_test(slow_readers),
		cmocka_unit_test(many_connections),
		cmocka_unit_test(slow_writers),
		cmocka_unit_test(metrics_while_counting),
		cmocka_unit_test(stopped_while_asked),
		cmocka_unit_test(addresses),
	};

	signal(SIGPIPE, SIG_IGN);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("http_serve", tests, open_server, close_server);
}
