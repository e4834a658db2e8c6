/* Rows on their way to products: see rows.cu.  All put one kernel on the stream, and return the launch's error. */
#ifndef MOE_CUDA_ROWS_H
#define MOE_CUDA_ROWS_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Rows x[rows, cols] quantised to int8 in blocks (doc/numerics.md), each row the bytes that moe_cuda_coded_row says. */
size_t moe_cuda_coded_row(int64_t cols, int block);
cudaError_t moe_cuda_quantise(unsigned char *to, const float *x, size_t rows, int64_t cols, int block, cudaStream_t stream);
/* The same rounded to bf16. */
size_t moe_cuda_bf16_row(int64_t cols);
cudaError_t moe_cuda_round(unsigned char *to, const float *x, size_t rows, int64_t cols, cudaStream_t stream);
/* y = SiLU(y) * up over n floats. */
cudaError_t moe_cuda_gate_up(float *y, const float *up, size_t n, cudaStream_t stream);
/* Rows of `bytes` further apart: every `padded` bytes, with zeros between. */
cudaError_t moe_cuda_spread(void *to, const void *from, size_t rows, size_t bytes, size_t padded, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
