/* Kernels for AVX2; nothing where the compiler was not told to use it. */
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#define VLANES 8
#define ISA "avx2"
#include "kernels.inc"

const struct moe_kernels *moe_kernels_avx2(void)
{
	return &kernels;
}

#else
#include "kernels.h"

const struct moe_kernels *moe_kernels_avx2(void)
{
	return 0;
}
#endif
