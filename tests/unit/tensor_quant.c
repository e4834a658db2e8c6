/* Coded matrices: what encoding loses, that packing loses nothing, and that the same values give the same bytes. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "tensor/tensor.h"

#define FOR_QUANTS(q) for (enum moe_quant q = MOE_Q_Q8; q < MOE_QUANTS; q++)
#define COUNT(a) (sizeof(a) / sizeof *(a))

static uint64_t state;

static uint64_t random_bits(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static double uniform(void)
{
	return ((double)(random_bits() >> 11) + 0.5) * 0x1p-53;
}

static double gauss(void)
{
	return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

/* Student's t with five degrees of freedom. */
static double student(void)
{
	double sum = 0;

	for (int i = 0; i < 5; i++) {
		double g = gauss();

		sum += g * g;
	}
	return gauss() / sqrt(sum / 5);
}

static double outliers(void)
{
	return gauss() * (uniform() < 0.001 ? 30 : 1);
}

static float *values(double (*draw)(void), size_t n)
{
	float *x = malloc(n * sizeof *x);

	assert_non_null(x);
	state = 1;
	for (size_t i = 0; i < n; i++)
		x[i] = (float)draw();
	return x;
}

static unsigned char *encoded(enum moe_quant q, const float *x, int64_t rows, int64_t cols, const float *importance)
{
	struct moe_quant_shape s;
	struct moe_err e = MOE_ERR_INIT;
	unsigned char *out;

	moe_quant_shape(q, cols, &s);
	out = malloc((size_t)rows * s.row_bytes);
	assert_non_null(out);
	assert_int_equal(moe_quant_encode(q, x, rows, cols, importance, out, &e), 0);
	return out;
}

static float *decoded(enum moe_quant q, const unsigned char *codes, int64_t rows, int64_t cols)
{
	struct moe_quant_shape s;
	float *y = malloc((size_t)(rows * cols) * sizeof *y);

	assert_non_null(y);
	moe_quant_shape(q, cols, &s);
	for (int64_t r = 0; r < rows; r++)
		moe_quant_decode(q, codes + (size_t)r * s.row_bytes, cols, y + r * cols);
	return y;
}

/* Root of the (weighted) squared errors' share of the squares. */
static double relative_error(const float *x, const float *y, int64_t rows, int64_t cols, const float *w)
{
	double error = 0, size = 0;

	for (int64_t i = 0; i < rows * cols; i++) {
		double weight = w ? w[i % cols] : 1, miss = (double)x[i] - (double)y[i];

		error += weight * miss * miss;
		size += weight * (double)x[i] * (double)x[i];
	}
	return sqrt(error / size);
}

static double loss(enum moe_quant q, const float *x, int64_t rows, int64_t cols, const float *importance, const float *w)
{
	unsigned char *codes = encoded(q, x, rows, cols, importance);
	float *y = decoded(q, codes, rows, cols);
	double error = relative_error(x, y, rows, cols, w);

	free(codes);
	free(y);
	return error;
}

/* ---- errors ---- */

static void errors_are_bounded(void **unused)
{
	static const struct {
		double (*draw)(void);
		int64_t cols;
		double most[4];         /* q8, q4, q3, q2 */
	} cases[] = {
		{gauss, 256, {0.0071, 0.0835, 0.153, 0.267}},
		{gauss, 384, {0.0066, 0.083, 0.152, 0.265}},
		{student, 256, {0.012, 0.117, 0.180, 0.294}},
		{outliers, 256, {0.026, 0.20, 0.155, 0.235}},
	};

	(void)unused;
	for (size_t i = 0; i < COUNT(cases); i++) {
		float *x = values(cases[i].draw, (size_t)(256 * cases[i].cols));

		FOR_QUANTS(q) {
			double error = loss(q, x, 256, cases[i].cols, NULL, NULL);

			if (error > cases[i].most[q - MOE_Q_Q8])
				fail_msg("case %zu, %s: %g", i, moe_quant_name(q), error);
		}
		free(x);
	}
}

/* No value of q8 is further off than half a step, and a step is the 127th part of the block's largest, within bf16. */
static void q8_is_near(void **unused)
{
	float *x = values(student, 64 * 256);
	unsigned char *codes = encoded(MOE_Q_Q8, x, 64, 256, NULL);
	float *y = decoded(MOE_Q_Q8, codes, 64, 256);

	(void)unused;
	for (int r = 0; r < 64; r++) {
		float most = 0;

		for (int k = 0; k < 256; k++)
			most = fmaxf(most, fabsf(x[256 * r + k]));
		for (int k = 0; k < 256; k++)
			assert_true(fabsf(x[256 * r + k] - y[256 * r + k]) <= most / 127 * 0.503f);
		for (int k = 0; k < 256; k++)
			assert_int_not_equal(codes[258 * r + k], 0);
	}
	free(x);
	free(codes);
	free(y);
}

