/* The simulator: it agrees with the model lane by lane, and ranks schedules as their measurements do. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "plan/plan.h"

#define GIB 0x1p30
#define LAYERS 32
#define MIDDLE 7

static struct moe_layer layers[LAYERS];

/* One T4 in a host with 184 GiB free, and Mixtral 8x7B on it, as in MoE-Lightning's setting S1; `disk`: a third level. */
static struct moe_hardware machine(void)
{
	struct moe_hardware h = {.name = "t4", .n_levels = 3, .n_links = 4};

	h.levels[0] = (struct moe_memory_level){.name = "gpu", .count = 1, .memory = 15 * GIB, .bandwidth = 300 * GIB, .call = 5e-6};
	h.levels[0].flops[MOE_FLOPS_F16] = 65e12;
	h.levels[0].flops[MOE_FLOPS_F32] = 8e12;
	h.levels[1] = (struct moe_memory_level){.name = "cpu", .count = 1, .memory = 184 * GIB, .bandwidth = 100 * GIB};
	h.levels[1].flops[MOE_FLOPS_F32] = 0.8e12;
	h.levels[2] = (struct moe_memory_level){.name = "disk", .count = 1, .memory = 1e12};
	h.links[0] = (struct moe_link){.from = 1, .to = 0, .bandwidth = 16 * GIB, .latency = 1e-5};
	h.links[1] = (struct moe_link){.from = 0, .to = 1, .bandwidth = 16 * GIB, .latency = 1e-5};
	h.links[2] = (struct moe_link){.from = 2, .to = 1, .bandwidth = 3e9, .latency = 1e-4};
	h.links[3] = (struct moe_link){.from = 1, .to = 2, .bandwidth = 1e9, .latency = 1e-4};
	return h;
}

static struct moe_model mixtral(void)
{
	struct moe_model m = {.name = "mixtral", .hidden = 4096, .vocab = 32000, .n_layers = LAYERS, .layers = layers};

	for (int i = 0; i < LAYERS; i++) {
		layers[i] = (struct moe_layer){.attn = {.heads = 32, .kv_heads = 8, .head_dim = 128}};
		layers[i].ffn = (struct moe_ffn){.kind = MOE_FFN_MOE, .experts = 8, .expert_width = 14336, .gate = {.top_k = 2}};
	}
	return m;
}

struct rig {
	struct moe_hardware h;
	struct moe_model m;
	struct moe_setting s;
};

static void rig_open(struct rig *r, enum moe_variant variant)
{
	r->h = machine();
	r->m = mixtral();
	r->s = (struct moe_setting){.model = &r->m, .hardware = &r->h, .workload = {"mtbench", 77, 418, 128, true}, .quants = MOE_QUANTS_INIT,
		.kv_bytes = 2, .variant = variant};
}

/* As the schedule has it: attention and its cache on the CPU, or the cache on the way to the GPU, or all on the GPU. */
static struct moe_execution execution(enum moe_schedule schedule, int64_t mu, int64_t batch)
{
	bool cpu = schedule == MOE_SCHEDULE_CGOPIPE || schedule == MOE_SCHEDULE_COALESCED || schedule == MOE_SCHEDULE_FLEXGEN_C;
	bool here = schedule == MOE_SCHEDULE_ZERO || schedule == MOE_SCHEDULE_RESIDENT;

	return (struct moe_execution){.schedule = schedule, .batch = batch, .micro_batch = mu, .prefill_micro_batch = mu, .attention_on = cpu,
		.weights = {schedule == MOE_SCHEDULE_RESIDENT, schedule != MOE_SCHEDULE_RESIDENT}, .kv = {here, !here}};
}

static void near(const char *what, double value, double expected)
{
	if (!(fabs(value - expected) <= 1e-9 * fabs(expected) + 1e-15))
		fail_msg("%s: %.12g is not %.12g", what, value, expected);
}

/* ---- tasks and prediction add up to the same ---- */

static void assert_lanes(const struct moe_graph *g, const struct moe_timeline *t, const struct moe_layer_time *predicted)
{
	double lanes[MOE_LANES] = {0};
	bool cpu_computes = t->busy[MOE_LANE_CPU] > 0;

	for (uint32_t i = 0; i < g->n; i++)
		if (g->tasks[i].step == 0 && g->tasks[i].layer == MIDDLE)
			lanes[g->tasks[i].lane] += t->end[i] - t->begin[i];
	for (int l = 0; l < MOE_LANES; l++)
		if (l != MOE_LANE_CPU || cpu_computes)
			near(moe_lane_name((enum moe_lane)l), lanes[l], predicted->lanes[l].total);
}

