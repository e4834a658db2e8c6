/* Routed and shared experts, and dense layers: the second half of a layer, a few rows at a time, so that memory for what is between an
 * expert's matrices stays small.  Rows do not know of each other, so the bits are the same however many go together. */
#include "engine/pipeline_private.h"

static int least(int a, int b)
{
	return a < b ? a : b;
}

int moe_rows_of_experts(const struct moe_expert_work *w, const struct moe_expert_rows *r, struct moe_err *e)
{
	struct moe_sorted_pairs *s = w->sorted;

	moe_sort_pairs(s, r->ids, r->weights, r->rows, r->k, NULL, r->experts);
	TRY(w->b->ops->experts(w->b, w->q, w->parts, r->x, s->groups, s->n_groups, s->x_row, s->weight, r->act, w->scratch, e));
	return w->b->ops->combine(w->b, w->q, r->y, w->parts, s->slot, r->rows, r->k, r->hidden, e);
}

/* What moe_rows_of_experts takes for n rows from `row` on; x[row] is the first of them. */
static struct moe_expert_rows rows_from(const struct moe_pipeline *p, const struct moe_spot *at, const float *x, size_t choice, int n)
{
	const struct moe_ffn *f = &p->m->layers[at->t->layer].ffn;
	size_t k = (size_t)f->gate.top_k;

	return (struct moe_expert_rows){.x = x,
	                                .ids = p->pinned.choice + choice * k,
	                                .weights = p->pinned.weight + choice * k,
	                                .experts = moe_pipeline_experts(p, at),
	                                .act = f->act,
	                                .rows = n,
	                                .k = f->gate.top_k,
	                                .hidden = p->m->hidden};
}

int moe_pipeline_ffn(struct moe_pipeline *p, const struct moe_spot *at, float *x, size_t choice, int rows, struct moe_err *e)
{
	const struct moe_layer_on on = moe_pipeline_layer(p, at->q, at->t->layer);
	const struct moe_expert_work work = {p->b, at->q, &p->sorted, p->dev.parts, p->dev.scratch};
	size_t hidden = (size_t)p->m->hidden;

	for (int r = 0; r < rows; r += p->form.expert_rows) {
		int n = least(p->form.expert_rows, rows - r);
		const float *h = p->dev.h + (choice + (size_t)r) * hidden;
		float *to = x + (size_t)r * hidden;

		if (on.layer->ffn.kind == MOE_FFN_DENSE) {
			TRY(moe_layer_dense(&on, to, p->dev.y, h, p->dev.inner, n, e));
			continue;
		}
		struct moe_expert_rows routed = rows_from(p, at, h, choice + (size_t)r, n);

		routed.y = p->dev.y;
		TRY(moe_rows_of_experts(&work, &routed, e));
		TRY(moe_layer_shared(&on, p->dev.z, h, p->dev.inner, p->dev.switches, n, e));
		TRY(moe_layer_add_up(&on, to, p->dev.y, p->dev.z, n, e));
	}
	return 0;
}

/* ---- experts on the CPU, the rest on the device ---- */

int moe_pipeline_cpu_experts(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e)
{
	const struct moe_expert_work work = {p->host_backend, NULL, &p->sorted, p->host.parts, p->host.scratch};
	size_t hidden = (size_t)p->m->hidden;

	for (int r = 0; r < at->rows; r += p->form.expert_rows) {
		int n = least(p->form.expert_rows, at->rows - r);
		size_t row = at->choice + (size_t)r;
		struct moe_expert_rows routed = rows_from(p, at, p->pinned.rows_out + row * hidden, row, n);

		routed.y = p->pinned.rows_done + row * hidden;
		TRY(moe_rows_of_experts(&work, &routed, e));
	}
	return 0;
}

int moe_pipeline_take_back(struct moe_pipeline *p, const struct moe_spot *at, int layer, struct moe_err *e)
{
	const struct moe_layer_on on = moe_pipeline_layer(p, at->q, layer);
	size_t hidden = (size_t)p->m->hidden;

	for (int r = 0; r < at->rows && on.layer->ffn.kind == MOE_FFN_MOE; r += p->form.expert_rows) {
		int n = least(p->form.expert_rows, at->rows - r);
		size_t row = at->choice + (size_t)r;

		TRY(moe_layer_shared(&on, p->dev.z, p->dev.h + row * hidden, p->dev.inner, p->dev.switches, n, e));
		TRY(moe_layer_add_up(&on, at->x + (size_t)r * hidden, p->dev.back + row * hidden, p->dev.z, n, e));
	}
	return 0;
}
