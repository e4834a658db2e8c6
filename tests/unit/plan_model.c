/* The full model: properties that hold whatever the numbers, and what it says of cases that can be counted by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "plan/private.h"

/* ---- machines, models, policies ---- */

enum { GPU, CPU, DISK };

static struct moe_hardware machine(void)
{
	struct moe_hardware h = {.name = "test", .n_levels = 3, .n_links = 4, .network_bandwidth = 1.25e9, .network_latency = 5e-5};

	h.levels[GPU] = (struct moe_memory_level){.name = "gpu", .count = 1, .memory = 16e9, .bandwidth = 300e9, .call = 5e-6};
	h.levels[GPU].flops[MOE_FLOPS_F16] = 65e12;
	h.levels[CPU] = (struct moe_memory_level){.name = "cpu", .count = 1, .memory = 192e9, .bandwidth = 100e9, .call = 5e-6};
	h.levels[CPU].flops[MOE_FLOPS_F32] = 0.8e12;
	h.levels[CPU].flops[MOE_FLOPS_I8] = 3.2e12;
	h.levels[DISK] = (struct moe_memory_level){.name = "disk", .count = 1, .memory = 1e12};
	h.links[0] = (struct moe_link){CPU, GPU, 16e9, 1e-5, false};
	h.links[1] = (struct moe_link){GPU, CPU, 16e9, 1e-5, false};
	h.links[2] = (struct moe_link){DISK, CPU, 2e9, 1e-4, true};
	h.links[3] = (struct moe_link){CPU, DISK, 2e9, 1e-4, true};
	return h;
}

static const char *const models[] = {"mixtral-8x7b", "qwen3-30b-a3b", "qwen1.5-moe-a2.7b", "tiny-qwen2-moe", "deepseek-v3", "gpt-oss-120b", "dbrx"};
#define N_MODELS (sizeof models / sizeof *models)

static struct moe_setting setting(const struct moe_model *m, const struct moe_hardware *h)
{
	struct moe_setting s = {.model = m, .hardware = h, .quants = MOE_QUANTS_INIT, .kv_bytes = 2};

	s.workload = (struct moe_workload){.name = "test", .prompt_mean = 256, .prompt_max = 256, .generate = 64};
	return s;
}

/* A policy that the schedule allows, with something at every level. */
static struct moe_execution policy(enum moe_schedule schedule)
{
	struct moe_execution x = {.schedule = schedule, .batch = 96, .micro_batch = 24, .prefill_micro_batch = 8,
	                          .attention_on = CPU, .ffn_on = GPU, .weights = {0.1, 0.8, 0.1}, .kv = {0, 1, 0}};

	if (schedule == MOE_SCHEDULE_RESIDENT) {
		x.ffn_on = CPU;
		x.weights[GPU] = 0;
		x.weights[CPU] = 0.9;
	} else if (schedule == MOE_SCHEDULE_FLEXGEN || schedule == MOE_SCHEDULE_ZERO) {
		x.attention_on = GPU;
		x.kv[GPU] = 0.5;
		x.kv[CPU] = 0.5;
	}
	return x;
}

static double throughput(const struct moe_setting *s, const struct moe_execution *x)
{
	struct moe_prediction p;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_predict(s, x, &p, &e) != 0)
		fail_msg("%s", e.msg);
	assert_true(p.tokens_per_second > 0 && isfinite(p.tokens_per_second));
	return p.tokens_per_second;
}

/* ---- more of anything is never worse ---- */

/* The i-th number of the hardware that more of is better; NULL: there are no more. */
static double *number(struct moe_hardware *h, int i)
{
	struct moe_memory_level *l = &h->levels[i / 6];

	if (i < 18)
		return i % 6 == 0 ? &l->memory : i % 6 == 1 ? &l->bandwidth : &l->flops[i % 6 - 2];
	if (i < 18 + h->n_links)
		return &h->links[i - 18].bandwidth;
	return i == 18 + h->n_links ? &h->network_bandwidth : NULL;
}

static void more_never_hurts(const struct moe_setting *s, const struct moe_execution *x)
{
	struct moe_hardware h = *s->hardware;
	struct moe_setting better = *s;
	double *n, before = throughput(s, x);

	better.hardware = &h;
	for (int i = 0; (n = number(&h, i)); i++) {
		double was = *n;

		for (double factor = 1.3; was > 0 && factor < 1000; factor *= 3) {
			*n = was * factor;
			if (throughput(&better, x) < before * (1 - 1e-12))
				fail_msg("schedule %d, number %d times %g", x->schedule, i, factor);
		}
		*n = was;
	}
}

