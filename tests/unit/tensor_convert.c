/* Every value of the small formats against arithmetic in double; narrowing at and around every tie. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/tensor.h"

static uint32_t bits(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof u);
	return u;
}

static float of_bits(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof f);
	return f;
}

/* What the bits of a format with e exponent and m mantissa bits mean; specials: the top exponent is infinity and NaN. */
static double meaning(unsigned h, int e, int m, int specials)
{
	int bias = (1 << (e - 1)) - 1;
	unsigned exponent = h >> m & ((1u << e) - 1), mantissa = h & ((1u << m) - 1);
	double sign = h >> (e + m) & 1 ? -1 : 1;

	if (specials && exponent == (1u << e) - 1)
		return mantissa ? NAN : sign * INFINITY;
	if (exponent == 0)
		return sign * ldexp(mantissa, 1 - bias - m);
	return sign * ldexp(mantissa + (1u << m), (int)exponent - bias - m);
}

static void assert_same(float got, double want)
{
	if (isnan(want))
		assert_true(isnan(got));
	else
		assert_int_equal(bits(got), bits((float)want));
}

static void every_half(void **state)
{
	(void)state;
	for (unsigned h = 0; h < 65536; h++) {
		assert_same(moe_f16_to_f32((uint16_t)h), meaning(h, 5, 10, 1));
		assert_same(moe_bf16_to_f32((uint16_t)h), meaning(h, 8, 7, 1));
	}
}

static void every_byte(void **state)
{
	(void)state;
	for (unsigned h = 0; h < 256; h++) {
		assert_same(moe_f8_e4m3_to_f32((uint8_t)h), (h & 127) == 127 ? NAN : meaning(h, 4, 3, 0));
		assert_same(moe_f8_e5m2_to_f32((uint8_t)h), meaning(h, 5, 2, 1));
	}
}

static void what_is_held_comes_back(void **state)
{
	(void)state;
	for (unsigned h = 0; h < 65536; h++) {
		float f = moe_f16_to_f32((uint16_t)h), b = moe_bf16_to_f32((uint16_t)h);

		if (!isnan(f))
			assert_int_equal(moe_f32_to_f16(f), h);
		if (!isnan(b))
			assert_int_equal(moe_f32_to_bf16(b), h);
	}
}

/* Between h and its neighbour h + 1: the middle goes to the even one, the least step aside to the nearer. */
static void around(unsigned h, float low, float high, uint16_t (*narrow)(float))
{
	float middle = (float)(((double)low + (double)high) / 2);

	for (unsigned sign = 0; sign < 2; sign++) {
		uint32_t s = sign << 31;
		unsigned top = sign << 15;

		assert_int_equal(narrow(of_bits(bits(middle) | s)), (h + (h & 1)) | top);
		assert_int_equal(narrow(of_bits((bits(middle) - 1) | s)), h | top);
		assert_int_equal(narrow(of_bits((bits(middle) + 1) | s)), (h + 1) | top);
	}
}

static void every_tie_of_f16(void **state)
{
	(void)state;
	for (unsigned h = 0; h < 0x7bff; h++)
		around(h, moe_f16_to_f32((uint16_t)h), moe_f16_to_f32((uint16_t)(h + 1)), moe_f32_to_f16);
	assert_int_equal(moe_f32_to_f16(65519.996f), 0x7bff);
	assert_int_equal(moe_f32_to_f16(65520.0f), 0x7c00);
	assert_int_equal(moe_f32_to_f16(-1e30f), 0xfc00);
	assert_int_equal(moe_f32_to_f16(INFINITY), 0x7c00);
	assert_int_equal(moe_f32_to_f16(of_bits(1)), 0);
	assert_int_equal(moe_f32_to_f16(of_bits(0x80000001)), 0x8000);
}

static void every_tie_of_bf16(void **state)
{
	(void)state;
	for (unsigned h = 0; h < 0x7f80; h++) {
		uint32_t low = h << 16;

		assert_int_equal(moe_f32_to_bf16(of_bits(low | 0x8000)), h + (h & 1));
		assert_int_equal(moe_f32_to_bf16(of_bits(low | 0x7fff)), h);
		assert_int_equal(moe_f32_to_bf16(of_bits(low | 0x8001)), h + 1);
		assert_int_equal(moe_f32_to_bf16(of_bits(low | 0x80008001u)), (h + 1) | 0x8000);
	}
}

