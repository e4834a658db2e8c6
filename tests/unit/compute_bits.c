/* One answer, bit for bit: whatever the instruction set, the threads, the other rows of a batch, and how a prompt is
 * cut into chunks. */
#include <stdio.h>

#include "compute_vectors.h"

/* Results of all operations, one behind the other. */
struct record {
	float *v;
	size_t n, cap;
};

static float *record_room(struct record *r, size_t n)
{
	assert_true(r->n + n <= r->cap);
	r->n += n;
	memset(r->v + r->n - n, 0xee, n * sizeof *r->v);
	return r->v + r->n - n;
}

static struct record record_new(size_t cap)
{
	struct record r = {malloc(cap * sizeof *r.v), 0, cap};

	assert_non_null(r.v);
	return r;
}

static void same_record(const struct record *a, const struct record *b, const char *what)
{
	assert_int_equal(a->n, b->n);
	for (size_t i = 0; i < a->n; i++)
		if (memcmp(&a->v[i], &b->v[i], sizeof *a->v) != 0)
			fail_msg("%s: element %zu is %.9g and %.9g", what, i, a->v[i], b->v[i]);
}

/* ---- everything, once ---- */

static void do_matmuls(struct moe_backend *b, struct record *r)
{
	for (size_t i = 0; i < COUNT(matmul_cases); i++) {
		const struct matmul_case *c = &matmul_cases[i];
		struct pile p = {.b = b};
		struct moe_matrix m = noise_matrix(&p, i, c->quant, c->n, c->k, c->offset, NULL);
		float *x = noises(i + 100, (size_t)c->rows * (size_t)c->k), *bias = noises(i + 200, (size_t)c->n);

		matmul_of(b, record_room(r, (size_t)c->rows * (size_t)c->n), x, (size_t)c->rows, &m, c->bias ? bias : NULL);
		free(x), free(bias);
		pile_free(&p);
	}
}

static void do_attention(struct moe_backend *b, struct record *r)
{
	struct moe_err e = MOE_ERR_INIT;

	for (size_t i = 0; i < COUNT(attention_cases) * MOE_KV_TYPES; i++) {
		const struct attention_case *c = &attention_cases[i / MOE_KV_TYPES];
		struct pile p = {.b = b};
		struct attention_rig g;
		size_t n;
		float *q, *out;

		attention_open(b, &p, &g, c, (enum moe_kv_type)(i % MOE_KV_TYPES));
		n = (size_t)g.rows * (size_t)c->heads * (size_t)c->head_dim;
		q = noises(40, n);
		out = pile_new(&p, n * sizeof *out);
		assert_int_equal(b->ops->attention(b, NULL, out, pile_copy(&p, q, n * sizeof *q), g.kv, g.seqs, ATTENTION_SEQS, &g.a, &e), 0);
		pile_read(&p, record_room(r, n), out, n * sizeof *out);
		free(q);
		attention_close(&g);
		pile_free(&p);
	}
}

static void do_rows(struct moe_backend *b, struct record *r)
{
	enum { rows = 21, n = 300 };
	static const struct moe_rope rope = {1e6, 100, 1};
	struct moe_gate g = {MOE_SCORE_SOFTMAX, 7, true, 1};
	const size_t bytes = rows * n * sizeof(float);
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	float *numbers = noises(1, rows * n), *x = pile_copy(&p, numbers, bytes), *y = pile_new(&p, bytes);
	int32_t ids[rows * 7], positions[rows];

	for (int i = 0; i < rows; i++)
		positions[i] = i * i * 50;
	assert_int_equal(b->ops->rmsnorm(b, NULL, y, x, rows, n, x, 1e-6f, &e), 0);
	pile_read(&p, record_room(r, rows * n), y, bytes);
	y = pile_copy(&p, numbers, bytes);
	assert_int_equal(b->ops->rope(b, NULL, y, positions, rows, 3, 100, &rope, &e), 0);
	pile_read(&p, record_room(r, rows * n), y, bytes);
	gate_run(b, numbers, rows, n, &g, ids, record_room(r, rows * 7));
	y = record_room(r, rows * 7);
	for (int i = 0; i < rows * 7; i++)
		y[i] = (float)ids[i];
	y = pile_copy(&p, numbers, bytes);
	assert_int_equal(b->ops->sigmoid_scale(b, NULL, y, x, rows, n, &e), 0);
	assert_int_equal(b->ops->add(b, NULL, y, x, rows * n, &e), 0);
	assert_int_equal(b->ops->clamp(b, NULL, y, rows * n, 0.7f, &e), 0);
	pile_read(&p, record_room(r, rows * n), y, bytes);
	free(numbers);
	pile_free(&p);
}

