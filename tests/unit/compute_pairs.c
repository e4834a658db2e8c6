/* Products of bf16 with bf16, on each instruction set this machine has, bit for bit against a plain statement of
 * doc/numerics.md, and beside the products of f32. */
#include "compute_rig.h"

static const struct moe_numerics rounded = {.activation = MOE_A_BF16};

#define LEAST 0x1p-56f

/* ---- the rule, plainly ---- */

static float factor(uint16_t bits)
{
	float f = moe_bf16_to_f32(bits);

	return fabsf(f) < LEAST ? 0 : f;
}

/* 16 lanes as a tree. */
static float lanes_sum(const float *lane)
{
	float sum[16];

	memcpy(sum, lane, sizeof sum);
	for (int n = 8; n; n /= 2)
		for (int l = 0; l < n; l++)
			sum[l] += sum[l + n];
	return sum[0];
}

static float plain_dot(const uint16_t *w, const float *x, size_t n)
{
	float total = 0;

	for (size_t at = 0; at < n; at += 256) {
		float lane[16] = {0};

		for (size_t i = at; i < n && i < at + 256; i += 2) {
			float *sum = &lane[i / 2 % 16];

			if (i + 1 < n)
				*sum = fmaf(factor(w[i + 1]), factor(moe_f32_to_bf16(x[i + 1])), *sum);
			*sum = fmaf(factor(w[i]), factor(moe_f32_to_bf16(x[i])), *sum);
		}
		total += lanes_sum(lane);
	}
	return total;
}

struct product {
	struct moe_matrix w;
	size_t rows;
	float *x, *want;
};

static void plain_products(struct product *p)
{
	size_t n = (size_t)p->w.rows, k = (size_t)p->w.cols;

	for (size_t i = 0; i < p->rows * n; i++)
		p->want[i] = plain_dot((const uint16_t *)p->w.data + i % n * k, p->x + i / n * k, k);
}

/* ---- products ---- */

/* Rows alone, together and far apart, some of them chosen by number. */
static void check_product(struct moe_backend *b, const char *what, void *arg)
{
	const struct product *p = arg;
	size_t n = (size_t)p->w.rows, k = (size_t)p->w.cols;
	struct pile pile = {.b = b};
	struct moe_matrix w = pile_matrix(&pile, &p->w);
	float *y = noises(9, p->rows * n);

	for (size_t rows = 1; rows <= p->rows; rows += rows < 15 ? 1 : 29) {
		size_t from = p->rows - rows;

		matmul_of(b, y, p->x + from * k, rows, &w, NULL);
		same(y, p->want + from * n, rows * n, what);
	}
	free(y);
	pile_free(&pile);
}

static struct moe_matrix bf16_matrix(uint64_t seed, int rows, int cols, float size)
{
	uint16_t *v = malloc((size_t)(rows * cols) * sizeof *v);

	assert_non_null(v);
	for (int i = 0; i < rows * cols; i++)
		v[i] = moe_f32_to_bf16(size * noise(seed, (uint64_t)i));
	return (struct moe_matrix){MOE_Q_BF16, MOE_L_PLAIN, rows, cols, v, false};
}

static struct product product_new(int n, int k, size_t rows)
{
	struct product p = {bf16_matrix((uint64_t)(n * k), n, k, 1), rows, noises(5, rows * (size_t)k), noises(6, rows * (size_t)n)};

	return p;
}

static void product_free(struct product *p)
{
	free((void *)(uintptr_t)p->w.data), free(p->x), free(p->want);
}

static void products_follow_the_rule(void **state)
{
	static const int shapes[][3] = {{1, 1, 3}, {7, 31, 14}, {33, 32, 14}, {40, 33, 14}, {5, 255, 14}, {66, 257, 100},
	                                {35, 600, 130}, {130, 512, 14}};

	(void)state;
	for (size_t i = 0; i < COUNT(shapes); i++) {
		struct product p = product_new(shapes[i][0], shapes[i][1], (size_t)shapes[i][2]);

		plain_products(&p);
		each_backend(&rounded, check_product, &p);
		product_free(&p);
	}
}

/* Weights and inputs of every size, most of them near what still counts, so that sums pass by the least normal number. */
static float any_size(uint64_t seed, uint64_t i, int from, int to)
{
	return ldexpf(noise(seed, i) < 0 ? -1 - noise(seed + 1, i) / 3 : 1.5f + noise(seed + 1, i) / 3,
	              from + (int)((noise(seed + 2, i) + 1) / 2 * (float)(to - from)));
}

