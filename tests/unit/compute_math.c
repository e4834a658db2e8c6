/* The elementary functions against the C library's, which are good to less than one unit in the last place. */
#include <stdio.h>

#include "compute_rig.h"

static uint32_t bits(float x)
{
	uint32_t u;

	memcpy(&u, &x, sizeof u);
	return u;
}

/* Distance in units in the last place of the float nearest to `want`. */
static double ulps(float got, double want)
{
	float w = (float)want, next = nextafterf(fabsf(w), INFINITY);

	if (got == w)
		return 0;
	return fabs(got - want) / ((double)next - fabsf(w));
}

static void exp_is_close_everywhere(void **state)
{
	double worst = 0;

	(void)state;
	for (uint32_t i = 0; i < 4000000; i++) {
		float x = -104.5f + 193.5f * ((float)i / 4e6f);
		double d = ulps(moe_expf(x), exp((double)x));

		worst = d > worst ? d : worst;
	}
	for (uint32_t i = bits(1e-30f); i < bits(1.0f); i += 997) {
		float x;

		memcpy(&x, &i, sizeof x);
		worst = fmax(worst, fmax(ulps(moe_expf(x), exp(x)), ulps(moe_expf(-x), exp(-(double)x))));
	}
	printf("# moe_expf: %.3f ulp at most\n", worst);
	assert_true(worst <= 2);
}

static void exp_knows_its_limits(void **state)
{
	(void)state;
	assert_true(moe_expf(0.0f) == 1.0f && moe_expf(-0.0f) == 1.0f);
	assert_true(moe_expf(INFINITY) == INFINITY && moe_expf(89.0f) == INFINITY && moe_expf(3e38f) == INFINITY);
	assert_true(isfinite(moe_expf(88.72f)));
	assert_true(bits(moe_expf(-INFINITY)) == 0 && bits(moe_expf(-104.0f)) == 0 && bits(moe_expf(-3e38f)) == 0);
	assert_true(bits(moe_expf(-103.0f)) == 1); /* the smallest there is */
	assert_true(isnan(moe_expf(NAN)) && isnan(moe_expf(-NAN)));
}

static void sincos_is_close_everywhere(void **state)
{
	static const double ranges[] = {1e-4, 1, 10, 1000, 131072 * 3.0, 0x1p31};
	double worst = 0, s, c;

	(void)state;
	for (size_t r = 0; r < COUNT(ranges); r++)
		for (uint64_t i = 0; i < 300000; i++) {
			double x = ((double)noise(r, 2 * i) + noise(r, 2 * i + 1) * 0x1p-23) * ranges[r];

			moe_sincos(x, &s, &c);
			worst = fmax(worst, fmax(fabs(s - sin(x)), fabs(c - cos(x))));
			assert_true(ulps((float)s, sin(x)) <= 1 && ulps((float)c, cos(x)) <= 1);
		}
	printf("# moe_sincos: off by %.3g at most\n", worst);
	assert_true(worst < 4e-16);
}

static void sincos_knows_its_limits(void **state)
{
	static const double bad[] = {NAN, INFINITY, -INFINITY, 0x1p32, -1e300};
	double s, c;

	(void)state;
	moe_sincos(0, &s, &c);
	assert_true(s == 0 && c == 1);
	for (size_t i = 0; i < COUNT(bad); i++) {
		moe_sincos(bad[i], &s, &c);
		assert_true(isnan(s) && isnan(c));
	}
}

/* An FFN whose gate and down are the identity and whose up gives 1 is silu alone: exp in the kernels' vectors must have
 * the bits of the scalar one. */
static void exp_has_the_same_bits_in_vectors(void **state)
{
	enum { n = 250, rows = 64 };
	struct moe_err e = MOE_ERR_INIT;
	float *x = noises(2, rows * n), *y = noises(3, rows * n), *scratch = noises(4, rows * n);
	float *up = calloc(n * n, sizeof *up), *eye = calloc(n * n, sizeof *eye);
	struct moe_expert_weights w = {
		{MOE_Q_F32, MOE_L_PLAIN, n, n, NULL, false}, {MOE_Q_F32, MOE_L_PLAIN, n, n, up, false},
		{MOE_Q_F32, MOE_L_PLAIN, n, n, eye, false},
	};

	(void)state;
	assert_true(up && eye);
	for (int i = 0; i < n; i++)
		eye[i * n + i] = up[i * n] = 1;
	for (int i = 0; i < rows * n; i++)
		x[i] = i % n ? x[i] * 100 : 1; /* x . (1, 0, 0 ...) = 1 */
	w.gate.data = eye;
	for (int r = 0; r < 3; r++) {
		struct rig rig;

		if (!rig_open(&rig, isas[r], 1))
			continue;
		assert_int_equal(rig.b->ops->ffn(rig.b, NULL, y, x, rows, &w, MOE_ACT_SILU, scratch, &e), 0);
		for (int i = 0; i < rows * n; i++)
			assert_true(y[i] == x[i] / (1.0f + moe_expf(-x[i])));
		rig_close(&rig);
	}
	free(x), free(y), free(scratch), free(up), free(eye);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exp_is_close_everywhere),
		cmocka_unit_test(exp_knows_its_limits),
		cmocka_unit_test(sincos_is_close_everywhere),
		cmocka_unit_test(sincos_knows_its_limits),
		cmocka_unit_test(exp_has_the_same_bits_in_vectors),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("compute_math", tests, NULL, NULL);
}
