/* A set of named tensors: found by name, kept in the order they came. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tensor/set.h"

/* Every tensor is an allocation of its own with its name behind it, so that addresses stay when the set grows. */
struct named {
	struct moe_tensor t;
	char name[];
};

struct moe_tensors {
	struct named **v;
	size_t n, cap;
	struct moe_index *by_name;
	struct moe_map **maps;
	size_t n_maps;
	const struct moe_map **under; /* these, and those of others that tensors lie in, each once */
	size_t n_under;
	void **memory;
	size_t n_memory;
	struct moe_tensors **sets;
	size_t n_sets;
};

int moe_tensors_new(struct moe_tensors **out, struct moe_err *e)
{
	struct moe_tensors *s = moe_calloc(1, sizeof *s, "tensors", e);

	if (!s)
		return MOE_E_NOMEM;
	s->by_name = moe_index_new(0, e);
	if (!s->by_name) {
		free(s);
		return MOE_E_NOMEM;
	}
	*out = s;
	return 0;
}

void moe_tensors_free(struct moe_tensors *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	for (size_t i = 0; i < s->n_maps; i++)
		moe_map_close(s->maps[i]);
	for (size_t i = 0; i < s->n_memory; i++)
		free(s->memory[i]);
	for (size_t i = 0; i < s->n_sets; i++)
		moe_tensors_free(s->sets[i]);
	moe_index_free(s->by_name);
	free(s->v);
	free(s->maps);
	free(s->under);
	free(s->memory);
	free(s->sets);
	free(s);
}

size_t moe_tensors_count(const struct moe_tensors *s)
{
	return s->n;
}

const struct moe_tensor *moe_tensors_at(const struct moe_tensors *s, size_t i)
{
	return &s->v[i]->t;
}

const struct moe_tensor *moe_tensors_find(const struct moe_tensors *s, const char *name)
{
	uint64_t i;

	return moe_index_get(s->by_name, name, strlen(name), &i) ? &s->v[i]->t : NULL;
}

struct moe_tensor *moe_tensors_mutable(struct moe_tensors *s, size_t i)
{
	return &s->v[i]->t;
}

static int make_room(struct moe_tensors *s, struct moe_err *e)
{
	size_t cap = s->cap ? 2 * s->cap : 64;
	struct named **v;

	if (s->n < s->cap)
		return 0;
	v = moe_realloc(s->v, cap, sizeof *v, "tensors", e);
	if (!v)
		return MOE_E_NOMEM;
	s->v = v;
	s->cap = cap;
	return 0;
}

/* Remember the mapping that a tensor lies in.  Tensors come file by file, so the search ends soon. */
static int note_map(struct moe_tensors *s, const struct moe_map *m, struct moe_err *e)
{
	const struct moe_map **under;

	if (!m)
		return 0;
	for (size_t i = s->n_under; i > 0; i--)
		if (s->under[i - 1] == m)
			return 0;
	under = moe_realloc(s->under, s->n_under + 1, sizeof *under, "mappings", e);
	if (!under)
		return MOE_E_NOMEM;
	s->under = under;
	s->under[s->n_under++] = m;
	return 0;
}

int moe_tensors_add(struct moe_tensors *s, const struct moe_tensor *t, struct moe_err *e)
{
	size_t len = strlen(t->name);
	struct named *x;
	int added;

	if (make_room(s, e) || note_map(s, t->map, e))
		return MOE_E_NOMEM;
	x = moe_calloc(1, sizeof *x + len + 1, "tensor", e);
	if (!x)
		return MOE_E_NOMEM;
	x->t = *t;
	memcpy(x->name, t->name, len + 1);
	x->t.name = x->name;
	added = moe_index_add(s->by_name, x->name, len, s->n, NULL);
	if (added == 1) {
		s->v[s->n++] = x;
		return 0;
	}
	free(x);
	if (added < 0)
		return moe_fail(e, MOE_E_NOMEM, "no memory for tensor %s", t->name);
	return moe_fail(e, MOE_E_INPUT, "there are two tensors %s", t->name);
}

int moe_tensors_own_map(struct moe_tensors *s, struct moe_map *m, struct moe_err *e)
{
	struct moe_map **maps = moe_realloc(s->maps, s->n_maps + 1, sizeof *maps, "mappings", e);

	if (!maps)
		return MOE_E_NOMEM;
	s->maps = maps;
	if (note_map(s, m, e))
		return MOE_E_NOMEM;
	s->maps[s->n_maps++] = m;
	return 0;
}

int moe_tensors_own_memory(struct moe_tensors *s, void *mem, struct moe_err *e)
{
	void **memory = moe_realloc(s->memory, s->n_memory + 1, sizeof *memory, "tensors", e);

	if (!memory)
		return MOE_E_NOMEM;
	s->memory = memory;
	s->memory[s->n_memory++] = mem;
	return 0;
}

int moe_tensors_own_set(struct moe_tensors *s, struct moe_tensors *other, struct moe_err *e)
{
	struct moe_tensors **sets = moe_realloc(s->sets, s->n_sets + 1, sizeof *sets, "tensors", e);

	if (!sets)
		return MOE_E_NOMEM;
	s->sets = sets;
	s->sets[s->n_sets++] = other;
	return 0;
}

int moe_tensors_check(const struct moe_tensors *s, struct moe_err *e)
{
	for (size_t i = 0; i < s->n_under; i++) {
		int rc = moe_map_check(s->under[i], e);

		if (rc)
			return rc;
	}
	return 0;
}
