/* Products as launches: which form, rows prepared for it, and the jobs of one quant and size gathered. */
#include <limits.h>
#include <string.h>

#include "multiply.h"
#include "products.h"
#include "rows.h"

enum { FEW = 16, FEW_F32 = 8 };  /* most rows of a part in the form that is made for few */
#define VECTOR 16                /* bytes that kernels read at a time */

enum moe_cuda_way moe_cuda_way(const struct moe_cuda *c, const struct moe_matrix *w)
{
	if (moe_quant_is_coded(w->quant))
		return c->numerics.activation == MOE_A_F32 ? MOE_WAY_F32 : MOE_WAY_I8;
	return c->numerics.activation == MOE_A_BF16 && w->quant == MOE_Q_BF16 && !w->f32_inputs ? MOE_WAY_BF16 : MOE_WAY_F32;
}

static const struct moe_cuda_form *forms_of(enum moe_cuda_way way, enum moe_quant q)
{
	if (way == MOE_WAY_F32)
		return moe_cuda_f32;
	switch (q) {
	case MOE_Q_Q8: return moe_cuda_q8;
	case MOE_Q_Q4: return moe_cuda_q4;
	case MOE_Q_Q3: return moe_cuda_q3;
	case MOE_Q_Q2: return moe_cuda_q2;
	default: return moe_cuda_bf16;
	}
}

/* The form whose parts have up to `most` rows. */
static const struct moe_cuda_form *form_for(const struct moe_cuda *c, enum moe_cuda_way way, enum moe_quant q, int most)
{
	const struct moe_cuda_form *f = forms_of(way, q);

	if (way == MOE_WAY_F32)
		return &f[most <= 2 ? MOE_CUDA_F32_2 : most <= FEW_F32 ? MOE_CUDA_F32_4 : MOE_CUDA_F32_MANY];
	if (most <= FEW)
		return &f[most <= 8 ? MOE_CUDA_FEW_8 : MOE_CUDA_FEW_16];
	return &f[most <= 64 || f[MOE_CUDA_MANY_128].shared > c->shared ? MOE_CUDA_MANY_64 : MOE_CUDA_MANY_128];
}

/* ---- rows ---- */

static int64_t block_of(enum moe_cuda_way way, int64_t cols)
{
	return way == MOE_WAY_I8 ? moe_quant_block(cols) : 256;
}

/* x as the way takes it, into p. */
static int prepare(const struct moe_cuda_call *call, enum moe_cuda_way way, int64_t cols, struct moe_cuda_product *p, struct moe_err *e)
{
	int block = (int)block_of(way, cols), rc;
	cudaError_t error;
	void *mem;

	p->x = (const unsigned char *)call->x;
	p->ldx = (size_t)cols * sizeof(float);
	if (way == MOE_WAY_F32 || cols == 0)
		return 0;
	p->ldx = way == MOE_WAY_I8 ? moe_cuda_coded_row(cols, block) : moe_cuda_bf16_row(cols);
	rc = moe_cuda_room(call->c, call->q, call->room, call->bound * p->ldx, &mem, e);
	if (rc)
		return rc;
	p->x = mem;
	error = way == MOE_WAY_I8 ? moe_cuda_quantise(mem, call->x, call->bound, cols, block, call->q->s)
	                          : moe_cuda_round(mem, call->x, call->bound, cols, call->q->s);
	return moe_cuda_check(call->c, error, "rows for products", e);
}

/* ---- launches ---- */

struct launch {
	const struct moe_cuda_call *call;
	enum moe_cuda_way way;
	const struct moe_cuda_form *form;
	struct moe_cuda_product p;
	size_t blocks;
};

static int flush(struct launch *l, struct moe_err *e)
{
	int rc = 0;

	if (l->p.n_parts > 0)
		rc = moe_cuda_check(l->call->c, moe_cuda_launch(l->form, &l->p, (unsigned)l->blocks, l->call->q->s), "a product", e);
	memset(l->p.parts, 0, sizeof l->p.parts);
	l->p.n_parts = 0;
	l->blocks = 0;
	return rc;
}

