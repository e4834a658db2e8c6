#include "net/link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/endpoint.h"

/* Replies and errors to as many requests as any server gives credits for. */
#define QUEUE 64
/* A host that went away without a word is noticed by ZeroMQ's own heartbeats, which a busy server's I/O thread answers. */
#define HEARTBEAT_MS 1000
#define SILENCE_MS 4000
/* While a host is unreachable the system waits longer and longer before it tries again, up to minutes; it shall be found soon after
 * it is back. */
#define CONNECT_MS 3000
/* Connecting again: not all clients at the same time, less and less often. */
#define RECONNECT_MS 100
#define RECONNECT_MOST_MS 1500
/* What a pair takes, until it is known. */
#define PAIR_NS 1000.0

/* What the monitor tells of handshakes. */
#define SHAKEN \
	(ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | \
	 ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)

/* ---- terms ---- */

static int check_identity(const struct moe_identity *its, const struct link_terms *t, struct moe_err *e)
{
	const struct moe_identity *ours = &t->identity;

	if (strcmp(its->fingerprint, ours->fingerprint) != 0)
		return moe_fail(e, MOE_E_PEER, "serves another model (fingerprint %s, wanted %s)", its->fingerprint,
		                ours->fingerprint);
	if (its->numerics != ours->numerics && !t->mixed_numerics)
		return moe_fail(e, MOE_E_PEER, "another numerics id (%s, wanted %s): is --exact or --activations on one side only? "
		                "moe-route --mixed-numerics accepts it", its->numerics_text, ours->numerics_text);
	return 0;
}

int link_check_terms(const struct wire_hello *w, const struct link_terms *t, struct moe_err *e)
{
	int rc;

	if (w->version_min > WIRE_VERSION || w->version_max < WIRE_VERSION)
		return moe_fail(e, MOE_E_PEER, "speaks wire version %u to %u, this program %d", w->version_min, w->version_max,
		                WIRE_VERSION);
	rc = check_identity(&w->identity, t, e);
	if (rc)
		return rc;
	if (w->hidden != (uint32_t)t->model->hidden || w->layers != (uint32_t)t->model->n_layers)
		return moe_fail(e, MOE_E_PEER, "has %u layers of width %u, the model has %d of %d", w->layers, w->hidden,
		                t->model->n_layers, t->model->hidden);
	if (w->max_rows < (uint32_t)t->max_rows || w->max_bytes < t->max_request)
		return moe_fail(e, MOE_E_PEER, "takes %u rows a message, this program sends up to %d: start it with --max-rows %d",
		                w->max_rows, t->max_rows, t->max_rows);
	if (w->credits < 1)
		return moe_fail(e, MOE_E_PEER, "gives no credits");
	return 0;
}

/* ---- the connection ---- */

static int open_monitor(struct link *l, void *ctx, struct moe_err *e)
{
	char name[64];

	snprintf(name, sizeof name, "inproc://monitor-%p", (void *)l);
	if (zmq_socket_monitor(l->socket, name, SHAKEN | ZMQ_EVENT_DISCONNECTED) != 0)
		return moe_fail(e, MOE_E_IO, "%s: monitor: %s", l->endpoint, zmq_strerror(errno));
	l->monitor = zmq_socket(ctx, ZMQ_PAIR);
	if (!l->monitor || zmq_connect(l->monitor, name) != 0)
		return moe_fail(e, MOE_E_IO, "%s: monitor: %s", l->endpoint, zmq_strerror(errno));
	return 0;
}

