/* Hidden states as they travel: rows of f32, f16 or bf16, little-endian, at any address.
 *
 * Rounding is to nearest, ties to even.  An f16 saturates: what is beyond +-65504, an infinity included, becomes +-65504,
 * so that one large value does not spoil a row.  NaN stays NaN.  The way back is exact. */
#ifndef MOE_NET_STATES_H
#define MOE_NET_STATES_H

#include <stddef.h>

#include "compute/compute.h"

/* Bytes of one element. */
size_t states_bytes(enum moe_wire_type t);
/* to[n] = x[n] as it travels. */
void states_put(enum moe_wire_type t, void *to, const float *x, size_t n);
/* y[n] = what came, or y[n] += it. */
void states_take(enum moe_wire_type t, float *y, const void *from, size_t n);
void states_add(enum moe_wire_type t, float *y, const void *from, size_t n);

#endif
