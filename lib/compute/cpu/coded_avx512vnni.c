/* Coded weights with AVX-512 and its VNNI; nothing where the compiler was not told to use them. */
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)

#define VLANES 16
#define ISA "avx512vnni"
#define DOT_VNNI
#include "coded.inc"

const struct moe_coded_kernels *moe_coded_avx512vnni(void)
{
	return &coded_kernels;
}

#else
#include "coded.h"

const struct moe_coded_kernels *moe_coded_avx512vnni(void)
{
	return 0;
}
#endif
