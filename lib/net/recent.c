#include "net/recent.h"

#include <stdlib.h>
#include <string.h>

#define EVERY_NS 100000000u

void recent_add(struct recent *r, uint64_t ns)
{
	r->ns[r->n++ % RECENT] = ns;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

void recent_sort(struct recent *r, uint64_t now)
{
	uint64_t sorted[RECENT];
	size_t n = r->n < RECENT ? (size_t)r->n : RECENT;

	if (!n || (r->at && now - r->at < EVERY_NS))
		return;
	memcpy(sorted, r->ns, n * sizeof *sorted);
	qsort(sorted, n, sizeof *sorted, by_size);
	r->p50 = sorted[(n * 50 + 99) / 100 - 1];
	r->p99 = sorted[(n * 99 + 99) / 100 - 1];
	r->at = now;
}
