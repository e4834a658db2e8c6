/* Element types and shapes in words. */
#include <stdio.h>
#include <string.h>

#include "tensor/tensor.h"

#define SHAPE_TEXT 160

static const struct {
	const char *name;
	size_t size;
} dtypes[MOE_DTYPES] = {
	[MOE_F32] = {"F32", 4},         [MOE_F16] = {"F16", 2},         [MOE_BF16] = {"BF16", 2},
	[MOE_F8_E4M3] = {"F8_E4M3", 1}, [MOE_F8_E5M2] = {"F8_E5M2", 1}, [MOE_I8] = {"I8", 1},
	[MOE_U8] = {"U8", 1},           [MOE_I16] = {"I16", 2},         [MOE_U16] = {"U16", 2},
	[MOE_I32] = {"I32", 4},         [MOE_U32] = {"U32", 4},         [MOE_I64] = {"I64", 8},
	[MOE_U64] = {"U64", 8},         [MOE_F64] = {"F64", 8},         [MOE_BOOL] = {"BOOL", 1},
};

size_t moe_dtype_size(enum moe_dtype t)
{
	return dtypes[t].size;
}

const char *moe_dtype_name(enum moe_dtype t)
{
	return dtypes[t].name;
}

bool moe_dtype_parse(const char *name, enum moe_dtype *out)
{
	for (int t = 0; t < MOE_DTYPES; t++)
		if (strcmp(name, dtypes[t].name) == 0) {
			*out = (enum moe_dtype)t;
			return true;
		}
	return false;
}

const char *moe_shape_text(const struct moe_tensor *t, char *buf)
{
	size_t n = 1;

	strcpy(buf, "[");
	for (int i = 0; i < t->ndim && i < MOE_MAX_DIMS; i++) {
		char one[24];
		int len = snprintf(one, sizeof one, "%s%lld", i ? ", " : "", (long long)t->shape[i]);

		if (n + (size_t)len + 2 > SHAPE_TEXT) /* only eight sizes near 2^63 */
			break;
		memcpy(buf + n, one, (size_t)len);
		n += (size_t)len;
	}
	strcpy(buf + n, "]");
	return buf;
}
