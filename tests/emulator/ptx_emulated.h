/* The functions of lib/compute/cuda/ptx.h as loops.  The last lane to come computes for the warp. */
#ifndef PTX_EMULATED_H
#define PTX_EMULATED_H

#include "cuda_runtime.h"

namespace emulated {

uint16_t f16_of(float x);
void mma_bf16(Lane lanes[32], unsigned mask);
void mma_s8(Lane lanes[32], unsigned mask);
void mma_s8_k16(Lane lanes[32], unsigned mask);
void ldmatrix4(Lane lanes[32], unsigned mask);
void copy16(void *shared, const void *global);
void copy_commit();
void copy_wait(int left);

/* Words of C, A and B in, words of C out. */
template <class T> void multiply(const char *name, void (*op)(Lane *, unsigned), T *c, int nc, const uint32_t *a, int na,
                                 const uint32_t *b, int nb)
{
	Lane l = {};

	memcpy(l.word, c, (size_t)nc * sizeof *c);
	memcpy(l.word + 4, a, (size_t)na * sizeof *a);
	memcpy(l.word + 8, b, (size_t)nb * sizeof *b);
	warp(name, ~0u, op, &l);
	memcpy(c, l.word, (size_t)nc * sizeof *c);
}

} // namespace emulated

static inline uint16_t moe_f16_of(float x) { return emulated::f16_of(x); }

static inline void moe_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
	emulated::need("mma of bf16", 80);
	emulated::multiply("mma m16n8k16", emulated::mma_bf16, c, 4, a, 4, b, 2);
}

static inline void moe_mma_s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2])
{
	emulated::multiply("mma m16n8k32", emulated::mma_s8, c, 4, a, 4, b, 2);
}

static inline void moe_mma_s8_k16(int32_t c[2], uint32_t a, uint32_t b)
{
	emulated::multiply("mma m8n8k16", emulated::mma_s8_k16, c, 2, &a, 1, &b, 1);
}

static inline void moe_ldmatrix4(uint32_t r[4], const void *row)
{
	emulated::Lane l = emulated::lane_of(row);

	emulated::warp("ldmatrix", ~0u, emulated::ldmatrix4, &l);
	memcpy(r, l.word, 4 * sizeof *r);
}

static inline void moe_copy16(void *shared, const void *global) { emulated::copy16(shared, global); }
static inline void moe_copy_commit() { emulated::copy_commit(); }
template <int left> void moe_copy_wait() { emulated::copy_wait(left); }

#endif
