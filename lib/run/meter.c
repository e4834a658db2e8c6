/* Counting what a model's rows cost at least: bytes that must come from memory once, operations that must be done. */
#include <stdlib.h>

#include "base/mem.h"
#include "run/run.h"

/* One expert, or all matrices of the base that every row passes. */
struct price {
	double bytes;
	double operations[MOE_ARITHMETICS]; /* of one row */
};

struct moe_meter {
	struct moe_run *run;
	struct moe_cost sum;
	int wide, first_layer;       /* experts a layer at most; the first layer that has any */
	struct price body, head;
	struct price *experts;       /* [n_layers, wide] */
	uint64_t *seen;              /* [n_layers, wide] the step that last touched it */
	uint64_t step, last_id;      /* the present step; the sequence of its last row */
	bool said, head_read;        /* in this step: a row was counted, logits were */
};

static void add_matrix(struct price *p, const struct moe_matrix *m, enum moe_activation a)
{
	if (!m->data)
		return;
	p->bytes += (double)moe_matrix_bytes(m);
	p->operations[moe_arithmetic_of(m->quant, m->f32_inputs ? MOE_A_F32 : a)] += 2.0 * (double)m->rows * (double)m->cols;
}

static void add_expert(struct price *p, const struct moe_expert_weights *w, enum moe_activation a)
{
	add_matrix(p, &w->gate, a);
	add_matrix(p, &w->up, a);
	add_matrix(p, &w->down, a);
}

static int price_base(struct moe_meter *t, struct moe_err *e)
{
	enum moe_activation a = t->run->numerics.activation;
	struct moe_base_weights w;
	int rc = moe_bind_base(t->run->tensors, t->run->model, &w, e);

	if (rc)
		return rc;
	add_matrix(&t->head, &w.head, a);
	for (int l = 0; l < t->run->model->n_layers; l++) {
		const struct moe_layer_weights *lw = &w.layers[l];

		add_matrix(&t->body, &lw->q, a);
		add_matrix(&t->body, &lw->k, a);
		add_matrix(&t->body, &lw->v, a);
		add_matrix(&t->body, &lw->o, a);
		add_matrix(&t->body, &lw->gate, a);
		add_expert(&t->body, &lw->ffn, a);
		add_expert(&t->body, &lw->shared, a);
		add_matrix(&t->body, &lw->shared_switch, a);
	}
	moe_base_free(&w);
	return 0;
}

static int price_experts(struct moe_meter *t, struct moe_err *e)
{
	const struct moe_model *m = t->run->model;
	int rc = 0;

	t->first_layer = -1;
	for (int l = 0; l < m->n_layers; l++) {
		if (m->layers[l].ffn.kind == MOE_FFN_MOE && t->first_layer < 0)
			t->first_layer = l;
		for (int i = 0; i < m->layers[l].ffn.experts && !rc; i++) {
			struct moe_expert_weights w;

			rc = moe_bind_expert(t->run->tensors, m, l, i, &w, e);
			if (!rc)
				add_expert(&t->experts[l * t->wide + i], &w, t->run->numerics.activation);
		}
	}
	return rc;
}

/* A row at this position reads the keys and values it sees; the next rows of its sequence find them read. */
static void count_row(struct moe_meter *t, uint64_t id, int position)
{
	const struct moe_model *m = t->run->model;
	bool again = t->said && id == t->last_id;

	t->sum.rows++;
	for (int i = 0; i < MOE_ARITHMETICS; i++)
		t->sum.operations[i] += t->body.operations[i];
	for (int l = 0; l < m->n_layers; l++) {
		const struct moe_attention *a = &m->layers[l].attn;
		int sees = a->window && position >= a->window ? a->window : position + 1;
		double vector = (double)moe_kv_vector_bytes(t->run->numerics.kv, a->head_dim);

		t->sum.operations[MOE_F32_DOT] += 4.0 * a->heads * a->head_dim * sees;
		t->sum.kv_bytes += 2.0 * a->kv_heads * vector * (again ? 1 : sees);
	}
	if (!t->said) {
		t->sum.steps++;
		t->sum.weight_bytes += t->body.bytes;
	}
	t->said = true;
	t->last_id = id;
}

static void on_route(void *ctx, const struct moe_routing *r)
{
	struct moe_meter *t = ctx;

	if (r->layer == t->first_layer)
		count_row(t, r->id, r->position);
	for (int j = 0; j < r->k; j++) {
		size_t at = (size_t)r->layer * (size_t)t->wide + (size_t)r->ids[j];

		for (int i = 0; i < MOE_ARITHMETICS; i++)
			t->sum.operations[i] += t->experts[at].operations[i];
		if (t->seen[at] == t->step)
			continue;
		t->seen[at] = t->step;
		t->sum.experts++;
		t->sum.weight_bytes += t->experts[at].bytes;
	}
}

int moe_meter_new(struct moe_run *r, struct moe_meter **out, struct moe_err *e)
{
	struct moe_meter *t;
	size_t n;
	int rc;

	if (r->remote)
		return moe_fail(e, MOE_E_UNSUPPORTED, "the experts are on servers: what they read is not known here");
	t = moe_calloc(1, sizeof *t, "a meter", e);
	if (!t)
		return MOE_E_NOMEM;
	t->run = r;
	t->wide = moe_model_max_experts(r->model);
	n = (size_t)r->model->n_layers * (size_t)t->wide;
	t->experts = moe_calloc(n, sizeof *t->experts, "a meter", e);
	t->seen = moe_calloc(n, sizeof *t->seen, "a meter", e);
	rc = t->experts && t->seen ? price_base(t, e) : MOE_E_NOMEM;
	rc = rc ? rc : price_experts(t, e);
	if (rc)
		moe_meter_free(t);
	else
		*out = t;
	return rc;
}

void moe_meter_free(struct moe_meter *t)
{
	if (!t)
		return;
	free(t->experts);
	free(t->seen);
	free(t);
}

void moe_meter_start(struct moe_meter *t)
{
	t->sum = (struct moe_cost){0};
	moe_engine_on_route(t->run->engine, on_route, t);
}

struct moe_cost moe_meter_stop(struct moe_meter *t)
{
	moe_engine_on_route(t->run->engine, NULL, NULL);
	return t->sum;
}

void moe_meter_step(struct moe_meter *t)
{
	t->step++;
	t->said = t->head_read = false;
}

void moe_meter_logits(struct moe_meter *t)
{
	t->sum.logits++;
	for (int i = 0; i < MOE_ARITHMETICS; i++)
		t->sum.operations[i] += t->head.operations[i];
	if (!t->head_read)
		t->sum.weight_bytes += t->head.bytes;
	t->head_read = true;
}
