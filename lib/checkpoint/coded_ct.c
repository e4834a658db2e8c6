/* compressed-tensors: codes in NAME (8 bits) or NAME_packed (fewer), with NAME_scale, NAME_zero_point, NAME_shape,
 * NAME_g_idx and NAME_global_scale as the scheme has them.
 *
 * Of several schemes the first that all tensors of a weight fit is the one it was written with. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "checkpoint/coded.h"

/* A weight while it is matched with a scheme. */
struct weight {
	const struct moe_coder *c;
	const struct moe_scheme *s;
	const char *name;
	int64_t rows, cols;
	int64_t scale_rows;
	const struct moe_tensor *codes;
	struct moe_grid *g;
};

static int64_t integer_at(const struct moe_tensor *t, int i)
{
	if (t->dtype == MOE_I32)
		return (int32_t)moe_coded_word(t->data, i);
	return (int64_t)((uint64_t)moe_coded_word(t->data, 2 * i) | (uint64_t)moe_coded_word(t->data, 2 * i + 1) << 32);
}

/* The shape before packing, which the model knows too. */
static int check_said_shape(const struct weight *w, struct moe_err *e)
{
	const struct moe_tensor *t;
	int64_t two = 2;
	int rc = moe_coded_need(w->c, w->name, 0, "_shape", &t, e);

	rc = rc ? rc : moe_coded_shape(t, t->dtype == MOE_I32 ? MOE_I32 : MOE_I64, 1, &two, e);
	if (rc || (integer_at(t, 0) == w->rows && integer_at(t, 1) == w->cols))
		return rc;
	return moe_fail(e, MOE_E_INPUT, "tensor %s says [%lld, %lld], [%lld, %lld] is wanted", t->name,
	                (long long)integer_at(t, 0), (long long)integer_at(t, 1), (long long)w->rows, (long long)w->cols);
}

static int take_codes(struct weight *w, struct moe_err *e)
{
	static const enum moe_dtype types[] = {[MOE_CODES_F8] = MOE_F8_E4M3, [MOE_CODES_I8] = MOE_I8,
	                                       [MOE_CODES_PACKED] = MOE_I32, [MOE_CODES_FP4] = MOE_U8};
	int64_t width = w->cols;
	int rc = 0;

	if (w->s->codes == MOE_CODES_PACKED) {
		rc = check_said_shape(w, e);
		width = moe_coded_ceil(w->cols * w->s->bits, 32);
	} else if (w->s->codes == MOE_CODES_FP4) {
		width = moe_coded_ceil(w->cols, 2);
	}
	rc = rc ? rc : moe_coded_matrix(w->codes, types[w->s->codes], w->rows, width, e);
	if (rc)
		return rc;
	w->g->bits = w->s->codes == MOE_CODES_PACKED ? w->s->bits : w->g->bits;
	w->g->codes = w->codes->data;
	w->g->row_bytes = (size_t)width * moe_dtype_size(types[w->s->codes]);
	moe_coded_uses(&w->g->coded, w->codes);
	return 0;
}

static void set_block(struct weight *w)
{
	const struct moe_scheme *s = w->s;
	bool blocks = s->share == MOE_SHARE_BLOCK, groups = s->share == MOE_SHARE_GROUP;

	w->g->block_rows = blocks ? s->block[0] : s->share == MOE_SHARE_TENSOR ? w->rows : 1;
	w->g->block_cols = blocks ? s->block[1] : groups ? s->group : w->cols;
	w->g->scale_cols = moe_coded_ceil(w->cols, w->g->block_cols);
	w->scale_rows = moe_coded_ceil(w->rows, w->g->block_rows);
}

/* One value for each block: a matrix, or, where blocks are whole rows, a vector. */
static int check_grid(const struct weight *w, const struct moe_tensor *t, enum moe_dtype type, struct moe_err *e)
{
	if (t->ndim == 1 && w->g->scale_cols == 1)
		return moe_coded_shape(t, type, 1, &w->scale_rows, e);
	if (t->ndim == 0 && w->g->scale_cols == 1 && w->scale_rows == 1)
		return moe_coded_shape(t, type, 0, &w->scale_rows, e);
	return moe_coded_matrix(t, type, w->scale_rows, w->g->scale_cols, e);
}

static int take_global(struct weight *w, struct moe_err *e)
{
	const struct moe_tensor *t;
	int64_t one = 1;
	int rc = moe_coded_need(w->c, w->name, 0, "_global_scale", &t, e);

	rc = rc ? rc : moe_coded_shape(t, MOE_F32, t->ndim ? 1 : 0, &one, e);
	rc = rc ? rc : moe_to_f32(MOE_F32, t->data, &w->g->global, 1, e);
	if (!rc && !(isfinite(w->g->global) && w->g->global != 0))
		rc = moe_fail(e, MOE_E_INPUT, "tensor %s: %g is no scale", t->name, (double)w->g->global);
	return rc;
}

