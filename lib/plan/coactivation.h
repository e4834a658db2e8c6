/* Which experts tokens choose together, as a sample of tokens.  Private to plan/. */
#ifndef MOE_PLAN_COACTIVATION_H
#define MOE_PLAN_COACTIVATION_H

#include "plan/plan.h"

/* A layer's sample, by token and by expert. */
struct moe_choices {
	int tokens, experts;
	int *first;                  /* [tokens + 1] into ids */
	int32_t *ids;
	int *of;                     /* [experts + 1] into token */
	int *token;                  /* tokens that choose an expert */
};
/* A layer's; NULL: there is none. */
const struct moe_choices *moe_coactivation_layer(const struct moe_coactivation *c, int layer);

#endif
