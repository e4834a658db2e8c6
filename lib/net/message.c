#include "net/message.h"

#include <errno.h>
#include <string.h>

static bool more(void *socket)
{
	int yes = 0;
	size_t n = sizeof yes;

	return zmq_getsockopt(socket, ZMQ_RCVMORE, &yes, &n) == 0 && yes;
}

static void skip_rest(void *socket)
{
	while (more(socket)) {
		zmq_msg_t part;

		zmq_msg_init(&part);
		if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) < 0) {
			zmq_msg_close(&part);
			return;
		}
		zmq_msg_close(&part);
	}
}

/* The routing id in front.  1: there, and of one that we do not take the message's other parts are gone; 0: nothing there;
 * -1: failed. */
static int receive_peer(void *socket, struct peer *peer)
{
	zmq_msg_t part;
	int rc = 1;

	zmq_msg_init(&part);
	if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) < 0) {
		rc = errno == EAGAIN ? 0 : -1;
	} else if (zmq_msg_size(&part) > PEER_BYTES) {
		peer->size = 0;
		skip_rest(socket);
	} else {
		peer->size = zmq_msg_size(&part);
		memcpy(peer->id, zmq_msg_data(&part), peer->size);
	}
	zmq_msg_close(&part);
	return rc;
}

int message_receive(void *socket, struct message *m, struct peer *peer)
{
	*m = (struct message){.n = 0};
	if (peer) {
		int rc = receive_peer(socket, peer);

		if (rc <= 0 || !more(socket))
			return rc;
	}
	do {
		zmq_msg_t *part = &m->part[m->n];

		zmq_msg_init(part);
		if (zmq_msg_recv(part, socket, ZMQ_DONTWAIT) < 0) {
			int err = errno;

			zmq_msg_close(part);
			message_drop(m);
			errno = err;
			return err == EAGAIN ? 0 : -1;
		}
		m->n++;
	} while (more(socket) && m->n < WIRE_MAX_FRAMES);
	m->oversized = more(socket);
	skip_rest(socket);
	return 1;
}

void message_drop(struct message *m)
{
	while (m->n > 0)
		zmq_msg_close(&m->part[--m->n]);
}

void message_frames(struct message *m, struct wire_frame *frames)
{
	for (int i = 0; i < m->n; i++)
		frames[i] = (struct wire_frame){zmq_msg_data(&m->part[i]), zmq_msg_size(&m->part[i])};
}

uint64_t message_bytes(const struct message *m)
{
	uint64_t n = 0;

	for (int i = 0; i < m->n; i++)
		n += zmq_msg_size(&m->part[i]);
	return n;
}

int message_seal(struct message *m, struct moe_err *e)
{
	struct wire_frame frames[WIRE_MAX_FRAMES];
	size_t n = zmq_msg_size(&m->part[0]);
	zmq_msg_t header;

	if (zmq_msg_init_size(&header, n + WIRE_SEAL_BYTES) != 0)
		return moe_fail(e, MOE_E_NOMEM, "a message's seal: no memory");
	memcpy(zmq_msg_data(&header), zmq_msg_data(&m->part[0]), n);
	wire_put_seal(zmq_msg_data(&header), n);
	zmq_msg_move(&m->part[0], &header);
	message_frames(m, frames);
	wire_seal(frames, m->n, zmq_msg_data(&m->part[0]));
	return 0;
}

