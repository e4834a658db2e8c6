/* Link: the client's end of the connection to one server. */
#ifndef MOE_NET_LINK_H
#define MOE_NET_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "net/holding.h"
#include "net/lane.h"
#include "net/message.h"
#include "net/news.h"
#include "net/pulse.h"
#include "net/told.h"
#include "net/wire.h"

enum link_state {
	LINK_DOWN,               /* not connected, or connected and not greeted */
	LINK_GREETED,            /* HELLO sent */
	LINK_READY,
	LINK_REFUSED,            /* answered, and does not fit; asked again when it reconnects */
};

struct link {
	char *endpoint;
	int rank;                /* as the server says; before that, its place in the list */
	void *socket, *monitor;
	bool connected;          /* as the monitor said last */
	bool seal;               /* our messages have seals, and the server answers with sealed ones */
	enum link_state state;
	struct wire_hello welcome;
	struct holdings holds;   /* by its WELCOMEs; kept when it is lost, to tell what is missing */
	int unanswered;          /* requests sent and not answered, those given up included */
	int wanted;              /* of these, not given up */
	int pairs;               /* that the wanted ones ask for */
	double pair_ns;          /* how long it takes for one, on average of late */
	struct moe_err why;      /* why it is not ready */
	struct pulse pulse;
	uint64_t greeted, pinged; /* moe_now_ns() when HELLO, and when the last PING, was sent */
	bool hello;              /* ours is not answered yet */
	uint64_t lost;           /* when it was last ready no more; 0: it never was */
	uint64_t greet_again;    /* it had no room for us: HELLO not before; of this connection only */
	uint64_t asked_since;    /* of the first PING after which nothing has come; 0: something has */
	uint64_t told_epoch;     /* by the last PING */
	bool draining, spare;    /* as it says */
	bool gone;               /* no longer listed: closed when nothing is wanted of it any more */
	uint64_t taking;         /* when it was told to load what is missing; 0: it was not */
	uint64_t take_again;     /* not before */
	struct told_link told;
	struct news news;
	struct lane *lane;       /* shared memory, asked for or open; NULL: none */
	struct moe_err no_lane;  /* why there is none; code 0: nobody asked */
	/* link_keys.c */
	const struct moe_keys *keys; /* ours; NULL: none */
	char key[MOE_KEY_TEXT];  /* the server's; "": not said, one of those in keys */
	int failures;            /* handshakes since the last one that succeeded */
	struct moe_err shut_out; /* why the last one failed; code 0: it did not */
	bool no_use;             /* it would fail again */
	uint64_t leave_until;    /* when a server that refused us is asked again; 0: when ZeroMQ connects */
	int doublings;
};

/* What both ends must agree on; the client's side of it. */
struct link_terms {
	const struct moe_model *model;
	struct moe_identity identity;
	bool mixed_numerics;
	int max_rows;
	size_t max_request, max_reply; /* bytes of a frame */
	enum moe_transport transport;
	const struct moe_keys *keys; /* NULL: none */
};

/* Starts connecting; returns at once. */
int link_open(struct link *l, void *ctx, const struct moe_endpoint *to, int place, const struct link_terms *t, struct moe_err *e);
void link_close(struct link *l);

/* Hear the monitor: l->connected, and whether a connection has ended since the last call. */
bool link_ended(struct link *l);
/* Nothing that was sent will be answered any more, and its shared memory is given up. */
void link_lost(struct link *l, const char *why);
/* Send by its slot or on its socket, there with a seal if it is to have one.  Takes the message over.  False: not connected. */
bool link_send(struct link *l, struct message *m);
/* Send HELLO on a connection that is up; the link is then LINK_GREETED, or as before if its queue is full. */
void link_greet(struct link *l, const struct link_terms *t);
/* A WELCOME, of a link that is LINK_GREETED or LINK_READY (then what it holds has changed): LINK_READY, or LINK_REFUSED with
 * l->why.  has: [n_layers * max_experts] to work in. */
void link_welcome(struct link *l, const struct wire_frame *f, int n, const struct link_terms *t, uint8_t *has);

/* Ask how it is, and say which epoch is in use. */
void link_ping(struct link *l, uint64_t epoch, uint64_t now);
/* What PING and TAKE have as ids, which no request has. */
#define PING_ID ((uint64_t)1 << 63)
#define TAKE_ID (PING_ID | (uint64_t)1 << 62)
/* As others are told. */
enum moe_peer_state link_peer_state(const struct link *l);
/* It computed so many pairs in this time. */
void link_learn(struct link *l, uint64_t ns, int pairs);

/* link_keys.c */
/* Before it connects: give the socket the keys.  MOE_E_INPUT: we lack ours, or its. */
int link_dress(struct link *l, struct moe_err *e);
/* The monitor tells of a handshake: ZMQ_EVENT_HANDSHAKE_..., and its value. */
void link_shake_hands(struct link *l, int event, uint32_t value);
/* After a connection has ended, and link_lost: one whose handshake is of no use is LINK_REFUSED for a while, or tried with another
 * key. */
void link_shut_out(struct link *l);
/* With keys: a server that refused us is asked again after a while, in which our key may have got onto its list. */
void link_leave(struct link *l);
/* The while is over?  Then connect. */
void link_try_again(struct link *l);

/* client_lane.c */
/* After a WELCOME that fits: ask for shared memory, if the terms want it. */
void link_lane_ask(struct link *l, const struct link_terms *t);
/* Its socket has something to say, or it is time to look.  False: the server has ended it. */
bool link_lane_attend(struct link *l, const struct link_terms *t);

/* Put "rank 1 at ENDPOINT: " in front of the words. */
int link_fail(const struct link *l, struct moe_err *e, int code, const char *words);

/* Do we and a server that says this fit together?  Pure. */
int link_check_terms(const struct wire_hello *w, const struct link_terms *t, struct moe_err *e);

#endif
