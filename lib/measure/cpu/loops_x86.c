/* Loops for x86-64.  They are written in assembly because the roof must not depend on how well a compiler keeps
 * accumulators in registers. */
#include "measure/cpu/loops.h"

#if defined(__x86_64__)

#include <cpuid.h>

#define CLOBBERS "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
	"xmm12", "xmm13", "xmm14", "xmm15"
#define TWELVE(op, v) op(v, 0) op(v, 1) op(v, 2) op(v, 3) op(v, 4) op(v, 5) op(v, 6) op(v, 7) op(v, 8) op(v, 9) op(v, 10) op(v, 11)
#define CLEAR(v, i) "vpxor %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n\t"

/* Twelve accumulators, so that neither latency nor the two units wait: acc += a . b.  `bits` is what fills a and b. */
#define DOT_LOOP(name, op, v, bits) \
	static void name(uint64_t turns) \
	{ \
		const uint32_t fill = bits; \
		__asm__ volatile("vbroadcastss %1, %%" v "14\n\t" \
		                 "vbroadcastss %1, %%" v "15\n\t" TWELVE(CLEAR, v) \
		                 ".p2align 5\n" \
		                 "1:\n\t" TWELVE(op, v) \
		                 "dec %0\n\t" \
		                 "jnz 1b\n\t" \
		                 "vzeroupper" \
		                 : "+r"(turns) \
		                 : "m"(fill) \
		                 : CLOBBERS); \
	}

#define FMA(v, i) "vfmadd231ps %%" v "14, %%" v "15, %%" v #i "\n\t"
#define BF16(v, i) "vdpbf16ps %%" v "14, %%" v "15, %%" v #i "\n\t"
#define VNNI(v, i) "vpdpbusd %%" v "14, %%" v "15, %%" v #i "\n\t"
#define VEX_VNNI(v, i) "%{vex%} vpdpbusd %%" v "14, %%" v "15, %%" v #i "\n\t"

DOT_LOOP(fma_512, FMA, "zmm", 0x3a831234)   /* about 0.001 */
DOT_LOOP(fma_256, FMA, "ymm", 0x3a831234)
DOT_LOOP(bf16_512, BF16, "zmm", 0x3a833a81)
DOT_LOOP(vnni_512, VNNI, "zmm", 0x01030207)
DOT_LOOP(vnni_256, VEX_VNNI, "ymm", 0x01030207)

/* Without such an instruction int8 takes three: bytes to pairs, pairs to fours, add. */
#define MADD(a, t) \
	"vpmaddubsw %%ymm14, %%ymm15, %%ymm" #t "\n\t" \
	"vpmaddwd %%ymm13, %%ymm" #t ", %%ymm" #t "\n\t" \
	"vpaddd %%ymm" #t ", %%ymm" #a ", %%ymm" #a "\n\t"

static void madd_256(uint64_t turns)
{
	const uint32_t fill = 0x01030207, ones = 0x00010001;

	__asm__ volatile("vbroadcastss %1, %%ymm14\n\t"
	                 "vbroadcastss %1, %%ymm15\n\t"
	                 "vbroadcastss %2, %%ymm13\n\t" TWELVE(CLEAR, "ymm")
	                 ".p2align 5\n"
	                 "1:\n\t" MADD(0, 6) MADD(1, 7) MADD(2, 8) MADD(3, 9) MADD(4, 10) MADD(5, 11)
	                 "dec %0\n\t"
	                 "jnz 1b\n\t"
	                 "vzeroupper"
	                 : "+r"(turns)
	                 : "m"(fill), "m"(ones)
	                 : CLOBBERS);
}

/* Four f32 at a time: what every x86-64 can do. */
#define MULADD(a, t) "movaps %%xmm14, %%xmm" #t "\n\tmulps %%xmm15, %%xmm" #t "\n\taddps %%xmm" #t ", %%xmm" #a "\n\t"