static int open_socket(struct link *l, void *ctx, const struct link_terms *t, struct moe_err *e)
{
	int immediate = 1, most = RECONNECT_MOST_MS, again = RECONNECT_MS / 2 + (int)(moe_now_ns() / 1000 % RECONNECT_MS);
	struct socket_limits limits = {
		.queue = QUEUE, .max_bytes = t->max_reply, .beat_ms = HEARTBEAT_MS, .silence_ms = SILENCE_MS, .connect_ms = CONNECT_MS,
	};
	struct endpoint parts;
	int rc = endpoint_parse(l->endpoint, false, &parts, e);

	if (rc)
		return rc;
	limits.v6 = parts.v6;
	l->seal = parts.tcp && !t->keys;
	l->socket = message_socket(ctx, ZMQ_DEALER, &limits, e);
	if (!l->socket)
		return MOE_E_IO;
	/* Immediate: nothing is queued for a server that is not there, so a send tells whether it is. */
	if (zmq_setsockopt(l->socket, ZMQ_IMMEDIATE, &immediate, sizeof immediate) != 0 ||
	    zmq_setsockopt(l->socket, ZMQ_RECONNECT_IVL, &again, sizeof again) != 0 ||
	    zmq_setsockopt(l->socket, ZMQ_RECONNECT_IVL_MAX, &most, sizeof most) != 0)
		return moe_fail(e, MOE_E_IO, "%s: socket options: %s", l->endpoint, zmq_strerror(errno));
	rc = link_dress(l, e);
	rc = rc ? rc : open_monitor(l, ctx, e);
	if (rc)
		return rc;
	if (zmq_connect(l->socket, l->endpoint) != 0)
		return moe_fail(e, MOE_E_IO, "%s: connect: %s", l->endpoint, zmq_strerror(errno));
	return 0;
}

int link_open(struct link *l, void *ctx, const struct moe_endpoint *to, int place, const struct link_terms *t, struct moe_err *e)
{
	size_t experts = (size_t)t->model->n_layers * (size_t)moe_model_max_experts(t->model);

	*l = (struct link){.rank = place, .state = LINK_DOWN, .keys = t->keys};
	moe_fail(&l->why, MOE_E_PEER, "not connected");
	l->pair_ns = PAIR_NS;
	memcpy(l->key, to->key, sizeof l->key);
	l->endpoint = moe_strdup(to->at, e);
	if (!l->endpoint || holdings_new(&l->holds, experts, e))
		return MOE_E_NOMEM;
	return open_socket(l, ctx, t, e);
}

void link_close(struct link *l)
{
	lane_end(l->lane);
	if (l->socket) {
		/* A connection that came and went while nobody listened may have filled the monitor: ZeroMQ's thread then waits
		 * for room in it with the lock that the next call takes. */
		if (l->monitor)
			link_ended(l);
		zmq_socket_monitor(l->socket, NULL, 0);
		zmq_close(l->socket);
	}
	if (l->monitor)
		zmq_close(l->monitor);
	free(l->endpoint);
	holdings_free(&l->holds);
	*l = (struct link){.state = LINK_DOWN};
}

bool link_ended(struct link *l)
{
	struct message m;
	bool ended = false;

	while (message_receive(l->monitor, &m, NULL) > 0) {
		uint16_t event = 0;
		uint32_t value = 0;

		if (m.n && zmq_msg_size(&m.part[0]) >= sizeof event + sizeof value) {
			memcpy(&event, zmq_msg_data(&m.part[0]), sizeof event);
			memcpy(&value, (char *)zmq_msg_data(&m.part[0]) + sizeof event, sizeof value);
		}
		if (event & SHAKEN)
			link_shake_hands(l, event, value);
		if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
			l->connected = true;
		if (event == ZMQ_EVENT_DISCONNECTED) {
			l->connected = false;
			ended = true;
		}
		message_drop(&m);
	}
	return ended;
}

void link_lost(struct link *l, const char *why)
{
	lane_end(l->lane);
	l->lane = NULL;
	if (l->state == LINK_READY)
		l->lost = moe_now_ns();
	l->greet_again = 0;
	l->hello = false;
	l->state = LINK_DOWN;
	l->unanswered = 0;
	l->asked_since = 0;
	l->taking = 0;
	l->pulse.suspect = false;
	moe_fail(&l->why, MOE_E_PEER, "%s", why);
}

bool link_send(struct link *l, struct message *m)
{
	if (!m->lane && l->seal && message_seal(m, NULL)) {
		message_drop(m);
		return false;
	}
	return message_send(l->socket, m, NULL);
}