static void importance_helps_what_it_weighs(void **unused)
{
	float *x = values(gauss, 64 * 512), w[512];

	(void)unused;
	for (int k = 0; k < 512; k++)
		w[k] = (float)exp(2 * gauss());
	for (enum moe_quant q = MOE_Q_Q4; q < MOE_QUANTS; q++)
		assert_true(loss(q, x, 64, 512, w, w) < 0.9 * loss(q, x, 64, 512, NULL, w));
	free(x);
}

/* ---- ends of the range ---- */

static void zeros_stay_zeros(void **unused)
{
	static const float zeros[3 * 300];

	(void)unused;
	FOR_QUANTS(q) {
		unsigned char *codes = encoded(q, zeros, 3, 300, NULL);
		float *y = decoded(q, codes, 3, 300);

		assert_memory_equal(y, zeros, sizeof zeros);
		free(codes);
		free(y);
	}
}

/* At both ends of f32's range a block's scale cannot be what it should; no value is lost or infinite even there. */
static void every_magnitude_is_finite_and_near(void **unused)
{
	float *x = values(gauss, 4 * 256);

	(void)unused;
	for (int i = 0; i < 4 * 256; i++)
		x[i] = fmaxf(fminf(x[i] / 4, 1), -1);
	x[0] = -1;
	x[256] = 1;
	FOR_QUANTS(q) {
		double plain = loss(q, x, 4, 256, NULL, NULL);

		for (int exponent = -149; exponent <= 127; exponent++) {
			float y[4 * 256];
			double error;

			for (int i = 0; i < 4 * 256; i++)
				y[i] = exponent == 127 ? x[i] * FLT_MAX : ldexpf(x[i], exponent);
			error = loss(q, y, 4, 256, NULL, NULL);
			if (!(error <= (exponent < -110 || exponent > 124 ? 1 : plain * 1.1 + 0.01)))
				fail_msg("%s, 2^%d: %g, should be near %g", moe_quant_name(q), exponent, error, plain);
		}
	}
	free(x);
}

static void what_is_not_finite_is_refused(void **unused)
{
	static const float bad[] = {NAN, INFINITY, -INFINITY};

	(void)unused;
	FOR_QUANTS(q)
		for (size_t i = 0; i < COUNT(bad); i++) {
			float x[3 * 100] = {0};
			unsigned char out[3 * 258];
			struct moe_err e = MOE_ERR_INIT;

			x[2 * 100 + 17] = bad[i];
			assert_int_equal(moe_quant_encode(q, x, 3, 100, NULL, out, &e), MOE_E_INPUT);
			assert_non_null(strstr(e.msg, "row 2, column 17"));
		}
}

static void bad_importance_is_refused(void **unused)
{
	static const float bad[] = {NAN, INFINITY, -1};
	float x[100] = {1}, w[100] = {0};
	unsigned char out[258];
	struct moe_err e = MOE_ERR_INIT;

	(void)unused;
	for (size_t i = 0; i < COUNT(bad); i++) {
		w[31] = bad[i];
		assert_int_equal(moe_quant_encode(MOE_Q_Q4, x, 1, 100, w, out, &e), MOE_E_INPUT);
		assert_non_null(strstr(e.msg, "column 31"));
	}
	w[31] = 0; /* nothing important at all is allowed */
	assert_int_equal(moe_quant_encode(MOE_Q_Q4, x, 1, 100, w, out, &e), 0);
}

/* ---- packing ---- */

static void pack_and_unpack(enum moe_quant q, int rows, int64_t cols)
{
	struct moe_quant_shape s;
	size_t bytes, tile_bytes;
	unsigned char *from, *tile, *back;
	float *want, *got;

	moe_quant_shape(q, cols, &s);
	bytes = (size_t)rows * s.row_bytes;
	tile_bytes = MOE_TILE_ROWS * s.row_bytes;
	from = malloc(bytes);
	tile = malloc(tile_bytes);
	back = malloc(bytes);
	want = malloc((size_t)cols * sizeof *want);
	got = malloc((size_t)cols * sizeof *got);
	assert_true(from && tile && back && want && got);
	for (size_t i = 0; i < bytes; i++)
		from[i] = (unsigned char)random_bits();
	memset(tile, 0xa5, tile_bytes);
	memset(back, 0x5a, bytes);
	moe_quant_pack(q, from, rows, cols, tile);
	moe_quant_unpack(q, tile, rows, cols, back);
	assert_memory_equal(from, back, bytes);
	for (int r = 0; r < MOE_TILE_ROWS; r++) {
		memset(want, 0, (size_t)cols * sizeof *want);
		if (r < rows)
			moe_quant_decode(q, from + (size_t)r * s.row_bytes, cols, want);
		moe_quant_tile_row(q, tile, r, cols, got);
		for (int64_t k = 0; k < cols; k++)
			assert_true(want[k] == got[k] || (isnan(want[k]) && isnan(got[k])));
	}
	free(from);
	free(tile);
	free(back);
	free(want);
	free(got);
}

