/* Instructions that have no name in CUDA C++, for kernels: as PTX under nvcc, as loops in tests/emulator.
 *
 * Fragments are as the PTX manual deals them out ("Matrix Fragments for mma.m16n8k16" and so on).  With g = lane / 4 and
 * t = lane % 4:
 *
 *   m16n8k16 of bf16   A [16 x 16]: a[0] row g, columns 2t, 2t+1; a[1] row g+8, the same; a[2], a[3] these, columns + 8
 *                      B [16 x 8]:  b[0] column g, rows 2t, 2t+1; b[1] rows + 8
 *                      C [16 x 8]:  c[0], c[1] row g, columns 2t, 2t+1; c[2], c[3] row g+8
 *   m16n8k32 of s8     the same with four bytes where a pair of bf16 stands: columns 4t .. 4t+3, then + 16
 *   m8n8k16 of s8      A: row g, columns 4t .. 4t+3; B: column g, rows 4t .. 4t+3; C: c[0], c[1] row g, columns 2t, 2t+1
 *
 * int8 sums are exact.  In what order a bf16 product adds up its 16 terms, and with how many bits, the hardware does not say; here
 * they are added to the sum one after the other.  Another one is still right, but has other bits. */
#ifndef MOE_CUDA_PTX_H
#define MOE_CUDA_PTX_H

#include "kernel.h"

#ifndef MOE_EMULATED

#define MOE_PTX static __device__ __forceinline__

static __device__ __forceinline__ uint32_t moe_shared_address(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

/* To nearest even; a NaN stays one. */
MOE_PTX uint16_t moe_f16_of(float x)
{
	uint16_t h;

	asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
	return h;
}

/* c += A B; sm_80 and up (elsewhere the kernel is not to be launched). */
MOE_PTX void moe_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
	(void)c, (void)a, (void)b;
	__trap();
#endif
}

MOE_PTX void moe_mma_s8_k16(int32_t c[2], uint32_t a, uint32_t b)
{
	asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
	             : "+r"(c[0]), "+r"(c[1]) : "r"(a), "r"(b));
}

/* One instruction from sm_80 on, four of the smaller ones before. */
MOE_PTX void moe_mma_s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
	asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
	moe_mma_s8_k16(c, a[0], b[0]);
	moe_mma_s8_k16(c + 2, a[1], b[0]);
	moe_mma_s8_k16(c, a[2], b[1]);
	moe_mma_s8_k16(c + 2, a[3], b[1]);
#endif
}

/* Four 8 x 8 matrices of 16-bit elements from shared memory: lane l says where row l % 8 of matrix l / 8 lies (16 bytes,
 * 16-aligned); of each, a lane gets row lane / 4, elements 2 (lane % 4) and the next. */
MOE_PTX void moe_ldmatrix4(uint32_t r[4], const void *row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
	             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(moe_shared_address(row)) : "memory");
}

/* 16 bytes to shared memory; ends with moe_copy_wait where the hardware can do it behind the thread's back (sm_80). */
MOE_PTX void moe_copy16(void *shared, const void *global)
{
#if __CUDA_ARCH__ >= 800
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(moe_shared_address(shared)), "l"(global) : "memory");
#else
	*(uint4 *)shared = *(const uint4 *)global;
#endif
}

/* What was copied since the last one is a group. */
MOE_PTX void moe_copy_commit(void)
{
#if __CUDA_ARCH__ >= 800
	asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* All groups but the latest `left` have come.  Others see them after a barrier. */
template <int left> MOE_PTX void moe_copy_wait(void)
{
#if __CUDA_ARCH__ >= 800
	asm volatile("cp.async.wait_group %0;" :: "n"(left) : "memory");
#endif
}

#else
#include "ptx_emulated.h"
#endif
#endif
