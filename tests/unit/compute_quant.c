/* Products with coded matrices, on each instruction set this machine has, bit for bit against a plain statement of
 * doc/numerics.md; and the same bits whatever the threads and the company of a row. */
#include <stdio.h>

#include "compute_rig.h"

static const enum moe_quant coded[] = {MOE_Q_Q8, MOE_Q_Q4, MOE_Q_Q3, MOE_Q_Q2};

/* Random codes: any bytes decode.  Scales are moderate and of both signs. */
static struct moe_matrix random_coded(uint64_t seed, enum moe_quant q, int rows, int cols)
{
	struct moe_matrix m = {q, MOE_L_R64, rows, cols, NULL, false};
	size_t bytes = moe_matrix_bytes(&m), block;
	unsigned char *p = malloc(bytes);
	struct moe_quant_shape s;

	assert_non_null(p);
	moe_quant_shape(q, cols, &s);
	block = MOE_TILE_ROWS * s.block_bytes;
	for (size_t i = 0; i < bytes; i++)
		p[i] = (unsigned char)(noise(seed, i) * 4096);
	for (size_t at = block; at <= bytes; at += block)
		for (size_t j = 0; j < MOE_TILE_ROWS; j++) {
			uint16_t d = moe_f32_to_bf16(noise(seed + 1, at + j) / 100);

			memcpy(p + at - 2 * MOE_TILE_ROWS + 2 * j, &d, 2);
		}
	m.data = p;
	return m;
}

static float scale_at(const struct moe_matrix *w, int64_t row, int64_t block)
{
	struct moe_quant_shape s;
	uint16_t d;

	moe_quant_shape(w->quant, w->cols, &s);
	memcpy(&d, (const unsigned char *)w->data + (size_t)(row / MOE_TILE_ROWS) * MOE_TILE_ROWS * s.row_bytes +
	       (size_t)(block + 1) * MOE_TILE_ROWS * s.block_bytes - 2 * MOE_TILE_ROWS + 2 * (row % MOE_TILE_ROWS), 2);
	return moe_bf16_to_f32(d);
}

/* ---- the rules, plainly ---- */

/* Codes of a block of n values; the scale is returned. */
static float plain_quantise(const float *x, int n, int *codes)
{
	float m = 0;
	bool bad = false;

	for (int i = 0; i < n; i++) {
		m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
		bad = bad || !isfinite(x[i]);
		codes[i] = 0;
	}
	if (bad)
		return NAN;
	if (m == 0 || !isfinite(127.0f / m))
		return 0;
	for (int i = 0; i < n; i++)
		codes[i] = (int)nearbyintf(x[i] * (127.0f / m));
	return m / 127.0f;
}

/* y[w.rows] = w x of one row. */
static void plain_product(const struct moe_matrix *w, const float *x, float *y)
{
	int block = moe_quant_block(w->cols), codes[256];
	float *values = malloc((size_t)w->cols * sizeof *values);

	for (int64_t r = 0; r < w->rows; r++) {
		y[r] = 0;
		moe_matrix_row(w, r, values);
		for (int64_t at = 0; at < w->cols; at += block) {
			int n = w->cols - at < block ? (int)(w->cols - at) : block;
			float dx = plain_quantise(x + at, n, codes), dw = scale_at(w, r, at / block);
			int64_t sum = 0;

			for (int i = 0; i < n; i++)
				sum += codes[i] * (int64_t)(values[at + i] / dw);
			y[r] = fmaf((float)sum, dw * dx, y[r]);
		}
	}
	free(values);
}

static void plain_products(const struct moe_matrix *w, const float *x, size_t rows, float *y)
{
	for (size_t i = 0; i < rows; i++)
		plain_product(w, x + i * (size_t)w->cols, y + i * (size_t)w->rows);
}

