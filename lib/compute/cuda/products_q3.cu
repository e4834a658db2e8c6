/* Products with matrices of q3. */
#include "form_table.cuh"

const moe_cuda_form moe_cuda_q3[MOE_CUDA_SIZES] = MOE_FORM_TABLE(coded<MOE_Q_Q3>);
