/* Test vectors for a backend: every operation against a plain sum in double.  Each function takes the backend and
 * goes through its memory only by the backend's own functions, so that any backend can be put to them. */
#ifndef COMPUTE_VECTORS_H
#define COMPUTE_VECTORS_H

#include "compute_attention.h"

#define ULPS 2e-6               /* of the sum of the terms' magnitudes: room for any order of summing */

/* ---- products ---- */

struct matmul_case {
	int rows, n, k;
	enum moe_quant quant;
	bool bias;
	size_t offset;
};
static const struct matmul_case matmul_cases[] = {
	{1, 1, 1, MOE_Q_F32, false, 0},     {1, 64, 512, MOE_Q_F32, true, 0},    {1, 67, 300, MOE_Q_BF16, false, 8},
	{2, 33, 17, MOE_Q_F16, true, 2},    {3, 5, 256, MOE_Q_BF16, false, 0},   {4, 129, 257, MOE_Q_F32, false, 1},
	{5, 40, 96, MOE_Q_F16, false, 1},   {6, 31, 640, MOE_Q_BF16, true, 1},   {7, 66, 130, MOE_Q_F32, true, 0},
	{13, 35, 515, MOE_Q_BF16, false, 3}, {40, 70, 272, MOE_Q_F16, true, 8},  {97, 64, 64, MOE_Q_F32, false, 0},
	{200, 37, 33, MOE_Q_BF16, true, 0}, {12, 8, 15, MOE_Q_BF16, false, 0},
};

static inline void vector_matmul_case(struct moe_backend *b, const struct matmul_case *c)
{
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	size_t k = (size_t)c->k, n = (size_t)c->n, rows = (size_t)c->rows;
	float *w, *x = noises(1, rows * k), *bias = noises(2, n), *y = noises(3, rows * n);
	struct moe_matrix m = noise_matrix(&p, 4, c->quant, c->n, c->k, c->offset, &w);
	float *dy = pile_copy(&p, y, rows * n * sizeof *y);

	assert_int_equal(b->ops->matmul(b, NULL, dy, pile_copy(&p, x, rows * k * sizeof *x), c->rows, &m,
	                                c->bias ? pile_copy(&p, bias, n * sizeof *bias) : NULL, &e), 0);
	pile_read(&p, y, dy, rows * n * sizeof *y);
	for (size_t i = 0; i < rows * n; i++) {
		double sum = c->bias ? bias[i % n] : 0, size = fabs(sum);

		for (size_t j = 0; j < k; j++) {
			sum += (double)x[i / n * k + j] * w[i % n * k + j];
			size += fabs((double)x[i / n * k + j] * w[i % n * k + j]);
		}
		near(y[i], sum, ULPS * size, "matmul", i);
	}
	free(w), free(x), free(bias), free(y);
	pile_free(&p);
}

static inline void vector_matmul(struct moe_backend *b)
{
	for (size_t i = 0; i < COUNT(matmul_cases); i++)
		vector_matmul_case(b, &matmul_cases[i]);
}

static inline void vector_embed(struct moe_backend *b)
{
	static const int32_t ids[] = {4, 0, 4, 10};
	static const enum moe_quant quants[] = {MOE_Q_F32, MOE_Q_F16, MOE_Q_BF16};
	struct moe_err e = MOE_ERR_INIT;

	for (size_t q = 0; q < COUNT(quants); q++) {
		struct pile p = {.b = b};
		float *w, y[COUNT(ids) * 37];
		struct moe_matrix m = noise_matrix(&p, 5, quants[q], 11, 37, 1, &w);
		float *dy = pile_new(&p, sizeof y);

		assert_int_equal(b->ops->embed(b, NULL, dy, ids, COUNT(ids), &m, &e), 0);
		pile_read(&p, y, dy, sizeof y);
		for (size_t i = 0; i < COUNT(ids); i++)
			assert_memory_equal(y + i * 37, w + (size_t)ids[i] * 37, 37 * sizeof *y);
		free(w);
		pile_free(&p);
	}
}

/* ---- element by element ---- */

