/* A batch on its way through the slots.
 *
 * Its experts are put in an order: those that the device holds, then the others by number.  The others are fetched in this order, as
 * many ahead as slots are free for them, while those that are there are computed, all at once; then each is computed when it has come,
 * and leaves its slot to who still lacks one.  What an expert gives goes to places of its own, and a row's are added in ascending order of
 * experts when all have been computed: the order in which they come shows nowhere. */
#include <string.h>

#include "pool/pooled.h"

static int number(const struct moe_pooled *x, int expert)
{
	return x->batch->layer * x->max_experts + expert;
}

static const struct moe_expert_weights *source(const struct moe_pooled *x, int expert)
{
	return &x->w[number(x, expert)];
}

static unsigned char *slot_at(const struct moe_pooled *x, int slot)
{
	return x->slots + (size_t)slot * x->slot_bytes;
}

/* ---- the order ---- */

/* rank[expert]: is it needed? */
static void mark_needed(struct moe_pooled *x)
{
	const struct moe_batch *b = x->batch;

	memset(x->rank, 0, (size_t)x->max_experts * sizeof *x->rank);
	for (int i = 0; i < b->rows * b->k; i++)
		x->rank[b->ids[i]] = 1;
}

static void add_to_order(struct moe_pooled *x, int expert)
{
	x->rank[expert] = x->n_order;
	x->order[x->n_order++] = expert;
}

static void make_order(struct moe_pooled *x)
{
	int experts = x->model.layers[x->batch->layer].ffn.experts, missing = 0;

	mark_needed(x);
	x->n_order = 0;
	for (int i = 0; i < experts; i++) {
		int slot;

		if (!x->rank[i])
			continue;
		slot = moe_pool_cache_use(&x->cache, number(x, i));
		if (slot < 0) {
			x->ranks[missing++] = i; /* for the moment; there are no more experts than room for pairs */
			continue;
		}
		x->lies[x->n_order] = moe_pool_at(source(x, i), slot_at(x, slot));
		add_to_order(x, i);
	}
	x->n_there = x->n_asked = x->n_order;
	for (int i = 0; i < missing; i++)
		add_to_order(x, x->ranks[i]);
	x->stats.hits += (uint64_t)x->n_there;
	x->stats.misses += (uint64_t)missing;
}

/* Pairs are sorted by the places of their experts in the order, so that what is computed at once stands together. */
static void sort(struct moe_pooled *x)
{
	const struct moe_batch *b = x->batch;

	for (int i = 0; i < b->rows * b->k; i++)
		x->ranks[i] = x->rank[b->ids[i]];
	moe_sort_pairs(&x->sorted, x->ranks, b->weights, b->rows, b->k, NULL, x->lies);
}

/* ---- fetching and computing ---- */

/* Ask for experts while there are slots.  after: what has to be computed before the slots that are free now may be filled. */
static void ask(struct moe_pooled *x, struct moe_mark *after)
{
	while (x->n_asked < x->n_order) {
		int i = x->n_asked, expert = x->order[i], slot = moe_pool_cache_put(&x->cache, number(x, expert));
		struct moe_pool_fetch job = {.from = source(x, expert), .after = after, .done = x->fetched[i]};

		if (slot < 0)
			return;
		job.to = slot_at(x, slot);
		x->lies[i] = moe_pool_at(job.from, job.to);
		x->stats.bytes += moe_matrix_bytes(&job.from->gate) + moe_matrix_bytes(&job.from->up) + moe_matrix_bytes(&job.from->down);
		moe_pool_fetcher_add(&x->fetcher, &job);
		x->n_asked++;
	}
}

