/* Timelines as traces and pictures. */
#include <stdio.h>

#include "plan/plan.h"
#include "schedule_rig.h"

static double one_millisecond(void *ctx, const struct moe_task *t)
{
	(void)ctx;
	(void)t;
	return 1e-3;
}

static void play(struct moe_schedule_shape s, struct moe_graph *g, struct moe_timeline *t)
{
	rig_build(&s, g);
	assert_int_equal(moe_play(g, one_millisecond, NULL, t, NULL), 0);
}

static const struct moe_schedule_shape small = {.schedule = MOE_SCHEDULE_CGOPIPE, .layers = 3, .micro_batches = 2, .steps = 2,
	.weights_move = true};

/* ---- traces ---- */

static void assert_event(const struct moe_json *event, const struct moe_task *t, double begin)
{
	const struct moe_json *args = moe_json_get(event, "args");
	int64_t v = -2;
	assert_string_equal(moe_json_str(moe_json_get(event, "name"), ""), moe_task_name(t->kind));
	assert_string_equal(moe_json_str(moe_json_get(event, "cat"), ""), moe_lane_name(t->lane));
	assert_true(moe_json_int(moe_json_get(event, "tid"), &v) && v == (int64_t)t->lane);
	assert_true(moe_json_int(moe_json_get(args, "layer"), &v) && v == t->layer);
	assert_true(moe_json_int(moe_json_get(args, "step"), &v) && v == t->step);
	assert_true(moe_json_int(moe_json_get(args, t->slot < 0 ? "micro_batch" : "page"), &v) && v == (t->slot < 0 ? t->micro_batch : t->page));
	double ts = moe_json_num(moe_json_get(event, "ts"), -1), dur = moe_json_num(moe_json_get(event, "dur"), -1);
	assert_true(ts > begin * 1e6 - 1e-3 && ts < begin * 1e6 + 1e-3 && dur > 999.999 && dur < 1000.001);
}

static void a_trace_has_every_task(void **state)
{
	struct moe_buf out = MOE_BUF_INIT;
	struct moe_json *j;
	struct moe_timeline t;
	struct moe_graph g;
	(void)state;
	play(small, &g, &t);
	assert_int_equal(moe_timeline_chrome(&g, &t, &out, NULL), 0);
	assert_int_equal(moe_json_parse(out.data, out.len, "trace", &j, NULL), 0);
	const struct moe_json *events = moe_json_get(j, "traceEvents");
	size_t n = moe_json_count(events), names = 0, tasks = 0;
	for (size_t i = 0; i < n; i++) {
		const struct moe_json *event = moe_json_at(events, i);
		if (strcmp(moe_json_str(moe_json_get(event, "ph"), ""), "M") == 0) {
			names++;
			continue;
		}
		assert_string_equal(moe_json_str(moe_json_get(event, "ph"), ""), "X");
		assert_event(event, &g.tasks[tasks], t.begin[tasks]);
		tasks++;
	}
	assert_int_equal(tasks, g.n);
	assert_int_equal(names, 1 + 5);
	moe_json_free(j);
	moe_buf_free(&out);
	moe_timeline_free(&t);
	moe_graph_free(&g);
}

/* ---- pictures ---- */

static size_t count(const char *text, const char *what)
{
	size_t n = 0;
	for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
		n++;
	return n;
}

static void a_picture_has_lanes_and_tasks(void **state)
{
	struct moe_buf out = MOE_BUF_INIT;
	struct moe_timeline t;
	struct moe_graph g;
	(void)state;
	play(small, &g, &t);
	assert_int_equal(moe_timeline_svg(&g, &t, 0, t.makespan, "a <title> & more", &out, NULL), 0);
	assert_int_equal(strncmp(out.data, "<svg ", 5), 0);
	assert_string_equal(out.data + out.len - 7, "</svg>\n");
	assert_non_null(strstr(out.data, "a &lt;title&gt; &amp; more"));
	assert_int_equal(count(out.data, "<title>"), g.n);
	for (int l = 0; l <= MOE_LANE_PIN; l++) {
		char lane[32];
		snprintf(lane, sizeof lane, ">%s</text>", moe_lane_name((enum moe_lane)l));
		assert_int_equal(count(out.data, lane), 1);
	}
	assert_int_equal(count(out.data, ">disk</text>"), 0);
	assert_int_equal(count(out.data, "<text"), count(out.data, "</text>"));
	moe_buf_free(&out);
	moe_timeline_free(&t);
	moe_graph_free(&g);
}

static void a_window_shows_what_is_in_it(void **state)
{
	struct moe_buf out = MOE_BUF_INIT;
	struct moe_timeline t;
	struct moe_graph g;
	size_t within = 0;
	(void)state;
	play(small, &g, &t);
	for (uint32_t i = 0; i < g.n; i++)
		within += t.end[i] > 0.0105 && t.begin[i] < 0.0155;
	assert_int_equal(moe_timeline_svg(&g, &t, 0.0105, 0.0155, "window", &out, NULL), 0);
	assert_int_equal(count(out.data, "<title>"), within);
	moe_buf_free(&out);
	assert_int_equal(moe_timeline_svg(&g, &t, 1, 1, "nothing", &out, NULL), MOE_E_INPUT);
	assert_null(out.data);
	moe_timeline_free(&t);
	moe_graph_free(&g);
}

/* Of what is too narrow to see, no more is drawn than can be seen. */
static void a_large_picture_stays_small(void **state)
{
	struct moe_schedule_shape s = {.schedule = MOE_SCHEDULE_CGOPIPE, .layers = 60, .micro_batches = 60, .steps = 2, .weights_move = true};
	struct moe_buf out = MOE_BUF_INIT;
	struct moe_timeline t;
	struct moe_graph g;
	(void)state;
	play(s, &g, &t);
	assert_true(g.n > 40000);
	assert_int_equal(moe_timeline_svg(&g, &t, 0, t.makespan, "large", &out, NULL), 0);
	assert_true(count(out.data, "<title>") < 5 * 1080 * 4 + 5);
	moe_buf_free(&out);
	moe_timeline_free(&t);
	moe_graph_free(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_trace_has_every_task),
		cmocka_unit_test(a_picture_has_lanes_and_tasks),
		cmocka_unit_test(a_window_shows_what_is_in_it),
		cmocka_unit_test(a_large_picture_stays_small),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
