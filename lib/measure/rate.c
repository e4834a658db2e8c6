/* When enough samples were taken, and what they say. */
#include "measure/measure.h"

/* Put x into v[0..n), which falls, so that v[0..n] does. */
static void insert(double *v, int n, double x)
{
	for (; n > 0 && v[n - 1] < x; n--)
		v[n] = v[n - 1];
	v[n] = x;
}

static void summarise(const double *v, int n, struct moe_rate *out)
{
	out->samples = n;
	out->steady = v[n < 3 ? n - 1 : 2];
	out->median = n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
	out->spread = out->steady > out->median ? (out->steady - out->median) / out->steady : 0;
	out->settled = n >= MOE_SAMPLES_LEAST && v[2] >= v[0] * (1 - MOE_SAMPLES_AGREE);
}

int moe_measure_rate(moe_sample_fn *fn, void *ctx, double seconds, struct moe_rate *out, struct moe_err *e)
{
	double v[MOE_SAMPLES_MOST], spent = 0;

	*out = (struct moe_rate){0};
	for (int n = 0; n < MOE_SAMPLES_MOST; n++) {
		struct moe_sample s = {0, 0};
		int rc = fn(ctx, &s, e);

		if (rc)
			return rc;
		s.ns = s.ns ? s.ns : 1;
		spent += (double)s.ns / 1e9;
		insert(v, n, s.work * 1e9 / (double)s.ns);
		summarise(v, n + 1, out);
		if (spent >= seconds || (out->settled && spent >= seconds / 4))
			break;
	}
	return 0;
}
