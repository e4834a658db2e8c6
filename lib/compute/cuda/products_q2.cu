/* Products with matrices of q2. */
#include "form_table.cuh"

const moe_cuda_form moe_cuda_q2[MOE_CUDA_SIZES] = MOE_FORM_TABLE(coded<MOE_Q_Q2>);
