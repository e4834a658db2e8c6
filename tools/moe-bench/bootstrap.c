/* How sure a difference is, without a guess at how times are distributed: what would other samples of the same kind have
 * said?  B. Efron, Bootstrap Methods: Another Look at the Jackknife (1979); percentile intervals. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "results.h"

#define DRAWS 2000
#define SEED 0x6d6f652d62656e63u /* any; always the same */

struct pool {
	double *v;
	size_t n;
};

static uint64_t next_random(uint64_t *state) /* xorshift64* */
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1du;
}

static int below(uint64_t *state, int n)
{
	return (int)((next_random(state) >> 33) % (uint64_t)n);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Sorts v. */
static double median(double *v, size_t n)
{
	qsort(v, n, sizeof *v, ascending);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static size_t total(const struct bench_result *r)
{
	size_t n = 0;
	for (int i = 0; i < r->n_groups; i++)
		n += (size_t)r->groups[i].n;
	return n;
}

static size_t largest(const struct bench_result *r)
{
	int n = 0;
	for (int i = 0; i < r->n_groups; i++)
		n = r->groups[i].n > n ? r->groups[i].n : n;
	return (size_t)n;
}

/* Add a group to the pool: as it is (state NULL), or as many draws from it. */
static void pour(struct pool *p, const struct bench_group *g, uint64_t *state)
{
	for (int i = 0; i < g->n; i++)
		p->v[p->n++] = g->ns[state ? below(state, g->n) : i];
}

static double pooled_median(struct pool *p, const struct bench_result *r, uint64_t *state)
{
	p->n = 0;
	for (int i = 0; i < r->n_groups; i++)
		pour(p, &r->groups[state ? below(state, r->n_groups) : i], state);
	return median(p->v, p->n);
}

static double group_median(struct pool *p, const struct bench_group *g, uint64_t *state)
{
	p->n = 0;
	pour(p, g, state);
	return median(p->v, p->n);
}

/* The median of the rounds' ratios.  ratios: [rounds]. */
static double paired_ratio(struct pool *p, const struct bench_result *old, const struct bench_result *new, double *ratios, uint64_t *state)
{
	int rounds = old->n_groups;
	for (int i = 0; i < rounds; i++) {
		int at = state ? below(state, rounds) : i;
		double a = group_median(p, &old->groups[at], state);
		ratios[i] = a / group_median(p, &new->groups[at], state);
	}
	return median(ratios, (size_t)rounds);
}

static double draw(struct pool *p, const struct bench_result *old, const struct bench_result *new, double *ratios, uint64_t *state)
{
	double a;
	if (ratios)
		return paired_ratio(p, old, new, ratios, state);
	a = pooled_median(p, old, state);
	return a / pooled_median(p, new, state);
}

static size_t room(const struct bench_result *r)
{
	return largest(r) * (size_t)r->n_groups;
}

int bench_ratio(const struct bench_result *old, const struct bench_result *new, bool paired, struct bench_ratio *out, struct moe_err *e)
{
	size_t a = room(old), b = room(new), na = total(old), nb = total(new);
	bool pairs = paired && old->n_groups == new->n_groups && old->n_groups > 1;
	double *v = moe_calloc(DRAWS, sizeof *v, "draws", e);
	struct pool p = {moe_calloc(a > b ? a : b, sizeof *p.v, "draws", e), 0};
	double *ratios = pairs ? moe_calloc((size_t)old->n_groups, sizeof *ratios, "draws", e) : NULL;
	uint64_t state = SEED;
	int rc = v && p.v && (ratios || !pairs) ? 0 : MOE_E_NOMEM;
	if (!rc) {
		out->least = (int)(na < nb ? na : nb);
		out->old_ns = pooled_median(&p, old, NULL);
		out->new_ns = pooled_median(&p, new, NULL);
		out->ratio = draw(&p, old, new, ratios, NULL);
		for (int i = 0; i < DRAWS; i++)
			v[i] = draw(&p, old, new, ratios, &state);
		qsort(v, DRAWS, sizeof *v, ascending);
		out->lo = v[DRAWS * 25 / 1000];
		out->hi = v[DRAWS * 975 / 1000 - 1];
	}
	free(v);
	free(p.v);
	free(ratios);
	return rc;
}
