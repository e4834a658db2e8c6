/* The paper's model: its authors' policies and its case study come out again. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "plan/private.h"

#define GIB 0x1p30

/* ---- their machines and models ---- */

/* t4 and l4 as the artifact has them; host memory is what was free. */
static struct moe_hardware machine(bool l4, int gpus, double host_gib)
{
	struct moe_hardware h = {.name = "test", .n_levels = 2, .n_links = 1};

	h.levels[0] = (struct moe_memory_level){.name = "gpu", .count = gpus, .memory = (l4 ? 24 : 15) * GIB, .bandwidth = (l4 ? 285 : 300) * GIB};
	h.levels[0].flops[MOE_FLOPS_F16] = l4 ? 104e12 : 65e12;
	h.levels[1] = (struct moe_memory_level){.name = "cpu", .count = 1, .memory = host_gib * GIB, .bandwidth = 100 * GIB};
	h.levels[1].flops[MOE_FLOPS_F32] = l4 ? 1.6e12 : 0.8e12;
	h.links[0] = (struct moe_link){.from = 1, .to = 0, .bandwidth = 16 * GIB, .shared = true};
	return h;
}

static struct moe_layer layers[64];

static struct moe_model model(int n, int hidden, int width, int heads, int experts, int top_k)
{
	struct moe_model m = {.hidden = hidden, .vocab = 32000, .n_layers = n, .layers = layers};

	for (int i = 0; i < n; i++) {
		layers[i] = (struct moe_layer){.attn = {.heads = heads, .kv_heads = 8, .head_dim = hidden / heads}};
		layers[i].ffn = (struct moe_ffn){.kind = MOE_FFN_MOE, .experts = experts, .expert_width = width, .gate = {.top_k = top_k}};
	}
	return m;
}

static struct moe_model mixtral(void)
{
	return model(32, 4096, 14336, 32, 8, 2);
}

static struct moe_workload mtbench(double generate, bool padded)
{
	return (struct moe_workload){.name = "mtbench", .prompt_mean = 77, .prompt_max = 418, .generate = generate, .padded = padded};
}

/* ---- section 4: policies ---- */

struct expected {
	double generate;
	int64_t mu, n_ub;
	double rw, seconds;
};

static void near(double value, double expected, double tolerance)
{
	if (!(fabs(value - expected) <= tolerance))
		fail_msg("%g is not %g", value, expected);
}

static void check_policy(const struct moe_setting *s, const struct expected *x)
{
	struct moe_search how = MOE_SEARCH_INIT;
	struct moe_found f;

	assert_int_equal(plan_search_paper(s, &how, &f, NULL), 0);
	assert_int_equal(f.execution.micro_batch, x->mu);
	assert_int_equal(f.execution.batch, x->mu * x->n_ub);
	near(f.execution.weights[0], x->rw, 6e-5);
	near(f.prediction.decode.seconds, x->seconds, 6e-4);
	assert_true(f.prediction.fits);
}

static void policies_on_a_t4(void **state)
{
	static const struct expected rows[] = {{32, 36, 14, 0.0004, 0.164}, {64, 36, 14, 0.0004, 0.164},
	                                       {128, 36, 14, 0.0004, 0.164}, {256, 36, 14, 0.0004, 0.164}};
	struct moe_hardware h = machine(false, 1, 184);
	struct moe_model m = mixtral();

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct moe_setting s = {.model = &m, .hardware = &h, .workload = mtbench(rows[i].generate, true), .variant = MOE_VARIANT_PAPER};

		check_policy(&s, &rows[i]);
	}
}

static void policies_on_an_l4(void **state)
{
	static const struct expected rows[] = {{32, 68, 16, 0.0739, 0.152}, {64, 68, 15, 0.0739, 0.152},
	                                       {128, 68, 13, 0.0739, 0.152}, {256, 68, 11, 0.0739, 0.152}};
	struct moe_hardware h = machine(true, 1, 184);
	struct moe_model m = mixtral();

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct moe_setting s = {.model = &m, .hardware = &h, .workload = mtbench(rows[i].generate, true), .variant = MOE_VARIANT_PAPER,
		                        .residual = MOE_RESIDUAL_PER_MICRO_BATCH};

		check_policy(&s, &rows[i]);
	}
}

/* Several GPUs, other shapes, both kinds of residual stream, prompts of their mean length: by an independent program that was
 * written from the formulas alone. */
