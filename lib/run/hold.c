/* What a server holds: the experts of one epoch, some of them shared with the epoch before. */
#include "run/hold.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"

struct moe_held {
	atomic_int users;
	const struct moe_model *model;
	uint64_t epoch;
	int wide, experts;
	uint8_t *has;                /* [n_layers, wide] */
	struct copy **copies;        /* [n_layers, wide]; NULL: not held */
	struct moe_tensors *views;   /* of all of them */
	struct moe_experts *local;
};

/* Being opened. */
struct opener {
	const struct moe_held_config *c;
	struct moe_source *s;
	struct moe_held *before, *h;
	struct moe_held_report *r;
	uint8_t *keep, *load;        /* [n_layers, wide] */
};

static size_t places(const struct moe_held *h)
{
	return (size_t)h->model->n_layers * (size_t)h->wide;
}

/* ---- is it the same model? ---- */

static bool same_ffn(const struct moe_ffn *a, const struct moe_ffn *b)
{
	return a->kind == b->kind && a->act == b->act && a->experts == b->experts && a->expert_width == b->expert_width &&
	       a->gate.top_k == b->gate.top_k;
}

static int check_model(const struct opener *o, struct moe_err *e)
{
	const struct moe_model *a = o->c->model, *b = &o->s->model;
	struct moe_hash found;
	bool same = a->n_layers == b->n_layers && a->hidden == b->hidden;
	int rc = moe_source_fingerprint(o->s, &found, e);

	for (int l = 0; same && l < a->n_layers; l++)
		same = same_ffn(&a->layers[l].ffn, &b->layers[l].ffn);
	if (rc || (same && strcmp(found.hex, o->c->fingerprint) == 0))
		return rc;
	return moe_fail(e, MOE_E_INPUT, "%s: another model (fingerprint %s, this server has %s): it needs servers of its own", o->s->path,
	                found.hex, o->c->fingerprint);
}

/* ---- what to hold, what of it is here ---- */

static int list(struct opener *o, const uint8_t *want, struct moe_err *e)
{
	const struct moe_model *m = o->c->model;
	struct moe_held *h = o->h;

	h->has = moe_calloc(places(h), 1, "list of experts", e);
	h->copies = moe_calloc(places(h), sizeof *h->copies, "list of experts", e);
	o->keep = moe_calloc(places(h), 1, "list of experts", e);
	o->load = moe_calloc(places(h), 1, "list of experts", e);
	if (!h->has || !h->copies || !o->keep || !o->load)
		return MOE_E_NOMEM;
	for (int l = 0; l < m->n_layers; l++)
		for (int x = 0; x < m->layers[l].ffn.experts; x++) {
			int at = l * h->wide + x;

			h->has[at] = want ? want[at] != 0
			                  : o->c->rank >= 0 && o->c->rank < o->s->placement.devices &&
			                    moe_placement_holds(&o->s->placement, o->c->rank, l, x);
			h->experts += h->has[at];
		}
	return 0;
}

static const struct moe_hash *hash_of(const struct opener *o, int layer, int expert)
{
	const struct moe_manifest_expert *x = moe_source_expert(o->s, o->c->rank, layer, expert);

	return x ? &x->hash : NULL;
}

/* Of the same epoch it is the same without a look; else its bytes must be. */
static bool is_here(const struct opener *o, int at, int layer, int expert)
{
	const struct copy *x = o->before ? o->before->copies[at] : NULL;
	const struct moe_hash *hash;

	if (!x)
		return false;
	if (o->before->epoch == o->h->epoch)
		return true;
	hash = hash_of(o, layer, expert);
	return hash && strcmp(hash->hex, x->hash.hex) == 0;
}

static void keep(struct opener *o)
{
	struct moe_held *h = o->h;

	for (int l = 0; l < h->model->n_layers; l++)
		for (int x = 0; x < h->model->layers[l].ffn.experts; x++) {
			int at = l * h->wide + x;

			if (!h->has[at])
				continue;
			o->keep[at] = is_here(o, at, l, x);
			o->load[at] = !o->keep[at];
			if (!o->keep[at])
				continue;
			h->copies[at] = copy_keep(o->before->copies[at]);
			o->r->kept++;
			o->r->kept_bytes += h->copies[at]->bytes;
		}
}

/* ---- memory ---- */

/* What loading adds.  Pages of mapped files count as free memory, so those of `before` are needed too; a source that is no shard set is in
 * memory, or its whole files were planned for. */
static int plan_memory(const struct opener *o, struct moe_err *e)
{
	bool mapped = o->c->weights == MOE_LOAD_MAP || o->c->weights == MOE_LOAD_READ;
	uint64_t load = 0, here = 0, buffers = moe_experts_local_bytes(o->c->model, o->c->max_rows), need, have = moe_memory_available();
	char a[32], b[32], c[32], d[32];

	for (int l = 0; l < o->h->model->n_layers; l++)
		for (int x = 0; x < o->h->model->layers[l].ffn.experts; x++)
			if (o->load[l * o->h->wide + x] && o->s->sharded)
				load += moe_source_expert_bytes(o->s, l, x);
	if (mapped && o->before)
		here = moe_held_bytes(o->before);
	if (!__builtin_add_overflow(load, buffers, &need) && !__builtin_add_overflow(need, here, &need) && need <= have)
		return 0;
	return moe_fail(e, MOE_E_NOMEM,
	                "%s: epoch %llu needs %s of experts and %s of buffers beside the %s that are held; %s is available", o->s->path,
	                (unsigned long long)o->h->epoch, moe_size_text((double)load, a), moe_size_text((double)buffers, b),
	                moe_size_text(o->before ? (double)moe_held_bytes(o->before) : 0, c), moe_size_text((double)have, d));
}

/* ---- loading ---- */

