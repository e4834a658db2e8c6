/* What the columns of matrices are worth, for who quantises them: the mean square of the inputs they met. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "run/run.h"

#define NAME_CAP 256

/* A matrix and where its vector goes. */
struct column_means {
	char name[NAME_CAP];
	enum moe_role role;
	int layer;
	int64_t cols;
	const struct moe_input_squares *seen; /* NULL: nothing met it */
};

struct importance {
	const struct moe_run *run;
	struct column_means *v;
	size_t n, cap;
};

static int add(struct importance *x, struct moe_tensor_id id, const struct moe_matrix *w, struct moe_err *e)
{
	struct column_means *c;

	if (!w->data)
		return 0;
	if (x->n == x->cap) {
		size_t cap = x->cap ? 2 * x->cap : 64;

		c = moe_realloc(x->v, cap, sizeof *c, "a list of matrices", e);
		if (!c)
			return MOE_E_NOMEM;
		x->v = c;
		x->cap = cap;
	}
	c = &x->v[x->n];
	*c = (struct column_means){.role = id.role, .layer = id.layer, .cols = w->cols,
	                           .seen = moe_recorder_find(x->run->recorder, w->data)};
	if (!moe_tensor_name(x->run->model, id, c->name, sizeof c->name))
		return moe_fail(e, MOE_E_RANGE, "layer %d: a %s model has no name for one of its matrices", id.layer, x->run->model->name);
	x->n++;
	return 0;
}

/* Three matrices that follow each other in the list of roles. */
static int add_ffn(struct importance *x, struct moe_tensor_id gate, const struct moe_expert_weights *w, struct moe_err *e)
{
	struct moe_tensor_id up = gate, down = gate;
	int rc;

	up.role = gate.role + 1;
	down.role = gate.role + 2;
	rc = add(x, gate, &w->gate, e);
	rc = rc ? rc : add(x, up, &w->up, e);
	return rc ? rc : add(x, down, &w->down, e);
}

static int add_layer(struct importance *x, int layer, const struct moe_layer_weights *w, struct moe_err *e)
{
	const struct moe_ffn *f = &x->run->model->layers[layer].ffn;
	int rc = add(x, (struct moe_tensor_id){MOE_R_Q, layer, -1}, &w->q, e);

	rc = rc ? rc : add(x, (struct moe_tensor_id){MOE_R_K, layer, -1}, &w->k, e);
	rc = rc ? rc : add(x, (struct moe_tensor_id){MOE_R_V, layer, -1}, &w->v, e);
	rc = rc ? rc : add(x, (struct moe_tensor_id){MOE_R_O, layer, -1}, &w->o, e);
	if (f->kind == MOE_FFN_DENSE)
		return rc ? rc : add_ffn(x, (struct moe_tensor_id){MOE_R_DENSE_GATE, layer, -1}, &w->ffn, e);
	if (!rc && f->shared_width > 0)
		rc = add_ffn(x, (struct moe_tensor_id){MOE_R_SHARED_GATE, layer, -1}, &w->shared, e);
	for (int i = 0; !rc && i < f->experts; i++) {
		struct moe_expert_weights expert;

		rc = moe_bind_expert(x->run->tensors, x->run->model, layer, i, &expert, e);
		rc = rc ? rc : add_ffn(x, (struct moe_tensor_id){MOE_R_EXPERT_GATE, layer, i}, &expert, e);
	}
	return rc;
}

static int add_all(struct importance *x, struct moe_err *e)
{
	const struct moe_model *m = x->run->model;
	struct moe_base_weights base;
	int rc = moe_bind_base(x->run->tensors, m, &base, e);

	if (rc)
		return rc;
	for (int l = 0; !rc && l < m->n_layers; l++)
		rc = add_layer(x, l, &base.layers[l], e);
	rc = rc ? rc : add(x, (struct moe_tensor_id){m->tied ? MOE_R_EMBED : MOE_R_HEAD, -1, -1}, &base.head, e);
	moe_base_free(&base);
	return rc;
}

/* The mean over rows; of an expert that no row chose, the mean of the layer's others. */
static int mean(const struct importance *x, const struct column_means *c, float *out, struct moe_err *e)
{
	uint64_t rows = 0;
	double *sums = moe_calloc((size_t)c->cols, sizeof *sums, "means", e);

	if (!sums)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < x->n; i++) {
		const struct column_means *o = &x->v[i];
		bool mine = c->seen ? o == c : o->role == c->role && o->layer == c->layer && o->cols == c->cols;

		if (!mine || !o->seen)
			continue;
		rows += o->seen->rows;
		for (int64_t k = 0; k < c->cols; k++)
			sums[k] += o->seen->sums[k];
	}
	for (int64_t k = 0; rows && k < c->cols; k++)
		out[k] = (float)(sums[k] / (double)rows);
	free(sums);
	return rows ? 0 : moe_fail(e, MOE_E_INPUT, "%s: no text has reached this matrix, nothing is known of its inputs", c->name);
}

static int write_file(const struct importance *x, const char *path, struct moe_err *e)
{
	struct moe_st_entry *v = moe_calloc(x->n, sizeof *v, "a header", e);
	struct moe_buf file = MOE_BUF_INIT;
	unsigned char *header = NULL;
	size_t len;
	int rc = v ? 0 : MOE_E_NOMEM;

	for (size_t i = 0; !rc && i < x->n; i++)
		v[i] = (struct moe_st_entry){.name = x->v[i].name, .dtype = MOE_F32, .ndim = 1, .shape = {x->v[i].cols}};
	rc = rc ? rc : moe_st_header_make(v, x->n, NULL, 64, &header, &len, e);
	rc = rc ? rc : moe_buf_add(&file, header, len, e);
	for (size_t i = 0; !rc && i < x->n; i++) {
		float *values = moe_calloc((size_t)x->v[i].cols, sizeof *values, "means", e);

		rc = values ? mean(x, &x->v[i], values, e) : MOE_E_NOMEM;
		rc = rc ? rc : moe_buf_add(&file, values, (size_t)x->v[i].cols * sizeof *values, e);
		free(values);
	}
	rc = rc ? rc : moe_write_file(path, file.data, file.len, e);
	moe_buf_free(&file);
	free(header);
	free(v);
	return rc;
}

int moe_run_write_importance(const struct moe_run *r, const char *path, struct moe_err *e)
{
	struct importance x = {.run = r};
	int rc = add_all(&x, e);

	rc = rc ? rc : write_file(&x, path, e);
	free(x.v);
	return rc;
}
