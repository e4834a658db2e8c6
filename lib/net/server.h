/* The server's own fields, shared by what opens and runs it (server.c), what greets (welcome.c), answers (answer.c), tells how it is
 * (health.c) and keeps the sets of experts (holds.c). */
#ifndef MOE_NET_SERVER_H
#define MOE_NET_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "net/endpoint.h"
#include "net/holds.h"
#include "net/net.h"
#include "net/peers.h"
#include "net/queue.h"
#include "net/recent.h"
#include "net/server_lanes.h"
#include "net/server_news.h"
#include "net/server_watch.h"
#include "net/spin.h"

/* The process's memory, as seen every now and then. */
struct memory {
	uint64_t limit;          /* that there is */
	uint64_t used;
	bool pressed;            /* more is used than may be */
	/* Floods: what is only ours, not a file's nor shared. */
	uint64_t base, planned;  /* when it began to serve; what messages and scratch add to that at most, and something to spare */
	uint64_t last;
	int grew;                /* times in a row that it was too much, and more than before */
	int trim;                /* times that what is free is still to be given back */
};

struct moe_server {
	struct moe_server_config c;
	char *endpoint;          /* as clients should use it */
	char bound[ENDPOINT_HOST + 32]; /* as ZeroMQ says it */
	char *file;              /* of an ipc endpoint, while it is ours to remove */
	dev_t file_dev;
	ino_t file_ino;
	void *ctx, *socket;
	struct zap *zap;         /* decides who may connect; NULL: no keys */
	int stop;                /* an eventfd: may be written from a signal handler */
	uint64_t instance, started;
	struct memory memory;
	size_t max_request, max_reply;
	struct holds holds;
	struct peers peers;
	struct queue queue;
	struct recent queue_times, compute_times;
	struct lanes lanes;
	struct server_watch watch;
	struct server_news news;
	struct spin spin;
	uint64_t polled, ticked; /* moe_now_ns() when the sockets, and what goes by the clock, were looked at */
	uint64_t alive;          /* moe_now_ns() when it was last told that the loop goes round */
	bool draining;
	/* Copies of what came unaligned or narrow, and outputs before they are summed up or rounded. */
	float *x, *weight, *y;
	int32_t *expert, *row;
	uint8_t *met;
	uint8_t *want;           /* [n_layers * max_experts] of a TAKE */
	_Atomic uint64_t batches, rows, pairs, refused, bytes_in, bytes_out, shm_batches, shm_bytes_in, shm_bytes_out, clients, shed;
};

/* answer.c */
/* Deal with the message in a free place: answer a handshake, queue a request, or say what is wrong with it. */
void answer_received(struct moe_server *s, struct pending *p);
/* Compute a queued request and answer it. */
void answer_request(struct moe_server *s, struct pending *p);
/* Answer a queued request with an error, and give its place back. */
void answer_refuse(struct moe_server *s, struct pending *p, uint32_t flags, const struct moe_err *why);
/* Send and count.  Takes the message's parts over. */
void answer_send(struct moe_server *s, struct message *m, const struct peer *to);
/* Scratch for messages of max_rows. */
int answer_scratch(struct moe_server *s, struct moe_err *e);
void answer_scratch_free(struct moe_server *s);

/* socket.c */
int socket_open(struct moe_server *s, struct moe_err *e);
/* Close it and bind another to the same endpoint: all connections end, and the memory that they have is freed. */
int socket_reopen(struct moe_server *s, struct moe_err *e);
void socket_close(struct moe_server *s);

/* memory.c */
/* What is there now is what it takes to serve. */
void memory_start(struct moe_server *s);
/* Look: is there pressure, is it a flood? */
int memory_look(struct moe_server *s, uint64_t now, struct moe_err *e);
/* Under pressure: MOE_E_BUSY, with the numbers. */
int memory_refuse(const struct moe_server *s, const char *what, struct moe_err *e);

/* welcome.c */
int welcome_send(struct moe_server *s, const struct moe_hold *hold, const struct peer *to, struct moe_err *e);
/* Answer a HELLO: with the hold of the epoch that it names, and then with the newest, if that is another. */
int welcome_answer(struct moe_server *s, const struct wire_frame *frames, int n, const struct peer *from, struct moe_err *e);
/* Tell all clients of the newest hold, and of flags that have changed. */
void welcome_all(struct moe_server *s);

/* health.c */
/* All but `at`, `code` and `why`. */
void health_status(struct moe_server *s, struct moe_status *out);
int health_ping(struct moe_server *s, const struct wire_frame *frames, int n, const struct peer *from, struct moe_err *e);
int health_take(struct moe_server *s, const struct wire_frame *frames, int n, const struct peer *from, struct moe_err *e);

#endif
