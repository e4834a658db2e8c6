/* The client's own fields, shared by what opens it (client.c), what batches do (flight.c, plan.c, ask.c), what comes in (intake.c) and
 * what time brings (tend.c). */
#ifndef MOE_NET_CLIENT_H
#define MOE_NET_CLIENT_H

#include <pthread.h>

#include "net/choose.h"
#include "net/dispatch.h"
#include "net/link.h"
#include "net/net.h"
#include "net/spin.h"

#define FLIGHTS 4                /* most batches under way at a time */
#define LINKS_MOST 256           /* servers that a list that changes may come to have, at least */

enum ask_state {
	ASK_FREE,
	ASK_PLANNED,             /* not sent yet */
	ASK_WAITING,
	ASK_USED,                /* answered, and outputs of the batch lie in the answer */
};

/* One message to one server, for some of a batch's groups. */
struct ask {
	enum ask_state state;
	uint64_t id;
	int link;
	int pairs, rows;
	uint64_t epoch;          /* of the experts that are meant */
	uint64_t sent, late, hedge; /* moe_now_ns() when it was sent, when its server is suspect, when others are asked too */
	bool again, hedged;      /* others failed before; others are late */
	dispatch_set *groups;    /* [flight.words] */
	zmq_msg_t answer;        /* ASK_USED */
	struct lane *lane;       /* in whose slot the answer lies; NULL: in ZeroMQ's own memory */
	int slot;
};

/* How a group of dispatch gets its output. */
struct errand {
	int asks;                /* that carry it and are not answered */
	int attempts;            /* asks so far */
	bool lost;               /* nobody is left to ask */
	uint64_t stuck;          /* moe_now_ns() since when nobody can be asked; 0: somebody was */
	uint64_t again;          /* moe_now_ns() before which it is not asked: those who have it are busy */
	uint64_t *tried, *busy;  /* links asked for it; of these, those that said that they were busy */
};

/* A batch under way. */
struct flight {
	uint64_t ticket;         /* 0: free */
	int number;              /* which of the flights */
	struct moe_batch b;
	uint64_t deadline;       /* moe_now_ns(); 0: none */
	struct dispatch d;
	int words;               /* of a set of groups */
	struct errand *errands;  /* [experts], as dispatch.groups */
	uint64_t *marks;         /* where errands' sets lie */
	struct ask *asks;        /* [room] */
	int n_asks, room;        /* the places after n_asks are free */
	dispatch_set *sets;      /* where asks' sets lie */
	int open;                /* groups that have no output and are not lost */
	bool restless;           /* some of them are to be asked for */
	uint64_t again;          /* when one of them is to be asked for, that has to wait; 0: none */
	struct moe_err why;      /* the first thing that went wrong; code 0: nothing */
};

struct keeper {
	pthread_mutex_t lock;    /* held by whoever uses the rest of struct remote */
	pthread_mutex_t nap;
	pthread_cond_t wake;
	pthread_t thread;
	bool started, stop;
};

struct remote {
	struct moe_experts base;
	struct keeper keeper;
	struct link_terms terms; /* the epoch of the identity is the one in use */
	bool presum, degrade;
	enum moe_wire_type wire;
	double timeout, hedge;
	moe_ask_fn *on_ask;
	void *ctx_ask;
	struct moe_members *members; /* NULL: the list stays as it is */
	void *ctx;
	struct link *links;      /* [room]; one without a socket is free */
	int n, room;             /* the places after n are free */
	zmq_pollitem_t *items;   /* [3 room + 1]: monitor and socket of each link; then the lanes' sockets, of those that have one;
	                          * then the members */
	struct spin spin;
	uint64_t polled;         /* moe_now_ns() when the sockets were looked at */
	struct holders holders;
	const struct holdings **holds; /* [room] to work in */
	bool dirty;              /* holders is out of date */
	bool mixed;              /* some hold another epoch than that in use */
	int32_t *current;        /* [room] to work in: those of the holders of an expert that have it in the epoch in use */
	struct choose_server *choice; /* [room] to work in */
	int *planned;            /* [room] to work in: the ask for this link that is being planned, -1 */
	uint8_t *has;            /* [n_layers * max_experts] to work in */
	struct dispatch_lists lists; /* to work in */
	dispatch_set *taken;     /* to work in */
	struct flight flights[FLIGHTS];
	uint64_t last_ticket, last_id, random;
	uint64_t due;            /* moe_now_ns() when something is to be looked at */
	bool running;            /* it has started */
	bool call_spares;        /* experts are missing */
	struct told told;
	struct moe_remote_stats stats;
};