static void numbers_of_any_size(void **state)
{
	static const int ranges[][2] = {{-140, 127}, {-58, -50}, {-57, -55}, {-130, -120}, {60, 66}};

	(void)state;
	for (size_t r = 0; r < COUNT(ranges); r++) {
		struct product p = product_new(37, 300, 40);
		uint16_t *w = (uint16_t *)(uintptr_t)p.w.data;

		for (size_t i = 0; i < 37 * 300; i++)
			w[i] = moe_f32_to_bf16(any_size(r, i, ranges[r][0], ranges[r][1]));
		for (size_t i = 0; i < 40 * 300; i++)
			p.x[i] = any_size(r + 50, i, ranges[r][0], ranges[r][1]);
		plain_products(&p);
		each_backend(&rounded, check_product, &p);
		product_free(&p);
	}
}

static void strange_numbers(void **state)
{
	static const float strange[] = {NAN, INFINITY, -INFINITY, 0, -0.0f, 1e-45f, -0x1p-126f, LEAST, -0x1.fcp-57f, 0x1.fffp-57f,
	                                3.4e38f, 0x1.01p0f, 0x1.03p0f};
	struct product p = product_new(3, 70, COUNT(strange));

	(void)state;
	for (size_t i = 0; i < p.rows; i++)
		p.x[i * 70 + 2 * i + i % 2] = p.x[i * 70 + 69] = strange[i];
	((uint16_t *)(uintptr_t)p.w.data)[70 + 69] = 0x7f80;
	plain_products(&p);
	assert_true(isnan(p.want[0]) && !isfinite(p.want[3]) && isnan(p.want[10]) && isfinite(p.want[9]));
	each_backend(&rounded, check_product, &p);
	product_free(&p);
}

/* Rounding loses at most a part in 256 of each input. */
static void near_the_products_of_f32(void **state)
{
	struct product p = product_new(50, 640, 30);
	float *y = noises(1, 50 * 30);
	bool any = false;

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct pile pile;
		struct moe_matrix w;
		struct rig r;

		assert_true(rig_open_as(&r, "base", 1, i ? &rounded : NULL));
		pile = (struct pile){.b = r.b};
		w = pile_matrix(&pile, &p.w);
		matmul_of(r.b, i ? y : p.want, p.x, 30, &w, NULL);
		pile_free(&pile);
		rig_close(&r);
	}
	for (size_t i = 0; i < 50 * 30; i++) {
		double size = 0;

		for (size_t j = 0; j < 640; j++)
			size += fabs((double)moe_bf16_to_f32(((const uint16_t *)p.w.data)[i % 50 * 640 + j]) * p.x[i / 50 * 640 + j]);
		near(y[i], p.want[i], (0x1p-8 + 4e-6) * size, "product", i);
		any = any || y[i] != p.want[i];
	}
	assert_true(any);
	free(y);
	product_free(&p);
}

/* f32 and f16 weights, and routers, are multiplied as they are without rounding. */
static void check_unrounded(struct moe_backend *b, const char *what, void *arg)
{
	struct pile p = {.b = b}, plain;
	struct rig r;
	float *x = noises(1, 20 * 300), *y = noises(2, 20 * 40), *want = noises(3, 20 * 40);

	(void)arg;
	assert_true(rig_open_plain(&r, "base", 1, NULL));
	plain = (struct pile){.b = r.b};
	for (int q = MOE_Q_F32; q <= MOE_Q_BF16; q++) {
		struct moe_matrix w = noise_matrix(&p, 4, (enum moe_quant)q, 40, 300, 0, NULL);
		struct moe_matrix same_w = noise_matrix(&plain, 4, (enum moe_quant)q, 40, 300, 0, NULL);

		w.f32_inputs = q == MOE_Q_BF16;
		matmul_of(b, y, x, 20, &w, NULL);
		matmul_of(r.b, want, x, 20, &same_w, NULL);
		same(y, want, 20 * 40, what);
	}
	pile_free(&plain);
	rig_close(&r);
	pile_free(&p);
	free(x), free(y), free(want);
}

static void others_are_not_rounded(void **state)
{
	(void)state;
	each_backend(&rounded, check_unrounded, NULL);
}

/* ---- experts ---- */

enum { GROUPS = 4, PAIRS = 40, INPUTS = 25, HIDDEN = 94, WIDTH = 135 };
static const int group_pairs[GROUPS] = {1, 7, 30, 2};

