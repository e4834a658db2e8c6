/* Rows of f16 and bf16, little-endian, at any address.  The loops have no branches, so that the compiler makes vectors of them;
 * this file is compiled with -O3 for that. */
#include "tensor/halves.h"

#include "tensor/tensor.h"

HALVES_INLINE uint16_t half_at(const unsigned char *p, size_t i)
{
	uint16_t h;

	memcpy(&h, p + 2 * i, sizeof h);
	return h;
}

HALVES_INLINE void put(bool brain, unsigned char *p, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t h = brain ? half_to_bf16(x[i]) : half_to_f16(x[i], true);

		memcpy(p + 2 * i, &h, sizeof h);
	}
}

HALVES_INLINE void take(bool brain, float *y, const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] = brain ? half_from_bf16(half_at(p, i)) : half_from_f16(half_at(p, i));
}

HALVES_INLINE void add(bool brain, float *y, const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += brain ? half_from_bf16(half_at(p, i)) : half_from_f16(half_at(p, i));
}

/* Each format has loops of its own. */
HALVES_INLINE void put_any(enum moe_dtype t, void *to, const float *x, size_t n)
{
	if (t == MOE_BF16)
		put(true, to, x, n);
	else
		put(false, to, x, n);
}

HALVES_INLINE void take_any(enum moe_dtype t, float *y, const void *from, size_t n)
{
	if (t == MOE_BF16)
		take(true, y, from, n);
	else
		take(false, y, from, n);
}

HALVES_INLINE void add_any(enum moe_dtype t, float *y, const void *from, size_t n)
{
	if (t == MOE_BF16)
		add(true, y, from, n);
	else
		add(false, y, from, n);
}

/* ---- the same with the vectors that this processor has ---- */

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2")))

AVX2 static void put_avx2(enum moe_dtype t, void *to, const float *x, size_t n)
{
	put_any(t, to, x, n);
}

AVX2 static void take_avx2(enum moe_dtype t, float *y, const void *from, size_t n)
{
	take_any(t, y, from, n);
}

AVX2 static void add_avx2(enum moe_dtype t, float *y, const void *from, size_t n)
{
	add_any(t, y, from, n);
}

static bool wide(void)
{
	return __builtin_cpu_supports("avx2");
}
#else
#define put_avx2 put_any
#define take_avx2 take_any
#define add_avx2 add_any

static bool wide(void)
{
	return false;
}
#endif

void moe_halves_put(enum moe_dtype t, void *to, const float *x, size_t n)
{
	if (wide())
		put_avx2(t, to, x, n);
	else
		put_any(t, to, x, n);
}

void moe_halves_take(enum moe_dtype t, float *y, const void *from, size_t n)
{
	if (wide())
		take_avx2(t, y, from, n);
	else
		take_any(t, y, from, n);
}

void moe_halves_add(enum moe_dtype t, float *y, const void *from, size_t n)
{
	if (wide())
		add_avx2(t, y, from, n);
	else
		add_any(t, y, from, n);
}
