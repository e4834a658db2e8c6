/* The loops have no branches, so that the compiler makes vectors of them; this file is compiled with -O3 for that. */
#include "net/states.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

size_t states_bytes(enum moe_wire_type t)
{
	return t == MOE_WIRE_F32 ? 4 : 2;
}

/* Signed, because instruction sets without unsigned comparisons are common; without the sign bit it is the same. */
INLINE int32_t bits_of(float f)
{
	int32_t x;

	memcpy(&x, &f, sizeof x);
	return x;
}

INLINE float of_bits(int32_t x)
{
	float f;

	memcpy(&f, &x, sizeof f);
	return f;
}

/* A choice without a branch: mask is all ones or all zeros. */
INLINE int32_t either(int32_t mask, int32_t a, int32_t b)
{
	return (a & mask) | (b & ~mask);
}

/* ---- one element ---- */

#define F32_SIZE INT32_C(0x7fffffff)     /* all but the sign */
#define F32_INF INT32_C(0x7f800000)
#define F16_MOST INT32_C(0x477fe000)     /* 65504 */
#define EXPONENTS(n) (INT32_C(n) << 23)

INLINE uint16_t to_bf16(float f)
{
	int32_t x = bits_of(f), size = x & F32_SIZE, high = x >> 16;
	int32_t rounded = (int32_t)(((uint32_t)size + 0x7fff + (uint32_t)(high & 1)) >> 16);
	int32_t nan = size >> 16 | 0x40; /* quiet, so that no payload rounds to an infinity */

	return (uint16_t)((high & 0x8000) | either(-(size > F32_INF), nan, rounded));
}

INLINE float from_bf16(uint16_t h)
{
	return of_bits((int32_t)((uint32_t)h << 16));
}

/* Below 2^-14 the spacing of f16 is 2^-24, which is that of f32 from 0.5 to 1: adding 0.5 rounds as it should. */
INLINE uint16_t to_f16(float f)
{
	int32_t x = bits_of(f), size = x & F32_SIZE;
	int32_t most = either(-(size < F16_MOST), size, F16_MOST);
	int32_t normal = (most - EXPONENTS(112) + 0xfff + (most >> 13 & 1)) >> 13;
	int32_t small = bits_of(of_bits(most) + 0.5f) - bits_of(0.5f);
	int32_t nan = 0x7e00 | (size >> 13 & 0x3ff);
	int32_t finite = either(-(most < EXPONENTS(113)), small, normal);

	return (uint16_t)((x >> 16 & 0x8000) | either(-(size > F32_INF), nan, finite));
}

/* Subnormal numbers are given 2^-14 as their leading bit, which is then taken away: exact. */
INLINE float from_f16(uint16_t h)
{
	int32_t sign = (int32_t)((uint32_t)(h & 0x8000) << 16), size = (int32_t)(h & 0x7fff) << 13;
	int32_t normal = size + EXPONENTS(112);
	int32_t small = bits_of(of_bits(size + EXPONENTS(113)) - of_bits(EXPONENTS(113)));
	int32_t endless = size + EXPONENTS(224);
	int32_t finite = either(-(size < EXPONENTS(1)), small, normal);

	return of_bits(sign | either(-(size >= EXPONENTS(31)), endless, finite));
}

/* ---- loops ---- */

INLINE uint16_t half_at(const unsigned char *p, size_t i)
{
	uint16_t h;

	memcpy(&h, p + 2 * i, sizeof h);
	return h;
}

INLINE void put_halves(bool brain, unsigned char *p, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t h = brain ? to_bf16(x[i]) : to_f16(x[i]);

		memcpy(p + 2 * i, &h, sizeof h);
	}
}

INLINE void take_halves(bool brain, float *y, const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] = brain ? from_bf16(half_at(p, i)) : from_f16(half_at(p, i));
}

INLINE void add_halves(bool brain, float *y, const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += brain ? from_bf16(half_at(p, i)) : from_f16(half_at(p, i));
}

INLINE void put(enum moe_wire_type t, void *to, const float *x, size_t n)
{
	if (t == MOE_WIRE_F32)
		memcpy(to, x, n * sizeof *x);
	else if (t == MOE_WIRE_BF16)
		put_halves(true, to, x, n);
	else
		put_halves(false, to, x, n);
}

INLINE void take(enum moe_wire_type t, float *y, const void *from, size_t n)
{
	if (t == MOE_WIRE_F32)
		memcpy(y, from, n * sizeof *y);
	else if (t == MOE_WIRE_BF16)
		take_halves(true, y, from, n);
	else
		take_halves(false, y, from, n);
}

INLINE void add(enum moe_wire_type t, float *y, const void *from, size_t n)
{
	const unsigned char *p = from;

	if (t == MOE_WIRE_BF16)
		add_halves(true, y, p, n);
	else if (t == MOE_WIRE_F16)
		add_halves(false, y, p, n);
	else
		for (size_t i = 0; i < n; i++) {
			float v;

			memcpy(&v, p + 4 * i, sizeof v);
			y[i] += v;
		}
}

/* ---- the same with the vectors that this processor has ---- */

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2")))

AVX2 static void put_avx2(enum moe_wire_type t, void *to, const float *x, size_t n)
{
	put(t, to, x, n);
}

AVX2 static void take_avx2(enum moe_wire_type t, float *y, const void *from, size_t n)
{
	take(t, y, from, n);
}

AVX2 static void add_avx2(enum moe_wire_type t, float *y, const void *from, size_t n)
{
	add(t, y, from, n);
}

static bool wide(void)
{
	return __builtin_cpu_supports("avx2");
}
#else
#define put_avx2 put
#define take_avx2 take
#define add_avx2 add

static bool wide(void)
{
	return false;
}
#endif

void states_put(enum moe_wire_type t, void *to, const float *x, size_t n)
{
	if (wide())
		put_avx2(t, to, x, n);
	else
		put(t, to, x, n);
}

void states_take(enum moe_wire_type t, float *y, const void *from, size_t n)
{
	if (wide())
		take_avx2(t, y, from, n);
	else
		take(t, y, from, n);
}

void states_add(enum moe_wire_type t, float *y, const void *from, size_t n)
{
	if (wide())
		add_avx2(t, y, from, n);
	else
		add(t, y, from, n);
}