static inline void vector_rmsnorm(struct moe_backend *b)
{
	static const int sizes[] = {1, 16, 100, 256, 1023};
	struct moe_err e = MOE_ERR_INIT;

	for (size_t s = 0; s < 2 * COUNT(sizes); s++) {
		struct pile p = {.b = b};
		size_t n = (size_t)sizes[s / 2], rows = 9;
		float *x = noises(6, rows * n), *w = noises(7, n), *y = noises(8, rows * n);
		float *dx = pile_copy(&p, x, rows * n * sizeof *x);
		float *dy = s % 2 ? dx : pile_copy(&p, y, rows * n * sizeof *y); /* in place too */

		assert_int_equal(b->ops->rmsnorm(b, NULL, dy, dx, (int)rows, (int)n, pile_copy(&p, w, n * sizeof *w), 1e-5f, &e), 0);
		pile_read(&p, y, dy, rows * n * sizeof *y);
		for (size_t i = 0; i < rows * n; i++) {
			double square = 0, want;

			for (size_t j = 0; j < n; j++)
				square += pow(x[i / n * n + j], 2);
			want = x[i] / sqrt(square / (double)n + 1e-5f) * w[i % n];
			near(y[i], want, 1e-6 * fabs(want), "rmsnorm", i);
		}
		free(x), free(w), free(y);
		pile_free(&p);
	}
}

/* Hugging Face's inverse frequencies and angles are f32 whatever the model's type. */
static inline double rope_angle(const struct moe_rope *r, int pos, size_t i)
{
	float f = (float)(1.0f / (float)pow(r->theta, (float)(2 * (int)i) / (float)r->dims)) / (float)r->factor;

	return (float)pos * f;
}

static inline void vector_rope(struct moe_backend *b)
{
	static const struct moe_rope ropes[] = {{10000, 64, 1}, {1e6, 32, 1}, {1e6, 64, 4}, {5e5, 10, 1}};
	static const int32_t positions[] = {0, 1, 2, 17, 4095, 131071, 2};
	const size_t rows = COUNT(positions), heads = 3, dim = 64;
	struct moe_err e = MOE_ERR_INIT;

	for (size_t s = 0; s < COUNT(ropes); s++) {
		struct pile p = {.b = b};
		const struct moe_rope *r = &ropes[s];
		size_t half = (size_t)r->dims / 2;
		float *x = noises(9, rows * heads * dim), *y = noises(9, rows * heads * dim);
		float *dx = pile_copy(&p, x, rows * heads * dim * sizeof *x);

		assert_int_equal(b->ops->rope(b, NULL, dx, positions, (int)rows, (int)heads, (int)dim, r, &e), 0);
		pile_read(&p, y, dx, rows * heads * dim * sizeof *y);
		for (size_t i = 0; i < rows * heads * dim; i++) {
			size_t d = i % dim;
			double a = rope_angle(r, positions[i / (heads * dim)], d % half), want = x[i];

			if (d < half)
				want = x[i] * cos(a) - x[i + half] * sin(a);
			else if (d < 2 * half)
				want = x[i] * cos(a) + x[i - half] * sin(a);
			near(y[i], want, 1e-6, "rope", i);
		}
		free(x), free(y);
		pile_free(&p);
	}
}

static inline void vector_flat(struct moe_backend *b)
{
	const size_t rows = 5, n = 7001;
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	float *x = noises(10, rows * n), *y = noises(11, rows * n), *z = noises(12, rows * n), s[] = {0, -3, 2, 100, -200};
	float *dx = pile_copy(&p, x, rows * n * sizeof *x), *dy = pile_copy(&p, y, rows * n * sizeof *y);

	assert_int_equal(b->ops->add(b, NULL, dx, dy, rows * n, &e), 0);
	pile_read(&p, z, dx, rows * n * sizeof *z);
	for (size_t i = 0; i < rows * n; i++)
		assert_true(z[i] == x[i] + y[i]);
	assert_int_equal(b->ops->clamp(b, NULL, dx, rows * n, 0.5f, &e), 0);
	pile_read(&p, z, dx, rows * n * sizeof *z);
	for (size_t i = 0; i < rows * n; i++)
		assert_true(z[i] == fminf(fmaxf(x[i] + y[i], -0.5f), 0.5f));
	assert_int_equal(b->ops->sigmoid_scale(b, NULL, dy, pile_copy(&p, s, sizeof s), (int)rows, (int)n, &e), 0);
	pile_read(&p, z, dy, rows * n * sizeof *z);
	for (size_t i = 0; i < rows * n; i++)
		near(z[i], y[i] / (1 + exp(-(double)s[i / n])), 1e-6 * fabs(y[i]), "sigmoid_scale", i);
	free(x), free(y), free(z);
	pile_free(&p);
}

/* ---- the gate ---- */

