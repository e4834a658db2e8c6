#include "upload.h"

#include "base/mem.h"

#define ALIGNED 64

static size_t rounded(size_t bytes)
{
	return (bytes + ALIGNED - 1) / ALIGNED * ALIGNED;
}

bool moe_upload_bytes(const struct moe_expert_weights *w, size_t n, size_t *bytes)
{
	size_t sum = 0;

	for (size_t i = 0; i < n; i++) {
		const struct moe_matrix *m[] = {&w[i].gate, &w[i].up, &w[i].down};

		for (int j = 0; j < 3; j++)
			if (m[j]->data && !moe_add_size(sum, rounded(moe_matrix_bytes(m[j])), &sum))
				return false;
	}
	*bytes = sum;
	return true;
}

int moe_upload(struct moe_backend *b, unsigned char *mem, struct moe_expert_weights *w, size_t n, struct moe_err *e)
{
	int rc = 0, waited;

	for (size_t i = 0; i < n && !rc; i++) {
		struct moe_matrix *m[] = {&w[i].gate, &w[i].up, &w[i].down};

		for (int j = 0; j < 3 && !rc; j++) {
			size_t bytes = m[j]->data ? moe_matrix_bytes(m[j]) : 0;

			if (bytes == 0)
				continue;
			rc = b->ops->copy_in(b, NULL, mem, m[j]->data, bytes, e);
			m[j]->data = mem;
			mem += rounded(bytes);
		}
	}
	waited = b->ops->sync(b, NULL, rc ? NULL : e);
	return rc ? rc : waited;
}
