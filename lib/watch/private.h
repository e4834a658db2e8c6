/* What the two halves of this room share: watch.c makes and counts, text.c reads. */
#ifndef MOE_WATCH_PRIVATE_H
#define MOE_WATCH_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "watch/watch.h"

/* Counters keep a number, gauges a double's bits; histograms keep the sum's bits in value and one count for each bucket, the last of which
 * has no upper bound.  Counts are not cumulative here, so that an observation is one addition. */
struct moe_series {
	struct moe_metric *metric;
	char *labels;                    /* `a="x",b="y"`, those of the watch first; "" without any */
	_Atomic uint64_t value;
	_Atomic uint64_t *buckets;       /* [metric->n_bounds + 1], histograms only */
};

struct moe_metric {
	struct moe_watch *watch;
	struct moe_metric *next;
	enum moe_metric_kind kind;
	const char *name, *help, *labels;
	const double *bounds;
	int n_bounds;
	struct moe_series **series;      /* in order of their labels */
	size_t n, cap;
};

struct before {
	struct before *next;
	void (*fn)(void *ctx);
	void *ctx;
};

struct moe_watch {
	pthread_mutex_t lock;            /* of the lists, not of the numbers in them */
	pthread_mutex_t reading;         /* taken before the lock; `before` runs under it alone */
	char *labels;
	struct moe_metric *first, **last;
	struct before *before, **last_before;
	void *process;                   /* process.c's; freed with the watch */
};

/* A double as the bits that atomics can exchange. */
static inline uint64_t moe_watch_bits(double v)
{
	union { double v; uint64_t bits; } u = {.v = v};

	return u.bits;
}

static inline double moe_watch_double(uint64_t bits)
{
	union { uint64_t bits; double v; } u = {.bits = bits};

	return u.v;
}

#endif
