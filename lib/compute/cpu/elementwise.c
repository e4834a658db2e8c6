/* What is done element by element, or row by row. */
#include "cpu.h"

#define ROW_GRAIN 8              /* rows a piece */
#define FLAT_GRAIN 16384         /* floats a piece */

struct rows {
	const struct moe_kernels *k;
	float *y;
	const float *x, *weight;
	int n;
	float eps;
};

static void rmsnorm_rows(void *arg, struct moe_range r)
{
	const struct rows *m = arg;

	for (size_t i = r.from; i < r.to; i++)
		m->k->rmsnorm(m->y + i * (size_t)m->n, m->x + i * (size_t)m->n, m->n, m->weight, m->eps);
}

int moe_cpu_rmsnorm(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows, int n,
                    const float *weight, float eps, struct moe_err *e)
{
	struct rows m = {moe_cpu(b)->k, y, x, weight, n, eps};

	(void)q, (void)e;
	moe_cpu_each(moe_cpu(b), (size_t)rows, ROW_GRAIN, rmsnorm_rows, &m);
	return 0;
}

static void sigmoid_rows(void *arg, struct moe_range r)
{
	const struct rows *m = arg;

	for (size_t i = r.from; i < r.to; i++)
		m->k->scale(m->y + i * (size_t)m->n, 1.0f / (1.0f + moe_expf(-m->x[i])), (size_t)m->n);
}

int moe_cpu_sigmoid_scale(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *s, int rows, int n,
                          struct moe_err *e)
{
	struct rows m = {.k = moe_cpu(b)->k, .y = y, .x = s, .n = n};

	(void)q, (void)e;
	moe_cpu_each(moe_cpu(b), (size_t)rows, ROW_GRAIN, sigmoid_rows, &m);
	return 0;
}

struct flat {
	const struct moe_kernels *k;
	float *x;
	const float *y;
	float limit;
};

static void add_range(void *arg, struct moe_range r)
{
	const struct flat *m = arg;

	m->k->add(m->x + r.from, m->y + r.from, r.to - r.from);
}

int moe_cpu_add(struct moe_backend *b, struct moe_stream_q *q, float *x, const float *y, size_t n, struct moe_err *e)
{
	struct flat m = {.k = moe_cpu(b)->k, .x = x, .y = y};

	(void)q, (void)e;
	moe_cpu_each(moe_cpu(b), n, FLAT_GRAIN, add_range, &m);
	return 0;
}

static void clamp_range(void *arg, struct moe_range r)
{
	const struct flat *m = arg;

	m->k->clamp(m->x + r.from, m->limit, r.to - r.from);
}

int moe_cpu_clamp(struct moe_backend *b, struct moe_stream_q *q, float *x, size_t n, float limit, struct moe_err *e)
{
	struct flat m = {.k = moe_cpu(b)->k, .x = x, .limit = limit};

	(void)q, (void)e;
	moe_cpu_each(moe_cpu(b), n, FLAT_GRAIN, clamp_range, &m);
	return 0;
}
