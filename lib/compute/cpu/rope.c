/* Rotary positions: cosines and sines of a step's positions in a table, then all heads turned by them. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "../frequency.h"
#include "cpu.h"

/* ---- the table ---- */

void moe_cpu_rope_free(struct moe_rope_table *t)
{
	free(t->positions);
	free(t->cosines);
	free(t->sines);
	memset(t, 0, sizeof *t);
}

static bool table_is(const struct moe_rope_table *t, const int32_t *positions, int rows, const struct moe_rope *rope)
{
	return t->rows == rows && t->rope.theta == rope->theta && t->rope.dims == rope->dims &&
	       t->rope.factor == rope->factor && memcmp(t->positions, positions, (size_t)rows * sizeof *positions) == 0;
}

static int table_room(struct moe_rope_table *t, int rows, int dims, struct moe_err *e)
{
	size_t cap = (size_t)rows * (size_t)dims;

	if (cap <= t->cap)
		return 0;
	moe_cpu_rope_free(t);
	t->positions = moe_calloc(cap, sizeof *t->positions, "rope table", e);
	t->cosines = moe_calloc(cap, sizeof *t->cosines, "rope table", e);
	t->sines = moe_calloc(cap, sizeof *t->sines, "rope table", e);
	if (!t->positions || !t->cosines || !t->sines) {
		moe_cpu_rope_free(t);
		return MOE_E_NOMEM;
	}
	t->cap = cap;
	return 0;
}

struct fill {
	struct moe_rope_table *t;
	const float *frequencies;
};

static void fill_rows(void *arg, struct moe_range r)
{
	const struct fill *f = arg;
	size_t half = (size_t)f->t->rope.dims / 2;

	for (size_t i = r.from; i < r.to; i++)
		for (size_t j = 0; j < half; j++) {
			float angle = (float)f->t->positions[i] * f->frequencies[j];
			double s, c;

			moe_sincos(angle, &s, &c);
			f->t->sines[i * half + j] = (float)s;
			f->t->cosines[i * half + j] = (float)c;
		}
}

static int fill_table(struct moe_cpu *c, const int32_t *positions, int rows, const struct moe_rope *rope,
                      struct moe_err *e)
{
	struct moe_rope_table *t = &c->rope;
	struct fill f = {.t = t};
	float *frequencies;
	int rc = table_room(t, rows, rope->dims, e);

	rc = rc ? rc : moe_cpu_scratch(c, (size_t)rope->dims, e);
	if (rc)
		return rc;
	f.frequencies = frequencies = moe_cpu_part(c, 0);
	for (int i = 0; i < rope->dims / 2; i++)
		frequencies[i] = moe_rope_frequency(rope, i);
	t->rope = *rope;
	t->rows = rows;
	memcpy(t->positions, positions, (size_t)rows * sizeof *positions);
	moe_cpu_each(c, (size_t)rows, 16, fill_rows, &f);
	return 0;
}

/* ---- turning ---- */

struct turn {
	const struct moe_cpu *c;
	float *x;
	int heads, head_dim;
};

static void turn_rows(void *arg, struct moe_range r)
{
	const struct turn *m = arg;
	const struct moe_rope_table *t = &m->c->rope;
	size_t half = (size_t)t->rope.dims / 2;

	for (size_t i = r.from; i < r.to; i++)
		for (size_t h = 0; h < (size_t)m->heads; h++)
			m->c->k->rotate(m->x + (i * (size_t)m->heads + h) * (size_t)m->head_dim, t->cosines + i * half,
			                t->sines + i * half, (int)half);
}

int moe_cpu_rope(struct moe_backend *b, struct moe_stream_q *q, float *x, const int32_t *positions, int rows, int heads,
                 int head_dim, const struct moe_rope *rope, struct moe_err *e)
{
	struct moe_cpu *c = moe_cpu(b);
	struct turn m = {c, x, heads, head_dim};

	(void)q;
	if (rows <= 0 || rope->dims <= 0)
		return 0;
	if (!table_is(&c->rope, positions, rows, rope)) {
		int rc = fill_table(c, positions, rows, rope, e);

		if (rc)
			return rc;
	}
	moe_cpu_each(c, (size_t)rows, 8, turn_rows, &m);
	return 0;
}
