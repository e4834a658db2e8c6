/* Net: experts on other processes and machines (moe-wire(7)).
 *
 * A server holds the experts of one device and answers batches of (row, expert) pairs; the client is a struct
 * moe_experts, so the decoder cannot tell.  Encoding and decoding are pure functions over bytes, testable without
 * sockets; nothing read from a frame is used before its bounds are checked. */
#ifndef MOE_NET_H
#define MOE_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "checkpoint/checkpoint.h"
#include "compute/compute.h"
#include "watch/watch.h"

/* ---- keys: CURVE, RFC 26 of ZeroMQ ---- */

#define MOE_KEY_TEXT 65          /* a key's 32 bytes in hexadecimal, terminated */

/* A process's own key pair and the keys it trusts.  Shared by all its sockets, and read again while they are in use. */
struct moe_keys;
struct moe_keys_config {
	const char *own;             /* file with the secret key (moe_keys_generate), readable by nobody else; needed */
	const char *authorized;      /* server: file with the public keys of those who may connect, "KEY [words]" a line, # comments */
	const char *server;          /* client: file with the public key, or keys, of servers for which the hosts file has no key= */
};
/* Reads the files.  MOE_E_INPUT names file and line; a secret file that others may read is refused.  Caller: moe_keys_free, after the
 * sockets that use it. */
int moe_keys_new(const struct moe_keys_config *c, struct moe_keys **out, struct moe_err *e);
/* Read the lists again, from any thread: who is no longer on it is cut off, and cannot come back; others notice nothing.  A client uses its
 * list for connections to come.  On failure all stays as it was. */
int moe_keys_reload(struct moe_keys *k, struct moe_err *e);
/* The same by the thread of a server that uses them, at once, for signal handlers too; what came of it is told to the operator. */
void moe_keys_look(struct moe_keys *k);
void moe_keys_free(struct moe_keys *k);
const char *moe_keys_public(const struct moe_keys *k); /* its own, for others: 64 hexadecimal digits */
/* Write a new pair: PATH (mode 0600) and PATH.pub, whose line fits into a list.  Neither may be there.  words: a comment, or NULL. */
int moe_keys_generate(const char *path, const char *words, struct moe_err *e);

/* ---- where servers are ---- */

struct moe_endpoint {
	char *at;                    /* ZeroMQ endpoint: "tcp://host:port", "ipc://path" */
	char key[MOE_KEY_TEXT];      /* the server's public key, as the hosts file says it (key=); "": not said */
};
struct moe_endpoints {
	struct moe_endpoint *v;
	int n;
};
void moe_endpoints_free(struct moe_endpoints *p);
int moe_endpoints_add(struct moe_endpoints *p, const char *endpoint, struct moe_err *e); /* checked, copied */
/* A hosts file: lines "host slots=N [port=P] [key=HEX]" (ranks on one host take consecutive ports from P, default 5555), or whole
 * endpoints, "tcp://host:port [key=HEX]"; # starts a comment.  Appends. */
int moe_hosts_parse(const char *text, size_t len, const char *what, struct moe_endpoints *p, struct moe_err *e);
/* The same from a file, waiting up to timeout seconds for it to appear; the operator is told when that begins. */
int moe_hosts_read(const char *path, double timeout, struct moe_endpoints *p, struct moe_err *e);
/* ipc endpoint of a rank: ipc://RUNTIME/FINGERPRINT8-rank-N, or below 0 of a server that stands by: ...-spare (caller frees). */
char *moe_default_endpoint(const char *fingerprint, int rank, struct moe_err *e);
/* The endpoint of the i-th of several servers that share one --bind: a tcp port of its own, port + i (0, any free one,
 * stays 0); an ipc path of its own, PATH-i (caller frees). */
char *moe_endpoint_nth(const char *bind, int i, struct moe_err *e);
/* May this endpoint be bound?  ipc in a private folder: yes; tcp, which anyone may connect to: only when insecure, which it need not be
 * said to be where there are keys. */
int moe_endpoint_check_bind(const char *endpoint, bool insecure, struct moe_err *e);

/* ---- who belongs to the fleet, as long as it lives ---- */

