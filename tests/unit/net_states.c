/* Hidden states as they travel: rounding, limits, what is not a number. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "net/states.h"

#define N 1024

static float of_bits(uint32_t x)
{
	float f;

	memcpy(&f, &x, sizeof f);
	return f;
}

/* What tensor/ says, but for what f16 does with large values. */
static uint16_t want_f16(float f)
{
	uint16_t h = moe_f32_to_f16(f);

	return (h & 0x7fff) == 0x7c00 ? (uint16_t)(h - 1) : h;
}

/* A spread of all bit patterns, and all those around every change of rounding. */
static void rounds_like_the_reference(void **state)
{
	const uint32_t stride = 65521;

	(void)state;
	for (uint64_t from = 0; from < UINT64_C(1) << 32; from += (uint64_t)N * stride) {
		uint16_t f16[N], bf16[N];
		float x[N];

		for (uint32_t i = 0; i < N; i++)
			x[i] = of_bits((uint32_t)from + i * stride);
		states_put(MOE_WIRE_F16, f16, x, N);
		states_put(MOE_WIRE_BF16, bf16, x, N);
		for (int i = 0; i < N; i++) {
			assert_int_equal(f16[i], want_f16(x[i]));
			assert_int_equal(bf16[i], moe_f32_to_bf16(x[i]));
		}
	}
}

static void ties_go_to_even(void **state)
{
	(void)state;
	for (uint32_t h = 0; h < 0x10000; h++) {
		/* Below, at and above the middle between a value and the next. */
		float middle = of_bits(h << 16 | 0x8000), x[3] = {of_bits(h << 16 | 0x7fff), middle, of_bits(h << 16 | 0x8001)};
		uint16_t bf16[3], f16[3];

		states_put(MOE_WIRE_BF16, bf16, x, 3);
		states_put(MOE_WIRE_F16, f16, x, 3);
		for (int i = 0; i < 3; i++) {
			assert_int_equal(bf16[i], moe_f32_to_bf16(x[i]));
			assert_int_equal(f16[i], want_f16(x[i]));
		}
		if (isfinite(middle))
			assert_int_equal(bf16[1] & 1, 0);
	}
}

static void the_way_back_is_exact(void **state)
{
	(void)state;
	for (uint32_t from = 0; from < 0x10000; from += N) {
		float f16[N], bf16[N];
		uint16_t h[N];

		for (uint32_t i = 0; i < N; i++)
			h[i] = (uint16_t)(from + i);
		states_take(MOE_WIRE_F16, f16, h, N);
		states_take(MOE_WIRE_BF16, bf16, h, N);
		for (int i = 0; i < N; i++) {
			float a = moe_f16_to_f32(h[i]), b = moe_bf16_to_f32(h[i]);

			assert_memory_equal(&f16[i], &a, sizeof a);
			assert_memory_equal(&bf16[i], &b, sizeof b);
		}
	}
}

static void f16_saturates_and_keeps_nan(void **state)
{
	const float x[] = {65504, 65519.99f, 65520, 1e30f, INFINITY, -INFINITY, -70000, NAN};
	const float want[] = {65504, 65504, 65504, 65504, 65504, -65504, -65504};
	uint16_t h[8];
	float back[8];

	(void)state;
	states_put(MOE_WIRE_F16, h, x, 8);
	states_take(MOE_WIRE_F16, back, h, 8);
	assert_memory_equal(back, want, sizeof want);
	assert_true(isnan(back[7]));
	states_put(MOE_WIRE_BF16, h, x, 8);
	states_take(MOE_WIRE_BF16, back, h, 8);
	assert_true(isinf(back[4]) && isinf(back[5]) && isnan(back[7]));
}

/* Every length, so that what is left over from whole vectors is met, at odd addresses. */
static void any_length_at_any_address(void **state)
{
	unsigned char there[40 * 4 + 1];
	float x[40], y[40], sum[40];

	(void)state;
	for (int i = 0; i < 40; i++)
		x[i] = (float)(i - 20) / 8;
	for (enum moe_wire_type t = MOE_WIRE_F32; t < MOE_WIRE_TYPES; t++)
		for (size_t n = 0; n <= 40; n++) {
			memset(there, 0xaa, sizeof there);
			memset(y, 0, sizeof y);
			states_put(t, there + 1, x, n);
			states_take(t, y, there + 1, n);
			assert_memory_equal(y, x, n * sizeof *x);
			assert_true(n == 40 || there[1 + n * states_bytes(t)] == 0xaa);
			memcpy(sum, x, sizeof sum);
			states_add(t, sum, there + 1, n);
			for (size_t i = 0; i < 40; i++)
				assert_true(sum[i] == (i < n ? 2 * x[i] : x[i]));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rounds_like_the_reference),
		cmocka_unit_test(ties_go_to_even),
		cmocka_unit_test(the_way_back_is_exact),
		cmocka_unit_test(f16_saturates_and_keeps_nan),
		cmocka_unit_test(any_length_at_any_address),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("hidden states on the wire", tests, NULL, NULL);
}
