/* What no prediction of the full model may say, whatever the policy: a layer that is faster than its busiest lane, numbers that are
 * none, memory that is not there. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "plan/private.h"

static const char *const machines[] = {"t4", "t4x8", "l4x2", "h100x8", "rtx4090@epyc-2s", "epyc-1s", "desktop-ddr4"};
static const char *const models[] = {"mixtral-8x7b", "deepseek-v3", "qwen3-30b-a3b", "gpt-oss-120b"};

#define COUNT(a) (int)(sizeof(a) / sizeof(a)[0])

static uint64_t state;

static int below(int n)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (int)((state >> 33) % (uint64_t)n);
}

/* 1 to 65536, small ones as often as large ones. */
static int64_t size(void)
{
	return 1 + below(1 << below(17));
}

/* Shares of a few levels, or all on one. */
static void shares(double *share, int levels)
{
	double sum = 0;

	for (int i = 0; i < levels; i++)
		sum += share[i] = below(2) ? below(1000) : 0;
	if (sum <= 0)
		share[below(levels)] = sum = 1;
	for (int i = 0; i < levels; i++)
		share[i] /= sum;
}

static struct moe_execution any_execution(const struct moe_hardware *h)
{
	struct moe_execution x = {.schedule = (enum moe_schedule)below(MOE_SCHEDULES), .batch = size(), .attention_on = below(h->n_levels),
	                          .ffn_on = below(h->n_levels)};

	x.micro_batch = (x.batch + size() - 1) / size();
	x.micro_batch = x.micro_batch > x.batch ? x.batch : x.micro_batch;
	x.micro_batch = x.micro_batch < 1 ? 1 : x.micro_batch;
	x.prefill_micro_batch = 1 + below((int)x.batch);
	shares(x.weights, h->n_levels);
	shares(x.kv, h->n_levels);
	return x;
}

static void check_layer(const struct moe_layer_time *t)
{
	assert_true(t->seconds > 0 && isfinite(t->seconds));
	for (int i = 0; i < MOE_LANES; i++)
		if (t->lanes[i].total > t->seconds * (1 + 1e-9))
			fail_msg("%s is busy for %g s of %g", moe_lane_name((enum moe_lane)i), t->lanes[i].total, t->seconds);
}

static void check(const struct moe_setting *s, const struct moe_prediction *p)
{
	check_layer(&p->decode);
	check_layer(&p->prefill);
	assert_true(p->step_seconds >= p->decode.seconds * s->model->n_layers);
	assert_true(p->tokens_per_second > 0 && isfinite(p->tokens_per_second));
	for (int i = 0; i < s->hardware->n_levels; i++)
		assert_true(p->memory[i].used.total >= 0 && isfinite(p->memory[i].used.total));
}

/* Policies by chance; of those that make sense, the number that were looked at. */
static int policies(const struct moe_setting *s, int tries)
{
	struct moe_prediction p;
	int n = 0;

	for (int i = 0; i < tries; i++) {
		struct moe_execution x = any_execution(s->hardware);

		if (moe_predict(s, &x, &p, NULL) != 0)
			continue;
		check(s, &p);
		n++;
	}
	return n;
}

static void no_layer_is_faster_than_its_lanes(void **unused)
{
	(void)unused;
	state = 1;
	for (int m = 0; m < COUNT(models); m++)
		for (int h = 0; h < COUNT(machines); h++) {
			struct moe_model model;
			struct moe_fleet f;

			assert_int_equal(moe_named_model(models[m], &model, NULL), 0);
			assert_int_equal(moe_hardware_named(machines[h], &f, NULL), 0);
			struct moe_setting s = {.model = &model, .hardware = f.hosts, .quants = MOE_QUANTS_INIT, .kv_bytes = 2};

			s.workload = (struct moe_workload){.prompt_mean = 1 + below(4000), .generate = 1 + below(400)};
			assert_true(policies(&s, 2000) > 5);
			moe_fleet_free(&f);
			moe_model_free(&model);
		}
}

/* A file can be mapped into the host's memory, where experts are read as they are needed; a GPU needs room for them. */
static void a_gpu_maps_no_file(void **unused)
{
	struct moe_execution x = {.schedule = MOE_SCHEDULE_RESIDENT, .batch = 1, .micro_batch = 1, .kv = {1}, .weights = {0.5, 0, 0.5}};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_prediction p;
	struct moe_model model;
	struct moe_fleet f;

	(void)unused;
	assert_int_equal(moe_named_model("mixtral-8x7b", &model, NULL), 0);
	assert_int_equal(moe_hardware_named("t4", &f, NULL), 0);
	struct moe_setting s = {.model = &model, .hardware = f.hosts, .quants = MOE_QUANTS_INIT, .kv_bytes = 2};

	assert_int_equal(moe_workload_named("chat", &s.workload, NULL), 0);
	assert_int_equal(moe_predict(&s, &x, &p, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "experts of gpu lie on disk"));
	x.ffn_on = 1;
	x.weights[0] = 0;
	x.weights[1] = 0.5;
	assert_int_equal(moe_predict(&s, &x, &p, &e), 0);
	moe_fleet_free(&f);
	moe_model_free(&model);
}

