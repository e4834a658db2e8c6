/* The one place that starts a product's kernel. */
#include "kernel.h"
#include "products.h"

static constexpr size_t SHARED_OF_ALL = 48 << 10; /* bytes that a block may have without asking */

cudaError_t moe_cuda_launch(const struct moe_cuda_form *f, const struct moe_cuda_product *p, unsigned blocks, cudaStream_t stream)
{
	if (f->shared > SHARED_OF_ALL) {
		const cudaError_t rc = cudaFuncSetAttribute((const void *)f->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)f->shared);

		if (rc != cudaSuccess)
			return rc;
	}
	return MOE_LAUNCH(f->kernel, blocks, f->threads, f->shared, stream, *p);
}
