/* The parts of pooled experts: which expert is in which slot, who fetches, a batch. */
#ifndef MOE_POOL_POOLED_H
#define MOE_POOL_POOLED_H

#include <pthread.h>

#include "pool/private.h"

/* ---- which expert is in which slot ---- */

/* Experts are numbered through all layers. */
struct moe_pool_cache {
	enum moe_evict evict;
	int slots, experts;
	int *expert;                 /* [slots]; -1: empty */
	bool *held;                  /* [slots]: the batch at hand needs it */
	int *slot;                   /* [experts]; -1: not there */
	uint32_t *uses;              /* [experts], halved now and then */
	uint64_t *last;              /* [experts]: when it was used last */
	uint64_t now;                /* uses so far */
	uint64_t halve;              /* when uses are halved next */
	uint64_t evictions;
};
int moe_pool_cache_open(struct moe_pool_cache *c, int slots, int experts, enum moe_evict evict, struct moe_err *e);
void moe_pool_cache_close(struct moe_pool_cache *c);
/* It is needed; its slot, held from now on, or -1. */
int moe_pool_cache_use(struct moe_pool_cache *c, int expert);
/* A slot for this expert, held from now on: an empty one, or that of who goes.  -1: all are held. */
int moe_pool_cache_put(struct moe_pool_cache *c, int expert);
void moe_pool_cache_let(struct moe_pool_cache *c, int expert);   /* no longer held */
void moe_pool_cache_drop(struct moe_pool_cache *c, int expert);  /* no longer there, if it is */

/* ---- who fetches ---- */

/* A thread with a stream of its own, since a copy from memory that is not pinned may make its caller wait. */
struct moe_pool_fetch {
	const struct moe_expert_weights *from;
	unsigned char *to;
	struct moe_mark *after;      /* not before this mark of another stream has been passed; NULL: at once */
	struct moe_mark *done;       /* recorded behind it */
};
struct moe_pool_fetcher {
	struct moe_backend *device;
	struct moe_stream_q *q;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t more, moved;  /* there is more to do; something has been put on the stream */
	struct moe_pool_fetch *jobs; /* [room] of the batch at hand, in their order */
	int n, put;                  /* asked for, put on the stream (or given up) */
	bool stop;
	int rc;                      /* of the first job that failed; those behind it are given up */
	struct moe_err err;
};
/* f is all zeros.  room: most jobs of a batch. */
int moe_pool_fetcher_open(struct moe_pool_fetcher *f, struct moe_backend *device, int room, struct moe_err *e);
void moe_pool_fetcher_close(struct moe_pool_fetcher *f);
void moe_pool_fetcher_add(struct moe_pool_fetcher *f, const struct moe_pool_fetch *job);
/* Wait until the first n jobs have been put on the stream. */
int moe_pool_fetcher_wait(struct moe_pool_fetcher *f, int n, struct moe_err *e);
/* Wait until all jobs have ended, and begin anew. */
int moe_pool_fetcher_end(struct moe_pool_fetcher *f, struct moe_err *e);

/* ---- pooled experts ---- */

struct moe_pooled {
	struct moe_experts base;     /* first: a moe_experts is a moe_pooled */
	struct moe_backend *device;
	const struct moe_tensors *tensors;
	struct moe_model model;      /* a copy of the caller's struct; the layers stay the caller's */
	int max_experts, max_rows, max_k;
	struct moe_expert_weights *w; /* [n_layers, max_experts], in the host's memory */
	size_t slot_bytes;
	struct moe_pool_cache cache;
	struct moe_pool_fetcher fetcher;
	struct moe_stream_q *q;      /* computes */
	struct moe_mark **fetched, **computed; /* [max_experts] each: of the batch's experts in their order */
	unsigned char *slots;        /* of the device: [cache.slots, slot_bytes] */
	unsigned char *buffers;      /* of the device: what follows is in it */
	float *x, *y, *parts, *scratch; /* [rows, H], [rows, H], [pairs, H], [pairs, I] */
	float *host_x, *host_y;      /* pinned: [rows, H] each */
	struct moe_sorted_pairs sorted;

	/* The batch at hand: its experts in the order in which they are computed, those that are there first. */
	int *order;                  /* [max_experts] numbers of experts in the layer */
	int n_order, n_there, n_asked; /* in all; there when it began; asked for so far, those that were there among them */
	int32_t *rank, *ranks;       /* [max_experts], by number; [pairs]: the batch's ids as places in `order` */
	struct moe_expert_weights *lies; /* [max_experts]: where those in `order` lie, when they have been asked for */
	const struct moe_batch *batch; /* under way; NULL: none */
	struct moe_batch copy;       /* what batch points to */
	uint64_t ticket;             /* its */

	struct moe_tickets tickets;
	struct moe_pooled_stats stats;
};
/* Put all of a batch on the streams.  When it fails nothing is under way and no slot holds what was not brought whole. */
int moe_pooled_begin(struct moe_pooled *x, const struct moe_batch *b, struct moe_err *e);
/* Wait for it, the same on failure. */
int moe_pooled_end(struct moe_pooled *x, struct moe_err *e);

#endif
