/* One piece of memory cut into arrays. */
#include "base/mem.h"
#include "engine/private.h"

void *moe_carve(struct moe_carve *c, size_t n, size_t m, size_t size)
{
	size_t bytes, end;
	size_t at = c->used;

	if (!moe_mul_size(n, m, &bytes) || !moe_mul_size(bytes, size, &bytes) || !moe_add_size(at, bytes, &end) ||
	    !moe_add_size(end, 63, &end)) {
		c->overflow = true;
		return NULL;
	}
	c->used = end / 64 * 64;
	return c->base ? c->base + at : NULL;
}
