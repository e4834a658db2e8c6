/* Caches of experts, replayed offline over a trace (moe-trace(5)): what would have been there when a token wanted it.  Time is
 * counted in tokens of a layer, so that layers are comparable in a cache that they share. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/replay.h"

#define HALF_LIFE 256.0          /* tokens after which a use counts half */

struct slot {
	int layer, expert;
	uint64_t loaded;             /* tokens of its layer when it came */
};
/* One layer's slots, or those of all. */
struct cache {
	struct slot *slot;
	int n, cap;
};
struct replay {
	const struct moe_replay *how;
	struct moe_replay_result *out;
	int layers, experts;
	struct cache *cache;         /* [layers], or one */
	int *where;                  /* [layers * experts] slot; -1: not there */
	double *uses;                /* [layers * experts] as of the last use, older ones count less */
	uint64_t *last;              /* [layers * experts] tokens of the layer at the last use */
	uint64_t *now;               /* [layers] tokens so far */
	moe_expert_bytes *bytes;
	void *ctx;
};

static const char *const names[] = {"lru", "frequency", "grace"};

const char *moe_cache_name(enum moe_cache c)
{
	return names[c];
}

bool moe_cache_named(const char *name, enum moe_cache *out)
{
	for (int i = 0; i < MOE_CACHES; i++)
		if (strcmp(name, names[i]) == 0) {
			*out = (enum moe_cache)i;
			return true;
		}
	return false;
}

static size_t cell(const struct replay *r, int layer, int expert)
{
	return (size_t)layer * (size_t)r->experts + (size_t)expert;
}

/* ---- which one goes ---- */

/* How much a slot is worth keeping; below 0: it must stay. */
static double worth(const struct replay *r, const struct slot *s, const struct moe_trace_line *wanted)
{
	double idle = (double)(r->now[s->layer] - r->last[cell(r, s->layer, s->expert)]);

	if (s->layer == wanted->layer)
		for (int i = 0; i < wanted->n; i++)
			if (wanted->ids[i] == s->expert)
				return -1;
	if (r->how->policy == MOE_CACHE_GRACE && r->now[s->layer] - s->loaded < (uint64_t)r->how->grace)
		return -1;
	if (r->how->policy == MOE_CACHE_FREQUENCY)
		return r->uses[cell(r, s->layer, s->expert)] * exp2(-idle / HALF_LIFE) / (idle + 1);
	return 1 / (idle + 1);
}

/* The slot worth least; -1: all must stay. */
static int victim(const struct replay *r, const struct cache *c, const struct moe_trace_line *wanted)
{
	double least = INFINITY;
	int best = -1;

	for (int i = 0; i < c->n; i++) {
		double w = worth(r, &c->slot[i], wanted);

		if (w >= 0 && w < least) {
			least = w;
			best = i;
		}
	}
	return best;
}

static void load(struct replay *r, struct cache *c, const struct moe_trace_line *l, int expert)
{
	bool fresh = c->n < c->cap;
	int i = fresh ? c->n++ : victim(r, c, l);

	if (i < 0)
		return; /* used from where it lies */
	if (!fresh)
		r->where[cell(r, c->slot[i].layer, c->slot[i].expert)] = -1;
	c->slot[i] = (struct slot){l->layer, expert, r->now[l->layer]};
	r->where[cell(r, l->layer, expert)] = i;
}

static void use(struct replay *r, const struct moe_trace_line *l, int expert)
{
	size_t at = cell(r, l->layer, expert);
	bool hit = r->where[at] >= 0, counted = r->now[l->layer] > r->how->skip;

	r->uses[at] = 1 + r->uses[at] * exp2(-(double)(r->now[l->layer] - r->last[at]) / HALF_LIFE);
	r->last[at] = r->now[l->layer];
	if (!hit)
		load(r, &r->cache[r->how->global ? 0 : l->layer], l, expert);
	if (!counted)
		return;
	r->out->accesses[l->layer]++;
	r->out->hits[l->layer] += hit;
	if (!hit && r->bytes)
		r->out->bytes += (double)r->bytes(r->ctx, l->layer, expert);
}

/* ---- over a trace ---- */

