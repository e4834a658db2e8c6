/* Products of the CUDA backend, on the emulated GPU: with int8 and with f32 the bits of the CPU's, with bf16 near a sum in double
 * and the same whatever the form and the other rows. */
#include "compute/cuda/cuda.h"
#include "emulator.h"
#include "../unit/compute_rig.h"

static const enum moe_quant quants[] = {MOE_Q_Q8, MOE_Q_Q4, MOE_Q_Q3, MOE_Q_Q2, MOE_Q_BF16, MOE_Q_F16, MOE_Q_F32};
enum { CODED = 4 };              /* of them */

/* A GPU and a CPU with the same numerics. */
struct pair {
	struct moe_backend *gpu;
	struct rig cpu;
};

static void must(int rc, const struct moe_err *e)
{
	if (rc)
		fail_msg("%s (%s)", e->msg, emulator_report());
}

static void pair_open(struct pair *p, enum moe_activation a, int sm, uint64_t seed)
{
	struct emulator machine = EMULATOR_INIT;
	struct moe_device_config c = {.device = "cuda", .numerics = MOE_NUMERICS_INIT};
	struct moe_err e = MOE_ERR_INIT;

	machine.sm = sm;
	machine.seed = seed;
	emulator_set(&machine);
	c.numerics.activation = a;
	must(moe_cuda_open(&c, 0, &p->gpu, &e), &e);
	assert_true(rig_open_as(&p->cpu, "base", 1, &c.numerics));
}

static void pair_close(struct pair *p)
{
	assert_string_equal(emulator_report(), "");
	p->gpu->ops->close(p->gpu);
	rig_close(&p->cpu);
	assert_int_equal(emulator_used(), 0);
}

/* Memory of the device with these bytes, `offset` bytes from an aligned place. */
static void *upload(struct moe_backend *gpu, const void *host, size_t bytes, size_t offset, void **mem)
{
	struct moe_err e = MOE_ERR_INIT;

	must(gpu->ops->alloc(gpu, bytes + offset, mem, &e), &e);
	must(gpu->ops->copy_in(gpu, NULL, (char *)*mem + offset, host, bytes, &e), &e);
	must(gpu->ops->sync(gpu, NULL, &e), &e);
	return (char *)*mem + offset;
}

static void download(struct moe_backend *gpu, float *host, const void *mem, size_t n)
{
	struct moe_err e = MOE_ERR_INIT;

	must(gpu->ops->copy_out(gpu, NULL, host, mem, n * sizeof *host, &e), &e);
	must(gpu->ops->sync(gpu, NULL, &e), &e);
}

/* ---- matrices ---- */

/* On both sides; of coded quants any bytes decode, but scales are moderate. */
struct weights {
	struct moe_matrix cpu, gpu;
	void *mem;
};

static void random_codes(const struct moe_matrix *m, unsigned char *p, uint64_t seed)
{
	struct moe_quant_shape s;
	size_t bytes = moe_matrix_bytes(m), block;

	moe_quant_shape(m->quant, m->cols, &s);
	block = MOE_TILE_ROWS * s.block_bytes;
	for (size_t i = 0; i < bytes; i++)
		p[i] = (unsigned char)(noise(seed, i) * 4096);
	for (size_t at = block; at <= bytes; at += block)
		for (size_t j = 0; j < MOE_TILE_ROWS; j++) {
			uint16_t d = moe_f32_to_bf16(noise(seed + 1, at + j) / 100);

			memcpy(p + at - 2 * MOE_TILE_ROWS + 2 * j, &d, 2);
		}
}

static void random_plain(const struct moe_matrix *m, unsigned char *p, uint64_t seed)
{
	size_t n = (size_t)(m->rows * m->cols);

	for (size_t i = 0; i < n; i++) {
		float v = noise(seed, i);
		uint16_t half = m->quant == MOE_Q_BF16 ? moe_f32_to_bf16(v) : moe_f32_to_f16(v);

		if (m->quant == MOE_Q_F32)
			memcpy(p + 4 * i, &v, 4);
		else
			memcpy(p + 2 * i, &half, 2);
	}
}