/* y = weight * expert(x), one row. */
static void plain_expert(const struct moe_expert_weights *w, const float *x, float weight, float *y)
{
	float *gate = malloc((size_t)w->gate.rows * sizeof *gate), *up = malloc((size_t)w->gate.rows * sizeof *up);

	plain_product(&w->gate, x, gate);
	plain_product(&w->up, x, up);
	for (int64_t i = 0; i < w->gate.rows; i++)
		gate[i] = gate[i] / (moe_expf(-gate[i]) + 1.0f) * up[i];
	plain_product(&w->down, gate, y);
	for (int64_t i = 0; i < w->down.rows; i++)
		y[i] *= weight;
	free(gate), free(up);
}

struct product {
	struct moe_matrix w;
	size_t rows;
	float *x, *bias, *want;
};

static void check_product(struct moe_backend *b, const char *what, void *arg)
{
	const struct product *p = arg;
	size_t n = (size_t)p->w.rows;
	struct pile pile = {.b = b};
	struct moe_matrix w = pile_matrix(&pile, &p->w);
	float *y = noises(9, p->rows * n);

	for (size_t rows = 1; rows <= p->rows; rows += rows < 20 ? 1 : 17) {
		size_t from = p->rows - rows;

		matmul_of(b, y, p->x + from * (size_t)w.cols, rows, &w, p->bias);
		for (size_t i = 0; p->bias && i < rows * n; i++)
			assert_true(y[i] == p->want[from * n + i] + p->bias[i % n]);
		if (!p->bias)
			same(y, p->want + from * n, rows * n, what);
	}
	free(y);
	pile_free(&pile);
}

static void try_product(enum moe_quant q, int rows, int cols, size_t m, bool bias)
{
	struct product p = {.w = random_coded((uint64_t)(rows * cols), q, rows, cols), .rows = m};

	p.x = noises(5, m * (size_t)cols);
	p.want = noises(6, m * (size_t)rows);
	p.bias = bias ? noises(7, (size_t)rows) : NULL;
	plain_products(&p.w, p.x, m, p.want);
	each_backend(NULL, check_product, &p);
	free((void *)(uintptr_t)p.w.data), free(p.x), free(p.want), free(p.bias);
}

static void products_follow_the_rule(void **state)
{
	static const int shapes[][2] = {{1, 31}, {63, 1}, {65, 256}, {130, 384}, {64, 640}, {200, 128}};

	(void)state;
	for (size_t q = 0; q < COUNT(coded); q++)
		for (size_t s = 0; s < COUNT(shapes); s++)
			try_product(coded[q], shapes[s][0], shapes[s][1], s == 2 ? 71 : 15, s % 2);
	try_product(MOE_Q_Q4, 130, 512, 260, false);
}

/* Zeros, numbers too small for a scale, NaN and infinity, each in one block only. */
static void strange_inputs_follow_the_rule(void **state)
{
	static const float strange[] = {NAN, -INFINITY, INFINITY, 0, -0.0f, 1e-40f, 3e-38f, 3e38f, 1e-36f};
	enum { cols = 640, rows = 70 };

	(void)state;
	for (size_t q = 0; q < COUNT(coded); q++) {
		struct product p = {.w = random_coded(q, coded[q], rows, cols), .rows = COUNT(strange)};

		p.x = noises(5, p.rows * cols);
		p.want = noises(6, p.rows * rows);
		for (size_t i = 0; i < p.rows; i++)
			for (size_t j = 128; j < 256; j++)
				p.x[i * cols + j] = j == 200 || fabsf(strange[i]) < 1 ? strange[i] : p.x[i * cols + j];
		plain_products(&p.w, p.x, p.rows, p.want);
		assert_true(isnan(p.want[0]) && isnan(p.want[rows]) && !isnan(p.want[3 * rows]));
		each_backend(NULL, check_product, &p);
		free((void *)(uintptr_t)p.w.data), free(p.x), free(p.want);
	}
}

/* ---- experts ---- */

#define GROUPS 5
static const int group_pairs[GROUPS] = {1, 7, 130, 3, 20};
#define PAIRS 161
#define INPUTS 40

struct experts {
	struct moe_expert_group g[GROUPS];
	int32_t x_row[PAIRS];
	float *x, *weight, *want;
	int hidden, width;
};

