/* Coded weights with AVX2 and AVX-VNNI; nothing where the compiler was not told to use them. */
#if defined(__AVX2__) && defined(__FMA__) && defined(__AVXVNNI__)

#define VLANES 8
#define ISA "avx2vnni"
#define DOT_VNNI
#include "coded.inc"

const struct moe_coded_kernels *moe_coded_avx2vnni(void)
{
	return &coded_kernels;
}

#else
#include "coded.h"

const struct moe_coded_kernels *moe_coded_avx2vnni(void)
{
	return 0;
}
#endif
