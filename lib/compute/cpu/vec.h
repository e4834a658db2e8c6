/* Native vectors of VLANES floats for kernels.inc: GCC's vector types, and by hand only what they cannot say.
 * The includer defines VLANES: 16 (AVX-512), 8 (AVX2), 4 (anything). */
#ifndef MOE_CPU_VEC_H
#define MOE_CPU_VEC_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "tensor/tensor.h"

#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(4 * VLANES)));
typedef int32_t vi __attribute__((vector_size(4 * VLANES)));
typedef uint32_t vu __attribute__((vector_size(4 * VLANES)));
typedef float vf_any __attribute__((vector_size(4 * VLANES), aligned(1), may_alias));
typedef float v4f __attribute__((vector_size(16)));
typedef float v4f_any __attribute__((vector_size(16), aligned(1), may_alias));

INLINE vf v_load(const void *p)
{
	return *(const vf_any *)p;
}

INLINE void v_store(float *p, vf v)
{
	*(vf_any *)p = v;
}

INLINE vf v_set(float x)
{
	return x - (vf){0};
}

#if VLANES == 16
INLINE __mmask16 v_first(int n)
{
	return (__mmask16)(n <= 0 ? 0 : n >= 16 ? 0xffff : (1u << n) - 1);
}
#endif

/* n elements (at most VLANES are taken), then zeros; n <= 0: zeros. */
INLINE vf v_load_n(const float *p, int n)
{
#if VLANES == 16
	return (vf)_mm512_maskz_loadu_ps(v_first(n), p);
#else
	vf v = {0};

	for (int i = 0; i < VLANES; i++)
		if (i < n)
			v[i] = p[i];
	return v;
#endif
}

INLINE void v_store_n(float *p, vf v, int n)
{
#if VLANES == 16
	_mm512_mask_storeu_ps(p, v_first(n), (__m512)v);
#else
	for (int i = 0; i < VLANES; i++)
		if (i < n)
			p[i] = v[i];
#endif
}

/* a b + c, rounded once. */
INLINE vf v_fma(vf a, vf b, vf c)
{
#if VLANES == 16
	return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif VLANES == 8
	return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
	return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
	for (int i = 0; i < VLANES; i++)
		c[i] = __builtin_fmaf(a[i], b[i], c[i]);
	return c;
#endif
}

INLINE vf v_select(vi mask, vf yes, vf no)
{
	return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

INLINE vf v_clamp(vf x, float lo, float hi)
{
	vf l = v_set(lo), h = v_set(hi);

	return v_select(x < l, l, v_select(x > h, h, x));
}

/* ---- weights: element i.. of a row of codes, as f32 ---- */

INLINE vf v_bf16(const unsigned char *p)
{
#if VLANES == 16
	return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#elif VLANES == 8
	return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
#else
	typedef uint16_t v4h __attribute__((vector_size(8)));
	v4h h;

	memcpy(&h, p, sizeof h);
	return (vf)(__builtin_convertvector(h, vu) << 16);
#endif
}

INLINE vf v_f16(const unsigned char *p)
{
#if VLANES == 16
	return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif VLANES == 8
	return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
	uint16_t h[VLANES];
	vf v = {0};

	memcpy(h, p, sizeof h);
	for (int i = 0; i < VLANES; i++)
		v[i] = moe_f16_to_f32(h[i]);
	return v;
#endif
}

INLINE size_t w_size(enum moe_quant q)
{
	return q == MOE_Q_F32 ? 4 : 2;
}

INLINE vf v_weights(const unsigned char *row, enum moe_quant q, size_t i)
{
	switch (q) {
	case MOE_Q_BF16: return v_bf16(row + 2 * i);
	case MOE_Q_F16: return v_f16(row + 2 * i);
	default: return v_load(row + 4 * i);
	}
}

/* n of them, then zeros. */
INLINE vf v_weights_n(const unsigned char *row, enum moe_quant q, size_t i, int n)
{
	unsigned char codes[4 * VLANES] = {0};

	if (n > 0)
		memcpy(codes, row + i * w_size(q), (n < VLANES ? (size_t)n : VLANES) * w_size(q));
	return v_weights(codes, q, 0);
}

/* ---- the tree that sums 16 lanes: 8+8, 4+4, 2+2, 1+1 ---- */

#define VPASSES (16 / VLANES) /* native vectors that make 16 lanes */

/* Lanes [x0 + x2, x1 + x3] of two quads, then of four: the last two steps. */
INLINE v4f quad_sums(v4f a, v4f b, v4f c, v4f d)
{
	v4f ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
	v4f cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);

	return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}

#if VLANES == 16
INLINE v4f v_sum4(const vf a[1], const vf b[1], const vf c[1], const vf d[1])
{
	__m512 x = (__m512)a[0], y = (__m512)b[0], z = (__m512)c[0], w = (__m512)d[0], t;

	x = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
	z = _mm512_add_ps(_mm512_shuffle_f32x4(z, w, 0x44), _mm512_shuffle_f32x4(z, w, 0xee));
	t = _mm512_add_ps(_mm512_shuffle_f32x4(x, z, 0x88), _mm512_shuffle_f32x4(x, z, 0xdd));
	t = _mm512_add_ps(t, _mm512_permute_ps(t, 0x4e));
	t = _mm512_add_ps(t, _mm512_permute_ps(t, 0xb1));
	return (v4f)_mm512_castps512_ps128(_mm512_permutexvar_ps(
		_mm512_castsi128_si512(_mm_setr_epi32(0, 4, 8, 12)), t));
}
#else
INLINE v4f fold(const vf p[VPASSES])
{
#if VLANES == 8
	__m256 s = (__m256)(p[0] + p[1]);

	return (v4f)_mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
#else
	return (v4f)((p[0] + p[2]) + (p[1] + p[3]));
#endif
}

INLINE v4f v_sum4(const vf a[VPASSES], const vf b[VPASSES], const vf c[VPASSES], const vf d[VPASSES])
{
	return quad_sums(fold(a), fold(b), fold(c), fold(d));
}
#endif

#endif
