/* A pass in two parts of about as many rows each, and whole again. */
#include <string.h>

#include "engine/private.h"

/* Auto: rows that an expert must get of each half, on average.  With fewer, a server reads the weights of most experts twice a
 * layer, which takes longer than the attention that is hidden.  Measured with a layer of the size mixtral-mini, the server on
 * one core and the decoder on another: prompts gained or were level, and steps of a few generating sequences lost. */
#define ROWS_PER_EXPERT 16

static bool enough_rows(const struct moe_model *m, int rows)
{
	for (int l = 0; l < m->n_layers; l++) {
		const struct moe_ffn *f = &m->layers[l].ffn;

		if (f->kind == MOE_FFN_MOE)
			return (int64_t)rows * f->gate.top_k >= (int64_t)2 * ROWS_PER_EXPERT * f->experts;
	}
	return false;
}

static bool wanted(const struct moe_decoder *d, const struct moe_pass *p)
{
	if (p->all.rows < 2 || d->overlap == MOE_OVERLAP_OFF)
		return false;
	return d->overlap == MOE_OVERLAP_ON || (d->x->ops->concurrent && enough_rows(d->m, p->all.rows));
}

/* The i-th sequence becomes two: its first rows, and the others behind them. */
static void cut_sequence(struct moe_pass *p, int i, int rows)
{
	size_t behind = (size_t)(p->all.n - i);
	struct moe_attn_seq *a = &p->attn[i];

	memmove(a + 1, a, behind * sizeof *a);
	memmove(p->seq + i + 1, p->seq + i, behind * sizeof *p->seq);
	p->all.n++;
	a[0].rows = rows;
	a[1].row += rows;
	a[1].pos += rows;
	a[1].rows -= rows;
}

void moe_pass_split(const struct moe_decoder *d, struct moe_pass *p)
{
	int cut = p->all.rows / 2, i = 0;

	p->n_parts = 1;
	p->part[0] = p->all;
	if (!wanted(d, p))
		return;
	while (p->attn[i].row + p->attn[i].rows <= cut)
		i++;
	if (p->attn[i].row < cut) {
		cut_sequence(p, i, cut - p->attn[i].row);
		i++;
	}
	p->n_parts = 2;
	p->part[0] = (struct moe_part){.row = 0, .rows = cut, .first = 0, .n = i};
	p->part[1] = (struct moe_part){.row = cut, .rows = p->all.rows - cut, .first = i, .n = p->all.n - i};
}

/* The halves of a sequence that was cut, next to each other again, become one. */
static void mend(struct moe_pass *p, int i)
{
	size_t behind = (size_t)(p->all.n - i - 1);
	struct moe_attn_seq *a = &p->attn[i];

	a[-1].rows += a[0].rows;
	memmove(a, a + 1, behind * sizeof *a);
	memmove(p->seq + i, p->seq + i + 1, behind * sizeof *p->seq);
	p->all.n--;
}

int moe_pass_join(struct moe_decoder *d, struct moe_pass *p, struct moe_err *e)
{
	const struct moe_part *a = &p->part[0], *b = &p->part[1];

	if (p->n_parts == 1) {
		p->all = *a;
		return 0;
	}
	memmove(p->attn + a->n, p->attn + b->first, (size_t)b->n * sizeof *p->attn);
	memmove(p->seq + a->n, p->seq + b->first, (size_t)b->n * sizeof *p->seq);
	p->all = (struct moe_part){.rows = a->rows + b->rows, .n = a->n + b->n};
	/* Rows are missing in between when the first part lost some, and one that was cut may have ended in the second alone. */
	if (b->row != a->rows || moe_anyone_ended(p, &p->all))
		TRY(moe_drop_ended(d, p, &p->all, e));
	for (int i = p->all.n - 1; i > 0; i--)
		if (p->seq[i] == p->seq[i - 1])
			mend(p, i);
	return 0;
}
