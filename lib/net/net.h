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

/* ---- where servers are ---- */

struct moe_endpoints {
	char **v;                    /* ZeroMQ endpoints: "tcp://host:port", "ipc://path" */
	int n;
};
void moe_endpoints_free(struct moe_endpoints *p);
int moe_endpoints_add(struct moe_endpoints *p, const char *endpoint, struct moe_err *e); /* checked, copied */
/* A hosts file: lines "host slots=N [port=P]" (ranks on one host take consecutive ports from P, default 5555), or whole
 * endpoints; # starts a comment.  Appends. */
int moe_hosts_parse(const char *text, size_t len, const char *what, struct moe_endpoints *p, struct moe_err *e);
/* The same from a file, waiting up to timeout seconds for it to appear; the operator is told when that begins. */
int moe_hosts_read(const char *path, double timeout, struct moe_endpoints *p, struct moe_err *e);
/* ipc endpoint of a rank: ipc://RUNTIME/FINGERPRINT8-rank-N (caller frees). */
char *moe_default_endpoint(const char *fingerprint, int rank, struct moe_err *e);
/* The endpoint of the i-th of several servers that share one --bind: a tcp port of its own, port + i (0, any free one,
 * stays 0); an ipc path of its own, PATH-i (caller frees). */
char *moe_endpoint_nth(const char *bind, int i, struct moe_err *e);
/* May this endpoint be bound?  ipc in a private folder: yes; tcp, which anyone may connect to: only when insecure. */
int moe_endpoint_check_bind(const char *endpoint, bool insecure, struct moe_err *e);

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

struct moe_remote_config {
	const struct moe_endpoints *endpoints;
	const struct moe_model *model;
	struct moe_identity identity;
	bool mixed_numerics;         /* accept servers of another numerics id */
	bool presum;                 /* let a server add its own experts up: fewer bytes, last bits may differ */
	enum moe_wire_type wire;     /* of hidden states in both directions (doc/numerics.md) */
	double connect_timeout;      /* seconds for all servers to answer the handshake */
	double timeout;              /* seconds a batch may take when it has no deadline of its own */
	int max_rows;                /* most rows of a batch */
	enum moe_transport transport;
	int busy_poll;               /* microseconds; 0: sleep at once */
};
struct moe_remote_stats {
	uint64_t batches, messages, bytes_out, bytes_in;
	uint64_t shm_messages, shm_bytes_out, shm_bytes_in; /* of these, through shared memory */
	uint64_t wait_ns;            /* time spent waiting for answers */
};
/* Connect to all, shake hands, check that together they hold every expert (MOE_E_PEER names the first one missing, or the
 * server that does not fit: other model, epoch, numerics, wire version).  The result belongs to the calling thread.
 * All messages of a batch are sent by submit; one message per server, layer and batch. A server that dies or stays silent
 * fails the rows that need it, at the deadline or as soon as the transport knows; it is tried again for later batches. */
int moe_experts_remote(const struct moe_remote_config *c, struct moe_experts **out, struct moe_err *e);
struct moe_remote_stats moe_experts_remote_stats(const struct moe_experts *x);
/* For -v: "rank 0 ipc://... 16 experts, shared memory" per server. */
int moe_experts_remote_describe(const struct moe_experts *x, struct moe_buf *out, struct moe_err *e);

/* ---- server ---- */

struct moe_server_config {
	const char *bind;            /* endpoint; a tcp port of 0 takes a free one */
	const char *advertise;       /* host that others reach it by; NULL: as bound */
	int rank;
	const struct moe_model *model;
	struct moe_identity identity;
	const uint8_t *has;          /* [n_layers * max_experts] experts held */
	struct moe_experts *local;   /* moe_experts_local */
	int max_rows;                /* most rows a message may have */
	int credits;                 /* most messages one client may have outstanding */
	bool no_shm;                 /* offer no shared memory */
	int busy_poll;               /* microseconds; 0: sleep at once */
};
struct moe_server_stats {
	uint64_t batches, rows, pairs, refused, bytes_in, bytes_out;
	uint64_t shm_batches, shm_bytes_in, shm_bytes_out; /* of these, through shared memory */
};
struct moe_server;
/* Memory that a server takes at most for messages and scratch, besides moe_experts_local_bytes; with or without what it
 * shares with clients. */
size_t moe_server_bytes(const struct moe_model *m, int max_rows, bool no_shm);
/* bind: moe_endpoint_check_bind is the caller's.  The socket file of a dead server is replaced, a live one's is not
 * (MOE_E_BUSY).  model, has and local stay the caller's and outlive the server, which belongs to the thread that runs it. */
int moe_server_new(const struct moe_server_config *c, struct moe_server **out, struct moe_err *e);
const char *moe_server_endpoint(const struct moe_server *s); /* as clients should use it */
/* NULL: it offers shared memory; otherwise why it does not. */
const char *moe_server_no_shm(const struct moe_server *s);
/* Serve until moe_server_stop (from a signal handler or another thread): finish what was received, answer, return 0. */
int moe_server_run(struct moe_server *s, struct moe_err *e);
void moe_server_stop(struct moe_server *s);
struct moe_server_stats moe_server_stats(const struct moe_server *s); /* from any thread */
void moe_server_free(struct moe_server *s);

#endif