static void weights_make(struct weights *w, struct moe_backend *gpu, enum moe_quant q, int rows, int cols, size_t offset, uint64_t seed)
{
	struct moe_matrix m = {q, moe_quant_is_coded(q) ? MOE_L_R64 : MOE_L_PLAIN, rows, cols, NULL, false};
	unsigned char *p = malloc(moe_matrix_bytes(&m) + 1);

	if (moe_quant_is_coded(q))
		random_codes(&m, p, seed);
	else
		random_plain(&m, p, seed);
	w->cpu = w->gpu = m;
	w->cpu.data = p;
	w->gpu.data = upload(gpu, p, moe_matrix_bytes(&m), offset, &w->mem);
}

static void weights_free(struct weights *w, struct moe_backend *gpu)
{
	free((void *)(uintptr_t)w->cpu.data);
	gpu->ops->release(gpu, w->mem);
}

/* ---- one matrix ---- */

/* Rows x[rows, cols] times w on the GPU; what is not written stays NaN. */
static void gpu_product(struct moe_backend *gpu, const struct weights *w, const float *x, size_t rows, const float *bias, float *y)
{
	size_t n = rows * (size_t)w->gpu.rows;
	struct moe_err e = MOE_ERR_INIT;
	void *mem[3] = {NULL};
	float *dx = upload(gpu, x, rows * (size_t)w->gpu.cols * sizeof *x, 0, &mem[0]);
	float *dy, *db = bias ? upload(gpu, bias, (size_t)w->gpu.rows * sizeof *bias, 0, &mem[1]) : NULL;

	memset(y, 0xff, n * sizeof *y);
	dy = upload(gpu, y, n * sizeof *y, 0, &mem[2]);
	must(gpu->ops->matmul(gpu, NULL, dy, dx, (int)rows, &w->gpu, db, &e), &e);
	download(gpu, y, dy, n);
	for (int i = 0; i < 3; i++)
		gpu->ops->release(gpu, mem[i]);
}

struct shape {
	int rows, cols;              /* of the matrix */
	int m;                       /* rows of x */
	size_t offset;               /* where the matrix lies */
};

static void same_product(struct pair *p, enum moe_quant q, const struct shape *s, uint64_t seed)
{
	size_t n = (size_t)(s->rows * s->m);
	float *x = noises(seed, (size_t)(s->cols * s->m)), *bias = s->m % 2 ? noises(seed + 1, (size_t)s->rows) : NULL;
	float *want = noises(1, n), *got = noises(2, n);
	struct moe_err e = MOE_ERR_INIT;
	struct weights w;
	char what[100];

	weights_make(&w, p->gpu, q, s->rows, s->cols, s->offset, seed + 2);
	must(p->cpu.b->ops->matmul(p->cpu.b, NULL, want, x, s->m, &w.cpu, bias, &e), &e);
	gpu_product(p->gpu, &w, x, (size_t)s->m, bias, got);
	snprintf(what, sizeof what, "%s [%d, %d] at %zu times %d rows", moe_quant_name(q), s->rows, s->cols, s->offset, s->m);
	same(got, want, n, what);
	weights_free(&w, p->gpu);
	free(x), free(bias), free(want), free(got);
}

static const struct shape shapes[] = {
	{1, 31, 1, 0}, {63, 1, 3, 0}, {65, 256, 9, 0}, {130, 384, 17, 0}, {96, 2560, 2, 0}, {200, 640, 70, 0}, {64, 128, 5, 2}, {70, 200, 21, 48},
};

static void products_with_int8_have_the_bits_of_the_cpu(void **state)
{
	static const int sm[] = {75, 80, 90};
	struct pair p;

	(void)state;
	for (size_t i = 0; i < CODED * COUNT(shapes); i++) {
		pair_open(&p, MOE_A_I8, sm[i % 3], i);
		same_product(&p, quants[i % CODED], &shapes[i / CODED], i);
		pair_close(&p);
	}
}

static void any_number_of_rows(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p, MOE_A_I8, 90, 3);
	for (int m = 1; m <= 70; m += m < 18 ? 1 : 13)
		same_product(&p, quants[m % CODED], &(struct shape){40, 256, m, 0}, (uint64_t)m);
	same_product(&p, MOE_Q_Q4, &(struct shape){70, 512, 200, 0}, 7);
	pair_close(&p);
}

