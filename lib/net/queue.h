/* Queue: requests a server has received and not computed yet, bounded in number, bytes and per client. */
#ifndef MOE_NET_QUEUE_H
#define MOE_NET_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/message.h"
#include "net/wire.h"

#define QUEUE_LENGTH 64

/* A place is never moved: what `q` points at may lie inside the message's own struct. */
struct pending {
	bool used;
	struct peer from;
	struct message m;
	struct wire_request q;
	uint64_t received_ns, bytes, number;
};

struct queue {
	struct pending place[QUEUE_LENGTH + 1]; /* one more: there is always a place to receive into */
	int length;
	uint64_t bytes, max_bytes, last_number;
	int credits;             /* places one client may have */
};

struct pending *queue_free_place(struct queue *q);
/* Take what was received into a free place.  MOE_E_BUSY: the client is over its credits, or the queue is full. */
int queue_add(struct queue *q, struct pending *p, struct moe_err *e);
/* The highest priority, and of these the oldest; NULL: nothing waits. */
struct pending *queue_next(struct queue *q);
/* Give its place back. */
void queue_remove(struct queue *q, struct pending *p);

#endif
