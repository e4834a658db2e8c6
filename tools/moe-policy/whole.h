/* The solver that moe-policy hands to the search. */
#ifndef MOE_POLICY_WHOLE_H
#define MOE_POLICY_WHOLE_H

#include "plan/plan.h"

/* A moe_lp_solve; ctx is not used. */
int whole_experts(void *ctx, const struct moe_lp *p, double *x, struct moe_err *e);

#endif
