/* What the pool tests share: a device of which all that is taken is counted, and which can be made to fail; models. */
#ifndef POOL_RIG_H
#define POOL_RIG_H

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "compute_rig.h"
#include "pool/pool.h"

/* Around a real one: the CPU as a device, or what MOE_TEST_DEVICE names. */
struct device {
	struct moe_backend base;     /* first: what is opened is a device */
	struct moe_backend_ops ops;
	struct moe_backend *real;
	size_t pinned;               /* bytes of the host */
	int things;                  /* buffers, streams and marks that are there */
	int left;                    /* how many more there may be; then each fails.  Below 0: any number */
	atomic_int copies;           /* to the device, that succeed before they fail.  Below 0: any number */
	atomic_int computed;         /* calls of experts that succeed before they fail.  Below 0: any number */
	atomic_size_t copied;        /* bytes to the device */
	struct pinned {
		void *mem;
		size_t bytes;
	} blocks[4];
};

static inline struct device *device_of(struct moe_backend *b)
{
	return (struct device *)b;
}

static inline int device_may(struct device *d, struct moe_err *e)
{
	if (d->left == 0)
		return moe_fail(e, MOE_E_NOMEM, "no more: as the test wants it");
	d->left -= d->left > 0;
	return 0;
}

static inline int device_took(struct device *d, int rc)
{
	d->things += rc == 0;
	return rc;
}

#define TAKE(b, call) (device_may(device_of(b), e) ? MOE_E_NOMEM : device_took(device_of(b), device_of(b)->real->ops->call))
#define GIVE(b, thing, call) ((thing) ? (void)(device_of(b)->things--, device_of(b)->real->ops->call) : (void)0)

static inline int device_alloc(struct moe_backend *b, size_t bytes, void **mem, struct moe_err *e)
{
	return TAKE(b, alloc(device_of(b)->real, bytes, mem, e));
}

static inline void device_release(struct moe_backend *b, void *mem)
{
	GIVE(b, mem, release(device_of(b)->real, mem));
}

static inline int device_alloc_pinned(struct moe_backend *b, size_t bytes, void **host, struct moe_err *e)
{
	struct pinned *p = device_of(b)->blocks;
	int rc = TAKE(b, alloc_pinned(device_of(b)->real, bytes, host, e));

	if (rc)
		return rc;
	while (p->mem)
		p++;
	*p = (struct pinned){*host, bytes};
	device_of(b)->pinned += bytes;
	return 0;
}

static inline void device_release_pinned(struct moe_backend *b, void *host)
{
	struct pinned *p = device_of(b)->blocks;

	while (host && p->mem != host)
		p++;
	if (host) {
		device_of(b)->pinned -= p->bytes;
		p->mem = NULL;
	}
	GIVE(b, host, release_pinned(device_of(b)->real, host));
}

static inline void device_memory(struct moe_backend *b, struct moe_device_memory *out)
{
	device_of(b)->real->ops->memory(device_of(b)->real, out);
}

static inline int device_stream_open(struct moe_backend *b, struct moe_stream_q **q, struct moe_err *e)
{
	return TAKE(b, stream_open(device_of(b)->real, q, e));
}

static inline void device_stream_close(struct moe_backend *b, struct moe_stream_q *q)
{
	GIVE(b, q, stream_close(device_of(b)->real, q));
}

static inline int device_event_open(struct moe_backend *b, struct moe_mark **ev, struct moe_err *e)
{
	return TAKE(b, event_open(device_of(b)->real, ev, e));
}

static inline void device_event_close(struct moe_backend *b, struct moe_mark *ev)
{
	GIVE(b, ev, event_close(device_of(b)->real, ev));
}

static inline int device_event_record(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e)
{
	return device_of(b)->real->ops->event_record(device_of(b)->real, q, ev, e);
}

static inline int device_event_wait(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e)
{
	return device_of(b)->real->ops->event_wait(device_of(b)->real, q, ev, e);
}

static inline int device_sync(struct moe_backend *b, struct moe_stream_q *q, struct moe_err *e)
{
	return device_of(b)->real->ops->sync(device_of(b)->real, q, e);
}

/* One less; false: there is none left. */
static inline bool device_spend(atomic_int *left)
{
	int n = atomic_load(left);

	if (n > 0)
		atomic_fetch_sub(left, 1);
	return n != 0;
}

static inline int device_copy_in(struct moe_backend *b, struct moe_stream_q *q, void *mem, const void *host, size_t bytes,
                                 struct moe_err *e)
{
	if (!device_spend(&device_of(b)->copies))
		return moe_fail(e, MOE_E_IO, "the link is down");
	atomic_fetch_add(&device_of(b)->copied, bytes);
	return device_of(b)->real->ops->copy_in(device_of(b)->real, q, mem, host, bytes, e);
}

static inline int device_copy_out(struct moe_backend *b, struct moe_stream_q *q, void *host, const void *mem, size_t bytes,
                                  struct moe_err *e)
{
	return device_of(b)->real->ops->copy_out(device_of(b)->real, q, host, mem, bytes, e);
}

static inline int device_experts(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x,
                                 const struct moe_expert_group *groups, int n_groups, const int32_t *x_row, const float *weight,
                                 enum moe_act act, float *scratch, struct moe_err *e)
{
	struct moe_backend *real = device_of(b)->real;

	if (!device_spend(&device_of(b)->computed))
		return moe_fail(e, MOE_E_IO, "the device is gone");
	return real->ops->experts(real, q, y, x, groups, n_groups, x_row, weight, act, scratch, e);
}

