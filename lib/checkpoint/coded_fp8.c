/* FP8 weights, E4M3: with a scale for every block of rows and columns (as DeepSeek and Qwen publish them), for every
 * row, or for all.  The scale is called NAME_scale_inv or NAME_scale; either way it multiplies. */
#include <stdio.h>

#include "checkpoint/coded.h"

static int find_scale(const struct moe_coder *c, const char *name, const struct moe_tensor **out, struct moe_err *e)
{
	const struct moe_tensor *other = moe_coded_part(c, name, 0, "_scale");
	int rc;

	*out = other;
	if (other && !moe_coded_part(c, name, 0, "_scale_inv"))
		return moe_coded_floats(other, e);
	rc = moe_coded_need(c, name, 0, "_scale_inv", out, e);
	if (!rc && other)
		rc = moe_fail(e, MOE_E_INPUT, "tensors %s and %s are the same thing", (*out)->name, other->name);
	return rc ? rc : moe_coded_floats(*out, e);
}

/* Which block of a matrix [rows, cols] shares a scale: as the configuration says, else as the scales' shape does. */
static int find_block(const struct moe_scheme *s, const struct moe_tensor *scale, int ndim, const int64_t *shape,
                      int64_t *block, struct moe_err *e)
{
	int64_t rows = shape[ndim - 2], cols = shape[ndim - 1];
	int64_t want[3] = {shape[0], 1, 1};

	block[0] = s->share == MOE_SHARE_BLOCK ? s->block[0] : rows;
	block[1] = s->share == MOE_SHARE_BLOCK ? s->block[1] : cols;
	if (s->share != MOE_SHARE_BLOCK && ndim == 2) {
		if (scale->bytes == moe_dtype_size(scale->dtype))
			return 0;
		block[0] = 1;
		if (scale->ndim == 1)
			return moe_coded_shape(scale, scale->dtype, 1, &rows, e);
	}
	want[ndim - 2] = moe_coded_ceil(rows, block[0]);
	want[ndim - 1] = moe_coded_ceil(cols, block[1]);
	return moe_coded_shape(scale, scale->dtype, ndim, want, e);
}

static void name_it(struct moe_grid *g, const struct moe_scheme *s, const int64_t *block)
{
	if (s->share == MOE_SHARE_BLOCK)
		snprintf(g->coded.name, sizeof g->coded.name, "fp8 %lldx%lld", (long long)block[0], (long long)block[1]);
	else
		snprintf(g->coded.name, sizeof g->coded.name, "fp8 by %s", block[0] == 1 ? "row" : "tensor");
}

/* Matrix `index` of those in codes and scale. */
static int add_matrix(struct moe_coder *c, const char *name, int64_t index, const struct moe_tensor *codes,
                      const struct moe_tensor *scale, const int64_t *block, struct moe_err *e)
{
	int64_t rows = codes->shape[codes->ndim - 2], cols = codes->shape[codes->ndim - 1];
	int64_t scale_rows = moe_coded_ceil(rows, block[0]);
	struct moe_grid *g = moe_grid_new(MOE_CODES_F8, e);

	if (!g)
		return MOE_E_NOMEM;
	name_it(g, &c->q->v[0], block);
	moe_coded_uses(&g->coded, codes);
	moe_coded_uses(&g->coded, scale);
	if (codes->ndim == 3)
		g->coded.coding.bytes /= (size_t)codes->shape[0];
	g->row_bytes = (size_t)cols;
	g->codes = codes->data + (size_t)(index * rows * cols);
	g->block_rows = block[0];
	g->block_cols = block[1];
	g->scale_cols = moe_coded_ceil(cols, block[1]);
	g->scale_type = scale->dtype;
	g->scales = scale->data + (size_t)(index * scale_rows * g->scale_cols) * moe_dtype_size(scale->dtype);
	return moe_coded_add(c, name, rows, cols, &g->coded, e);
}

int moe_coded_fp8(struct moe_coder *c, const char *name, const struct moe_tensor *codes, struct moe_err *e)
{
	const struct moe_tensor *scale;
	int64_t shape[MOE_MAX_DIMS], block[2];
	int ndim = codes->ndim == 3 ? 3 : 2;
	int rc = moe_coded_expect(c, name, ndim, shape, e);

	rc = rc ? rc : moe_coded_shape(codes, MOE_F8_E4M3, ndim, shape, e);
	rc = rc ? rc : find_scale(c, name, &scale, e);
	rc = rc ? rc : find_block(&c->q->v[0], scale, ndim, shape, block, e);
	if (rc || ndim == 2)
		return rc ? rc : add_matrix(c, name, 0, codes, scale, block, e);
	for (int64_t k = 0; rc == 0 && k < shape[0]; k++) {
		char part[MOE_NAME_CAP + 24];

		snprintf(part, sizeof part, "%s.%lld", name, (long long)k);
		rc = add_matrix(c, part, k, codes, scale, block, e);
	}
	return rc;
}
