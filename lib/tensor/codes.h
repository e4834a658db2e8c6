/* Inside the room: bits of codes and what they stand for. */
#ifndef MOE_TENSOR_CODES_H
#define MOE_TENSOR_CODES_H

#include "tensor/tensor.h"

/* Number i of numbers of `bits` bits (1 to 8) that follow each other from the lowest bit of the first byte on. */
static inline unsigned moe_code_get(const unsigned char *p, int bits, int i)
{
	int at = i * bits, byte = at / 8, shift = at % 8;
	unsigned v = p[byte] >> shift;

	if (shift + bits > 8)
		v |= (unsigned)p[byte + 1] << (8 - shift);
	return v & ((1u << bits) - 1);
}

/* The bits must be zero before. */
static inline void moe_code_put(unsigned char *p, int bits, int i, unsigned v)
{
	int at = i * bits, byte = at / 8, shift = at % 8;

	p[byte] |= (unsigned char)(v << shift);
	if (shift + bits > 8)
		p[byte + 1] |= (unsigned char)(v >> (8 - shift));
}

static inline int moe_code_bits(enum moe_quant q)
{
	return q == MOE_Q_Q8 ? 8 : q == MOE_Q_Q4 ? 4 : q == MOE_Q_Q3 ? 3 : 2;
}

static inline int moe_sub_bits(enum moe_quant q)
{
	return q == MOE_Q_Q8 ? 0 : q == MOE_Q_Q4 ? 4 : 8;
}

/* w = s u - o of the codes of a sub-block. */
struct moe_sub {
	int s, o;
};
static inline struct moe_sub moe_sub_of(enum moe_quant q, unsigned c)
{
	switch (q) {
	case MOE_Q_Q4: return (struct moe_sub){8 + (int)(c & 7), (8 + (int)(c & 7)) * (8 - (int)(c >> 3))};
	case MOE_Q_Q3: return (struct moe_sub){1 + (int)(c & 15), 4 * (int)(c >> 4)};
	case MOE_Q_Q2: return (struct moe_sub){1 + (int)(c & 15), 3 * (int)(c >> 4)};
	default: return (struct moe_sub){1, 128};
	}
}

/* The first n values of a plain block. */
void moe_quant_decode_block(enum moe_quant q, const struct moe_quant_shape *s, const unsigned char *block, int n, float *out);

#endif
