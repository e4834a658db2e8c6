/* Products with one matrix, and gated FFNs, one or many. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "multiply.h"
#include "rows.h"

int moe_cuda_matmul(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows, const struct moe_matrix *w,
                    const float *bias, struct moe_err *e)
{
	struct moe_cuda *c = moe_cuda(b);
	struct moe_cuda_job job = {.w = *w, .rows = rows};
	struct moe_cuda_call call = {.c = c, .y = y, .x = x, .bias = bias, .bound = (size_t)rows, .room = MOE_ROOM_X};
	int rc = moe_cuda_begin(c, &q, "matmul", e);

	call.q = q;
	return rc ? rc : moe_cuda_multiply(&call, &job, 1, e);
}

struct ffns {
	struct moe_cuda *c;
	struct moe_stream_q *q;
	const struct moe_expert_group *groups;
	size_t n;
	const float *x, *weight;     /* weight and x_row lie on the device, or are NULL */
	const int32_t *x_row;
	size_t bound, pairs;         /* rows of x that are needed, and of y */
	float *hidden, *y;
	struct moe_cuda_job *jobs;   /* [n] */
};

/* Gate and up of a group can be multiplied by one kernel. */
static bool is_paired(const struct ffns *f, const struct moe_expert_group *g)
{
	enum moe_cuda_way way = moe_cuda_way(f->c, &g->w.gate);

	return way != MOE_WAY_F32 && way == moe_cuda_way(f->c, &g->w.up) && g->w.gate.quant == g->w.up.quant;
}

enum part { GATE_AND_UP, GATE, UP, DOWN };

/* The groups whose hidden states come from one kernel, or from two, or all groups. */
static size_t jobs_of(const struct ffns *f, enum part part)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n; i++) {
		const struct moe_expert_group *g = &f->groups[i];
		struct moe_cuda_job *job = &f->jobs[n];

		if (g->pairs == 0 || (part != DOWN && is_paired(f, g) != (part == GATE_AND_UP)))
			continue;
		memset(job, 0, sizeof *job);
		job->w = part == DOWN ? g->w.down : part == UP ? g->w.up : g->w.gate;
		if (part == GATE_AND_UP)
			job->up = g->w.up;
		job->first = g->first;
		job->rows = g->pairs;
		n++;
	}
	return n;
}

static int multiply(const struct ffns *f, enum part part, float *y, struct moe_err *e)
{
	struct moe_cuda_call call = {.c = f->c, .q = f->q, .y = y, .x = f->x, .x_row = f->x_row, .bound = f->bound, .room = MOE_ROOM_X};

	if (part == DOWN) {
		call.x = f->hidden;
		call.x_row = NULL;
		call.weight = f->weight;
		call.bound = f->pairs;
		call.room = MOE_ROOM_HIDDEN;
	}
	return moe_cuda_multiply(&call, f->jobs, jobs_of(f, part), e);
}

/* Hidden states of groups whose gate and up have kernels of their own: neighbours together. */
static int gate_apart(const struct ffns *f, struct moe_err *e)
{
	size_t n = jobs_of(f, GATE), width;
	void *up;
	int rc = 0;

	if (n == 0)
		return 0;
	width = (size_t)f->jobs[0].w.rows;
	rc = moe_cuda_room(f->c, f->q, MOE_ROOM_UP, f->pairs * width * sizeof(float), &up, e);
	rc = rc ? rc : multiply(f, GATE, f->hidden, e);
	rc = rc ? rc : multiply(f, UP, up, e);
	for (size_t i = 0, next; i < n && rc == 0; i = next) {
		size_t first = (size_t)f->jobs[i].first, end = first;

		for (next = i; next < n && (size_t)f->jobs[next].first == end; next++)
			end += (size_t)f->jobs[next].rows;
		rc = moe_cuda_check(f->c, moe_cuda_gate_up(f->hidden + first * width, (const float *)up + first * width,
		                                           (end - first) * width, f->q->s), "hidden states", e);
	}
	return rc;
}

static int check(const struct ffns *f, enum moe_act act, struct moe_err *e)
{
	if (act != MOE_ACT_SILU)
		return moe_fail(e, MOE_E_UNSUPPORTED, "activation %d: not one a GPU has", (int)act);
	for (size_t i = 0; i < f->n; i++) {
		const struct moe_expert_weights *w = &f->groups[i].w;

		if (w->up.rows != w->gate.rows || w->up.cols != w->gate.cols || w->down.cols != w->gate.rows)
			return moe_fail(e, MOE_E_RANGE, "an expert whose gate is [%lld, %lld] and down [%lld, %lld]", (long long)w->gate.rows,
			                (long long)w->gate.cols, (long long)w->down.rows, (long long)w->down.cols);
	}
	return 0;
}

static int run(struct ffns *f, enum moe_act act, struct moe_err *e)
{
	int rc = check(f, act, e);

	for (size_t i = 0; i < f->n; i++)
		if ((size_t)(f->groups[i].first + f->groups[i].pairs) > f->pairs)
			f->pairs = (size_t)(f->groups[i].first + f->groups[i].pairs);
	if (rc || f->n == 0)
		return rc;
	f->jobs = moe_calloc(f->n, sizeof *f->jobs, "products", e);
	if (!f->jobs)
		return MOE_E_NOMEM;
	rc = multiply(f, GATE_AND_UP, f->hidden, e);
	rc = rc ? rc : gate_apart(f, e);
	rc = rc ? rc : multiply(f, DOWN, f->y, e);
	free(f->jobs);
	return rc;
}

int moe_cuda_ffn(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
                 const struct moe_expert_weights *w, enum moe_act act, float *scratch, struct moe_err *e)
{
	struct moe_expert_group one = {*w, 0, rows};
	struct ffns f = {.c = moe_cuda(b), .groups = &one, .n = 1, .x = x, .bound = (size_t)rows, .hidden = scratch, .y = y};
	int rc = moe_cuda_begin(f.c, &q, "an FFN", e);

	f.q = q;
	return rc ? rc : run(&f, act, e);
}

int moe_cuda_experts(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, const struct moe_expert_group *groups,
                     int n_groups, const int32_t *x_row, const float *weight, enum moe_act act, float *scratch, struct moe_err *e)
{
	struct ffns f = {.c = moe_cuda(b), .groups = groups, .n = (size_t)n_groups, .x = x, .hidden = scratch, .y = y};
	struct moe_staged arrays[2] = {{.host = x_row}, {.host = weight}};
	size_t pairs = 0;
	int rc = moe_cuda_begin(f.c, &q, "experts", e);

	for (size_t i = 0; i < f.n; i++)
		for (int p = groups[i].first; p < groups[i].first + groups[i].pairs; p++) {
			pairs = (size_t)p + 1 > pairs ? (size_t)p + 1 : pairs;
			f.bound = (size_t)x_row[p] + 1 > f.bound ? (size_t)x_row[p] + 1 : f.bound;
		}
	arrays[0].bytes = pairs * sizeof *x_row;
	arrays[1].bytes = pairs * sizeof *weight;
	f.q = q;
	rc = rc ? rc : moe_cuda_stage(f.c, q, arrays, 2, e);
	f.x_row = arrays[0].device;
	f.weight = arrays[1].device;
	return rc ? rc : run(&f, act, e);
}