/* flight.c */
extern const struct moe_experts_ops remote_ops;
int flight_new(struct flight *f, const struct remote *r, int number, struct moe_err *e);
void flight_free(struct remote *r, struct flight *f);
/* The time that is left; WIRE_FOREVER: no deadline. */
uint64_t flight_remaining(const struct flight *f);

/* plan.c */
/* Choose whom to ask, at first.  MOE_E_BUSY: servers have no credits left, and nothing is planned. */
int flight_plan(struct remote *r, struct flight *f, struct moe_err *e);
/* And again: for what was lost, and what has waited long enough. */
void flight_plan_again(struct remote *r, struct flight *f);
/* Ask others for what this ask is to bring, where there are others who are not late themselves; how many were asked. */
int flight_double(struct remote *r, struct flight *f, const struct ask *a);
/* This server is another than the one that was asked, or holds something else: it may be asked for what waits. */
void flights_newcomer(struct remote *r, int link);

/* ask.c */
/* Ask for every group that nobody has been asked for, or whose servers were lost, of the best server that is left; those for which
 * there is none are lost, or wait.  Until nothing is to be asked at once. */
void flight_ask(struct remote *r, struct flight *f);
/* The waiting ask of this id to this link; NULL: too late, or never asked. */
struct ask *ask_find(struct remote *r, int link, uint64_t id, struct flight **f);
/* It will not be answered, or was with an error: what it was to bring is asked of others.  No effect unless it is waiting. */
void ask_lose(struct remote *r, struct flight *f, struct ask *a, bool refused, int code, const char *words);
/* Its answer has come, in m: outputs that are not there yet are taken, and stay where they are. */
void ask_answered(struct remote *r, struct flight *f, struct ask *a, struct message *m, const struct wire_reply *got);
/* Give its place back; the answer, if it waits for one, is nobody's. */
void ask_drop(struct remote *r, const struct flight *f, struct ask *a);
/* At the deadline: what is not there is lost. */
void flight_give_up(struct remote *r, struct flight *f);

/* intake.c */
/* Wait up to ms for anything to happen, and deal with all that did: answers, servers that came and went. */
void intake(struct remote *r, int ms);
/* Can this server be asked now? */
bool link_usable(const struct link *l);
/* Who holds what, anew, after a change. */
void find_holders(struct remote *r);

/* Give up what this link was asked, and its connection's state. */
void lose_link(struct remote *r, int i, const char *why);

/* tend.c */
/* Do what is due. */
void tend(struct remote *r);
/* An ask is about to be sent: when is it late? */
void tend_sent(struct remote *r, struct ask *a);
/* A server failed: its connection ended, it was late at a deadline, it answered nonsense. */
void tend_fail(struct remote *r, int link, const char *reason);

/* epoch.c */
bool fleet_covers(struct remote *r, const uint64_t *epoch, size_t *missing);
bool fleet_has(struct remote *r, size_t expert, const uint64_t *epoch);
void epoch_choose(struct remote *r);

/* spare.c */
/* Could an expert that nobody can be asked for come from one that stands by? */
bool spares_may_come(const struct remote *r);
/* Tell one to load what is missing, if something is. */
void spares_call(struct remote *r, uint64_t now);
void spare_refused(struct remote *r, int link);
/* Can somebody be asked for it now? */
bool expert_usable(const struct remote *r, size_t expert);

/* fleet.c */
int fleet_open(struct remote *r, const struct moe_endpoints *to, struct moe_err *e);
/* The list of members has changed. */
void fleet_update(struct remote *r);
/* Close those that are listed no more, and of which nothing is wanted. */
void fleet_sweep(struct remote *r);
/* Wait until every expert has a server, and a little for the others. */
int fleet_await(struct remote *r, double timeout, struct moe_err *e);

/* keeper.c */
int keeper_new(struct keeper *k, struct moe_err *e);
int keeper_start(struct remote *r, struct moe_err *e);
void keeper_end(struct keeper *k);

/* client_lane.c */
/* A slot for a message of so many rows and pairs to this link, held; -1: it goes over ZeroMQ. */
int link_lane_claim(struct link *l, int rows, int pairs, int hidden);
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
