/* Coded weights on any machine. */
#define VLANES 4
#define ISA "base"
#include "coded.inc"

const struct moe_coded_kernels *moe_coded_base(void)
{
	return &coded_kernels;
}