static void check_experts(struct moe_backend *b, const char *what, void *arg)
{
	const struct experts *s = arg;
	size_t hidden = (size_t)s->hidden;
	float *y = noises(1, PAIRS * hidden);
	struct moe_expert_group own[GROUPS];
	struct pile p = {.b = b};

	for (int i = 0; i < GROUPS; i++)
		own[i] = (struct moe_expert_group){pile_expert(&p, &s->g[i].w), s->g[i].first, s->g[i].pairs};
	experts_of(b, y, s->x, INPUTS, own, GROUPS, s->x_row, s->weight);
	same(y, s->want, PAIRS * hidden, what);
	for (int i = 0; i < GROUPS; i++) {
		const struct moe_expert_group *g = &s->g[i];
		const float *x = s->x + (size_t)s->x_row[g->first] * hidden, *want = s->want + (size_t)g->first * hidden;

		ffn_of(b, y, x, 1, &own[i].w);
		for (size_t j = 0; j < hidden; j++)
			y[j] *= s->weight[g->first];
		same(y, want, hidden, what);
	}
	free(y);
	pile_free(&p);
}

/* Quants of group i's gate, up and down: `quants` in turn. */
static void experts_open(struct experts *s, int hidden, int width, const enum moe_quant *quants, int n)
{
	*s = (struct experts){.hidden = hidden, .width = width, .x = noises(1, (size_t)(INPUTS * hidden))};
	s->weight = noises(2, PAIRS);
	s->want = noises(3, (size_t)(PAIRS * hidden));
	for (int i = 0, at = 0; i < GROUPS; at += group_pairs[i++]) {
		struct moe_expert_weights w;

		w.gate = random_coded((uint64_t)i, quants[i % n], width, hidden);
		w.up = random_coded((uint64_t)i + 50, quants[(i + 1) % n], width, hidden);
		w.down = random_coded((uint64_t)i + 90, quants[(i + 2) % n], hidden, width);
		s->g[i] = (struct moe_expert_group){w, at, group_pairs[i]};
	}
	for (int i = 0; i < PAIRS; i++)
		s->x_row[i] = i * 7 % INPUTS;
}

static void experts_close(struct experts *s)
{
	for (int i = 0; i < GROUPS; i++) {
		free((void *)(uintptr_t)s->g[i].w.gate.data);
		free((void *)(uintptr_t)s->g[i].w.up.data);
		free((void *)(uintptr_t)s->g[i].w.down.data);
	}
	free(s->x), free(s->weight), free(s->want);
}

static void experts_follow_the_rule(void **state)
{
	static const int shapes[][2] = {{256, 512}, {130, 384}, {96, 70}};

	(void)state;
	for (size_t i = 0; i < COUNT(shapes); i++) {
		struct experts s;

		experts_open(&s, shapes[i][0], shapes[i][1], coded, COUNT(coded));
		for (int j = 0; j < GROUPS; j++)
			for (int p = s.g[j].first; p < s.g[j].first + s.g[j].pairs; p++)
				plain_expert(&s.g[j].w, s.x + s.x_row[p] * s.hidden, s.weight[p], s.want + p * s.hidden);
		each_backend(NULL, check_experts, &s);
		experts_close(&s);
	}
}

/* ---- coded and plain matrices, and f32 activations: an f32 copy of a coded matrix says what must come out ---- */

static struct moe_matrix f32_copy(const struct moe_matrix *w)
{
	float *v = malloc((size_t)(w->rows * w->cols) * sizeof *v);

	assert_non_null(v);
	for (int64_t i = 0; i < w->rows; i++)
		moe_matrix_row(w, i, v + i * w->cols);
	return (struct moe_matrix){MOE_Q_F32, MOE_L_PLAIN, w->rows, w->cols, v, false};
}

static const struct moe_numerics exact = MOE_NUMERICS_EXACT;

static void check_exact(struct moe_backend *b, const char *what, void *arg)
{
	const struct product *p = arg;
	size_t n = p->rows * (size_t)p->w.rows;
	struct moe_matrix copy = f32_copy(&p->w);
	struct pile pile = {.b = b};
	struct moe_matrix w = pile_matrix(&pile, &p->w), dcopy = pile_matrix(&pile, &copy);
	float *y = noises(1, n), *want = noises(2, n);

	matmul_of(b, y, p->x, p->rows, &w, p->bias);
	matmul_of(b, want, p->x, p->rows, &dcopy, p->bias);
	same(y, want, n, what);
	pile_free(&pile);
	free((void *)(uintptr_t)copy.data), free(y), free(want);
}

