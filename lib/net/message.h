/* Multi-part ZeroMQ messages: the seam between sockets and wire.h's frames. */
#ifndef MOE_NET_MESSAGE_H
#define MOE_NET_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#include "base/err.h"
#include "net/lane.h"
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
	/* By way of shared memory, or NULL: the slot that it came in, or whose box it is written into. */
	struct lane *lane;
	int slot;
	struct ring_box box;
};

/* Receive without waiting.  peer: NULL on a DEALER.  1: a message, which message_drop ends (without parts
 * when its peer is not taken: the caller counts what it takes in a turn); 0: none there; -1: the socket failed (errno). */
int message_receive(void *socket, struct message *m, struct peer *peer);
void message_drop(struct message *m);
/* The parts as frames; they point into the message.  frames[WIRE_MAX_FRAMES]. */
void message_frames(struct message *m, struct wire_frame *frames);
uint64_t message_bytes(const struct message *m);

/* Give a message whose parts are all there a seal (wire.h). */
int message_seal(struct message *m, struct moe_err *e);
/* Send without waiting, by its slot or else the socket; peer as above.  Takes the parts over, also on failure.  False: not
 * connected, or its queue is full. */
bool message_send(void *socket, struct message *m, const struct peer *peer);
/* A message to be written into a held slot of a lane: its parts lie there, and lane_send sends it. */
void message_for_slot(struct message *m, struct lane *lane, int slot);
/* What came in a held slot: its parts are copied, but for the one (-1: none) that may be read while the peer writes it.
 * MOE_E_PEER: it does not lie in the slot; then it has no parts. */
int message_from_slot(struct message *m, struct lane *lane, int slot, int in_place, struct moe_err *e);
/* Append a part of n bytes, copied from data, or for the caller to fill when data is NULL. */
int message_add(struct message *m, const void *data, size_t n, void **filled, struct moe_err *e);

/* A socket with what both sides set: bounded queues and message size, no waiting to send.  NULL: e filled. */
struct socket_limits {
	int queue;               /* messages */
	size_t max_bytes;        /* of one frame */
	int linger_ms;
	bool v6;
	int beat_ms, silence_ms; /* ZeroMQ's heartbeats, which its I/O threads send and answer; a peer that is silent so long is gone.  0:
	                          * none */
	int connect_ms;          /* a connection attempt that takes longer begins anew; 0: the system's minutes */
};
void *message_socket(void *ctx, int type, const struct socket_limits *l, struct moe_err *e);

#endif