/* By the calling thread alone, and looked at. */
static int load_checked(struct opener *o, struct moe_tensors **t, struct moe_err *e)
{
	struct moe_team *alone = NULL;
	int rc = moe_source_experts(o->s, o->c->rank, o->load, o->c->tick.fn ? &o->c->tick : NULL, t, e);

	if (rc)
		return rc;
	rc = moe_team_new(1, &alone, e);
	rc = rc ? rc : moe_tensors_load(*t, o->c->weights, alone, o->c->tick.fn ? &o->c->tick : NULL, e);
	rc = rc ? rc : check_experts(o->s, *t, o->load, &o->c->tick, &o->r->probed, e);
	moe_team_free(alone);
	if (rc)
		moe_tensors_free(*t);
	return rc;
}

/* As fast as it goes: nobody is served yet. */
static int load_fast(struct opener *o, struct moe_tensors **t, struct moe_err *e)
{
	int rc = moe_source_tensors(o->s, o->c->rank, t, e);

	if (rc)
		return rc;
	rc = moe_tensors_load(*t, o->c->weights, o->c->team, o->c->tick.fn ? &o->c->tick : NULL, e);
	if (rc)
		moe_tensors_free(*t);
	return rc;
}

static int take_copies(struct opener *o, struct stock *k, struct moe_err *e)
{
	struct moe_held *h = o->h;
	int rc = 0;

	for (int l = 0; l < h->model->n_layers && !rc; l++)
		for (int x = 0; x < h->model->layers[l].ffn.experts && !rc; x++) {
			int at = l * h->wide + x;

			if (!o->load[at])
				continue;
			rc = copy_new(k, l, x, hash_of(o, l, x), &h->copies[at], e);
			if (rc)
				continue;
			o->r->loaded++;
			o->r->loaded_bytes += h->copies[at]->bytes;
		}
	return rc;
}

static int load(struct opener *o, struct moe_err *e)
{
	struct moe_tensors *t;
	struct stock *k;
	int rc;

	if (!memchr(o->load, 1, places(o->h)))
		return 0;
	rc = o->c->check ? plan_memory(o, e) : 0;
	rc = rc ? rc : o->c->check ? load_checked(o, &t, e) : load_fast(o, &t, e);
	if (rc)
		return rc;
	rc = stock_new(t, o->h->model, !o->s->sharded, &k, e);
	if (rc) {
		moe_tensors_free(t);
		return rc;
	}
	rc = take_copies(o, k, e);
	stock_release(k);
	return rc;
}

/* ---- life ---- */

static int open_held(struct opener *o, const uint8_t *want, struct moe_err *e)
{
	struct moe_held *h = o->h;
	struct moe_sharing with = {.experts = o->before ? o->before->local : NULL};
	int rc = check_model(o, e);

	rc = rc ? rc : list(o, want, e);
	if (rc)
		return rc;
	keep(o);
	rc = load(o, e);
	rc = rc ? rc : stock_views(h->copies, h->model, &h->views, e);
	with.keep = o->keep;
	return rc ? rc : moe_experts_local_beside(o->c->backend, h->views, h->model, h->has, o->c->max_rows,
	                                          o->before ? &with : NULL, &h->local, e);
}

int moe_held_open(const struct moe_held_config *c, struct moe_source *s, const uint8_t *want, struct moe_held *before,
                  struct moe_held **out, struct moe_held_report *r, struct moe_err *e)
{
	struct opener o = {.c = c, .s = s, .before = before, .r = r};
	int rc;

	*r = (struct moe_held_report){0};
	o.h = moe_calloc(1, sizeof *o.h, "experts", e);
	if (!o.h)
		return MOE_E_NOMEM;
	atomic_init(&o.h->users, 1);
	o.h->model = c->model;
	o.h->epoch = s->epoch;
	o.h->wide = moe_model_max_experts(c->model);
	rc = open_held(&o, want, e);
	free(o.keep);
	free(o.load);
	if (rc)
		moe_held_release(o.h);
	else
		*out = o.h;
	return rc;
}

struct moe_held *moe_held_keep(struct moe_held *h)
{
	atomic_fetch_add_explicit(&h->users, 1, memory_order_relaxed);
	return h;
}

void moe_held_release(struct moe_held *h)
{
	if (!h || atomic_fetch_sub_explicit(&h->users, 1, memory_order_acq_rel) > 1)
		return;
	if (h->local)
		h->local->ops->close(h->local);
	moe_tensors_free(h->views);
	for (size_t i = 0; h->copies && i < places(h); i++)
		copy_release(h->copies[i]);
	free(h->copies);
	free(h->has);
	free(h);
}

static void release_hold(void *ctx)
{
	moe_held_release(ctx);
}

struct moe_hold moe_held_hold(struct moe_held *h)
{
	return (struct moe_hold){.epoch = h->epoch, .has = h->has, .experts = h->local, .release = release_hold, .ctx = moe_held_keep(h)};
}

/* ---- looking ---- */

uint64_t moe_held_epoch(const struct moe_held *h)
{
	return h->epoch;
}

const uint8_t *moe_held_has(const struct moe_held *h)
{
	return h->has;
}

int moe_held_count(const struct moe_held *h)
{
	return h->experts;
}

uint64_t moe_held_bytes(const struct moe_held *h)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < places(h); i++)
		bytes += h->copies[i] ? h->copies[i]->bytes : 0;
	return bytes;
}

bool moe_held_expert(const struct moe_held *h, int layer, int expert, struct moe_expert_weights *out)
{
	return h->copies[layer * h->wide + expert] && moe_bind_expert(h->views, h->model, layer, expert, out, NULL) == 0;
}

int moe_held_check(const struct moe_held *h, struct moe_err *e)
{
	return moe_tensors_check(h->views, e);
}
