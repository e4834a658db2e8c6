/* The sizes of one kind of policy: the batch, in how many micro-batches, and prefill's.
 *
 * For a given number of micro-batches time is convex in the batch, so tokens per second rise to one top and fall again; what
 * rounding makes rough beside that is small.  Each size is sought in the best case of those inside it, the batch
 * innermost: a geometric row of values, then ever shorter steps around the best. */
#include <math.h>

#include "plan/search.h"

#define MOST_BATCH 65536
#define MOST_MICRO_BATCHES 1024
#define PREFILL_TOKENS 4096    /* of a micro-batch in prefill, to begin with */
#define COARSE 32              /* parts of a value that steps end at in the coarse search */
#define HOPELESS 0.8           /* of the best score: who cannot reach that even with memory enough is left alone */
#define NEARLY 0.98            /* the same, close to the top */

/* ---- one candidate ---- */

/* Faster, or as fast with less lost in quants, or a smaller batch. */
static bool is_better(double score, const struct moe_execution *x, const struct plan_search *q)
{
	const struct moe_execution *best = &q->best.execution;

	if (score == -INFINITY || score < q->score * (1 - PLAN_EQUAL))
		return false;
	if (q->score == -INFINITY || score > q->score * (1 + PLAN_EQUAL))
		return true;
	if (q->setting.quants.experts != q->best.quants.experts)
		return q->setting.quants.experts < q->best.quants.experts;
	return x->batch != best->batch ? x->batch < best->batch : x->schedule < best->schedule;
}

static bool is_above(double score, double than)
{
	return score > -INFINITY && (than == -INFINITY || score > than * (1 + PLAN_EQUAL));
}

static double consider(struct plan_search *q, const struct plan_kind *k, struct moe_execution *x)
{
	struct moe_prediction p;
	double score;

	x->schedule = k->schedule;
	x->attention_on = k->attention_on;
	x->ffn_on = k->ffn_on;
	score = plan_shares(q, k, x, &p);
	if (is_better(score, x, q)) {
		q->best.execution = *x;
		q->best.prediction = p;
		q->best.quants = q->setting.quants;
		q->kind = *k;
		q->score = score;
	}
	return score;
}

/* A batch in so many micro-batches. */
static double measure(struct plan_top *t, int64_t batch, int64_t n, int64_t prefill)
{
	const struct moe_search *how = t->q->how;
	struct moe_execution x = {.batch = batch, .micro_batch = how->micro_batch ? how->micro_batch : (batch + n - 1) / n};
	double score;

	x.prefill_micro_batch = prefill < batch ? prefill : batch;
	if (x.micro_batch > batch)
		x.micro_batch = batch;
	score = consider(t->q, &t->kind, &x);
	if (is_above(score, t->score)) {
		t->score = score;
		t->batch = batch;
		t->micro_batches = n;
		t->prefill = prefill;
	}
	return score;
}

/* ---- along one size ---- */

typedef double along(struct plan_top *t, int64_t value);

struct row {
	along *f;
	struct plan_top *t;
	int64_t low, high, best;
	double score;
};

static double try_value(struct row *r, int64_t v)
{
	double score;

	if (v < r->low || v > r->high)
		return -INFINITY;
	score = r->f(r->t, v);
	if (is_above(score, r->score)) {
		r->score = score;
		r->best = v;
	}
	return score;
}

/* Steps around the best, each half the one before. */
static double around(struct row *r, int64_t step)
{
	int64_t least = r->t->fine ? 1 : r->best / COARSE;

	for (; step > 0 && step >= least && r->score > -INFINITY; step /= 2) {
		int64_t middle = r->best;

		try_value(r, middle + step);
		if (r->best == middle)
			try_value(r, middle - step);
	}
	return r->score;
}

