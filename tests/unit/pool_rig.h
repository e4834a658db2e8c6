/* What the pool tests share: a device whose memory is counted and capped and whose allocations can be made to fail, around the CPU
 * backend; models. */
#ifndef POOL_RIG_H
#define POOL_RIG_H

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compute_rig.h"
#include "pool/pool.h"

struct device {
	struct moe_backend base;     /* first: what is opened is a device */
	struct moe_backend_ops ops;
	struct rig rig;              /* computes */
	size_t used, most, cap;      /* bytes of the device */
	size_t pinned;               /* bytes of the host */
	int things;                  /* buffers, streams and marks that are there */
	int left;                    /* how many more there may be; then each fails.  Below 0: any number */
	int fail_copies;             /* copies that succeed before they fail.  Below 0: any number */
	size_t copied;               /* bytes to the device */
};

static inline struct device *device_of(struct moe_backend *b)
{
	return (struct device *)b;
}

static inline int device_take(struct device *d, struct moe_err *e)
{
	if (d->left == 0)
		return moe_fail(e, MOE_E_NOMEM, "no more: as the test wants it");
	d->left -= d->left > 0;
	d->things++;
	return 0;
}

/* A buffer knows its size. */
static inline void *sized(size_t bytes)
{
	size_t *mem = moe_aligned(bytes + 64, "buffer", NULL);

	assert_non_null(mem);
	*mem = bytes;
	return mem + 64 / sizeof *mem;
}

static inline size_t unsized(void *mem)
{
	size_t *at = (size_t *)mem - 64 / sizeof *at, bytes = *at;

	free(at);
	return bytes;
}

static inline int device_alloc(struct moe_backend *b, size_t bytes, void **mem, struct moe_err *e)
{
	struct device *d = device_of(b);

	if (d->cap && bytes > d->cap - d->used)
		return moe_fail(e, MOE_E_NOMEM, "%zu bytes, %zu of %zu are used", bytes, d->used, d->cap);
	if (device_take(d, e))
		return MOE_E_NOMEM;
	d->used += bytes;
	d->most = d->used > d->most ? d->used : d->most;
	*mem = sized(bytes);
	return 0;
}

static inline void device_release(struct moe_backend *b, void *mem)
{
	if (!mem)
		return;
	device_of(b)->used -= unsized(mem);
	device_of(b)->things--;
}

static inline int device_alloc_pinned(struct moe_backend *b, size_t bytes, void **host, struct moe_err *e)
{
	if (device_take(device_of(b), e))
		return MOE_E_NOMEM;
	device_of(b)->pinned += bytes;
	*host = sized(bytes);
	return 0;
}

static inline void device_release_pinned(struct moe_backend *b, void *host)
{
	if (!host)
		return;
	device_of(b)->pinned -= unsized(host);
	device_of(b)->things--;
}

static inline void device_memory(struct moe_backend *b, struct moe_device_memory *out)
{
	*out = (struct moe_device_memory){device_of(b)->used, device_of(b)->most, device_of(b)->cap};
}

static inline int device_copy(struct moe_backend *b, struct moe_stream_q *q, void *to, const void *from, size_t bytes,
                              struct moe_err *e)
{
	struct device *d = device_of(b);

	(void)q;
	if (d->fail_copies == 0)
		return moe_fail(e, MOE_E_IO, "the link is down");
	d->fail_copies -= d->fail_copies > 0;
	memcpy(to, from, bytes);
	__atomic_fetch_add(&d->copied, bytes, __ATOMIC_RELAXED);
	return 0;
}

static inline int device_copy_out(struct moe_backend *b, struct moe_stream_q *q, void *to, const void *from, size_t bytes,
                                  struct moe_err *e)
{
	(void)b, (void)q, (void)e;
	memcpy(to, from, bytes);
	return 0;
}

static inline int device_sync(struct moe_backend *b, struct moe_stream_q *q, struct moe_err *e)
{
	(void)b, (void)q, (void)e;
	return 0;
}

static inline void device_open(struct device *d)
{
	assert_true(rig_open(&d->rig, "base", 2));
	*d = (struct device){.rig = d->rig, .left = -1, .fail_copies = -1};
	d->ops = (struct moe_backend_ops){
		.name = "test", .alloc = device_alloc, .release = device_release, .memory = device_memory,
		.alloc_pinned = device_alloc_pinned, .release_pinned = device_release_pinned,
		.copy_in = device_copy, .copy_out = device_copy_out, .sync = device_sync,
	};
	d->base.ops = &d->ops;
}

/* Nothing that was taken is left. */
static inline void device_close(struct device *d)
{
	assert_int_equal(d->things, 0);
	assert_int_equal(d->used + d->pinned, 0);
	rig_close(&d->rig);
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

static inline void same_matrix(const struct moe_matrix *got, const struct moe_matrix *want)
{
	assert_int_equal(got->quant, want->quant);
	assert_int_equal(got->layout, want->layout);
	assert_int_equal(got->rows, want->rows);
	assert_int_equal(got->cols, want->cols);
	assert_int_equal((uintptr_t)got->data % 64, 0);
	assert_memory_equal(got->data, want->data, moe_matrix_bytes(want));
}

/* Byte for byte expert (layer, expert) of the tensors. */
static inline void same_expert(const struct moe_expert_weights *got, const struct moe_checkpoint *c, int layer, int expert)
{
	struct moe_expert_weights want;
	struct moe_err e = MOE_ERR_INIT;

	must(moe_bind_expert(c->tensors, &c->model, layer, expert, &want, &e), &e);
	same_matrix(&got->gate, &want.gate);
	same_matrix(&got->up, &want.up);
	same_matrix(&got->down, &want.down);
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
