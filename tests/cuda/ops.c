/* Every operation that is not a product, on the emulated GPU and on the CPU, bit by bit. */
#include "../unit/compute_attention.h"
#include "compute/cuda/cuda.h"
#include "emulator.h"

/* A CPU backend and a GPU, and memory of the second. */
struct pair {
	struct rig cpu;
	struct moe_backend *gpu;
	struct pile on_cpu, on_gpu;
};

static uint64_t rounds;

static void pair_open(struct pair *p)
{
	struct moe_device_config c = {.device = "cuda", .numerics = MOE_NUMERICS_INIT};
	struct emulator machine = EMULATOR_INIT;
	const int sms[] = {80, 90, 75};
	struct moe_err e = MOE_ERR_INIT;

	machine.seed = ++rounds;
	machine.sm = sms[rounds % 3];
	emulator_set(&machine);
	assert_true(rig_open_plain(&p->cpu, "base", 1, NULL));
	if (moe_cuda_open(&c, 0, &p->gpu, &e))
		fail_msg("%s", e.msg);
	p->on_cpu = (struct pile){.b = p->cpu.b};
	p->on_gpu = (struct pile){.b = p->gpu};
}

static void pair_close(struct pair *p)
{
	pile_free(&p->on_cpu);
	pile_free(&p->on_gpu);
	p->gpu->ops->close(p->gpu);
	rig_close(&p->cpu);
	assert_string_equal(emulator_report(), "");
	assert_int_equal(emulator_used(), 0);
}

/* The same bytes on both. */
struct both {
	void *cpu, *gpu;
};

static struct both put(struct pair *p, const void *host, size_t bytes)
{
	return (struct both){pile_copy(&p->on_cpu, host, bytes), pile_copy(&p->on_gpu, host, bytes)};
}

/* Room for results, with something in it that no result may be. */
static struct both poisoned(struct pair *p, size_t bytes)
{
	unsigned char *host = test_malloc(bytes + 1);
	struct both b;

	memset(host, 0x7b, bytes);
	b = put(p, host, bytes);
	test_free(host);
	return b;
}

static void must(struct moe_backend *b, int rc, const struct moe_err *e)
{
	if (rc)
		fail_msg("%s: %s (%s)", b->ops->name, e->msg, emulator_report());
}

/* Call an operation on both. */
#define BOTH(p, op, ...) \
	do { \
		struct moe_err e_ = MOE_ERR_INIT; \
		struct moe_backend *b = (p)->cpu.b; \
		int on = 0; \
		must(b, b->ops->op(b, NULL, __VA_ARGS__, &e_), &e_); \
		b = (p)->gpu, on = 1; \
		must(b, b->ops->op(b, NULL, __VA_ARGS__, &e_), &e_); \
	} while (0)
#define AT(x) (on ? (x).gpu : (x).cpu)

static void compare(struct pair *p, struct both b, size_t floats, const char *what)
{
	float *cpu = test_malloc(floats * sizeof *cpu + 1), *gpu = test_malloc(floats * sizeof *gpu + 1);

	pile_read(&p->on_cpu, cpu, b.cpu, floats * sizeof *cpu);
	pile_read(&p->on_gpu, gpu, b.gpu, floats * sizeof *gpu);
	same(gpu, cpu, floats, what);
	test_free(cpu);
	test_free(gpu);
}

static void compare_bytes(struct pair *p, struct both b, size_t bytes, const char *what)
{
	unsigned char *cpu = test_malloc(bytes), *gpu = test_malloc(bytes);

	pile_read(&p->on_cpu, cpu, b.cpu, bytes);
	pile_read(&p->on_gpu, gpu, b.gpu, bytes);
	for (size_t i = 0; i < bytes; i++)
		if (cpu[i] != gpu[i])
			fail_msg("%s: byte %zu is %d, wanted %d", what, i, gpu[i], cpu[i]);
	test_free(cpu);
	test_free(gpu);
}

/* Numbers of all sizes, some of them special. */
static float *wild(uint64_t seed, size_t n)
{
	static const float special[] = {0.0f, -0.0f, 1e-40f, -3e-42f, 65504.0f, 65520.0f, -1e30f, 3e38f, 1e-30f, INFINITY, -INFINITY, NAN};
	float *v = noises(seed, n);

	for (size_t i = 0; i < n; i++)
		if ((i * 2654435761u + seed) % 37 == 0)
			v[i] = special[(i * 40503u + seed) % COUNT(special)];
	return v;
}

