/* Experts computed in this process, while a batch is submitted.  Pairs (row, expert) are sorted by expert, so that each
 * expert's weights are read once for all its rows.  When the backend's memory is not the host's, weights are brought there for
 * good, and a batch's rows go there and back. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "compute/compute.h"
#include "upload.h"

struct local {
	struct moe_experts base;     /* first: a moe_experts is a local */
	struct moe_backend *b;
	const struct moe_tensors *tensors;
	struct moe_model model;      /* a copy of the caller's struct; the layers stay the caller's */
	int max_experts, max_rows, max_k;
	struct moe_expert_weights *weights; /* [n_layers, max_experts]; gate.data NULL: not held */
	struct moe_tickets tickets;

	/* For one batch of up to max_rows * max_k pairs. */
	struct moe_sorted_pairs sorted;
	float *parts, *scratch;      /* [pairs, H], [pairs, I]; the backend's */

	/* NULL if the backend's memory is the host's. */
	struct moe_upload **uploads; /* [n_layers, max_experts] what `weights` speaks of; NULL: not held */
	float *x, *y;                /* [max_rows, H] */
};

/* ---- sizes ---- */

size_t moe_experts_local_bytes(const struct moe_model *m, int max_rows)
{
	size_t experts = (size_t)moe_model_max_experts(m);
	size_t per_pair = sizeof(float) * ((size_t)m->hidden + (size_t)moe_model_max_expert_width(m));
	size_t weights = sizeof(struct local) + (size_t)m->n_layers * experts * sizeof(struct moe_expert_weights);
	int64_t pairs = (int64_t)max_rows * moe_model_max_top_k(m); /* counted in int32 */
	size_t bytes, sorted;

	if (pairs > INT32_MAX || !moe_sorted_pairs_bytes((int)experts, (int)pairs, &sorted) ||
	    !moe_mul_size((size_t)pairs, per_pair, &bytes) || !moe_add_size(bytes, sorted, &bytes) ||
	    !moe_add_size(bytes, weights, &bytes))
		return SIZE_MAX;
	return bytes;
}

static size_t all_experts(const struct local *x)
{
	return (size_t)x->model.n_layers * (size_t)x->max_experts;
}

/* ---- one batch ---- */

static const struct moe_expert_weights *held(const struct local *x, int layer, int expert)
{
	const struct moe_expert_weights *w = &x->weights[(size_t)layer * (size_t)x->max_experts + (size_t)expert];

	return w->gate.data ? w : NULL;
}

/* Mark the rows that need an expert we do not hold; the first such is the reason. */
static int mark_missing(const struct local *x, const struct moe_batch *b, struct moe_err *e)
{
	int rc = 0;

	for (int i = 0; i < b->rows; i++) {
		b->failed[i] = 0;
		for (int j = 0; j < b->k; j++) {
			int id = b->ids[i * b->k + j];

			if (held(x, b->layer, id))
				continue;
			b->failed[i] = 1;
			if (rc == 0)
				rc = moe_fail(e, MOE_E_MISSING, "layer %d, expert %d is not held here", b->layer, id);
		}
	}
	return rc;
}

static size_t row_bytes(const struct local *x, int rows)
{
	return (size_t)rows * (size_t)x->model.hidden * sizeof(float);
}

/* *there: rows[n, H] where the backend finds them. */
static int bring_rows(struct local *x, const float *rows, int n, const float **there, struct moe_err *e)
{
	*there = x->x ? x->x : rows;
	return x->x ? x->b->ops->copy_in(x->b, NULL, x->x, rows, row_bytes(x, n), e) : 0;
}

/* rows[n, H] = what the backend has put `there`, if that is elsewhere. */
static int fetch_rows(struct local *x, float *rows, int n, const float *there, struct moe_err *e)
{
	return there == rows ? 0 : x->b->ops->copy_out(x->b, NULL, rows, there, row_bytes(x, n), e);
}

