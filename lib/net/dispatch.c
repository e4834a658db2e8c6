#include "net/dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/states.h"

int dispatch_new(int max_rows, int max_k, int experts, int servers, struct dispatch *out, struct moe_err *e)
{
	size_t pairs;

	*out = (struct dispatch){.max_rows = max_rows, .max_k = max_k, .experts = experts, .servers = servers};
	if (!moe_mul_size((size_t)max_rows, (size_t)max_k, &pairs) || pairs > INT32_MAX)
		return moe_fail(e, MOE_E_RANGE, "%d rows with %d experts each are too many", max_rows, max_k);
	out->parts = moe_calloc((size_t)servers, sizeof *out->parts, "dispatch", e);
	out->part_of_server = moe_calloc((size_t)servers, sizeof(int32_t), "dispatch", e);
	out->part_of_expert = moe_calloc((size_t)experts, sizeof(int32_t), "dispatch", e);
	out->start = moe_calloc((size_t)experts, sizeof(int32_t), "dispatch", e);
	out->expert = moe_calloc(pairs, sizeof(int32_t), "dispatch", e);
	out->row = moe_calloc(pairs, sizeof(int32_t), "dispatch", e);
	out->source = moe_calloc(pairs, sizeof(int32_t), "dispatch", e);
	out->weight = moe_calloc(pairs, sizeof(float), "dispatch", e);
	out->slot = moe_calloc(pairs, sizeof(int32_t), "dispatch", e);
	if (out->parts && out->part_of_server && out->part_of_expert && out->start && out->expert && out->row &&
	    out->source && out->weight && out->slot)
		return 0;
	dispatch_free(out);
	return MOE_E_NOMEM;
}

void dispatch_free(struct dispatch *d)
{
	free(d->parts);
	free(d->part_of_server);
	free(d->part_of_expert);
	free(d->start);
	free(d->expert);
	free(d->row);
	free(d->source);
	free(d->weight);
	free(d->slot);
	*d = (struct dispatch){.missing = -1};
}

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

/* Mark the rows that cannot be computed and count the others' pairs per expert, into start. */
static void count_pairs(struct dispatch *d, const struct moe_batch *b, const int32_t *owner)
{
	d->missing = -1;
	for (int r = 0; r < b->rows; r++) {
		const int32_t *ids = b->ids + (size_t)r * (size_t)b->k;

		b->failed[r] = 0;
		for (int j = 0; j < b->k; j++) {
			if (owner[ids[j]] >= 0)
				continue;
			b->failed[r] = 1;
			if (d->missing < 0)
				d->missing = ids[j];
		}
		for (int j = 0; j < b->k && !b->failed[r]; j++)
			d->start[ids[j]]++;
	}
}

/* One part per server that has anything to do, in order of its lowest expert. */
static void make_parts(struct dispatch *d, const int32_t *owner, int experts)
{
	int next = 0;

	d->n_parts = 0;
	for (int i = 0; i < d->servers; i++)
		d->part_of_server[i] = -1;
	for (int i = 0; i < experts; i++) {
		int32_t *part;

		if (!d->start[i])
			continue;
		part = &d->part_of_server[owner[i]];
		if (*part < 0) {
			*part = d->n_parts++;
			d->parts[*part] = (struct dispatch_part){.server = owner[i], .last = -1};
		}
		d->part_of_expert[i] = *part;
		d->parts[*part].pairs += d->start[i];
	}
	for (int i = 0; i < d->n_parts; i++) {
		d->parts[i].first = next;
		next += d->parts[i].pairs;
	}
}

/* Counts become the places where each expert's pairs begin. */
static void place_experts(struct dispatch *d, int experts)
{
	for (int i = 0; i < d->n_parts; i++)
		d->parts[i].next = d->parts[i].first;
	for (int i = 0; i < experts; i++) {
		int count = d->start[i], *next;

		if (!count)
			continue;
		next = &d->parts[d->part_of_expert[i]].next;
		d->start[i] = *next;
		*next += count;
	}
}