static void assert_agree(const struct moe_setting *s, const struct moe_execution *x)
{
	struct moe_prediction p;
	struct moe_timeline t;
	struct moe_graph g;
	struct moe_err e = MOE_ERR_INIT;

	assert_int_equal(moe_predict(s, x, &p, NULL), 0);
	for (int prefill = 0; prefill < 2; prefill++) {
		if (moe_simulate(s, x, prefill, 2, &g, &t, &e))
			fail_msg("%s: %s", moe_schedule_name(x->schedule), e.msg);
		assert_int_equal(moe_graph_check(&g, &e), 0);
		assert_lanes(&g, &t, prefill ? &p.prefill : &p.decode);
		moe_timeline_free(&t);
		moe_graph_free(&g);
	}
}

static void lanes_agree_with_the_model(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r, MOE_VARIANT_FULL);
	for (int i = 0; i < MOE_SCHEDULES; i++)
		for (int64_t mu = 9; mu <= 63; mu += 18) {
			struct moe_execution x = execution((enum moe_schedule)i, mu, 63);

			assert_agree(&r.s, &x);
		}
}

static void lanes_agree_with_the_paper(void **state)
{
	static const enum moe_schedule theirs[] = {MOE_SCHEDULE_CGOPIPE, MOE_SCHEDULE_FLEXGEN, MOE_SCHEDULE_FLEXGEN_C};
	struct rig r;

	(void)state;
	rig_open(&r, MOE_VARIANT_PAPER);
	for (size_t i = 0; i < 3; i++) {
		struct moe_execution x = execution(theirs[i], 36, 504);

		assert_agree(&r.s, &x);
	}
}

/* Where a resident schedule computes, and weights that come from disk. */
static void lanes_agree_wherever_it_runs(void **state)
{
	struct moe_execution x = execution(MOE_SCHEDULE_RESIDENT, 9, 36);
	struct rig r;

	(void)state;
	rig_open(&r, MOE_VARIANT_FULL);
	for (int where = 0; where < 4; where++) {
		x.attention_on = where & 1;
		x.ffn_on = where >> 1;
		for (int i = 0; i < 2; i++) {
			x.kv[i] = i == x.attention_on;
			x.weights[i] = i == x.ffn_on;
		}
		assert_agree(&r.s, &x);
	}
	x = execution(MOE_SCHEDULE_ZERO, 36, 36);
	x.kv[0] = 0.25;
	x.kv[1] = 0.75;
	assert_agree(&r.s, &x);
	x = execution(MOE_SCHEDULE_CGOPIPE, 9, 36);
	x.weights[0] = 0.25;
	x.weights[1] = 0.5;
	x.weights[2] = 0.25;
	assert_agree(&r.s, &x);
}

static void what_has_no_task_is_refused(void **state)
{
	struct moe_execution x = execution(MOE_SCHEDULE_FLEXGEN, 9, 36);
	struct moe_err e = MOE_ERR_INIT;
	struct moe_timeline t;
	struct moe_graph g;
	struct rig r;

	(void)state;
	rig_open(&r, MOE_VARIANT_FULL);
	x.kv[1] = 0.5;
	x.kv[2] = 0.5;
	assert_int_equal(moe_simulate(&r.s, &x, false, 1, &g, &t, &e), MOE_E_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "kv on lane disk"));
	assert_null(g.tasks);
	assert_null(t.begin);
	r.s.variant = MOE_VARIANT_PAPER;
	x = execution(MOE_SCHEDULE_COALESCED, 9, 36);
	assert_int_equal(moe_simulate(&r.s, &x, false, 1, &g, &t, &e), MOE_E_UNSUPPORTED);
	x.batch = 0;
	r.s.variant = MOE_VARIANT_FULL;
	assert_int_equal(moe_simulate(&r.s, &x, false, 1, &g, &t, &e), MOE_E_INPUT);
}

/* ---- the ablation of MoE-Lightning (table 5; one T4, generate 128, padded) ---- */

