/* Numbers to numbers: open addressing, sized once. */
#include <stdlib.h>
#include <string.h>

#include "text/text_private.h"

#define NO_KEY UINT64_MAX

static size_t slot_of(const struct text_table *t, uint64_t key)
{
	uint64_t h = key;

	h = (h ^ h >> 33) * 0xff51afd7ed558ccdull;
	h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53ull;
	h ^= h >> 33;
	for (h &= t->mask; t->key[h] != key && t->key[h] != NO_KEY;)
		h = (h + 1) & t->mask;
	return h;
}

int text_table_init(struct text_table *t, size_t most, const char *what, struct moe_err *e)
{
	size_t slots = 8;

	if (most > SIZE_MAX / 64)
		return moe_fail(e, MOE_E_NOMEM, "%s: too many entries", what);
	while (slots < most + most / 2 + 1)
		slots *= 2;
	*t = (struct text_table){.mask = slots - 1, .most = most};
	t->key = moe_calloc(slots, sizeof *t->key, what, e);
	t->value = t->key ? moe_calloc(slots, sizeof *t->value, what, e) : NULL;
	if (!t->value) {
		text_table_free(t);
		return MOE_E_NOMEM;
	}
	memset(t->key, 0xff, slots * sizeof *t->key);
	return 0;
}

void text_table_free(struct text_table *t)
{
	free(t->key);
	free(t->value);
	*t = (struct text_table){0};
}

void text_table_set(struct text_table *t, uint64_t key, uint64_t value)
{
	size_t i = slot_of(t, key);

	if (t->key[i] == NO_KEY)
		t->n++;
	t->key[i] = key;
	t->value[i] = value;
}

bool text_table_get(const struct text_table *t, uint64_t key, uint64_t *value)
{
	size_t i;

	if (!t->key)
		return false;
	i = slot_of(t, key);
	if (t->key[i] != key)
		return false;
	*value = t->value[i];
	return true;
}
