/* The executor in simulated time: to the nanosecond what playing the graph gives, whatever its threads do. */
#include <math.h>

#include "executor_rig.h"
#include "plan/plan.h"

static double seconds(void *ctx, const struct moe_task *t)
{
	(void)ctx;
	return (double)((t->kind * 31 + t->layer * 17 + t->micro_batch * 7 + t->page * 5 + t->step + 40) % 11) / 3e3;
}

static void assert_as_played(const struct moe_graph *g, const struct moe_span *spans)
{
	struct moe_timeline t;
	assert_int_equal(moe_play(g, seconds, NULL, &t, NULL), 0);
	for (uint32_t i = 0; i < g->n; i++) {
		assert_int_equal(spans[i].begin, (uint64_t)llround(t.begin[i] * 1e9));
		assert_int_equal(spans[i].end, (uint64_t)llround(t.end[i] * 1e9));
	}
	moe_timeline_free(&t);
}

static void compare(struct moe_executor *x, struct moe_schedule_shape s)
{
	static const int micro_batches[] = {1, 2, 3, 7}, layers[] = {1, 2, 5};
	static struct moe_span spans[RIG_MOST];
	struct moe_graph g;
	for (int i = 0; i < 4 * 3 * 2; i++) {
		s.micro_batches = micro_batches[i % 4];
		s.layers = layers[i / 4 % 3];
		s.steps = 1 + 2 * (i / 12);
		rig_build(&s, &g);
		assert_true(g.n <= RIG_MOST);
		assert_int_equal(moe_executor_run(x, &g, spans, NULL, NULL), 0);
		assert_as_played(&g, spans);
		moe_graph_free(&g);
	}
}

static void simulated_time_is_played_time(void **state)
{
	struct moe_executor_config c = {.seconds = seconds};
	struct moe_schedule_shape s;
	struct moe_executor *x;
	(void)state;
	assert_int_equal(moe_executor_open(&c, &x, NULL), 0);
	for (int n = 0; n < RIG_FLAVOURS; n++)
		if (rig_flavour(n, &s))
			compare(x, s);
	moe_executor_close(x);
}

/* Tasks may do something too, on streams as well. */
static void tasks_are_run_meanwhile(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_FLEXGEN, .layers = 3, .micro_batches = 3, .steps = 2, .weights_move = true};
	static struct moe_span spans[RIG_MOST];
	struct rig_device d;
	struct moe_graph g;
	(void)state;
	rig_device_open(&d);
	struct rig_trial *r = rig_trial_open(&d);
	moe_executor_close(r->x);
	r->c.seconds = seconds;
	assert_int_equal(moe_executor_open(&r->c, &r->x, NULL), 0);
	rig_build(&s, &g);
	rig_take(r, &g);
	assert_int_equal(moe_executor_run(r->x, &g, spans, NULL, NULL), 0);
	assert_int_equal(rig_ended(r), g.n);
	assert_int_equal(r->wrong, 0);
	assert_as_played(&g, spans);
	moe_graph_free(&g);
	rig_trial_close(r);
}

/* A virtual device: the durations that the model predicts, and a timeline as the simulator's. */
static void predictions_are_run(void **state)
{
	const struct moe_execution x = {.schedule = MOE_SCHEDULE_CGOPIPE, .batch = 12, .micro_batch = 3, .prefill_micro_batch = 3, .attention_on = 1,
		.weights = {0, 1}, .kv = {0, 1}};
	static struct moe_span spans[RIG_MOST];
	struct moe_timeline played, ran;
	struct moe_durations *d;
	struct moe_fleet fleet;
	struct moe_model m;
	struct moe_graph g;
	(void)state;
	assert_int_equal(moe_hardware_named("t4", &fleet, NULL), 0);
	assert_int_equal(moe_named_model("mixtral-8x7b", &m, NULL), 0);
	const struct moe_setting s = {.model = &m, .hardware = &fleet.hosts[0], .workload = {"", 64, 64, 16, false}, .quants = MOE_QUANTS_INIT, .kv_bytes = 2};
	for (int prefill = 0; prefill < 2; prefill++) {
		assert_int_equal(moe_simulate(&s, &x, prefill, 2, &g, &played, NULL), 0);
		assert_int_equal(moe_durations_new(&s, &x, &g, &d, NULL), 0);
		assert_int_equal(moe_graph_rehearse(&g, moe_durations_seconds, d, spans, NULL), 0);
		assert_int_equal(moe_spans_timeline(&g, spans, &ran, NULL), 0);
		assert_true(fabs(ran.makespan - played.makespan) < 1e-8);
		assert_true(fabs(ran.step_seconds - played.step_seconds) < 1e-8);
		for (int l = 0; l < MOE_LANES; l++)
			assert_true(fabs(ran.busy[l] - played.busy[l]) < 1e-9 * g.n);
		moe_durations_free(d);
		moe_timeline_free(&ran);
		moe_timeline_free(&played);
		moe_graph_free(&g);
	}
	moe_model_free(&m);
	moe_fleet_free(&fleet);
}