void link_greet(struct link *l, const struct link_terms *t)
{
	struct wire_hello hello = {
		.version_min = WIRE_VERSION, .version_max = WIRE_VERSION, .identity = t->identity,
		.hidden = (uint32_t)t->model->hidden, .layers = (uint32_t)t->model->n_layers,
		.max_rows = (uint32_t)t->max_rows,
	};
	unsigned char header[WIRE_HEADER_MAX];
	struct message m = {.n = 0};
	size_t n = wire_put_hello(WIRE_HELLO, &hello, header), size = sizeof(int);
	int events;

	/* Makes the socket take notice that its old pipe is gone, into which the HELLO would vanish otherwise. */
	zmq_getsockopt(l->socket, ZMQ_EVENTS, &events, &size);
	if (message_add(&m, header, n, NULL, NULL) != 0 || !link_send(l, &m))
		return;
	l->state = LINK_GREETED;
	l->hello = true;
	l->greeted = moe_now_ns();
}

void link_ping(struct link *l, uint64_t epoch, uint64_t now)
{
	const struct wire_ping ping = {.id = PING_ID, .epoch = epoch};
	unsigned char header[WIRE_HEADER_MAX];
	struct message m = {.n = 0};

	if (message_add(&m, header, wire_put_ping(&ping, header), NULL, NULL) == 0)
		link_send(l, &m);
	l->pinged = now;
	l->told_epoch = epoch;
	if (!l->asked_since)
		l->asked_since = now;
}

enum moe_peer_state link_peer_state(const struct link *l)
{
	if (l->gone)
		return MOE_PEER_GONE;
	if (l->pulse.open_until)
		return MOE_PEER_OPEN;
	if (l->state != LINK_READY)
		return MOE_PEER_JOINING;
	if (l->draining)
		return MOE_PEER_DRAINING;
	return l->pulse.suspect ? MOE_PEER_SUSPECT : MOE_PEER_READY;
}

const char *moe_peer_state_name(enum moe_peer_state s)
{
	static const char *const names[] = {"joining", "ready", "suspect", "open", "draining", "gone"};

	return (unsigned)s < sizeof names / sizeof *names ? names[s] : "unknown";
}

static int take_welcome(struct link *l, const struct wire_frame *f, int n, const struct link_terms *t, uint8_t *has,
                        struct moe_err *e)
{
	size_t experts = (size_t)t->model->n_layers * (size_t)moe_model_max_experts(t->model);
	uint64_t before = l->welcome.instance;
	struct wire_hello w;
	int rc = wire_get_hello(f, n, &w, e);

	if (rc)
		return rc;
	l->rank = w.rank <= INT32_MAX ? (int)w.rank : l->rank;
	rc = link_check_terms(&w, t, e);
	if (!rc)
		rc = wire_get_held(&f[1], w.held, t->model, has, e);
	if (rc)
		return rc;
	if (w.instance != before)
		holdings_clear(&l->holds);
	l->welcome = w;
	l->draining = w.flags & WIRE_DRAINING;
	l->spare = w.flags & WIRE_SPARE;
	l->taking = 0;
	holdings_set(&l->holds, w.identity.epoch, w.held, has, experts);
	return 0;
}

void link_welcome(struct link *l, const struct wire_frame *f, int n, const struct link_terms *t, uint8_t *has)
{
	bool greeted = l->state == LINK_GREETED;

	l->hello = false;
	l->state = take_welcome(l, f, n, t, has, &l->why) ? LINK_REFUSED : LINK_READY;
	if (l->state == LINK_READY && greeted)
		link_lane_ask(l, t);
}

void link_learn(struct link *l, uint64_t ns, int pairs)
{
	/* What a peer says of its time decides only how much it is asked; within bounds that keep the sums sane. */
	double each = (double)ns / pairs;

	if (each >= 1 && each < 1e9)
		l->pair_ns += (each - l->pair_ns) / 8;
}

int link_fail(const struct link *l, struct moe_err *e, int code, const char *words)
{
	return moe_fail(e, code, "rank %d at %s: %s", l->rank, l->endpoint, words);
}
