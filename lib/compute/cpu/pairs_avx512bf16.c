/* Products of bf16 with bf16 by vdpbf16ps; nothing where the compiler was not told to use it.  See pairs.h. */
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && defined(__AVX512BF16__)

#define VLANES 16
#include "kernels.h"
#include "pairs.h"
#include "vec.h"

/* What product.inc multiplies here: 32 weights and 32 elements of a row, both bf16 and as they follow each other. */
enum form { FORM_BF16, FORM_PACKED }; /* packed: without those that count as zero */
#define FORMS(f) f(FORM_BF16) f(FORM_PACKED)
#define STEP MOE_PAIR_BLOCK
#define W_STEP MOE_PAIR_BLOCK
#define X_BYTES 2
typedef __m512i vw;

INLINE enum form form_of(const struct moe_tile *t)
{
	(void)t;
	return FORM_BF16;
}

INLINE int form_block(const enum form q)
{
	(void)q;
	return MOE_PAIR_BLOCK;
}

INLINE size_t form_bytes(const enum form q)
{
	(void)q;
	return 2;
}

INLINE vw w_load(const unsigned char *w, const enum form q, size_t i)
{
	vw v = _mm512_loadu_si512(w + 2 * i);
	__mmask32 kept;

	if (q == FORM_PACKED)
		return v;
	kept = _mm512_cmpge_epu16_mask(_mm512_and_si512(v, _mm512_set1_epi16(0x7fff)), _mm512_set1_epi16(MOE_PAIR_LEAST));
	return _mm512_maskz_mov_epi16(kept, v);
}

INLINE vw w_load_n(const unsigned char *w, const enum form q, size_t i, int n)
{
	unsigned char block[2 * MOE_PAIR_BLOCK] = {0};

	memcpy(block, w + 2 * i, 2 * (size_t)n);
	return w_load(block, q, 0);
}

INLINE vw x_load(const unsigned char *x, size_t i)
{
	return _mm512_loadu_si512(x + 2 * i);
}

INLINE vw x_load_n(const unsigned char *x, const enum form q, size_t i, int n)
{
	(void)q, (void)n; /* rows are filled up with zeros */
	return x_load(x, i);
}

INLINE void w_store(unsigned char *to, vw w)
{
	_mm512_storeu_si512(to, w);
}

INLINE vf dot(vw w, vw x, vf acc)
{
	return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)w, (__m512bh)x);
}

#include "product.inc"

static void round_pairs(unsigned char *to, const float *x, size_t n)
{
	uint16_t *out = (uint16_t *)to;
	size_t i = 0;

	for (; i < n; i++) {
		uint32_t bits;

		memcpy(&bits, x + i, sizeof bits);
		out[i] = moe_pair_round(bits);
	}
	for (; i % MOE_PAIR_BLOCK; i++)
		out[i] = 0;
}

static const struct moe_pair_kernels pairs = {X_BYTES, round_pairs, tile};

const struct moe_pair_kernels *moe_pairs_avx512bf16(void)
{
	return &pairs;
}

#else
#include "kernels.h"

const struct moe_pair_kernels *moe_pairs_avx512bf16(void)
{
	return 0;
}
#endif
