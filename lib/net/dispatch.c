#include "net/dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/states.h"

static int count_most(int max_rows, int max_k, size_t *pairs, struct moe_err *e)
{
	if (!moe_mul_size((size_t)max_rows, (size_t)max_k, pairs) || *pairs > INT32_MAX)
		return moe_fail(e, MOE_E_RANGE, "%d rows with %d experts each are too many", max_rows, max_k);
	return 0;
}

int dispatch_new(int max_rows, int max_k, int experts, struct dispatch *out, struct moe_err *e)
{
	size_t pairs;
	int rc = count_most(max_rows, max_k, &pairs, e);

	*out = (struct dispatch){.max_rows = max_rows, .max_k = max_k, .experts = experts};
	if (rc)
		return rc;
	out->groups = moe_calloc((size_t)experts, sizeof *out->groups, "dispatch", e);
	out->group_of_expert = moe_calloc((size_t)experts, sizeof(int32_t), "dispatch", e);
	out->row = moe_calloc(pairs, sizeof(int32_t), "dispatch", e);
	out->weight = moe_calloc(pairs, sizeof(float), "dispatch", e);
	out->slot = moe_calloc(pairs, sizeof(int32_t), "dispatch", e);
	out->sum = moe_calloc(pairs, sizeof(int32_t), "dispatch", e);
	out->number = moe_calloc((size_t)max_rows, sizeof(int32_t), "dispatch", e);
	if (out->groups && out->group_of_expert && out->row && out->weight && out->slot && out->sum && out->number)
		return 0;
	dispatch_free(out);
	return MOE_E_NOMEM;
}

void dispatch_free(struct dispatch *d)
{
	free(d->groups);
	free(d->group_of_expert);
	free(d->row);
	free(d->weight);
	free(d->slot);
	free(d->sum);
	free(d->number);
	*d = (struct dispatch){.max_rows = 0};
}

/* ---- the cut ---- */

static int check_ids(const struct moe_batch *b, int experts, struct moe_err *e)
{
	for (int r = 0; r < b->rows; r++) {
		const int32_t *ids = b->ids + (size_t)r * (size_t)b->k;

		for (int j = 0; j < b->k; j++) {
			if (ids[j] < 0 || ids[j] >= experts)
				return moe_fail(e, MOE_E_RANGE, "layer %d row %d: expert %d of %d", b->layer, r, ids[j], experts);
			if (j && ids[j] <= ids[j - 1])
				return moe_fail(e, MOE_E_INPUT, "layer %d row %d: experts are not ascending", b->layer, r);
		}
	}
	return 0;
}

/* Counts of pairs, in group_of_expert, become groups and their numbers. */
static void make_groups(struct dispatch *d, int experts)
{
	int next = 0;

	d->n_groups = 0;
	for (int i = 0; i < experts; i++) {
		int pairs = d->group_of_expert[i];

		d->group_of_expert[i] = pairs ? d->n_groups : -1;
		if (!pairs)
			continue;
		d->groups[d->n_groups++] = (struct dispatch_group){.expert = i, .first = next};
		next += pairs;
	}
	d->words = (d->n_groups + DISPATCH_SET_BITS - 1) / DISPATCH_SET_BITS;
}

int dispatch_cut(struct dispatch *d, const struct moe_batch *b, int experts, struct moe_err *e)
{
	size_t n = (size_t)b->rows * (size_t)b->k;
	int rc;

	if (b->rows < 1 || b->rows > d->max_rows || b->k < 1 || b->k > d->max_k || experts > d->experts)
		return moe_fail(e, MOE_E_RANGE, "layer %d: a batch of %d rows with %d experts each (at most %d with %d)",
		                b->layer, b->rows, b->k, d->max_rows, d->max_k);
	rc = check_ids(b, experts, e);
	if (rc)
		return rc;
	d->rows = b->rows;
	memset(d->group_of_expert, 0, (size_t)experts * sizeof *d->group_of_expert);
	for (size_t i = 0; i < n; i++)
		d->group_of_expert[b->ids[i]]++;
	make_groups(d, experts);
	/* Row after row, so that every group's pairs are ascending by row. */
	for (size_t i = 0; i < n; i++) {
		struct dispatch_group *g = &d->groups[d->group_of_expert[b->ids[i]]];
		int at = g->first + g->pairs++;

		d->row[at] = (int32_t)(i / (size_t)b->k);
		d->weight[at] = b->weights[i];
		d->slot[i] = at;
	}
	memset(b->failed, 0, (size_t)b->rows);
	return 0;
}

