/* What implementations of struct moe_experts share that compute one batch after the other: is it a batch that they can take, and what is
 * left of it when it has been computed. */
#include <string.h>

#include "base/clock.h"
#include "compute/compute.h"

int moe_batch_check_layer(const struct moe_model *m, int max_rows, int layer, int rows, struct moe_err *e)
{
	if (layer < 0 || layer >= m->n_layers || m->layers[layer].ffn.kind != MOE_FFN_MOE)
		return moe_fail(e, MOE_E_RANGE, "layer %d has no experts", layer);
	if (rows < 0 || rows > max_rows)
		return moe_fail(e, MOE_E_RANGE, "layer %d: %d rows, at most %d", layer, rows, max_rows);
	return 0;
}

int moe_batch_check(const struct moe_model *m, int max_rows, const struct moe_batch *b, struct moe_err *e)
{
	int experts, most = moe_model_max_top_k(m), rc = moe_batch_check_layer(m, max_rows, b->layer, b->rows, e);

	if (rc)
		return rc;
	if (b->k < 1 || b->k > most)
		return moe_fail(e, MOE_E_RANGE, "layer %d: %d experts a row, from 1 to %d", b->layer, b->k, most);
	experts = m->layers[b->layer].ffn.experts;
	for (int i = 0; i < b->rows * b->k; i++)
		if (b->ids[i] < 0 || b->ids[i] >= experts)
			return moe_fail(e, MOE_E_RANGE, "layer %d: expert %d, of %d", b->layer, b->ids[i], experts);
	return 0;
}

int moe_batch_late(const struct moe_batch *b, struct moe_err *e)
{
	if (b->deadline == 0 || moe_now_ns() < b->deadline)
		return 0;
	memset(b->failed, 1, (size_t)b->rows);
	return moe_fail(e, MOE_E_TIMEOUT, "layer %d: the time was up before it began", b->layer);
}

static struct moe_ticket_failure *find(struct moe_tickets *t, uint64_t ticket)
{
	for (int i = 0; i < MOE_TICKET_FAILURES; i++)
		if (t->failures[i].ticket == ticket)
			return &t->failures[i];
	return NULL;
}

int moe_tickets_give(struct moe_tickets *t, uint64_t *ticket, struct moe_err *e)
{
	if (!find(t, 0))
		return moe_fail(e, MOE_E_BUSY, "%d failed batches wait to be collected", MOE_TICKET_FAILURES);
	*ticket = ++t->given;
	return 0;
}

void moe_tickets_fail(struct moe_tickets *t, uint64_t ticket, const struct moe_err *why)
{
	struct moe_ticket_failure *f = find(t, 0);

	if (f)
		*f = (struct moe_ticket_failure){ticket, *why};
}

int moe_tickets_take(struct moe_tickets *t, uint64_t ticket, struct moe_err *e)
{
	struct moe_ticket_failure *f;

	if (ticket == 0 || ticket > t->given)
		return moe_fail(e, MOE_E_RANGE, "ticket %llu was never given", (unsigned long long)ticket);
	f = find(t, ticket);
	if (!f)
		return 0;
	f->ticket = 0;
	if (e)
		*e = f->why;
	return f->why.code;
}

void moe_tickets_forget(struct moe_tickets *t, uint64_t ticket)
{
	struct moe_ticket_failure *f = ticket ? find(t, ticket) : NULL;

	if (f)
		f->ticket = 0;
}