static void products_with_f32_have_the_bits_of_the_cpu(void **state)
{
	struct pair p;

	(void)state;
	for (size_t i = 0; i < COUNT(quants) * COUNT(shapes); i++) {
		pair_open(&p, MOE_A_F32, i % 2 ? 75 : 90, i);
		same_product(&p, quants[i % COUNT(quants)], &shapes[i / COUNT(quants)], i);
		pair_close(&p);
	}
}

/* Zeros, numbers too small for a scale, NaN and infinity, each in one block only. */
static void strange_inputs_too(void **state)
{
	static const float strange[] = {NAN, -INFINITY, INFINITY, 0, -0.0f, 1e-40f, 3e-38f, 3e38f, 1e-36f};
	enum { cols = 640, rows = 70 };
	float *x = noises(5, COUNT(strange) * cols), want[COUNT(strange) * rows], got[COUNT(strange) * rows];
	struct moe_err e = MOE_ERR_INIT;
	struct pair p;

	(void)state;
	for (size_t i = 0; i < COUNT(strange); i++)
		for (size_t j = 128; j < 256; j++)
			x[i * cols + j] = j == 200 || fabsf(strange[i]) < 1 ? strange[i] : x[i * cols + j];
	for (int a = MOE_A_I8; a <= MOE_A_F32; a++) {
		struct weights w;

		pair_open(&p, (enum moe_activation)a, 80, 1);
		weights_make(&w, p.gpu, MOE_Q_Q3, rows, cols, 0, 9);
		must(p.cpu.b->ops->matmul(p.cpu.b, NULL, want, x, COUNT(strange), &w.cpu, NULL, &e), &e);
		gpu_product(p.gpu, &w, x, COUNT(strange), NULL, got);
		same(got, want, COUNT(got), "strange inputs");
		weights_free(&w, p.gpu);
		pair_close(&p);
	}
	free(x);
}

/* ---- experts ---- */

enum { GROUPS = 6, INPUTS = 40, PAIRS = 102 };
static const int group_pairs[GROUPS] = {1, 0, 70, 7, 20, 4};

struct experts {
	struct weights w[GROUPS][3];
	struct moe_expert_group cpu[GROUPS], gpu[GROUPS];
	int32_t x_row[PAIRS];
	float *x, *weight;
	int hidden, width;
};

/* Quants of group i's gate, up and down: gate[i % n], up[i % n], down[i % n]. */
struct mix {
	enum moe_quant gate, up, down;
};

static void experts_make(struct experts *s, struct moe_backend *gpu, int hidden, int width, const struct mix *mix, int n)
{
	*s = (struct experts){.hidden = hidden, .width = width, .x = noises(1, (size_t)(INPUTS * hidden)), .weight = noises(2, PAIRS)};
	for (int i = 0, at = 0; i < GROUPS; at += group_pairs[i++]) {
		const struct mix *m = &mix[i % n];

		weights_make(&s->w[i][0], gpu, m->gate, width, hidden, 0, (uint64_t)i);
		weights_make(&s->w[i][1], gpu, m->up, width, hidden, i == 3 ? 8 : 0, (uint64_t)i + 50);
		weights_make(&s->w[i][2], gpu, m->down, hidden, width, 0, (uint64_t)i + 90);
		s->cpu[i] = (struct moe_expert_group){{s->w[i][0].cpu, s->w[i][1].cpu, s->w[i][2].cpu}, at, group_pairs[i]};
		s->gpu[i] = (struct moe_expert_group){{s->w[i][0].gpu, s->w[i][1].gpu, s->w[i][2].gpu}, at, group_pairs[i]};
	}
	for (int i = 0; i < PAIRS; i++)
		s->x_row[i] = i * 7 % INPUTS;
}

static void experts_free(struct experts *s, struct moe_backend *gpu)
{
	for (int i = 0; i < GROUPS * 3; i++)
		weights_free(&s->w[i / 3][i % 3], gpu);
	free(s->x), free(s->weight);
}

