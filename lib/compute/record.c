/* A backend that remembers what its matrices are multiplied with.  It is the backend itself with another table of
 * operations, of which matmul, ffn and experts add up squares before they do what they always do; so everything that
 * works with the backend works with it recording. */
#include <stdlib.h>

#include "base/mem.h"
#include "compute/compute.h"

struct seen {
	const void *data;            /* of the matrix: the key */
	struct moe_input_squares s;
	double sums[];
};

struct moe_recorder {
	struct moe_backend_ops ops;  /* first: the recording backend's table is the recorder */
	const struct moe_backend_ops *plain;
	struct moe_backend *b;
	struct moe_index *by_data;
	struct seen **v;
	size_t n;
};

static struct moe_recorder *recorder_of(struct moe_backend *b)
{
	return (struct moe_recorder *)b->ops;
}

static int find(struct moe_recorder *r, const struct moe_matrix *w, struct seen **out, struct moe_err *e)
{
	struct seen **v, *s;
	uint64_t i;

	if (moe_index_get(r->by_data, (const char *)&w->data, sizeof w->data, &i)) {
		*out = r->v[i];
		return 0;
	}
	v = moe_realloc(r->v, r->n + 1, sizeof *v, "sums of squares", e);
	if (!v)
		return MOE_E_NOMEM;
	r->v = v;
	s = moe_calloc(1, sizeof *s + (size_t)w->cols * sizeof *s->sums, "sums of squares", e);
	if (!s)
		return MOE_E_NOMEM;
	s->data = w->data;
	s->s = (struct moe_input_squares){s->sums, w->cols, 0};
	if (moe_index_add(r->by_data, (const char *)&s->data, sizeof s->data, r->n, NULL) < 0) {
		free(s);
		return moe_fail(e, MOE_E_NOMEM, "no memory for sums of squares");
	}
	r->v[r->n++] = *out = s;
	return 0;
}

/* Rows x_row[i] of x (NULL: row i) are inputs of w. */
static int add_rows(struct moe_recorder *r, const struct moe_matrix *w, const float *x, const int32_t *x_row, int rows,
                    struct moe_err *e)
{
	struct seen *s = NULL;
	int rc = find(r, w, &s, e);

	if (rc)
		return rc;
	for (int i = 0; i < rows; i++) {
		const float *row = x + (size_t)(x_row ? x_row[i] : i) * (size_t)w->cols;

		for (int64_t k = 0; k < w->cols; k++)
			s->sums[k] += (double)row[k] * (double)row[k];
	}
	s->s.rows += (uint64_t)rows;
	return 0;
}

static int matmul(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
                  const struct moe_matrix *w, const float *bias, struct moe_err *e)
{
	struct moe_recorder *r = recorder_of(b);
	int rc = add_rows(r, w, x, NULL, rows, e);

	return rc ? rc : r->plain->matmul(b, q, y, x, rows, w, bias, e);
}

/* What down is multiplied with, in f32. */
static int hidden(struct moe_recorder *r, float *out, float *up, const float *x, int rows,
                  const struct moe_expert_weights *w, struct moe_err *e)
{
	size_t n = (size_t)rows * (size_t)w->gate.rows;
	int rc = r->plain->matmul(r->b, NULL, out, x, rows, &w->gate, NULL, e);

	rc = rc ? rc : r->plain->matmul(r->b, NULL, up, x, rows, &w->up, NULL, e);
	rc = rc ? rc : r->plain->sync(r->b, NULL, e);
	for (size_t i = 0; !rc && i < n; i++)
		out[i] = out[i] / (1 + moe_expf(-out[i])) * up[i];
	return rc;
}

static int add_expert(struct moe_recorder *r, const struct moe_expert_weights *w, const float *x, const int32_t *x_row,
                      int rows, struct moe_err *e)
{
	size_t in = (size_t)w->gate.cols, width = (size_t)w->gate.rows, n = (size_t)rows;
	float *taken = moe_calloc(n * (in + 2 * width), sizeof *taken, "rows of an expert", e);
	float *h = taken + n * in, *up = h + n * width;
	int rc = taken ? 0 : MOE_E_NOMEM;

	for (size_t i = 0; !rc && i < n; i++)
		for (size_t k = 0; k < in; k++)
			taken[i * in + k] = x[(size_t)(x_row ? x_row[i] : (int32_t)i) * in + k];
	rc = rc ? rc : add_rows(r, &w->gate, taken, NULL, rows, e);
	rc = rc ? rc : add_rows(r, &w->up, taken, NULL, rows, e);
	rc = rc ? rc : hidden(r, h, up, taken, rows, w, e);
	rc = rc ? rc : add_rows(r, &w->down, h, NULL, rows, e);
	free(taken);
	return rc;
}

static int ffn(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
               const struct moe_expert_weights *w, enum moe_act act, float *scratch, struct moe_err *e)
{
	struct moe_recorder *r = recorder_of(b);
	int rc = add_expert(r, w, x, NULL, rows, e);

	return rc ? rc : r->plain->ffn(b, q, y, x, rows, w, act, scratch, e);
}

static int experts(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x,
                   const struct moe_expert_group *groups, int n_groups, const int32_t *x_row, const float *weight,
                   enum moe_act act, float *scratch, struct moe_err *e)
{
	struct moe_recorder *r = recorder_of(b);

	for (int i = 0; i < n_groups; i++) {
		int rc = add_expert(r, &groups[i].w, x, x_row + groups[i].first, groups[i].pairs, e);

		if (rc)
			return rc;
	}
	return r->plain->experts(b, q, y, x, groups, n_groups, x_row, weight, act, scratch, e);
}

int moe_recorder_start(struct moe_backend *b, struct moe_recorder **out, struct moe_err *e)
{
	struct moe_recorder *r;

	if (!b->ops->host_memory)
		return moe_fail(e, MOE_E_UNSUPPORTED, "inputs are recorded on the CPU only, not on a device");
	r = moe_calloc(1, sizeof *r, "a recorder", e);
	if (!r)
		return MOE_E_NOMEM;
	r->by_data = moe_index_new(0, e);
	if (!r->by_data) {
		free(r);
		return MOE_E_NOMEM;
	}
	r->b = b;
	r->plain = b->ops;
	r->ops = *b->ops;
	r->ops.matmul = matmul;
	r->ops.ffn = ffn;
	r->ops.experts = experts;
	b->ops = &r->ops;
	*out = r;
	return 0;
}

void moe_recorder_stop(struct moe_recorder *r)
{
	if (!r)
		return;
	r->b->ops = r->plain;
	for (size_t i = 0; i < r->n; i++)
		free(r->v[i]);
	free(r->v);
	moe_index_free(r->by_data);
	free(r);
}

const struct moe_input_squares *moe_recorder_find(const struct moe_recorder *r, const void *data)
{
	uint64_t i;

	return moe_index_get(r->by_data, (const char *)&data, sizeof data, &i) ? &r->v[i]->s : NULL;
}