/* Those from place `from` to `to` in the order, at once. */
static int compute(struct moe_pooled *x, int from, int to, struct moe_err *e)
{
	const struct moe_sorted_pairs *s = &x->sorted;
	const struct moe_ffn *f = &x->model.layers[x->batch->layer].ffn;
	size_t first = (size_t)s->groups[from].first;
	int rc;

	for (int i = from; i < to; i++) {
		s->groups[i].w = x->lies[i];
		s->groups[i].first -= (int)first;
	}
	rc = x->device->ops->experts(x->device, x->q, x->parts + first * (size_t)x->model.hidden, x->x, s->groups + from, to - from,
	                             s->x_row + first, s->weight + first, f->act, x->scratch + first * (size_t)f->expert_width, e);
	rc = rc ? rc : x->device->ops->event_record(x->device, x->q, x->computed[from], e);
	for (int i = from; i < to; i++)
		moe_pool_cache_let(&x->cache, number(x, x->order[i]));
	return rc;
}

static int compute_all(struct moe_pooled *x, struct moe_err *e)
{
	int rc = 0;

	ask(x, NULL);
	if (x->n_there) {
		rc = compute(x, 0, x->n_there, e);
		if (rc == 0)
			ask(x, x->computed[0]);
	}
	for (int i = x->n_there; i < x->n_order && rc == 0; i++) {
		rc = moe_pool_fetcher_wait(&x->fetcher, i + 1 - x->n_there, e);
		rc = rc ? rc : x->device->ops->event_wait(x->device, x->q, x->fetched[i], e);
		rc = rc ? rc : compute(x, i, i + 1, e);
		if (rc == 0)
			ask(x, x->computed[i]);
	}
	return rc;
}

static size_t row_bytes(const struct moe_pooled *x)
{
	return (size_t)x->batch->rows * (size_t)x->model.hidden * sizeof(float);
}

static int put_on_streams(struct moe_pooled *x, struct moe_err *e)
{
	const struct moe_backend_ops *ops = x->device->ops;
	const struct moe_batch *b = x->batch;
	int rc;

	memcpy(x->host_x, b->x, row_bytes(x));
	rc = ops->copy_in(x->device, x->q, x->x, x->host_x, row_bytes(x), e);
	rc = rc ? rc : compute_all(x, e);
	rc = rc ? rc : ops->combine(x->device, x->q, x->y, x->parts, x->sorted.slot, b->rows, b->k, x->model.hidden, e);
	return rc ? rc : ops->copy_out(x->device, x->q, x->host_y, x->y, row_bytes(x), e);
}

/* ---- a batch ---- */

/* Wait until nothing is under way; rc: why it is over already. */
static int finish(struct moe_pooled *x, int rc, struct moe_err *e)
{
	int fetched = moe_pool_fetcher_end(&x->fetcher, rc ? NULL : e), computed;

	rc = rc ? rc : fetched;
	computed = x->device->ops->sync(x->device, x->q, rc ? NULL : e);
	rc = rc ? rc : computed;
	if (rc == 0 && x->n_asked > x->n_there)
		rc = moe_tensors_check(x->tensors, e);
	for (int i = 0; i < x->n_asked; i++) {
		int expert = number(x, x->order[i]);

		moe_pool_cache_let(&x->cache, expert);
		if (rc && i >= x->n_there)
			moe_pool_cache_drop(&x->cache, expert); /* it may not have come whole */
	}
	if (rc)
		memset(x->batch->failed, 1, (size_t)x->batch->rows);
	else if (x->batch->rows)
		memcpy(x->batch->y, x->host_y, row_bytes(x));
	x->batch = NULL;
	return rc;
}

int moe_pooled_begin(struct moe_pooled *x, const struct moe_batch *b, struct moe_err *e)
{
	int rc;

	x->copy = *b;
	x->batch = &x->copy;
	memset(b->failed, 0, (size_t)b->rows);
	make_order(x);
	sort(x);
	rc = b->rows ? put_on_streams(x, e) : 0;
	return rc ? finish(x, rc, e) : 0;
}

int moe_pooled_end(struct moe_pooled *x, struct moe_err *e)
{
	return finish(x, 0, e);
}