/* Generated tokens over the time of prefill and decode; the first token comes out of the prefill. */
static double throughput(const struct moe_setting *s, const struct moe_execution *x)
{
	struct moe_timeline prefill, decode;
	struct moe_graph g;
	double seconds;

	assert_int_equal(moe_simulate(s, x, true, 1, &g, &prefill, NULL), 0);
	moe_graph_free(&g);
	assert_int_equal(moe_simulate(s, x, false, 4, &g, &decode, NULL), 0);
	moe_graph_free(&g);
	seconds = prefill.makespan + (s->workload.generate - 1) * decode.step_seconds;
	moe_timeline_free(&prefill);
	moe_timeline_free(&decode);
	return (double)x->batch * s->workload.generate / seconds;
}

/* Measured there: 9.5, 16.8, 20.7, 30.1 tokens a second. */
static void the_ablation_keeps_its_order(void **state)
{
	struct moe_execution rows[] = {execution(MOE_SCHEDULE_FLEXGEN, 8, 1112), execution(MOE_SCHEDULE_FLEXGEN, 36, 504),
		execution(MOE_SCHEDULE_FLEXGEN, 36, 1116), execution(MOE_SCHEDULE_CGOPIPE, 36, 504)};
	struct rig r;
	double is[4];

	(void)state;
	for (int variant = 0; variant < 2; variant++) {
		rig_open(&r, (enum moe_variant)variant);
		for (int i = 0; i < 4; i++) {
			is[i] = throughput(&r.s, &rows[i]);
			assert_true(i == 0 || is[i] > is[i - 1]);
		}
		/* CGOPipe over FlexGen's schedule at the same policy: 30.1 / 16.8. */
		assert_true(fabs(is[3] / is[1] / (30.1 / 16.8) - 1) < 0.1);
	}
}

/* Where one lane binds, playing finds what the formula says. */
static void a_bound_schedule_takes_what_is_predicted(void **state)
{
	static const enum moe_schedule bound[] = {MOE_SCHEDULE_CGOPIPE, MOE_SCHEDULE_ZERO, MOE_SCHEDULE_FLEXGEN};
	struct moe_prediction p;
	struct moe_timeline t;
	struct moe_graph g;
	struct rig r;

	(void)state;
	rig_open(&r, MOE_VARIANT_FULL);
	for (size_t i = 0; i < 3; i++) {
		struct moe_execution x = execution(bound[i], 36, 504);

		assert_int_equal(moe_predict(&r.s, &x, &p, NULL), 0);
		assert_int_equal(moe_simulate(&r.s, &x, false, 3, &g, &t, NULL), 0);
		assert_true(fabs(t.step_seconds / p.step_seconds - 1) < 0.01);
		moe_timeline_free(&t);
		moe_graph_free(&g);
	}
}

/* One micro-batch: its weights are pinned, and read from a disk, while others are on their way to the device. */
static void a_relay_is_filled_while_it_is_emptied(void **state)
{
	static const enum moe_schedule relayed[] = {MOE_SCHEDULE_CGOPIPE, MOE_SCHEDULE_COALESCED, MOE_SCHEDULE_FLEXGEN_C, MOE_SCHEDULE_ZERO};
	struct rig r;

	(void)state;
	rig_open(&r, MOE_VARIANT_FULL);
	for (int i = 0; i < 8; i++) {
		struct moe_execution x = execution(relayed[i / 2], 16, 16);
		struct moe_prediction p;
		struct moe_timeline t;
		struct moe_graph g;

		x.weights[2] = i % 2 ? 0.2 : 0;
		x.weights[1] -= x.weights[2];
		assert_int_equal(moe_predict(&r.s, &x, &p, NULL), 0);
		assert_int_equal(moe_simulate(&r.s, &x, false, 3, &g, &t, NULL), 0);
		if (t.step_seconds > 1.02 * p.step_seconds || t.step_seconds < 0.9 * p.step_seconds)
			fail_msg("%s: %g s, predicted %g", moe_schedule_name(x.schedule), t.step_seconds, p.step_seconds);
		moe_timeline_free(&t);
		moe_graph_free(&g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lanes_agree_with_the_model),
		cmocka_unit_test(lanes_agree_with_the_paper),
		cmocka_unit_test(lanes_agree_wherever_it_runs),
		cmocka_unit_test(what_has_no_task_is_refused),
		cmocka_unit_test(the_ablation_keeps_its_order),
		cmocka_unit_test(a_bound_schedule_takes_what_is_predicted),
		cmocka_unit_test(a_relay_is_filled_while_it_is_emptied),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