static void more_hardware_is_never_slower(void **state)
{
	struct moe_hardware h = machine();

	(void)state;
	for (size_t i = 0; i < N_MODELS; i++) {
		struct moe_model m;
		struct moe_setting s;

		assert_int_equal(moe_named_model(models[i], &m, NULL), 0);
		for (int k = 0; k < MOE_SCHEDULES; k++)
			for (int quant = 0; quant < 2; quant++) {
				struct moe_execution x = policy((enum moe_schedule)k);

				s = setting(&m, &h);
				s.quants.experts = s.quants.rest = quant ? MOE_Q_Q4 : MOE_Q_KEEP;
				more_never_hurts(&s, &x);
			}
		moe_model_free(&m);
	}
}

/* ---- sums ---- */

static void adds_up(const struct moe_sum *s)
{
	double sum = 0;

	for (int i = 0; i < s->n; i++) {
		assert_true(s->terms[i].amount > 0);
		sum += s->terms[i].amount;
	}
	assert_true(fabs(sum - s->total) <= 1e-9 * s->total);
	assert_true(s->n < MOE_TERMS);
}

static void terms_add_up(void **state)
{
	struct moe_hardware h = machine();
	struct moe_model m;

	(void)state;
	assert_int_equal(moe_synth_model("mixtral-8x7b", &m, NULL), 0);
	for (int k = 0; k < MOE_SCHEDULES; k++) {
		struct moe_setting s = setting(&m, &h);
		struct moe_execution x = policy((enum moe_schedule)k);
		struct moe_prediction p;

		assert_int_equal(moe_predict(&s, &x, &p, NULL), 0);
		for (int i = 0; i < h.n_levels; i++)
			adds_up(&p.memory[i].used);
		for (int i = 0; i < MOE_LANES; i++) {
			adds_up(&p.decode.lanes[i]);
			adds_up(&p.prefill.lanes[i]);
			assert_true(p.decode.lanes[i].total <= p.decode.seconds * (1 + 1e-9));
			assert_true(p.decode.lanes[i].total <= p.decode.lanes[p.decode.bottleneck].total);
		}
	}
	moe_model_free(&m);
}

/* All weights and the cache are somewhere: the shares of a level are its part of what there is. */
static void memory_is_what_there_is(void **state)
{
	struct moe_hardware h = machine();
	struct moe_model m;
	struct moe_setting s;
	struct moe_execution x = policy(MOE_SCHEDULE_CGOPIPE);
	struct moe_prediction p;
	double weights = 0, cache;

	(void)state;
	assert_int_equal(moe_synth_model("mixtral-8x7b", &m, NULL), 0);
	s = setting(&m, &h);
	assert_int_equal(moe_predict(&s, &x, &p, NULL), 0);
	for (int i = 0; i < h.n_levels; i++)
		weights += plan_term(&p.memory[i].used, "experts") + plan_term(&p.memory[i].used, "base weights");
	assert_true(fabs(weights / (2.0 * (double)moe_model_parameters(&m, false)) - 1) < 1e-6);
	cache = 96.0 * 320 * (double)moe_model_kv_bytes_per_token(&m, 2);
	assert_true(fabs(plan_term(&p.memory[CPU].used, "kv cache") / cache - 1) < 1e-9);
	h.levels[GPU].memory = 24e9;
	h.levels[CPU].memory = p.memory[CPU].used.total / 0.95 * 1.001;
	assert_int_equal(moe_predict(&s, &x, &p, NULL), 0);
	assert_true(p.fits);
	h.levels[CPU].memory *= 0.99;
	assert_int_equal(moe_predict(&s, &x, &p, NULL), 0);
	assert_false(p.fits);
	moe_model_free(&m);
}

/* ---- operations ---- */

/* Of one token: two FLOP for every weight that is used, and attention's two products. */
static void flops_are_those_of_the_weights(void **state)
{
	struct moe_hardware h = machine();

	(void)state;
	for (size_t i = 0; i < N_MODELS; i++) {
		struct moe_op ops[MOE_OPS];
		struct moe_model m;
		struct moe_setting s;
		double flops = 0, attention = 0, expected;
		int n;

		assert_int_equal(moe_named_model(models[i], &m, NULL), 0);
		s = setting(&m, &h);
		for (int l = -1; l < m.n_layers; l++) {
			moe_layer_ops(&s, l, 1, 100, ops, &n);
			assert_in_range(n, 1, MOE_OPS);
			for (int k = 0; k < n; k++)
				*(ops[k].kind == MOE_OP_ATTENTION ? &attention : &flops) += ops[k].flops;
		}
		expected = 2.0 * ((double)moe_model_parameters(&m, true) - (double)m.vocab * m.hidden);
		assert_true(fabs(flops / expected - 1) < 0.02); /* norms and biases are weights too */
		expected = 100.0 * m.n_layers * moe_attention_operations(&m.layers[0].attn);
		assert_true(fabs(attention / expected - 1) < 1e-9);
		moe_model_free(&m);
	}
}

