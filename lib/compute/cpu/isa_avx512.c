/* Kernels for AVX-512; nothing where the compiler was not told to use it. */
#if defined(__AVX512F__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#define VLANES 16
#define ISA "avx512"
#include "kernels.inc"

const struct moe_kernels *moe_kernels_avx512(void)
{
	return &kernels;
}

#else
#include "kernels.h"

const struct moe_kernels *moe_kernels_avx512(void)
{
	return 0;
}
#endif
