#include "upload.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/mem.h"

#define ALIGNED 64

struct moe_upload {
	struct moe_backend *b;
	atomic_int users;
	void *mem;
	struct moe_expert_weights w;
};

static size_t rounded(size_t bytes)
{
	return (bytes + ALIGNED - 1) / ALIGNED * ALIGNED;
}

bool moe_upload_bytes(const struct moe_expert_weights *w, size_t *bytes)
{
	const struct moe_matrix *m[] = {&w->gate, &w->up, &w->down};
	size_t sum = 0;

	for (int i = 0; i < 3; i++)
		if (!moe_add_size(sum, rounded(moe_matrix_bytes(m[i])), &sum))
			return false;
	*bytes = sum;
	return true;
}

/* Matrices go one after the other; u->w speaks of the copies then. */
static int copy(struct moe_upload *u, struct moe_err *e)
{
	struct moe_matrix *m[] = {&u->w.gate, &u->w.up, &u->w.down};
	unsigned char *to = u->mem;
	int rc = 0;

	for (int i = 0; i < 3 && !rc; i++) {
		size_t bytes = moe_matrix_bytes(m[i]);

		rc = u->b->ops->copy_in(u->b, NULL, to, m[i]->data, bytes, e);
		m[i]->data = to;
		to += rounded(bytes);
	}
	return rc;
}

int moe_upload_new(struct moe_backend *b, const struct moe_expert_weights *w, struct moe_upload **out, struct moe_err *e)
{
	struct moe_upload *u;
	size_t bytes;
	int rc;

	if (!moe_upload_bytes(w, &bytes))
		return moe_fail(e, MOE_E_NOMEM, "an expert's size overflows");
	u = moe_calloc(1, sizeof *u, "expert", e);
	if (!u)
		return MOE_E_NOMEM;
	u->b = b;
	u->w = *w;
	atomic_init(&u->users, 1);
	rc = b->ops->alloc(b, bytes, &u->mem, e);
	if (rc) {
		free(u);
		return rc;
	}
	rc = copy(u, e);
	if (rc) {
		b->ops->sync(b, NULL, NULL); /* nothing is to write there any more */
		moe_upload_release(u);
		return rc;
	}
	*out = u;
	return 0;
}

struct moe_upload *moe_upload_keep(struct moe_upload *u)
{
	atomic_fetch_add_explicit(&u->users, 1, memory_order_relaxed);
	return u;
}

void moe_upload_release(struct moe_upload *u)
{
	if (!u || atomic_fetch_sub_explicit(&u->users, 1, memory_order_acq_rel) > 1)
		return;
	u->b->ops->release(u->b, u->mem);
	free(u);
}

struct moe_expert_weights moe_upload_weights(const struct moe_upload *u)
{
	return u->w;
}
