/* Products with matrices of q4. */
#include "form_table.cuh"

const moe_cuda_form moe_cuda_q4[MOE_CUDA_SIZES] = MOE_FORM_TABLE(coded<MOE_Q_Q4>);
