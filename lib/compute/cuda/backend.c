/* The CUDA backend: opening and closing a GPU, and its table of operations. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "private.h"

enum { LEAST_SM = 75, LEAST_SM_BF16 = 80 };

int moe_cuda_count(void)
{
	int n = 0;

	if (cudaGetDeviceCount(&n)) {
		cudaGetLastError();
		return 0;
	}
	return n;
}

static void cuda_close(struct moe_backend *b)
{
	struct moe_cuda *c = moe_cuda(b);

	cudaSetDevice(c->index);
	moe_cuda_stream_fini(c, &c->own);
	moe_cuda_clock_stop(c);
	pthread_mutex_destroy(&c->lock);
	free(c->taken);
	free(c);
}

static const struct moe_backend_ops cuda_ops = {
	.name = "cuda",
	.close = cuda_close,
	.alloc = moe_cuda_alloc,
	.release = moe_cuda_release,
	.memory = moe_cuda_memory,
	.work_bytes = moe_cuda_work_bytes,
	.alloc_pinned = moe_cuda_alloc_pinned,
	.release_pinned = moe_cuda_release_pinned,
	.stream_open = moe_cuda_stream_open,
	.stream_close = moe_cuda_stream_close,
	.event_open = moe_cuda_event_open,
	.event_close = moe_cuda_event_close,
	.event_record = moe_cuda_event_record,
	.event_wait = moe_cuda_event_wait,
	.event_sync = moe_cuda_event_sync,
	.event_time = moe_cuda_event_time,
	.copy_in = moe_cuda_copy_in,
	.copy_out = moe_cuda_copy_out,
	.sync = moe_cuda_sync,
	.matmul = moe_cuda_matmul,
	.embed = moe_cuda_embed,
	.rmsnorm = moe_cuda_rmsnorm,
	.rope = moe_cuda_rope,
	.clamp = moe_cuda_clamp,
	.kv_store = moe_cuda_kv_store,
	.attention = moe_cuda_attention,
	.gate = moe_cuda_gate,
	.ffn = moe_cuda_ffn,
	.experts = moe_cuda_experts,
	.combine = moe_cuda_combine,
	.add = moe_cuda_add,
	.sigmoid_scale = moe_cuda_sigmoid_scale,
};

/* What the GPU is, and whether it will do. */
static int look(struct moe_cuda *c, const struct moe_device_config *config, struct moe_err *e)
{
	struct cudaDeviceProp p;
	int rc = moe_cuda_check(c, cudaGetDeviceProperties(&p, c->index), "what it is", e);

	if (rc)
		return rc;
	c->sm = 10 * p.major + p.minor;
	c->processors = p.multiProcessorCount;
	c->shared = p.sharedMemPerBlockOptin;
	c->total = p.totalGlobalMem;
	c->memory.cap = config->memory && config->memory < c->total ? config->memory : c->total;
	snprintf(c->name, sizeof c->name, "%.63s", p.name);
	if (c->sm < LEAST_SM)
		return moe_fail(e, MOE_E_UNSUPPORTED, "cuda:%d: %s has compute capability %d.%d: 7.5 is the least", c->index, c->name, p.major,
		                p.minor);
	if (c->numerics.activation == MOE_A_BF16 && c->sm < LEAST_SM_BF16)
		return moe_fail(e, MOE_E_UNSUPPORTED, "cuda:%d: %s has compute capability %d.%d: activations of bf16 need 8.0", c->index,
		                c->name, p.major, p.minor);
	return 0;
}

int moe_cuda_open(const struct moe_device_config *config, int index, struct moe_backend **out, struct moe_err *e)
{
	struct moe_cuda *c;
	int n = moe_cuda_count(), rc;

	if (n == 0)
		return moe_fail(e, MOE_E_UNSUPPORTED, "cuda:%d: there is no GPU here, or no driver for it", index);
	if (index < 0 || index >= n)
		return moe_fail(e, MOE_E_UNSUPPORTED, "cuda:%d: there are %d, from cuda:0 on", index, n);
	c = moe_calloc(1, sizeof *c, "cuda backend", e);
	if (!c)
		return MOE_E_NOMEM;
	pthread_mutex_init(&c->lock, NULL);
	c->base.ops = &cuda_ops;
	c->index = index;
	c->numerics = config->numerics;
	rc = moe_cuda_check(c, cudaSetDevice(index), "opening it", e);
	rc = rc ? rc : look(c, config, e);
	rc = rc ? rc : moe_cuda_stream_init(c, &c->own, e);
	rc = rc ? rc : moe_cuda_clock_start(c, e);
	if (rc) {
		cuda_close(&c->base);
		return rc;
	}
	*out = &c->base;
	return 0;
}

const char *moe_cuda_text(struct moe_backend *b, char *buf)
{
	const struct moe_cuda *c = moe_cuda(b);

	snprintf(buf, 160, "cuda:%d (%s, sm_%d, %.1f GiB of %.1f)", c->index, c->name, c->sm, (double)c->memory.cap / (1 << 30),
	         (double)c->total / (1 << 30));
	return buf;
}