static void rows_and_elements(void **state)
{
	static const int widths[] = {1, 3, 16, 100, 256, 257, 1000, 4096, 5000};

	(void)state;
	for (size_t i = 0; i < COUNT(widths); i++) {
		struct pair p;
		int n = widths[i], rows = 1 + (int)(i * 7 % 11);
		size_t all = (size_t)rows * (size_t)n;
		float *x = noises(i, all + 1), *y = noises(i + 100, all + 1), *w = noises(i + 200, (size_t)n), *odd = wild(i, all + 1);
		struct both dx, dy, dw, to, s, from;

		pair_open(&p);
		dx = put(&p, x, all * 4);
		dy = put(&p, y, all * 4);
		dw = put(&p, w, (size_t)n * 4);
		to = poisoned(&p, all * 4);
		BOTH(&p, rmsnorm, AT(to), AT(dx), rows, n, AT(dw), 1e-6f);
		compare(&p, to, all, "rmsnorm");
		BOTH(&p, rmsnorm, AT(dx), AT(dx), rows, n, AT(dw), 1e-5f);
		compare(&p, dx, all, "rmsnorm in place");
		BOTH(&p, add, AT(dx), AT(dy), all);
		compare(&p, dx, all, "add");
		from = put(&p, odd, (all + 1) * 4);
		BOTH(&p, add, (float *)AT(from) + 1, AT(dy), all); /* not at a multiple of 16 */
		compare(&p, from, all + 1, "add, unaligned");
		BOTH(&p, clamp, AT(from), all, 0.5f);
		compare(&p, from, all, "clamp");
		s = put(&p, odd, (size_t)rows * 4);
		BOTH(&p, sigmoid_scale, AT(dy), AT(s), rows, n);
		compare(&p, dy, all, "sigmoid_scale");
		BOTH(&p, add, AT(dy), AT(dx), 0);
		BOTH(&p, rmsnorm, AT(dy), AT(dx), 0, n, AT(dw), 1e-5f);
		compare(&p, dy, all, "nothing to do");
		pair_close(&p);
		free(x), free(y), free(w), free(odd);
	}
}

static void combining(void **state)
{
	static const struct {
		int rows, k, n, parts;
	} cases[] = {{1, 1, 1, 1}, {5, 2, 300, 10}, {40, 8, 64, 77}, {0, 2, 8, 1}};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct pair p;
		int rows = cases[i].rows, k = cases[i].k, n = cases[i].n;
		float *v = noises(i, (size_t)cases[i].parts * (size_t)n);
		int32_t slot[400];
		struct both parts, y;

		pair_open(&p);
		for (int j = 0; j < rows * k; j++)
			slot[j] = j * 17 % cases[i].parts;
		parts = put(&p, v, (size_t)cases[i].parts * (size_t)n * 4);
		y = poisoned(&p, (size_t)rows * (size_t)n * 4 + 4);
		BOTH(&p, combine, AT(y), AT(parts), slot, rows, k, n);
		compare(&p, y, (size_t)rows * (size_t)n, "combine");
		pair_close(&p);
		free(v);
	}
}

static void turning(void **state)
{
	static const struct {
		int rows, heads, dim, dims;
		double theta, factor;
	} cases[] = {{1, 1, 2, 2, 1e4, 1}, {3, 9, 64, 64, 1e6, 1}, {17, 4, 80, 40, 1e4, 4}, {5, 3, 7, 6, 5e5, 1}, {40, 2, 128, 128, 1e7, 1}};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct pair p;
		size_t n = (size_t)cases[i].rows * (size_t)cases[i].heads * (size_t)cases[i].dim;
		struct moe_rope rope = {cases[i].theta, cases[i].dims, cases[i].factor};
		float *x = noises(i, n);
		int32_t positions[40];
		struct both dx;

		pair_open(&p);
		for (int j = 0; j < cases[i].rows; j++)
			positions[j] = j * j * 97 % 131072 + (j > 30 ? 1 << 29 : 0);
		dx = put(&p, x, n * 4);
		BOTH(&p, rope, AT(dx), positions, cases[i].rows, cases[i].heads, cases[i].dim, &rope);
		compare(&p, dx, n, "rope");
		pair_close(&p);
		free(x);
	}
}

