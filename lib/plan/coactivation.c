/* Which experts tokens choose together: a sample of so many tokens a layer, every token with the same chance. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/coactivation.h"

#define SAMPLE 2048              /* tokens of a layer that are kept */

struct layer {
	int32_t *kept;               /* [SAMPLE][top_k], each ended by -1 where shorter */
	int experts, top_k;
	uint64_t seen, random;
	struct moe_choices choices;
	bool sorted;                 /* choices are those of kept */
};
struct moe_coactivation {
	int layers;
	struct layer *layer;
};

int moe_coactivation_new(const struct moe_model *m, struct moe_coactivation **out, struct moe_err *e)
{
	struct moe_coactivation *c = moe_calloc(1, sizeof *c, "coactivation", e);

	if (c)
		c->layer = moe_calloc((size_t)m->n_layers, sizeof *c->layer, "coactivation", e);
	if (!c || !c->layer) {
		free(c);
		return MOE_E_NOMEM;
	}
	c->layers = m->n_layers;
	for (int l = 0; l < m->n_layers; l++) {
		const struct moe_ffn *f = &m->layers[l].ffn;
		struct layer *y = &c->layer[l];

		*y = (struct layer){.experts = f->experts, .top_k = f->gate.top_k, .random = (uint64_t)l + 1};
		if (f->experts && !(y->kept = moe_calloc((size_t)SAMPLE * (size_t)y->top_k, sizeof *y->kept, "coactivation", e))) {
			moe_coactivation_free(c);
			return MOE_E_NOMEM;
		}
	}
	*out = c;
	return 0;
}

static void drop_choices(struct moe_choices *c)
{
	free(c->first);
	free(c->ids);
	free(c->of);
	free(c->token);
	*c = (struct moe_choices){.tokens = 0};
}

void moe_coactivation_free(struct moe_coactivation *c)
{
	if (!c)
		return;
	for (int l = 0; l < c->layers; l++) {
		free(c->layer[l].kept);
		drop_choices(&c->layer[l].choices);
	}
	free(c->layer);
	free(c);
}

/* Where the next token goes: after the others, or, once there are enough, in place of one at random or (-1) nowhere
 * (reservoir sampling: Vitter's algorithm R). */
static int64_t seat(struct layer *y)
{
	uint64_t n = y->seen++;

	if (n < SAMPLE)
		return (int64_t)n;
	y->random = y->random * 6364136223846793005u + 1442695040888963407u;
	n = (y->random >> 11) % (n + 1);
	return n < SAMPLE ? (int64_t)n : -1;
}

void moe_coactivation_add(struct moe_coactivation *c, int layer, const int32_t *ids, int n)
{
	struct layer *y = &c->layer[layer];
	int64_t at = seat(y);
	int32_t *row;

	if (at < 0)
		return;
	row = y->kept + at * y->top_k;
	for (int i = 0; i < y->top_k; i++)
		row[i] = i < n ? ids[i] : -1;
	y->sorted = false;
}

/* ---- the sample by token and by expert ---- */

static int by_token(const struct layer *y, struct moe_choices *c)
{
	int n = 0;

	for (int t = 0; t < c->tokens; t++) {
		c->first[t] = n;
		for (int i = 0; i < y->top_k && y->kept[(size_t)t * (size_t)y->top_k + (size_t)i] >= 0; i++)
			c->ids[n++] = y->kept[(size_t)t * (size_t)y->top_k + (size_t)i];
	}
	c->first[c->tokens] = n;
	return n;
}

static void by_expert(struct moe_choices *c, int n)
{
	for (int i = 0; i < n; i++)
		c->of[c->ids[i] + 1]++;
	for (int x = 0; x < c->experts; x++)
		c->of[x + 1] += c->of[x];
	for (int t = 0; t < c->tokens; t++)
		for (int i = c->first[t]; i < c->first[t + 1]; i++)
			c->token[c->of[c->ids[i]]++] = t;
	for (int x = c->experts; x > 0; x--)
		c->of[x] = c->of[x - 1];
	c->of[0] = 0;
}

static int sort_layer(struct layer *y, struct moe_err *e)
{
	struct moe_choices *c = &y->choices;
	size_t tokens = y->seen < SAMPLE ? (size_t)y->seen : SAMPLE, all = tokens * (size_t)y->top_k;

	drop_choices(c);
	c->first = moe_calloc(tokens + 1, sizeof *c->first, "coactivation", e);
	c->ids = moe_calloc(all, sizeof *c->ids, "coactivation", e);
	c->of = moe_calloc((size_t)y->experts + 1, sizeof *c->of, "coactivation", e);
	c->token = moe_calloc(all, sizeof *c->token, "coactivation", e);
	if (!c->first || !c->ids || !c->of || !c->token) {
		drop_choices(c);
		return MOE_E_NOMEM;
	}
	c->tokens = (int)tokens;
	c->experts = y->experts;
	by_expert(c, by_token(y, c));
	y->sorted = true;
	return 0;
}

int moe_coactivation_done(struct moe_coactivation *c, struct moe_err *e)
{
	int rc = 0;

	for (int l = 0; l < c->layers && rc == 0; l++)
		if (c->layer[l].experts && !c->layer[l].sorted)
			rc = sort_layer(&c->layer[l], e);
	return rc;
}

const struct moe_choices *moe_coactivation_layer(const struct moe_coactivation *c, int layer)
{
	return c && c->layer[layer].sorted ? &c->layer[layer].choices : NULL;
}

int moe_coactivation_read(const char *path, const struct moe_model *m, struct moe_coactivation **out, struct moe_err *e)
{
	struct moe_coactivation *c = NULL;
	struct moe_trace *t = NULL;
	struct moe_trace_line line;
	bool more = true;
	int rc = moe_trace_open(path, m, &t, e);

	rc = rc ? rc : moe_coactivation_new(m, &c, e);
	while (rc == 0 && more) {
		rc = moe_trace_next(t, &line, &more, e);
		if (rc == 0 && more)
			moe_coactivation_add(c, line.layer, line.ids, line.n);
	}
	rc = rc ? rc : moe_coactivation_done(c, e);
	moe_trace_close(t);
	if (rc)
		moe_coactivation_free(c);
	else
		*out = c;
	return rc;
}
