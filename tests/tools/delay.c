/* A network with a latency: relays TCP connections and holds every byte back for a while, in both directions.
 *
 *   delay [-r BYTES_A_SECOND] MICROSECONDS PORT=HOST:PORT ...
 *
 * It listens on 127.0.0.1:PORT (0: any that is free) and connects to HOST:PORT (numbers) for whoever comes.  Bytes leave MICROSECONDS after they came; with -r
 * a connection's direction carries no more than so many a second, as a link would: the last byte of a message comes later.  It prints
 * "ready" and its ports when it listens, and runs until it is ended.  Timers are as exact as the system's, some tens of microseconds. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 65536
#define MOST_DOORS 64
#define MOST_WAYS 512                /* two for each connection */
#define MOST_HELD (8u << 20)         /* bytes under way in one direction: who sends more waits */

struct chunk {
	struct chunk *next;
	uint64_t due;
	size_t n, sent;
	char data[];
};
/* One direction of a connection; the other is its neighbour, ways[i ^ 1]. */
struct way {
	int from, to;                /* -1: the place is free */
	struct chunk *first, **last;
	size_t held;
	uint64_t free_at;            /* when the line has carried all that came */
	bool ended, blocked;         /* nothing more comes; the receiver takes no more at the moment */
};
struct door {
	int fd;
	struct sockaddr_in to;
};

static struct way ways[MOST_WAYS];
static struct door doors[MOST_DOORS];
static int n_doors, n_ways;
static uint64_t hold_ns;
static double rate;                  /* bytes a second; 0: any */

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "delay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- connections ---- */