static void mul_add_128(uint64_t turns)
{
	const uint32_t fill[4] = {0x3a831234, 0x3a831234, 0x3a831234, 0x3a831234};

	__asm__ volatile("movups %1, %%xmm14\n\tmovups %1, %%xmm15\n\t"
	                 "xorps %%xmm0, %%xmm0\n\txorps %%xmm1, %%xmm1\n\txorps %%xmm2, %%xmm2\n\t"
	                 "xorps %%xmm3, %%xmm3\n\txorps %%xmm4, %%xmm4\n\txorps %%xmm5, %%xmm5\n\t"
	                 ".p2align 5\n"
	                 "1:\n\t" MULADD(0, 6) MULADD(1, 7) MULADD(2, 8) MULADD(3, 9) MULADD(4, 10) MULADD(5, 11)
	                 "dec %0\n\t"
	                 "jnz 1b"
	                 : "+r"(turns)
	                 : "m"(fill)
	                 : CLOBBERS);
}

/* ---- which of them ---- */

static bool has_avx512(void)
{
	return __builtin_cpu_supports("avx512f");
}

static bool has_avx_vnni(void) /* no name in every compiler's builtin; the state of ymm registers is avx2's to check */
{
	unsigned a, b, c, d;

	return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

static bool has_avx512_bf16(void)
{
	unsigned a, b, c, d;

	return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

struct moe_dot_loop moe_dot_loop(enum moe_arithmetic a)
{
	const struct moe_dot_loop none = {NULL, 0, NULL};

	if (a == MOE_BF16_DOT)
		return has_avx512_bf16() ? (struct moe_dot_loop){"avx512 bf16", 12 * 64, bf16_512} : none;
	if (a == MOE_I8_DOT) {
		if (has_avx512() && __builtin_cpu_supports("avx512vnni"))
			return (struct moe_dot_loop){"avx512 vnni", 12 * 128, vnni_512};
		if (has_avx_vnni())
			return (struct moe_dot_loop){"avx vnni", 12 * 64, vnni_256};
		return __builtin_cpu_supports("avx2") ? (struct moe_dot_loop){"avx2 maddubs", 6 * 64, madd_256} : none;
	}
	if (has_avx512())
		return (struct moe_dot_loop){"avx512 fma", 12 * 32, fma_512};
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		return (struct moe_dot_loop){"avx2 fma", 12 * 16, fma_256};
	return (struct moe_dot_loop){"sse2 mul add", 6 * 8, mul_add_128};
}

/* Eight lines a turn; each load goes to its own register, so that nothing waits for a sum. */
static void read_512(const void *p, size_t turns)
{
	__asm__ volatile(".p2align 5\n"
	                 "1:\n\t"
	                 "vmovdqu64 (%0), %%zmm0\n\tvmovdqu64 64(%0), %%zmm1\n\tvmovdqu64 128(%0), %%zmm2\n\t"
	                 "vmovdqu64 192(%0), %%zmm3\n\tvmovdqu64 256(%0), %%zmm4\n\tvmovdqu64 320(%0), %%zmm5\n\t"
	                 "vmovdqu64 384(%0), %%zmm6\n\tvmovdqu64 448(%0), %%zmm7\n\t"
	                 "add $512, %0\n\tdec %1\n\tjnz 1b\n\tvzeroupper"
	                 : "+r"(p), "+r"(turns)
	                 :
	                 : CLOBBERS, "memory");
}

/* 16 bytes of each of eight lines: the rest of a line comes with it. */
static void read_128(const void *p, size_t turns)
{
	__asm__ volatile(".p2align 5\n"
	                 "1:\n\t"
	                 "movups (%0), %%xmm0\n\tmovups 64(%0), %%xmm1\n\tmovups 128(%0), %%xmm2\n\tmovups 192(%0), %%xmm3\n\t"
	                 "movups 256(%0), %%xmm4\n\tmovups 320(%0), %%xmm5\n\tmovups 384(%0), %%xmm6\n\tmovups 448(%0), %%xmm7\n\t"
	                 "add $512, %0\n\tdec %1\n\tjnz 1b"
	                 : "+r"(p), "+r"(turns)
	                 :
	                 : CLOBBERS, "memory");
}

void moe_read_loop(const void *p, size_t bytes)
{
	if (has_avx512())
		read_512(p, bytes / 512);
	else
		read_128(p, bytes / 512);
}

#endif
