/* Who may connect: ZeroMQ's questions to its owner, RFC 27 (ZAP), answered by a thread. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/team.h"
#include "net/keys.h"

#define AT "inproc://zeromq.zap.01"
/* Of those that are refused one a second is told. */
#define TELL_EVERY_NS 1000000000u

/* The frames of a question. */
enum { ZAP_VERSION, ZAP_ID, ZAP_DOMAIN, ZAP_ADDRESS, ZAP_ROUTING_ID, ZAP_MECHANISM, ZAP_KEY, ZAP_FRAMES };

struct zap {
	const struct moe_keys *keys;
	void *socket;
	int bell;
	pthread_t thread;
	uint64_t told_ns, untold;
};

struct question {
	zmq_msg_t frame[ZAP_FRAMES];
	int n;
	bool more;                   /* it had other frames behind these */
};

static bool frame_is(struct question *q, int i, const char *text)
{
	size_t n = strlen(text);

	return zmq_msg_size(&q->frame[i]) == n && memcmp(zmq_msg_data(&q->frame[i]), text, n) == 0;
}

static bool receive(struct zap *z, zmq_msg_t *m)
{
	int rc;

	do
		rc = zmq_msg_recv(m, z->socket, 0);
	while (rc < 0 && errno == EINTR);
	return rc >= 0;
}

/* False: the context ends. */
static bool take_question(struct zap *z, struct question *q)
{
	bool more = true;

	q->n = 0;
	q->more = false;
	while (more) {
		zmq_msg_t spare, *m = q->n < ZAP_FRAMES ? &q->frame[q->n] : &spare;

		zmq_msg_init(m);
		if (!receive(z, m)) {
			zmq_msg_close(m);
			return false;
		}
		more = zmq_msg_more(m);
		q->more |= m == &spare;
		q->n += m != &spare;
		if (m == &spare)
			zmq_msg_close(m);
	}
	return true;
}

static void drop_question(struct question *q)
{
	while (q->n > 0)
		zmq_msg_close(&q->frame[--q->n]);
}

static void tell(struct zap *z, struct question *q, const char *user)
{
	uint64_t now = moe_now_ns();

	if (z->told_ns && now - z->told_ns < TELL_EVERY_NS) {
		z->untold++;
		return;
	}
	moe_log(MOE_WARN, "refused a client at %.*s: its key %s is not on the list", (int)zmq_msg_size(&q->frame[ZAP_ADDRESS]),
	        (const char *)zmq_msg_data(&q->frame[ZAP_ADDRESS]), user);
	if (z->untold)
		moe_log(MOE_WARN, "refused %llu others since the one that was told before", (unsigned long long)z->untold);
	z->told_ns = now;
	z->untold = 0;
}

/* user: the key in text, which ZeroMQ puts on every message of the connection. */
static bool decide(struct zap *z, struct question *q, char user[MOE_KEY_TEXT])
{
	bool allowed;

	*user = 0;
	if (q->n != ZAP_FRAMES || q->more || !frame_is(q, ZAP_VERSION, "1.0") || !frame_is(q, ZAP_MECHANISM, "CURVE") ||
	    zmq_msg_size(&q->frame[ZAP_KEY]) != KEY_BYTES)
		return false;
	key_to_text(zmq_msg_data(&q->frame[ZAP_KEY]), user);
	allowed = keys_allow(z->keys, zmq_msg_data(&q->frame[ZAP_KEY]));
	if (!allowed)
		tell(z, q, user);
	return allowed;
}

static bool put(struct zap *z, const void *data, size_t n, int flags)
{
	int rc;

	do
		rc = zmq_send(z->socket, data, n, flags);
	while (rc < 0 && errno == EINTR);
	return rc >= 0;
}

static bool put_text(struct zap *z, const char *text, int flags)
{
	return put(z, text, strlen(text), flags);
}

static bool answer(struct zap *z, struct question *q)
{
	char user[MOE_KEY_TEXT];
	bool allowed = decide(z, q, user);
	bool has_id = q->n > ZAP_ID;

	return put_text(z, "1.0", ZMQ_SNDMORE) &&
	       put(z, has_id ? zmq_msg_data(&q->frame[ZAP_ID]) : NULL, has_id ? zmq_msg_size(&q->frame[ZAP_ID]) : 0, ZMQ_SNDMORE) &&
	       put_text(z, allowed ? "200" : "400", ZMQ_SNDMORE) &&
	       put_text(z, allowed ? "" : "not on the list", ZMQ_SNDMORE) &&
	       put_text(z, allowed ? user : "", ZMQ_SNDMORE) && put_text(z, "", 0);
}

static void read_again(struct zap *z)
{
	struct moe_err e;
	uint64_t rings;

	if (read(z->bell, &rings, sizeof rings) != sizeof rings)
		return;
	if (keys_read_again(z->keys, &e))
		moe_log(MOE_WARN, "%s; the keys stay as they were", e.msg);
	else
		moe_log(MOE_INFO, "the list of keys was read again");
}

static void *answer_all(void *arg)
{
	struct zap *z = arg;
	bool go_on = true;

	while (go_on) {
		zmq_pollitem_t items[] = {{.socket = z->socket, .events = ZMQ_POLLIN}, {.fd = z->bell, .events = ZMQ_POLLIN}};
		struct question q;

		if (zmq_poll(items, 2, -1) < 0) {
			go_on = errno == EINTR;
			continue;
		}
		if (items[1].revents)
			read_again(z);
		if (!items[0].revents)
			continue;
		go_on = take_question(z, &q) && answer(z, &q);
		drop_question(&q);
	}
	zmq_close(z->socket);
	return NULL;
}

/* It is the thread's when it runs. */
static int open_socket(struct zap *z, void *ctx, struct moe_err *e)
{
	z->bell = keys_bell(z->keys, e);
	if (z->bell < 0)
		return MOE_E_IO;
	z->socket = zmq_socket(ctx, ZMQ_REP);
	if (z->socket && zmq_bind(z->socket, AT) == 0)
		return 0;
	return moe_fail(e, MOE_E_IO, "keys: %s", zmq_strerror(errno));
}

int zap_start(void *ctx, const struct moe_keys *k, struct zap **out, struct moe_err *e)
{
	struct zap *z = moe_calloc(1, sizeof *z, "keys", e);
	int rc;

	if (!z)
		return MOE_E_NOMEM;
	z->keys = k;
	rc = open_socket(z, ctx, e);
	rc = rc ? rc : moe_thread_start(answer_all, z, &z->thread, e);
	if (!rc) {
		*out = z;
		return 0;
	}
	if (z->socket)
		zmq_close(z->socket);
	free(z);
	return rc;
}

void zap_free(struct zap *z)
{
	if (!z)
		return;
	pthread_join(z->thread, NULL);
	free(z);
}
