/* Schedules: every shape gives a graph that the check accepts, and the graphs are those that their papers describe. */
#include "schedule_rig.h"

static void names_go_both_ways(void **state)
{
	enum moe_schedule s;
	(void)state;
	for (int i = 0; i < MOE_SCHEDULES; i++) {
		assert_true(moe_schedule_parse(moe_schedule_name((enum moe_schedule)i), &s));
		assert_int_equal(s, i);
	}
	assert_false(moe_schedule_parse("flexgen_c", &s));
	assert_string_equal(moe_lane_name(MOE_LANE_D2H), "d2h");
	for (int k = 0; k < MOE_TASK_KINDS; k++)
		assert_string_not_equal(moe_task_name((enum moe_task_kind)k), "?");
}

static void check_numbers(struct moe_schedule_shape s, int pages)
{
	struct moe_graph g;
	s.pages = pages;
	for (s.layers = 1; s.layers <= 9; s.layers++)
		for (s.micro_batches = 1; s.micro_batches <= 9; s.micro_batches++)
			for (s.steps = 1; s.steps <= 3; s.steps += 2) {
				rig_build(&s, &g);
				rig_sound(&g);
				moe_graph_free(&g);
			}
}

static void every_shape_is_sound(void **state)
{
	static const int pages[] = {0, 2, 5};
	struct moe_schedule_shape s;
	(void)state;
	for (int n = 0; n < RIG_FLAVOURS; n++)
		for (size_t p = 0; rig_flavour(n, &s) && p < (s.weights_move ? sizeof pages / sizeof *pages : 1); p++)
			check_numbers(s, pages[p]);
}

static void a_large_one_is_sound(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_CGOPIPE, .layers = 61, .micro_batches = 37, .steps = 4, .weights_move = true};
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	rig_sound(&g);
	moe_graph_free(&g);
}

static void nonsense_is_refused(void **state)
{
	struct moe_schedule_shape bad[] = {
		{.schedule = MOE_SCHEDULE_ZERO, .layers = 0, .micro_batches = 1, .steps = 1},
		{.schedule = MOE_SCHEDULE_ZERO, .layers = 1, .micro_batches = 0, .steps = 1},
		{.schedule = MOE_SCHEDULE_ZERO, .layers = 1, .micro_batches = 1, .steps = 0},
		{.schedule = MOE_SCHEDULE_ZERO, .layers = 1, .micro_batches = 1, .steps = 1, .pages = -1},
		{.schedule = MOE_SCHEDULES, .layers = 1, .micro_batches = 1, .steps = 1},
		{.schedule = MOE_SCHEDULE_CGOPIPE, .layers = 1000, .micro_batches = 1000, .steps = 1000},
		{.schedule = MOE_SCHEDULE_CGOPIPE, .layers = INT32_MAX, .micro_batches = INT32_MAX, .steps = INT32_MAX, .pages = INT32_MAX},
		{.schedule = MOE_SCHEDULE_RESIDENT, .layers = 1, .micro_batches = 1, .steps = 1, .weights_move = true},
		{.schedule = MOE_SCHEDULE_CGOPIPE, .layers = 1, .micro_batches = 1, .steps = 1, .hidden_moves = true},
		{.schedule = MOE_SCHEDULE_ZERO, .layers = 1, .micro_batches = 1, .steps = 1, .prefill = true, .hidden_moves = true},
		{.schedule = MOE_SCHEDULE_ZERO, .layers = 1, .micro_batches = 1, .steps = 1, .experts_on_cpu = true},
		{.schedule = MOE_SCHEDULE_FLEXGEN, .layers = 1, .micro_batches = 1, .steps = 1, .kv_moves = true},
	};
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct moe_err e = MOE_ERR_INIT;
		struct moe_graph g;
		assert_int_not_equal(moe_schedule_build(&bad[i], &g, &e), 0);
		assert_null(g.tasks);
		assert_int_not_equal(e.msg[0], 0);
	}
}

/* ---- cgopipe is algorithm 1 ---- */

/* The kinds of the tasks with this lane, in order, of which `skip` are left out first. */
static void assert_lane(const struct moe_graph *g, enum moe_lane lane, uint32_t skip, const char *expected)
{
	char text[96], all[4096] = "";
	for (uint32_t i = 0; i < g->n && strlen(all) < strlen(expected); i++) {
		const struct moe_task *t = &g->tasks[i];
		if (t->lane != lane || (skip && skip--))
			continue;
		snprintf(text, sizeof text, "%s%d.%d ", moe_task_name(t->kind), t->layer, t->micro_batch < 0 ? t->page : t->micro_batch);
		strcat(all, text);
	}
	assert_string_equal(all, expected);
}