/* A list of servers that is looked at again and again, by a thread of its own: a hosts file that is replaced or edited, names with
 * several addresses ("dns://name:port", each address a server, as Kubernetes' headless services have them).  A list that cannot be
 * read, or a name that is not found for a while, changes nothing: who was a member stays one, and the operator is told once.  An address
 * that a name loses stays a member for another 30 seconds.  Who is listed twice is one member; the order is that of connect, then of
 * the file. */
struct moe_members;
struct moe_members_config {
	const char *hosts;           /* hosts file, or NULL */
	const char *const *connect;  /* endpoints and dns:// names */
	int n_connect;
	double timeout;              /* seconds for the file to appear and for names to be found at first */
	double every;                /* seconds between looks; 0: 1 for the file, 5 for names */
};
/* Has this the form of an endpoint, or of a dns:// name?  MOE_E_INPUT, MOE_E_RANGE: no. */
int moe_members_check(const char *connect, struct moe_err *e);
/* Waits until the file and every name were found once, then looks by itself. */
int moe_members_new(const struct moe_members_config *c, struct moe_members **out, struct moe_err *e);
int moe_members_fd(const struct moe_members *m); /* readable when the list has changed since moe_members_get */
int moe_members_get(struct moe_members *m, struct moe_endpoints *out, struct moe_err *e); /* as it is now; caller frees */
void moe_members_look(struct moe_members *m);    /* now; from any thread and from signal handlers */
void moe_members_free(struct moe_members *m);

/* ---- what both sides must agree on ---- */

struct moe_identity {
	char fingerprint[33];
	uint64_t epoch;
	uint64_t numerics;           /* moe_numerics_id */
	char numerics_text[MOE_NUMERICS_TEXT];
};

/* ---- client ---- */

/* How batches travel.  Shared memory: of a server on this host, of the same user, bound to an ipc endpoint in a private
 * folder.  ZeroMQ stays beside it for handshakes, losses and what does not fit. */
enum moe_transport {
	MOE_TRANSPORT_AUTO,          /* shared memory where it can be had */
	MOE_TRANSPORT_ZMQ,
	MOE_TRANSPORT_SHM,           /* servers that do not offer it are refused */
};
/* "auto", "zmq", "shm"; -1: none of them. */
int moe_transport_parse(const char *name);
/* Microseconds to look for an answer or a request in shared memory before sleeping, when nobody says otherwise. */
#define MOE_BUSY_POLL 20

/* What became of one message to a server, for who draws a request's time. */
enum moe_ask_outcome {
	MOE_ASK_ANSWERED,
	MOE_ASK_LATE,                /* another server's answer to the same pairs was there first, or nobody waits any more */
	MOE_ASK_REFUSED,             /* an ERROR came */
	MOE_ASK_LOST,                /* the server is gone, or was given up */
};
const char *moe_ask_outcome_name(enum moe_ask_outcome o); /* "answered" ... */
struct moe_ask {
	uint64_t trace, batch;       /* moe_batch.trace; the batch's ticket */
	int rank, layer, rows, pairs;
	bool again, hedge;           /* others were asked for these pairs before, who failed; who are late */
	uint64_t sent_ns, answered_ns; /* moe_now_ns(), here */
	uint64_t queue_ns, compute_ns; /* as the answer says, by the server's clock; 0 where there is none */
	enum moe_ask_outcome outcome;
};
/* Called once for each message, when its outcome is known, by the thread that submits and waits; a must not be kept. */
typedef void moe_ask_fn(void *ctx, const struct moe_ask *a);

