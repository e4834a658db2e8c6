/* What the files of the search share: no public header. */
#ifndef MOE_PLAN_SEARCH_H
#define MOE_PLAN_SEARCH_H

#include "plan/plan.h"

/* moe_search of the paper variant. */
int moe_search_paper(const struct moe_setting *s, const struct moe_search *how, struct moe_found *out, struct moe_err *e);

#endif