static void embedding(void **state)
{
	static const int cols[] = {16, 100, 256, 384, 700};

	(void)state;
	for (size_t i = 0; i < COUNT(cols) * MOE_QUANTS * 2; i++) {
		struct moe_matrix m = {(enum moe_quant)(i / 2 % MOE_QUANTS), i % 2 ? MOE_L_R64 : MOE_L_PLAIN, 70, cols[i / (2 * MOE_QUANTS)], NULL, false};
		const int32_t ids[] = {0, 69, 5, 63, 64, 5};
		struct pair p;
		unsigned char *codes;
		size_t bytes;
		struct both w, y;
		struct moe_matrix on_gpu;

		if (m.layout == MOE_L_R64 && !moe_quant_is_coded(m.quant))
			continue;
		bytes = moe_matrix_bytes(&m);
		codes = test_malloc(bytes);
		for (size_t j = 0; j < bytes; j++) /* any bytes are codes; no scale or half is a NaN */
			codes[j] = (unsigned char)((uint32_t)(noise(i, j) * 0x1p20f) % 0x3c);
		pair_open(&p);
		w = put(&p, codes, bytes);
		y = poisoned(&p, COUNT(ids) * (size_t)m.cols * 4);
		m.data = w.cpu;
		on_gpu = m;
		on_gpu.data = w.gpu;
		BOTH(&p, embed, AT(y), ids, (int)COUNT(ids), on ? &on_gpu : &m);
		compare(&p, y, COUNT(ids) * (size_t)m.cols, moe_quant_name(m.quant));
		pair_close(&p);
		test_free(codes);
	}
}

static void gates(void **state)
{
	static const struct {
		int rows, experts, k;
		bool renorm;
		float factor;
	} cases[] = {{1, 1, 1, true, 1}, {5, 8, 2, true, 1}, {9, 60, 4, false, 1}, {33, 128, 8, true, 2.5f}, {3, 300, 300, true, 1},
	             {2, 513, 7, false, 0.5f}, {4, 1000, 10, true, 1}};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct pair p;
		size_t n = (size_t)cases[i].rows * (size_t)cases[i].experts, out = (size_t)cases[i].rows * (size_t)cases[i].k;
		struct moe_gate g = {MOE_SCORE_SOFTMAX, cases[i].k, cases[i].renorm, cases[i].factor};
		float *x = noises(i, n);
		struct both logits, ids, weights;

		for (size_t j = 0; j < n; j++)
			x[j] = j % 3 ? x[j] * 5 : roundf(x[j] * 2); /* with ties */
		pair_open(&p);
		logits = put(&p, x, n * 4);
		ids = poisoned(&p, out * 4);
		weights = poisoned(&p, out * 4);
		BOTH(&p, gate, AT(logits), cases[i].rows, cases[i].experts, &g, AT(ids), AT(weights));
		compare_bytes(&p, ids, out * 4, "ids of the gate");
		compare(&p, weights, out, "weights of the gate");
		pair_close(&p);
		free(x);
	}
}

/* ---- attention ---- */

/* Sequences over one store: each [rows, at position]. */
struct shape {
	int heads, kv_heads, dim, window;
	struct {
		int rows, pos;
	} seq[4];
};
static const struct shape shapes[] = {
	{4, 4, 64, 0, {{1, 0}, {1, 63}, {1, 64}, {1, 200}}},
	{8, 2, 128, 0, {{1, 1100}, {3, 62}, {0, 5}, {2, 1023}}},
	{8, 1, 128, 0, {{40, 0}, {5, 1020}, {1, 2047}, {33, 100}}},
	{6, 2, 80, 0, {{25, 1000}, {1, 1024}, {12, 3}, {0, 0}}},
	{4, 1, 96, 100, {{30, 150}, {1, 1100}, {70, 1000}, {9, 0}}},
	{16, 2, 32, 65, {{20, 0}, {1, 64}, {1, 65}, {2, 1090}}},
	{3, 3, 7, 1, {{12, 5}, {1, 200}, {40, 60}, {1, 0}}},
	{2, 1, 300, 100, {{40, 60}, {1, 130}, {0, 0}, {1, 0}}},
	{4, 2, 256, 0, {{17, 10}, {1, 70}, {0, 0}, {0, 0}}},
	{5, 5, 17, 1100, {{35, 1990}, {1, 2100}, {1, 1}, {0, 0}}},
};

