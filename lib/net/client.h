/* The client's own fields, shared by what opens it (client.c), what batches do (flight.c) and what comes in (intake.c). */
#ifndef MOE_NET_CLIENT_H
#define MOE_NET_CLIENT_H

#include "net/dispatch.h"
#include "net/link.h"
#include "net/net.h"
#include "net/spin.h"

#define FLIGHTS 4                /* most batches under way at a time */

enum part_state { PART_WAITING, PART_HERE, PART_LOST };

/* A part's answer: a message's frame, which may lie in a lane's slot. */
struct answer {
	zmq_msg_t m;
	struct lane *lane;       /* NULL: ZeroMQ's own memory */
	int slot;
};

/* A batch under way. */
struct flight {
	uint64_t ticket;         /* 0: free; also the id of its requests */
	struct moe_batch b;
	uint64_t deadline;       /* moe_now_ns(); 0: none */
	struct dispatch d;
	enum part_state *state;  /* [servers], by part */
	struct answer *answer;   /* [servers], by part; what d.parts[].y points into when PART_HERE */
	int waiting;             /* parts PART_WAITING */
	struct moe_err why;      /* the first thing that went wrong; code 0: nothing */
};

struct remote {
	struct moe_experts base;
	struct link_terms terms;
	bool presum;
	enum moe_wire_type wire;
	double timeout;
	void *ctx;
	struct link *links;      /* [n] */
	int n;
	zmq_pollitem_t *items;   /* [3 n]: monitor and socket of each link; then the lanes' sockets, of those that have one */
	struct spin spin;
	uint64_t polled;         /* moe_now_ns() when the sockets were looked at */
	int32_t *owner;          /* [n_layers * max_experts] the link to ask, -1: none */
	bool dirty;              /* owner is out of date */
	struct flight flights[FLIGHTS];
	uint64_t last_ticket;
	struct moe_remote_stats stats;
};

/* flight.c */
extern const struct moe_experts_ops remote_ops;
int flight_new(struct flight *f, const struct remote *r, struct moe_err *e);
void flight_free(struct flight *f);
/* The flight with this ticket, or NULL. */
struct flight *flight_find(struct remote *r, uint64_t ticket);
/* A part will not be answered; the first reason of a flight is kept. No effect unless the part is waiting. */
void flight_lose(struct remote *r, struct flight *f, int part, int code, const char *words);

/* intake.c */
/* Wait up to ms for anything to happen, and deal with all that did: answers, servers that came and went. */
void intake(struct remote *r, int ms);
/* Can this server be asked now? */
bool link_usable(const struct link *l);

/* client_lane.c */
/* A slot for a part of this link, held; -1: it goes over ZeroMQ. */
int link_lane_claim(struct link *l, const struct dispatch_part *p, int hidden);
/* Has an answer come in any lane (of the struct remote at arg)?  Does one lack?  Have all links a lane? */
bool lanes_ready(const void *arg);
bool lanes_wait(const struct remote *r);
bool lanes_everywhere(const struct remote *r);
/* Before sleep: false when something came meanwhile. */
bool lanes_park(struct remote *r);
void lanes_unpark(struct remote *r);

/* client.c */
void remote_close(struct moe_experts *x);

#endif
