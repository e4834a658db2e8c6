/* MXFP4 as two tensors of bytes: NAME_blocks [..., rows, columns / 32, 16], two E2M1 values a byte, the first in the low
 * half, and NAME_scales [..., rows, columns / 32], the exponent that 32 values share. */
#include <stdio.h>

#include "checkpoint/coded.h"

#define BLOCK 32

static int add_matrix(struct moe_coder *c, const char *name, int64_t index, const int64_t *matrix,
                      const struct moe_tensor *blocks, const struct moe_tensor *scales, int64_t matrices, struct moe_err *e)
{
	struct moe_grid *g = moe_grid_new(MOE_CODES_FP4, e);

	if (!g)
		return MOE_E_NOMEM;
	snprintf(g->coded.name, sizeof g->coded.name, "mxfp4");
	moe_coded_uses(&g->coded, blocks);
	moe_coded_uses(&g->coded, scales);
	g->coded.coding.bytes /= (size_t)matrices;
	g->row_bytes = (size_t)matrix[1] / 2;
	g->codes = blocks->data + (size_t)(index * matrix[0]) * g->row_bytes;
	g->exponents = true;
	g->block_rows = 1;
	g->block_cols = BLOCK;
	g->scale_cols = matrix[1] / BLOCK;
	g->scales = scales->data + (size_t)(index * matrix[0] * g->scale_cols);
	return moe_coded_add(c, name, matrix[0], matrix[1], &g->coded, e);
}

int moe_coded_mxfp4(struct moe_coder *c, const char *name, const struct moe_tensor *codes, struct moe_err *e)
{
	const struct moe_tensor *scales;
	int ndim = codes->ndim == 4 ? 3 : 2;
	int64_t shape[MOE_MAX_DIMS] = {0}, last;
	int rc = moe_coded_need(c, name, 0, "_scales", &scales, e);

	rc = rc ? rc : moe_coded_expect(c, name, ndim, shape, e);
	if (rc)
		return rc;
	last = shape[ndim - 1];
	if (last % BLOCK)
		return moe_fail(e, MOE_E_UNSUPPORTED, "tensor %s: %d does not divide %lld columns", name, BLOCK, (long long)last);
	shape[ndim - 1] = last / BLOCK;
	rc = moe_coded_shape(scales, MOE_U8, ndim, shape, e);
	shape[ndim] = BLOCK / 2;
	rc = rc ? rc : moe_coded_shape(codes, MOE_U8, ndim + 1, shape, e);
	shape[ndim - 1] = last;
	if (rc || ndim == 2)
		return rc ? rc : add_matrix(c, name, 0, shape, codes, scales, 1, e);
	for (int64_t k = 0; rc == 0 && k < shape[0]; k++) {
		char part[MOE_NAME_CAP + 24];

		snprintf(part, sizeof part, "%s.%lld", name, (long long)k);
		rc = add_matrix(c, part, k, shape + 1, codes, scales, shape[0], e);
	}
	return rc;
}