/* y [PAIRS, hidden] of the groups [from, to), whose pairs come first in y. */
static void gpu_experts(struct moe_backend *gpu, const struct experts *s, int from, int to, float *y)
{
	size_t n = PAIRS * (size_t)s->hidden;
	struct moe_err e = MOE_ERR_INIT;
	void *mem[3];
	float *dx = upload(gpu, s->x, (size_t)(INPUTS * s->hidden) * sizeof *s->x, 0, &mem[0]), *dy, *scratch;

	memset(y, 0xff, n * sizeof *y);
	dy = upload(gpu, y, n * sizeof *y, 0, &mem[1]);
	must(gpu->ops->alloc(gpu, PAIRS * (size_t)s->width * sizeof *y, &mem[2], &e), &e);
	scratch = mem[2];
	must(gpu->ops->experts(gpu, NULL, dy, dx, s->gpu + from, to - from, s->x_row, s->weight, MOE_ACT_SILU, scratch, &e), &e);
	download(gpu, y, dy, n);
	for (int i = 0; i < 3; i++)
		gpu->ops->release(gpu, mem[i]);
}

/* The widest group as an FFN of its own, on inputs as they stand. */
static void same_ffn(struct pair *p, const struct experts *s)
{
	const struct moe_expert_weights *on_cpu = &s->cpu[2].w, *on_gpu = &s->gpu[2].w;
	size_t n = INPUTS * (size_t)s->hidden;
	float *want = noises(1, n), *got = noises(2, n), *scratch = noises(3, INPUTS * (size_t)s->width), *x, *y, *room;
	struct moe_err e = MOE_ERR_INIT;
	void *mem[3];

	must(p->cpu.b->ops->ffn(p->cpu.b, NULL, want, s->x, INPUTS, on_cpu, MOE_ACT_SILU, scratch, &e), &e);
	x = upload(p->gpu, s->x, n * sizeof *x, 0, &mem[0]);
	y = upload(p->gpu, got, n * sizeof *x, 0, &mem[1]);
	room = upload(p->gpu, scratch, INPUTS * (size_t)s->width * sizeof *x, 0, &mem[2]);
	must(p->gpu->ops->ffn(p->gpu, NULL, y, x, INPUTS, on_gpu, MOE_ACT_SILU, room, &e), &e);
	download(p->gpu, got, y, n);
	same(got, want, n, "an FFN");
	for (int i = 0; i < 3; i++)
		p->gpu->ops->release(p->gpu, mem[i]);
	free(want), free(got), free(scratch);
}

static void same_experts(struct pair *p, int hidden, int width, const struct mix *mix, int n)
{
	struct experts s;
	float *want, *got, *scratch = noises(1, PAIRS * (size_t)width);
	struct moe_err e = MOE_ERR_INIT;

	experts_make(&s, p->gpu, hidden, width, mix, n);
	want = noises(3, PAIRS * (size_t)hidden);
	got = noises(3, PAIRS * (size_t)hidden);
	must(p->cpu.b->ops->experts(p->cpu.b, NULL, want, s.x, s.cpu, GROUPS, s.x_row, s.weight, MOE_ACT_SILU, scratch, &e), &e);
	gpu_experts(p->gpu, &s, 0, GROUPS, got);
	same(got, want, PAIRS * (size_t)hidden, "experts");
	same_ffn(p, &s);
	experts_free(&s, p->gpu);
	free(want), free(got), free(scratch);
}

static void experts_have_the_bits_of_the_cpu(void **state)
{
	static const struct mix alike[] = {{MOE_Q_Q4, MOE_Q_Q4, MOE_Q_Q4}};
	static const struct mix mixed[] = {{MOE_Q_Q4, MOE_Q_Q4, MOE_Q_Q8}, {MOE_Q_BF16, MOE_Q_BF16, MOE_Q_BF16},
	                                   {MOE_Q_Q2, MOE_Q_Q3, MOE_Q_F32}, {MOE_Q_F16, MOE_Q_Q8, MOE_Q_Q2}, {MOE_Q_Q3, MOE_Q_Q3, MOE_Q_Q3}};
	struct pair p;

	(void)state;
	pair_open(&p, MOE_A_I8, 80, 2);
	same_experts(&p, 256, 384, alike, 1);
	same_experts(&p, 96, 70, mixed, COUNT(mixed));
	pair_close(&p);
	pair_open(&p, MOE_A_F32, 75, 2);
	same_experts(&p, 96, 70, mixed, COUNT(mixed));
	pair_close(&p);
}