static inline void gate_run(struct moe_backend *b, const float *logits, int rows, int experts, const struct moe_gate *g,
                            int32_t *ids, float *weights)
{
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	size_t n = (size_t)rows * (size_t)g->top_k;
	int32_t *dids = pile_new(&p, n * sizeof *ids);
	float *dw = pile_new(&p, n * sizeof *weights);

	assert_int_equal(b->ops->gate(b, NULL, pile_copy(&p, logits, (size_t)rows * (size_t)experts * sizeof *logits), rows,
	                              experts, g, dids, dw, &e), 0);
	pile_read(&p, ids, dids, n * sizeof *ids);
	pile_read(&p, weights, dw, n * sizeof *weights);
	pile_free(&p);
}

static inline void gate_check(const float *logits, int experts, const struct moe_gate *g, const int32_t *ids,
                              const float *weights)
{
	double sum = 0, chosen = 0, max = -INFINITY;

	for (int i = 0; i < experts; i++)
		max = logits[i] > max ? logits[i] : max;
	for (int i = 0; i < experts; i++)
		sum += exp(logits[i] - max);
	for (int j = 0; j < g->top_k; j++) {
		assert_in_range(ids[j], j ? ids[j - 1] + 1 : 0, experts - 1);
		chosen += exp(logits[ids[j]] - max);
	}
	for (int j = 0, id = 0; j < g->top_k; id = ids[j++] + 1)
		for (; id < ids[j]; id++) /* none of the others is higher, or as high with a lower id */
			for (int i = 0; i < g->top_k; i++)
				assert_true(logits[id] < logits[ids[i]] || (logits[id] == logits[ids[i]] && id > ids[i]));
	for (int j = 0; j < g->top_k; j++) {
		double want = exp(logits[ids[j]] - max) / (g->renorm ? chosen : sum) * g->factor;

		near(weights[j], want, 1e-6 * want, "gate", (size_t)j);
	}
}

static inline void vector_gate(struct moe_backend *b)
{
	static const struct {
		int rows, experts;
		struct moe_gate g;
	} cases[] = {
		{7, 8, {MOE_SCORE_SOFTMAX, 2, true, 1}},  {3, 64, {MOE_SCORE_SOFTMAX, 8, false, 1}},
		{5, 5, {MOE_SCORE_SOFTMAX, 5, true, 1}},  {1, 300, {MOE_SCORE_SOFTMAX, 8, true, 2.5f}},
		{4, 1, {MOE_SCORE_SOFTMAX, 1, false, 1}},
	};
	static const float ties[] = {1, 3, 3, 0, 3, 3, 2, 3};
	struct moe_gate two = {MOE_SCORE_SOFTMAX, 2, true, 1};
	int32_t ids[64];
	float w[64];

	for (size_t i = 0; i < COUNT(cases); i++) {
		float *logits = noises(50 + i, (size_t)(cases[i].rows * cases[i].experts));

		for (int j = 0; j < cases[i].rows * cases[i].experts; j++)
			logits[j] *= 6;
		gate_run(b, logits, cases[i].rows, cases[i].experts, &cases[i].g, ids, w);
		for (int j = 0; j < cases[i].rows; j++)
			gate_check(logits + j * cases[i].experts, cases[i].experts, &cases[i].g, ids + j * cases[i].g.top_k,
			           w + j * cases[i].g.top_k);
		free(logits);
	}
	gate_run(b, ties, 1, COUNT(ties), &two, ids, w);
	assert_int_equal(ids[0], 1);
	assert_int_equal(ids[1], 2);
	assert_true(w[0] == 0.5f && w[1] == 0.5f);
}

/* ---- experts ---- */

/* The plain way; *size: magnitude of the terms, to measure errors by. */
static inline double expert_plainly(float *const w[3], size_t width, size_t hidden, const float *x, size_t out, double *size)
{
	double y = 0;

	*size = 0;
	for (size_t i = 0; i < width; i++) {
		double g = 0, u = 0, h;

		for (size_t j = 0; j < hidden; j++) {
			g += (double)w[0][i * hidden + j] * x[j];
			u += (double)w[1][i * hidden + j] * x[j];
		}
		h = g / (1 + exp(-g)) * u * w[2][out * width + i];
		y += h;
		*size += fabs(h) + 1;
	}
	return y;
}