static const struct moe_op *find(const struct moe_op *ops, int n, enum moe_op_kind k)
{
	for (int i = 0; i < n; i++)
		if (ops[i].kind == k)
			return &ops[i];
	fail_msg("there is no %s", moe_op_name(k));
	return NULL;
}

static void a_window_bounds_what_is_read(void **state)
{
	struct moe_hardware h = machine();
	struct moe_op ops[MOE_OPS];
	struct moe_model m;
	struct moe_setting s;
	double all;
	int n;

	(void)state;
	assert_int_equal(moe_synth_model("tiny-mixtral", &m, NULL), 0);
	s = setting(&m, &h);
	moe_layer_ops(&s, 0, 4, 64, ops, &n);
	all = find(ops, n, MOE_OP_ATTENTION)->kv;
	m.layers[0].attn.window = 16;
	moe_layer_ops(&s, 0, 4, 64, ops, &n);
	assert_true(fabs(find(ops, n, MOE_OP_ATTENTION)->kv / all - 0.25) < 1e-9);
	moe_layer_ops(&s, 0, 4, 8, ops, &n);
	assert_true(fabs(find(ops, n, MOE_OP_ATTENTION)->kv / all - 0.125) < 1e-9);
	moe_model_free(&m);
}

/* What MLA keeps of a position is one vector for all heads. */
static void mla_keeps_little(void **state)
{
	struct moe_hardware h = machine();
	struct moe_op ops[MOE_OPS];
	struct moe_model m;
	struct moe_setting s;
	int n;

	(void)state;
	assert_int_equal(moe_named_model("deepseek-v3", &m, NULL), 0);
	s = setting(&m, &h);
	moe_layer_ops(&s, 10, 1, 1000, ops, &n);
	assert_true(find(ops, n, MOE_OP_ATTENTION)->kv == 1000 * (512 + 64) * 2);
	assert_true(find(ops, n, MOE_OP_ATTENTION)->rows == 128);
	assert_true(find(ops, n, MOE_OP_ATTENTION)->flops == 1000 * 2.0 * 128 * (2 * 512 + 64));
	assert_non_null(find(ops, n, MOE_OP_SHARED));
	moe_layer_ops(&s, 0, 1, 1000, ops, &n);
	assert_non_null(find(ops, n, MOE_OP_DENSE));
	moe_model_free(&m);
}

static void codes_are_smaller_and_multiplied_as_such(void **state)
{
	static const double bits[MOE_QUANTS] = {[MOE_Q_F32] = 32, [MOE_Q_F16] = 16, [MOE_Q_BF16] = 16, [MOE_Q_Q8] = 8.0625,
	                                        [MOE_Q_Q4] = 4.1875, [MOE_Q_Q3] = 3.3125, [MOE_Q_Q2] = 2.5625};
	struct moe_hardware h = machine();
	struct moe_op ops[MOE_OPS];
	struct moe_model m;
	struct moe_setting s;
	int n;

	(void)state;
	assert_int_equal(moe_synth_model("mixtral-8x7b", &m, NULL), 0);
	s = setting(&m, &h);
	for (int q = 0; q < MOE_QUANTS; q++) {
		const struct moe_op *op;

		s.quants.experts = (enum moe_quant)q;
		s.exact = false;
		moe_layer_ops(&s, 0, 1e6, 1, ops, &n);
		op = find(ops, n, MOE_OP_EXPERTS);
		assert_true(fabs(op->weights / (3.0 * 8 * 4096 * 14336 * bits[q] / 8) - 1) < 1e-3);
		assert_int_equal(op->type == MOE_FLOPS_I8, moe_quant_is_coded((enum moe_quant)q));
		assert_int_equal(op->kernel, q);
		s.exact = true;
		moe_layer_ops(&s, 0, 1e6, 1, ops, &n);
		assert_true(find(ops, n, MOE_OP_EXPERTS)->type != MOE_FLOPS_I8);
	}
	moe_model_free(&m);
}