struct store {
	struct moe_attention a;
	struct moe_attn_seq all[4], now[4]; /* from position 0 on; the rows of the call */
	int32_t blocks[4][40];
	size_t stride, n_blocks, rows_all, rows_now;
};

static void store_plan(struct store *s, const struct shape *c, enum moe_kv_type type)
{
	int n = 0;

	memset(s, 0, sizeof *s);
	s->a = (struct moe_attention){.heads = c->heads, .kv_heads = c->kv_heads, .head_dim = c->dim, .window = c->window,
	                              .scale = 1 / sqrtf((float)c->dim)};
	s->stride = 2 * MOE_KV_BLOCK * (size_t)c->kv_heads * moe_kv_vector_bytes(type, c->dim) + 64;
	for (int i = 0; i < 4; i++) {
		int end = c->seq[i].pos + c->seq[i].rows;

		for (int j = 0; j * MOE_KV_BLOCK < end; j++)
			s->blocks[i][j] = n++;
		s->all[i] = (struct moe_attn_seq){(int)s->rows_all, end, 0, s->blocks[i]};
		s->now[i] = (struct moe_attn_seq){(int)s->rows_now, c->seq[i].rows, c->seq[i].pos, s->blocks[i]};
		s->rows_all += (size_t)end;
		s->rows_now += (size_t)c->seq[i].rows;
	}
	for (int i = 0; i < 4; i++) /* not in order */
		for (int j = 0; j < 40; j++)
			s->blocks[i][j] = n - 1 - s->blocks[i][j];
	s->n_blocks = (size_t)n;
}

static void attend_both(const struct shape *c, enum moe_kv_type type, uint64_t seed, bool wildly)
{
	struct pair p;
	struct store s;
	size_t keys, queries;
	float *k, *v, *q;
	struct both dk, dv, dq, out, kv;
	char what[64];

	store_plan(&s, c, type);
	keys = s.rows_all * (size_t)(c->kv_heads * c->dim);
	queries = s.rows_now * (size_t)(c->heads * c->dim);
	k = wildly ? wild(seed, keys) : noises(seed, keys);
	v = wildly ? wild(seed + 1, keys) : noises(seed + 1, keys);
	q = noises(seed + 2, queries);
	pair_open(&p);
	dk = put(&p, k, keys * 4);
	dv = put(&p, v, keys * 4);
	dq = put(&p, q, queries * 4);
	out = poisoned(&p, queries * 4);
	kv = poisoned(&p, s.n_blocks * s.stride);
#define KV (struct moe_kv_view){AT(kv), s.stride, type}
	BOTH(&p, kv_store, KV, AT(dk), AT(dv), s.all, 4, &s.a);
	if (!wildly) /* which NaN is stored is free */
		compare_bytes(&p, kv, s.n_blocks * s.stride, "keys and values");
	snprintf(what, sizeof what, "attention, head_dim %d, window %d, %s", c->dim, c->window, moe_kv_type_name(type));
	BOTH(&p, attention, AT(out), AT(dq), KV, s.now, 4, &s.a);
	compare(&p, out, queries, what);
	pair_close(&p);
	free(k), free(v), free(q);
}

static void attention_of_all_shapes(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(shapes); i++)
		for (int t = 0; t < MOE_KV_TYPES; t++)
			if ((int)(i + 1) % 2 == 0 || t == (int)(i / 2) % MOE_KV_TYPES)
				attend_both(&shapes[i], (enum moe_kv_type)t, 10 * i + (uint64_t)t, false);
}

/* Infinities, NaN and subnormal numbers among keys and values; what a query does not see never shows. */
static void attention_of_wild_numbers(void **state)
{
	(void)state;
	for (int t = 0; t < MOE_KV_TYPES; t++) {
		attend_both(&shapes[3], (enum moe_kv_type)t, 500, true);
		attend_both(&shapes[5], (enum moe_kv_type)t, 600, true);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_and_elements), cmocka_unit_test(combining), cmocka_unit_test(turning),
		cmocka_unit_test(embedding), cmocka_unit_test(gates), cmocka_unit_test(attention_of_all_shapes),
		cmocka_unit_test(attention_of_wild_numbers),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
