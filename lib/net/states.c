#include "net/states.h"

#include <string.h>

#include "tensor/tensor.h"

size_t states_bytes(enum moe_wire_type t)
{
	return t == MOE_WIRE_F32 ? 4 : 2;
}

static enum moe_dtype half_of(enum moe_wire_type t)
{
	return t == MOE_WIRE_BF16 ? MOE_BF16 : MOE_F16;
}

void states_put(enum moe_wire_type t, void *to, const float *x, size_t n)
{
	if (t == MOE_WIRE_F32)
		memcpy(to, x, n * sizeof *x);
	else
		moe_halves_put(half_of(t), to, x, n);
}

void states_take(enum moe_wire_type t, float *y, const void *from, size_t n)
{
	if (t == MOE_WIRE_F32)
		memcpy(y, from, n * sizeof *y);
	else
		moe_halves_take(half_of(t), y, from, n);
}

void states_add(enum moe_wire_type t, float *y, const void *from, size_t n)
{
	const unsigned char *p = from;

	if (t != MOE_WIRE_F32) {
		moe_halves_add(half_of(t), y, from, n);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		float v;

		memcpy(&v, p + 4 * i, sizeof v);
		y[i] += v;
	}
}