/* ---- distinct experts ---- */

static void distinct_experts_uniformly(void **state)
{
	struct moe_hardware h = machine();
	struct moe_model m;
	struct moe_setting s;
	double before = 0;

	(void)state;
	assert_int_equal(moe_synth_model("mixtral-8x7b", &m, NULL), 0);
	s = setting(&m, &h);
	assert_true(fabs(moe_distinct_experts(&s, 0, 1) - 2) < 1e-9);
	assert_true(fabs(moe_distinct_experts(&s, 0, 2) - 3.5) < 1e-9);
	for (double rows = 1; rows < 1000; rows *= 2) {
		double d = moe_distinct_experts(&s, 0, rows);

		assert_true(d >= before && d <= 8);
		before = d;
	}
	assert_true(fabs(before - 8) < 1e-9);
	moe_model_free(&m);
}

static void distinct_experts_by_usage(void **state)
{
	static const int32_t pair[] = {0, 1};
	static const float weights[] = {0.5f, 0.5f};
	struct moe_hardware h = machine();
	struct moe_usage u;
	struct moe_model m;
	struct moe_setting s;

	(void)state;
	assert_int_equal(moe_synth_model("mixtral-8x7b", &m, NULL), 0);
	assert_int_equal(moe_usage_new(&m, "", &u, NULL), 0);
	s = setting(&m, &h);
	s.usage = &u;
	assert_true(fabs(moe_distinct_experts(&s, 0, 2) - 3.5) < 1e-9); /* nothing was counted */
	moe_usage_add(&u, 0, false, pair, weights, 2);
	assert_true(fabs(moe_distinct_experts(&s, 0, 100) - 2) < 1e-9);
	assert_true(moe_distinct_experts(&s, 1, 100) > 7.9);
	moe_usage_free(&u);
	moe_model_free(&m);
}

/* ---- the roofline ---- */

static void limits_are_where_roofs_meet(void **state)
{
	struct moe_hardware h = machine();

	(void)state;
	for (double at_gpu = 0.5; at_gpu < 1000; at_gpu *= 3)
		for (double at_cpu = 0.5; at_cpu < 20000; at_cpu *= 1.7) {
			struct moe_roofline r, gpu, cpu;
			double link = 16e9 * at_cpu;

			assert_int_equal(moe_roofline(&h, MOE_FLOPS_F16, GPU, CPU, at_gpu, at_cpu, &r, NULL), 0);
			assert_int_equal(moe_roofline(&h, MOE_FLOPS_F16, GPU, GPU, at_gpu, at_gpu, &gpu, NULL), 0);
			assert_int_equal(moe_roofline(&h, MOE_FLOPS_F16, CPU, CPU, at_cpu, at_cpu, &cpu, NULL), 0);
			assert_true(r.attainable == fmin(gpu.attainable, link));
			assert_int_equal(strcmp(r.binds, "link") == 0, at_cpu < r.p2 && link < gpu.attainable);
			assert_int_equal(at_cpu < r.p1, cpu.attainable > link || cpu.attainable >= gpu.attainable);
			assert_true(fabs(r.balance * 16e9 / (300e9 * at_gpu) - 1) < 1e-12);
		}
}

/* ---- on the host alone ---- */

static const struct moe_execution on_cpu = {.schedule = MOE_SCHEDULE_RESIDENT, .batch = 8, .micro_batch = 8, .prefill_micro_batch = 8,
                                            .attention_on = CPU, .ffn_on = CPU, .weights = {0, 1}, .kv = {0, 1}};

/* A decode step of one sequence reads the weights that are used, once. */
static void a_step_reads_what_it_uses(void **state)
{
	struct moe_hardware h = machine();
	struct moe_execution x = on_cpu;
	struct moe_prediction p;
	struct moe_model m;
	struct moe_setting s;
	double used;

	(void)state;
	assert_int_equal(moe_synth_model("mixtral-8x7b", &m, NULL), 0);
	s = setting(&m, &h);
	h.levels[CPU].call = 0;
	x.batch = x.micro_batch = x.prefill_micro_batch = 1;
	assert_int_equal(moe_predict(&s, &x, &p, NULL), 0);
	used = 2.0 * ((double)moe_model_parameters(&m, true) - (double)m.vocab * m.hidden);
	assert_true(p.step_seconds > used / 100e9 && p.step_seconds < 1.02 * used / 100e9);
	assert_int_equal(p.decode.bottleneck, MOE_LANE_CPU);
	moe_model_free(&m);
}