static void do_experts(struct moe_backend *b, struct record *r)
{
	const int width = 300, hidden = 270;
	struct pile p = {.b = b};
	struct moe_expert_group g[GROUPS];
	struct moe_err e = MOE_ERR_INIT;
	float *x = noises(1, 20 * 270), *weight = noises(2, PAIRS), *parts, *y;
	int32_t x_row[PAIRS];

	for (int i = 0, at = 0; i < GROUPS; at += group_pairs[i++]) {
		float *v[3];

		g[i] = (struct moe_expert_group){noise_expert(&p, 5 + (uint64_t)i * 3, (enum moe_quant)(i % 3), width, hidden, v),
		                                 at, group_pairs[i]};
		free(v[0]), free(v[1]), free(v[2]);
	}
	for (int i = 0; i < PAIRS; i++)
		x_row[i] = i * 7 % 20;
	parts = record_room(r, PAIRS * 270);
	experts_of(b, parts, x, 20, g, GROUPS, x_row, weight);
	y = pile_new(&p, 13 * 270 * sizeof *y);
	assert_int_equal(b->ops->combine(b, NULL, y, pile_copy(&p, parts, PAIRS * 270 * sizeof *parts), x_row, 13, 3, hidden, &e), 0);
	pile_read(&p, record_room(r, 13 * 270), y, 13 * 270 * sizeof *y);
	ffn_of(b, record_room(r, 20 * 270), x, 20, &g[4].w);
	free(x), free(weight);
	pile_free(&p);
}

static void all_isas_and_threads_agree(void **state)
{
	struct record first = {0};

	(void)state;
	for (size_t i = 0; i < COUNT(isas); i++)
		for (int threads = 1; threads <= 3; threads++) {
			struct record r = record_new(2000000);
			struct rig g;
			char what[64];

			if (!rig_open(&g, isas[i], threads)) {
				free(r.v);
				continue;
			}
			do_matmuls(g.b, &r);
			do_attention(g.b, &r);
			do_rows(g.b, &r);
			do_experts(g.b, &r);
			rig_close(&g);
			snprintf(what, sizeof what, "%s with %d threads", isas[i], threads);
			if (first.v) {
				same_record(&r, &first, what);
				free(r.v);
			} else {
				first = r;
			}
		}
	free(first.v);
}

/* ---- a row and its company ---- */

static void matmul_row_is_alone(struct moe_backend *b)
{
	static const int shapes[][2] = {{33, 515}, {64, 256}, {7, 40}}, counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 13, 40, 100, 203};
	for (size_t s = 0; s < COUNT(shapes) * 3; s++) {
		size_t n = (size_t)shapes[s / 3][0], k = (size_t)shapes[s / 3][1];
		struct pile p = {.b = b};
		struct moe_matrix m = noise_matrix(&p, s, (enum moe_quant)(s % 3), (int)n, (int)k, s % 2, NULL);
		float *x = noises(1, 203 * k), *alone = noises(2, 203 * n), *y = noises(3, 203 * n);

		for (size_t i = 0; i < 203; i++)
			matmul_of(b, alone + i * n, x + i * k, 1, &m, NULL);
		for (size_t c = 0; c < COUNT(counts); c++) {
			size_t from = (size_t)(203 - counts[c]);

			matmul_of(b, y, x + from * k, (size_t)counts[c], &m, NULL);
			assert_memory_equal(y, alone + from * n, (size_t)counts[c] * n * sizeof *y);
		}
		free(x), free(alone), free(y);
		pile_free(&p);
	}
}

/* Each pair of an experts call, computed by itself. */
static void expert_pair_is_alone(struct moe_backend *b)
{
	enum { width = 70, hidden = 90 };
	struct pile p = {.b = b};
	float *v[3], *x = noises(1, 50 * hidden), *y = noises(2, 50 * hidden), *weight = noises(4, 50), one[hidden];
	struct moe_expert_group g = {noise_expert(&p, 5, MOE_Q_BF16, width, hidden, v), 0, 50};
	int32_t x_row[50];

	for (int i = 0; i < 50; i++)
		x_row[i] = i * 3 % 50;
	experts_of(b, y, x, 50, &g, 1, x_row, weight);
	for (int i = 0; i < 50; i++) {
		ffn_of(b, one, x + x_row[i] * hidden, 1, &g.w);
		for (int j = 0; j < hidden; j++)
			assert_true(y[i * hidden + j] == one[j] * weight[i]);
	}
	free(v[0]), free(v[1]), free(v[2]), free(x), free(y), free(weight);
	pile_free(&p);
}

