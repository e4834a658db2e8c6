/* Products: what the host's part (products.c) and the kernels share.
 *
 * A launch multiplies the rows of many parts, each with a matrix of its own, or with two of the same shape, gate and up.  All
 * matrices of a launch have one quant and one shape.  Parts travel in the kernel's parameters, so that a launch needs no copy
 * before it.  There are two forms: `few` for up to 16 rows a part, whose roof is the memory that weights are read from once, and
 * `many`, whose roof is arithmetic.  Both have the same bits (doc/numerics.md). */
#ifndef MOE_CUDA_PRODUCTS_H
#define MOE_CUDA_PRODUCTS_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of x that a part has, and where the blocks of the grid begin that work on it. */
struct moe_cuda_part {
	const unsigned char *w[2];   /* a matrix, or gate and up */
	int first, rows;             /* pairs [first, first + rows) */
	int start;
};
#define MOE_CUDA_PARTS 96        /* of a launch: parameters of a kernel are 4 KiB at most */

struct moe_cuda_product {
	float *y;                    /* pair p: y + p * n */
	const unsigned char *x;      /* pair p: x + (x_row ? x_row[p] : p) * ldx; of f32, or as rows.cu makes them */
	size_t ldx;                  /* bytes */
	const int32_t *x_row;
	const float *bias, *weight;  /* [n], [pairs]; or NULL */
	int n, cols;                 /* outputs and inputs of the matrices */
	int block, blocks;           /* columns of a block or segment, and how many a row has */
	int quant;                   /* enum moe_quant, for kernels that serve several */
	int matrices;                /* 2: y = SiLU(gate) * up */
	int vectors;                 /* with f32: rows of the matrix and of x can be read 16 bytes at a time */
	int n_parts;
	struct moe_cuda_part parts[MOE_CUDA_PARTS];
};

/* Rows of int8: of a block of columns this header and its codes, filled up with zeros. */
struct moe_cuda_codes {
	float scale;
	int32_t start;               /* -128 times the sum of the codes: weights are multiplied as w + 128 */
	int32_t unused[2];           /* so that all is read 16 bytes at a time */
};
#define MOE_CUDA_CHUNK_BYTES 128 /* of a row that a step takes; rows of bf16 are filled up with zeros to a multiple */

/* A kernel, and what a block of its grid covers. */
struct moe_cuda_form {
	int rows;                    /* at most */
	int outputs[2];              /* with one matrix, and with two */
	int threads;
	size_t shared;               /* bytes */
	void (*kernel)(const struct moe_cuda_product p);
};
/* Of coded matrices with int8 and of bf16 with bf16: two sizes of each form. */
enum moe_cuda_size { MOE_CUDA_FEW_8, MOE_CUDA_FEW_16, MOE_CUDA_MANY_64, MOE_CUDA_MANY_128, MOE_CUDA_SIZES };
extern const struct moe_cuda_form moe_cuda_q8[MOE_CUDA_SIZES], moe_cuda_q4[MOE_CUDA_SIZES], moe_cuda_q3[MOE_CUDA_SIZES],
                                  moe_cuda_q2[MOE_CUDA_SIZES], moe_cuda_bf16[MOE_CUDA_SIZES];
/* With f32, of any quant: few rows are taken 2 or 4 at a time. */
enum moe_cuda_f32_size { MOE_CUDA_F32_2, MOE_CUDA_F32_4, MOE_CUDA_F32_MANY, MOE_CUDA_F32_SIZES };
extern const struct moe_cuda_form moe_cuda_f32[MOE_CUDA_F32_SIZES];

/* Put a product on the stream: `blocks` in all.  The launch's error. */
cudaError_t moe_cuda_launch(const struct moe_cuda_form *f, const struct moe_cuda_product *p, unsigned blocks, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
