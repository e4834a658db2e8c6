/* One f32 to and from the two formats of 16 bits, without a branch, so that the compiler makes vectors of loops over it.
 * Rounding is to nearest, ties to even; NaN stays NaN; the way back is exact. */
#ifndef MOE_TENSOR_HALVES_H
#define MOE_TENSOR_HALVES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define HALVES_INLINE static inline __attribute__((always_inline, unused))

/* Signed, because instruction sets without unsigned comparisons are common; without the sign bit it is the same. */
HALVES_INLINE int32_t half_bits_of(float f)
{
	int32_t x;

	memcpy(&x, &f, sizeof x);
	return x;
}

HALVES_INLINE float half_of_bits(int32_t x)
{
	float f;

	memcpy(&f, &x, sizeof f);
	return f;
}

/* A choice without a branch: mask is all ones or all zeros. */
HALVES_INLINE int32_t half_either(int32_t mask, int32_t a, int32_t b)
{
	return (a & mask) | (b & ~mask);
}

#define HALF_SIZE INT32_C(0x7fffffff)      /* all of an f32 but the sign */
#define HALF_F32_INF INT32_C(0x7f800000)
#define HALF_MOST INT32_C(0x477fe000)      /* 65504, f16's greatest */
#define HALF_TOO_MUCH INT32_C(0x477ff000)  /* from here on the nearest f16 is an infinity */
#define HALF_EXPONENTS(n) (INT32_C(n) << 23)

HALVES_INLINE uint16_t half_to_bf16(float f)
{
	int32_t x = half_bits_of(f), size = x & HALF_SIZE, high = x >> 16;
	int32_t rounded = (int32_t)(((uint32_t)size + 0x7fff + (uint32_t)(high & 1)) >> 16);
	int32_t nan = size >> 16 | 0x40; /* quiet, so that no payload rounds to an infinity */

	return (uint16_t)((high & 0x8000) | half_either(-(size > HALF_F32_INF), nan, rounded));
}

HALVES_INLINE float half_from_bf16(uint16_t h)
{
	return half_of_bits((int32_t)((uint32_t)h << 16));
}

/* saturate: what is beyond +-65504 stays there, an infinity included.
 *
 * Below 2^-14 the spacing of f16 is 2^-24, which is that of f32 from 0.5 to 1: adding 0.5 rounds as it should. */
HALVES_INLINE uint16_t half_to_f16(float f, bool saturate)
{
	int32_t x = half_bits_of(f), size = x & HALF_SIZE;
	int32_t most = half_either(-(size < HALF_MOST), size, HALF_MOST);
	int32_t normal = (most - HALF_EXPONENTS(112) + 0xfff + (most >> 13 & 1)) >> 13;
	int32_t small = half_bits_of(half_of_bits(most) + 0.5f) - half_bits_of(0.5f);
	int32_t nan = 0x7e00 | (size >> 13 & 0x3ff);
	int32_t finite = half_either(-(most < HALF_EXPONENTS(113)), small, normal);
	int32_t number = saturate ? finite : half_either(-(size >= HALF_TOO_MUCH), 0x7c00, finite);

	return (uint16_t)((x >> 16 & 0x8000) | half_either(-(size > HALF_F32_INF), nan, number));
}

/* Subnormal numbers are given 2^-14 as their leading bit, which is then taken away: exact. */
HALVES_INLINE float half_from_f16(uint16_t h)
{
	int32_t sign = (int32_t)((uint32_t)(h & 0x8000) << 16), size = (int32_t)(h & 0x7fff) << 13;
	int32_t normal = size + HALF_EXPONENTS(112);
	int32_t small = half_bits_of(half_of_bits(size + HALF_EXPONENTS(113)) - half_of_bits(HALF_EXPONENTS(113)));
	int32_t endless = size + HALF_EXPONENTS(224);
	int32_t finite = half_either(-(size < HALF_EXPONENTS(1)), small, normal);

	return half_of_bits(sign | half_either(-(size >= HALF_EXPONENTS(31)), endless, finite));
}

#endif