static bool by_vectors(const void *mem, size_t row_bytes)
{
	return ((uintptr_t)mem | row_bytes) % VECTOR == 0;
}

/* Matrices may lie anywhere; kernels that read only vectors get a copy of those that do not lie well. */
static bool lies_well(enum moe_cuda_way way, const struct moe_matrix *w)
{
	if (moe_quant_is_coded(w->quant))
		return by_vectors(w->data, 0);
	return way == MOE_WAY_F32 || by_vectors(w->data, (size_t)w->cols * 2);
}

static int copy_well(const struct launch *l, struct moe_matrix *w, unsigned char *to, struct moe_err *e)
{
	size_t rows = 1, bytes = moe_matrix_bytes(w), padded = bytes;

	if (!moe_quant_is_coded(w->quant)) {
		rows = (size_t)w->rows;
		bytes = (size_t)w->cols * 2;
		padded = moe_cuda_bf16_row(w->cols);
		w->cols = (int64_t)padded / 2;
	}
	int rc = moe_cuda_check(l->call->c, moe_cuda_spread(to, w->data, rows, bytes, padded, l->call->q->s), "a copy of a matrix", e);

	w->data = to;
	return rc;
}

static size_t well_bytes(const struct moe_matrix *w)
{
	return moe_quant_is_coded(w->quant) ? moe_matrix_bytes(w) : (size_t)w->rows * moe_cuda_bf16_row(w->cols);
}

static int add_part(struct launch *l, const struct moe_cuda_job *job, struct moe_err *e)
{
	const struct moe_cuda_form *f = l->form;
	size_t outputs = (size_t)f->outputs[l->p.matrices - 1];
	size_t blocks = (((size_t)job->rows + (size_t)f->rows - 1) / (size_t)f->rows) * (((size_t)l->p.n + outputs - 1) / outputs);
	bool vectors = !moe_quant_is_coded(job->w.quant) && job->w.cols % 8 == 0 && by_vectors(job->w.data, 0) && by_vectors(l->p.x, 0);
	struct moe_cuda_part *part;
	int rc = 0;

	if (blocks > INT_MAX)
		return moe_fail(e, MOE_E_RANGE, "a product of %d rows with %d outputs: too many", job->rows, l->p.n);
	if (l->p.n_parts == MOE_CUDA_PARTS || l->blocks + blocks > INT_MAX || (l->p.n_parts > 0 && vectors != l->p.vectors))
		rc = flush(l, e);
	l->p.vectors = vectors;
	l->p.cols = (int)job->w.cols;
	part = &l->p.parts[l->p.n_parts++];
	part->w[0] = job->w.data;
	part->w[1] = job->up.data;
	part->first = job->first;
	part->rows = job->rows;
	part->start = (int)l->blocks;
	l->blocks += blocks;
	return rc;
}

/* A job whose matrices do not lie well has a launch of its own, for there is one place for copies. */
static int add_copied(struct launch *l, const struct moe_cuda_job *job, struct moe_err *e)
{
	struct moe_cuda_job copy = *job;
	size_t bytes = (well_bytes(&job->w) + 255) / 256 * 256;
	int rc = flush(l, e);
	void *mem;

	rc = rc ? rc : moe_cuda_room(l->call->c, l->call->q, MOE_ROOM_WEIGHTS, 2 * bytes, &mem, e);
	rc = rc ? rc : copy_well(l, &copy.w, mem, e);
	if (rc == 0 && copy.up.data)
		rc = copy_well(l, &copy.up, (unsigned char *)mem + bytes, e);
	rc = rc ? rc : add_part(l, &copy, e);
	return rc ? rc : flush(l, e);
}

static int add(struct launch *l, const struct moe_cuda_job *job, struct moe_err *e)
{
	if (lies_well(l->way, &job->w) && (!job->up.data || lies_well(l->way, &job->up)))
		return add_part(l, job, e);
	return add_copied(l, job, e);
}