static void exact_products_are_those_of_f32_weights(void **state)
{
	static const int shapes[][3] = {{1, 31, 1}, {63, 1, 3}, {65, 256, 14}, {130, 384, 110}};

	(void)state;
	for (size_t i = 0; i < COUNT(coded) * COUNT(shapes); i++) {
		const int *s = shapes[i % COUNT(shapes)];
		struct product p = {.w = random_coded(i, coded[i / COUNT(shapes)], s[0], s[1]), .rows = (size_t)s[2]};

		p.x = noises(5, (size_t)(s[1] * s[2]));
		p.bias = noises(6, (size_t)s[0]);
		each_backend(&exact, check_exact, &p);
		free((void *)(uintptr_t)p.w.data), free(p.x), free(p.bias);
	}
}

static void use_copy(struct moe_matrix *w)
{
	struct moe_matrix copy = f32_copy(w);

	free((void *)(uintptr_t)w->data);
	*w = copy;
}

static void exact_experts_are_those_of_f32_weights(void **state)
{
	struct experts s, copies;
	float *scratch = noises(1, PAIRS * 384);
	struct moe_err e = MOE_ERR_INIT;
	struct rig r;

	(void)state;
	experts_open(&s, 130, 384, coded, COUNT(coded));
	experts_open(&copies, 130, 384, coded, COUNT(coded));
	for (int i = 0; i < GROUPS; i++) {
		use_copy(&copies.g[i].w.gate);
		use_copy(&copies.g[i].w.up);
		use_copy(&copies.g[i].w.down);
	}
	assert_true(rig_open_plain(&r, "base", 2, NULL));
	assert_int_equal(r.b->ops->experts(r.b, NULL, s.want, s.x, copies.g, GROUPS, s.x_row, s.weight, MOE_ACT_SILU, scratch,
	                                   &e), 0);
	rig_close(&r);
	each_backend(&exact, check_experts, &s);
	experts_close(&s);
	experts_close(&copies);
	free(scratch);
}

/* Any of gate, up and down of any expert may be plain: with codes that lose nothing it does not show. */
static void coded_and_plain_matrices_mix(void **state)
{
	enum { hidden = 96, width = 160 };

	(void)state;
	for (int mask = 0; mask < 8; mask++) {
		struct experts s;
		struct moe_err e = MOE_ERR_INIT;
		float *scratch = noises(1, PAIRS * width);
		struct rig r;

		experts_open(&s, hidden, width, coded, COUNT(coded));
		for (int i = 0; i < GROUPS; i++) {
			if ((mask + i) & 1)
				use_copy(&s.g[i].w.gate);
			if ((mask + i) & 2)
				use_copy(&s.g[i].w.up);
			if ((mask + i) & 4)
				use_copy(&s.g[i].w.down);
		}
		assert_true(rig_open_plain(&r, "base", 1, NULL));
		for (int p = 0, j = 0; p < PAIRS; p++) {
			float gate[width], up[width];
			const float *x = s.x + s.x_row[p] * hidden;

			j += p == s.g[j].first + s.g[j].pairs;
			assert_int_equal(r.b->ops->matmul(r.b, NULL, gate, x, 1, &s.g[j].w.gate, NULL, &e), 0);
			assert_int_equal(r.b->ops->matmul(r.b, NULL, up, x, 1, &s.g[j].w.up, NULL, &e), 0);
			for (int i = 0; i < width; i++)
				gate[i] = gate[i] / (moe_expf(-gate[i]) + 1.0f) * up[i];
			assert_int_equal(r.b->ops->matmul(r.b, NULL, s.want + p * hidden, gate, 1, &s.g[j].w.down, NULL, &e), 0);
			for (int i = 0; i < hidden; i++)
				s.want[p * hidden + i] *= s.weight[p];
		}
		rig_close(&r);
		each_backend(NULL, check_experts, &s);
		experts_close(&s);
		free(scratch);
	}
}

