/* What the replay of caches and the verdict on them share.  Private to plan/. */
#ifndef MOE_PLAN_REPLAY_H
#define MOE_PLAN_REPLAY_H

#include "plan/plan.h"

/* Is this line one that counts? */
bool moe_replay_counts(const struct moe_replay *how, const struct moe_trace_line *l);

#endif
