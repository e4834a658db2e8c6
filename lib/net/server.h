/* The server's own fields, shared by what opens and runs it (server.c) and what answers (answer.c). */
#ifndef MOE_NET_SERVER_H
#define MOE_NET_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "net/net.h"
#include "net/queue.h"
#include "net/server_lanes.h"
#include "net/spin.h"

struct moe_server {
	struct moe_server_config c;
	char *endpoint;          /* as clients should use it */
	char *file;              /* of an ipc endpoint, while it is ours to remove */
	dev_t file_dev;
	ino_t file_ino;
	void *ctx, *socket;
	int stop;                /* an eventfd: may be written from a signal handler */
	uint64_t instance;
	uint32_t held;
	size_t max_request, max_reply;
	struct queue queue;
	struct lanes lanes;
	struct spin spin;
	uint64_t polled;         /* moe_now_ns() when the sockets were looked at */
	uint64_t alive;          /* moe_now_ns() when it was last told that the loop goes round */
	bool draining;
	/* Copies of what came unaligned or narrow, and outputs before they are summed up or rounded. */
	float *x, *weight, *y;
	int32_t *expert, *row;
	uint8_t *met;
	_Atomic uint64_t batches, rows, pairs, refused, bytes_in, bytes_out, shm_batches, shm_bytes_in, shm_bytes_out;
};

/* answer.c */
/* Deal with the message in a free place: answer a handshake, queue a request, or say what is wrong with it. */
void answer_received(struct moe_server *s, struct pending *p);
/* Compute a queued request and answer it. */
void answer_request(struct moe_server *s, struct pending *p);
/* Scratch for messages of max_rows. */
int answer_scratch(struct moe_server *s, struct moe_err *e);
void answer_scratch_free(struct moe_server *s);

#endif
