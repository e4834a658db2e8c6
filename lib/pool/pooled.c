/* Pooled experts: taken and given back, and their tickets.  One batch is under way at a time. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "pool/pooled.h"

/* ---- sizes ---- */

struct sizes {
	size_t rows, parts, scratch; /* of x, and of y; of what pairs give; of their hidden values */
};

static bool count(const struct moe_model *m, int max_rows, struct sizes *out)
{
	int64_t pairs = (int64_t)max_rows * moe_model_max_top_k(m); /* counted in int32 */
	size_t row = (size_t)m->hidden * sizeof(float), hidden = (size_t)moe_model_max_expert_width(m) * sizeof(float);

	if (max_rows < 1 || pairs < 1 || pairs > INT32_MAX || !moe_mul_size((size_t)max_rows, row, &out->rows) ||
	    !moe_mul_size((size_t)pairs, row, &out->parts) || !moe_mul_size((size_t)pairs, hidden, &out->scratch))
		return false;
	out->rows = moe_pool_round(out->rows);
	out->parts = moe_pool_round(out->parts);
	out->scratch = moe_pool_round(out->scratch);
	return true;
}

size_t moe_pooled_batch_bytes(const struct moe_model *m, int max_rows)
{
	struct sizes z;
	size_t bytes;

	if (!count(m, max_rows, &z) || !moe_mul_size(z.rows, 2, &bytes) || !moe_add_size(bytes, z.parts, &bytes) ||
	    !moe_add_size(bytes, z.scratch, &bytes))
		return SIZE_MAX;
	return bytes;
}

/* ---- struct moe_experts ---- */

static void end_batch(struct moe_pooled *x)
{
	struct moe_err why = MOE_ERR_INIT;

	if (x->batch && moe_pooled_end(x, &why))
		moe_tickets_fail(&x->tickets, x->ticket, &why);
}

static int pooled_submit(struct moe_experts *base, const struct moe_batch *b, uint64_t *ticket, struct moe_err *e)
{
	struct moe_pooled *x = (struct moe_pooled *)base;
	struct moe_err why = MOE_ERR_INIT;
	int rc = moe_batch_check(&x->model, x->max_rows, b, e);

	if (rc)
		return rc;
	end_batch(x);
	rc = moe_tickets_give(&x->tickets, ticket, e);
	if (rc)
		return rc;
	x->ticket = *ticket;
	rc = moe_batch_late(b, &why);
	if (rc == 0)
		rc = moe_pooled_begin(x, b, &why);
	if (rc)
		moe_tickets_fail(&x->tickets, *ticket, &why);
	return 0;
}

static int pooled_wait(struct moe_experts *base, uint64_t ticket, struct moe_err *e)
{
	struct moe_pooled *x = (struct moe_pooled *)base;

	if (x->batch && x->ticket == ticket)
		end_batch(x);
	return moe_tickets_take(&x->tickets, ticket, e);
}

static void pooled_cancel(struct moe_experts *base, uint64_t ticket)
{
	struct moe_pooled *x = (struct moe_pooled *)base;

	if (x->batch && x->ticket == ticket)
		end_batch(x);
	moe_tickets_forget(&x->tickets, ticket);
}

static void close_marks(struct moe_pooled *x, struct moe_mark **v)
{
	for (int i = 0; v && i < x->max_experts; i++)
		if (v[i])
			x->device->ops->event_close(x->device, v[i]);
	free(v);
}

static void pooled_close(struct moe_experts *base)
{
	struct moe_pooled *x = (struct moe_pooled *)base;

	if (!x)
		return;
	end_batch(x);
	moe_pool_fetcher_close(&x->fetcher);
	if (x->q)
		x->device->ops->stream_close(x->device, x->q);
	close_marks(x, x->fetched);
	close_marks(x, x->computed);
	if (x->slots)
		x->device->ops->release(x->device, x->slots);
	if (x->buffers)
		x->device->ops->release(x->device, x->buffers);
	if (x->host_x)
		x->device->ops->release_pinned(x->device, x->host_x);
	moe_pool_cache_close(&x->cache);
	moe_sorted_pairs_free(&x->sorted);
	free(x->w);
	free(x->order);
	free(x->rank);
	free(x->ranks);
	free(x->lies);
	free(x);
}

static const struct moe_experts_ops pooled_ops = {
	.submit = pooled_submit,
	.poll = pooled_wait, /* a device has nothing to ask whether it is done: waiting is short */
	.wait = pooled_wait,
	.cancel = pooled_cancel,
	.close = pooled_close,
};

void moe_pooled_stats(const struct moe_experts *pooled, struct moe_pooled_stats *out)
{
	const struct moe_pooled *x = (const struct moe_pooled *)pooled;

	*out = x->stats;
	out->evictions = x->cache.evictions;
	out->slots = x->cache.slots;
}

/* ---- opening ---- */

static int bind_all(struct moe_pooled *x, struct moe_err *e)
{
	for (int l = 0; l < x->model.n_layers; l++)
		for (int i = 0; i < x->model.layers[l].ffn.experts; i++) {
			struct moe_expert_weights *w = &x->w[(size_t)l * (size_t)x->max_experts + (size_t)i];
			int rc = moe_pool_bind(x->tensors, &x->model, l, i, w, e);
			size_t bytes = rc ? 0 : moe_pool_expert_bytes(w);

			if (rc)
				return rc;
			x->slot_bytes = bytes > x->slot_bytes ? bytes : x->slot_bytes;
		}
	return 0;
}