static void cgopipe_launches_as_algorithm_1(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_CGOPIPE, .layers = 2, .micro_batches = 3, .steps = 1, .weights_move = true};
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	assert_lane(&g, MOE_LANE_GPU, 0, "embed-1.0 pre-attention0.0 embed-1.1 pre-attention0.1 "
		"post-attention0.0 embed-1.2 pre-attention0.2 post-attention0.1 pre-attention1.0 post-attention0.2 pre-attention1.1 "
		"post-attention1.0 head2.0 pre-attention1.2 post-attention1.1 head2.1 post-attention1.2 head2.2 ");
	assert_lane(&g, MOE_LANE_CPU, 0, "attention0.0 attention0.1 attention0.2 attention1.0 attention1.1 attention1.2 ");
	assert_lane(&g, MOE_LANE_H2D, 0, "load-weights0.0 load-weights0.1 load-weights0.2 load-hidden0.0 load-weights1.0 load-hidden0.1 "
		"load-weights1.1 load-hidden0.2 load-weights1.2 load-hidden1.0 load-hidden1.1 load-hidden1.2 ");
	assert_lane(&g, MOE_LANE_PIN, 0, "pin-weights0.0 pin-weights0.1 pin-weights0.2 pin-weights1.0 pin-weights1.1 pin-weights1.2 ");
	moe_graph_free(&g);
}

/* Over the end of a step: the next step's first layer is loaded while the last layer runs, also where layers are odd. */
static void steps_follow_without_a_gap(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_CGOPIPE, .layers = 3, .micro_batches = 4, .steps = 2, .weights_move = true};
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	uint32_t load = rig_find(&g, MOE_TASK_LOAD_WEIGHTS, 1, 0, -1), last = rig_find(&g, MOE_TASK_POST_ATTENTION, 0, 2, 3);
	assert_true(load < last);
	assert_int_equal(g.tasks[load].slot, 1);
	assert_true(rig_find(&g, MOE_TASK_PRE_ATTENTION, 1, 0, 1) < last + 4);
	moe_graph_free(&g);
}

static void pages_spread_over_micro_batches(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_CGOPIPE, .layers = 2, .micro_batches = 2, .pages = 5, .steps = 1,
		.weights_move = true, .pinned = true};
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	assert_lane(&g, MOE_LANE_H2D, 5, "load-hidden0.0 load-weights1.0 load-weights1.1 load-weights1.2 load-hidden0.1 load-weights1.3 "
		"load-weights1.4 load-hidden1.0 load-hidden1.1 ");
	moe_graph_free(&g);
}

static void coalesced_runs_experts_once_a_layer(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_COALESCED, .layers = 2, .micro_batches = 2, .steps = 1, .weights_move = true};
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	assert_lane(&g, MOE_LANE_GPU, 0, "embed-1.0 pre-attention0.0 embed-1.1 pre-attention0.1 post-attention0.0 post-attention0.1 "
		"experts0.0 pre-attention1.0 pre-attention1.1 post-attention1.0 post-attention1.1 experts1.0 head2.0 head2.1 ");
	assert_lane(&g, MOE_LANE_H2D, 2, "load-weights1.0 load-hidden0.0 load-hidden0.1 load-weights1.1 load-hidden1.0 load-hidden1.1 ");
	moe_graph_free(&g);
}

static void flexgen_fetches_the_next_micro_batch(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_FLEXGEN, .layers = 2, .micro_batches = 2, .steps = 1, .weights_move = true};
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	assert_lane(&g, MOE_LANE_H2D, 0, "load-weights0.0 load-kv0.0 load-weights1.0 load-kv0.1 load-kv1.0 load-kv1.1 ");
	assert_lane(&g, MOE_LANE_D2H, 0, "store-kv0.0 store-kv0.1 store-kv1.0 store-kv1.1 ");
	moe_graph_free(&g);
}

static void zero_takes_the_whole_batch(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_ZERO, .layers = 2, .micro_batches = 7, .steps = 1, .weights_move = true, .pinned = true};
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	assert_int_equal(g.shape.micro_batches, 1);
	assert_int_equal(g.n, 2 + 2 * (3 + 1));
	moe_graph_free(&g);
}

static void all_on_the_cpu_is_one_lane(void **state)
{
	struct moe_schedule_shape s = {.layers = 3, .micro_batches = 2, .steps = 2, .attention_on_cpu = true, .experts_on_cpu = true};
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	for (uint32_t i = 0; i < g.n; i++)
		assert_int_equal(g.tasks[i].lane, MOE_LANE_CPU);
	assert_int_equal(g.n_deps, 0);
	moe_graph_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_go_both_ways),
		cmocka_unit_test(every_shape_is_sound),
		cmocka_unit_test(a_large_one_is_sound),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(cgopipe_launches_as_algorithm_1),
		cmocka_unit_test(steps_follow_without_a_gap),
		cmocka_unit_test(pages_spread_over_micro_batches),
		cmocka_unit_test(coalesced_runs_experts_once_a_layer),
		cmocka_unit_test(flexgen_fetches_the_next_micro_batch),
		cmocka_unit_test(zero_takes_the_whole_batch),
		cmocka_unit_test(all_on_the_cpu_is_one_lane),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
