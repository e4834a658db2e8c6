/* The search for the best policy.
 *
 * From outside to inside: quants, if they may be chosen; kinds (schedule, and where attention and experts are computed); the
 * sizes (search_sizes.c); the shares of weights and KV cache (shares.c).  Every kind is searched coarsely; those that come near the best
 * are searched again, with other micro-batches in prefill and ever finer steps. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "plan/private.h"
#include "plan/search.h"

#define NEAR 0.9       /* of the best score: worth another look */
#define VERY_NEAR 0.99

/* ---- kinds ---- */

static bool is_possible(const struct moe_setting *s, const struct plan_kind *k, int weights_on, int kv_on, struct moe_err *e)
{
	struct moe_execution x = {.schedule = k->schedule, .attention_on = k->attention_on, .ffn_on = k->ffn_on};
	struct moe_prediction p;

	x.batch = x.micro_batch = x.prefill_micro_batch = 1;
	x.weights[k->ffn_on] = x.kv[k->attention_on] = 0.5;
	x.weights[weights_on] += 0.5;
	x.kv[kv_on] += 0.5;
	return moe_predict(s, &x, &p, e) == 0;
}

/* On which levels weights and KV cache may lie, by asking; false: not even where they are used. */
static bool find_levels(const struct moe_setting *s, struct plan_kind *k, struct moe_err *e)
{
	k->n_weights = k->n_kv = 0;
	for (int i = k->ffn_on; i < s->hardware->n_levels; i++)
		if (is_possible(s, k, i, k->attention_on, e))
			k->weights[k->n_weights++] = i;
	for (int i = k->attention_on; i < s->hardware->n_levels; i++)
		if (is_possible(s, k, k->ffn_on, i, e))
			k->kv[k->n_kv++] = i;
	return k->n_weights > 0 && k->n_kv > 0 && k->weights[0] == k->ffn_on && k->kv[0] == k->attention_on;
}

static bool is_wanted(int fixed, int value)
{
	return fixed < 0 || fixed == value;
}

int plan_kinds(const struct plan_search *q, struct plan_kind *out, struct moe_err *e)
{
	const struct moe_hardware *h = q->setting.hardware;
	const struct moe_search *how = q->how;
	int n = 0;

	for (int s = 0; s < MOE_SCHEDULES; s++)
		for (int a = 0; a < h->n_levels; a++)
			for (int f = 0; f < h->n_levels; f++) {
				struct plan_kind k = {.schedule = (enum moe_schedule)s, .attention_on = a, .ffn_on = f};

				if (is_wanted(how->schedule, s) && is_wanted(how->attention_on, a) && is_wanted(how->ffn_on, f) &&
				    n < PLAN_KINDS && h->levels[a].bandwidth > 0 && h->levels[f].bandwidth > 0 &&
				    find_levels(&q->setting, &k, e))
					out[n++] = k;
			}
	return n;
}

/* ---- all of it ---- */

/* Kinds with the quants that the setting has now, added to tops[*n...]. */
static int search_kinds(struct plan_search *q, struct plan_top *tops, int *n, struct moe_err *e)
{
	struct moe_err why = MOE_ERR_INIT;
	struct plan_kind kinds[PLAN_KINDS];
	int count = plan_kinds(q, kinds, &why);

	if (count == 0)
		return moe_fail(e, why.code ? why.code : MOE_E_INPUT, "%s", why.code ? why.msg : "no level has a processor");

	for (int i = 0; i < count; i++) {
		struct plan_top *t = &tops[(*n)++];

		*t = (struct plan_top){.q = q, .kind = kinds[i], .quants = q->setting.quants, .score = -INFINITY, .batch = 1, .micro_batches = 1};
		plan_sizes_wide(t);
	}
	return 0;
}

/* The fastest first, so that most of the others need not be looked at closely. */
static const char *const quant_words[] = {"q4", "q8", "bf16"};
#define QUANT_WORDS ((int)(sizeof quant_words / sizeof *quant_words))

static void refine(struct plan_search *q, struct plan_top *tops, int n, double near, bool fine)
{
	for (int i = 0; i < n; i++)
		if (tops[i].score > -INFINITY && tops[i].score >= near * q->score)
			plan_sizes_refine(&tops[i], fine);
}

static int search_full(struct plan_search *q, struct plan_top *tops, struct moe_err *e)
{
	int n = 0, words = q->how->any_quant ? QUANT_WORDS : 1, rc = 0;

	for (int i = 0; i < words && rc == 0; i++) {
		if (q->how->any_quant)
			rc = moe_quants_parse(quant_words[i], &q->setting.quants, e);
		if (rc == 0)
			rc = search_kinds(q, tops, &n, e);
	}
	if (rc)
		return rc;
	refine(q, tops, n, NEAR, false);
	refine(q, tops, n, VERY_NEAR, true);
	if (q->score == -INFINITY)
		return plan_search_fail(&q->setting, q->how, e);
	if (q->how->solve && q->best.execution.weights[q->best.execution.ffn_on] < 1)
		plan_sizes_whole(q);
	return 0;
}

int moe_search(const struct moe_setting *s, const struct moe_search *how, struct moe_found *out, struct moe_err *e)
{
	struct plan_search q = {.setting = *s, .how = how, .score = -INFINITY, .floor = -INFINITY};
	struct plan_top *tops;
	int rc;

	if (s->variant == MOE_VARIANT_PAPER)
		return plan_search_paper(s, how, out, e);
	tops = moe_calloc(QUANT_WORDS * PLAN_KINDS, sizeof *tops, "kinds of policies", e);
	if (!tops)
		return MOE_E_NOMEM;
	rc = search_full(&q, tops, e);
	free(tops);
	q.best.tried = q.tried;
	if (rc == 0)
		*out = q.best;
	return rc;
}

double plan_search_near(const struct moe_setting *s, const struct moe_search *how, const struct moe_found *found)
{
	const struct moe_execution *x = &found->execution;
	struct plan_search q = {.setting = *s, .how = how, .score = -INFINITY};
	struct plan_top t = {.q = &q, .quants = found->quants, .score = -INFINITY, .batch = x->batch, .prefill = x->prefill_micro_batch};

	q.setting.quants = found->quants;
	t.kind = (struct plan_kind){.schedule = x->schedule, .attention_on = x->attention_on, .ffn_on = x->ffn_on};
	t.micro_batches = (x->batch + x->micro_batch - 1) / x->micro_batch;
	if (!find_levels(&q.setting, &t.kind, NULL))
		return -INFINITY;
	plan_sizes_refine(&t, true);
	return t.score;
}
