/* When enough samples were taken, and what they say. */
#include <stdlib.h>

#include "base/clock.h"
#include "measure/measure.h"

static int descending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x < y) - (x > y);
}

/* The samples so far as a rate; sorts them. */
static void summarise(double *v, int n, struct moe_rate *out)
{
	qsort(v, (size_t)n, sizeof *v, descending);
	out->samples = n;
	out->steady = v[n < 3 ? n - 1 : 2];
	out->median = n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
	out->spread = out->steady > out->median ? (out->steady - out->median) / out->steady : 0;
	out->settled = n >= MOE_SAMPLES_LEAST && v[2] >= v[0] * (1 - MOE_SAMPLES_AGREE);
}

int moe_measure_rate(moe_sample_fn *fn, void *ctx, double seconds, struct moe_rate *out, struct moe_err *e)
{
	double v[MOE_SAMPLES_MOST];
	uint64_t start = moe_now_ns();

	*out = (struct moe_rate){0};
	for (int n = 0; n < MOE_SAMPLES_MOST && !out->settled; n++) {
		struct moe_sample s = {0, 0};
		int rc;

		if (n && (double)(moe_now_ns() - start) > seconds * 1e9)
			break;
		rc = fn(ctx, &s, e);
		if (rc)
			return rc;
		v[n] = s.work * 1e9 / (double)(s.ns ? s.ns : 1);
		summarise(v, n + 1, out);
	}
	return 0;
}
