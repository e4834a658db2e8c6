/* Timing calls of a backend that are too short to be timed one by one. */
#ifndef MOE_MEASURE_CALLS_H
#define MOE_MEASURE_CALLS_H

#include "measure/measure.h"

typedef int moe_call_fn(void *ctx, struct moe_err *e);
/* Calls a second, gathered into samples of some milliseconds, each waiting for the backend at its end.  What a first call sets
 * up is not timed. */
int moe_measure_calls(struct moe_backend *b, moe_call_fn *call, void *ctx, double seconds, struct moe_rate *out, struct moe_err *e);

/* Fill data, of the matrix's size, with small random numbers of either sign, and have m->data point there. */
void moe_measure_fill(struct moe_matrix *m, unsigned char *data, uint64_t seed);

#endif