static void gate_row_is_alone(struct moe_backend *b)
{
	enum { rows = 37, experts = 60, k = 8 };
	struct moe_gate g = {MOE_SCORE_SOFTMAX, k, false, 1};
	float *logits = noises(1, rows * experts), all[rows * k], one[k];
	int32_t ids[rows * k], id[k];

	gate_run(b, logits, rows, experts, &g, ids, all);
	for (int i = 0; i < rows; i++) {
		gate_run(b, logits + i * experts, 1, experts, &g, id, one);
		assert_memory_equal(id, ids + i * k, sizeof id);
		assert_memory_equal(one, all + i * k, sizeof one);
	}
	free(logits);
}

/* ---- a prompt and its chunks ---- */

/* What lies before a late position is stored but not asked for: that would take long. */
static int first_asked(const struct attention_case *c)
{
	return c->pos > 500 ? c->pos : 0;
}

/* Store and attend sequence 1 in chunks, in a KV store whose other places hold NaN. */
static void prefill(struct moe_backend *b, const struct attention_case *c, enum moe_kv_type type, int chunk, float *out)
{
	size_t row = (size_t)c->heads * (size_t)c->head_dim;
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	struct attention_rig r;
	int end = c->pos + c->rows, first = first_asked(c);
	float *q = noises(1, (size_t)end * row), *dq, *dout;
	unsigned char *nans;

	attention_open(b, &p, &r, c, type);
	nans = malloc(r.kv_bytes);
	assert_non_null(nans);
	memset(nans, 0xff, r.kv_bytes); /* a NaN in every type, or a NaN for scale */
	assert_int_equal(b->ops->copy_in(b, NULL, r.kv.base, nans, r.kv_bytes, &e), 0);
	assert_int_equal(b->ops->sync(b, NULL, &e), 0);
	dq = pile_copy(&p, q, (size_t)end * row * sizeof *q);
	dout = pile_new(&p, (size_t)end * row * sizeof *out);
	if (first > 0)
		store_span(b, &p, &r, 1, 0, first);
	for (int from = first, to; from < end; from = to) {
		to = from + chunk < end ? from + chunk : end;
		struct moe_attn_seq seq = {0, to - from, from, r.blocks[1]};

		store_span(b, &p, &r, 1, from, to);
		assert_int_equal(b->ops->attention(b, NULL, dout + (size_t)from * row, dq + (size_t)from * row, r.kv, &seq, 1, &r.a, &e), 0);
	}
	pile_read(&p, out + (size_t)first * row, dout + (size_t)first * row, (size_t)(end - first) * row * sizeof *out);
	free(q), free(nans);
	attention_close(&r);
	pile_free(&p);
}

static void chunks_do_not_show(struct moe_backend *b)
{
	static const int chunks[] = {1, 7, 64, 100};

	for (size_t i = 0; i < COUNT(attention_cases) * MOE_KV_TYPES; i++) {
		const struct attention_case *c = &attention_cases[i / MOE_KV_TYPES];
		enum moe_kv_type type = (enum moe_kv_type)(i % MOE_KV_TYPES);
		size_t n = (size_t)(c->pos + c->rows) * (size_t)c->heads * (size_t)c->head_dim;
		size_t first = (size_t)first_asked(c) * (size_t)c->heads * (size_t)c->head_dim;
		float *whole = noises(2, n), *cut = noises(3, n);

		prefill(b, c, type, c->pos + c->rows, whole);
		for (size_t j = first; j < n; j++)
			assert_true(isfinite(whole[j]));
		for (size_t j = 0; j < COUNT(chunks); j++) {
			prefill(b, c, type, chunks[j], cut);
			assert_memory_equal(whole + first, cut + first, (n - first) * sizeof *whole);
		}
		free(whole), free(cut);
	}
}

struct run {
	const char *isa;
	void (*fn)(struct moe_backend *b);
};

static void run_one(void **state)
{
	const struct run *r = *state;
	struct rig g;

	if (!rig_open(&g, r->isa, 2))
		skip();
	r->fn(g.b);
	rig_close(&g);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*fn)(struct moe_backend *b);
	} of[] = {
		{"a product's row does not depend on its company", matmul_row_is_alone},
		{"an expert's pair does not depend on its company", expert_pair_is_alone},
		{"a gate's row does not depend on its company", gate_row_is_alone},
		{"attention does not depend on chunks", chunks_do_not_show},
	};
	static struct run runs[COUNT(isas) * COUNT(of)];
	static char names[COUNT(runs)][80];
	struct CMUnitTest tests[COUNT(runs) + 1] = {cmocka_unit_test(all_isas_and_threads_agree)};

	for (size_t i = 0; i < COUNT(runs); i++) {
		runs[i] = (struct run){isas[i / COUNT(of)], of[i % COUNT(of)].fn};
		snprintf(names[i], sizeof names[i], "%s: %s", runs[i].isa, of[i % COUNT(of)].name);
		tests[1 + i] = (struct CMUnitTest){names[i], run_one, NULL, NULL, &runs[i]};
	}
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("compute_bits", tests, NULL, NULL);
}
