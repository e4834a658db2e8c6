/* The pager's plan: which experts stay on the device, where each lies, and what all of it takes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "pool/private.h"

static int check_config(const struct moe_pager_config *c, struct moe_err *e)
{
	if (!(c->resident >= 0 && c->resident <= 1))
		return moe_fail(e, MOE_E_RANGE, "a share of %g of the experts: from 0 to 1", c->resident);
	if (c->pages < 1)
		return moe_fail(e, MOE_E_RANGE, "%d pages a layer: at least 1", c->pages);
	return 0;
}

/* ---- what there is ---- */

static int bind_layer(struct moe_pager_plan *y, const struct moe_model *m, const struct moe_tensors *tensors, int layer,
                      enum moe_quant q, struct moe_err *e)
{
	for (int i = 0; i < y->experts[layer]; i++) {
		struct moe_expert_weights *w = &y->w[moe_pager_index(y, layer, i)];
		int rc = tensors ? moe_pool_bind(tensors, m, layer, i, w, e) : 0;

		if (rc)
			return rc;
		if (!tensors)
			*w = moe_pool_imagine(m, layer, q);
		if (!moe_add_size(y->sizes.all, moe_pool_expert_bytes(w), &y->sizes.all))
			return moe_fail(e, MOE_E_NOMEM, "the experts of %d layers: too large", y->n_layers);
	}
	return 0;
}

static int bind_all(struct moe_pager_plan *y, const struct moe_model *m, const struct moe_tensors *tensors, enum moe_quant q,
                    struct moe_err *e)
{
	int rc = 0;

	for (int l = 0; l < y->n_layers && rc == 0; l++) {
		if (m->layers[l].ffn.kind != MOE_FFN_MOE)
			continue;
		y->experts[l] = m->layers[l].ffn.experts;
		rc = bind_layer(y, m, tensors, l, q, e);
	}
	return rc;
}

static int allocate(struct moe_pager_plan *y, struct moe_err *e)
{
	size_t layers = (size_t)y->n_layers, all = layers * (size_t)y->max_experts;

	y->w = moe_calloc(all, sizeof *y->w, "experts", e);
	y->at = moe_calloc(all, sizeof *y->at, "experts", e);
	y->experts = moe_calloc(layers, sizeof *y->experts, "layers", e);
	y->residents = moe_calloc(layers, sizeof *y->residents, "layers", e);
	y->moved = moe_calloc(layers, sizeof *y->moved, "layers", e);
	return y->w && y->at && y->experts && y->residents && y->moved ? 0 : MOE_E_NOMEM;
}

void moe_pager_plan_close(struct moe_pager_plan *y)
{
	free(y->w);
	free(y->at);
	free(y->experts);
	free(y->residents);
	free(y->moved);
	memset(y, 0, sizeof *y);
}

/* ---- who stays ---- */

/* A share of `bytes`, to the nearest byte, so that k of n equal experts are what k / n leaves room for. */
static size_t part_of(size_t bytes, double share)
{
	double part = floor(share * (double)bytes + 0.5);

	return part < (double)bytes ? (size_t)part : bytes;
}

/* The first experts of a layer that fit into `room` bytes of residents of all layers so far. */
static void keep_first(struct moe_pager_plan *y, int layer, size_t room)
{
	int keep = 0;

	for (; keep < y->experts[layer]; keep++) {
		size_t k = moe_pager_index(y, layer, keep), bytes = moe_pool_expert_bytes(&y->w[k]);

		if (bytes > room - y->sizes.resident)
			break;
		y->at[k] = y->sizes.resident;
		y->sizes.resident += bytes;
	}
	y->residents[layer] = keep;
	y->sizes.resident_experts += keep;
}

static void move_others(struct moe_pager_plan *y, int layer)
{
	size_t moved = 0;

	for (int i = y->residents[layer]; i < y->experts[layer]; i++) {
		size_t k = moe_pager_index(y, layer, i);

		y->at[k] = moved;
		moved += moe_pool_expert_bytes(&y->w[k]);
	}
	y->moved[layer] = moved;
	y->sizes.layer = moved > y->sizes.layer ? moved : y->sizes.layer;
	y->sizes.moved_experts += y->experts[layer] - y->residents[layer];
}

/* By error diffusion: after each layer as many experts have been kept as fit into the share of the bytes so far, so that what
 * does not fit into one layer's share is left to the next. */
static void spread(struct moe_pager_plan *y, double share)
{
	size_t so_far = 0;

	y->sizes.resident = y->sizes.layer = 0;
	y->sizes.resident_experts = y->sizes.moved_experts = 0;
	for (int l = 0; l < y->n_layers; l++) {
		for (int i = 0; i < y->experts[l]; i++)
			so_far += moe_pool_expert_bytes(&y->w[moe_pager_index(y, l, i)]);
		keep_first(y, l, part_of(so_far, share));
		move_others(y, l);
	}
}