static inline int device_combine(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *parts, const int32_t *slot,
                                 int rows, int k, int n, struct moe_err *e)
{
	return device_of(b)->real->ops->combine(device_of(b)->real, q, y, parts, slot, rows, k, n, e);
}

/* NULL: the CPU as a device. */
static inline const char *gpu(void)
{
	const char *name = getenv("MOE_TEST_DEVICE");

	return name && *name && strcmp(name, "device") != 0 ? name : NULL;
}

/* A GPU's operations take memory of their own, for lists of the host. */
static inline size_t device_own(void)
{
	return gpu() ? (size_t)8 << 20 : 0;
}

/* memory: its cap; 0: none. */
static inline void device_open(struct device *d, size_t memory)
{
	struct moe_device_config c = {.device = "cpu", .memory = memory, .threads = 2, .numerics = MOE_NUMERICS_INIT};
	struct moe_err e = MOE_ERR_INIT;

	if (gpu()) {
		c.device = gpu();
		c.numerics.kind = MOE_KIND_CUDA;
	}
	memset(d, 0, sizeof *d);
	d->left = -1;
	atomic_store(&d->copies, -1);
	atomic_store(&d->computed, -1);
	if (moe_device_open(&c, &d->real, &e) != 0)
		fail_msg("%s", e.msg);
	d->ops = (struct moe_backend_ops){
		.name = "test", .alloc = device_alloc, .release = device_release, .memory = device_memory,
		.alloc_pinned = device_alloc_pinned, .release_pinned = device_release_pinned,
		.stream_open = device_stream_open, .stream_close = device_stream_close, .event_open = device_event_open,
		.event_close = device_event_close, .event_record = device_event_record, .event_wait = device_event_wait,
		.copy_in = device_copy_in, .copy_out = device_copy_out, .sync = device_sync,
		.experts = device_experts, .combine = device_combine,
	};
	d->base.ops = &d->ops;
}

static inline struct moe_device_memory device_has(struct device *d)
{
	struct moe_device_memory m;

	device_memory(&d->base, &m);
	return m;
}

/* Nothing that was taken is left. */
static inline void device_close(struct device *d)
{
	assert_int_equal(d->things, 0);
	assert_int_equal(d->pinned, 0);
	assert_int_equal(device_has(d).used, 0);
	d->real->ops->close(d->real);
}

/* ---- models ---- */

static inline void must(int rc, const struct moe_err *e)
{
	if (rc != 0)
		fail_msg("%s", e->msg);
}

static inline struct moe_checkpoint *synth(const char *spec)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_checkpoint *c;

	must(moe_synth_open(spec, &c, &e), &e);
	return c;
}

static const char *const specs[] = {
	"tiny-mixtral,layers=3,dtype=bf16", "tiny-mixtral,layers=3,dtype=bf16,fused", "tiny-mixtral,layers=2,dtype=f32",
	"tiny-mixtral,layers=3,quant=q8", "tiny-qwen3-moe,layers=4,quant=q4", "tiny-olmoe,layers=1,quant=q2",
	"tiny-qwen2-moe,layers=3,dtype=f16,fused",
};

static inline void same_matrix(struct moe_backend *b, const struct moe_matrix *got, const struct moe_matrix *want)
{
	size_t bytes = moe_matrix_bytes(want);
	unsigned char *mem = malloc(bytes);
	struct moe_err e = MOE_ERR_INIT;

	assert_non_null(mem);
	assert_int_equal(got->quant, want->quant);
	assert_int_equal(got->layout, want->layout);
	assert_int_equal(got->rows, want->rows);
	assert_int_equal(got->cols, want->cols);
	assert_int_equal((uintptr_t)got->data % 64, 0);
	must(b->ops->copy_out(b, NULL, mem, got->data, bytes, &e), &e);
	must(b->ops->sync(b, NULL, &e), &e);
	assert_memory_equal(mem, want->data, bytes);
	free(mem);
}

/* Byte for byte expert (layer, expert) of the tensors, on the device. */
static inline void same_expert(struct moe_backend *b, const struct moe_expert_weights *got, const struct moe_checkpoint *c, int layer,
                               int expert)
{
	struct moe_expert_weights want;
	struct moe_err e = MOE_ERR_INIT;

	must(moe_bind_expert(c->tensors, &c->model, layer, expert, &want, &e), &e);
	same_matrix(b, &got->gate, &want.gate);
	same_matrix(b, &got->up, &want.up);
	same_matrix(b, &got->down, &want.down);
}

/* ---- files ---- */

struct folder {
	char parent[32], dir[64];
};

/* A model of one file. */
static inline struct moe_checkpoint *folder_open(struct folder *f, const char *spec)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_checkpoint *c;

	snprintf(f->parent, sizeof f->parent, "/tmp/moe-pool-XXXXXX");
	assert_non_null(mkdtemp(f->parent));
	snprintf(f->dir, sizeof f->dir, "%s/model", f->parent);
	must(moe_synth_write(spec, NULL, f->dir, &e), &e);
	must(moe_checkpoint_open(f->dir, &c, &e), &e);
	return c;
}

static inline void folder_cut(const struct folder *f)
{
	char path[96];

	snprintf(path, sizeof path, "%s/model.safetensors", f->dir);
	assert_int_equal(truncate(path, 4096), 0);
}

static inline void folder_remove(const struct folder *f)
{
	static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
	                                    "tokenizer_config.json"};
	char path[96];

	for (size_t i = 0; i < COUNT(files); i++) {
		snprintf(path, sizeof path, "%s/%s", f->dir, files[i]);
		(void)unlink(path);
	}
	assert_int_equal(rmdir(f->dir), 0);
	assert_int_equal(rmdir(f->parent), 0);
}

#endif
