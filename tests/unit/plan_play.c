/* Playing a graph: every task begins just when it may, and known schedules take as long as can be told by hand. */
#include <math.h>

#include "plan/plan.h"
#include "schedule_rig.h"

/* Durations by kind. */
static double of_kind(void *ctx, const struct moe_task *t)
{
	const double *seconds = ctx;
	return seconds[t->kind];
}

/* Durations of all sorts, 0 among them. */
static double of_all_sorts(void *ctx, const struct moe_task *t)
{
	(void)ctx;
	return (double)((t->kind * 31 + t->layer * 17 + t->micro_batch * 7 + t->page * 5 + t->step) % 11 + 11) - 11;
}

static double at_least_none(void *ctx, const struct moe_task *t)
{
	return fmax(0, of_all_sorts(ctx, t));
}

static void near(double value, double expected)
{
	if (!(fabs(value - expected) <= 1e-9 * (1 + fabs(expected))))
		fail_msg("%.12g is not %.12g", value, expected);
}

static void assert_rules(const struct moe_graph *g, const struct moe_timeline *t)
{
	double free_at[MOE_LANES] = {0}, busy[MOE_LANES] = {0}, last = 0;
	for (uint32_t i = 0; i < g->n; i++) {
		double may = free_at[g->tasks[i].lane];
		for (uint32_t d = 0; d < g->tasks[i].n; d++)
			may = fmax(may, t->end[g->deps[g->tasks[i].first + d]]);
		near(t->begin[i], may);
		near(t->end[i] - t->begin[i], at_least_none(NULL, &g->tasks[i]));
		free_at[g->tasks[i].lane] = t->end[i];
		busy[g->tasks[i].lane] += t->end[i] - t->begin[i];
		last = fmax(last, t->end[i]);
	}
	near(t->makespan, last);
	for (int l = 0; l < MOE_LANES; l++)
		near(t->busy[l], busy[l]);
}

static void tasks_begin_when_they_may(void **state)
{
	struct moe_schedule_shape s;
	struct moe_timeline t;
	struct moe_graph g;
	(void)state;
	for (int n = 0; n < RIG_FLAVOURS; n++) {
		if (!rig_flavour(n, &s))
			continue;
		s.layers = 3;
		s.micro_batches = 3;
		s.steps = 2;
		rig_build(&s, &g);
		assert_int_equal(moe_play(&g, at_least_none, NULL, &t, NULL), 0);
		assert_rules(&g, &t);
		moe_timeline_free(&t);
		moe_graph_free(&g);
	}
}

/* Plays and gives the time of a step. */
static double step_of(struct moe_schedule_shape s, double *seconds, double *makespan)
{
	struct moe_timeline t;
	struct moe_graph g;
	rig_build(&s, &g);
	assert_int_equal(moe_play(&g, of_kind, seconds, &t, NULL), 0);
	double step = t.step_seconds;
	*makespan = t.makespan;
	moe_timeline_free(&t);
	moe_graph_free(&g);
	return step;
}

/* Loading and computing overlap, so the slower of them counts, and the first load once. */
static void zero_takes_the_slower_of_two(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_ZERO, .layers = 5, .micro_batches = 1, .steps = 4, .weights_move = true, .pinned = true};
	double seconds[MOE_TASK_KINDS] = {[MOE_TASK_LOAD_WEIGHTS] = 10, [MOE_TASK_PRE_ATTENTION] = 1, [MOE_TASK_ATTENTION] = 2, [MOE_TASK_POST_ATTENTION] = 3};
	double makespan;
	(void)state;
	near(step_of(s, seconds, &makespan), 5 * 10);
	near(makespan, 20 * 10 + 3);
	seconds[MOE_TASK_POST_ATTENTION] = 12;
	near(step_of(s, seconds, &makespan), 5 * 15);
	near(makespan, 10 + 12 + 19 * 15);
}