static void nan_stays_nan(void **state)
{
	(void)state;
	for (uint32_t payload = 1; payload < 0x800000; payload += payload < 70000 ? 1 : 977)
		for (uint32_t sign = 0; sign < 2; sign++) {
			float f = of_bits(sign << 31 | 0x7f800000 | payload);

			assert_true(isnan(moe_f16_to_f32(moe_f32_to_f16(f))));
			assert_true(isnan(moe_bf16_to_f32(moe_f32_to_bf16(f))));
		}
}

static void many_at_any_address(void **state)
{
	unsigned char raw[64] = {0};
	const float want[2] = {1.5f, -2};
	const double d[2] = {1.5, -2};
	const uint16_t half[2] = {0x3e00, 0xc000}, brain[2] = {0x3fc0, 0xc000};
	const uint8_t e4[2] = {0x3c, 0xc0}, e5[2] = {0x3e, 0xc0};
	const struct {
		enum moe_dtype t;
		const void *data;
	} all[] = {{MOE_F32, want}, {MOE_F64, d}, {MOE_F16, half}, {MOE_BF16, brain}, {MOE_F8_E4M3, e4}, {MOE_F8_E5M2, e5}};
	float got[2];

	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		memcpy(raw + 1, all[i].data, 2 * moe_dtype_size(all[i].t));
		assert_int_equal(moe_to_f32(all[i].t, raw + 1, got, 2, NULL), 0);
		assert_memory_equal(got, want, sizeof want);
	}
	assert_int_equal(moe_to_f32(MOE_F32, NULL, NULL, 0, NULL), 0);
}

static void integers_are_no_floats(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	float f;

	(void)state;
	assert_int_equal(moe_to_f32(MOE_I8, "x", &f, 1, &e), MOE_E_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "I8"));
}

static void names_of_types(void **state)
{
	enum moe_dtype back;
	enum moe_quant q;

	(void)state;
	for (int t = 0; t < MOE_DTYPES; t++) {
		assert_true(moe_dtype_parse(moe_dtype_name((enum moe_dtype)t), &back));
		assert_int_equal(back, t);
		assert_true(moe_dtype_size((enum moe_dtype)t) > 0);
	}
	assert_false(moe_dtype_parse("bf16", &back));
	assert_false(moe_dtype_parse("", &back));
	assert_true(moe_quant_of(MOE_BF16, &q));
	assert_string_equal(moe_quant_name(q), "bf16");
	assert_false(moe_quant_of(MOE_F8_E4M3, &q));
	assert_false(moe_quant_of(MOE_F64, &q));
}

static void shapes_in_words(void **state)
{
	struct moe_tensor t = {.ndim = 2, .shape = {8, 256}};
	struct moe_matrix m = {.quant = MOE_Q_BF16, .rows = 3, .cols = 5};
	char buf[160];

	(void)state;
	assert_string_equal(moe_shape_text(&t, buf), "[8, 256]");
	t.ndim = 0;
	assert_string_equal(moe_shape_text(&t, buf), "[]");
	t.ndim = MOE_MAX_DIMS;
	for (int i = 0; i < MOE_MAX_DIMS; i++)
		t.shape[i] = INT64_MAX;
	assert_true(strlen(moe_shape_text(&t, buf)) < 160);
	assert_int_equal(moe_matrix_bytes(&m), 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_half),
		cmocka_unit_test(every_byte),
		cmocka_unit_test(what_is_held_comes_back),
		cmocka_unit_test(every_tie_of_f16),
		cmocka_unit_test(every_tie_of_bf16),
		cmocka_unit_test(nan_stays_nan),
		cmocka_unit_test(many_at_any_address),
		cmocka_unit_test(integers_are_no_floats),
		cmocka_unit_test(names_of_types),
		cmocka_unit_test(shapes_in_words),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tensor_convert", tests, NULL, NULL);
}
