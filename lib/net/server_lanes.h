/* The server's shared memory: one lane a client, a few of them. */
#ifndef MOE_NET_SERVER_LANES_H
#define MOE_NET_SERVER_LANES_H

#include <zmq.h>

#include "net/lane.h"
#include "net/peers.h"

#define LANES 8                  /* clients that may share memory at a time; others use ZeroMQ */
#define LANES_ITEMS (LANES + 1)

struct moe_server;
struct lanes {
	struct lane_door door;
	struct lane *v[LANES];   /* NULL: free */
	struct bucket bucket[LANES];
	uint64_t asked[LANES];   /* moe_now_ns() of the last request, or of the client's coming */
	uint64_t last_number;
	struct moe_err none;     /* why there is no shared memory; code 0: there is */
};

/* Bytes of memory that all lanes take at most, whatever their clients ask for. */
size_t lanes_bytes(const struct moe_model *m, int max_rows);
/* Offer shared memory beside an ipc endpoint's path (NULL: of tcp), if the server's configuration and the folder allow it;
 * otherwise lanes.none says why not. */
void lanes_open(struct moe_server *s, const char *ipc_path);
void lanes_close(struct moe_server *s);

/* What to wait for, in items[LANES_ITEMS]; how many.  And after it. */
int lanes_list(const struct moe_server *s, zmq_pollitem_t *items);
void lanes_attend(struct moe_server *s, const zmq_pollitem_t *items);
/* Take all requests that are there. */
void lanes_receive(struct moe_server *s);

/* Bytes that they have now. */
size_t lanes_mapped(const struct moe_server *s);
/* How many messages its client may still send. */
struct bucket *lanes_bucket(struct moe_server *s, const struct lane *lane);
/* Give up those that nobody has asked in for a while, and whose memory is freed by that; how many.  Their clients use ZeroMQ. */
int lanes_give_up_idle(struct moe_server *s, uint64_t now);

/* Is there a request in any lane (of the struct moe_server at arg)?  And around sleep: false when one came meanwhile. */
bool server_lanes_ready(const void *arg);
bool server_lanes_park(struct moe_server *s);
void server_lanes_unpark(struct moe_server *s);

#endif
