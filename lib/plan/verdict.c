/* Static choice, cache, or neither: measured on the half of a trace that the choice was not made from. */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/replay.h"

#define WORTH_IT 0.9 /* of the misses of something simpler: less must be left */

const char *moe_advice_name(enum moe_advice a)
{
	static const char *const names[] = {"static", "cache", "neither"};

	return names[a];
}

struct survey {
	const struct moe_replay *how;
	int layers, experts;
	uint64_t *tokens, *seen;     /* [layers] lines in all; so far */
	double *uses;                /* [layers * experts] in the first half */
	bool *chosen;                /* [layers * experts] */
	double hits, uniform, accesses; /* in the second half */
	const struct moe_model *m;
};

static int each_line(const char *trace, struct survey *s, void (*visit)(struct survey *s, const struct moe_trace_line *l),
                     struct moe_err *e)
{
	struct moe_trace *t;
	struct moe_trace_line l;
	bool more = true;
	int rc = moe_trace_open(trace, s->m, &t, e);

	if (rc)
		return rc;
	while (rc == 0 && more) {
		rc = moe_trace_next(t, &l, &more, e);
		if (rc == 0 && more && moe_replay_counts(s->how, &l))
			visit(s, &l);
	}
	moe_trace_close(t);
	return rc;
}

static void count(struct survey *s, const struct moe_trace_line *l)
{
	s->tokens[l->layer]++;
}

static uint64_t half(const struct survey *s)
{
	uint64_t most = 0;

	for (int l = 0; l < s->layers; l++)
		most = s->tokens[l] > most ? s->tokens[l] : most;
	return most / 2;
}

/* The experts of a layer that were used most; of equals the lower number. */
static void choose(struct survey *s, int layer)
{
	double *uses = s->uses + (size_t)layer * (size_t)s->experts;
	bool *chosen = s->chosen + (size_t)layer * (size_t)s->experts;

	for (int i = 0; i < s->how->slots && i < s->experts; i++) {
		int best = -1;

		for (int x = 0; x < s->experts; x++)
			if (!chosen[x] && (best < 0 || uses[x] > uses[best]))
				best = x;
		chosen[best] = true;
	}
}

static int experts_in(const struct survey *s, int layer)
{
	return s->m ? s->m->layers[layer].ffn.experts : s->experts;
}

static void measure(struct survey *s, const struct moe_trace_line *l)
{
	size_t row = (size_t)l->layer * (size_t)s->experts;
	int experts = experts_in(s, l->layer);
	double share = s->how->slots < experts ? (double)s->how->slots / experts : 1;

	if (s->seen[l->layer]++ < half(s)) {
		for (int i = 0; i < l->n; i++)
			s->uses[row + (size_t)l->ids[i]]++;
		return;
	}
	if (s->seen[l->layer] == half(s) + 1)
		choose(s, l->layer);
	for (int i = 0; i < l->n; i++)
		s->hits += s->chosen[row + (size_t)l->ids[i]];
	s->accesses += l->n;
	s->uniform += share * l->n;
}

static int survey(const char *trace, const struct moe_model *m, const struct moe_replay *how, struct survey *s, struct moe_err *e)
{
	struct moe_trace *t;
	size_t all;
	int rc = moe_trace_open(trace, m, &t, e);

	if (rc)
		return rc;
	*s = (struct survey){.how = how, .layers = moe_trace_header(t)->layers, .experts = moe_trace_header(t)->experts, .m = m};
	moe_trace_close(t);
	all = (size_t)s->layers * (size_t)s->experts;
	s->tokens = moe_calloc((size_t)s->layers, sizeof *s->tokens, "a trace", e);
	s->seen = moe_calloc((size_t)s->layers, sizeof *s->seen, "a trace", e);
	s->uses = moe_calloc(all, sizeof *s->uses, "a trace", e);
	s->chosen = moe_calloc(all, sizeof *s->chosen, "a trace", e);
	if (!s->tokens || !s->seen || !s->uses || !s->chosen)
		return MOE_E_NOMEM;
	rc = each_line(trace, s, count, e);
	rc = rc ? rc : each_line(trace, s, measure, e);
	if (rc == 0 && s->accesses == 0)
		rc = moe_fail(e, MOE_E_INPUT, "%s: too few %stokens to judge by", trace, how->prefill ? "" : "generated ");
	return rc;
}

static void survey_close(struct survey *s)
{
	free(s->tokens);
	free(s->seen);
	free(s->uses);
	free(s->chosen);
}

static enum moe_advice advise(const struct moe_verdict *v)
{
	double blind = 1 - v->uniform, fixed = 1 - v->fixed, cache = 1 - v->cache[v->best];

	if (cache < WORTH_IT * blind && cache < WORTH_IT * fixed)
		return MOE_ADVISE_CACHE;
	return fixed < WORTH_IT * blind ? MOE_ADVISE_STATIC : MOE_ADVISE_NEITHER;
}

int moe_cache_verdict(const char *trace, const struct moe_model *m, const struct moe_replay *how, struct moe_verdict *out,
                      struct moe_err *e)
{
	struct moe_replay each = *how;
	struct moe_replay_result r;
	struct survey s = {.layers = 0};
	int rc = how->slots < 1 ? moe_fail(e, MOE_E_RANGE, "%d slots: at least 1", how->slots) : survey(trace, m, how, &s, e);

	*out = (struct moe_verdict){.best = MOE_CACHE_LRU};
	if (rc == 0) {
		out->uniform = s.uniform / s.accesses;
		out->fixed = s.hits / s.accesses;
		each.skip = half(&s);
	}
	for (int c = 0; c < MOE_CACHES && rc == 0; c++) {
		each.policy = (enum moe_cache)c;
		rc = moe_cache_replay(trace, m, &each, NULL, NULL, &r, e);
		if (rc)
			break;
		out->cache[c] = r.all_hits / r.all_accesses;
		out->tokens = r.tokens;
		if (out->cache[c] > out->cache[out->best])
			out->best = (enum moe_cache)c;
		moe_replay_result_free(&r);
	}
	survey_close(&s);
	if (rc == 0)
		out->advice = advise(out);
	return rc;
}
