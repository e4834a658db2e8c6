/* Queue: requests a server has received and not computed yet, bounded in number, bytes and per client. */
#ifndef MOE_NET_QUEUE_H
#define MOE_NET_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/message.h"
#include "net/wire.h"

#define QUEUE_LENGTH 64
#define QUEUE_PLACES (QUEUE_LENGTH + 1) /* there is always a place to receive into */

/* A place is never moved: what `q` points at may lie inside the message's own struct. */
struct pending {
	bool used;
	struct peer from;
	struct message m;
	struct wire_request q;
	uint64_t received_ns, bytes, number;
	uint64_t round;          /* of the clients' turns in which it is computed */
};

struct queue {
	struct pending place[QUEUE_PLACES];
	int length;
	uint64_t bytes, max_bytes, last_number;
	uint64_t round;          /* that of the request that was computed last */
	double ns_per_pair;      /* as measured; 0: not yet */
	int credits;             /* places one client may have */
};

struct pending *queue_free_place(struct queue *q);
/* Could what was received be taken, now or when others give way?  Sets its turn.  MOE_E_BUSY: the client is over its credits, or what
 * waits fills the queue and matters more.  MOE_E_TIMEOUT: its time will be over before what is computed before it is done. */
int queue_check(struct queue *q, struct pending *p, struct moe_err *e);
/* Who must give way before what was checked fits; NULL: it fits. */
struct pending *queue_in_the_way(struct queue *q, const struct pending *p);
/* Take what was checked and fits. */
void queue_add(struct queue *q, struct pending *p);
/* The highest priority; of these, clients take turns, each with its oldest; NULL: nothing waits.  Its round is then under way. */
struct pending *queue_next(struct queue *q);
/* Give its place back. */
void queue_remove(struct queue *q, struct pending *p);
/* It took so long to compute so many pairs. */
void queue_measure(struct queue *q, uint64_t ns, uint32_t pairs);

#endif