static int allocate(struct moe_pooled *x, struct moe_err *e)
{
	size_t experts = (size_t)x->max_experts, pairs = (size_t)x->max_rows * (size_t)x->max_k;

	x->w = moe_calloc((size_t)x->model.n_layers * experts, sizeof *x->w, "experts", e);
	x->order = moe_calloc(experts, sizeof *x->order, "experts", e);
	x->rank = moe_calloc(experts, sizeof *x->rank, "experts", e);
	x->lies = moe_calloc(experts, sizeof *x->lies, "experts", e);
	x->ranks = moe_calloc(pairs, sizeof *x->ranks, "a batch", e);
	x->fetched = moe_calloc(experts, sizeof *x->fetched, "marks", e);
	x->computed = moe_calloc(experts, sizeof *x->computed, "marks", e);
	if (!x->w || !x->order || !x->rank || !x->lies || !x->ranks || !x->fetched || !x->computed)
		return MOE_E_NOMEM;
	return moe_sorted_pairs_new(&x->sorted, x->max_experts, (int)pairs, e);
}

/* How many slots, and whether the device has room for them and for batches. */
static int plan(const struct moe_pooled *x, size_t memory, int *slots, struct moe_err *e)
{
	size_t all = 0, n = memory / x->slot_bytes, need;
	struct moe_device_memory m;
	char a[32], b[32];

	for (int l = 0; l < x->model.n_layers; l++)
		all += (size_t)x->model.layers[l].ffn.experts;
	if (n == 0)
		return moe_fail(e, MOE_E_NOMEM, "one expert needs %s of the device, it may take %s",
		                moe_size_text((double)x->slot_bytes, a), moe_size_text((double)memory, b));
	*slots = (int)(n < all ? n : all);
	need = (size_t)*slots * x->slot_bytes + moe_pooled_batch_bytes(&x->model, x->max_rows);
	x->device->ops->memory(x->device, &m);
	if (m.cap && need > m.cap - (m.used < m.cap ? m.used : m.cap))
		return moe_fail(e, MOE_E_NOMEM, "experts and batches of %d rows need %s of the device, %s is left of it", x->max_rows,
		                moe_size_text((double)need, a), moe_size_text((double)(m.used < m.cap ? m.cap - m.used : 0), b));
	return 0;
}

static int take_device(struct moe_pooled *x, struct moe_err *e)
{
	const struct moe_backend_ops *ops = x->device->ops;
	void *slots = NULL, *buffers = NULL;
	struct sizes z = {0};
	int rc = ops->alloc(x->device, (size_t)x->cache.slots * x->slot_bytes, &slots, e);

	x->slots = slots;
	rc = rc ? rc : ops->alloc(x->device, moe_pooled_batch_bytes(&x->model, x->max_rows), &buffers, e);
	x->buffers = buffers;
	if (rc)
		return rc;
	count(&x->model, x->max_rows, &z);
	x->x = (float *)(void *)x->buffers;
	x->y = (float *)(void *)(x->buffers + z.rows);
	x->parts = (float *)(void *)(x->buffers + 2 * z.rows);
	x->scratch = (float *)(void *)(x->buffers + 2 * z.rows + z.parts);
	return 0;
}

static int take_pinned(struct moe_pooled *x, struct moe_err *e)
{
	void *host = NULL;
	struct sizes z = {0};
	int rc;

	count(&x->model, x->max_rows, &z);
	rc = x->device->ops->alloc_pinned(x->device, 2 * z.rows, &host, e);
	x->host_x = host;
	x->host_y = rc ? NULL : x->host_x + z.rows / sizeof *x->host_x;
	return rc;
}

static int open_streams(struct moe_pooled *x, struct moe_err *e)
{
	const struct moe_backend_ops *ops = x->device->ops;
	int rc = ops->stream_open(x->device, &x->q, e);

	for (int i = 0; i < x->max_experts && rc == 0; i++) {
		rc = ops->event_open(x->device, &x->fetched[i], e);
		rc = rc ? rc : ops->event_open(x->device, &x->computed[i], e);
	}
	return rc ? rc : moe_pool_fetcher_open(&x->fetcher, x->device, x->max_experts, e);
}

static int open_all(struct moe_pooled *x, const struct moe_pooled_config *c, struct moe_err *e)
{
	int slots = 0, rc = allocate(x, e);

	rc = rc ? rc : bind_all(x, e);
	rc = rc ? rc : plan(x, c->memory, &slots, e);
	rc = rc ? rc : moe_pool_cache_open(&x->cache, slots, x->model.n_layers * x->max_experts, c->evict, e);
	rc = rc ? rc : take_device(x, e);
	rc = rc ? rc : take_pinned(x, e);
	return rc ? rc : open_streams(x, e);
}

int moe_experts_pooled(const struct moe_model *m, const struct moe_tensors *tensors, const struct moe_pooled_config *c,
                       struct moe_experts **out, struct moe_err *e)
{
	struct moe_pooled *x;
	int rc;

	if (moe_pooled_batch_bytes(m, c->max_rows) == SIZE_MAX)
		return moe_fail(e, MOE_E_RANGE, "%d rows a batch: not possible", c->max_rows);
	x = moe_calloc(1, sizeof *x, "experts", e);
	if (!x)
		return MOE_E_NOMEM;
	x->base.ops = &pooled_ops;
	x->device = c->device;
	x->tensors = tensors;
	x->model = *m;
	x->max_experts = moe_model_max_experts(m);
	x->max_rows = c->max_rows;
	x->max_k = moe_model_max_top_k(m);
	rc = open_all(x, c, e);
	if (rc) {
		pooled_close(&x->base);
		return rc;
	}
	*out = &x->base;
	return 0;
}
