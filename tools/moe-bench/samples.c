/* Mean, deviation, median and tail of samples. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "bench.h"

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void moments(const double *v, int n, double *mean, double *deviation)
{
	double sum = 0, squares = 0;
	for (int i = 0; i < n; i++)
		sum += v[i];
	*mean = sum / n;
	for (int i = 0; i < n; i++)
		squares += (v[i] - *mean) * (v[i] - *mean);
	*deviation = n > 1 ? sqrt(squares / (n - 1)) : 0;
}

int bench_statistics(struct bench_samples *s, struct moe_err *e)
{
	double *ns = moe_calloc((size_t)s->n, sizeof *ns, "samples", e);
	if (!ns)
		return MOE_E_NOMEM;
	for (int i = 0; i < s->n; i++)
		ns[i] = (double)s->ns[i];
	moments(ns, s->n, &s->avg_ns, &s->stddev_ns);
	moments(s->ts, s->n, &s->avg_ts, &s->stddev_ts);
	qsort(ns, (size_t)s->n, sizeof *ns, ascending);
	s->median_ns = s->n % 2 ? ns[s->n / 2] : (ns[s->n / 2 - 1] + ns[s->n / 2]) / 2;
	s->p99_ns = ns[(s->n * 99 + 99) / 100 - 1]; /* the least that 99 of 100 do not exceed */
	free(ns);
	return 0;
}