static int take_scales(struct weight *w, struct moe_err *e)
{
	const struct moe_tensor *t;
	int rc = moe_coded_need(w->c, w->name, 0, "_scale", &t, e);
	enum moe_dtype type;

	if (rc)
		return rc;
	type = w->s->exponents ? MOE_U8 : w->s->global ? MOE_F8_E4M3 : t->dtype;
	rc = w->s->exponents || w->s->global ? 0 : moe_coded_floats(t, e);
	rc = rc ? rc : check_grid(w, t, type, e);
	if (!rc && w->s->global)
		rc = take_global(w, e);
	if (rc)
		return rc;
	w->g->exponents = w->s->exponents;
	w->g->scale_type = type;
	w->g->scales = t->data;
	moe_coded_uses(&w->g->coded, t);
	return 0;
}

/* Symmetric weights may come with zero points, all zero, which nobody reads. */
static int take_zeros(struct weight *w, struct moe_err *e)
{
	const struct moe_tensor *t;
	bool whole_rows = w->s->share == MOE_SHARE_ROW || w->s->share == MOE_SHARE_GROUP;
	int rc;

	if (w->s->symmetric)
		return 0;
	rc = moe_coded_need(w->c, w->name, 0, "_zero_point", &t, e);
	if (rc)
		return rc;
	w->g->zeros_packed = w->s->codes == MOE_CODES_PACKED && whole_rows && t->dtype == MOE_I32;
	if (w->g->zeros_packed)
		rc = moe_coded_matrix(t, MOE_I32, moe_coded_ceil(w->rows * w->s->bits, 32), w->g->scale_cols, e);
	else
		rc = check_grid(w, t, MOE_I8, e);
	w->g->zeros = t->data;
	moe_coded_uses(&w->g->coded, t);
	return rc;
}

/* The groups of columns that were quantised in another order; -1 in the list: they were not. */
static int take_order(struct weight *w, struct moe_err *e)
{
	const struct moe_tensor *t = w->s->share == MOE_SHARE_GROUP ? moe_coded_part(w->c, w->name, 0, "_g_idx") : NULL;
	int rc;

	if (!t)
		return 0;
	rc = moe_coded_shape(t, MOE_I32, 1, &w->cols, e);
	for (int64_t i = 0; !rc && i < w->cols; i++)
		if (moe_coded_word(t->data, i) == UINT32_MAX)
			return 0;
	rc = rc ? rc : moe_coded_groups(t, w->cols, w->g->scale_cols, e);
	w->g->group_of = t->data;
	moe_coded_uses(&w->g->coded, t);
	return rc;
}

static void name_it(struct weight *w)
{
	const struct moe_scheme *s = w->s;
	char *name = w->g->coded.name;

	if (s->codes == MOE_CODES_FP4)
		snprintf(name, MOE_CODED_NAME, "compressed-tensors %s", s->global ? "nvfp4" : "mxfp4");
	else if (s->codes == MOE_CODES_F8)
		snprintf(name, MOE_CODED_NAME, "compressed-tensors %s", s->exponents ? "mxfp8" : "fp8");
	else
		snprintf(name, MOE_CODED_NAME, "compressed-tensors %d-bit", w->g->bits);
}

/* Does this scheme fit all that there is of the weight? */
static int match(struct weight *w, struct moe_err *e)
{
	int rc;

	w->g = moe_grid_new(w->s->codes, e);
	if (!w->g)
		return MOE_E_NOMEM;
	set_block(w);
	rc = take_codes(w, e);
	rc = rc ? rc : take_scales(w, e);
	rc = rc ? rc : take_zeros(w, e);
	rc = rc ? rc : take_order(w, e);
	if (rc)
		free(w->g);
	else
		name_it(w);
	return rc;
}

int moe_coded_ct(struct moe_coder *c, const char *name, const struct moe_tensor *codes, struct moe_err *e)
{
	struct weight w = {.c = c, .name = name, .codes = codes};
	int64_t shape[MOE_MAX_DIMS];
	int rc = moe_coded_expect(c, name, 2, shape, e);

	if (rc)
		return rc;
	w.rows = shape[0];
	w.cols = shape[1];
	for (int i = 0; i < c->q->n; i++) {
		w.s = &c->q->v[i];
		rc = match(&w, i ? NULL : e); /* the first one's words: there is rarely another */
		if (rc == 0)
			return moe_coded_add(c, name, w.rows, w.cols, &w.g->coded, e);
	}
	return rc;
}
