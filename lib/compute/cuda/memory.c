/* Memory of the device, within its cap, and pinned memory of the host. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "private.h"

struct moe_cuda_taken {
	void *mem;
	size_t bytes;
};

static int refuse(const struct moe_cuda *c, size_t bytes, const char *what, struct moe_err *e)
{
	size_t left = 0, total = c->total;

	cudaMemGetInfo(&left, &total);
	cudaGetLastError(); /* what went wrong is said here */
	return moe_fail(e, MOE_E_NOMEM, "cuda:%d: %s: %zu bytes needed, %zu of %zu used, the device has %zu, of which %zu are free",
	                c->index, what, bytes, c->memory.used, c->memory.cap, total, left);
}

/* Within the lock. */
static int take(struct moe_cuda *c, size_t bytes, const char *what, void **mem, struct moe_err *e)
{
	if (bytes > c->memory.cap || c->memory.used > c->memory.cap - bytes)
		return refuse(c, bytes, what, e);
	if (c->n_taken == c->cap_taken) {
		size_t cap = c->cap_taken ? 2 * c->cap_taken : 64;
		struct moe_cuda_taken *more = moe_realloc(c->taken, cap, sizeof *more, "list of device memory", e);

		if (!more)
			return MOE_E_NOMEM;
		c->taken = more;
		c->cap_taken = cap;
	}
	if (cudaMalloc(mem, bytes ? bytes : 1))
		return refuse(c, bytes, what, e);
	c->taken[c->n_taken++] = (struct moe_cuda_taken){*mem, bytes};
	c->memory.used += bytes;
	if (c->memory.used > c->memory.most)
		c->memory.most = c->memory.used;
	return 0;
}

int moe_cuda_take(struct moe_cuda *c, size_t bytes, const char *what, void **mem, struct moe_err *e)
{
	int rc;

	pthread_mutex_lock(&c->lock);
	rc = take(c, bytes, what, mem, e);
	pthread_mutex_unlock(&c->lock);
	return rc;
}

void moe_cuda_give(struct moe_cuda *c, void *mem)
{
	size_t i = 0;

	if (!mem)
		return;
	pthread_mutex_lock(&c->lock);
	while (i < c->n_taken && c->taken[i].mem != mem)
		i++;
	if (i < c->n_taken) {
		c->memory.used -= c->taken[i].bytes;
		c->taken[i] = c->taken[--c->n_taken];
		cudaSetDevice(c->index);
		cudaFree(mem);
	}
	pthread_mutex_unlock(&c->lock);
}

int moe_cuda_alloc(struct moe_backend *b, size_t bytes, void **mem, struct moe_err *e)
{
	struct moe_cuda *c = moe_cuda(b);
	struct moe_stream_q *q = NULL;
	int rc = moe_cuda_begin(c, &q, "memory", e);

	rc = rc ? rc : moe_cuda_take(c, bytes, "memory", mem, e);
	if (rc || bytes == 0)
		return rc;
	rc = moe_cuda_check(c, cudaMemsetAsync(*mem, 0, bytes, q->s), "zeroing of memory", e);
	rc = rc ? rc : moe_cuda_check(c, cudaStreamSynchronize(q->s), "zeroing of memory", e); /* other streams may use it at once */
	if (rc)
		moe_cuda_give(c, *mem);
	return rc;
}

void moe_cuda_release(struct moe_backend *b, void *mem)
{
	moe_cuda_give(moe_cuda(b), mem);
}

void moe_cuda_memory(struct moe_backend *b, struct moe_device_memory *out)
{
	struct moe_cuda *c = moe_cuda(b);

	pthread_mutex_lock(&c->lock);
	*out = c->memory;
	pthread_mutex_unlock(&c->lock);
}

int moe_cuda_alloc_pinned(struct moe_backend *b, size_t bytes, void **host, struct moe_err *e)
{
	struct moe_cuda *c = moe_cuda(b);
	struct moe_stream_q *q = NULL;
	int rc = moe_cuda_begin(c, &q, "pinned memory", e);

	if (rc)
		return rc;
	if (cudaHostAlloc(host, bytes ? bytes : 1, cudaHostAllocPortable)) {
		cudaGetLastError();
		return moe_fail(e, MOE_E_NOMEM, "cuda:%d: %zu bytes of pinned memory: the host has no room", c->index, bytes);
	}
	memset(*host, 0, bytes);
	return 0;
}

void moe_cuda_release_pinned(struct moe_backend *b, void *host)
{
	if (!host)
		return;
	cudaSetDevice(moe_cuda(b)->index);
	cudaFreeHost(host);
}

int moe_cuda_room(struct moe_cuda *c, struct moe_stream_q *q, enum moe_cuda_room which, size_t bytes, void **mem, struct moe_err *e)
{
	static const char *const names[MOE_CUDA_ROOMS] = {
		[MOE_ROOM_ATTENTION] = "parts of attention", [MOE_ROOM_X] = "quantised rows",
		[MOE_ROOM_HIDDEN] = "quantised hidden states", [MOE_ROOM_UP] = "products of up", [MOE_ROOM_WEIGHTS] = "copies of matrices",
	};
	int rc;

	if (bytes > q->room[which].bytes) {
		moe_cuda_give(c, q->room[which].mem); /* waits for what uses it */
		q->room[which].mem = NULL;
		q->room[which].bytes = 0;
		rc = moe_cuda_take(c, bytes, names[which], &q->room[which].mem, e);
		if (rc)
			return rc;
		q->room[which].bytes = bytes;
	}
	*mem = q->room[which].mem;
	return 0;
}
