/* What product.inc multiplies where sums are of f32: vectors of weights and of rows, fma.
 *
 * In the form of pairs, weights are bf16 whose products have the bits of pairs.h: of 32 elements first the odd ones, the
 * high halves of pairs, then the even ones.  So lane l of 16 gets elements 2 l + 1, 2 l, 2 l + 33, 2 l + 32 ... and
 * rows lie in this order, as f32 and filled up with zeros to blocks of 32. */
#ifndef MOE_CPU_OPERANDS_H
#define MOE_CPU_OPERANDS_H

#include "kernels.h"
#include "pairs.h"
#include "vec.h"

enum form { FORM_F32, FORM_F16, FORM_BF16, FORM_PAIRS };
#define FORMS(f) f(FORM_F32) f(FORM_F16) f(FORM_BF16) f(FORM_PAIRS)
#define FORM_PACKED FORM_F32
#define STEP 16                      /* elements that 16 lanes take at a time */
#define W_STEP VLANES                /* elements of a vector */
#define X_BYTES 4
typedef vf vw;

INLINE enum form form_of(const struct moe_tile *t)
{
	if (t->pairs)
		return FORM_PAIRS;
	return t->quant == MOE_Q_BF16 ? FORM_BF16 : t->quant == MOE_Q_F16 ? FORM_F16 : FORM_F32;
}

/* Elements of the block that ends a row, of which some may be missing. */
INLINE int form_block(const enum form q)
{
	return q == FORM_PAIRS ? MOE_PAIR_BLOCK : STEP;
}

INLINE size_t form_bytes(const enum form q)
{
	return q == FORM_F32 ? 4 : 2;
}

/* VLANES elements of row w from the i-th on, in the order of the form. */
INLINE vf w_load(const unsigned char *w, const enum form q, size_t i)
{
	typedef uint32_t vu_any __attribute__((vector_size(4 * VLANES), aligned(1), may_alias));
	vu pair;

	switch (q) {
	case FORM_PAIRS:
		pair = *(const vu_any *)(w + 2 * (i / MOE_PAIR_BLOCK * MOE_PAIR_BLOCK) + 4 * (i % 16)) << (i & 16) & 0xffff0000;
		return v_select((vi)((pair & 0x7fffffff) >= MOE_PAIR_LEAST << 16), (vf)pair, (vf){0});
	case FORM_BF16: return v_weights(w, MOE_Q_BF16, i);
	case FORM_F16: return v_weights(w, MOE_Q_F16, i);
	default: return v_weights(w, MOE_Q_F32, i);
	}
}

/* The same where only n elements of the block that i lies in are there; then zeros. */
INLINE vf w_load_n(const unsigned char *w, const enum form q, size_t i, int n)
{
	unsigned char block[2 * MOE_PAIR_BLOCK] = {0};

	switch (q) {
	case FORM_PAIRS:
		memcpy(block, w + 2 * (i / MOE_PAIR_BLOCK * MOE_PAIR_BLOCK), 2 * (size_t)n);
		return w_load(block, q, i % MOE_PAIR_BLOCK);
	case FORM_BF16: return v_weights_n(w, MOE_Q_BF16, i, n - (int)(i % STEP));
	case FORM_F16: return v_weights_n(w, MOE_Q_F16, i, n - (int)(i % STEP));
	default: return v_weights_n(w, MOE_Q_F32, i, n - (int)(i % STEP));
	}
}

INLINE vf x_load(const unsigned char *x, size_t i)
{
	return v_load(x + i * X_BYTES);
}

INLINE vf x_load_n(const unsigned char *x, const enum form q, size_t i, int n)
{
	return q == FORM_PAIRS ? x_load(x, i) : v_load_n((const void *)(x + i * X_BYTES), n - (int)(i % STEP));
}

INLINE void w_store(unsigned char *to, vf w)
{
	v_store((void *)to, w);
}

INLINE vf dot(vf w, vf x, vf acc)
{
	return v_fma(w, x, acc);
}

static void round_pairs(unsigned char *to, const float *x, size_t n)
{
	for (size_t at = 0; at < n; at += MOE_PAIR_BLOCK) {
		uint32_t in[MOE_PAIR_BLOCK] = {0}, *out = (uint32_t *)(void *)to + at;

		memcpy(in, x + at, (n - at < MOE_PAIR_BLOCK ? n - at : MOE_PAIR_BLOCK) * sizeof *x);
		for (int l = 0; l < 16; l++) {
			out[l] = (uint32_t)moe_pair_round(in[2 * l + 1]) << 16;
			out[l + 16] = (uint32_t)moe_pair_round(in[2 * l]) << 16;
		}
	}
}

#endif
