/* Kernels for any machine.  With 128-bit vectors and, where there is no fma instruction, a slow one from the C library. */
#define VLANES 4
#define ISA "base"
#include "kernels.inc"

const struct moe_kernels *moe_kernels_base(void)
{
	return &kernels;
}
