/* Multi-part ZeroMQ messages: the seam between sockets and wire.h's frames. */
#ifndef MOE_NET_MESSAGE_H
#define MOE_NET_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#include "base/err.h"
#include "net/wire.h"

#define PEER_BYTES 64            /* longer routing ids than ZeroMQ's own five bytes are dropped */

/* Who a message came from, as a ROUTER says it.  Five bytes that ZeroMQ made, or whatever the peer chose. */
struct peer {
	size_t size;
	unsigned char id[PEER_BYTES];
};

struct message {
	zmq_msg_t part[WIRE_MAX_FRAMES];
	int n;
	bool oversized;          /* it had more parts; they were dropped */
};

/* Receive without waiting.  peer: NULL on a DEALER.  1: a message, which message_drop ends (without parts
 * when its peer is not taken: the caller counts what it takes in a turn); 0: none there; -1: the socket failed (errno). */
int message_receive(void *socket, struct message *m, struct peer *peer);
void message_drop(struct message *m);
/* The parts as frames; they point into the message.  frames[WIRE_MAX_FRAMES]. */
void message_frames(struct message *m, struct wire_frame *frames);
uint64_t message_bytes(const struct message *m);

/* Send without waiting; peer as above.  Takes the parts over, also on failure.  False: not connected, or its queue is
 * full. */
bool message_send(void *socket, struct message *m, const struct peer *peer);
/* Append a part of n bytes, copied from data, or for the caller to fill when data is NULL. */
int message_add(struct message *m, const void *data, size_t n, void **filled, struct moe_err *e);

/* A socket with what both sides set: bounded queues and message size, no waiting to send.  NULL: e filled. */
struct socket_limits {
	int queue;               /* messages */
	size_t max_bytes;        /* of one frame */
	int linger_ms;
	bool v6;
};
void *message_socket(void *ctx, int type, const struct socket_limits *l, struct moe_err *e);

#endif