/* Each lane alone binds cgopipe: link, GPU, CPU. */
static void cgopipe_takes_the_slowest_lane(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_CGOPIPE, .layers = 4, .micro_batches = 6, .steps = 5, .weights_move = true};
	double link[MOE_TASK_KINDS] = {[MOE_TASK_LOAD_WEIGHTS] = 10, [MOE_TASK_LOAD_HIDDEN] = 1, [MOE_TASK_PRE_ATTENTION] = 1, [MOE_TASK_ATTENTION] = 3,
		[MOE_TASK_POST_ATTENTION] = 3, [MOE_TASK_STORE_QKV] = 1, [MOE_TASK_PIN_WEIGHTS] = 2};
	double gpu[MOE_TASK_KINDS] = {[MOE_TASK_LOAD_WEIGHTS] = 3, [MOE_TASK_LOAD_HIDDEN] = 1, [MOE_TASK_PRE_ATTENTION] = 2, [MOE_TASK_ATTENTION] = 3,
		[MOE_TASK_POST_ATTENTION] = 9, [MOE_TASK_STORE_QKV] = 1};
	double cpu[MOE_TASK_KINDS] = {[MOE_TASK_LOAD_WEIGHTS] = 3, [MOE_TASK_LOAD_HIDDEN] = 1, [MOE_TASK_PRE_ATTENTION] = 1, [MOE_TASK_ATTENTION] = 20,
		[MOE_TASK_POST_ATTENTION] = 3, [MOE_TASK_STORE_QKV] = 1};
	double makespan;
	(void)state;
	near(step_of(s, link, &makespan), 4 * 6 * 11);
	near(step_of(s, gpu, &makespan), 4 * 6 * 11);
	near(step_of(s, cpu, &makespan), 4 * 6 * 20);
}

/* The first micro-batch of a layer waits for the next layer's weights, the others for their caches or computing. */
static void flexgen_waits_after_each_micro_batch(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_FLEXGEN, .layers = 3, .micro_batches = 4, .steps = 3, .weights_move = true, .pinned = true};
	double seconds[MOE_TASK_KINDS] = {[MOE_TASK_LOAD_WEIGHTS] = 20, [MOE_TASK_LOAD_KV] = 2, [MOE_TASK_STORE_KV] = 1, [MOE_TASK_ATTENTION] = 1,
		[MOE_TASK_POST_ATTENTION] = 4};
	double makespan;
	(void)state;
	near(step_of(s, seconds, &makespan), 3 * (22 + 3 * 5));
	seconds[MOE_TASK_LOAD_KV] = 7;
	near(step_of(s, seconds, &makespan), 3 * (27 + 3 * 7));
}

/* Micro-batches go through attention one by one, and none computes while the other's attention runs. */
static void flexgen_c_overlaps_weights_only(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_FLEXGEN_C, .layers = 3, .micro_batches = 4, .steps = 3, .weights_move = true, .pinned = true};
	double seconds[MOE_TASK_KINDS] = {[MOE_TASK_LOAD_WEIGHTS] = 20, [MOE_TASK_PRE_ATTENTION] = 1, [MOE_TASK_STORE_QKV] = 2, [MOE_TASK_ATTENTION] = 3,
		[MOE_TASK_LOAD_HIDDEN] = 2, [MOE_TASK_POST_ATTENTION] = 4};
	double makespan;
	(void)state;
	near(step_of(s, seconds, &makespan), 3 * (20 + 2 + 4 + 3 * 12));
}

static double no_number(void *ctx, const struct moe_task *t)
{
	(void)t;
	return *(double *)ctx;
}

static void durations_are_checked(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_CGOPIPE, .layers = 1, .micro_batches = 1, .steps = 1};
	double bad[] = {NAN, -1, INFINITY};
	struct moe_timeline t;
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct moe_err e = MOE_ERR_INIT;
		assert_int_equal(moe_play(&g, no_number, &bad[i], &t, &e), MOE_E_INPUT);
		assert_non_null(strstr(e.msg, "embed of step 0"));
		assert_null(t.begin);
	}
	moe_graph_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tasks_begin_when_they_may),
		cmocka_unit_test(zero_takes_the_slower_of_two),
		cmocka_unit_test(cgopipe_takes_the_slowest_lane),
		cmocka_unit_test(flexgen_waits_after_each_micro_batch),
		cmocka_unit_test(flexgen_c_overlaps_weights_only),
		cmocka_unit_test(durations_are_checked),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
