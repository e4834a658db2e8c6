/* Holds: what a server answers with, a set of experts for each epoch, and the box where other threads put offers. */
#ifndef MOE_NET_HOLDS_H
#define MOE_NET_HOLDS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "net/net.h"

struct moe_server;
struct holds {
	struct moe_hold v[2];    /* [n]: in use; and offered in another epoch, the newest */
	int n;
	uint64_t deadline;       /* of the offer, moe_now_ns() */
	int bell;                /* an eventfd: there is something in the box */
	pthread_mutex_t lock;    /* of what follows */
	bool busy;               /* an offer is in the box, or not settled */
	bool offered, withdrawn, loading;
	struct moe_hold offer;
	uint64_t withdraw;       /* its epoch */
	char trouble[256];
};

int holds_open(struct moe_server *s, struct moe_err *e);
/* Release all. */
void holds_close(struct moe_server *s);
/* The hold of an epoch, or NULL; and that of the newest. */
const struct moe_hold *holds_of(const struct moe_server *s, uint64_t epoch);
const struct moe_hold *holds_newest(const struct moe_server *s);
/* Take what is in the box. */
void holds_attend(struct moe_server *s);
/* Settle an offer that all clients use, or whose time is over. */
void holds_settle(struct moe_server *s, uint64_t now);

#endif