/* Experts in a mapped file are read when they are touched: eight tokens of Mixtral touch most, one touches two. */
static void a_mapped_file_is_read_for_what_is_touched(void **state)
{
	struct moe_hardware h = machine();
	struct moe_execution x = on_cpu;
	struct moe_prediction p;
	struct moe_model m;
	struct moe_setting s;

	(void)state;
	assert_int_equal(moe_synth_model("mixtral-8x7b", &m, NULL), 0);
	s = setting(&m, &h);
	x.weights[CPU] = 0;
	x.weights[DISK] = 1;
	x.batch = x.micro_batch = x.prefill_micro_batch = 1;
	assert_int_equal(moe_predict(&s, &x, &p, NULL), 0);
	assert_true(fabs(p.decode.lanes[MOE_LANE_DISK].total / (2 * 6.0 * 4096 * 14336 / 2e9 + 1e-4) - 1) < 1e-9);
	assert_true(p.decode.seconds >= p.decode.lanes[MOE_LANE_DISK].total + p.decode.lanes[MOE_LANE_CPU].total);
	assert_true(plan_term(&p.memory[CPU].used, "experts") == 0);
	moe_model_free(&m);
}

/* A kernel's measured rate takes the place of the roofs; experts get rows by chance, so rates between are met too. */
static void measured_kernels_count(void **state)
{
	struct moe_hardware h = machine();
	struct moe_kernel_roof *k = &h.levels[CPU].kernels[MOE_Q_BF16];
	struct moe_prediction roofs, same, slow;
	struct moe_model m;
	struct moe_setting s;

	(void)state;
	assert_int_equal(moe_synth_model("mixtral-8x7b", &m, NULL), 0);
	s = setting(&m, &h);
	assert_int_equal(moe_predict(&s, &on_cpu, &roofs, NULL), 0);
	*k = (struct moe_kernel_roof){.n = 2, .rows = {1, 8}, .bandwidth = {100e9, 100e9}}; /* 8 FLOP/byte is the ridge */
	assert_int_equal(moe_predict(&s, &on_cpu, &same, NULL), 0);
	assert_true(fabs(same.decode.seconds / roofs.decode.seconds - 1) < 0.01);
	k->bandwidth[1] = 50e9;
	assert_int_equal(moe_predict(&s, &on_cpu, &slow, NULL), 0);
	assert_true(slow.decode.seconds > 1.1 * same.decode.seconds && slow.decode.seconds < 2 * same.decode.seconds);
	moe_model_free(&m);
}

/* ---- several hosts ---- */

struct spread {
	struct moe_hardware hosts[3];
	struct moe_fleet fleet;
	struct moe_placement placement;
	struct moe_model model;
};

static int third_host(void *ctx, int layer, int expert, int *ids, int cap)
{
	(void)layer;
	(void)cap;
	ids[0] = *(int *)ctx ? expert % 3 : 0;
	return 1;
}

static struct moe_setting spread(struct spread *t, int over)
{
	struct moe_setting s;

	for (int i = 0; i < 3; i++)
		t->hosts[i] = machine();
	t->fleet = (struct moe_fleet){t->hosts, 3};
	assert_int_equal(moe_synth_model("mixtral-8x7b", &t->model, NULL), 0);
	assert_int_equal(moe_placement_make(&t->model, 3, third_host, &over, &t->placement, NULL), 0);
	s = setting(&t->model, &t->hosts[0]);
	s.fleet = &t->fleet;
	s.placement = &t->placement;
	return s;
}

static void spread_end(struct spread *t)
{
	moe_placement_free(&t->placement);
	moe_model_free(&t->model);
}

static void a_layer_waits_for_the_slowest_host(void **state)
{
	struct spread t;
	struct moe_setting s = spread(&t, 1);
	struct moe_prediction even, slow, far;

	(void)state;
	assert_int_equal(moe_predict(&s, &on_cpu, &even, NULL), 0);
	assert_true(even.decode.lanes[MOE_LANE_NETWORK].total > 2 * 5e-5);
	t.hosts[2].levels[CPU].bandwidth /= 4;
	assert_int_equal(moe_predict(&s, &on_cpu, &slow, NULL), 0);
	assert_true(slow.decode.seconds > even.decode.seconds * 1.5);
	t.hosts[2].levels[CPU].bandwidth *= 4;
	for (int i = 0; i < 3; i++)
		t.hosts[i].network_latency = 5e-3;
	assert_int_equal(moe_predict(&s, &on_cpu, &far, NULL), 0);
	assert_true(fabs(far.decode.seconds - even.decode.seconds - 2 * (5e-3 - 5e-5)) < 1e-4);
	spread_end(&t);
}

