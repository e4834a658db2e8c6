/* Inside the room: the best codes of a group of sub-blocks. */
#ifndef MOE_TENSOR_SEARCH_H
#define MOE_TENSOR_SEARCH_H

#include "lanes.h"
#include "tensor/tensor.h"

/* Sixteen sub-blocks side by side, one in a lane; `per` lanes that follow each other are a block, so a group is 1 to 8
 * blocks, and of what order or matrix they come does not matter. */
struct moe_group {
	_Alignas(64) float x[32][LANES]; /* values times the lane's unit: the largest of a block lies in [1, 4) */
	float w[32][LANES];             /* weights of their squared errors, > 0; 0 where there is no column */
	float unit[LANES];              /* a power of two, the same in all lanes of a block */
	enum moe_quant quant;
	int sub;                        /* columns in a sub-block: 16 or 32 */
	int per;                        /* sub-blocks in a block */
	/* what is found */
	uint16_t d[LANES];              /* block scale as bf16, of true values (without the unit) */
	uint8_t head[LANES];            /* sub-block code */
	uint8_t code[32][LANES];        /* u */
};

/* The inner loops, compiled for several instruction sets that give the same bits. */
struct moe_coder {
	/* Bits of the largest magnitude of n numbers; infinities and NaN are larger than every number. */
	uint32_t (*largest)(const float *x, int64_t n);
	/* q8 codes of n values (a multiple of 16), each times unit (a power of two), then times inverse. */
	void (*q8)(const float *x, int n, float unit, float inverse, unsigned char *out);
	/* Fill in what is found. */
	void (*search)(struct moe_group *g);
};
extern const struct moe_coder moe_coder_base, moe_coder_avx2, moe_coder_avx512;
/* The fastest that this machine has; MOE_CPU in the environment forces one, as in lib/compute/cpu/backend.c. */
const struct moe_coder *moe_coder_here(void);

/* The scale that is stored for x / unit: a bf16, never 0, and so small that no |w| up to 128 overflows. */
uint16_t moe_block_scale(float x, float unit);

#endif
