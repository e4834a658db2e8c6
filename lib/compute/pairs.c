/* Pairs (row, expert) sorted by expert: counting sort, rows in order within an expert. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "compute/compute.h"

bool moe_sorted_pairs_bytes(int experts, int pairs, size_t *bytes)
{
	size_t per_pair, per_expert;

	return moe_mul_size((size_t)pairs, 2 * sizeof(int32_t) + sizeof(float), &per_pair) &&
	       moe_mul_size((size_t)experts, sizeof(struct moe_expert_group) + sizeof(int32_t), &per_expert) &&
	       moe_add_size(per_pair, per_expert, bytes);
}

int moe_sorted_pairs_new(struct moe_sorted_pairs *s, int experts, int pairs, struct moe_err *e)
{
	size_t n = (size_t)pairs, n_experts = (size_t)experts;

	*s = (struct moe_sorted_pairs){.experts = experts};
	s->groups = moe_calloc(n_experts, sizeof *s->groups, "experts", e);
	s->count = moe_calloc(n_experts, sizeof *s->count, "experts", e);
	s->x_row = moe_calloc(n, sizeof *s->x_row, "a batch", e);
	s->slot = moe_calloc(n, sizeof *s->slot, "a batch", e);
	s->weight = moe_calloc(n, sizeof *s->weight, "a batch", e);
	if (s->groups && s->count && s->x_row && s->slot && s->weight)
		return 0;
	moe_sorted_pairs_free(s);
	return MOE_E_NOMEM;
}

void moe_sorted_pairs_free(struct moe_sorted_pairs *s)
{
	free(s->groups);
	free(s->count);
	free(s->x_row);
	free(s->slot);
	free(s->weight);
	*s = (struct moe_sorted_pairs){0};
}

static bool left_out(const uint8_t *skip, int row)
{
	return skip && skip[row];
}

void moe_sort_pairs(struct moe_sorted_pairs *s, const int32_t *ids, const float *weights, int rows, int k, const uint8_t *skip,
                    const struct moe_expert_weights *w)
{
	int32_t *next = s->count; /* first the counts, then where an expert's next pair goes */
	int at = 0;

	s->n_groups = 0;
	memset(next, 0, (size_t)s->experts * sizeof *next);
	for (int i = 0; i < rows * k; i++)
		next[ids[i]] += !left_out(skip, i / k);
	for (int id = 0; id < s->experts; id++) {
		int pairs = next[id];

		next[id] = at;
		if (pairs > 0)
			s->groups[s->n_groups++] = (struct moe_expert_group){w[id], at, pairs};
		at += pairs;
	}
	for (int i = 0; i < rows * k; i++) {
		bool out = left_out(skip, i / k);
		int p = out ? 0 : next[ids[i]]++; /* a row left out adds up something, it does not matter what */

		s->slot[i] = p;
		if (out)
			continue;
		s->x_row[p] = i / k;
		s->weight[p] = weights[i];
	}
}