/* low, ratio * low, ... up to high, which ends where nothing fits any more; then around the best. */
static double climb(struct plan_top *t, along *f, int64_t low, int64_t high, int ratio)
{
	struct row r = {f, t, low, high, low, -INFINITY};

	for (int64_t v = low; v <= high; v *= ratio)
		if (try_value(&r, v) == -INFINITY && r.score > -INFINITY)
			break;
	return around(&r, r.best * (ratio - 1) / 2);
}

/* Around a value that is known to be good. */
static double climb_from(struct plan_top *t, along *f, int64_t from, int64_t step, int64_t low, int64_t high)
{
	struct row r = {f, t, low, high, from, -INFINITY};

	try_value(&r, from);
	return around(&r, step);
}

/* ---- the sizes, from inside to outside ---- */

static double with_batch(struct plan_top *t, int64_t batch)
{
	return measure(t, batch, t->trial_micro_batches, t->trial_prefill);
}

static double with_micro_batches(struct plan_top *t, int64_t n)
{
	const struct moe_search *how = t->q->how;
	int64_t most = how->max_batch ? how->max_batch : MOST_BATCH, from = t->batch > n ? t->batch : n;

	t->trial_micro_batches = n;
	if (how->batch)
		return n <= how->batch ? with_batch(t, how->batch) : -INFINITY;
	if (t->wide)
		return climb(t, with_batch, n, most, 2);
	return climb_from(t, with_batch, from, t->fine ? from / 16 + 1 : from / 2 + 1, n, most);
}

static double with_prefill(struct plan_top *t, int64_t prefill)
{
	int64_t n = t->micro_batches;

	t->trial_prefill = prefill;
	/* A fixed size of micro-batches leaves their number to the batch, and one schedule has no micro-batches. */
	if (t->q->how->micro_batch || t->kind.schedule == MOE_SCHEDULE_ZERO)
		return with_micro_batches(t, 1);
	if (t->wide)
		return climb(t, with_micro_batches, 1, MOST_MICRO_BATCHES, 2);
	return climb_from(t, with_micro_batches, n, t->fine ? n / 8 + 1 : n / 2 + 1, 1, MOST_MICRO_BATCHES);
}

void plan_sizes_wide(struct plan_top *t)
{
	double prompt = moe_workload_prompt(&t->q->setting.workload);
	int64_t prefill = prompt < PREFILL_TOKENS ? (int64_t)ceil(PREFILL_TOKENS / prompt) : 1;

	t->wide = true;
	t->fine = false;
	t->q->floor = HOPELESS * t->q->score;
	with_prefill(t, prefill);
	/* With the least memory, where that was too much. */
	if (t->score == -INFINITY && prefill > 1)
		with_prefill(t, 1);
}

void plan_sizes_refine(struct plan_top *t, bool fine)
{
	double before, gain = fine ? 1e-7 : 1e-3;

	t->wide = false;
	t->fine = fine;
	t->q->setting.quants = t->quants;
	do {
		before = t->score;
		t->q->floor = (fine ? NEARLY : HOPELESS) * before;
		if (fine)
			climb_from(t, with_prefill, t->prefill, t->prefill / 4 + 1, 1, t->batch);
		else
			climb(t, with_prefill, 1, t->batch, 4);
	} while (t->score > before * (1 + gain));
}

void plan_sizes_whole(struct plan_search *q)
{
	struct moe_found parts = q->best;
	struct moe_execution *x = &parts.execution;
	struct plan_top t = {.q = q, .kind = q->kind, .score = -INFINITY, .batch = x->batch, .fine = true};
	double score = q->score;

	q->setting.quants = parts.quants;
	q->whole = true;
	q->score = q->floor = -INFINITY;
	t.micro_batches = t.trial_micro_batches = (x->batch + x->micro_batch - 1) / x->micro_batch;
	t.trial_prefill = x->prefill_micro_batch;
	with_micro_batches(&t, t.micro_batches);
	/* Memory may be too scarce for that: then the shares stay what they are. */
	if (q->score == -INFINITY) {
		q->best = parts;
		q->score = score;
	}
}