int dispatch_next(const struct dispatch *d, const dispatch_set *s, int group)
{
	for (int w = group / DISPATCH_SET_BITS; w < d->words; w++) {
		dispatch_set bits = s[w];

		if (w == group / DISPATCH_SET_BITS)
			bits &= ~(dispatch_set)0 << (group % DISPATCH_SET_BITS);
		if (bits)
			return w * DISPATCH_SET_BITS + __builtin_ctzll(bits);
	}
	return -1;
}

/* ---- what one server is asked ---- */

int dispatch_lists_new(int max_rows, int max_k, struct dispatch_lists *out, struct moe_err *e)
{
	size_t pairs;
	int rc = count_most(max_rows, max_k, &pairs, e);

	*out = (struct dispatch_lists){.pairs = 0};
	if (rc)
		return rc;
	out->expert = moe_calloc(pairs, sizeof(int32_t), "lists of a message", e);
	out->row = moe_calloc(pairs, sizeof(int32_t), "lists of a message", e);
	out->weight = moe_calloc(pairs, sizeof(float), "lists of a message", e);
	out->source = moe_calloc((size_t)max_rows, sizeof(int32_t), "lists of a message", e);
	if (out->expert && out->row && out->weight && out->source)
		return 0;
	dispatch_lists_free(out);
	return MOE_E_NOMEM;
}

void dispatch_lists_free(struct dispatch_lists *l)
{
	free(l->expert);
	free(l->row);
	free(l->weight);
	free(l->source);
	*l = (struct dispatch_lists){.pairs = 0};
}

/* Number the rows that the set's groups need, ascending; how many.  source: which they are, or NULL. */
static int number_rows(struct dispatch *d, const dispatch_set *s, int32_t *source)
{
	int n = 0;

	memset(d->number, -1, (size_t)d->rows * sizeof *d->number);
	for (int g = dispatch_next(d, s, 0); g >= 0; g = dispatch_next(d, s, g + 1))
		for (int i = 0; i < d->groups[g].pairs; i++)
			d->number[d->row[d->groups[g].first + i]] = 0;
	for (int r = 0; r < d->rows; r++) {
		if (d->number[r] < 0)
			continue;
		if (source)
			source[n] = r;
		d->number[r] = n++;
	}
	return n;
}

void dispatch_list(struct dispatch *d, const dispatch_set *s, struct dispatch_lists *l)
{
	l->rows = number_rows(d, s, l->source);
	l->pairs = 0;
	for (int g = dispatch_next(d, s, 0); g >= 0; g = dispatch_next(d, s, g + 1))
		for (int i = 0; i < d->groups[g].pairs; i++) {
			int pair = d->groups[g].first + i, to = l->pairs++;

			l->expert[to] = d->groups[g].expert;
			l->row[to] = d->number[d->row[pair]];
			l->weight[to] = d->weight[pair];
		}
}

void dispatch_gather(const struct dispatch_lists *l, const struct moe_batch *b, int hidden, enum moe_wire_type type, void *x)
{
	size_t n = (size_t)hidden, bytes = n * states_bytes(type);

	for (int r = 0; r < l->rows; r++)
		states_put(type, (unsigned char *)x + (size_t)r * bytes, b->x + (size_t)l->source[r] * n, n);
}

/* ---- answers ---- */

static int take_sums(struct dispatch *d, const dispatch_set *s, const void *y, dispatch_set *taken)
{
	int n = 0;

	for (int g = dispatch_next(d, s, 0); g >= 0; g = dispatch_next(d, s, g + 1))
		if (d->groups[g].y)
			return 0;
	number_rows(d, s, NULL);
	for (int g = dispatch_next(d, s, 0); g >= 0; g = dispatch_next(d, s, g + 1)) {
		d->groups[g].y = y;
		for (int i = 0; i < d->groups[g].pairs; i++)
			d->sum[d->groups[g].first + i] = d->number[d->row[d->groups[g].first + i]];
		dispatch_put(taken, g);
		n++;
	}
	return n;
}