/* Durations are those of one schedule and model. */
static void another_graph_has_no_durations(void **state)
{
	const struct moe_execution x = {.schedule = MOE_SCHEDULE_CGOPIPE, .batch = 12, .micro_batch = 3, .prefill_micro_batch = 3, .attention_on = 1,
		.weights = {0, 1}, .kv = {0, 1}};
	struct moe_schedule_shape shape = {.schedule = MOE_SCHEDULE_FLEXGEN, .layers = 32, .micro_batches = 2, .steps = 1, .weights_move = true};
	struct moe_durations *d;
	struct moe_fleet fleet;
	struct moe_model m;
	struct moe_graph g;
	(void)state;
	assert_int_equal(moe_hardware_named("t4", &fleet, NULL), 0);
	assert_int_equal(moe_named_model("mixtral-8x7b", &m, NULL), 0);
	const struct moe_setting s = {.model = &m, .hardware = &fleet.hosts[0], .workload = {"", 64, 64, 16, false}, .quants = MOE_QUANTS_INIT, .kv_bytes = 2};
	rig_build(&shape, &g);
	assert_int_equal(moe_durations_new(&s, &x, &g, &d, NULL), MOE_E_INPUT);
	moe_graph_free(&g);
	shape.schedule = MOE_SCHEDULE_CGOPIPE;
	shape.layers = 31;
	rig_build(&shape, &g);
	assert_int_equal(moe_durations_new(&s, &x, &g, &d, NULL), MOE_E_INPUT);
	moe_graph_free(&g);
	shape.layers = 32;
	shape.micro_batches = 5;
	rig_build(&shape, &g);
	assert_int_equal(moe_durations_new(&s, &x, &g, &d, NULL), 0);
	assert_true(moe_durations_seconds(d, &g.tasks[0]) > 0);
	moe_durations_free(d);
	moe_graph_free(&g);
	/* A machine may need less than the policy reckons with: all is pinned, and hidden states have room. */
	shape.pinned = shape.prefill = true;
	rig_build(&shape, &g);
	assert_int_equal(moe_durations_new(&s, &x, &g, &d, NULL), 0);
	assert_true(moe_durations_seconds(d, &g.tasks[0]) > 0);
	moe_durations_free(d);
	moe_graph_free(&g);
	moe_model_free(&m);
	moe_fleet_free(&fleet);
}

static double nonsense(void *ctx, const struct moe_task *t)
{
	return t->kind == MOE_TASK_HEAD ? *(const double *)ctx : 1;
}

static void durations_have_to_be_some(void **state)
{
	static const double bad[] = {-1, NAN, INFINITY, 1e300};
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_ZERO, .layers = 1, .micro_batches = 1, .steps = 1, .weights_move = true};
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		double takes = bad[i];
		struct moe_executor_config c = {.seconds = nonsense, .ctx = &takes};
		struct moe_executor *x;
		struct moe_err e = MOE_ERR_INIT;
		assert_int_equal(moe_executor_open(&c, &x, NULL), 0);
		assert_int_equal(moe_executor_run(x, &g, NULL, NULL, &e), MOE_E_INPUT);
		assert_int_equal(strncmp(e.msg, "head of step 0", 14), 0);
		takes = 0;
		assert_int_equal(moe_executor_run(x, &g, NULL, NULL, &e), 0);
		moe_executor_close(x);
	}
	moe_graph_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(simulated_time_is_played_time),
		cmocka_unit_test(tasks_are_run_meanwhile),
		cmocka_unit_test(predictions_are_run),
		cmocka_unit_test(another_graph_has_no_durations),
		cmocka_unit_test(durations_have_to_be_some),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
