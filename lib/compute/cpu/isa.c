/* Which kernels: what this CPU can run, and what MOE_CPU asks for. */
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "cpu.h"

#if defined(__x86_64__)
/* Not every compiler's __builtin_cpu_supports knows these. */
static bool has_cpuid(unsigned leaf, unsigned sub, int reg, int bit)
{
	unsigned r[4] = {0};

	return __get_cpuid_count(leaf, sub, &r[0], &r[1], &r[2], &r[3]) && (r[reg] >> bit & 1);
}

static bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_cpuid(1, 0, 2, 29); /* f16c */
}

static bool has_avx2vnni(void)
{
	return has_avx2() && has_cpuid(7, 1, 0, 4);
}

static bool has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
}

static bool has_avx512vnni(void)
{
	return has_avx512() && has_cpuid(7, 0, 2, 11);
}

static bool has_avx512bf16(void)
{
	return has_avx512vnni() && has_cpuid(7, 1, 0, 5);
}
#elif defined(__aarch64__)
static bool has_dotprod(void)
{
	return getauxval(AT_HWCAP) & 1 << 20; /* HWCAP_ASIMDDP */
}
#endif

static bool has_base(void)
{
	return true;
}

/* A new instruction set is a file coded_NAME.c or pairs_NAME.c, a row here, and a name in KNOWN; AMX would stand above the
 * others.  Without pairs of its own it takes those of its plain kernels. */
static const struct {
	const char *name;
	bool (*here)(void);
	const struct moe_kernels *(*plain)(void);
	const struct moe_coded_kernels *(*coded)(void);
	const struct moe_pair_kernels *(*pairs)(void);
} isas[] = { /* the best first */
#if defined(__x86_64__)
	{"avx512bf16", has_avx512bf16, moe_kernels_avx512, moe_coded_avx512vnni, moe_pairs_avx512bf16},
	{"avx512vnni", has_avx512vnni, moe_kernels_avx512, moe_coded_avx512vnni, NULL},
	{"avx512", has_avx512, moe_kernels_avx512, moe_coded_avx512, NULL},
	{"avx2vnni", has_avx2vnni, moe_kernels_avx2, moe_coded_avx2vnni, NULL},
	{"avx2", has_avx2, moe_kernels_avx2, moe_coded_avx2, NULL},
#elif defined(__aarch64__)
	{"neon", has_dotprod, moe_kernels_base, moe_coded_neon, NULL},
#endif
	{"base", has_base, moe_kernels_base, moe_coded_base, NULL},
};

#define KNOWN "avx512bf16, avx512vnni, avx512, avx2vnni, avx2, neon, base"

static bool is_known(const char *name)
{
	size_t n = strlen(name);

	for (const char *p = KNOWN; *p; p += strcspn(p, ","), p += *p ? 2 : 0)
		if (strcspn(p, ",") == n && memcmp(p, name, n) == 0)
			return true;
	return false;
}

int moe_cpu_isa(struct moe_isa *out, struct moe_err *e)
{
	const char *wish = getenv("MOE_CPU");

	if (wish && *wish && !is_known(wish))
		return moe_fail(e, MOE_E_UNSUPPORTED, "MOE_CPU=%s: not one of " KNOWN, wish);
	for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
		if ((wish && *wish && strcmp(wish, isas[i].name) != 0) || !isas[i].here())
			continue;
		*out = (struct moe_isa){isas[i].name, isas[i].plain(), isas[i].coded(), NULL};
		if (out->plain)
			out->pairs = isas[i].pairs ? isas[i].pairs() : &out->plain->pairs;
		if (out->plain && out->coded && out->pairs)
			return 0;
	}
	return moe_fail(e, MOE_E_UNSUPPORTED, "MOE_CPU=%s: this CPU or this build does not have it", wish);
}
