/* Mixed-integer programs by Cbc, for shares that are to be whole experts. */
#include <coin/Cbc_C_Interface.h>
#include <float.h>
#include <string.h>

#include "base/err.h"
#include "whole.h"

#define MOST (MOE_LP_ROWS * MOE_LP_COLUMNS)

/* The matrix as Cbc takes it: column by column, without zeros. */
struct columns {
	CoinBigIndex start[MOE_LP_COLUMNS + 1];
	int row[MOST];
	double value[MOST];
};

static void gather(const struct moe_lp *p, struct columns *c)
{
	CoinBigIndex n = 0;

	for (int j = 0; j < p->columns; j++) {
		c->start[j] = n;
		for (int i = 0; i < p->rows; i++)
			if (p->row[i][j] != 0) {
				c->row[n] = i;
				c->value[n++] = p->row[i][j];
			}
	}
	c->start[p->columns] = n;
}

/* Cbc prints what it does unless it is told twice not to.  What it does for large programs before it branches takes ten times
 * as long as branching does in these. */
static Cbc_Model *load(const struct moe_lp *p)
{
	double low[MOE_LP_ROWS], zero[MOE_LP_COLUMNS] = {0}, high[MOE_LP_COLUMNS];
	static const char *const off[] = {"preprocess", "presolve", "cuts", "heuristics"};
	Cbc_Model *m = Cbc_newModel();
	struct columns c;

	gather(p, &c);
	for (int i = 0; i < p->rows; i++)
		low[i] = -DBL_MAX;
	for (int j = 0; j < p->columns; j++)
		high[j] = DBL_MAX;
	Cbc_setLogLevel(m, 0);
	Cbc_setParameter(m, "log", "0");
	for (size_t i = 0; i < sizeof off / sizeof *off; i++)
		Cbc_setParameter(m, off[i], "off");
	Cbc_loadProblem(m, p->columns, p->rows, c.start, c.row, c.value, zero, high, p->cost, low, p->limit);
	for (int j = 0; j < p->columns; j++)
		if (p->whole[j])
			Cbc_setInteger(m, j);
	return m;
}

int whole_experts(void *ctx, const struct moe_lp *p, double *x, struct moe_err *e)
{
	Cbc_Model *m = load(p);
	int rc = 0;

	(void)ctx;
	if (Cbc_solve(m) != 0 || !Cbc_isProvenOptimal(m))
		rc = moe_fail(e, MOE_E_RANGE, "the shares cannot be whole experts");
	else
		memcpy(x, Cbc_getColSolution(m), sizeof *x * (size_t)p->columns);
	Cbc_deleteModel(m);
	return rc;
}
