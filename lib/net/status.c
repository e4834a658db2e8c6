/* Asking servers how they are (moe_status_ask). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/endpoint.h"
#include "net/keys.h"
#include "net/message.h"

/* One socket; to a server whose key was not said, there is one for each of those that it may have. */
struct question {
	int server;              /* in the list */
	void *socket;
};

struct survey {
	const struct moe_endpoints *to;
	const struct moe_keys *keys;
	struct moe_status *out;
	void *ctx;
	struct question *v;      /* [n] */
	zmq_pollitem_t *items;   /* [n] */
	int n, answered;         /* servers */
};

static int sockets_to(const struct survey *s, int i)
{
	bool unknown = s->keys && !s->to->v[i].key[0];

	return unknown && keys_servers(s->keys) > 1 ? keys_servers(s->keys) : 1;
}

static int send_ping(void *socket, uint64_t id, struct moe_err *e)
{
	struct wire_ping ping = {.flags = WIRE_WATCHER, .id = id};
	unsigned char header[WIRE_HEADER_MAX];
	struct message m = {.n = 0};
	int rc = message_add(&m, header, wire_put_ping(&ping, header), NULL, e);

	if (rc)
		return rc;
	return message_send(socket, &m, NULL) ? 0 : moe_fail(e, MOE_E_IO, "it cannot be asked");
}

static int dress(const struct survey *s, const struct question *q, int nth, struct moe_err *e)
{
	const struct moe_endpoint *at = &s->to->v[q->server];

	if (s->keys)
		return keys_dress_client(q->socket, s->keys, at->key, nth, e);
	return at->key[0] ? moe_fail(e, MOE_E_INPUT, "it has a key, and we have none") : 0;
}

static int ask_one(struct survey *s, struct question *q, int nth, struct moe_err *e)
{
	const char *at = s->to->v[q->server].at;
	struct socket_limits limits = {.queue = 4, .max_bytes = WIRE_HEADER_MAX};
	struct endpoint p;
	int rc = endpoint_parse(at, false, &p, e);

	if (rc)
		return rc;
	limits.v6 = p.v6;
	q->socket = message_socket(s->ctx, ZMQ_DEALER, &limits, e);
	if (!q->socket)
		return MOE_E_IO;
	rc = dress(s, q, nth, e);
	if (!rc && zmq_connect(q->socket, at) != 0)
		rc = moe_fail(e, MOE_E_IO, "%s", zmq_strerror(errno));
	return rc ? rc : send_ping(q->socket, (uint64_t)q->server + 1, e);
}

/* What is known of a server, once: its status, or why there is none. */
static void conclude(struct survey *s, int server, const struct moe_status *known, int code, const char *why)
{
	struct moe_status *out = &s->out[server];

	if (out->at)
		return;
	*out = known ? *known : (struct moe_status){.code = code};
	out->at = s->to->v[server].at;
	snprintf(out->why, sizeof out->why, "%.*s", (int)sizeof out->why - 1, why);
	s->answered++;
}

static void ask_all(struct survey *s)
{
	struct moe_err e;

	for (int i = 0; i < s->to->n; i++)
		for (int nth = 0, all = sockets_to(s, i); nth < all; nth++) {
			struct question *q = &s->v[s->n++];

			q->server = i;
			if (ask_one(s, q, nth, &e))
				conclude(s, i, NULL, e.code, e.msg);
		}
}

static void hear(struct survey *s, const struct question *q)
{
	struct wire_frame frames[WIRE_MAX_FRAMES];
	struct wire_error error;
	struct moe_status known;
	struct moe_err e = MOE_ERR_INIT;
	struct message m;
	uint64_t id;

	if (message_receive(q->socket, &m, NULL) <= 0)
		return;
	message_frames(&m, frames);
	if (wire_get_pong(frames, m.n, &id, &known, &e) == 0 && id == (uint64_t)q->server + 1)
		conclude(s, q->server, &known, 0, "");
	else if (wire_get_error(frames, m.n, &error, NULL) == 0)
		conclude(s, q->server, NULL, error.code ? error.code : MOE_E_PEER, error.text);
	else if (e.code)
		conclude(s, q->server, NULL, MOE_E_PEER, e.msg);
	message_drop(&m);
}

static int listen_until(struct survey *s, uint64_t deadline, struct moe_err *e)
{
	while (s->answered < s->to->n) {
		uint64_t now = moe_now_ns();
		int n = 0, rc;

		if (now >= deadline)
			return 0;
		for (int i = 0; i < s->n; i++)
			if (s->v[i].socket)
				s->items[n++] = (zmq_pollitem_t){.socket = s->v[i].socket, .events = ZMQ_POLLIN};
		rc = zmq_poll(s->items, n, (long)((deadline - now) / 1000000) + 1);
		if (rc < 0 && errno != EINTR)
			return moe_fail(e, MOE_E_IO, "waiting for answers: %s", zmq_strerror(errno));
		for (int i = 0; i < s->n; i++)
			if (s->v[i].socket)
				hear(s, &s->v[i]);
	}
	return 0;
}

static int survey_open(struct survey *s, struct moe_err *e)
{
	size_t n = 0;

	for (int i = 0; i < s->to->n; i++) {
		n += (size_t)sockets_to(s, i);
		s->out[i].at = NULL;
	}
	s->v = moe_calloc(n, sizeof *s->v, "servers to ask", e);
	s->items = moe_calloc(n, sizeof *s->items, "servers to ask", e);
	if (!s->v || !s->items)
		return MOE_E_NOMEM;
	s->ctx = zmq_ctx_new();
	return s->ctx ? 0 : moe_fail(e, MOE_E_NOMEM, "ZeroMQ: %s", zmq_strerror(errno));
}

int moe_status_ask(const struct moe_endpoints *to, const struct moe_keys *keys, double timeout, struct moe_status *out, struct moe_err *e)
{
	struct survey s = {.to = to, .keys = keys, .out = out};
	char silence[64];
	uint64_t deadline = moe_now_ns() + (uint64_t)(timeout * 1e9);
	int rc = survey_open(&s, e);

	if (!rc) {
		ask_all(&s);
		rc = listen_until(&s, deadline, e);
	}
	snprintf(silence, sizeof silence, "no answer within %g s", timeout);
	for (int i = 0; i < to->n && !rc; i++)
		conclude(&s, i, NULL, MOE_E_TIMEOUT, silence);
	for (int i = 0; i < s.n; i++)
		if (s.v[i].socket)
			zmq_close(s.v[i].socket);
	if (s.ctx)
		zmq_ctx_term(s.ctx);
	free(s.v);
	free(s.items);
	return rc;
}
