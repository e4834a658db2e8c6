/* Somebody on the network between a client and a server, for tests:
 *
 *   wiretap record HOST:PORT FILE   listen on a free port, which is printed; hand one client's connection through, and keep what the
 *                                   client said in FILE
 *   wiretap replay HOST:PORT FILE   say the same again; prints how many bytes came back and whether the server ended it
 *   wiretap garbage HOST:PORT N     the same with N bytes of noise
 *   wiretap idle HOST:PORT N        N connections that say nothing, until standard input ends; prints "N open" */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

#define MAX_RECORD (64u << 20)
#define PATIENCE_MS 60000

static int fail(const char *what)
{
	fprintf(stderr, "wiretap: %s: %s\n", what, strerror(errno));
	return 1;
}

/* -1: it failed. */
static int connect_to(const char *where)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *a = NULL;
	const char *colon = strrchr(where, ':');
	char host[256];
	int fd = -1;

	if (!colon || (size_t)(colon - where) >= sizeof host)
		return -1;
	snprintf(host, sizeof host, "%.*s", (int)(colon - where), where);
	if (getaddrinfo(host, colon + 1, &hints, &a) != 0)
		return -1;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
		close(fd);
		fd = -1;
	}
	freeaddrinfo(a);
	return fd;
}

static int listen_somewhere(void)
{
	struct sockaddr_storage at;
	socklen_t n = sizeof at;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char port[32];

	if (fd < 0 || listen(fd, 1) != 0 || getsockname(fd, (struct sockaddr *)&at, &n) != 0 ||
	    getnameinfo((struct sockaddr *)&at, n, NULL, 0, port, sizeof port, NI_NUMERICSERV) != 0)
		return -1;
	printf("%s\n", port);
	fflush(stdout);
	return fd;
}

/* What one side has said goes to the other; kept when `keep`.  False: it has nothing more to say. */
static bool hand_over(int from, int to, struct moe_buf *keep)
{
	char some[65536];
	ssize_t n = read(from, some, sizeof some);

	if (n <= 0)
		return false;
	if (keep && (keep->len > MAX_RECORD || moe_buf_add(keep, some, (size_t)n, NULL)))
		return false;
	return moe_write_all(to, some, (size_t)n, "", NULL) == 0;
}

static int record(const char *server, const char *file)
{
	struct moe_buf said = MOE_BUF_INIT;
	int door = listen_somewhere(), client, up, rc;
	bool on = true;

	client = door < 0 ? -1 : accept(door, NULL, NULL);
	up = client < 0 ? -1 : connect_to(server);
	if (up < 0)
		return fail("record");
	while (on) {
		struct pollfd p[] = {{.fd = client, .events = POLLIN}, {.fd = up, .events = POLLIN}};

		if (poll(p, 2, PATIENCE_MS) <= 0)
			return fail("record");
		if (p[0].revents)
			on = hand_over(client, up, &said);
		if (on && p[1].revents)
			on = hand_over(up, client, NULL);
	}
	rc = moe_write_file(file, said.data ? said.data : "", said.len, NULL);
	moe_buf_free(&said);
	return rc ? fail(file) : 0;
}

/* Say it, and listen until the server ends the connection.  It may do so before all is said. */
static int say(const char *server, const char *words, size_t n)
{
	int fd = connect_to(server);
	size_t said = 0, heard = 0;
	char some[65536];

	if (fd < 0)
		return fail(server);
	for (;;) {
		struct pollfd p = {.fd = fd, .events = (short)(POLLIN | (said < n ? POLLOUT : 0))};
		ssize_t got;

		if (poll(&p, 1, PATIENCE_MS) <= 0) {
			printf("%zu bytes back, still open\n", heard);
			return 0;
		}
		if (p.revents & POLLOUT && said < n) {
			got = send(fd, words + said, n - said < 4096 ? n - said : 4096, MSG_NOSIGNAL);
			said = got > 0 ? said + (size_t)got : n;
		}
		if (!(p.revents & (POLLIN | POLLHUP | POLLERR)))
			continue;
		got = read(fd, some, sizeof some);
		if (got <= 0)
			break;
		heard += (size_t)got;
	}
	printf("%zu bytes back, ended\n", heard);
	close(fd);
	return 0;
}

static int replay(const char *server, const char *file)
{
	char *words;
	size_t n;
	int rc;

	if (moe_read_regular(file, MAX_RECORD, &words, &n, NULL))
		return fail(file);
	rc = say(server, words, n);
	free(words);
	return rc;
}

static int garbage(const char *server, const char *count)
{
	size_t n = (size_t)strtoul(count, NULL, 10);
	char *words = moe_calloc(n, 1, "noise", NULL);
	uint32_t seed = 1;
	int rc;

	if (!words)
		return fail("garbage");
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525u + 1013904223u;
		words[i] = (char)(seed >> 24);
	}
	rc = say(server, words, n);
	free(words);
	return rc;
}

static int idle(const char *server, const char *count)
{
	long n = strtol(count, NULL, 10);
	char c;

	for (long i = 0; i < n; i++)
		if (connect_to(server) < 0)
			return fail(server);
	printf("%ld open\n", n);
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const char *server, const char *what);
	} modes[] = {{"record", record}, {"replay", replay}, {"garbage", garbage}, {"idle", idle}};

	for (size_t i = 0; argc == 4 && i < sizeof modes / sizeof *modes; i++)
		if (strcmp(argv[1], modes[i].name) == 0)
			return modes[i].run(argv[2], argv[3]);
	fprintf(stderr, "usage: wiretap record|replay|garbage|idle HOST:PORT FILE|N\n");
	return 2;
}
