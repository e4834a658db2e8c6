/* Algorithm 2: the open micro-batches are a heap with the one of fewest prompt tokens on top. */
#include "engine/micro_batches.h"

#include <stdlib.h>

#include "base/mem.h"

struct want_at {
	int64_t prompt;
	int at;                      /* in the order of arrival */
};
struct open_batch {
	int64_t prompts;             /* tokens: of prompts, what balances */
	int64_t room;                /* and KV positions that are left */
	int sequences, number;
};
struct placing {
	struct moe_want *wants;
	const struct moe_micro_limits *l;
	struct want_at *order;       /* [n] */
	struct open_batch *open;     /* [n_open] heap */
	int n, n_open, placed;
};

static int longest_first(const void *a, const void *b)
{
	const struct want_at *x = a, *y = b;

	if (x->prompt != y->prompt)
		return x->prompt > y->prompt ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

/* ---- the heap ---- */

static bool before(const struct open_batch *a, const struct open_batch *b)
{
	return a->prompts != b->prompts ? a->prompts < b->prompts : a->number < b->number;
}

/* The top has changed: let it sink to where it belongs. */
static void sink(struct placing *p)
{
	struct open_batch top = p->open[0];
	int at = 0;

	for (int child = 1; child < p->n_open; child = 2 * at + 1) {
		if (child + 1 < p->n_open && before(&p->open[child + 1], &p->open[child]))
			child++;
		if (!before(&p->open[child], &top))
			break;
		p->open[at] = p->open[child];
		at = child;
	}
	p->open[at] = top;
}

/* ---- placing ---- */

/* Sequences that are not there need no micro-batch. */
static int micro_batches(const struct placing *p)
{
	return p->l->micro_batches < p->n ? p->l->micro_batches : p->n;
}

static void open_all(struct placing *p)
{
	p->n_open = micro_batches(p);
	p->placed = 0;
	for (int i = 0; i < p->n_open; i++) /* numbers rise, so this is a heap */
		p->open[i] = (struct open_batch){.room = p->l->tokens, .number = i};
	for (int i = 0; i < p->n; i++)
		p->wants[i].micro_batch = -1;
}

static bool fits(const struct moe_want *w, int64_t room)
{
	return w->generate <= room && w->prompt <= room - w->generate;
}

static void place(struct placing *p, struct moe_want *w)
{
	struct open_batch *top = p->open;

	if (p->n_open == 0 || !fits(w, top->room))
		return;
	w->micro_batch = top->number;
	top->prompts += w->prompt;
	top->room -= w->prompt + w->generate;
	p->placed++;
	if (++top->sequences == p->l->sequences)
		*top = p->open[--p->n_open];
	if (p->n_open > 0)
		sink(p);
}

/* `first` goes before all others; NULL: nobody does. */
static void place_all(struct placing *p, struct moe_want *first)
{
	open_all(p);
	if (first)
		place(p, first);
	for (int i = 0; i < p->n; i++) {
		struct moe_want *w = &p->wants[p->order[i].at];

		if (w != first)
			place(p, w);
	}
}

static int check(const struct moe_want *wants, int n, const struct moe_micro_limits *l, struct moe_err *e)
{
	if (l->micro_batches < 1 || l->sequences < 1 || l->tokens < 1)
		return moe_fail(e, MOE_E_RANGE, "%d micro-batches of %d sequences and %lld tokens: each must be 1 or more",
		                l->micro_batches, l->sequences, (long long)l->tokens);
	for (int i = 0; i < n; i++)
		if (wants[i].prompt < 0 || wants[i].generate < 0)
			return moe_fail(e, MOE_E_RANGE, "sequence %d has a prompt of %lld tokens and %lld to generate", i,
			                (long long)wants[i].prompt, (long long)wants[i].generate);
	return 0;
}

int moe_micro_batches(struct moe_want *wants, int n, const struct moe_micro_limits *l, int *placed, struct moe_err *e)
{
	struct placing p = {.wants = wants, .l = l, .n = n};
	int rc = check(wants, n, l, e);

	*placed = 0;
	if (rc != 0 || n == 0)
		return rc;
	p.order = moe_calloc((size_t)n, sizeof *p.order, "micro-batches", e);
	p.open = moe_calloc((size_t)micro_batches(&p), sizeof *p.open, "micro-batches", e);
	if (p.order && p.open) {
		for (int i = 0; i < n; i++)
			p.order[i] = (struct want_at){wants[i].prompt, i};
		qsort(p.order, (size_t)n, sizeof *p.order, longest_first);
		place_all(&p, NULL);
		if (wants[0].micro_batch < 0 && fits(&wants[0], l->tokens))
			place_all(&p, &wants[0]);
		*placed = p.placed;
	} else {
		rc = MOE_E_NOMEM;
	}
	free(p.order);
	free(p.open);
	return rc;
}
