/* The files behind tensors: which mapping bytes lie in, and what the kernel is told of them. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "pool/private.h"

static int by_address(const void *a, const void *b)
{
	const struct moe_map *const *x = a, *const *y = b;

	return ((*x)->data > (*y)->data) - ((*x)->data < (*y)->data);
}

int moe_pool_maps_open(const struct moe_tensors *s, struct moe_pool_maps *out, struct moe_err *e)
{
	size_t count = moe_tensors_count(s), n = 0, kept = 0;
	const struct moe_map **v = moe_calloc(count, sizeof *v, "mappings", e);

	if (!v)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct moe_map *map = moe_tensors_at(s, i)->map;

		if (map && (n == 0 || v[n - 1] != map)) /* tensors of a file mostly follow each other */
			v[n++] = map;
	}
	qsort(v, n, sizeof *v, by_address);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || v[kept - 1] != v[i])
			v[kept++] = v[i];
	*out = (struct moe_pool_maps){v, kept};
	return 0;
}

void moe_pool_maps_close(struct moe_pool_maps *m)
{
	free(m->v);
	*m = (struct moe_pool_maps){NULL, 0};
}

const struct moe_map *moe_pool_map_of(const struct moe_pool_maps *m, const unsigned char *data)
{
	size_t lo = 0, hi = m->n; /* the first that begins behind data is in [lo, hi] */

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (m->v[mid]->data <= data)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == 0 || (size_t)(data - m->v[lo - 1]->data) >= m->v[lo - 1]->size)
		return NULL;
	return m->v[lo - 1];
}

void moe_pool_advise(const struct moe_pool_maps *m, const unsigned char *data, size_t bytes, enum moe_pool_advice advice)
{
	static const int how[] = {[MOE_POOL_COMING] = MADV_WILLNEED, [MOE_POOL_NOW] = MADV_POPULATE_READ, [MOE_POOL_COLD] = MADV_COLD,
	                          [MOE_POOL_GONE] = MADV_PAGEOUT};
	bool leaves = advice == MOE_POOL_COLD || advice == MOE_POOL_GONE;
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)data, to = from + bytes;

	from = (leaves ? from + page - 1 : from) / page * page; /* a page that is shared with what lies beside it does not leave */
	to = (leaves ? to : to + page - 1) / page * page;
	if (from < to && moe_pool_map_of(m, data))
		(void)madvise((void *)from, to - from, how[advice]);
}