struct moe_remote_config {
	const struct moe_endpoints *endpoints; /* a list that stays as it is; or */
	struct moe_members *members;           /* one that changes; the caller's, outlives the experts */
	const struct moe_keys *keys;           /* NULL: no CURVE */
	const struct moe_model *model;
	struct moe_identity identity; /* the epoch is where the client begins, if the servers have it */
	bool mixed_numerics;         /* accept servers of another numerics id */
	bool presum;                 /* let a server add its own experts up: fewer bytes, last bits may differ */
	bool degrade;                /* rows whose experts nobody can compute: without them, the others weigh more; told in moe_batch.degraded */
	double hedge;                /* 0 to 1: a server that is slower than this share of its answers is asked again elsewhere; 0: only
	                              * one that is suspected to be dead */
	enum moe_wire_type wire;     /* of hidden states in both directions (doc/numerics.md) */
	double connect_timeout;      /* seconds until every expert must have a server */
	double timeout;              /* seconds a batch may take when it has no deadline of its own */
	int max_rows;                /* most rows of a batch */
	enum moe_transport transport;
	int busy_poll;               /* microseconds; 0: sleep at once */
	struct moe_watch *watch;     /* where it counts (moe_expert_*), or NULL */
	moe_ask_fn *on_ask;          /* or NULL */
	void *ctx_ask;
};
struct moe_remote_stats {
	uint64_t batches, messages, bytes_out, bytes_in;
	uint64_t shm_messages, shm_bytes_out, shm_bytes_in; /* of these, through shared memory */
	uint64_t wait_ns;            /* time spent waiting for answers */
	uint64_t retried, hedged;    /* messages sent again because the first was lost, or late */
	uint64_t degraded;           /* rows */
	uint64_t epoch;              /* in use */
};
/* Connect, shake hands, and wait until together they hold every expert (MOE_E_PEER names the first one missing, or the server that does
 * not fit: other model, numerics, wire version).  All that are listed are waited for a little; who comes later, or comes back, is used
 * from then on.  The result belongs to the calling thread.
 *
 * submit sends all messages of a batch, one for each server, layer and batch, to the servers with the least to do among those that hold
 * an expert.  What a server that dies, falls silent, refuses or is cut off was asked goes to others that hold the same experts; the bits
 * are the same whoever answers.  Rows fail when nobody is left to ask, at once, or at the deadline; where a server stands by
 * (WIRE_SPARE) it is told to load what is missing, and asked when it has.
 *
 * A server is joining (not greeted yet), ready, suspect (late by its own measure: its work is asked of others too, and new work goes to
 * others), open (it failed several times: left alone for a while, then tried with a PING; the while doubles, and is random within bounds,
 * so that many clients do not come at once), draining (it said that it will stop), or gone (no longer listed). */
int moe_experts_remote(const struct moe_remote_config *c, struct moe_experts **out, struct moe_err *e);
struct moe_remote_stats moe_experts_remote_stats(const struct moe_experts *x);
/* Has every expert a server that can be asked now?  From any thread, without waiting: 1, 0, or -1 when it cannot be told at this moment. */
int moe_experts_remote_covers(const struct moe_experts *x);
/* For -v: "rank 0 ipc://... 16 experts, shared memory" per server. */
int moe_experts_remote_describe(const struct moe_experts *x, struct moe_buf *out, struct moe_err *e);

/* Who can be asked now. */
struct moe_remote_fleet {
	int servers, ready;          /* listed; of these greeted */
	int experts;                 /* of all layers */
	int copies;                  /* servers that hold the expert which the fewest hold */
};
struct moe_remote_fleet moe_experts_remote_fleet(struct moe_experts *x);

enum moe_peer_state { MOE_PEER_JOINING, MOE_PEER_READY, MOE_PEER_SUSPECT, MOE_PEER_OPEN, MOE_PEER_DRAINING, MOE_PEER_GONE };
const char *moe_peer_state_name(enum moe_peer_state s); /* "joining" ... */

/* ---- what a server says of itself (moe-serve status, metrics) ---- */

struct moe_status {
	int rank;
	char *at;                    /* its endpoint; caller's, of the list that was asked */
	int code;                    /* 0, or why nothing is known: MOE_E_TIMEOUT no answer, MOE_E_PEER refused ... */
	char why[256];
	struct moe_identity identity; /* the epoch: the newest that it offers */
	uint64_t old_epoch;          /* that it still answers for; 0: none */
	bool draining, spare, loading;
	uint32_t pid, clients, queue, held;
	uint64_t instance, uptime_ns;
	uint64_t batches, rows, pairs, refused, bytes_in, bytes_out;
	uint64_t memory, memory_limit; /* bytes, of the process */
	uint64_t queue_p50_ns, queue_p99_ns, compute_p50_ns, compute_p99_ns; /* of the last requests */
	char trouble[256];           /* the last thing that went wrong, such as a reload that was taken back; "" */
};
/* Ask all, side by side, for at most timeout seconds; out[to->n].  Fails only where nothing can be asked at all. */
int moe_status_ask(const struct moe_endpoints *to, const struct moe_keys *keys, double timeout, struct moe_status *out, struct moe_err *e);

/* ---- server ---- */

/* What a server holds: the experts of one epoch.  Put there by moe_server_offer; has and experts stay valid until release is called, once,
 * by the server's thread, or by moe_server_free. */