struct experts {
	struct moe_expert_group g[GROUPS];
	int32_t x_row[PAIRS];
	float *x, *weight, *want;
};

static void check_experts(struct moe_backend *b, const char *what, void *arg)
{
	const struct experts *s = arg;
	float *y = noises(1, PAIRS * HIDDEN);
	struct moe_expert_group own[GROUPS];
	struct pile p = {.b = b};

	for (int i = 0; i < GROUPS; i++)
		own[i] = (struct moe_expert_group){pile_expert(&p, &s->g[i].w), s->g[i].first, s->g[i].pairs};
	experts_of(b, y, s->x, INPUTS, own, GROUPS, s->x_row, s->weight);
	same(y, s->want, PAIRS * HIDDEN, what);
	for (int i = 0; i < GROUPS; i++) {
		const struct moe_expert_group *g = &s->g[i];
		const float *x = s->x + s->x_row[g->first] * HIDDEN;

		ffn_of(b, y, x, 1, &own[i].w);
		for (int j = 0; j < HIDDEN; j++)
			y[j] *= s->weight[g->first];
		same(y, s->want + g->first * HIDDEN, HIDDEN, what);
	}
	free(y);
	pile_free(&p);
}

/* One row after the other, each matrix by itself. */
static void experts_want(struct experts *s)
{
	struct moe_err e = MOE_ERR_INIT;
	struct rig r;

	assert_true(rig_open_plain(&r, "base", 1, &rounded));
	for (int p = 0, j = 0; p < PAIRS; p++) {
		float gate[WIDTH], up[WIDTH], *y = s->want + p * HIDDEN;
		const float *x = s->x + s->x_row[p] * HIDDEN;

		j += p == s->g[j].first + s->g[j].pairs;
		assert_int_equal(r.b->ops->matmul(r.b, NULL, gate, x, 1, &s->g[j].w.gate, NULL, &e), 0);
		assert_int_equal(r.b->ops->matmul(r.b, NULL, up, x, 1, &s->g[j].w.up, NULL, &e), 0);
		for (int i = 0; i < WIDTH; i++)
			gate[i] = gate[i] / (moe_expf(-gate[i]) + 1.0f) * up[i];
		assert_int_equal(r.b->ops->matmul(r.b, NULL, y, gate, 1, &s->g[j].w.down, NULL, &e), 0);
		for (int i = 0; i < HIDDEN; i++)
			y[i] *= s->weight[p];
	}
	rig_close(&r);
}

/* All of bf16; then experts of which any matrix is of f32. */
static void experts_follow_the_rule(void **state)
{
	(void)state;
	for (int mask = 0; mask < 8; mask++) {
		struct rig r;
		struct pile p;
		struct experts s = {.x = noises(1, INPUTS * HIDDEN), .weight = noises(2, PAIRS), .want = noises(3, PAIRS * HIDDEN)};

		assert_true(rig_open_plain(&r, "base", 1, NULL));
		p = (struct pile){.b = r.b};
		for (int i = 0, at = 0; i < GROUPS; at += group_pairs[i++]) {
			int f32 = mask ? mask + i : 0;
			uint64_t seed = (uint64_t)i * 3;

			s.g[i].w.gate = noise_matrix(&p, seed, f32 & 1 ? MOE_Q_F32 : MOE_Q_BF16, WIDTH, HIDDEN, 0, NULL);
			s.g[i].w.up = noise_matrix(&p, seed + 1, f32 & 2 ? MOE_Q_F32 : MOE_Q_BF16, WIDTH, HIDDEN, 0, NULL);
			s.g[i].w.down = noise_matrix(&p, seed + 2, f32 & 4 ? MOE_Q_F32 : MOE_Q_BF16, HIDDEN, WIDTH, 0, NULL);
			s.g[i].first = at;
			s.g[i].pairs = group_pairs[i];
		}
		for (int i = 0; i < PAIRS; i++)
			s.x_row[i] = i * 7 % INPUTS;
		experts_want(&s);
		each_backend(&rounded, check_experts, &s);
		pile_free(&p);
		rig_close(&r);
		free(s.x), free(s.weight), free(s.want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(products_follow_the_rule), cmocka_unit_test(numbers_of_any_size),
		cmocka_unit_test(strange_numbers),          cmocka_unit_test(near_the_products_of_f32),
		cmocka_unit_test(others_are_not_rounded),   cmocka_unit_test(experts_follow_the_rule),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("compute_pairs", tests, NULL, NULL);
}
