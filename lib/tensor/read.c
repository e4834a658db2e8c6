/* The values of any tensor as f32. */
#include "tensor/tensor.h"

int moe_tensor_read(const struct moe_tensor *t, int64_t row, int64_t n, float *out, struct moe_err *e)
{
	int64_t rows = 1, cols;
	int rc;

	if (t->ndim < 1)
		return moe_fail(e, MOE_E_RANGE, "tensor %s has no dimension", t->name);
	cols = t->shape[t->ndim - 1];
	for (int i = 0; i < t->ndim - 1; i++)
		rows *= t->shape[i];
	if (row < 0 || n < 0 || n > rows || row > rows - n)
		return moe_fail(e, MOE_E_RANGE, "tensor %s has no rows %lld to %lld", t->name, (long long)row, (long long)(row + n));
	if (t->coding)
		return t->coding->read(t, row, n, out, e);
	rc = moe_to_f32(t->dtype, t->data + (size_t)(row * cols) * moe_dtype_size(t->dtype), out, (size_t)(n * cols), e);
	if (rc == MOE_E_UNSUPPORTED)
		return moe_fail(e, rc, "tensor %s: type %s has no values", t->name, moe_dtype_name(t->dtype));
	return rc;
}
