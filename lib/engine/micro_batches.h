/* Which sequences go together: Cao et al., "MoE-Lightning" (ASPLOS 2025), appendix A.2, algorithm 2. */
#ifndef MOE_ENGINE_MICRO_BATCHES_H
#define MOE_ENGINE_MICRO_BATCHES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* A sequence to be placed. */
struct moe_want {
	int64_t prompt, generate;    /* tokens; 0 or more */
	int micro_batch;             /* out: which; -1: it waits for the next batch */
};
struct moe_micro_limits {
	int micro_batches;           /* n_ub */
	int sequences;               /* ubs: most of one */
	int64_t tokens;              /* cache_size: KV positions of one, prompt and generated */
};
/* Longest prompts first, each into the open micro-batch of fewest prompt tokens; one that does not fit there waits; a full one
 * is closed; those that are open at the end count too.  wants[n] stand in the order of arrival; ties go to the earlier sequence and
 * the lower micro-batch.  What waits is to be offered again before what came later: the first of wants is always placed if it fits an
 * empty micro-batch (before the longest, where algorithm 2 alone would leave it out), so nobody starves.  *placed: how many were.
 * n log n.  MOE_E_RANGE: a limit below 1, or tokens below 0. */
int moe_micro_batches(struct moe_want *wants, int n, const struct moe_micro_limits *l, int *placed, struct moe_err *e);

#endif
