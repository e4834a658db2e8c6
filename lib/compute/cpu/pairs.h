/* Pairs of bf16: what the instruction vdpbf16ps multiplies, and f32 fma after it with the same bits.
 *
 * Its result is fma(low, low, fma(high, high, sum)), except that it takes subnormal numbers as zero, and makes zero of
 * them.  Where no factor is smaller than MOE_PAIR_LEAST = 2^-56 there are none: a bf16 has 8 significant bits, so
 * each is a multiple of 2^-63, products are multiples of 2^-126, and so are sums of them, rounded or not; and 2^-126 is
 * the least normal number.  Smaller factors, of weights and of rows, count as zero. */
#ifndef MOE_CPU_PAIRS_H
#define MOE_CPU_PAIRS_H

#include <stdint.h>

#define MOE_PAIR_BLOCK 32                       /* elements: a pair for each of 16 lanes */
#define MOE_PAIR_LEAST ((127u - 56u) << 7)      /* of a bf16's bits without the sign */

/* The bits of an f32 rounded to bf16, to nearest even; small ones are zero, NaN stays NaN. */
static inline uint16_t moe_pair_round(uint32_t f)
{
	uint32_t r = (f + 0x7fff + (f >> 16 & 1)) >> 16 & 0xffff;

	r = (f & 0x7fffffff) > 0x7f800000 ? (f >> 16 | 0x40) : r;
	return (uint16_t)((r & 0x7fff) < MOE_PAIR_LEAST ? 0 : r);
}

#endif
