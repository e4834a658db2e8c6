/* Linear programs of a handful of variables, by the dual simplex method (Lemke 1954): all costs are 0 or more, so the
 * origin is dual feasible and no first phase is needed; rows whose limit is passed leave one by one.  Of equal choices the
 * smallest index is taken (Bland's rule), so it ends, and the same program gets the same answer.
 *
 * A solver from outside would take far longer to start than these take to solve: thousands are solved in a search. */
#include <math.h>
#include <string.h>

#include "plan/search.h"

#define NOTHING 1e-11 /* of numbers that are scaled to about 1 */
#define MOST_PIVOTS 500

struct tableau {
	int rows, columns;
	double a[MOE_LP_ROWS + 1][MOE_LP_COLUMNS + 1]; /* last row: reduced costs; last column: limits */
	int basic[MOE_LP_ROWS], free[MOE_LP_COLUMNS];  /* variables; those from `columns` on are the rows' slacks */
};

static void begin(const struct moe_lp *p, struct tableau *t)
{
	t->rows = p->rows;
	t->columns = p->columns;
	for (int i = 0; i < t->rows; i++) {
		memcpy(t->a[i], p->row[i], sizeof(double) * (size_t)p->columns);
		t->a[i][t->columns] = p->limit[i];
		t->basic[i] = t->columns + i;
	}
	for (int j = 0; j < t->columns; j++) {
		t->a[t->rows][j] = p->cost[j];
		t->free[j] = j;
	}
	t->a[t->rows][t->columns] = 0;
}

/* The row whose limit is passed; of several that with the smallest variable.  -1: none. */
static int leaving(const struct tableau *t)
{
	int r = -1;

	for (int i = 0; i < t->rows; i++)
		if (t->a[i][t->columns] < -NOTHING && (r < 0 || t->basic[i] < t->basic[r]))
			r = i;
	return r;
}

/* The column that keeps all costs at 0 or more; -1: none can mend the row. */
static int entering(const struct tableau *t, int r)
{
	double least = INFINITY;
	int c = -1;

	for (int j = 0; j < t->columns; j++) {
		double ratio;

		if (t->a[r][j] >= -NOTHING)
			continue;
		ratio = -t->a[t->rows][j] / t->a[r][j];
		if (ratio < least || (ratio == least && t->free[j] < t->free[c])) {
			least = ratio;
			c = j;
		}
	}
	return c;
}

static void pivot(struct tableau *t, int r, int c)
{
	double inverse = 1 / t->a[r][c];
	int swap = t->basic[r];

	for (int j = 0; j <= t->columns; j++)
		t->a[r][j] *= j == c ? 1 : inverse;
	for (int i = 0; i <= t->rows; i++) {
		double factor = t->a[i][c];

		if (i == r || factor == 0)
			continue;
		for (int j = 0; j <= t->columns; j++)
			if (j != c)
				t->a[i][j] -= factor * t->a[r][j];
		t->a[i][c] = -factor * inverse;
	}
	t->a[r][c] = inverse;
	t->basic[r] = t->free[c];
	t->free[c] = swap;
}

bool plan_lp(const struct moe_lp *p, double *x)
{
	struct tableau t;
	int r, c;

	begin(p, &t);
	for (int n = 0; (r = leaving(&t)) >= 0; n++) {
		c = entering(&t, r);
		if (c < 0 || n == MOST_PIVOTS)
			return false;
		pivot(&t, r, c);
	}
	memset(x, 0, sizeof *x * (size_t)p->columns);
	for (int i = 0; i < t.rows; i++)
		if (t.basic[i] < t.columns)
			x[t.basic[i]] = fmax(t.a[i][t.columns], 0);
	return true;
}
