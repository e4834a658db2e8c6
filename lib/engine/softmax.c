/* exp, sums and logarithms over a vocabulary, with the same bits on every machine.
 *
 * Only + - * / on floats and doubles, each rounded as IEEE 754 says; no libm, no fma.  Blocks of a fixed length let the
 * compiler use vectors for exp; the sum is one chain in index order. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/private.h"

#define BLOCK 64

union word {
	float f;
	int32_t i;
};

/* e^x for x <= 0 to about 1 ulp; below -87 (and NaN) as at -87.  x = n ln 2 + r, |r| <= ln 2 / 2; a polynomial in r
 * (Cephes' coefficients), times 2^n put together from bits.  The bound is compared as whole numbers (with the sign
 * bit set those grow with the magnitude), which compilers can do in vectors. */
static inline float exp_negative(float x)
{
	const union word lowest = {.f = -87.0f};
	union word c = {.f = x}, scale;
	float n, r, p = 1.9875691500e-4f;

	c.i |= INT32_MIN;
	c.i = c.i < lowest.i ? c.i : lowest.i;
	n = (c.f * 1.44269504f + 12582912.0f) - 12582912.0f; /* adding 1.5 * 2^23 rounds to a whole number */
	r = (c.f - n * 0.693359375f) + n * 2.12194440e-4f;    /* the first product is exact */
	p = p * r + 1.3981999507e-3f;
	p = p * r + 8.3334519073e-3f;
	p = p * r + 4.1665795894e-2f;
	p = p * r + 1.6666665459e-1f;
	p = p * r + 5.0000001201e-1f;
	p = p * (r * r) + r + 1.0f;
	scale.i = ((int32_t)n + 127) * (1 << 23);
	return p * scale.f;
}

int moe_argmax(const float *v, int n)
{
	int best = 0;
	bool finite = true;

	for (int i = 0; i < n; i++) {
		finite &= v[i] - v[i] == 0.0f;
		if (v[i] > v[best])
			best = i;
	}
	return finite && n > 0 ? best : -1;
}

double moe_exp_sum(const float *v, int n, float max, float temperature, float *p)
{
	float block[BLOCK];
	double sum = 0.0;

	for (int at = 0; at < n; at += BLOCK) {
		int len = n - at < BLOCK ? n - at : BLOCK;

		memset(block, 0, sizeof block);
		memcpy(block, v + at, (size_t)len * sizeof *v);
		for (int i = 0; i < BLOCK; i++)
			block[i] = exp_negative((block[i] - max) / temperature);
		for (int i = 0; i < len; i++)
			sum += (double)block[i];
		if (p)
			memcpy(p + at, block, (size_t)len * sizeof *p);
	}
	return sum;
}

/* ln x for x > 0: x = m 2^k with m near 1, ln m = 2 artanh((m - 1) / (m + 1)). */
static double log_of(double x)
{
	int k;
	double m = frexp(x, &k); /* exact */
	double s, s2, sum = 0.0;

	if (m < 0.70710678118654752) {
		m *= 2.0;
		k--;
	}
	s = (m - 1.0) / (m + 1.0);
	s2 = s * s;
	for (int i = 23; i >= 1; i -= 2)
		sum = sum * s2 + 1.0 / i;
	return 2.0 * s * sum + (double)k * 0.69314718055994531;
}

double moe_logprob(const float *logits, int vocab, int token)
{
	float max = logits[0];

	for (int i = 1; i < vocab; i++)
		if (logits[i] > max)
			max = logits[i];
	return ((double)logits[token] - (double)max) - log_of(moe_exp_sum(logits, vocab, max, 1.0f, NULL));
}
