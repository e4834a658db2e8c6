/* Streams, and copies on them. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "private.h"

int moe_cuda_check(const struct moe_cuda *c, cudaError_t rc, const char *what, struct moe_err *e)
{
	if (rc == cudaSuccess)
		return 0;
	cudaGetLastError(); /* said once */
	return moe_fail(e, rc == cudaErrorMemoryAllocation ? MOE_E_NOMEM : MOE_E_IO, "cuda:%d: %s: %s", c->index, what,
	                cudaGetErrorString(rc));
}

int moe_cuda_begin(struct moe_cuda *c, struct moe_stream_q **q, const char *what, struct moe_err *e)
{
	if (!*q)
		*q = &c->own;
	__atomic_store_n(&(*q)->last, what, __ATOMIC_RELAXED); /* NULL's stream is used by many threads */
	return moe_cuda_check(c, cudaSetDevice(c->index), what, e);
}

int moe_cuda_stream_init(struct moe_cuda *c, struct moe_stream_q *q, struct moe_err *e)
{
	memset(q, 0, sizeof *q);
	q->last = "nothing";
	return moe_cuda_check(c, cudaStreamCreateWithFlags(&q->s, cudaStreamNonBlocking), "a stream", e);
}

void moe_cuda_stream_fini(struct moe_cuda *c, struct moe_stream_q *q)
{
	if (!q->s)
		return;
	cudaSetDevice(c->index);
	cudaStreamSynchronize(q->s);
	moe_cuda_unstage(c, q);
	for (int i = 0; i < MOE_CUDA_ROOMS; i++)
		moe_cuda_give(c, q->room[i].mem);
	cudaStreamDestroy(q->s);
}

int moe_cuda_stream_open(struct moe_backend *b, struct moe_stream_q **q, struct moe_err *e)
{
	struct moe_cuda *c = moe_cuda(b);
	struct moe_stream_q *made = moe_calloc(1, sizeof *made, "stream", e), *own = NULL;
	int rc = made ? moe_cuda_begin(c, &own, "a stream", e) : MOE_E_NOMEM;

	rc = rc ? rc : moe_cuda_stream_init(c, made, e);
	if (rc)
		free(made);
	else
		*q = made;
	return rc;
}

void moe_cuda_stream_close(struct moe_backend *b, struct moe_stream_q *q)
{
	if (!q)
		return;
	moe_cuda_stream_fini(moe_cuda(b), q);
	free(q);
}

int moe_cuda_copy_in(struct moe_backend *b, struct moe_stream_q *q, void *mem, const void *host, size_t bytes, struct moe_err *e)
{
	int rc = moe_cuda_begin(moe_cuda(b), &q, "copy to the device", e);

	if (rc || bytes == 0)
		return rc;
	return moe_cuda_check(moe_cuda(b), cudaMemcpyAsync(mem, host, bytes, cudaMemcpyHostToDevice, q->s), "copy to the device", e);
}

int moe_cuda_copy_out(struct moe_backend *b, struct moe_stream_q *q, void *host, const void *mem, size_t bytes, struct moe_err *e)
{
	int rc = moe_cuda_begin(moe_cuda(b), &q, "copy from the device", e);

	if (rc || bytes == 0)
		return rc;
	return moe_cuda_check(moe_cuda(b), cudaMemcpyAsync(host, mem, bytes, cudaMemcpyDeviceToHost, q->s), "copy from the device", e);
}

int moe_cuda_sync(struct moe_backend *b, struct moe_stream_q *q, struct moe_err *e)
{
	struct moe_cuda *c = moe_cuda(b);
	const char *last = __atomic_load_n(q ? &q->last : &c->own.last, __ATOMIC_RELAXED);
	int rc = moe_cuda_begin(c, &q, last, e);

	rc = rc ? rc : moe_cuda_check(c, cudaStreamSynchronize(q->s), last, e);
	return rc ? moe_fail_prefix(e, rc, "waiting for a stream, on which this was put last") : 0;
}
