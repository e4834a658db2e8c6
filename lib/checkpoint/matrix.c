/* Tensors that hold codes: which may, what size they have, and any tensor as a matrix. */
#include <string.h>

#include "checkpoint/private.h"

bool moe_role_may_be_coded(enum moe_role r)
{
	switch (r) {
	case MOE_R_EMBED:
	case MOE_R_HEAD:
	case MOE_R_Q:
	case MOE_R_K:
	case MOE_R_V:
	case MOE_R_O:
	case MOE_R_EXPERT_GATE:
	case MOE_R_EXPERT_UP:
	case MOE_R_EXPERT_DOWN:
	case MOE_R_SHARED_GATE:
	case MOE_R_SHARED_UP:
	case MOE_R_SHARED_DOWN:
	case MOE_R_DENSE_GATE:
	case MOE_R_DENSE_UP:
	case MOE_R_DENSE_DOWN:
		return true;
	default:
		return false;
	}
}

void moe_coded_entry(enum moe_quant q, enum moe_layout l, int64_t rows, int64_t cols, int64_t shape[2])
{
	struct moe_quant_shape s;

	moe_quant_shape(q, cols, &s);
	shape[0] = l == MOE_L_R64 ? (rows + MOE_TILE_ROWS - 1) / MOE_TILE_ROWS : rows;
	shape[1] = (int64_t)s.row_bytes * (l == MOE_L_R64 ? MOE_TILE_ROWS : 1);
}

/* The shape that a tensor of this name must have in its file. */
static int wanted(const struct moe_model *m, struct moe_tensor_id id, const struct moe_tensor *t,
                  struct moe_tensor *want, struct moe_err *e)
{
	enum moe_layout l;
	enum moe_quant q;
	size_t stem;

	moe_tensor_shape(m, id, want->shape, &want->ndim);
	if (!moe_quant_split_name(t->name, &stem, &q, &l))
		return 0;
	if (!moe_role_may_be_coded(id.role))
		return moe_fail(e, MOE_E_INPUT, "tensor %s: %.*s is never coded", t->name, (int)stem, t->name);
	if (t->coding || t->dtype != MOE_U8)
		return moe_fail(e, MOE_E_INPUT, "tensor %s holds codes, which are of type U8, not %s", t->name,
		                moe_dtype_name(t->dtype));
	moe_coded_entry(q, l, want->shape[0], want->shape[1], want->shape);
	return 0;
}

int moe_tensor_check_shape(const struct moe_model *m, struct moe_tensor_id id, const struct moe_tensor *t, struct moe_err *e)
{
	struct moe_tensor want = {0};
	char found[160], text[160];
	bool same;
	int rc;

	if (id.role == MOE_R_ROTARY)
		return 0;
	rc = wanted(m, id, t, &want, e);
	if (rc)
		return rc;
	same = t->ndim == want.ndim;
	for (int i = 0; same && i < t->ndim; i++)
		same = t->shape[i] == want.shape[i];
	if (same)
		return 0;
	return moe_fail(e, MOE_E_INPUT, "tensor %s has shape %s, %s is wanted", t->name, moe_shape_text(t, found),
	                moe_shape_text(&want, text));
}

int moe_tensor_matrix(const struct moe_model *m, struct moe_tensor_id id, const struct moe_tensor *t,
                      struct moe_matrix *out, struct moe_err *e)
{
	struct moe_matrix x = {.layout = MOE_L_PLAIN, .data = t->data};
	int64_t shape[MOE_MAX_DIMS];
	size_t stem;
	int ndim, rc = moe_tensor_check_shape(m, id, t, e);

	if (rc)
		return rc;
	if (!moe_tensor_shape(m, id, shape, &ndim) || ndim != 2)
		return moe_fail(e, MOE_E_RANGE, "tensor %s is no matrix", t->name);
	if (!moe_quant_split_name(t->name, &stem, &x.quant, &x.layout) && !moe_quant_of(t->dtype, &x.quant))
		return moe_fail(e, MOE_E_UNSUPPORTED, "tensor %s: weights of type %s are not supported", t->name,
		                moe_dtype_name(t->dtype));
	x.rows = shape[0];
	x.cols = shape[1];
	*out = x;
	return 0;
}