static void packing_loses_nothing(void **unused)
{
	static const int64_t cols[] = {1, 31, 100, 128, 256, 384, 2048};
	static const int rows[] = {1, 63, 64};

	(void)unused;
	FOR_QUANTS(q)
		for (size_t i = 0; i < COUNT(cols); i++)
			for (size_t j = 0; j < COUNT(rows); j++)
				pack_and_unpack(q, rows[j], cols[i]);
}

/* ---- the same bytes ---- */

/* Where a machine lacks the instructions that MOE_CPU names, the plain ones are taken. */
static void instructions_do_not_show(void **unused)
{
	static const char *const isas[] = {"avx512", "avx2"};
	float *x = values(student, 20 * 640), w[640];

	(void)unused;
	for (int k = 0; k < 640; k++)
		w[k] = (float)uniform();
	FOR_QUANTS(q) {
		struct moe_quant_shape s;
		unsigned char *base;

		moe_quant_shape(q, 640, &s);
		setenv("MOE_CPU", "base", 1);
		base = encoded(q, x, 20, 640, w);
		for (size_t i = 0; i < COUNT(isas); i++) {
			unsigned char *other;

			setenv("MOE_CPU", isas[i], 1);
			other = encoded(q, x, 20, 640, w);
			assert_memory_equal(base, other, 20 * s.row_bytes);
			free(other);
		}
		free(base);
	}
	unsetenv("MOE_CPU");
	free(x);
}

/* A row's bytes do not depend on the rows beside it. */
static void rows_are_coded_alone(void **unused)
{
	static const int64_t cols[] = {1, 100, 256, 640};

	(void)unused;
	FOR_QUANTS(q)
		for (size_t i = 0; i < COUNT(cols); i++) {
			float *x = values(gauss, (size_t)(7 * cols[i]));
			unsigned char *all = encoded(q, x, 7, cols[i], NULL);
			struct moe_quant_shape s;

			moe_quant_shape(q, cols[i], &s);
			for (int r = 0; r < 7; r++) {
				unsigned char *one = encoded(q, x + r * cols[i], 1, cols[i], NULL);

				assert_memory_equal(one, all + (size_t)r * s.row_bytes, s.row_bytes);
				free(one);
			}
			free(x);
			free(all);
		}
}

/* Values made without libm, so that every machine has them. */
static void bytes_are_known(void **unused)
{
	static const uint64_t known[4] = {0xd29599c01a0e568f, 0xb77a2c8c67bd377f, 0xd392a956955ee2d4, 0x528046caa59f68c5};
	float *x = malloc(32 * 640 * sizeof *x), w[640];

	(void)unused;
	assert_non_null(x);
	state = 5;
	for (int i = 0; i < 32 * 640; i++)
		x[i] = (float)(uniform() + uniform() + uniform() - 1.5) * (uniform() < 0.01 ? 8.0f : 1.0f);
	for (int k = 0; k < 640; k++)
		w[k] = (float)uniform();
	FOR_QUANTS(q) {
		struct moe_quant_shape s;
		unsigned char *codes = encoded(q, x, 32, 640, w);
		uint64_t hash;

		moe_quant_shape(q, 640, &s);
		hash = XXH3_64bits(codes, 32 * s.row_bytes);
		free(codes);
		assert_int_equal(hash, known[q - MOE_Q_Q8]);
	}
	free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_are_bounded),
		cmocka_unit_test(q8_is_near),
		cmocka_unit_test(importance_helps_what_it_weighs),
		cmocka_unit_test(zeros_stay_zeros),
		cmocka_unit_test(every_magnitude_is_finite_and_near),
		cmocka_unit_test(what_is_not_finite_is_refused),
		cmocka_unit_test(bad_importance_is_refused),
		cmocka_unit_test(packing_loses_nothing),
		cmocka_unit_test(instructions_do_not_show),
		cmocka_unit_test(rows_are_coded_alone),
		cmocka_unit_test(bytes_are_known),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tensor_quant", tests, NULL, NULL);
}
