/* What kernels are written with: CUDA C++ as nvcc compiles it, or as tests/emulator imitates it for g++.
 *
 * Nothing is fused, flushed or approximated (-fmad=false, -prec-div=true, -prec-sqrt=true, no -ftz): an expression rounds as C
 * says, and __fmaf_rn where doc/numerics.md says fma.  Functions with __shared__ variables are static. */
#ifndef MOE_CUDA_KERNEL_H
#define MOE_CUDA_KERNEL_H

#include <cuda_runtime.h>
#include <stdint.h>

#ifndef MOE_EMULATED
/* The launch's error; those of the kernel itself are the stream's. */
#define MOE_LAUNCH(kernel, grid, block, shared, stream, ...) \
	((kernel)<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__), cudaGetLastError())
/* The memory whose size a launch gives. */
#define MOE_DYNAMIC_SHARED(type, name) \
	extern __shared__ __align__(16) unsigned char moe_dynamic_shared[]; \
	type *name = (type *)moe_dynamic_shared
#endif

#define MOE_WARP 32
#define MOE_ALL_LANES 0xffffffffu

/* exp of lib/compute/exp.inc, the same bits as the CPU's. */
#define F float
#define I int32_t
#define U uint32_t
#define NAME moe_exp
#define FN static __device__ __forceinline__
#define FMA(a, b, c) __fmaf_rn(a, b, c)
#define CLAMP(x, lo, hi) ((x) < (lo) ? (lo) : (x) > (hi) ? (hi) : (x))
#include "../exp.inc"

static __device__ __forceinline__ float moe_bf16(uint32_t bits)
{
	return __uint_as_float(bits << 16);
}

/* Exact, subnormal numbers and NaN too. */
static __device__ __forceinline__ float moe_f16(uint32_t bits)
{
	float x;

#ifndef MOE_EMULATED
	asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"((uint16_t)bits));
#else
	uint32_t sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;

	/* The exponent is moved up by 112 as a product; of infinity and NaN it is the greatest. */
	x = __uint_as_float(rest << 13) * 0x1p112f;
	x = __uint_as_float(sign | (rest >= 0x7c00u ? 0x7f800000u | (rest & 0x3ffu) << 13 : __float_as_uint(x)));
#endif
	return x;
}

static __device__ __forceinline__ float moe_warp_max(float x)
{
	for (int i = 16; i > 0; i /= 2) {
		float y = __shfl_xor_sync(MOE_ALL_LANES, x, i);

		x = y > x ? y : x;
	}
	return x;
}

/* The tree that sums 16 lanes: lanes 0-7 + 8-15, then 0-3 + 4-7, 0-1 + 2-3, 0 + 1.  All 16 get the sum.  (Sums commute, so
 * each lane may add its partner's to its own.) */
static __device__ __forceinline__ float moe_tree16(float x)
{
	x = __fadd_rn(x, __shfl_xor_sync(MOE_ALL_LANES, x, 8));
	x = __fadd_rn(x, __shfl_xor_sync(MOE_ALL_LANES, x, 4));
	x = __fadd_rn(x, __shfl_xor_sync(MOE_ALL_LANES, x, 2));
	return __fadd_rn(x, __shfl_xor_sync(MOE_ALL_LANES, x, 1));
}

#endif