static void place_pair(struct dispatch *d, const struct moe_batch *b, int r, int j)
{
	size_t i = (size_t)r * (size_t)b->k + (size_t)j;
	int expert = b->ids[i], at = d->start[expert]++;
	struct dispatch_part *p = &d->parts[d->part_of_expert[expert]];

	if (p->last != r) {
		p->last = r;
		d->source[p->first + p->rows++] = r;
	}
	d->expert[at] = expert;
	d->row[at] = p->rows - 1;
	d->weight[at] = b->weights[i];
	d->slot[i] = at;
}

int dispatch_cut(struct dispatch *d, const struct moe_batch *b, const int32_t *owner, int experts, struct moe_err *e)
{
	int rc;

	if (b->rows < 1 || b->rows > d->max_rows || b->k < 1 || b->k > d->max_k || experts > d->experts)
		return moe_fail(e, MOE_E_RANGE, "layer %d: a batch of %d rows with %d experts each (at most %d with %d)",
		                b->layer, b->rows, b->k, d->max_rows, d->max_k);
	rc = check_ids(b, experts, e);
	if (rc)
		return rc;
	memset(d->start, 0, (size_t)experts * sizeof *d->start);
	count_pairs(d, b, owner);
	make_parts(d, owner, experts);
	place_experts(d, experts);
	/* Row after row, so that every expert's pairs are ascending by row. */
	for (int r = 0; r < b->rows; r++)
		for (int j = 0; j < b->k && !b->failed[r]; j++)
			place_pair(d, b, r, j);
	return 0;
}

void dispatch_gather(const struct dispatch *d, const struct dispatch_part *p, const struct moe_batch *b, int hidden,
                     enum moe_wire_type type, void *x)
{
	size_t n = (size_t)hidden, bytes = n * states_bytes(type);

	for (int r = 0; r < p->rows; r++)
		states_put(type, (unsigned char *)x + (size_t)r * bytes, b->x + (size_t)d->source[p->first + r] * n, n);
}

/* Has the server of the row's j-th expert been met at an earlier one? */
static bool met_before(const struct dispatch *d, const int32_t *ids, int j)
{
	for (int i = 0; i < j; i++)
		if (d->part_of_expert[ids[i]] == d->part_of_expert[ids[j]])
			return true;
	return false;
}

static bool row_is_there(const struct dispatch *d, const int32_t *ids, int k)
{
	for (int j = 0; j < k; j++)
		if (!d->parts[d->part_of_expert[ids[j]]].y)
			return false;
	return true;
}

static void combine_row(const struct dispatch *d, const struct moe_batch *b, int r, const struct dispatch_answer *a)
{
	const int32_t *ids = b->ids + (size_t)r * (size_t)b->k;
	size_t n = (size_t)a->hidden, bytes = n * states_bytes(a->type);
	float *y = b->y + (size_t)r * n;

	for (int j = 0; j < b->k; j++) {
		const struct dispatch_part *p = &d->parts[d->part_of_expert[ids[j]]];
		int pair = d->slot[(size_t)r * (size_t)b->k + (size_t)j];
		int at = a->presum ? d->row[pair] : pair - p->first;
		const unsigned char *from = (const unsigned char *)p->y + (size_t)at * bytes;

		if (a->presum && met_before(d, ids, j))
			continue;
		if (j == 0)
			states_take(a->type, y, from, n);
		else
			states_add(a->type, y, from, n);
	}
}

void dispatch_combine(const struct dispatch *d, const struct moe_batch *b, const struct dispatch_answer *a)
{
	for (int r = 0; r < b->rows; r++) {
		if (b->failed[r])
			continue;
		if (row_is_there(d, b->ids + (size_t)r * (size_t)b->k, b->k))
			combine_row(d, b, r, a);
		else
			b->failed[r] = 1;
	}
}