static void policies_of_larger_models(void **state)
{
	static const struct {
		bool dbrx;
		int gpus;
		enum moe_residual residual;
		bool padded;
		struct expected x;
	} rows[] = {
		{false, 2, MOE_RESIDUAL_WHOLE_BATCH, false, {32, 68, 35, 0.0070, 0.2793}},
		{false, 2, MOE_RESIDUAL_PER_MICRO_BATCH, true, {256, 36, 11, 0.0082, 0.2790}},
		{false, 4, MOE_RESIDUAL_WHOLE_BATCH, true, {32, 36, 17, 0.0628, 0.2636}},
		{false, 4, MOE_RESIDUAL_PER_MICRO_BATCH, false, {32, 68, 50, 0.1263, 0.2457}},
		{true, 2, MOE_RESIDUAL_WHOLE_BATCH, true, {32, 4, 51, 0.0210, 0.5020}},
		{true, 2, MOE_RESIDUAL_PER_MICRO_BATCH, false, {32, 132, 30, 0.0106, 0.3652}},
		{true, 4, MOE_RESIDUAL_WHOLE_BATCH, false, {256, 36, 50, 0.1123, 0.3277}},
		{true, 4, MOE_RESIDUAL_PER_MICRO_BATCH, true, {256, 36, 22, 0.1012, 0.3318}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct moe_model m = rows[i].dbrx ? model(40, 6144, 10752, 48, 16, 4) : model(56, 6144, 16384, 48, 8, 2);
		struct moe_hardware h = machine(false, rows[i].gpus, 400);
		struct moe_setting s = {.model = &m, .hardware = &h, .workload = mtbench(rows[i].x.generate, rows[i].padded),
		                        .variant = MOE_VARIANT_PAPER, .residual = rows[i].residual};

		check_policy(&s, &rows[i].x);
	}
}

/* Lanes of the two settings, and a prefill, by hand. */
static void times_by_hand(void **state)
{
	struct moe_model m = mixtral();
	struct moe_search how = MOE_SEARCH_INIT;
	struct moe_hardware t4 = machine(false, 1, 184), l4 = machine(true, 1, 184);
	struct moe_setting s = {.model = &m, .hardware = &t4, .workload = mtbench(128, true), .variant = MOE_VARIANT_PAPER};
	struct moe_found f;
	double layer = 6.0 * 4096 * 14336 * 8;

	(void)state;
	assert_int_equal(plan_search_paper(&s, &how, &f, NULL), 0);
	near(f.prediction.decode.lanes[MOE_LANE_GPU].total, 0.1226, 1e-4);
	near(f.prediction.decode.lanes[MOE_LANE_CPU].total, 0.01057, 1e-5);
	near(f.prediction.decode_tokens_per_second, 504.0 * 128 / (32 * 127 * f.prediction.decode.seconds), 1e-9);
	near(f.prediction.prefill.lanes[MOE_LANE_H2D].total, (layer * (1 - f.execution.weights[0]) + 2.0 * 504 * 418 * 4096) / (16 * GIB), 1e-9);
	near(plan_term(&f.prediction.prefill.lanes[MOE_LANE_GPU], "experts"), 14 * 6.0 * 36 * 418 * 4096 * 14336 * 2 / 65e12, 1e-9);
	s.hardware = &l4;
	s.residual = MOE_RESIDUAL_PER_MICRO_BATCH;
	s.workload.generate = 32;
	assert_int_equal(plan_search_paper(&s, &how, &f, NULL), 0);
	near(f.prediction.decode.lanes[MOE_LANE_GPU].total, 0.1475, 1e-4);
}

/* With attention on the GPU the cache is there, or moves; either way the paper charges the GPU's memory with all of it. */
static void attention_on_the_gpu(void **state)
{
	struct moe_model m = mixtral();
	struct moe_hardware h = machine(true, 1, 184);
	struct moe_setting s = {.model = &m, .hardware = &h, .workload = mtbench(32, true), .variant = MOE_VARIANT_PAPER,
	                        .residual = MOE_RESIDUAL_PER_MICRO_BATCH};
	struct moe_search how = MOE_SEARCH_INIT;
	struct moe_found cpu, gpu;
	struct moe_prediction moving;
	double cache;

	(void)state;
	assert_int_equal(plan_search_paper(&s, &how, &cpu, NULL), 0);
	how.attention_on = 0;
	assert_int_equal(plan_search_paper(&s, &how, &gpu, NULL), 0);
	assert_true(gpu.prediction.fits);
	assert_true(gpu.prediction.decode_tokens_per_second < cpu.prediction.decode_tokens_per_second);
	assert_true(plan_term(&gpu.prediction.decode.lanes[MOE_LANE_GPU], "attention") > 0);
	gpu.execution.kv[0] = 0;
	gpu.execution.kv[1] = 1;
	assert_int_equal(moe_predict(&s, &gpu.execution, &moving, NULL), 0);
	cache = 4.0 * 450 * 1024 * 32 * (double)gpu.execution.batch;
	near(plan_term(&moving.memory[0].used, "kv cache"), cache, 1);
	near(plan_term(&moving.decode.lanes[MOE_LANE_H2D], "kv"), 4.0 * 434 * 1024 * (double)gpu.execution.batch / (16 * GIB), 1e-9);
}

/* What is fixed stays, and the largest batch is obeyed. */
static void fixed_sizes_are_kept(void **state)
{
	struct moe_model m = mixtral();
	struct moe_hardware h = machine(false, 1, 184);
	struct moe_setting s = {.model = &m, .hardware = &h, .workload = mtbench(32, true), .variant = MOE_VARIANT_PAPER};
	struct moe_search how = MOE_SEARCH_INIT;
	struct moe_found f;

	(void)state;
	how.micro_batch = 20;
	assert_int_equal(plan_search_paper(&s, &how, &f, NULL), 0);
	assert_int_equal(f.execution.micro_batch, 20);
	how.batch = 200;
	assert_int_equal(plan_search_paper(&s, &how, &f, NULL), 0);
	assert_int_equal(f.execution.batch, 200);
	how = (struct moe_search)MOE_SEARCH_INIT;
	how.max_batch = 100;
	assert_int_equal(plan_search_paper(&s, &how, &f, NULL), 0);
	assert_in_range(f.execution.batch, 1, 100);
}

/* GPU memory sets the batch of the T4 and host memory that of the L4; the link binds both. */
static void what_sets_the_batch(void **state)
{
	struct moe_search how = MOE_SEARCH_INIT;
	struct moe_model m = mixtral();
	struct moe_found f;

	(void)state;
	for (int l4 = 0; l4 < 2; l4++) {
		struct moe_hardware h = machine(l4, 1, 184);
		struct moe_setting s = {.model = &m, .hardware = &h, .workload = mtbench(128, true), .variant = MOE_VARIANT_PAPER,
		                        .residual = l4 ? MOE_RESIDUAL_PER_MICRO_BATCH : MOE_RESIDUAL_WHOLE_BATCH};
		struct moe_execution more;
		struct moe_prediction p;

		assert_int_equal(plan_search_paper(&s, &how, &f, NULL), 0);
		assert_int_equal(f.prediction.decode.bottleneck, MOE_LANE_H2D);
		more = f.execution;
		more.batch += 2 * more.micro_batch;
		assert_int_equal(moe_predict(&s, &more, &p, NULL), 0);
		assert_int_equal(p.memory[1].used.total > p.memory[1].available, l4);
		assert_int_equal(p.memory[0].used.total > p.memory[0].available * (1 + 1e-9), !l4);
	}
}

static void what_does_not_fit_is_said(void **state)
{
	struct moe_search how = MOE_SEARCH_INIT;
	struct moe_hardware h = machine(false, 1, 64);
	struct moe_model m = mixtral();
	struct moe_setting s = {.model = &m, .hardware = &h, .workload = mtbench(128, true), .variant = MOE_VARIANT_PAPER};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_found f;

	(void)state;
	assert_int_equal(plan_search_paper(&s, &how, &f, &e), MOE_E_RANGE);
	assert_non_null(strstr(e.msg, "of cpu memory"));
	how.latency_bound = 1;
	assert_int_equal(plan_search_paper(&s, &how, &f, &e), MOE_E_UNSUPPORTED);
}

/* ---- section 5: the case study, 8x7B on an L4 ---- */

/* What the figures were drawn with: 242 and 1.3 TFLOP/s, 300, 100 and 16 GB/s. */
static struct moe_hardware case_study(void)
{
	struct moe_hardware h = machine(true, 1, 192);

	h.levels[0].bandwidth = 300e9;
	h.levels[0].flops[MOE_FLOPS_F16] = 242e12;
	h.levels[1].bandwidth = 100e9;
	h.levels[1].flops[MOE_FLOPS_F32] = 1.3e12;
	h.links[0].bandwidth = 16e9;
	return h;
}

static struct moe_roofline roof(const struct moe_hardware *h, int i, int j, double at_i, double at_j)
{
	struct moe_roofline r;

	assert_int_equal(moe_roofline(h, MOE_FLOPS_F16, i, j, at_i, at_j, &r, NULL), 0);
	return r;
}

/* To three digits. */
static void digits(double value, double expected)
{
	near(value, expected, 0.005 * fabs(expected));
}

/* FLOP/byte of the experts of a layer by the paper's counting, all rows in one call. */
static double ffn_intensity(double rows)
{
	return plan_paper_ffn_flops(4096, 14336, 2, rows) / plan_paper_ffn_bytes(4096, 14336, 8, rows);
}

/* Where a value rises to `target`: bisection. */
static double rows_for(double target)
{
	double low = 1, high = 1e6;

	while (high - low > 1e-6 * high) {
		double middle = (low + high) / 2;

		if (ffn_intensity(middle) < target)
			low = middle;
		else
			high = middle;
	}
	return low;
}

static void ridges(void **state)
{
	struct moe_hardware h = case_study(), t4 = machine(false, 1, 184);

	(void)state;
	digits(h.levels[1].flops[MOE_FLOPS_F32] / h.levels[1].bandwidth, 13);
	digits(h.levels[0].flops[MOE_FLOPS_F16] / h.levels[0].bandwidth, 806.7);
	digits(t4.levels[0].flops[MOE_FLOPS_F16] / t4.levels[0].bandwidth, 202);
	digits(t4.levels[1].flops[MOE_FLOPS_F32] / t4.levels[1].bandwidth, 7.45);
	/* At its ridge a processor reaches its peak and memory binds no more. */
	digits(roof(&h, 1, 1, 13, 13).attainable, 1.3e12);
	digits(roof(&h, 0, 0, 806.7, 806.7).attainable, 242e12);
	assert_string_equal(roof(&h, 1, 1, 12.9, 12.9).binds, "memory");
	assert_string_equal(roof(&h, 1, 1, 13.1, 13.1).binds, "compute");
}

static void first_turning_point(void **state)
{
	struct moe_hardware h = case_study(), t4 = machine(false, 1, 184);

	(void)state;
	digits(roof(&h, 0, 1, 100, 100).p1, 81.25);
	digits(roof(&t4, 0, 1, 100, 100).p1, 46.6);
	digits(rows_for(81.25), 327);
	/* A GPU that is no faster than the host at that intensity is never worth a transfer. */
	h.levels[0].bandwidth = 1e9;
	assert_true(isinf(roof(&h, 0, 1, 100, 100).p1));
}

static void intensity_of_the_experts(void **state)
{
	(void)state;
	digits(ffn_intensity(32), 8.00);
	digits(ffn_intensity(128), 31.95);
	digits(ffn_intensity(1024), 252.6);
	digits(ffn_intensity(16384), 3373);
}

/* A call of 128 rows reaches 9.58 TFLOP/s on the GPU; below P2 the link binds. */
static void second_turning_point(void **state)
{
	struct moe_hardware h = case_study();
	struct moe_roofline r = roof(&h, 0, 1, ffn_intensity(128), 100);

	(void)state;
	digits(roof(&h, 0, 0, ffn_intensity(128), 0).attainable, 9.58e12);
	digits(r.p2, 599);
	digits(r.balance, 599);
	digits(rows_for(r.p2), 2474);
	digits(128 * 300 / 16.0, 2400); /* without the activations' bytes */
}

static void attention_stays_on_the_host(void **state)
{
	struct moe_hardware h = case_study();
	/* Of one token: 512 keys of 32 heads, and the bytes of keys and values of 8. */
	double flops = 2.0 * 512 * 4096, f16 = 2.0 * 2 * 512 * 1024, int4 = f16 / 4;

	(void)state;
	digits(flops / f16, 2.0);
	digits(flops / int4, 8.0);
	assert_true(flops / int4 < roof(&h, 0, 1, 8, 8).p1);
	digits(roof(&h, 1, 1, 2, 2).attainable, 200e9);
	digits(roof(&h, 0, 1, 2, 2).attainable, 32e9);
}

static void attainable_of_the_experts(void **state)
{
	struct moe_hardware h = case_study();

	(void)state;
	digits(roof(&h, 1, 1, ffn_intensity(32), 0).attainable, 0.80e12);
	digits(roof(&h, 0, 1, ffn_intensity(32), ffn_intensity(32)).attainable, 0.128e12);
	digits(roof(&h, 1, 1, ffn_intensity(128), 0).attainable, 1.3e12);
	digits(roof(&h, 0, 1, ffn_intensity(128), ffn_intensity(128)).attainable, 0.511e12);
	digits(roof(&h, 0, 1, ffn_intensity(128), ffn_intensity(1024)).attainable, 4.04e12);
	assert_string_equal(roof(&h, 0, 1, ffn_intensity(128), ffn_intensity(1024)).binds, "link");
	digits(roof(&h, 0, 1, ffn_intensity(128), ffn_intensity(16384)).attainable, 9.58e12);
	assert_string_equal(roof(&h, 0, 1, ffn_intensity(128), ffn_intensity(16384)).binds, "memory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(policies_on_a_t4),
		cmocka_unit_test(policies_on_an_l4),
		cmocka_unit_test(policies_of_larger_models),
		cmocka_unit_test(times_by_hand),
		cmocka_unit_test(attention_on_the_gpu),
		cmocka_unit_test(fixed_sizes_are_kept),
		cmocka_unit_test(what_sets_the_batch),
		cmocka_unit_test(what_does_not_fit_is_said),
		cmocka_unit_test(ridges),
		cmocka_unit_test(first_turning_point),
		cmocka_unit_test(intensity_of_the_experts),
		cmocka_unit_test(second_turning_point),
		cmocka_unit_test(attention_stays_on_the_host),
		cmocka_unit_test(attainable_of_the_experts),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
