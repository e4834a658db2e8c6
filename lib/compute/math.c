/* Elementary functions that do not depend on the machine's libm. */
#include <stdint.h>

#include "compute/compute.h"

static inline float clamp(float x, float lo, float hi)
{
	return x < lo ? lo : x > hi ? hi : x;
}

#define F float
#define I int32_t
#define U uint32_t
#define NAME exp_scalar
#define FMA(a, b, c) __builtin_fmaf(a, b, c)
#define CLAMP(x, lo, hi) clamp(x, lo, hi)
#include "exp.inc"

float moe_expf(float x)
{
	return exp_scalar(x);
}

#define NAME moe_sincos
#define FN
#include "sincos.inc"