static void set_up(int fd)
{
	int on = 1;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void open_way(struct way *w, int from, int to)
{
	*w = (struct way){.from = from, .to = to};
	w->last = &w->first;
}

static int free_pair(void)
{
	for (int i = 0; i < MOST_WAYS; i += 2)
		if (i >= n_ways || ways[i].from < 0)
			return i;
	return -1;
}

static void let_in(const struct door *d)
{
	int in = accept4(d->fd, NULL, NULL, SOCK_CLOEXEC), out, i = free_pair();

	if (in < 0)
		return;
	out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* On one host a connection stands at once, or is refused at once. */
	if (i < 0 || out < 0 || connect(out, (const struct sockaddr *)&d->to, sizeof d->to) != 0) {
		close(in);
		if (out >= 0)
			close(out);
		return;
	}
	set_up(in);
	set_up(out);
	open_way(&ways[i], in, out);
	open_way(&ways[i + 1], out, in);
	if (i + 2 > n_ways)
		n_ways = i + 2;
}

static void drop(struct way *w)
{
	for (struct chunk *c = w->first, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	*w = (struct way){.from = -1, .to = -1};
}

static void end_pair(int i)
{
	close(ways[i].from);
	close(ways[i].to);
	drop(&ways[i & ~1]);
	drop(&ways[i | 1]);
}

/* ---- bytes ---- */

/* False: the connection is broken. */
static bool take_in(struct way *w, uint64_t now)
{
	static char buf[CHUNK];
	ssize_t got = read(w->from, buf, sizeof buf);
	struct chunk *c;

	if (got < 0)
		return errno == EAGAIN || errno == EINTR;
	if (got == 0) {
		w->ended = true;
		return true;
	}
	c = malloc(sizeof *c + (size_t)got);
	if (!c)
		return false;
	if (w->free_at < now)
		w->free_at = now;
	if (rate > 0)
		w->free_at += (uint64_t)((double)got / rate * 1e9);
	*c = (struct chunk){.due = w->free_at + hold_ns, .n = (size_t)got};
	memcpy(c->data, buf, (size_t)got);
	*w->last = c;
	w->last = &c->next;
	w->held += c->n;
	return true;
}

/* What is due goes on.  False: the connection is broken. */
static bool let_out(struct way *w, uint64_t now)
{
	w->blocked = false;
	while (w->first && w->first->due <= now) {
		struct chunk *c = w->first;
		ssize_t put = send(w->to, c->data + c->sent, c->n - c->sent, MSG_NOSIGNAL);

		if (put < 0) {
			w->blocked = errno == EAGAIN;
			return errno == EAGAIN || errno == EINTR;
		}
		c->sent += (size_t)put;
		w->held -= (size_t)put;
		if (c->sent < c->n)
			continue;
		w->first = c->next;
		if (!w->first)
			w->last = &w->first;
		free(c);
	}
	return true;
}

/* ---- the loop ---- */

static struct pollfd polled[MOST_DOORS + 2 * MOST_WAYS];

/* Doors, then for each way the end that it reads and the end that it writes; the time of the next byte that is due, or UINT64_MAX. */
static uint64_t what_to_poll(void)
{
	uint64_t next = UINT64_MAX;

	for (int i = 0; i < n_doors; i++)
		polled[i] = (struct pollfd){.fd = doors[i].fd, .events = POLLIN};
	for (int i = 0; i < n_ways; i++) {
		const struct way *w = &ways[i];
		struct pollfd *p = &polled[n_doors + 2 * i];

		p[0] = (struct pollfd){.fd = w->from < 0 || w->ended || w->held >= MOST_HELD ? -1 : w->from, .events = POLLIN};
		p[1] = (struct pollfd){.fd = w->from >= 0 && w->blocked ? w->to : -1, .events = POLLOUT};
		if (w->from >= 0 && w->first && !w->blocked && w->first->due < next)
			next = w->first->due;
	}
	return next;
}

static void serve_way(int i)
{
	struct way *w = &ways[i];
	const struct pollfd *p = &polled[n_doors + 2 * i];
	uint64_t now = now_ns();

	if (w->from < 0)
		return;
	/* Who has closed one direction has gone: nobody here goes on with the other. */
	if ((p[0].fd >= 0 && p[0].revents && !take_in(w, now)) || !let_out(w, now) || (w->ended && !w->first))
		end_pair(i);
}

static void relay(void)
{
	for (;;) {
		uint64_t next = what_to_poll(), now = now_ns(), wait = next > now ? next - now : 0;
		struct timespec t = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
		int were = n_ways;

		if (ppoll(polled, (nfds_t)(n_doors + 2 * n_ways), next == UINT64_MAX ? NULL : &t, NULL) < 0 && errno != EINTR)
			die("poll");
		for (int i = 0; i < were; i++)
			serve_way(i);
		for (int i = 0; i < n_doors; i++)
			if (polled[i].revents)
				let_in(&doors[i]);
	}
}

/* ---- the command line ---- */

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};

	if (inet_pton(AF_INET, host, &a.sin_addr) != 1) {
		fprintf(stderr, "delay: %s:%s is no address\n", host, port);
		exit(2);
	}
	return a;
}

static void open_door(char *spec)
{
	char *to = strchr(spec, '='), *port = to ? strrchr(to, ':') : NULL;
	struct door *d = &doors[n_doors++];
	struct sockaddr_in here;
	int on = 1;

	if (!port || n_doors > MOST_DOORS) {
		fprintf(stderr, "delay: %s: not PORT=HOST:PORT, or too many\n", spec);
		exit(2);
	}
	*to++ = 0;
	*port++ = 0;
	here = address("127.0.0.1", spec);
	d->to = address(to, port);
	d->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (d->fd < 0 || setsockopt(d->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
	    bind(d->fd, (struct sockaddr *)&here, sizeof here) != 0 || listen(d->fd, 64) != 0 ||
	    getsockname(d->fd, (struct sockaddr *)&here, &(socklen_t){sizeof here}) != 0)
		die(spec);
	printf(" %d", ntohs(here.sin_port));
}

int main(int argc, char **argv)
{
	int i = 1;

	if (argc > 2 && strcmp(argv[1], "-r") == 0) {
		rate = strtod(argv[2], NULL);
		i = 3;
	}
	if (argc < i + 2) {
		fprintf(stderr, "usage: delay [-r BYTES_A_SECOND] MICROSECONDS PORT=HOST:PORT ...\n");
		return 2;
	}
	hold_ns = strtoull(argv[i++], NULL, 10) * 1000u;
	fputs("ready", stdout);
	while (i < argc)
		open_door(argv[i++]);
	putchar('\n');
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul);
	fflush(stdout);
	relay();
}
