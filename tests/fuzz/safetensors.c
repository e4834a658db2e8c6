/* Any bytes as the head of a file: refused, or entries that tile the data. The first byte says how much data there is
 * beyond what the input holds. */
#include <stdint.h>
#include <stdlib.h>

#include "checkpoint/checkpoint.h"

static void demand(int ok)
{
	if (!ok)
		abort();
}

/* As large as any reader of the view would compute it. */
static uint64_t bytes_of(const struct moe_st_entry *t)
{
	uint64_t n = moe_dtype_size(t->dtype);

	for (int i = 0; i < t->ndim; i++)
		if (t->shape[i] == 0)
			return 0;
	for (int i = 0; i < t->ndim; i++)
		demand(!__builtin_mul_overflow(n, (uint64_t)t->shape[i], &n));
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_st_header h;
	uint64_t at = 0, file;

	if (size < 1)
		return 0;
	file = size - 1 + (data[0] < 128 ? data[0] : (uint64_t)1 << (data[0] & 63));
	if (moe_st_header_parse(data + 1, size - 1, file, "f", &h, &e)) {
		demand(e.code != 0 && e.msg[0] == 'f');
		return 0;
	}
	demand(h.data_start >= 10 && h.data_start <= size - 1);
	for (size_t i = 0; i < h.n; i++) {
		const struct moe_st_entry *t = &h.v[i];

		demand(t->name && t->ndim >= 0 && t->ndim <= MOE_MAX_DIMS && t->dtype < MOE_DTYPES);
		demand(t->begin == at && t->end - t->begin == bytes_of(t));
		at = t->end;
	}
	demand(at == file - h.data_start);
	moe_st_header_free(&h);
	return 0;
}