/* ---- jobs ---- */

static bool is_few(enum moe_cuda_way way, int rows)
{
	return rows <= (way == MOE_WAY_F32 ? FEW_F32 : FEW);
}

static bool belongs(const struct launch *l, const struct moe_cuda_job *job, enum moe_quant q, bool few)
{
	return job->rows > 0 && job->w.quant == q && moe_cuda_way(l->call->c, &job->w) == l->way && is_few(l->way, job->rows) == few;
}

/* The jobs of one quant with few rows, or with many. */
static int launch_some(struct launch *l, const struct moe_cuda_job *jobs, size_t n, enum moe_quant q, bool few, struct moe_err *e)
{
	int most = 0, rc = 0;

	for (size_t i = 0; i < n; i++)
		if (belongs(l, &jobs[i], q, few) && jobs[i].rows > most)
			most = jobs[i].rows;
	if (most == 0)
		return 0;
	l->form = form_for(l->call->c, l->way, q, most);
	l->p.quant = (int)q;
	for (size_t i = 0; i < n && rc == 0; i++)
		if (belongs(l, &jobs[i], q, few))
			rc = add(l, &jobs[i], e);
	return rc ? rc : flush(l, e);
}

/* All jobs that are multiplied in one way. */
static int multiply_way(const struct moe_cuda_call *call, enum moe_cuda_way way, const struct moe_cuda_job *jobs, size_t n, struct moe_err *e)
{
	const struct moe_matrix *w = &jobs[0].w;
	struct launch l = {.call = call, .way = way};
	int rc;

	l.p = (struct moe_cuda_product){.y = call->y, .x_row = call->x_row, .bias = call->bias, .weight = call->weight, .n = (int)w->rows};
	l.p.block = (int)block_of(way, w->cols);
	l.p.blocks = (int)((w->cols + l.p.block - 1) / l.p.block);
	l.p.matrices = jobs[0].up.data ? 2 : 1;
	rc = prepare(call, way, w->cols, &l.p, e);
	for (int q = 0; q < MOE_QUANTS && rc == 0; q++) {
		rc = launch_some(&l, jobs, n, (enum moe_quant)q, true, e);
		rc = rc ? rc : launch_some(&l, jobs, n, (enum moe_quant)q, false, e);
	}
	return rc;
}

static int check(const struct moe_matrix *w, const struct moe_matrix *like, struct moe_err *e)
{
	if (moe_quant_is_coded(w->quant) && w->layout != MOE_L_R64)
		return moe_fail(e, MOE_E_UNSUPPORTED, "a %s matrix in layout %s: a GPU multiplies layout %s", moe_quant_name(w->quant),
		                moe_layout_name(w->layout), moe_layout_name(MOE_L_R64));
	if (w->rows != like->rows || w->cols != like->cols || w->rows > INT_MAX / 2 || w->cols > INT_MAX / 2)
		return moe_fail(e, MOE_E_RANGE, "a matrix [%lld, %lld] beside one [%lld, %lld]: a GPU multiplies those of one shape, up to %d",
		                (long long)w->rows, (long long)w->cols, (long long)like->rows, (long long)like->cols, INT_MAX / 2);
	return 0;
}

int moe_cuda_multiply(const struct moe_cuda_call *call, const struct moe_cuda_job *jobs, size_t n, struct moe_err *e)
{
	bool has[MOE_WAYS] = {false};
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = check(&jobs[i].w, &jobs[0].w, e);
		if (rc == 0 && jobs[i].up.data)
			rc = check(&jobs[i].up, &jobs[0].w, e);
		has[moe_cuda_way(call->c, &jobs[i].w)] |= jobs[i].rows > 0 && jobs[i].w.rows > 0;
	}
	for (int way = 0; way < MOE_WAYS && rc == 0; way++)
		if (has[way])
			rc = multiply_way(call, (enum moe_cuda_way)way, jobs, n, e);
	return rc;
}
