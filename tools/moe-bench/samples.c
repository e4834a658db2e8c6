/* Mean, deviation, median and tail of samples. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

struct moments {
	double mean, deviation;
};

/* Of ts, or of ns where there is no ts. */
static struct moments moments(const double *ts, const uint64_t *ns, int n)
{
	struct moments m = {0, 0};
	for (int i = 0; i < n; i++)
		m.mean += (ts ? ts[i] : (double)ns[i]) / n;
	for (int i = 0; i < n; i++) {
		double d = (ts ? ts[i] : (double)ns[i]) - m.mean;
		m.deviation += d * d;
	}
	m.deviation = n > 1 ? sqrt(m.deviation / (n - 1)) : 0;
	return m;
}

/* The median and the least that 99 of 100 do not exceed. */
static void ranks(struct bench_samples *s)
{
	uint64_t *v = malloc((size_t)s->n * sizeof *v);
	if (!v) {
		s->median_ns = s->p99_ns = NAN;
		return;
	}
	memcpy(v, s->ns, (size_t)s->n * sizeof *v);
	qsort(v, (size_t)s->n, sizeof *v, ascending);
	s->median_ns = s->n % 2 ? (double)v[s->n / 2] : ((double)v[s->n / 2 - 1] + (double)v[s->n / 2]) / 2;
	s->p99_ns = (double)v[(s->n * 99 + 99) / 100 - 1];
	free(v);
}

void bench_statistics(struct bench_samples *s)
{
	struct moments ns = moments(NULL, s->ns, s->n), ts = moments(s->ts, NULL, s->n);
	s->avg_ns = ns.mean;
	s->stddev_ns = ns.deviation;
	s->avg_ts = ts.mean;
	s->stddev_ts = ts.deviation;
	ranks(s);
}