/* A launch has room for 96. */
static void more_experts_than_a_launch_takes(void **state)
{
	enum { MANY = 100, hidden = 128, width = 64 };
	static const struct mix q4 = {MOE_Q_Q4, MOE_Q_Q4, MOE_Q_Q4};
	struct moe_expert_group on_cpu[MANY], on_gpu[MANY];
	float want[MANY * hidden], got[MANY * hidden], scratch[MANY * width], *y;
	int32_t x_row[MANY];
	struct moe_err e = MOE_ERR_INIT;
	struct experts s;
	struct pair p;
	void *mem[3];

	(void)state;
	pair_open(&p, MOE_A_I8, 80, 4);
	experts_make(&s, p.gpu, hidden, width, &q4, 1);
	for (int i = 0; i < MANY; i++) {
		on_cpu[i] = (struct moe_expert_group){s.cpu[i % GROUPS].w, i, 1};
		on_gpu[i] = (struct moe_expert_group){s.gpu[i % GROUPS].w, i, 1};
		x_row[i] = i % INPUTS;
	}
	must(p.cpu.b->ops->experts(p.cpu.b, NULL, want, s.x, on_cpu, MANY, x_row, s.weight, MOE_ACT_SILU, scratch, &e), &e);
	memset(got, 0xff, sizeof got);
	y = upload(p.gpu, got, sizeof got, 0, &mem[0]);
	must(p.gpu->ops->experts(p.gpu, NULL, y, upload(p.gpu, s.x, INPUTS * hidden * sizeof *s.x, 0, &mem[1]), on_gpu, MANY, x_row, s.weight,
	                         MOE_ACT_SILU, upload(p.gpu, scratch, sizeof scratch, 0, &mem[2]), &e), &e);
	download(p.gpu, got, y, MANY * hidden);
	same(got, want, MANY * hidden, "many experts");
	for (int i = 0; i < 3; i++)
		p.gpu->ops->release(p.gpu, mem[i]);
	experts_free(&s, p.gpu);
	pair_close(&p);
}

/* ---- bf16 with bf16 ---- */

/* Within an error of n roundings of the sum of magnitudes, which no order of the sum passes. */
static void near_double(const struct weights *w, const float *x, size_t rows, const float *y)
{
	size_t cols = (size_t)w->cpu.cols, n = (size_t)w->cpu.rows;
	float *values = malloc(cols * sizeof *values + 1);

	for (size_t i = 0; i < n; i++) {
		moe_matrix_row(&w->cpu, (int64_t)i, values);
		for (size_t r = 0; r < rows; r++) {
			double sum = 0, magnitude = 0;

			for (size_t k = 0; k < cols; k++) {
				double v = (double)values[k] * moe_bf16_to_f32(moe_f32_to_bf16(x[r * cols + k]));

				sum += v;
				magnitude += fabs(v);
			}
			near(y[r * n + i], sum, magnitude * 0x1p-24 * (double)(cols + 1), "bf16", r * n + i);
		}
	}
	free(values);
}

static void products_with_bf16(void **state)
{
	struct pair p;

	(void)state;
	for (size_t i = 0; i < COUNT(shapes); i++) {
		const struct shape *s = &shapes[i];
		size_t n = (size_t)s->rows, cols = (size_t)s->cols;
		float *x = noises(i, 70 * cols), *many = noises(1, 70 * n), *few = noises(2, 70 * n);
		struct weights w;

		pair_open(&p, MOE_A_BF16, i % 2 ? 80 : 90, i);
		weights_make(&w, p.gpu, MOE_Q_BF16, s->rows, s->cols, s->offset, i);
		gpu_product(p.gpu, &w, x, 70, NULL, many);
		near_double(&w, x, 70, many);
		gpu_product(p.gpu, &w, x, 1, NULL, few);
		same(few, many, n, "a row by itself");
		gpu_product(p.gpu, &w, x + 40 * cols, 13, NULL, few);
		same(few, many + 40 * n, 13 * n, "13 rows among others");
		gpu_product(p.gpu, &w, x + 3 * cols, 30, NULL, few);
		same(few, many + 3 * n, 30 * n, "30 rows among others");
		w.gpu.f32_inputs = w.cpu.f32_inputs = true; /* a router has the bits of the CPU */
		{
			struct moe_err e = MOE_ERR_INIT;

			must(p.cpu.b->ops->matmul(p.cpu.b, NULL, many, x, 4, &w.cpu, NULL, &e), &e);
			gpu_product(p.gpu, &w, x, 4, NULL, few);
			same(few, many, 4 * n, "a router");
		}
		weights_free(&w, p.gpu);
		pair_close(&p);
		free(x), free(many), free(few);
	}
}