/* Devices that share a layer all have its rows: eight hold eight times as many hidden states as one, and what they add up goes
 * through the host's memory. */
static void devices_have_rows_each(void **unused)
{
	struct moe_execution x = {.schedule = MOE_SCHEDULE_FLEXGEN, .batch = 64, .micro_batch = 32, .prefill_micro_batch = 1, .kv = {1}, .weights = {1}};
	struct moe_prediction one, eight;
	struct moe_model model;
	struct moe_fleet f;

	(void)unused;
	assert_int_equal(moe_named_model("mixtral-8x7b", &model, NULL), 0);
	assert_int_equal(moe_hardware_named("t4x8", &f, NULL), 0);
	struct moe_setting s = {.model = &model, .hardware = f.hosts, .quants = MOE_QUANTS_INIT, .kv_bytes = 2};

	assert_int_equal(moe_workload_named("mtbench", &s.workload, NULL), 0);
	assert_int_equal(moe_predict(&s, &x, &eight, NULL), 0);
	f.hosts->levels[0].count = 1;
	assert_int_equal(moe_predict(&s, &x, &one, NULL), 0);
	assert_true(plan_term(&eight.memory[0].used, "hidden states") == 8 * plan_term(&one.memory[0].used, "hidden states"));
	/* Twice a layer 64 rows of 4096 in two bytes, there and back, of each device. */
	assert_true(fabs(plan_term(&eight.decode.lanes[MOE_LANE_CPU], "copies") / (2 * 2 * 8 * 64 * 4096 * 2 / f.hosts->levels[1].bandwidth) - 1) < 1e-9);
	assert_true(plan_term(&one.decode.lanes[MOE_LANE_CPU], "copies") == 0);
	moe_fleet_free(&f);
	moe_model_free(&model);
}

/* Two processors of one host are two devices of a placement, and one host all the same. */
static void a_host_of_two_devices_is_one(void **unused)
{
	struct moe_execution x = {.batch = 1, .micro_batch = 1, .kv = {1}, .weights = {1}};
	struct moe_prediction alone, placed;
	struct moe_placement placement;
	struct moe_model model;
	struct moe_fleet f;

	(void)unused;
	assert_int_equal(moe_named_model("mixtral-8x7b", &model, NULL), 0);
	assert_int_equal(moe_hardware_named("epyc-1s", &f, NULL), 0);
	assert_int_equal(moe_place_round_robin(&model, 2, &placement, NULL), 0);
	struct moe_setting s = {.model = &model, .hardware = f.hosts, .quants = MOE_QUANTS_INIT, .kv_bytes = 2};

	assert_int_equal(moe_workload_named("mtbench", &s.workload, NULL), 0);
	assert_int_equal(moe_predict(&s, &x, &alone, NULL), 0);
	s.fleet = &f;
	s.placement = &placement;
	assert_int_equal(moe_predict(&s, &x, &placed, NULL), 0);
	assert_true(placed.fits && placed.memory[0].used.total == alone.memory[0].used.total);
	moe_placement_free(&placement);
	moe_fleet_free(&f);
	moe_model_free(&model);
}

/* What is refused for a batch of its size says so. */
static void a_batch_that_cannot_be_is_named(void **unused)
{
	struct moe_search how = MOE_SEARCH_INIT;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_found found;
	struct moe_model model;
	struct moe_fleet f;

	(void)unused;
	assert_int_equal(moe_named_model("mixtral-8x7b", &model, NULL), 0);
	assert_int_equal(moe_hardware_named("t4", &f, NULL), 0);
	struct moe_setting s = {.model = &model, .hardware = f.hosts, .quants = MOE_QUANTS_INIT, .kv_bytes = 2, .variant = MOE_VARIANT_PAPER};

	assert_int_equal(moe_workload_named("mtbench", &s.workload, NULL), 0);
	how.batch = 100000000;
	assert_int_equal(moe_search(&s, &how, &found, &e), MOE_E_RANGE);
	assert_non_null(strstr(e.msg, "a batch of 100000000 does not fit"));
	moe_fleet_free(&f);
	moe_model_free(&model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_layer_is_faster_than_its_lanes),
		cmocka_unit_test(a_gpu_maps_no_file),
		cmocka_unit_test(devices_have_rows_each),
		cmocka_unit_test(a_host_of_two_devices_is_one),
		cmocka_unit_test(a_batch_that_cannot_be_is_named),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
