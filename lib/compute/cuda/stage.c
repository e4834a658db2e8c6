/* Small arrays of the host on their way to kernels: block tables, positions, slots.
 *
 * A copy from memory that is not pinned may make the host wait, and one from memory that the caller is free to change
 * would have to.  So they are put into pinned memory first.  Layers of a step ask for the same arrays again: these are found among
 * the last few and not copied twice. */
#include <string.h>

#include "private.h"

#define LEAST_CHUNK ((size_t)64 << 10)
#define STAGE_ALIGN 256

static void forget(struct moe_staging *s)
{
	s->n_kept = 0;
}

/* Waits for the copies: freeing memory of the device does. */
void moe_cuda_unstage(struct moe_cuda *c, struct moe_stream_q *q)
{
	struct moe_staging *s = &q->staging;

	moe_cuda_give(c, s->device);
	moe_cuda_release_pinned(&c->base, s->host);
	for (int i = 0; i < MOE_STAGE_CHUNKS; i++)
		if (s->left[i])
			cudaEventDestroy(s->left[i]);
	memset(s, 0, sizeof *s);
}

static size_t chunk_for(size_t bytes)
{
	size_t chunk = LEAST_CHUNK;

	while (chunk < bytes)
		chunk *= 2;
	return chunk;
}

/* Each array is filled up; a call has four at most. */
size_t moe_cuda_staging_bytes(size_t bytes)
{
	return MOE_STAGE_CHUNKS * chunk_for(bytes + 4 * STAGE_ALIGN);
}

static int grow(struct moe_cuda *c, struct moe_stream_q *q, size_t bytes, struct moe_err *e)
{
	struct moe_staging *s = &q->staging;
	size_t chunk = chunk_for(bytes);
	void *mem;
	int rc;

	moe_cuda_unstage(c, q);
	rc = moe_cuda_alloc_pinned(&c->base, MOE_STAGE_CHUNKS * chunk, &mem, e);
	if (rc)
		return rc;
	s->host = mem;
	rc = moe_cuda_take(c, MOE_STAGE_CHUNKS * chunk, "staging of small arrays", &mem, e);
	if (rc)
		return rc;
	s->device = mem;
	for (int i = 0; i < MOE_STAGE_CHUNKS && !rc; i++)
		rc = moe_cuda_check(c, cudaEventCreateWithFlags(&s->left[i], cudaEventDisableTiming), "staging", e);
	s->chunk = rc ? 0 : chunk;
	return rc;
}

/* The chunk is full: go on in the next one, when what was read from it has been. */
static int turn(struct moe_cuda *c, struct moe_stream_q *q, struct moe_err *e)
{
	struct moe_staging *s = &q->staging;
	int rc = moe_cuda_check(c, cudaEventRecord(s->left[s->at], q->s), "staging", e);

	if (rc)
		return rc;
	s->at = (s->at + 1) % MOE_STAGE_CHUNKS;
	s->used = 0;
	forget(s);
	return moe_cuda_check(c, cudaEventSynchronize(s->left[s->at]), "staging", e);
}

static const void *find(const struct moe_staging *s, const struct moe_staged *a)
{
	for (int i = 0; i < s->n_kept; i++)
		if (s->kept[i].bytes == a->bytes && memcmp(s->host + s->kept[i].offset, a->host, a->bytes) == 0)
			return s->device + s->kept[i].offset;
	return NULL;
}

static void keep(struct moe_staging *s, size_t offset, size_t bytes)
{
	if (s->n_kept == MOE_STAGE_KEPT)
		memmove(s->kept, s->kept + 1, (size_t)--s->n_kept * sizeof *s->kept);
	s->kept[s->n_kept].offset = offset;
	s->kept[s->n_kept++].bytes = bytes;
}

static size_t room_of(size_t bytes)
{
	return (bytes + STAGE_ALIGN - 1) / STAGE_ALIGN * STAGE_ALIGN;
}

/* There is room in the chunk. */
static int put(struct moe_cuda *c, struct moe_stream_q *q, struct moe_staged *a, struct moe_err *e)
{
	struct moe_staging *s = &q->staging;
	size_t offset = (size_t)s->at * s->chunk + s->used;
	int rc;

	memcpy(s->host + offset, a->host, a->bytes);
	rc = moe_cuda_check(c, cudaMemcpyAsync(s->device + offset, s->host + offset, a->bytes, cudaMemcpyHostToDevice, q->s), "staging", e);
	if (rc)
		return rc;
	s->used += room_of(a->bytes);
	keep(s, offset, a->bytes);
	a->device = s->device + offset;
	return 0;
}

int moe_cuda_stage(struct moe_cuda *c, struct moe_stream_q *q, struct moe_staged *a, int n, struct moe_err *e)
{
	struct moe_staging *s = &q->staging;
	size_t all = 0;
	int rc = 0;

	for (int i = 0; i < n; i++)
		all += room_of(a[i].bytes);
	if (all > s->chunk)
		rc = grow(c, q, all, e);
	else if (all > s->chunk - s->used)
		rc = turn(c, q, e);
	for (int i = 0; i < n && !rc; i++) {
		a[i].device = a[i].bytes ? find(s, &a[i]) : NULL;
		if (a[i].bytes && !a[i].device)
			rc = put(c, q, &a[i], e);
	}
	return rc;
}