/* An expert's pairs have the same bits beside other experts as without them; coded matrices have those of the CPU. */
static void experts_with_bf16(void **state)
{
	static const struct mix bf16 = {MOE_Q_BF16, MOE_Q_BF16, MOE_Q_BF16}, q4 = {MOE_Q_Q4, MOE_Q_Q4, MOE_Q_Q4};
	enum { hidden = 200, width = 96 };
	float *all = noises(1, PAIRS * hidden), *one = noises(2, PAIRS * hidden);
	struct experts s;
	struct pair p;

	(void)state;
	pair_open(&p, MOE_A_BF16, 90, 5);
	same_experts(&p, 256, 128, &q4, 1);
	experts_make(&s, p.gpu, hidden, width, &bf16, 1);
	gpu_experts(p.gpu, &s, 0, GROUPS, all);
	for (int i = 0; i < GROUPS; i++) {
		gpu_experts(p.gpu, &s, i, i + 1, one);
		same(one + s.gpu[i].first * hidden, all + s.gpu[i].first * hidden, (size_t)(group_pairs[i] * hidden), "an expert by itself");
	}
	for (int i = 0; i < PAIRS * hidden; i++)
		assert_true(isfinite(all[i]));
	experts_free(&s, p.gpu);
	pair_close(&p);
	free(all), free(one);
}

/* ---- what is refused, and nothing to do ---- */

static void refusals(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_expert_weights ffn;
	struct moe_expert_group g;
	struct weights w;
	struct pair p;
	void *mem;
	float *y;

	(void)state;
	pair_open(&p, MOE_A_I8, 80, 1);
	weights_make(&w, p.gpu, MOE_Q_Q4, 64, 128, 0, 1);
	must(p.gpu->ops->alloc(p.gpu, 128 * sizeof *y, &mem, &e), &e);
	y = mem;
	ffn = (struct moe_expert_weights){w.gpu, w.gpu, w.gpu};
	assert_int_equal(p.gpu->ops->ffn(p.gpu, NULL, y, y, 1, &ffn, MOE_ACT_SILU, y, &e), MOE_E_RANGE);
	w.gpu.layout = MOE_L_PLAIN;
	assert_int_equal(p.gpu->ops->matmul(p.gpu, NULL, y, y, 1, &w.gpu, NULL, &e), MOE_E_UNSUPPORTED);
	assert_string_equal(e.msg, "a q4 matrix in layout plain: a GPU multiplies layout r64");
	w.gpu.layout = MOE_L_R64;
	must(p.gpu->ops->matmul(p.gpu, NULL, y, y, 0, &w.gpu, NULL, &e), &e);
	ffn.down.rows = 128, ffn.down.cols = 64;
	must(p.gpu->ops->ffn(p.gpu, NULL, y, y, 0, &ffn, MOE_ACT_SILU, y, &e), &e);
	g = (struct moe_expert_group){ffn, 0, 0};
	must(p.gpu->ops->experts(p.gpu, NULL, y, y, &g, 1, NULL, NULL, MOE_ACT_SILU, y, &e), &e);
	must(p.gpu->ops->experts(p.gpu, NULL, y, y, NULL, 0, NULL, NULL, MOE_ACT_SILU, y, &e), &e);
	p.gpu->ops->release(p.gpu, mem);
	weights_free(&w, p.gpu);
	pair_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(products_with_int8_have_the_bits_of_the_cpu),
		cmocka_unit_test(any_number_of_rows),
		cmocka_unit_test(products_with_f32_have_the_bits_of_the_cpu),
		cmocka_unit_test(strange_inputs_too),
		cmocka_unit_test(experts_have_the_bits_of_the_cpu),
		cmocka_unit_test(more_experts_than_a_launch_takes),
		cmocka_unit_test(products_with_bf16),
		cmocka_unit_test(experts_with_bf16),
		cmocka_unit_test(refusals),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("cuda_products", tests, NULL, NULL);
}
