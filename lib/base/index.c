/* A map from byte strings to numbers.  Nothing is ever removed, so linear probing needs no tombstones. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

struct slot {
	const char *key; /* NULL: free */
	size_t len;
	uint64_t hash, value;
};

struct moe_index {
	struct slot *slots;
	size_t cap, used; /* cap is a power of two, at most 3/4 used */
};

struct moe_index *moe_index_new(size_t expected, struct moe_err *e)
{
	struct moe_index *x = moe_calloc(1, sizeof *x, "index", e);
	size_t cap = 16;

	if (!x)
		return NULL;
	while (cap / 4 * 3 < expected && cap <= SIZE_MAX / 4)
		cap *= 2;
	x->slots = moe_calloc(cap, sizeof *x->slots, "index", e);
	if (!x->slots) {
		free(x);
		return NULL;
	}
	x->cap = cap;
	return x;
}

/* The slot that holds the key, or the free one where it belongs. */
static struct slot *find(const struct moe_index *x, const char *key, size_t len, uint64_t hash)
{
	size_t i = hash & (x->cap - 1);

	for (;; i = (i + 1) & (x->cap - 1)) {
		struct slot *s = &x->slots[i];

		if (!s->key || (s->hash == hash && s->len == len && memcmp(s->key, key, len) == 0))
			return s;
	}
}

static bool grow(struct moe_index *x)
{
	struct moe_index bigger = {.cap = x->cap * 2, .used = x->used};

	bigger.slots = moe_calloc(bigger.cap, sizeof *bigger.slots, "index", NULL);
	if (!bigger.slots)
		return false;
	for (size_t i = 0; i < x->cap; i++) {
		const struct slot *s = &x->slots[i];

		if (s->key)
			*find(&bigger, s->key, s->len, s->hash) = *s;
	}
	free(x->slots);
	*x = bigger;
	return true;
}

int moe_index_add(struct moe_index *x, const char *key, size_t len, uint64_t value, uint64_t *old)
{
	uint64_t hash;
	struct slot *s;

	if (!key) /* an empty key may come without an address */
		key = "";
	hash = moe_hash(key, len);
	s = find(x, key, len, hash);
	if (s->key) {
		if (old)
			*old = s->value;
		return 0;
	}
	if (x->used + 1 > x->cap / 4 * 3) {
		if (!grow(x))
			return -1;
		s = find(x, key, len, hash);
	}
	*s = (struct slot){.key = key, .len = len, .hash = hash, .value = value};
	x->used++;
	return 1;
}

bool moe_index_get(const struct moe_index *x, const char *key, size_t len, uint64_t *value)
{
	const struct slot *s;

	if (!key)
		key = "";
	s = find(x, key, len, moe_hash(key, len));
	if (!s->key)
		return false;
	if (value)
		*value = s->value;
	return true;
}

void moe_index_free(struct moe_index *x)
{
	if (!x)
		return;
	free(x->slots);
	free(x);
}
