/* Coded weights with NEON's products of bytes; nothing where the compiler was not told to use them. */
#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)

#define VLANES 4
#define ISA "neon"
#define DOT_NEON
#include "coded.inc"

const struct moe_coded_kernels *moe_coded_neon(void)
{
	return &coded_kernels;
}

#else
#include "coded.h"

const struct moe_coded_kernels *moe_coded_neon(void)
{
	return 0;
}
#endif
