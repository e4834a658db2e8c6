/* Which share of the experts and of the KV cache lies on which level, for one batch size, schedule and place of work.
 *
 * Time and memory are convex and piecewise linear in the shares: sums and maxima of terms that grow in proportion to what
 * lies somewhere.  So the best shares are those of a linear program, which is made as far as it is needed, by Kelley's cutting planes
 * ("The cutting-plane method for solving convex programs", 1960): solve, ask the model at the solution, add the plane that
 * touches it there, until the model says nothing worse than the program.  Two or three rounds mostly.  This knows
 * nothing of what the model counts; it only asks moe_predict. */
#include <math.h>
#include <string.h>

#include "plan/private.h"
#include "plan/search.h"

#define TOLERANCE 1e-9    /* relative: of time, and of memory that is left free for rounding */
#define WHOLE_TOLERANCE 1e-6 /* what solvers of integer programs keep to */
#define MOST_ROUNDS 16
#define INWARD 1e-3       /* planes are taken that far inside, where the model has one slope */
#define STEP 1e-5
#define SLOWER 1e-10      /* cost of a share on a slower level where time is the same */

/* The values that the program knows: time to be made small, time that is bounded, memory of each level; all as parts of
 * what they are compared with. */
#define COST 0
#define BOUND 1
#define MEMORY 2
#define VALUES (MEMORY + MOE_MAX_LEVELS)

/* The shares as variables: of weights, then of KV, on every level but the group's first, which has what is left. */
struct shares {
	struct plan_search *q;
	struct moe_execution *x;
	struct moe_prediction p;
	const int *level[2];
	int n[2], variables, values;
	double unit;             /* of weights: 1, or one expert */
	double scale;            /* what the cost is measured in */
	bool whole;
	struct moe_lp lp;
};

double plan_score(const struct moe_search *how, const struct moe_prediction *p)
{
	if (!p->fits || (how->latency_bound > 0 && p->step_seconds > how->latency_bound))
		return -INFINITY;
	return how->objective == MOE_LEAST_LATENCY ? 1 / p->step_seconds : p->tokens_per_second;
}

static double cost(const struct moe_search *how, const struct moe_prediction *p)
{
	return how->objective == MOE_LEAST_LATENCY ? p->step_seconds : 1 / p->tokens_per_second;
}

static void set_shares(const struct shares *c, const double *y)
{
	double *share[2] = {c->x->weights, c->x->kv};

	for (int g = 0; g < 2; g++) {
		double rest = 1;

		memset(share[g], 0, sizeof c->x->weights);
		for (int j = 1; j < c->n[g]; j++, y++) {
			share[g][c->level[g][j]] = *y;
			rest -= *y;
		}
		share[g][c->level[g][0]] = rest > 0 ? rest : 0;
	}
}

/* Ask the model.  The error matters to nobody: what it refuses is not chosen. */
static bool predict(struct shares *c, const double *y)
{
	set_shares(c, y);
	c->q->tried++;
	return moe_predict(&c->q->setting, c->x, &c->p, NULL) == 0;
}

static bool values(struct shares *c, const double *y, double *v)
{
	const struct moe_search *how = c->q->how;

	if (!predict(c, y))
		return false;
	v[COST] = cost(how, &c->p) / c->scale;
	v[BOUND] = how->latency_bound > 0 ? c->p.step_seconds / how->latency_bound : 0;
	for (int i = MEMORY; i < c->values; i++) {
		const struct moe_level_memory *m = &c->p.memory[i - MEMORY];

		v[i] = m->available > 0 ? m->used.total / m->available : m->used.total;
	}
	return true;
}

