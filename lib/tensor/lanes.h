/* Inside the room: sixteen numbers at once.  The compiler makes one, two or four instructions of each operation, by what
 * the machine has; every element is computed by itself, so the bits are the same. */
#ifndef MOE_TENSOR_LANES_H
#define MOE_TENSOR_LANES_H

#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define LANES 16

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(16)));
typedef int32_t lane_bits __attribute__((vector_size(4 * LANES), aligned(16)));
typedef uint8_t lane_bytes __attribute__((vector_size(LANES)));

/* No vector crosses a call: everything here becomes part of its caller, so how a machine passes vectors is no matter. */
#pragma GCC diagnostic ignored "-Wpsabi"
#define LANE_FN static inline __attribute__((always_inline))

LANE_FN lanes lanes_of(float x)
{
	return (lanes){0} + x;
}

LANE_FN lanes lanes_load(const float *p)
{
	lanes v;

	memcpy(&v, p, sizeof v);
	return v;
}

LANE_FN void lanes_store(float *p, lanes v)
{
	memcpy(p, &v, sizeof v);
}

/* a where the mask is set, else b. */
LANE_FN lanes lanes_pick(lane_bits mask, lanes a, lanes b)
{
	return (lanes)((mask & (lane_bits)a) | (~mask & (lane_bits)b));
}

/* The larger, the smaller; b if one is not a number, as x86 has it. */
#ifdef __AVX512F__
LANE_FN lanes lanes_max(lanes a, lanes b)
{
	return (lanes)_mm512_max_ps((__m512)a, (__m512)b);
}

LANE_FN lanes lanes_min(lanes a, lanes b)
{
	return (lanes)_mm512_min_ps((__m512)a, (__m512)b);
}
#else
LANE_FN lanes lanes_max(lanes a, lanes b)
{
	return lanes_pick(a > b, a, b);
}

LANE_FN lanes lanes_min(lanes a, lanes b)
{
	return lanes_pick(a < b, a, b);
}
#endif

/* To the nearest integer between lo and hi (integers), ties to even.  Adding 1.5 * 2^23 leaves no bits behind the point. */
LANE_FN lanes lanes_round(lanes x, lanes lo, lanes hi)
{
	lanes r = lanes_max(lanes_min(x, hi), lo) + 0x1.8p23f;

	return r - 0x1.8p23f;
}

#endif
