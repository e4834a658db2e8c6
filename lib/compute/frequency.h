/* Frequencies of rotary positions, for every backend. */
#ifndef MOE_COMPUTE_FREQUENCY_H
#define MOE_COMPUTE_FREQUENCY_H

#include "checkpoint/checkpoint.h"

/* Pair i of rope->dims / 2 turns by this at each position (doc/numerics.md). */
float moe_rope_frequency(const struct moe_rope *rope, int i);

#endif