/* Whatever has failed: nothing that is under way is to touch the batch's arrays any more. */
static int settle(struct local *x, int rc, struct moe_err *e)
{
	int waited = x->b->ops->sync(x->b, NULL, rc ? NULL : e);

	rc = rc ? rc : waited;
	return rc ? rc : moe_tensors_check(x->tensors, e);
}

static int compute_batch(struct local *x, const struct moe_batch *b, struct moe_err *e)
{
	const struct moe_backend_ops *ops = x->b->ops;
	struct moe_sorted_pairs *s = &x->sorted;
	float *y = x->y ? x->y : b->y;
	const float *rows;
	int rc = bring_rows(x, b->x, b->rows, &rows, e);

	moe_sort_pairs(s, b->ids, b->weights, b->rows, b->k, b->failed, &x->weights[(size_t)b->layer * (size_t)x->max_experts]);
	rc = rc ? rc : ops->experts(x->b, NULL, x->parts, rows, s->groups, s->n_groups, s->x_row, s->weight,
	                            x->model.layers[b->layer].ffn.act, x->scratch, e);
	rc = rc ? rc : ops->combine(x->b, NULL, y, x->parts, s->slot, b->rows, b->k, x->model.hidden, e);
	rc = rc ? rc : fetch_rows(x, b->y, b->rows, y, e);
	return settle(x, rc, e);
}

static int run_batch(struct local *x, const struct moe_batch *b, struct moe_err *e)
{
	int missing = mark_missing(x, b, e);
	struct moe_err other = MOE_ERR_INIT;
	int rc = compute_batch(x, b, &other);

	if (rc == 0)
		return missing;
	memset(b->failed, 1, (size_t)b->rows);
	if (missing)
		return missing; /* the first reason */
	*e = other;
	return rc;
}

/* ---- struct moe_experts ---- */

static int local_submit(struct moe_experts *base, const struct moe_batch *b, uint64_t *ticket, struct moe_err *e)
{
	struct local *x = (struct local *)base;
	struct moe_err why = MOE_ERR_INIT;
	int rc = moe_batch_check(&x->model, x->max_rows, b, e);

	rc = rc ? rc : moe_tickets_give(&x->tickets, ticket, e);
	if (rc)
		return rc;
	rc = moe_batch_late(b, &why);
	if (rc == 0)
		rc = run_batch(x, b, &why);
	if (rc)
		moe_tickets_fail(&x->tickets, *ticket, &why);
	return 0;
}

static int local_wait(struct moe_experts *base, uint64_t ticket, struct moe_err *e)
{
	return moe_tickets_take(&((struct local *)base)->tickets, ticket, e);
}

static void local_cancel(struct moe_experts *base, uint64_t ticket)
{
	moe_tickets_forget(&((struct local *)base)->tickets, ticket);
}

static void local_close(struct moe_experts *base)
{
	struct local *x = (struct local *)base;

	if (!x)
		return;
	x->b->ops->release(x->b, x->parts);
	x->b->ops->release(x->b, x->scratch);
	x->b->ops->release(x->b, x->x);
	x->b->ops->release(x->b, x->y);
	for (size_t i = 0; x->uploads && i < all_experts(x); i++)
		moe_upload_release(x->uploads[i]);
	moe_sorted_pairs_free(&x->sorted);
	free(x->uploads);
	free(x->weights);
	free(x);
}

static const struct moe_experts_ops local_ops = {
	.submit = local_submit,
	.poll = local_wait, /* a submitted batch is done */
	.wait = local_wait,
	.cancel = local_cancel,
	.close = local_close,
};

/* ---- opening ---- */

static int bind_all(struct local *x, const uint8_t *has, struct moe_err *e)
{
	for (int l = 0; l < x->model.n_layers; l++) {
		if (x->model.layers[l].ffn.kind != MOE_FFN_MOE)
			continue;
		for (int i = 0; i < x->model.layers[l].ffn.experts; i++) {
			size_t at = (size_t)l * (size_t)x->max_experts + (size_t)i;
			int rc;

			if (has && !has[at])
				continue;
			rc = moe_bind_expert(x->tensors, &x->model, l, i, &x->weights[at], e);
			if (rc)
				return rc;
		}
	}
	return 0;
}