/* The program without planes: each group's shares add up to no more than 1, time to the last variable. */
static void begin(struct shares *c)
{
	struct moe_lp *p = &c->lp;

	p->columns = c->variables + 1;
	p->rows = 0;
	memset(p->cost, 0, sizeof p->cost);
	memset(p->whole, 0, sizeof p->whole);
	p->cost[c->variables] = 1;
	for (int g = 0, j = 0; g < 2; g++) {
		double unit = g == 0 ? c->unit : 1;

		if (c->n[g] < 2)
			continue;
		memset(p->row[p->rows], 0, sizeof p->row[0]);
		for (int i = 1; i < c->n[g]; i++, j++) {
			p->row[p->rows][j] = 1;
			p->cost[j] = SLOWER * i * unit;
			p->whole[j] = g == 0 && c->whole;
		}
		p->limit[p->rows++] = 1 / unit;
	}
}

static double unit_of(const struct shares *c, int variable)
{
	return variable < c->n[0] - 1 ? c->unit : 1;
}

/* The plane that touches value i at `at`, where it is v and has that slope. */
static void add_plane(struct shares *c, int i, const double *at, double v, const double *slope)
{
	struct moe_lp *p = &c->lp;
	double limit = i == COST ? 0 : 1 - (c->whole ? WHOLE_TOLERANCE : TOLERANCE) / 2, *row;

	if (p->rows == MOE_LP_ROWS)
		return;
	row = p->row[p->rows];
	memset(row, 0, sizeof p->row[0]);
	limit -= v;
	for (int j = 0; j < c->variables; j++) {
		row[j] = slope[j] * unit_of(c, j);
		limit += slope[j] * at[j];
	}
	row[c->variables] = i == COST ? -1 : 0;
	p->limit[p->rows++] = limit;
}

/* Planes near y for the values that `wanted` says. */
static bool add_planes(struct shares *c, const double *y, const bool *wanted)
{
	double at[MOE_LP_COLUMNS], v[VALUES], w[VALUES], slope[VALUES][MOE_LP_COLUMNS];

	for (int j = 0; j < c->variables; j++)
		at[j] = y[j] + INWARD * (1.0 / c->n[j < c->n[0] - 1 ? 0 : 1] - y[j]);
	if (!values(c, at, v))
		return false;
	for (int j = 0; j < c->variables; j++) {
		at[j] += STEP;
		if (!values(c, at, w))
			return false;
		at[j] -= STEP;
		for (int i = 0; i < c->values; i++)
			slope[i][j] = (w[i] - v[i]) / STEP;
	}
	for (int i = 0; i < c->values; i++)
		if (wanted[i])
			add_plane(c, i, at, v[i], slope[i]);
	return true;
}

/* Solve what there is of the program; y in shares, *least the cost that nothing can be below. */
static bool solve(struct shares *c, double *y, double *least)
{
	const struct moe_search *how = c->q->how;
	double x[MOE_LP_COLUMNS];

	if (c->whole ? how->solve(how->solve_ctx, &c->lp, x, NULL) != 0 : !plan_lp(&c->lp, x))
		return false;
	for (int j = 0; j < c->variables; j++)
		y[j] = (c->lp.whole[j] ? round(x[j]) : x[j]) * unit_of(c, j);
	*least = x[c->variables];
	return true;
}

/* Which values are worse at v than the program thought. */
static bool is_worse(const struct shares *c, const double *v, double least, bool *wanted)
{
	double tolerance = c->whole ? WHOLE_TOLERANCE : TOLERANCE;
	bool any = false;

	for (int i = 0; i < c->values; i++) {
		wanted[i] = v[i] > (i == COST ? least + tolerance : 1);
		any |= wanted[i];
	}
	return any;
}

