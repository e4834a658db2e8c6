/* How fast this machine talks to itself over TCP: what a server on the same host costs at least. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "measure/measure.h"

#define BLOCK ((size_t)1 << 20)
#define BLOCKS 32                /* a sample of the rate */
#define TRIPS 64                 /* a sample of the round trip */

struct ends {
	int here, there;
	unsigned char *block;        /* ours */
	size_t bytes;                /* of a message */
};

static int all(int fd, unsigned char *p, size_t n, bool reading)
{
	while (n) {
		ssize_t did = reading ? recv(fd, p, n, 0) : send(fd, p, n, MSG_NOSIGNAL);

		if (did <= 0)
			return -1;
		p += did;
		n -= (size_t)did;
	}
	return 0;
}

/* The other side: reads how many blocks come, and the blocks, and answers with 8 bytes; until the connection ends. */
static void *answer(void *arg)
{
	int fd = *(int *)arg;
	unsigned char *block = malloc(BLOCK);
	uint64_t want;

	while (block && all(fd, (unsigned char *)&want, sizeof want, true) == 0) {
		for (uint64_t i = 0; i < want; i++)
			if (all(fd, block, BLOCK, true))
				break;
		if (all(fd, (unsigned char *)&want, sizeof want, false))
			break;
	}
	free(block);
	return NULL;
}

static int talk(struct ends *s, uint64_t blocks, struct moe_err *e)
{
	uint64_t head = blocks;

	if (all(s->here, (unsigned char *)&head, sizeof head, false))
		return moe_fail_errno(e, "loopback");
	for (uint64_t i = 0; i < blocks; i++)
		if (all(s->here, s->block, BLOCK, false))
			return moe_fail_errno(e, "loopback");
	return all(s->here, (unsigned char *)&head, sizeof head, true) ? moe_fail_errno(e, "loopback") : 0;
}

static int stream(void *ctx, struct moe_sample *out, struct moe_err *e)
{
	uint64_t start = moe_now_ns();
	int rc = talk(ctx, BLOCKS, e);

	*out = (struct moe_sample){(double)(BLOCKS * BLOCK), moe_now_ns() - start};
	return rc;
}

static int trips(void *ctx, struct moe_sample *out, struct moe_err *e)
{
	uint64_t start = moe_now_ns();
	int rc = 0;

	for (int i = 0; i < TRIPS && !rc; i++)
		rc = talk(ctx, 0, e);
	*out = (struct moe_sample){TRIPS, moe_now_ns() - start};
	return rc;
}

/* A connection of this process with itself. */
static int connect_ends(struct ends *s, struct moe_err *e)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof at;
	int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), rc = 0;

	s->here = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || s->here < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&at, &len) || connect(s->here, (struct sockaddr *)&at, len) ||
	    (s->there = accept(listener, NULL, NULL)) < 0)
		rc = moe_fail_errno(e, "loopback");
	if (!rc) {
		setsockopt(s->here, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		setsockopt(s->there, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	}
	if (listener >= 0)
		close(listener);
	return rc;
}

static int measure(struct ends *s, double seconds, struct moe_loopback *out, struct moe_err *e)
{
	pthread_t other;
	int rc;

	if (pthread_create(&other, NULL, answer, &s->there))
		return moe_fail(e, MOE_E_NOMEM, "loopback: no thread for the other end");
	rc = moe_measure_rate(stream, s, seconds / 2, &out->bytes, e);
	rc = rc ? rc : moe_measure_rate(trips, s, seconds / 2, &out->trips, e);
	shutdown(s->here, SHUT_RDWR);
	pthread_join(other, NULL);
	return rc;
}

int moe_measure_loopback(double seconds, struct moe_loopback *out, struct moe_err *e)
{
	struct ends s = {.here = -1, .there = -1};
	int rc;

	*out = (struct moe_loopback){.bytes = {0}};
	s.block = moe_calloc(1, BLOCK, "a block", e);
	rc = s.block ? connect_ends(&s, e) : MOE_E_NOMEM;
	rc = rc ? rc : measure(&s, seconds, out, e);
	if (s.here >= 0)
		close(s.here);
	if (s.there >= 0)
		close(s.there);
	free(s.block);
	return rc;
}