static int take_floats(struct local *x, size_t rows, size_t n, float **mem, struct moe_err *e)
{
	void *v = NULL;
	int rc = x->b->ops->alloc(x->b, rows * n * sizeof **mem, &v, e);

	*mem = v;
	return rc;
}

static int check_device(const struct local *x, size_t weights, size_t pairs, struct moe_err *e)
{
	size_t batch = sizeof(float) * (pairs * (size_t)(x->model.hidden + moe_model_max_expert_width(&x->model)) +
	                                2 * (size_t)x->max_rows * (size_t)x->model.hidden);
	struct moe_device_memory m;
	char a[32], b[32], c[32], d[32];
	size_t left;

	x->b->ops->memory(x->b, &m);
	left = m.used < m.cap ? m.cap - m.used : 0;
	if (m.cap == 0 || (weights <= left && batch <= left - weights))
		return 0;
	return moe_fail(e, MOE_E_NOMEM, "experts need %s of the device and a batch of %d rows %s, together %s; %s is left of it",
	                moe_size_text((double)weights, a), x->max_rows, moe_size_text((double)batch, b),
	                moe_size_text((double)weights + (double)batch, c), moe_size_text((double)left, d));
}

/* Bytes of the experts that are not there yet. */
static int new_bytes(const struct local *x, size_t *bytes, struct moe_err *e)
{
	*bytes = 0;
	for (size_t i = 0; i < all_experts(x); i++) {
		size_t one = 0;

		if (x->weights[i].gate.data && !x->uploads[i] &&
		    (!moe_upload_bytes(&x->weights[i], &one) || !moe_add_size(*bytes, one, bytes)))
			return moe_fail(e, MOE_E_NOMEM, "the experts' size overflows");
	}
	return 0;
}

/* What others have brought there already. */
static void share(struct local *x, const struct moe_sharing *with)
{
	const struct local *other = (const struct local *)with->experts;

	for (size_t i = 0; i < all_experts(x); i++)
		if (x->weights[i].gate.data && with->keep[i] && other->uploads[i])
			x->uploads[i] = moe_upload_keep(other->uploads[i]);
}

static int upload_rest(struct local *x, struct moe_err *e)
{
	int rc = 0, waited;

	for (size_t i = 0; i < all_experts(x) && !rc; i++) {
		if (!x->weights[i].gate.data)
			continue;
		if (!x->uploads[i])
			rc = moe_upload_new(x->b, &x->weights[i], &x->uploads[i], e);
		if (!rc)
			x->weights[i] = moe_upload_weights(x->uploads[i]);
	}
	waited = x->b->ops->sync(x->b, NULL, rc ? NULL : e);
	return rc ? rc : waited;
}

/* Memory of the device for weights and rows; nothing is taken unless there is room for all. */
static int move_to_device(struct local *x, size_t pairs, const struct moe_sharing *with, struct moe_err *e)
{
	size_t hidden = (size_t)x->model.hidden, bytes = 0;
	int rc;

	x->uploads = moe_calloc(all_experts(x), sizeof *x->uploads, "experts", e);
	if (!x->uploads)
		return MOE_E_NOMEM;
	if (with)
		share(x, with);
	rc = new_bytes(x, &bytes, e);
	rc = rc ? rc : check_device(x, bytes, pairs, e);
	rc = rc ? rc : take_floats(x, (size_t)x->max_rows, hidden, &x->x, e);
	rc = rc ? rc : take_floats(x, (size_t)x->max_rows, hidden, &x->y, e);
	rc = rc ? rc : upload_rest(x, e);
	return rc ? rc : moe_tensors_check(x->tensors, e);
}

static int open_local(struct local *x, const uint8_t *has, const struct moe_sharing *with, struct moe_err *e)
{
	size_t pairs = (size_t)x->max_rows * (size_t)x->max_k;
	int rc;

	x->weights = moe_calloc(all_experts(x), sizeof *x->weights, "experts", e);
	if (!x->weights)
		return MOE_E_NOMEM;
	rc = bind_all(x, has, e);
	rc = rc ? rc : moe_sorted_pairs_new(&x->sorted, x->max_experts, (int)pairs, e);
	if (!rc && !x->b->ops->host_memory)
		rc = move_to_device(x, pairs, with, e);
	rc = rc ? rc : take_floats(x, pairs, (size_t)x->model.hidden, &x->parts, e);
	return rc ? rc : take_floats(x, pairs, (size_t)moe_model_max_expert_width(&x->model), &x->scratch, e);
}

