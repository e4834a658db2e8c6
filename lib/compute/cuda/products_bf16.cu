/* Products of bf16 with bf16, on tensor cores. */
#include "form_table.cuh"

const moe_cuda_form moe_cuda_bf16[MOE_CUDA_SIZES] = MOE_FORM_TABLE(bf16);