static int read_lines(struct replay *r, struct moe_trace *t, struct moe_err *e)
{
	struct moe_trace_line l;
	bool more = true;
	int rc = 0;

	while (rc == 0 && more) {
		rc = moe_trace_next(t, &l, &more, e);
		if (rc || !more || !moe_replay_counts(r->how, &l))
			continue;
		r->now[l.layer]++;
		for (int i = 0; i < l.n; i++)
			use(r, &l, l.ids[i]);
	}
	return rc;
}

/* A shared cache has as many slots as the layers would have each for itself. */
static int open_caches(struct replay *r, const struct moe_model *m, struct moe_err *e)
{
	int n = r->how->global ? 1 : r->layers, shared = m ? moe_model_moe_layers(m) : r->layers;
	size_t all = (size_t)r->layers * (size_t)r->experts;
	int64_t cap = (int64_t)r->how->slots * (r->how->global ? shared : 1), most = (int64_t)all;

	r->where = moe_calloc(all, sizeof *r->where, "replay", e);
	r->uses = moe_calloc(all, sizeof *r->uses, "replay", e);
	r->last = moe_calloc(all, sizeof *r->last, "replay", e);
	r->now = moe_calloc((size_t)r->layers, sizeof *r->now, "replay", e);
	r->cache = moe_calloc((size_t)n, sizeof *r->cache, "replay", e);
	if (!r->where || !r->uses || !r->last || !r->now || !r->cache)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < all; i++)
		r->where[i] = -1;
	for (int i = 0; i < n; i++) {
		r->cache[i].cap = (int)(cap < most ? cap : most);
		r->cache[i].slot = moe_calloc((size_t)r->cache[i].cap, sizeof *r->cache[i].slot, "replay", e);
		if (!r->cache[i].slot)
			return MOE_E_NOMEM;
	}
	return 0;
}

static void close_caches(struct replay *r)
{
	for (int i = 0; r->cache && i < (r->how->global ? 1 : r->layers); i++)
		free(r->cache[i].slot);
	free(r->cache);
	free(r->where);
	free(r->uses);
	free(r->last);
	free(r->now);
}

static void sum_up(struct replay *r)
{
	for (int l = 0; l < r->layers; l++) {
		uint64_t counted = r->now[l] > r->how->skip ? r->now[l] - r->how->skip : 0;

		r->out->all_hits += r->out->hits[l];
		r->out->all_accesses += r->out->accesses[l];
		r->out->tokens = counted > r->out->tokens ? counted : r->out->tokens;
	}
}

bool moe_replay_counts(const struct moe_replay *how, const struct moe_trace_line *l)
{
	return how->prefill || !l->prefill;
}

int moe_cache_replay(const char *trace, const struct moe_model *m, const struct moe_replay *how, moe_expert_bytes *bytes, void *ctx,
                     struct moe_replay_result *out, struct moe_err *e)
{
	struct replay r = {.how = how, .out = out, .bytes = bytes, .ctx = ctx};
	struct moe_trace *t = NULL;
	int rc;

	*out = (struct moe_replay_result){.layers = 0};
	if (how->slots < 1 || how->grace < 0)
		return moe_fail(e, MOE_E_RANGE, "%d slots a layer, %d tokens of grace: at least 1 and 0", how->slots, how->grace);
	rc = moe_trace_open(trace, m, &t, e);
	if (rc)
		return rc;
	r.layers = out->layers = moe_trace_header(t)->layers;
	r.experts = moe_trace_header(t)->experts;
	out->hits = moe_calloc((size_t)r.layers, sizeof *out->hits, "replay", e);
	out->accesses = moe_calloc((size_t)r.layers, sizeof *out->accesses, "replay", e);
	rc = out->hits && out->accesses ? open_caches(&r, m, e) : MOE_E_NOMEM;
	rc = rc ? rc : read_lines(&r, t, e);
	if (rc == 0)
		sum_up(&r);
	close_caches(&r);
	moe_trace_close(t);
	if (rc)
		moe_replay_result_free(out);
	return rc;
}

void moe_replay_result_free(struct moe_replay_result *r)
{
	free(r->hits);
	free(r->accesses);
	*r = (struct moe_replay_result){.layers = 0};
}
