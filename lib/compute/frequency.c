/* Agreement with Hugging Face's models is the rule for rotary positions, and they hold inverse frequencies as f32 and
 * multiply them by the position in f32, in models of any type; so this does.  Powers, sine and cosine are computed
 * in double by functions of our own and rounded once. */
#include <stdint.h>

#include "frequency.h"

/* ln(x), x > 0 and normal: x = 2^n m, m in [sqrt(1/2), sqrt(2)); ln m = 2 atanh((m - 1) / (m + 1)) as a series. */
static double log_double(double x, int *two)
{
	union { double d; uint64_t u; } b = {x};
	double s, z, p = 0.0;

	*two = (int)(b.u >> 52 & 0x7ff) - 1023;
	b.u = (b.u & 0xfffffffffffffu) | 0x3ff0000000000000u;
	if (b.d > 0x1.6a09e667f3bcdp+0) {
		b.d *= 0.5;
		++*two;
	}
	s = (b.d - 1.0) / (b.d + 1.0);
	z = s * s;
	for (int k = 23; k >= 1; k -= 2)
		p = p * z + 1.0 / k;
	return 2.0 * s * p;
}

/* x^e for x >= 1 and 0 <= e <= 1, as 2^n exp(r). */
static double power(double x, double e)
{
	const double ln2 = 0x1.62e42fefa39efp-1;
	int two, n;
	double m = log_double(x, &two), t, r, p = 1.0;
	union { double d; uint64_t u; } scale;

	t = e * two + e * m / ln2; /* log2 of the result */
	n = (int)(t + 0.5);
	r = (t - n) * ln2;
	for (int k = 18; k >= 1; k--)
		p = p * r / k + 1.0;
	scale.u = (uint64_t)(n + 1023) << 52;
	return p * scale.d;
}

float moe_rope_frequency(const struct moe_rope *rope, int i)
{
	float f = 1.0f / (float)power(rope->theta, (double)((float)(2 * i) / (float)rope->dims));

	return f / (float)rope->factor;
}