bool message_send(void *socket, struct message *m, const struct peer *peer)
{
	bool sent;

	if (m->lane) {
		lane_send(m->lane, m->slot);
		message_drop(m);
		return true;
	}
	sent = !peer || zmq_send(socket, peer->id, peer->size, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0;
	for (int i = 0; i < m->n; i++) {
		int flags = ZMQ_DONTWAIT | (i + 1 < m->n ? ZMQ_SNDMORE : 0);

		/* A part that was sent is empty, and closing it does nothing. */
		sent = sent && zmq_msg_send(&m->part[i], socket, flags) >= 0;
	}
	message_drop(m);
	return sent;
}

void message_for_slot(struct message *m, struct lane *lane, int slot)
{
	*m = (struct message){.lane = lane, .slot = slot};
	ring_open(&lane->ring, slot, &m->box);
}

int message_from_slot(struct message *m, struct lane *lane, int slot, int in_place, struct moe_err *e)
{
	struct wire_frame frames[WIRE_MAX_FRAMES];
	int n = ring_frames(&lane->ring, slot, frames), rc = 0;

	*m = (struct message){.lane = lane, .slot = slot};
	if (n < 0)
		return moe_fail(e, MOE_E_PEER, "shared memory: a message that does not fit its slot");
	for (int i = 0; i < n && !rc; i++) {
		zmq_msg_t *part = &m->part[i];

		if (i == in_place)
			rc = zmq_msg_init_data(part, (void *)frames[i].data, frames[i].size, NULL, NULL);
		else
			rc = zmq_msg_init_size(part, frames[i].size);
		if (!rc && i != in_place && frames[i].size)
			memcpy(zmq_msg_data(part), frames[i].data, frames[i].size);
		m->n += !rc;
	}
	if (!rc)
		return 0;
	message_drop(m);
	return moe_fail(e, MOE_E_NOMEM, "a message in shared memory: no memory");
}

/* A part of n bytes, in the slot's box or in memory of ZeroMQ's. */
static int new_part(struct message *m, size_t n, struct moe_err *e)
{
	zmq_msg_t *part = &m->part[m->n];
	void *at;

	if (!m->lane)
		return zmq_msg_init_size(part, n) == 0 ? 0 : moe_fail(e, MOE_E_NOMEM, "a message of %zu bytes: no memory", n);
	at = ring_add(&m->box, n);
	if (!at || zmq_msg_init_data(part, at, n, NULL, NULL) != 0)
		return moe_fail(e, MOE_E_RANGE, "a message part of %zu bytes does not fit its slot", n);
	return 0;
}

int message_add(struct message *m, const void *data, size_t n, void **filled, struct moe_err *e)
{
	zmq_msg_t *part = &m->part[m->n];
	int rc = new_part(m, n, e);

	if (rc)
		return rc;
	if (data && n)
		memcpy(zmq_msg_data(part), data, n);
	if (filled)
		*filled = zmq_msg_data(part);
	m->n++;
	return 0;
}

void *message_socket(void *ctx, int type, const struct socket_limits *l, struct moe_err *e)
{
	int64_t max = (int64_t)l->max_bytes;
	int v6 = l->v6, none = 0;
	struct { int name; const void *value; size_t size; } options[] = {
		{ZMQ_MAXMSGSIZE, &max, sizeof max},
		{ZMQ_SNDHWM, &l->queue, sizeof l->queue},
		{ZMQ_RCVHWM, &l->queue, sizeof l->queue},
		{ZMQ_LINGER, &l->linger_ms, sizeof l->linger_ms},
		{ZMQ_SNDTIMEO, &none, sizeof none},
		{ZMQ_IPV6, &v6, sizeof v6},
		{ZMQ_HEARTBEAT_IVL, &l->beat_ms, sizeof l->beat_ms},
		{ZMQ_HEARTBEAT_TIMEOUT, &l->silence_ms, sizeof l->silence_ms},
		{ZMQ_CONNECT_TIMEOUT, &l->connect_ms, sizeof l->connect_ms},
	};
	void *socket = zmq_socket(ctx, type);

	if (!socket) {
		moe_fail(e, MOE_E_IO, "socket: %s", zmq_strerror(errno));
		return NULL;
	}
	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		if (zmq_setsockopt(socket, options[i].name, options[i].value, options[i].size) != 0) {
			moe_fail(e, MOE_E_IO, "socket options: %s", zmq_strerror(errno));
			zmq_close(socket);
			return NULL;
		}
	return socket;
}