int moe_experts_local_beside(struct moe_backend *b, const struct moe_tensors *s, const struct moe_model *m, const uint8_t *has,
                             int max_rows, const struct moe_sharing *with, struct moe_experts **out, struct moe_err *e)
{
	struct local *x;
	int rc;

	if (max_rows < 1 || moe_experts_local_bytes(m, max_rows) == SIZE_MAX)
		return moe_fail(e, MOE_E_RANGE, "%d rows a batch: not possible", max_rows);
	x = moe_calloc(1, sizeof *x, "experts", e);
	if (!x)
		return MOE_E_NOMEM;
	x->base.ops = &local_ops;
	x->b = b;
	x->tensors = s;
	x->model = *m;
	x->max_experts = moe_model_max_experts(m);
	x->max_rows = max_rows;
	x->max_k = moe_model_max_top_k(m);
	rc = open_local(x, has, with, e);
	if (rc) {
		local_close(&x->base);
		return rc;
	}
	*out = &x->base;
	return 0;
}

int moe_experts_local(struct moe_backend *b, const struct moe_tensors *s, const struct moe_model *m, const uint8_t *has,
                      int max_rows, struct moe_experts **out, struct moe_err *e)
{
	return moe_experts_local_beside(b, s, m, has, max_rows, NULL, out, e);
}

/* ---- for servers ---- */

static int check_pairs(const struct local *x, const struct moe_pairs *p, struct moe_err *e)
{
	int rc = moe_batch_check_layer(&x->model, x->max_rows, p->layer, p->rows, e);

	if (rc)
		return rc;
	if (p->n < 0 || p->n > x->max_rows * x->max_k)
		return moe_fail(e, MOE_E_RANGE, "layer %d: %d pairs, at most %d", p->layer, p->n, x->max_rows * x->max_k);
	for (int i = 0; i < p->n; i++) {
		if (p->row[i] < 0 || p->row[i] >= p->rows)
			return moe_fail(e, MOE_E_RANGE, "layer %d: row %d, of %d", p->layer, p->row[i], p->rows);
		if (p->expert[i] < 0 || p->expert[i] >= x->model.layers[p->layer].ffn.experts ||
		    (i > 0 && p->expert[i] < p->expert[i - 1]))
			return moe_fail(e, MOE_E_RANGE, "layer %d: expert %d out of range or order", p->layer, p->expert[i]);
		if (!held(x, p->layer, p->expert[i]))
			return moe_fail(e, MOE_E_MISSING, "layer %d, expert %d is not held here", p->layer, p->expert[i]);
	}
	return 0;
}

int moe_experts_local_pairs(struct moe_experts *local, const struct moe_pairs *p, struct moe_err *e)
{
	struct local *x = (struct local *)local;
	struct moe_expert_group *groups = x->sorted.groups;
	float *y = x->x ? x->parts : p->y;
	const float *rows;
	int n_groups = 0, rc = check_pairs(x, p, e);

	if (rc)
		return rc;
	for (int i = 0; i < p->n; i++) {
		if (i == 0 || p->expert[i] != p->expert[i - 1])
			groups[n_groups++] = (struct moe_expert_group){*held(x, p->layer, p->expert[i]), i, 0};
		groups[n_groups - 1].pairs++;
	}
	rc = bring_rows(x, p->x, p->rows, &rows, e);
	rc = rc ? rc : x->b->ops->experts(x->b, NULL, y, rows, groups, n_groups, p->row, p->weight,
	                                  x->model.layers[p->layer].ffn.act, x->scratch, e);
	rc = rc ? rc : fetch_rows(x, p->y, p->n, y, e);
	return settle(x, rc, e);
}