/* The best shares on the levels that c has; the best of what fits is kept in *x and *p. */
static double cut(struct shares *c, struct moe_execution *x, struct moe_prediction *p)
{
	double y[MOE_LP_COLUMNS] = {0}, v[VALUES], best = -INFINITY, least;
	bool wanted[VALUES];

	begin(c);
	for (int i = 0; i < c->values; i++)
		wanted[i] = i != BOUND || c->q->how->latency_bound > 0;
	for (int round = 0; round < MOST_ROUNDS; round++) {
		double score;

		if (!add_planes(c, y, wanted) || !solve(c, y, &least) || !values(c, y, v))
			break;
		score = plan_score(c->q->how, &c->p);
		if (score > best) {
			best = score;
			*x = *c->x;
			*p = c->p;
		}
		if (!is_worse(c, v, least, wanted))
			break;
	}
	return best;
}

static int within(const int *level, int n, int last)
{
	int count = 0;

	while (count < n && level[count] <= last)
		count++;
	return count;
}

/* Only levels up to `last`, if that leaves each group one. */
static bool restrict_to(struct shares *c, const struct plan_kind *k, int last)
{
	int before = c->variables;

	c->n[0] = within(k->weights, k->n_weights, last);
	c->n[1] = within(k->kv, k->n_kv, last);
	c->variables = c->n[0] + c->n[1] - 2;
	return c->n[0] > 0 && c->n[1] > 0 && c->variables != before;
}

static double expert_unit(const struct moe_model *m)
{
	double n = 0;

	for (int l = 0; l < m->n_layers; l++)
		n += m->layers[l].ffn.experts;
	return n > 0 ? 1 / n : 1;
}

/* Everything on the fastest level that it may lie on: nothing is faster.  False: that settles it, in *score; so it does where
 * even that is too slow. */
static bool try_fastest(struct shares *c, double *score)
{
	const double none[MOE_LP_COLUMNS] = {0};
	double bound = c->q->how->latency_bound;

	*score = -INFINITY;
	if (!predict(c, none))
		return false;
	c->scale = cost(c->q->how, &c->p);
	*score = plan_score(c->q->how, &c->p);
	return *score == -INFINITY && isfinite(c->scale) && c->scale > 0 && !(bound > 0 && c->p.step_seconds > bound) &&
	       1 / c->scale >= c->q->floor;
}

static double shares(struct plan_search *q, const struct plan_kind *k, struct moe_execution *x, struct moe_prediction *p)
{
	struct moe_execution trial = *x;
	struct shares c = {.q = q, .x = &trial, .level = {k->weights, k->kv}, .n = {1, 1}, .whole = q->whole};
	double score;

	c.values = MEMORY + q->setting.hardware->n_levels;
	c.unit = q->whole ? expert_unit(q->setting.model) : 1;
	if (!try_fastest(&c, &score)) {
		*x = trial;
		*p = c.p;
		return score;
	}
	/* Slower levels gain nothing for what fits without them. */
	for (int last = 0; last < q->setting.hardware->n_levels && score == -INFINITY; last++)
		if (restrict_to(&c, k, last))
			score = cut(&c, x, p);
	return score;
}

/* Does the engine have keys and values there? */
static bool is_run(const struct plan_search *q, const struct plan_kind *k, int kv_on)
{
	bool host = kv_on == plan_host(q->setting.hardware);

	if (k->schedule == MOE_SCHEDULE_FLEXGEN)
		return host;
	return kv_on == k->attention_on || (host && k->schedule == MOE_SCHEDULE_ZERO);
}

double plan_shares(struct plan_search *q, const struct plan_kind *k, struct moe_execution *x, struct moe_prediction *p)
{
	const struct moe_execution sizes = *x;
	double best = -INFINITY;

	if (!q->how->runnable)
		return shares(q, k, x, p);
	for (int i = 0; i < k->n_kv; i++) {
		struct plan_kind one = *k;
		struct moe_execution trial = sizes;
		struct moe_prediction predicted;
		double score;

		if (!is_run(q, k, k->kv[i]))
			continue;
		one.kv[0] = k->kv[i];
		one.n_kv = 1;
		score = shares(q, &one, &trial, &predicted);
		if (score > best) {
			best = score;
			*x = trial;
			*p = predicted;
		}
	}
	return best;
}
