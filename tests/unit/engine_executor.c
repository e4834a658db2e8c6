/* The executor: every graph of every schedule is run in an order that it allows, also when something fails. */
#include "executor_rig.h"
#include "plan/plan.h"

typedef void graph_fn(void *ctx, const struct moe_graph *g);

static void numbers_of(struct moe_schedule_shape s, const int *steps, graph_fn *fn, void *ctx)
{
	static const int micro_batches[] = {1, 2, 3, 7}, layers[] = {1, 2, 5};
	struct moe_graph g;
	for (int i = 0; i < 4 * 3; i++) {
		s.micro_batches = micro_batches[i % 4];
		s.layers = layers[i / 4];
		for (const int *n = steps; *n; n++) {
			s.steps = *n;
			rig_build(&s, &g);
			fn(ctx, &g);
			moe_graph_free(&g);
		}
	}
}

static void every_graph(const int *steps, graph_fn *fn, void *ctx)
{
	struct moe_schedule_shape s;
	for (int n = 0; n < RIG_FLAVOURS; n++)
		if (rig_flavour(n, &s))
			numbers_of(s, steps, fn, ctx);
}

static void small_graph(struct moe_graph *g)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_CGOPIPE, .layers = 3, .micro_batches = 3, .steps = 2, .weights_move = true};
	rig_build(&s, g);
}

/* ---- order ---- */

static void assert_spans(const struct moe_graph *g, const struct moe_span *spans)
{
	uint64_t last[MOE_LANES] = {0};
	for (uint32_t i = 0; i < g->n; i++) {
		const struct moe_task *t = &g->tasks[i];
		assert_true(spans[i].begin > 0 && spans[i].begin <= spans[i].end);
		assert_true(spans[i].begin >= last[t->lane]);
		for (uint32_t d = t->first; d < t->first + t->n; d++)
			assert_true(spans[i].begin >= spans[g->deps[d]].end);
		last[t->lane] = spans[i].end;
	}
}

static void run_in_order(void *ctx, const struct moe_graph *g)
{
	static struct moe_span spans[RIG_MOST];
	struct rig_trial *r = ctx;
	struct moe_err e = MOE_ERR_INIT;
	rig_take(r, g);
	memset(spans, 0, sizeof *spans * g->n);
	if (moe_executor_run(r->x, g, spans, NULL, &e))
		fail_msg("%s", e.msg);
	assert_int_equal(rig_ended(r), g->n);
	assert_int_equal(r->wrong, 0);
	assert_spans(g, spans);
}

static void lanes_of_the_host_keep_the_order(void **state)
{
	static const int steps[] = {1, 3, 0};
	struct rig_trial *r = rig_trial_open(NULL);
	(void)state;
	every_graph(steps, run_in_order, r);
	rig_trial_close(r);
}

static void streams_keep_the_order(void **state)
{
	static const int steps[] = {2, 0};
	struct rig_device d;
	(void)state;
	rig_device_open(&d);
	struct rig_trial *r = rig_trial_open(&d);
	every_graph(steps, run_in_order, r);
	rig_trial_close(r);
	assert_int_equal(d.opened, 0);
}

static void nobody_need_ask_for_spans(void **state)
{
	struct rig_device d;
	struct moe_graph g;
	(void)state;
	rig_device_open(&d);
	struct rig_trial *r = rig_trial_open(&d);
	small_graph(&g);
	rig_take(r, &g);
	assert_int_equal(moe_executor_run(r->x, &g, NULL, NULL, NULL), 0);
	assert_int_equal(rig_ended(r), g.n);
	assert_int_equal(r->wrong, 0);
	moe_graph_free(&g);
	rig_trial_close(r);
}

static void a_single_task_is_run(void **state)
{
	struct moe_task t = {.kind = MOE_TASK_HEAD, .lane = MOE_LANE_GPU};
	struct moe_graph g = {.tasks = &t, .n = 1}, none = {.n = 0};
	struct rig_device d;
	(void)state;
	rig_device_open(&d);
	struct rig_trial *r = rig_trial_open(&d);
	run_in_order(r, &g);
	assert_int_equal(moe_executor_run(r->x, &none, NULL, NULL, NULL), 0);
	run_in_order(r, &g);
	rig_trial_close(r);
}

static void what_cannot_run_is_refused(void **state)
{
	struct rig_device d;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_executor *x;
	(void)state;
	rig_device_open(&d);
	struct moe_executor_config c = {.run = rig_run, .streams[MOE_LANE_H2D] = rig_stream_open(&d)}, nothing = {.run = NULL};
	assert_int_equal(moe_executor_open(&c, &x, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "h2d"));
	assert_int_equal(moe_executor_open(&nothing, &x, &e), MOE_E_INPUT);
	rig_stream_close(c.streams[MOE_LANE_H2D]);
	moe_executor_close(NULL);
}

/* ---- failures ---- */

