/* A client that writes frames by hand. */
#ifndef NET_RAW_H
#define NET_RAW_H

#include <zmq.h>

#include "net_rig.h"

#include "net/message.h"
#include "net/server.h"
#include "net/wire.h"

struct raw {
	void *ctx, *socket;
};

static inline void raw_open(const struct here *h, struct raw *r)
{
	struct socket_limits limits = {.queue = 1000, .max_bytes = 1 << 24};
	char to[64];

	r->ctx = zmq_ctx_new();
	r->socket = message_socket(r->ctx, ZMQ_DEALER, &limits, NULL);
	snprintf(to, sizeof to, "ipc://%s/0", h->dir);
	assert_int_equal(zmq_connect(r->socket, to), 0);
}

static inline void raw_close(struct raw *r)
{
	zmq_close(r->socket);
	zmq_ctx_term(r->ctx);
}

/* The next message, which comes within half a minute. */
static inline void raw_receive(struct raw *r, struct message *m, struct wire_frame *frames, struct wire_head *head)
{
	zmq_pollitem_t item = {.socket = r->socket, .events = ZMQ_POLLIN};

	assert_int_equal(zmq_poll(&item, 1, 30000), 1);
	assert_int_equal(message_receive(r->socket, m, NULL), 1);
	message_frames(m, frames);
	assert_int_equal(wire_head(frames, m->n, head, NULL), 0);
}

/* Is there nothing, now that the answer to a PING has come? */
static inline bool raw_silent(struct raw *r)
{
	return zmq_poll(&(zmq_pollitem_t){.socket = r->socket, .events = ZMQ_POLLIN}, 1, 0) == 0;
}

/* ---- HELLO ---- */

static inline void raw_send_hello(struct raw *r, uint64_t epoch)
{
	struct wire_hello hello = {.version_min = 1, .version_max = 1, .identity = identity()};
	unsigned char header[WIRE_HEADER_MAX];
	struct message m = {.n = 0};

	hello.identity.epoch = epoch;
	message_add(&m, header, wire_put_hello(WIRE_HELLO, &hello, header), NULL, NULL);
	assert_true(message_send(r->socket, &m, NULL));
}

/* The next message is a WELCOME; has (may be NULL): what it lists. */
static inline void raw_welcome(const struct here *h, struct raw *r, struct wire_hello *welcome, uint8_t *has)
{
	struct wire_frame frames[WIRE_MAX_FRAMES];
	struct message m;
	struct wire_head head;

	raw_receive(r, &m, frames, &head);
	assert_int_equal(head.kind, WIRE_WELCOME);
	assert_int_equal(wire_get_hello(frames, m.n, welcome, NULL), 0);
	if (has)
		assert_int_equal(wire_get_held(&frames[1], welcome->held, &h->c->model, has, NULL), 0);
	message_drop(&m);
}

static inline void raw_hello(struct raw *r, struct wire_hello *welcome)
{
	raw_send_hello(r, identity().epoch);
	raw_welcome(NULL, r, welcome, NULL);
}

/* ---- PING ---- */

static inline void raw_ping(struct raw *r, uint64_t id, uint64_t epoch, uint32_t flags)
{
	struct wire_ping ping = {.id = id, .epoch = epoch, .flags = flags};
	unsigned char header[WIRE_HEADER_MAX];
	struct message m = {.n = 0};

	message_add(&m, header, wire_put_ping(&ping, header), NULL, NULL);
	assert_true(message_send(r->socket, &m, NULL));
}

/* The next message is a PONG with this id. */
static inline void raw_pong(struct raw *r, uint64_t id, struct moe_status *out)
{
	struct wire_frame frames[WIRE_MAX_FRAMES];
	struct message m;
	struct wire_head head;
	uint64_t got;

	raw_receive(r, &m, frames, &head);
	assert_int_equal(head.kind, WIRE_PONG);
	assert_int_equal(wire_get_pong(frames, m.n, &got, out, NULL), 0);
	assert_true(got == id);
	message_drop(&m);
}

static inline void raw_status(struct raw *r, uint64_t epoch, struct moe_status *out)
{
	static uint64_t id;

	raw_ping(r, ++id, epoch, 0);
	raw_pong(r, id, out);
}

/* ---- TAKE ---- */

static inline void raw_take(const struct here *h, struct raw *r, uint64_t id, uint64_t epoch, const uint8_t *want)
{
	uint32_t n = wire_count_held(&h->c->model, want);
	unsigned char header[WIRE_HEADER_MAX];
	struct message m = {.n = 0};
	void *list;

	message_add(&m, header, wire_put_take(id, epoch, n, header), NULL, NULL);
	assert_int_equal(message_add(&m, NULL, wire_held_bytes(n), &list, NULL), 0);
	wire_put_held(&h->c->model, want, list);
	assert_true(message_send(r->socket, &m, NULL));
}

/* ---- REQUEST ---- */

/* One row for expert 0. */
static inline struct wire_request good(const struct here *h, uint64_t instance, uint64_t id)
{
	return (struct wire_request){
		.id = id, .epoch = 1, .instance = instance, .remaining_ns = WIRE_FOREVER, .layer = (uint32_t)h->moe_layer, .rows = 1,
		.width = (uint32_t)h->hidden, .pairs = 1,
	};
}

static inline void raw_request(struct raw *r, const struct wire_request *q)
{
	static const uint32_t zero;
	static const float one = 1;
	unsigned char header[WIRE_HEADER_MAX];
	struct message m = {.n = 0};
	void *x;

	message_add(&m, header, wire_put_request(q, header), NULL, NULL);
	message_add(&m, &zero, sizeof zero, NULL, NULL);
	message_add(&m, &zero, sizeof zero, NULL, NULL);
	message_add(&m, &one, sizeof one, NULL, NULL);
	message_add(&m, NULL, q->width * sizeof(float), &x, NULL);
	memset(x, 0, q->width * sizeof(float));
	assert_true(message_send(r->socket, &m, NULL));
}

/* The code of the next message but for unasked WELCOMEs, which is about request id (0: any): 0 for a reply. */
static inline int raw_answer(struct raw *r, uint64_t id, struct wire_error *error)
{
	struct wire_frame frames[WIRE_MAX_FRAMES];
	struct message m;
	struct wire_head head;
	int code = 0;

	raw_receive(r, &m, frames, &head);
	while (head.kind == WIRE_WELCOME) {
		message_drop(&m);
		raw_receive(r, &m, frames, &head);
	}
	if (id)
		assert_int_equal(head.id, id);
	if (head.kind == WIRE_ERROR) {
		assert_int_equal(wire_get_error(frames, m.n, error, NULL), 0);
		code = error->code;
	} else {
		assert_int_equal(head.kind, WIRE_REPLY);
	}
	message_drop(&m);
	return code;
}

#endif