int dispatch_take(struct dispatch *d, const dispatch_set *s, const void *y, const struct dispatch_answer *a, dispatch_set *taken)
{
	size_t bytes = (size_t)a->hidden * states_bytes(a->type), at = 0;
	int n = 0;

	memset(taken, 0, (size_t)d->words * sizeof *taken);
	if (a->presum)
		return take_sums(d, s, y, taken);
	for (int g = dispatch_next(d, s, 0); g >= 0; g = dispatch_next(d, s, g + 1)) {
		struct dispatch_group *to = &d->groups[g];

		if (!to->y) {
			to->y = (const unsigned char *)y + at * bytes;
			dispatch_put(taken, g);
			n++;
		}
		at += (size_t)to->pairs;
	}
	return n;
}

/* ---- the sum ---- */

static const struct dispatch_group *group_of(const struct dispatch *d, int32_t expert)
{
	return &d->groups[d->group_of_expert[expert]];
}

/* Has the answer with the row's j-th expert been met at an earlier one? */
static bool met_before(const struct dispatch *d, const int32_t *ids, int j)
{
	for (int i = 0; i < j; i++)
		if (group_of(d, ids[i])->y == group_of(d, ids[j])->y)
			return true;
	return false;
}

/* The outputs that are there, added up; how many there were. */
static int combine_row(const struct dispatch *d, const struct moe_batch *b, int r, const struct dispatch_answer *a)
{
	const int32_t *ids = b->ids + (size_t)r * (size_t)b->k;
	size_t n = (size_t)a->hidden, bytes = n * states_bytes(a->type);
	float *y = b->y + (size_t)r * n;
	int added = 0;

	for (int j = 0; j < b->k; j++) {
		const struct dispatch_group *g = group_of(d, ids[j]);
		int pair = d->slot[(size_t)r * (size_t)b->k + (size_t)j];
		size_t at = (size_t)(a->presum ? d->sum[pair] : pair - g->first);

		if (!g->y || (a->presum && met_before(d, ids, j)))
			continue;
		if (!added++)
			states_take(a->type, y, g->y + at * bytes, n);
		else
			states_add(a->type, y, g->y + at * bytes, n);
	}
	return added;
}

static bool row_is_there(const struct dispatch *d, const struct moe_batch *b, int r)
{
	const int32_t *ids = b->ids + (size_t)r * (size_t)b->k;

	for (int j = 0; j < b->k; j++)
		if (!group_of(d, ids[j])->y)
			return false;
	return true;
}

/* What is there, weighing as much as all of it would. */
static void degrade_row(const struct dispatch *d, const struct moe_batch *b, int r, const struct dispatch_answer *a)
{
	size_t n = (size_t)a->hidden, first = (size_t)r * (size_t)b->k;
	float *y = b->y + (size_t)r * n, all = 0, there = 0, scale;

	b->degraded[r] = 1;
	if (!combine_row(d, b, r, a)) {
		memset(y, 0, n * sizeof *y);
		return;
	}
	for (size_t i = first; i < first + (size_t)b->k; i++) {
		all += b->weights[i];
		there += group_of(d, b->ids[i])->y ? b->weights[i] : 0;
	}
	scale = there != 0 ? all / there : 0;
	for (size_t i = 0; i < n; i++)
		y[i] *= scale;
}

int dispatch_combine(const struct dispatch *d, const struct moe_batch *b, const struct dispatch_answer *a, bool leave_out)
{
	int degraded = 0;

	for (int r = 0; r < b->rows; r++) {
		if (row_is_there(d, b, r)) {
			combine_row(d, b, r, a);
		} else if (leave_out && b->degraded) {
			degrade_row(d, b, r, a);
			degraded++;
		} else {
			b->failed[r] = 1;
		}
	}
	return degraded;
}