struct moe_hold {
	uint64_t epoch;
	const uint8_t *has;          /* [n_layers * max_experts] experts held */
	struct moe_experts *experts; /* moe_experts_local */
	void (*release)(void *ctx);  /* NULL: nothing to do */
	void *ctx;
};
/* What became of an offer, told by the server's thread. */
enum moe_hold_event {
	MOE_HOLD_TAKEN,              /* all clients use it, and the one before is released */
	MOE_HOLD_WITHDRAWN,          /* they did not in time, or moe_server_withdraw was called: the one before goes on */
};
struct moe_server_config {
	const char *bind;            /* endpoint; a tcp port of 0 takes a free one */
	const char *advertise;       /* host that others reach it by; NULL: as bound */
	const struct moe_keys *keys; /* CURVE: only those on its list get in; NULL: everybody that can connect */
	int rank;
	const struct moe_model *model;
	struct moe_identity identity; /* the epoch is the first hold's */
	struct moe_hold hold;        /* the first */
	int max_rows;                /* most rows a message may have */
	int credits;                 /* most messages one client may have outstanding */
	double rate;                 /* most messages a second of one client, on average over a second; 0: any */
	bool no_shm;                 /* offer no shared memory */
	int busy_poll;               /* microseconds; 0: sleep at once */
	double offer_timeout;        /* seconds that clients have to use an offer */
	double memory_pressure;      /* share of the memory that there is (cgroup or host) above which nobody new is let in and nothing new
	                              * is taken; mapped files do not count; 0: 0.85 */
	/* It stands by: load these experts too, [n_layers * max_experts], and offer them in the same epoch.  Called by the server's
	 * thread, must not wait; NULL: it does not stand by.  An error is told to who asked. */
	int (*take)(void *ctx, const uint8_t *want, struct moe_err *e);
	void (*event)(void *ctx, uint64_t epoch, enum moe_hold_event what, const char *words); /* may be NULL */
	/* For a watchdog: called by the server's thread about every alive_every seconds while its loop goes round; NULL: never. */
	void (*alive)(void *ctx);
	double alive_every;
	void *ctx;
	struct moe_watch *watch;     /* where it counts, or NULL */
};
struct moe_server_stats {
	uint64_t batches, rows, pairs, refused, bytes_in, bytes_out;
	uint64_t shm_batches, shm_bytes_in, shm_bytes_out; /* of these, through shared memory */
	uint64_t clients, shed;      /* now; requests that gave way to others, or could not be done in time */
};
struct moe_server;
/* Memory that a server takes at most for messages and scratch, besides moe_experts_local_bytes; with or without what it
 * shares with clients. */
size_t moe_server_bytes(const struct moe_model *m, int max_rows, bool no_shm);
/* bind: moe_endpoint_check_bind is the caller's.  The socket file of a dead server is replaced, a live one's is not
 * (MOE_E_BUSY).  model stays the caller's and outlives the server, which belongs to the thread that runs it. */
int moe_server_new(const struct moe_server_config *c, struct moe_server **out, struct moe_err *e);
const char *moe_server_endpoint(const struct moe_server *s); /* as clients should use it */
/* NULL: it offers shared memory; otherwise why it does not. */
const char *moe_server_no_shm(const struct moe_server *s);
/* Hold this too, from any thread; taken over on success.  Another epoch: clients are told, and use it when together their servers hold
 * all of it; when every client does, the one before is released.  The epoch in use, with more experts or others of no difference:
 * it takes its place at once.  MOE_E_BUSY: an offer is under way. */
int moe_server_offer(struct moe_server *s, const struct moe_hold *h, struct moe_err *e);
/* Take an offer back, if not all clients use it yet; from any thread. */
void moe_server_withdraw(struct moe_server *s, uint64_t epoch);
/* Say in moe_status what went wrong, or is under way; from any thread. */
void moe_server_say(struct moe_server *s, bool loading, const char *trouble);
/* Serve until moe_server_stop (from a signal handler or another thread): tell the clients, finish what was received, answer, return 0. */
int moe_server_run(struct moe_server *s, struct moe_err *e);
void moe_server_stop(struct moe_server *s);
struct moe_server_stats moe_server_stats(const struct moe_server *s); /* from any thread */
void moe_server_free(struct moe_server *s);

#endif