/* ---- what it takes ---- */

static int add_up(struct moe_pager_plan *y, const struct moe_pager_config *c, struct moe_err *e)
{
	struct moe_pager_sizes *s = &y->sizes;
	size_t page = s->layer / (size_t)c->pages + (s->layer % (size_t)c->pages != 0), sum;

	if (!moe_mul_size(s->layer, 2, &s->slots) || !moe_add_size(s->resident, s->slots, &sum))
		return moe_fail(e, MOE_E_NOMEM, "two slots for a layer's experts: too large");
	s->page = moe_pool_round(page);
	s->pinned = c->pinned && !c->from_disk ? s->all - s->resident : s->layer;
	s->staging = c->from_disk && !c->pinned ? s->layer : 0;
	return 0;
}

int moe_pager_plan_open(const struct moe_model *m, const struct moe_tensors *tensors, const struct moe_pager_config *c,
                        struct moe_pager_plan *out, struct moe_err *e)
{
	struct moe_pager_plan y = {.n_layers = m->n_layers, .max_experts = moe_model_max_experts(m)};
	int rc = check_config(c, e);

	rc = rc ? rc : allocate(&y, e);
	rc = rc ? rc : bind_all(&y, m, tensors, c->quant, e);
	if (rc == 0) {
		spread(&y, c->resident);
		rc = add_up(&y, c, e);
	}
	if (rc)
		moe_pager_plan_close(&y);
	else
		*out = y;
	return rc;
}

int moe_pager_plan(const struct moe_model *m, const struct moe_tensors *tensors, const struct moe_pager_config *c,
                   struct moe_pager_sizes *out, struct moe_err *e)
{
	struct moe_pager_plan y;
	int rc = moe_pager_plan_open(m, tensors, c, &y, e);

	if (rc)
		return rc;
	*out = y.sizes;
	moe_pager_plan_close(&y);
	return 0;
}

/* ---- what would fit ---- */

static bool fits(struct moe_pager_plan *y, double share, size_t bytes)
{
	spread(y, share);
	return y->sizes.resident <= bytes && y->sizes.layer <= (bytes - y->sizes.resident) / 2;
}

/* From the most experts that fit without slots downwards: what the slots take is two layers at most, so it is not far. */
static int search(struct moe_pager_plan *y, size_t bytes, double *share, struct moe_err *e)
{
	int n = y->sizes.resident_experts + y->sizes.moved_experts, k = n;
	size_t least = SIZE_MAX;
	char a[32], b[32];

	if (bytes < y->sizes.all)
		k = (int)((double)bytes / (double)y->sizes.all * n) + 1;
	for (k = k < n ? k : n; k >= 0; k--) {
		*share = n ? (double)k / n : 0;
		if (fits(y, *share, bytes))
			return 0;
		if (y->sizes.resident + 2 * y->sizes.layer < least)
			least = y->sizes.resident + 2 * y->sizes.layer;
	}
	return moe_fail(e, MOE_E_RANGE, "the experts need %s of the device at least (two slots for a layer's), %s is there",
	                moe_size_text((double)least, a), moe_size_text((double)bytes, b));
}

int moe_pager_share_for(const struct moe_model *m, const struct moe_tensors *tensors, const struct moe_pager_config *c,
                        size_t device_bytes, double *share, struct moe_err *e)
{
	struct moe_pager_config any = *c;
	struct moe_pager_plan y;
	double found = 0;
	int rc;

	any.resident = 0;
	rc = moe_pager_plan_open(m, tensors, &any, &y, e);
	if (rc)
		return rc;
	rc = search(&y, device_bytes, &found, e);
	if (rc == 0)
		*share = found;
	moe_pager_plan_close(&y);
	return rc;
}

/* ---- what moves, as bytes ---- */

void moe_pager_pieces(const struct moe_pager_plan *y, int layer, size_t from, size_t to, moe_pager_piece_fn *fn, void *ctx)
{
	for (int i = y->residents[layer]; i < y->experts[layer]; i++) {
		const size_t k = moe_pager_index(y, layer, i);
		struct moe_pool_part parts[3];

		moe_pool_parts(&y->w[k], parts);
		for (int j = 0; j < 3; j++) {
			size_t at = y->at[k] + parts[j].at, begin = at > from ? at : from;
			size_t end = at + parts[j].bytes < to ? at + parts[j].bytes : to;

			if (begin < end)
				fn(ctx, begin, parts[j].data + (begin - at), end - begin);
		}
	}
}
