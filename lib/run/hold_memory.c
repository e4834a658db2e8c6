/* The memory of experts: loaded together, given back one by one. */
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/hold.h"

struct stock {
	atomic_int users;            /* its copies, and who makes them */
	struct moe_tensors *tensors;
	const struct moe_model *model;
	bool whole;
};

struct counted {
	struct copy pub;             /* first: a copy is a counted */
	atomic_int users;
	int layer, expert;
};

int stock_new(struct moe_tensors *t, const struct moe_model *m, bool whole, struct stock **out, struct moe_err *e)
{
	struct stock *k = moe_calloc(1, sizeof *k, "experts", e);

	if (!k)
		return MOE_E_NOMEM;
	atomic_init(&k->users, 1);
	k->tensors = t;
	k->model = m;
	k->whole = whole;
	*out = k;
	return 0;
}

void stock_release(struct stock *k)
{
	if (!k || atomic_fetch_sub_explicit(&k->users, 1, memory_order_acq_rel) > 1)
		return;
	moe_tensors_free(k->tensors);
	free(k);
}

int copy_new(struct stock *k, int layer, int expert, const struct moe_hash *hash, struct copy **out, struct moe_err *e)
{
	struct moe_expert_weights w;
	struct counted *x;
	int rc = moe_bind_expert(k->tensors, k->model, layer, expert, &w, e);

	if (rc)
		return rc;
	x = moe_calloc(1, sizeof *x, "expert", e);
	if (!x)
		return MOE_E_NOMEM;
	atomic_init(&x->users, 1);
	x->layer = layer;
	x->expert = expert;
	x->pub = (struct copy){.in = k, .bytes = moe_matrix_bytes(&w.gate) + moe_matrix_bytes(&w.up) + moe_matrix_bytes(&w.down)};
	if (hash)
		x->pub.hash = *hash;
	atomic_fetch_add_explicit(&k->users, 1, memory_order_relaxed);
	*out = &x->pub;
	return 0;
}

struct copy *copy_keep(struct copy *x)
{
	atomic_fetch_add_explicit(&((struct counted *)x)->users, 1, memory_order_relaxed);
	return x;
}

/* Whole pages that nobody else's numbers lie in.  Mapped ones are the file's again, those of memory are free. */
static void give_back(const struct moe_matrix *m)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)m->data, to = from + moe_matrix_bytes(m);

	from = (from + page - 1) & ~(page - 1);
	to &= ~(page - 1);
	if (from >= to)
		return;
	(void)munlock((void *)from, to - from);
	(void)madvise((void *)from, to - from, MADV_DONTNEED);
}

void copy_release(struct copy *x)
{
	struct counted *c = (struct counted *)x;
	struct stock *k;
	struct moe_expert_weights w;

	if (!x || atomic_fetch_sub_explicit(&c->users, 1, memory_order_acq_rel) > 1)
		return;
	k = x->in;
	if (!k->whole && moe_bind_expert(k->tensors, k->model, c->layer, c->expert, &w, NULL) == 0) {
		give_back(&w.gate);
		give_back(&w.up);
		give_back(&w.down);
	}
	free(c);
	stock_release(k);
}

/* ---- views ---- */

static int add_views(struct moe_tensors *to, const struct stock *k, struct copy *const *copies, struct moe_err *e)
{
	int wide = moe_model_max_experts(k->model), rc = 0;

	for (size_t i = 0; i < moe_tensors_count(k->tensors) && !rc; i++) {
		const struct moe_tensor *t = moe_tensors_at(k->tensors, i);
		struct moe_tensor_id id;
		const struct copy *x = NULL;

		if (!moe_tensor_identify(k->model, t->name, &id))
			continue;
		if (id.layer >= 0 && id.expert >= 0)
			x = copies[id.layer * wide + id.expert];
		/* A tensor with all experts of a layer belongs to none, and several stocks may have it. */
		if (id.expert < 0 ? k->whole && !moe_tensors_find(to, t->name) : x && x->in == k)
			rc = moe_tensors_add(to, t, e);
	}
	return rc;
}

int stock_views(struct copy *const *copies, const struct moe_model *m, struct moe_tensors **out, struct moe_err *e)
{
	size_t n = (size_t)m->n_layers * (size_t)moe_model_max_experts(m), seen = 0;
	const struct stock **stocks = moe_calloc(n, sizeof *stocks, "experts", e);
	struct moe_tensors *t;
	int rc = stocks ? moe_tensors_new(&t, e) : MOE_E_NOMEM;

	if (rc) {
		free(stocks);
		return rc;
	}
	for (size_t i = 0; i < n && !rc; i++) {
		size_t at = seen;

		if (!copies[i])
			continue;
		while (at > 0 && stocks[at - 1] != copies[i]->in)
			at--;
		if (at > 0)
			continue;
		stocks[seen++] = copies[i]->in;
		rc = add_views(t, copies[i]->in, copies, e);
	}
	free(stocks);
	if (rc)
		moe_tensors_free(t);
	else
		*out = t;
	return rc;
}