/* Three hosts read a third of the experts each; one that holds all of them is as if there were no other. */
static void hosts_share_the_experts(void **state)
{
	struct spread t;
	struct moe_setting s = spread(&t, 1), alone;
	struct moe_prediction three, one;

	(void)state;
	alone = s;
	alone.fleet = NULL;
	alone.placement = NULL;
	assert_int_equal(moe_predict(&s, &on_cpu, &three, NULL), 0);
	assert_int_equal(moe_predict(&alone, &on_cpu, &one, NULL), 0);
	assert_true(plan_term(&three.decode.lanes[MOE_LANE_CPU], "experts") < 0.5 * plan_term(&one.decode.lanes[MOE_LANE_CPU], "experts"));
	assert_true(three.step_seconds < one.step_seconds);
	assert_true(plan_term(&three.memory[CPU].used, "experts") < 0.5 * plan_term(&one.memory[CPU].used, "experts"));
	spread_end(&t);
	s = spread(&t, 0);
	assert_int_equal(moe_predict(&s, &on_cpu, &three, NULL), 0);
	assert_true(three.decode.lanes[MOE_LANE_NETWORK].total == 0);
	assert_true(fabs(three.step_seconds / one.step_seconds - 1) < 1e-9);
	spread_end(&t);
}

/* ---- what makes no sense ---- */

static void refused(const struct moe_setting *s, struct moe_execution x, const char *words)
{
	struct moe_prediction p;
	struct moe_err e = MOE_ERR_INIT;

	assert_int_equal(moe_predict(s, &x, &p, &e), MOE_E_INPUT);
	if (!strstr(e.msg, words))
		fail_msg("\"%s\" does not say \"%s\"", e.msg, words);
}

static void nonsense_is_refused(void **state)
{
	struct moe_hardware h = machine();
	struct moe_model m;
	struct moe_setting s;
	struct moe_execution x = policy(MOE_SCHEDULE_CGOPIPE);

	(void)state;
	assert_int_equal(moe_synth_model("tiny-mixtral", &m, NULL), 0);
	s = setting(&m, &h);
	x.ffn_on = DISK;
	refused(&s, x, "no processor");
	x.ffn_on = 7;
	refused(&s, x, "level 7");
	x = policy(MOE_SCHEDULE_CGOPIPE);
	x.weights[GPU] = 0.5;
	refused(&s, x, "add up to 1.4");
	x.weights[GPU] = NAN;
	refused(&s, x, "share of nan");
	x = policy(MOE_SCHEDULE_CGOPIPE);
	x.micro_batch = 97;
	refused(&s, x, "micro-batches of 97");
	x = policy(MOE_SCHEDULE_CGOPIPE);
	x.attention_on = GPU;
	refused(&s, x, "attention on cpu");
	x = policy(MOE_SCHEDULE_RESIDENT);
	x.ffn_on = GPU;
	refused(&s, x, "nothing moves");
	x = policy(MOE_SCHEDULE_CGOPIPE);
	h.n_links = 0;
	refused(&s, x, "no link");
	s.variant = MOE_VARIANT_PAPER;
	refused(&s, x, "no link");
	x.ffn_on = CPU;
	refused(&s, x, "on a GPU");
	moe_model_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(more_hardware_is_never_slower),
		cmocka_unit_test(terms_add_up),
		cmocka_unit_test(memory_is_what_there_is),
		cmocka_unit_test(flops_are_those_of_the_weights),
		cmocka_unit_test(a_window_bounds_what_is_read),
		cmocka_unit_test(mla_keeps_little),
		cmocka_unit_test(codes_are_smaller_and_multiplied_as_such),
		cmocka_unit_test(distinct_experts_uniformly),
		cmocka_unit_test(distinct_experts_by_usage),
		cmocka_unit_test(limits_are_where_roofs_meet),
		cmocka_unit_test(a_step_reads_what_it_uses),
		cmocka_unit_test(a_mapped_file_is_read_for_what_is_touched),
		cmocka_unit_test(measured_kernels_count),
		cmocka_unit_test(a_layer_waits_for_the_slowest_host),
		cmocka_unit_test(hosts_share_the_experts),
		cmocka_unit_test(nonsense_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
