/* Coded weights with AVX2; nothing where the compiler was not told to use it. */
#if defined(__AVX2__) && defined(__FMA__)

#define VLANES 8
#define ISA "avx2"
#include "coded.inc"

const struct moe_coded_kernels *moe_coded_avx2(void)
{
	return &coded_kernels;
}

#else
#include "coded.h"

const struct moe_coded_kernels *moe_coded_avx2(void)
{
	return 0;
}
#endif