/* ---- the rest ---- */

static void check_embed(struct moe_backend *b, const char *what, void *arg)
{
	static const int32_t ids[] = {64, 0, 3, 64, 66};
	struct moe_matrix *w = arg;
	float y[COUNT(ids) * 300], row[300];
	struct pile p = {.b = b};
	struct moe_matrix own = pile_matrix(&p, w);

	embed_of(b, y, ids, COUNT(ids), &own);
	pile_free(&p);
	for (size_t i = 0; i < COUNT(ids); i++) {
		moe_matrix_row(w, ids[i], row);
		same(y + i * 300, row, 300, what);
	}
}

static void rows_of_a_coded_matrix(void **state)
{
	(void)state;
	for (size_t q = 0; q < COUNT(coded); q++) {
		struct moe_matrix w = random_coded(q, coded[q], 67, 300);

		each_backend(NULL, check_embed, &w);
		free((void *)(uintptr_t)w.data);
	}
}

static void other_layouts_are_refused(void **state)
{
	struct moe_matrix host = random_coded(1, MOE_Q_Q4, 64, 256), w;
	struct moe_expert_weights ffn;
	struct moe_err e = MOE_ERR_INIT;
	struct pile p;
	struct rig r;
	float *x, *y, *scratch;

	(void)state;
	assert_true(rig_open(&r, "base", 1));
	p = (struct pile){.b = r.b};
	w = pile_matrix(&p, &host);
	ffn = (struct moe_expert_weights){w, w, w};
	w.layout = MOE_L_PLAIN;
	ffn.up.layout = MOE_L_PLAIN;
	x = pile_new(&p, 256 * sizeof *x);
	y = pile_new(&p, 256 * sizeof *y);
	scratch = pile_new(&p, 256 * sizeof *scratch);
	assert_int_equal(r.b->ops->matmul(r.b, NULL, y, x, 1, &w, NULL, &e), MOE_E_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "q4"));
	assert_non_null(strstr(e.msg, "plain"));
	assert_int_equal(r.b->ops->ffn(r.b, NULL, y, x, 1, &ffn, MOE_ACT_SILU, scratch, &e), MOE_E_UNSUPPORTED);
	pile_free(&p);
	rig_close(&r);
	free((void *)(uintptr_t)host.data);
}

static void no_rows_are_fine(struct moe_backend *b, const char *what, void *arg)
{
	struct pile p = {.b = b};
	struct moe_matrix w = pile_matrix(&p, arg);
	struct moe_expert_weights ffn = {w, w, w};
	struct moe_expert_group g = {ffn, 0, 0};
	struct moe_err e = MOE_ERR_INIT;
	float y[1] = {0};

	(void)what;
	assert_int_equal(b->ops->matmul(b, NULL, y, y, 0, &w, NULL, &e), 0);
	assert_int_equal(b->ops->ffn(b, NULL, y, y, 0, &ffn, MOE_ACT_SILU, y, &e), 0);
	assert_int_equal(b->ops->experts(b, NULL, y, y, &g, 1, (const int32_t *)y, y, MOE_ACT_SILU, y, &e), 0);
	pile_free(&p);
}

static void nothing_to_do_is_fine(void **state)
{
	struct moe_matrix w = random_coded(1, MOE_Q_Q3, 256, 256);

	(void)state;
	each_backend(NULL, no_rows_are_fine, &w);
	each_backend(&exact, no_rows_are_fine, &w);
	free((void *)(uintptr_t)w.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(products_follow_the_rule),
		cmocka_unit_test(strange_inputs_follow_the_rule),
		cmocka_unit_test(experts_follow_the_rule),
		cmocka_unit_test(exact_products_are_those_of_f32_weights),
		cmocka_unit_test(exact_experts_are_those_of_f32_weights),
		cmocka_unit_test(coded_and_plain_matrices_mix),
		cmocka_unit_test(rows_of_a_coded_matrix),
		cmocka_unit_test(other_layouts_are_refused),
		cmocka_unit_test(nothing_to_do_is_fine),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("compute_quant", tests, NULL, NULL);
}