/* Does what `i` says depend on task `on`? */
static bool follows(const struct moe_graph *g, const uint32_t *before, uint32_t i, uint32_t on)
{
	bool *after = calloc(g->n, 1);
	after[on] = true;
	for (uint32_t t = on + 1; t <= i; t++) {
		after[t] = before[t] != RIG_NONE && after[before[t]];
		for (uint32_t d = 0; d < g->tasks[t].n; d++)
			after[t] = after[t] || after[g->deps[g->tasks[t].first + d]];
	}
	bool yes = after[i];
	free(after);
	return yes;
}

static void fail_at(struct rig_trial *r, const struct moe_graph *g, uint32_t i)
{
	struct moe_err e = MOE_ERR_INIT;
	char text[96];
	rig_take(r, g);
	r->fail_launch = i;
	assert_int_equal(moe_executor_run(r->x, g, NULL, NULL, &e), MOE_E_PEER);
	assert_int_equal(e.code, MOE_E_PEER);
	assert_string_equal(strstr(e.msg, ": "), ": not launched");
	moe_task_text(&g->tasks[i], text, sizeof text);
	assert_int_equal(strncmp(e.msg, text, strlen(text)), 0);
	rig_ended(r);
	assert_int_equal(r->wrong, 0);
	for (uint32_t t = i + 1; t < g->n; t++)
		assert_false(r->state[t] == RIG_ENDED && follows(g, r->before, t, i));
}

static void a_failure_ends_the_run(void **state)
{
	struct rig_device d;
	struct moe_graph g;
	(void)state;
	rig_device_open(&d);
	struct rig_trial *trials[] = {rig_trial_open(NULL), rig_trial_open(&d)};
	small_graph(&g);
	for (uint32_t i = 0; i < 2 * g.n; i++)
		fail_at(trials[i % 2], &g, i / 2);
	for (int i = 0; i < 2; i++) {
		run_in_order(trials[i], &g);
		rig_trial_close(trials[i]);
	}
	moe_graph_free(&g);
}

/* On a stream a failure is seen later, by who waits for the task or when everything has ended. */
static void a_failure_of_the_device_is_found(void **state)
{
	struct rig_device d;
	struct moe_graph g;
	(void)state;
	rig_device_open(&d);
	struct rig_trial *r = rig_trial_open(&d);
	small_graph(&g);
	for (uint32_t i = 0; i < g.n; i++) {
		struct moe_err e = MOE_ERR_INIT;
		rig_take(r, &g);
		r->fail_work = i;
		assert_int_equal(moe_executor_run(r->x, &g, NULL, NULL, &e), MOE_E_IO);
		assert_non_null(strstr(e.msg, r->c.streams[g.tasks[i].lane] ? ": the device failed" : ": the host failed"));
		assert_non_null(strstr(e.msg, " of step "));
		rig_ended(r);
	}
	run_in_order(r, &g);
	moe_graph_free(&g);
	rig_trial_close(r);
}

static void a_run_can_be_stopped(void **state)
{
	struct rig_device d;
	struct moe_graph g;
	(void)state;
	rig_device_open(&d);
	struct rig_trial *trials[] = {rig_trial_open(NULL), rig_trial_open(&d)};
	small_graph(&g);
	for (uint32_t i = 0; i < 2 * 8; i++) {
		struct rig_trial *r = trials[i % 2];
		static struct moe_span spans[RIG_MOST];
		struct moe_timeline t;
		rig_take(r, &g);
		r->stop_at = i / 2;
		r->stop = i < 2;
		assert_int_equal(moe_executor_run(r->x, &g, spans, &r->stop, NULL), MOE_E_CANCELLED);
		assert_true(rig_ended(r) < g.n);
		assert_int_equal(r->wrong, 0);
		for (uint32_t n = 0; n < g.n; n++)
			assert_int_equal(spans[n].begin == MOE_SPAN_NONE && spans[n].end == MOE_SPAN_NONE, r->state[n] == RIG_NEW);
		assert_int_equal(moe_spans_timeline(&g, spans, &t, NULL), 0);
		for (uint32_t n = 0; n < g.n; n++)
			assert_true(t.begin[n] >= 0 && t.begin[n] <= t.end[n] && t.end[n] <= t.makespan);
		moe_timeline_free(&t);
	}
	for (int i = 0; i < 2; i++) {
		run_in_order(trials[i], &g);
		rig_trial_close(trials[i]);
	}
	moe_graph_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lanes_of_the_host_keep_the_order),
		cmocka_unit_test(streams_keep_the_order),
		cmocka_unit_test(nobody_need_ask_for_spans),
		cmocka_unit_test(a_single_task_is_run),
		cmocka_unit_test(what_cannot_run_is_refused),
		cmocka_unit_test(a_failure_ends_the_run),
		cmocka_unit_test(a_failure_of_the_device_is_found),
		cmocka_unit_test(a_run_can_be_stopped),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
