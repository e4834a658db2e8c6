/* Products of bytes: acc += the sum of four weights times four codes, in each lane of a vector.
 *
 * Weights come as unsigned bytes w + 128.  The includer defines VLANES and may define DOT_VNNI (vpdpbusd) or DOT_NEON
 * (sdot); otherwise they are multiplied as 16-bit numbers, the even and the odd bytes apart, for two products of 255
 * and 127 already overflow the 16 bits that vpmaddubsw has for their sum. */
#ifndef MOE_CPU_DOT_H
#define MOE_CPU_DOT_H

#include "vec.h"

typedef uint8_t vb __attribute__((vector_size(4 * VLANES)));
typedef uint16_t vh __attribute__((vector_size(4 * VLANES)));
typedef int16_t vs __attribute__((vector_size(4 * VLANES)));
typedef uint8_t vb_any __attribute__((vector_size(4 * VLANES), aligned(1), may_alias));

INLINE vb b_load(const void *p)
{
	return *(const vb_any *)p;
}

INLINE void b_store(void *p, vb v)
{
	*(vb_any *)p = v;
}

#if VLANES == 16 || VLANES == 8 || defined(__aarch64__)
#define HAVE_SHUFFLE

/* Bytes of v chosen by index, within each 16 of them; indexes are below 16. */
INLINE vb b_shuffle(vb v, vb index)
{
#if VLANES == 16
	return (vb)_mm512_shuffle_epi8((__m512i)v, (__m512i)index);
#elif VLANES == 8
	return (vb)_mm256_shuffle_epi8((__m256i)v, (__m256i)index);
#else
	return (vb)vqtbl1q_u8((uint8x16_t)v, (uint8x16_t)index);
#endif
}

/* 16 bytes, repeated to fill a vector. */
INLINE vb b_repeat(const unsigned char table[16])
{
	vb v;

	for (int i = 0; i < 4 * VLANES; i += 16)
		memcpy((unsigned char *)&v + i, table, 16);
	return v;
}
#endif

INLINE vi i_repeat(const unsigned char *p)
{
	int32_t x;

	memcpy(&x, p, sizeof x);
	return x - (vi){0};
}

#if defined(DOT_VNNI)

#define GROUP_BYTES 4
#define WEIGHT_ZERO 128
typedef vb vw;
typedef vi vx;

INLINE vw dot_weights(vb w)
{
	return w;
}

INLINE vx dot_codes(const unsigned char *p)
{
	return i_repeat(p);
}

/* As assembly, because GCC moves the accumulators of its own intrinsic about. */
INLINE vi dot(vi acc, vw w, vx x)
{
#if VLANES == 16
	__asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(x));
#else
	__asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(w), "x"(x));
#endif
	return acc;
}

#elif defined(DOT_NEON)

#define GROUP_BYTES 4
#define WEIGHT_ZERO 0
typedef vb vw;
typedef vi vx;

INLINE vw dot_weights(vb w)
{
	return w ^ 128;
}

INLINE vx dot_codes(const unsigned char *p)
{
	return i_repeat(p);
}

INLINE vi dot(vi acc, vw w, vx x)
{
	return (vi)vdotq_s32((int32x4_t)acc, (int8x16_t)w, (int8x16_t)x);
}

#else

#define GROUP_BYTES 8            /* codes 0 and 2, then 1 and 3, as int16 */
#define WEIGHT_ZERO 128
typedef struct {
	vi even, odd;
} vw, vx;

INLINE vw dot_weights(vb w)
{
	return (vw){(vi)((vh)w & 255), (vi)((vh)w >> 8)};
}

INLINE vx dot_codes(const unsigned char *p)
{
	return (vx){i_repeat(p), i_repeat(p + 4)};
}

INLINE vi dot_pairs(vi acc, vi a, vi b)
{
#if VLANES == 16
	return acc + (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif VLANES == 8
	return acc + (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
	vi p = (vi)((vs)a * (vs)b); /* 255 * 127 fits */

	return acc + ((vi)((vu)p << 16) >> 16) + (p >> 16);
#endif
}

INLINE vi dot(vi acc, vw w, vx x)
{
	return dot_pairs(dot_pairs(acc, w.even, x.even), w.odd, x.odd);
}
#endif

#endif
