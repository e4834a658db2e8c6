/* The kernels of one form, as products.cu finds them. */
#ifndef MOE_CUDA_FORM_TABLE_CUH
#define MOE_CUDA_FORM_TABLE_CUH

#include "few.cuh"
#include "many.cuh"

#define MOE_FORM_TABLE(...) \
	{ \
		{8, {WARP_ROWS, WARP_ROWS}, 32 * FEW_WARPS, 2 * sizeof(few_sums<__VA_ARGS__, 1>), few<__VA_ARGS__, 1>}, \
		{16, {WARP_ROWS, WARP_ROWS}, 32 * FEW_WARPS, 2 * sizeof(few_sums<__VA_ARGS__, 2>), few<__VA_ARGS__, 2>}, \
		{64, {MANY_OUTPUTS, TILE}, 128, 2 * sizeof(stage<__VA_ARGS__, 1>), many<__VA_ARGS__, 1, 2>}, \
		{128, {MANY_OUTPUTS, TILE}, 256, 3 * sizeof(stage<__VA_ARGS__, 2>), many<__VA_ARGS__, 2, 3>}, \
	}

#endif
