/* Coded weights with AVX-512; nothing where the compiler was not told to use it. */
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#define VLANES 16
#define ISA "avx512"
#include "coded.inc"

const struct moe_coded_kernels *moe_coded_avx512(void)
{
	return &coded_kernels;
}

#else
#include "coded.h"

const struct moe_coded_kernels *moe_coded_avx512(void)
{
	return 0;
}
#endif
