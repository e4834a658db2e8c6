/* Elementary functions that do not depend on the machine's libm. */
#include <stdint.h>

#include "compute/compute.h"

static inline float clamp(float x, float lo, float hi)
{
	return x < lo ? lo : x > hi ? hi : x;
}

#define F float
#define I int32_t
#define U uint32_t
#define NAME exp_scalar
#define FMA(a, b, c) __builtin_fmaf(a, b, c)
#define CLAMP(x, lo, hi) clamp(x, lo, hi)
#include "exp.inc"

float moe_expf(float x)
{
	return exp_scalar(x);
}

/* sin and cos on [-pi/4, pi/4]: Taylor series, whose next term is below 1e-17. */
static double sin_poly(double r)
{
	double z = r * r, p = 1.0 / 355687428096000.0;

	p = 1.0 / 1307674368000.0 - z * p;
	p = 1.0 / 6227020800.0 - z * p;
	p = 1.0 / 39916800.0 - z * p;
	p = 1.0 / 362880.0 - z * p;
	p = 1.0 / 5040.0 - z * p;
	p = 1.0 / 120.0 - z * p;
	p = 1.0 / 6.0 - z * p;
	return r - r * z * p;
}

static double cos_poly(double r)
{
	double z = r * r, p = 1.0 / 20922789888000.0;

	p = 1.0 / 87178291200.0 - z * p;
	p = 1.0 / 479001600.0 - z * p;
	p = 1.0 / 3628800.0 - z * p;
	p = 1.0 / 40320.0 - z * p;
	p = 1.0 / 720.0 - z * p;
	p = 1.0 / 24.0 - z * p;
	p = 1.0 / 2.0 - z * p;
	return 1.0 - z * p;
}

void moe_sincos(double x, double *s, double *c)
{
	/* pi/2 in three parts; the first two have 22 bits, so their products with a quotient of 31 bits are exact. */
	const double two_over_pi = 0x1.45f306dc9c883p-1;
	const double p1 = 0x1.921fbp+0, p2 = 0x1.5110bp-22, p3 = 0x1.18469898cc517p-44;
	const double shifter = 0x1.8p+52;
	double n, r, sr, cr;

	if (!(__builtin_fabs(x) <= 0x1p31)) { /* too large to reduce, or a NaN */
		*s = *c = __builtin_nan("");
		return;
	}
	n = x * two_over_pi + shifter - shifter;
	r = x - n * p1;
	r -= n * p2;
	r -= n * p3;
	sr = sin_poly(r);
	cr = cos_poly(r);
	switch ((int64_t)n & 3) {
	case 0: *s = sr; *c = cr; break;
	case 1: *s = cr; *c = -sr; break;
	case 2: *s = -sr; *c = -cr; break;
	default: *s = -cr; *c = sr; break;
	}
}
