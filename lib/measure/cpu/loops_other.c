/* Loops for what is no x86-64: assembly on 64-bit ARM, else what the compiler makes of vectors. */
#include "measure/cpu/loops.h"

#if !defined(__x86_64__)

typedef float f32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));

#if defined(__aarch64__)

#include <sys/auxv.h>

#define HAS_DOT (1ul << 20)      /* AT_HWCAP: asimddp */
#define HAS_BF16 (1ul << 14)     /* AT_HWCAP2: bf16 */
#define CLOBBERS "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", \
	"v16", "v17"
#define SIXTEEN(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define CLEAR(i) "movi v" #i ".4s, #0\n\t"

/* Sixteen accumulators: four units of a latency of four never wait. */
#define DOT_LOOP(name, extension, op, bits) \
	static void name(uint64_t turns) \
	{ \
		const uint32_t fill = bits; \
		__asm__ volatile(extension "dup v16.4s, %w1\n\tdup v17.4s, %w1\n\t" SIXTEEN(CLEAR) \
		                 "1:\n\t" SIXTEEN(op) \
		                 "subs %0, %0, #1\n\tb.ne 1b" \
		                 : "+r"(turns) \
		                 : "r"(fill) \
		                 : CLOBBERS); \
	}

#define FMA(i) "fmla v" #i ".4s, v16.4s, v17.4s\n\t"
#define SDOT(i) "sdot v" #i ".4s, v16.16b, v17.16b\n\t"
#define BFDOT(i) "bfdot v" #i ".4s, v16.8h, v17.8h\n\t"

DOT_LOOP(fma_128, "", FMA, 0x3a831234)      /* about 0.001 */
DOT_LOOP(sdot_128, ".arch_extension dotprod\n\t", SDOT, 0x01030207)
DOT_LOOP(bfdot_128, ".arch_extension bf16\n\t", BFDOT, 0x3a833a81)

struct moe_dot_loop moe_dot_loop(enum moe_arithmetic a)
{
	const struct moe_dot_loop none = {NULL, 0, NULL};

	if (a == MOE_I8_DOT)
		return getauxval(AT_HWCAP) & HAS_DOT ? (struct moe_dot_loop){"neon sdot", 16 * 32, sdot_128} : none;
	if (a == MOE_BF16_DOT)
		return getauxval(AT_HWCAP2) & HAS_BF16 ? (struct moe_dot_loop){"neon bfdot", 16 * 16, bfdot_128} : none;
	return (struct moe_dot_loop){"neon fma", 16 * 8, fma_128};
}

#else

static void mul_add_any(uint64_t turns)
{
	f32x4 acc[8] = {{0}}, a = {0.001f, 0.001f, 0.001f, 0.001f}, b = a;

	for (; turns; turns--) {
		for (int i = 0; i < 8; i++)
			acc[i] += a * b;
		__asm__ volatile("" : "+m"(acc), "+m"(a), "+m"(b)); /* the sums are wanted, each turn's anew */
	}
}

struct moe_dot_loop moe_dot_loop(enum moe_arithmetic a)
{
	if (a == MOE_F32_DOT)
		return (struct moe_dot_loop){"vectors of the compiler", 8 * 8, mul_add_any};
	return (struct moe_dot_loop){NULL, 0, NULL};
}

#endif

void moe_read_loop(const void *p, size_t bytes)
{
	const u32x4 *v = p;
	u32x4 a = {0}, b = a, c = a, d = a;

	for (size_t i = 0; i < bytes / sizeof *v; i += 4) {
		a |= v[i];
		b |= v[i + 1];
		c |= v[i + 2];
		d |= v[i + 3];
	}
	a |= b | c | d;
	__asm__ volatile("" : : "m"(a));
}

#endif
