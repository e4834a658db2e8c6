/* Flows inside: chunks, and what is done with one. */
#ifndef MOE_SHARD_FLOW_H
#define MOE_SHARD_FLOW_H

#include "shard/private.h"

#define MOE_CHUNK ((uint64_t)4 << 20)
#define MOE_CHUNKS_BEHIND 8 /* chunks of a file that may be on their way to the disk */

enum { MOE_SUM_WHOLE, MOE_SUM_ONE, MOE_SUM_GROUP };

/* Where a thread makes the bytes that are not in the source as they are written. */
struct moe_workshop {
	unsigned char *out;   /* a chunk */
	unsigned char *plain; /* its canonical form, where that is another */
	float *scratch;
};
/* Memory for the flows' largest chunk; freed by moe_workshop_free. */
int moe_workshop_new(const struct moe_flow *f, size_t n, struct moe_workshop *out, struct moe_err *e);
void moe_workshop_free(struct moe_workshop *w);

/* A chunk in the hands of a thread. */
struct moe_chunk {
	struct moe_flow *f;
	uint64_t k, offset, end;
	size_t first; /* extent that holds offset */
	const struct moe_workshop *w;
};
/* Cut a flow into chunks of about MOE_CHUNK; in made extents only between their units. */
int moe_flow_cut(struct moe_flow *f, struct moe_err *e);
struct moe_chunk moe_chunk_of(struct moe_flow *f, uint64_t k);
/* Bring the source's bytes into memory, those of the chunk `ahead` chunks later soon too. */
void moe_chunk_fetch(const struct moe_chunk *c, uint64_t ahead);
/* Make what must be made. */
int moe_chunk_make(const struct moe_chunk *c, struct moe_err *e);
/* Called by one thread at a time a flow, chunk after chunk. */
void moe_chunk_sum(const struct moe_chunk *c);
int moe_chunk_write(const struct moe_chunk *c, struct moe_err *e);
/* The source's pages are no longer needed. */
void moe_chunk_let_go(const struct moe_chunk *c);

#endif
