/* The check of graphs: every single thing that is taken out of a sound graph or changed in it is noticed. */
#include "schedule_rig.h"

static void assert_broken(const struct moe_graph *g, const char *how, uint32_t i)
{
	struct moe_err e = MOE_ERR_INIT;
	if (moe_graph_check(g, &e) != MOE_E_INPUT)
		fail_msg("%s%s, %d layers, %d micro-batches, %d pages: task %u %s, and the check says nothing", moe_schedule_name(g->shape.schedule),
		         g->shape.prefill ? " prefill" : "", g->shape.layers, g->shape.micro_batches, g->shape.pages, i, how);
	assert_int_not_equal(e.msg[0], 0);
}

/* A dependency goes: the last of its task takes its place. */
static void drop_each_dependency(struct moe_graph *g)
{
	for (uint32_t i = 0; i < g->n; i++) {
		struct moe_task *t = &g->tasks[i];
		for (uint32_t d = 0; d < t->n; d++) {
			uint32_t *list = &g->deps[t->first], was = list[d], last = list[t->n - 1];
			list[d] = last;
			t->n--;
			assert_broken(g, "lost a dependency", i);
			t->n++;
			list[t->n - 1] = last;
			list[d] = was;
		}
	}
	rig_sound(g);
}

/* FlexGen's waits for all lanes guard no buffers: without them it would only be faster. */
static bool waits_in_step(const struct moe_schedule_shape *s)
{
	return s->schedule == MOE_SCHEDULE_FLEXGEN || s->schedule == MOE_SCHEDULE_FLEXGEN_C;
}

static void every_dependency_is_needed(void **state)
{
	static const int sizes[][4] = {{1, 1, 1, 4}, {1, 3, 2, 3}, {3, 1, 2, 3}, {2, 2, 5, 3}, {3, 4, 0, 2}, {5, 3, 1, 1}, {4, 2, 3, 2}};
	struct moe_schedule_shape s;
	struct moe_graph g;
	(void)state;
	for (int n = 0; n < RIG_FLAVOURS; n++)
		for (size_t i = 0; rig_flavour(n, &s) && !waits_in_step(&s) && i < sizeof sizes / sizeof *sizes; i++) {
			s.layers = sizes[i][0];
			s.micro_batches = sizes[i][1];
			s.pages = sizes[i][2];
			s.steps = sizes[i][3];
			rig_build(&s, &g);
			drop_each_dependency(&g);
			moe_graph_free(&g);
		}
}

/* Two tasks that stand side by side change places, where one waits for the other. */
static void order_matters(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_CGOPIPE, .layers = 3, .micro_batches = 3, .steps = 2, .weights_move = true};
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	for (uint32_t i = 0; i + 1 < g.n; i++) {
		struct moe_task a = g.tasks[i], b = g.tasks[i + 1];
		if (b.n == 0 || g.deps[b.first] != i)
			continue;
		g.tasks[i] = b;
		g.tasks[i + 1] = a;
		assert_broken(&g, "changed places", i);
		g.tasks[i] = a;
		g.tasks[i + 1] = b;
	}
	moe_graph_free(&g);
}

static void every_task_is_needed(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_COALESCED, .layers = 2, .micro_batches = 2, .steps = 2, .weights_move = true};
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	struct moe_task *tasks = g.tasks, *fewer = calloc(g.n, sizeof *fewer);
	assert_non_null(fewer);
	g.n--;
	for (uint32_t i = 0; i <= g.n; i++) {
		memcpy(fewer, tasks, i * sizeof *fewer);
		memcpy(fewer + i, tasks + i + 1, (g.n - i) * sizeof *fewer);
		g.tasks = fewer;
		assert_broken(&g, "is missing", i);
	}
	g.tasks = tasks;
	free(fewer);
	moe_graph_free(&g);
}

static void every_place_matters(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_FLEXGEN, .prefill = true, .layers = 2, .micro_batches = 2, .steps = 1,
		.weights_move = true, .hidden_moves = true};
	struct moe_graph g;
	(void)state;
	rig_build(&s, &g);
	for (uint32_t i = 0; i < g.n; i++) {
		struct moe_task was = g.tasks[i], *t = &g.tasks[i];
		t->layer++;
		assert_broken(&g, "is of another layer", i);
		*t = was;
		t->micro_batch = was.micro_batch < 0 ? 0 : -1;
		assert_broken(&g, "is of another micro-batch", i);
		*t = was;
		t->lane = (enum moe_lane)((was.lane + 1) % MOE_LANES);
		assert_broken(&g, "runs on another lane", i);
		*t = was;
		t->slot = was.slot < 0 ? 0 : 1 - was.slot;
		assert_broken(&g, "uses another slot", i);
		*t = was;
		t->kind = (enum moe_task_kind)((was.kind + 1) % MOE_TASK_KINDS);
		assert_broken(&g, "is of another kind", i);
		*t = was;
		t->kind = MOE_TASK_KINDS;
		assert_broken(&g, "has no kind", i);
		*t = was;
		t->first = g.n_deps;
		t->n = 1;
		assert_broken(&g, "has dependencies elsewhere", i);
		*t = was;
	}
	moe_graph_free(&g);
}

static void dependencies_point_back(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_ZERO, .layers = 2, .micro_batches = 1, .steps = 1, .weights_move = true};
	struct moe_graph g;
	struct moe_err e = MOE_ERR_INIT;
	(void)state;
	rig_build(&s, &g);
	assert_true(g.n_deps > 0);
	for (uint32_t i = 0; i < g.n; i++)
		for (uint32_t d = g.tasks[i].first; d < g.tasks[i].first + g.tasks[i].n; d++) {
			uint32_t was = g.deps[d];
			g.deps[d] = i;
			assert_broken(&g, "waits for itself", i);
			g.deps[d] = UINT32_MAX;
			assert_broken(&g, "waits for nothing", i);
			g.deps[d] = was;
		}
	g.shape.layers = 0;
	assert_int_equal(moe_graph_check(&g, &e), MOE_E_INPUT);
	moe_graph_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_dependency_is_needed),
		cmocka_unit_test(order_matters),
		cmocka_unit_test(every_task_is_needed),
		cmocka_unit_test(every_place_matters),
		cmocka_unit_test(dependencies_point_back),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
