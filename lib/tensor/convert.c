/* Between the floating formats, on their bits.  Widening is exact; narrowing rounds to nearest, ties to even. */
#include <string.h>

#include "tensor/halves.h"
#include "tensor/tensor.h"

static float from_bits(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof f);
	return f;
}

float moe_bf16_to_f32(uint16_t h)
{
	return half_from_bf16(h);
}

float moe_f16_to_f32(uint16_t h)
{
	return half_from_f16(h);
}

/* A finite value of a small format: sign, biased exponent of which 0 is subnormal, mantissa of `bits` bits. */
static float small_finite(uint32_t sign, uint32_t exponent, uint32_t mantissa, int bits, int bias)
{
	if (exponent == 0) {
		/* mantissa * 2^(1-bias-bits): the scale is a power of two, so the product is exact. */
		float value = (float)mantissa * from_bits((uint32_t)(128 - bias - bits) << 23);

		return sign ? -value : value;
	}
	return from_bits(sign << 31 | (exponent + 127 - (uint32_t)bias) << 23 | mantissa << (23 - bits));
}

float moe_f8_e4m3_to_f32(uint8_t h)
{
	uint32_t sign = h >> 7, exponent = h >> 3 & 15, mantissa = h & 7;

	if (exponent == 15 && mantissa == 7)
		return from_bits(sign << 31 | 0x7fc00000u);
	return small_finite(sign, exponent, mantissa, 3, 7);
}

float moe_f8_e5m2_to_f32(uint8_t h)
{
	return moe_f16_to_f32((uint16_t)(h << 8)); /* a half with a short mantissa */
}

uint16_t moe_f32_to_bf16(float f)
{
	return half_to_bf16(f);
}

uint16_t moe_f32_to_f16(float f)
{
	return half_to_f16(f, false);
}

static float load_f64(const unsigned char *p)
{
	double d;

	memcpy(&d, p, sizeof d);
	return (float)d;
}

int moe_to_f32(enum moe_dtype t, const void *src, float *dst, size_t n, struct moe_err *e)
{
	const unsigned char *p = src;

	switch (t) {
	case MOE_F32:
		if (n)
			memcpy(dst, src, n * sizeof *dst);
		return 0;
	case MOE_F16:
	case MOE_BF16:
		moe_halves_take(t, dst, src, n);
		return 0;
	case MOE_F64:
		for (size_t i = 0; i < n; i++)
			dst[i] = load_f64(p + 8 * i);
		return 0;
	case MOE_F8_E4M3:
		for (size_t i = 0; i < n; i++)
			dst[i] = moe_f8_e4m3_to_f32(p[i]);
		return 0;
	case MOE_F8_E5M2:
		for (size_t i = 0; i < n; i++)
			dst[i] = moe_f8_e5m2_to_f32(p[i]);
		return 0;
	default:
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s is not a floating type", moe_dtype_name(t));
	}
}