static inline void vector_ffn(struct moe_backend *b)
{
	static const struct {
		int rows, width, hidden;
		enum moe_quant quant;
	} cases[] = {{1, 30, 64, MOE_Q_BF16}, {9, 65, 50, MOE_Q_F32}, {100, 40, 33, MOE_Q_F16}};
	struct moe_err e = MOE_ERR_INIT;

	for (size_t c = 0; c < COUNT(cases); c++) {
		struct pile p = {.b = b};
		size_t rows = (size_t)cases[c].rows, width = (size_t)cases[c].width, hidden = (size_t)cases[c].hidden;
		float *v[3], *x = noises(60, rows * hidden), *y = noises(61, rows * hidden);
		struct moe_expert_weights w = noise_expert(&p, 62, cases[c].quant, (int)width, (int)hidden, v);
		float *dy = pile_new(&p, rows * hidden * sizeof *y);

		assert_int_equal(b->ops->ffn(b, NULL, dy, pile_copy(&p, x, rows * hidden * sizeof *x), (int)rows, &w, MOE_ACT_SILU,
		                             pile_new(&p, rows * width * sizeof *y), &e), 0);
		pile_read(&p, y, dy, rows * hidden * sizeof *y);
		for (size_t i = 0; i < rows * hidden; i++) {
			double size, want = expert_plainly(v, width, hidden, x + i / hidden * hidden, i % hidden, &size);

			near(y[i], want, ULPS * size, "ffn", i);
		}
		free(v[0]), free(v[1]), free(v[2]), free(x), free(y);
		pile_free(&p);
	}
}

/* Five experts: of none, one, seven, one and thirty pairs; rows of x in any order, some more than once. */
#define GROUPS 5
static const int group_pairs[GROUPS] = {0, 1, 7, 1, 30};
#define PAIRS 39

static inline void vector_experts(struct moe_backend *b)
{
	const size_t width = 45, hidden = 35, rows = 20;
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_expert_group g[GROUPS];
	float *v[GROUPS][3], *x = noises(70, rows * hidden), *weight = noises(71, PAIRS), *y = noises(72, PAIRS * hidden), *dy;
	int32_t x_row[PAIRS];

	for (int i = 0, at = 0; i < GROUPS; at += group_pairs[i++]) {
		g[i] = (struct moe_expert_group){noise_expert(&p, 73 + (uint64_t)i * 3, MOE_Q_BF16, (int)width, (int)hidden, v[i]),
		                                 at, group_pairs[i]};
	}
	for (int i = 0; i < PAIRS; i++)
		x_row[i] = i * 7 % (int)rows;
	dy = pile_copy(&p, y, PAIRS * hidden * sizeof *y);
	assert_int_equal(b->ops->experts(b, NULL, dy, pile_copy(&p, x, rows * hidden * sizeof *x), g, GROUPS, x_row, weight,
	                                 MOE_ACT_SILU, pile_new(&p, PAIRS * width * sizeof *y), &e), 0);
	pile_read(&p, y, dy, PAIRS * hidden * sizeof *y);
	for (int i = 0; i < GROUPS; i++) {
		for (size_t j = (size_t)g[i].first * hidden; j < (size_t)(g[i].first + g[i].pairs) * hidden; j++) {
			size_t pair = j / hidden;
			double size, want = expert_plainly(v[i], width, hidden, x + (size_t)x_row[pair] * hidden, j % hidden, &size);

			near(y[j], weight[pair] * want, ULPS * size, "experts", j);
		}
		free(v[i][0]), free(v[i][1]), free(v[i][2]);
	}
	free(x), free(weight), free(y);
	pile_free(&p);
}

static inline void vector_combine(struct moe_backend *b)
{
	enum { rows = 40, k = 3, n = 19, parts = 50 };
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	float *v = noises(80, parts * n), y[rows * n], *dy = pile_new(&p, sizeof y);
	int32_t slot[rows * k];

	for (int i = 0; i < rows * k; i++)
		slot[i] = i * 17 % parts;
	assert_int_equal(b->ops->combine(b, NULL, dy, pile_copy(&p, v, parts * n * sizeof *v), slot, rows, k, n, &e), 0);
	pile_read(&p, y, dy, sizeof y);
	for (int i = 0; i < rows * n; i++) {
		const int32_t *s = slot + i / n * k;

		assert_true(y[i] == v[s[0] * n + i % n] + v[s[1] * n + i % n] + v[s[2] * n + i % n]);
	}
	free(v);
	pile_free(&p);
}

static const struct {
	const char *name;
	void (*run)(struct moe_backend *b);
} vectors[] = {
	{"matmul", vector_matmul},   {"embed", vector_embed}, {"rmsnorm", vector_rmsnorm}, {"rope", vector_rope},
	{"add, clamp, sigmoid_scale", vector_flat}, {"attention", vector_attention}, {"gate", vector_gate},
	{"ffn", vector_ffn},         {"experts", vector_experts}, {"combine", vector_combine},
};

#endif
