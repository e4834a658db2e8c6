/* The roofline as a picture: roofs, operations and turning points, and labels that do not cover each other. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "plan/plot.h"

static struct moe_layer layers[2];

struct rig {
	struct moe_fleet fleet;
	struct moe_model model;
	struct moe_setting setting;
	struct moe_execution execution;
};

static void rig_open(struct rig *r, const char *hardware, enum moe_schedule schedule)
{
	bool resident = schedule == MOE_SCHEDULE_RESIDENT, cpu = schedule == MOE_SCHEDULE_CGOPIPE || schedule == MOE_SCHEDULE_COALESCED;

	assert_int_equal(moe_hardware_named(hardware, &r->fleet, NULL), 0);
	r->model = (struct moe_model){.name = "mixtral", .hidden = 4096, .vocab = 32000, .n_layers = 2, .layers = layers};
	for (int i = 0; i < 2; i++) {
		layers[i] = (struct moe_layer){.attn = {.heads = 32, .kv_heads = 8, .head_dim = 128}};
		layers[i].ffn = (struct moe_ffn){.kind = MOE_FFN_MOE, .experts = 8, .expert_width = 14336, .gate = {.top_k = 2}};
	}
	r->setting = (struct moe_setting){.model = &r->model, .hardware = &r->fleet.hosts[0], .workload = {"mtbench", 77, 418, 128, true},
		.quants = MOE_QUANTS_INIT, .kv_bytes = 2};
	r->execution = (struct moe_execution){.schedule = schedule, .batch = 504, .micro_batch = 36, .prefill_micro_batch = 36, .attention_on = cpu};
	r->execution.weights[resident ? 0 : 1] = 1;
	r->execution.kv[resident ? 0 : 1] = 1;
}

static const struct plot_mark *find(const struct plot_content *c, enum plot_kind kind, const char *label)
{
	for (int i = 0; i < c->n_marks; i++)
		if (c->marks[i].kind == kind && strcmp(c->marks[i].label, label) == 0)
			return &c->marks[i];
	fail_msg("no mark %s", label);
	return NULL;
}

static void near(double value, double expected, double share)
{
	if (!(fabs(value / expected - 1) <= share))
		fail_msg("%g is not %g", value, expected);
}

/* A T4 as the authors' optimiser has it: P1 at 0.8 TFLOP/s over 16 GiB/s. */
static void a_t4_turns_where_it_should(void **state)
{
	struct plot_content c;
	struct rig r;

	(void)state;
	rig_open(&r, "t4", MOE_SCHEDULE_CGOPIPE);
	assert_int_equal(plot_gather(&r.setting, &r.execution, &c, NULL), 0);
	near(find(&c, PLOT_TURN, "P1")->intensity, 46.6, 0.01);
	/* Bound by the GPU's memory: its intensity there, times the bandwidths' ratio. */
	double here = find(&c, PLOT_HERE, "experts")->intensity;
	near(find(&c, PLOT_TURN, "P2, balance")->intensity, here * 300 / 16, 0.01);
	/* Of the whole batch 504 sequences use two of eight experts, each weight for 2 FLOP in 2 bytes. */
	near(find(&c, PLOT_LINK, "experts")->intensity, 504 * 2 / 8.0, 0.01);
	assert_true(find(&c, PLOT_HERE, "attention")->flops < 0.8e12);
	moe_fleet_free(&r.fleet);
}

static void what_does_not_move_has_no_turning_points(void **state)
{
	static const char *const hosts[] = {"epyc-2s", "h100x8"};
	struct plot_content c;
	struct rig r;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		rig_open(&r, hosts[i], MOE_SCHEDULE_RESIDENT);
		assert_int_equal(plot_gather(&r.setting, &r.execution, &c, NULL), 0);
		assert_int_equal(c.n_marks, 5);
		for (int m = 0; m < c.n_marks; m++)
			assert_int_equal(c.marks[m].kind, PLOT_HERE);
		moe_fleet_free(&r.fleet);
	}
}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
		n++;
	return n;
}

struct label {
	double x, y, width;
};

/* All labels in the middle of their place, those at the axes left out. */
static int labels_of(const char *svg, struct label *out, int cap)
{
	int n = 0;

	for (const char *p = svg; (p = strstr(p, "<text x=\"")); p++) {
		char anchor[16], text[64];

		if (n < cap && sscanf(p, "<text x=\"%lf\" y=\"%lf\" class=\"label\" text-anchor=\"%15[^\"]\">%63[^<]", &out[n].x, &out[n].y, anchor, text) == 4 &&
		    strcmp(anchor, "middle") == 0 && out[n].y < 560) {
			out[n].width = 6 * (double)strlen(text);
			n++;
		}
	}
	return n;
}

static void labels_do_not_overlap(void **state)
{
	static const char *const hosts[] = {"t4", "epyc-2s", "h100x8", "rtx4090"};
	struct label v[64];

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct moe_buf out = MOE_BUF_INIT;
		struct rig r;

		rig_open(&r, hosts[i], i == 0 || i == 3 ? MOE_SCHEDULE_FLEXGEN : MOE_SCHEDULE_RESIDENT);
		assert_int_equal(moe_roofline_svg(&r.setting, &r.execution, "a & b", &out, NULL), 0);
		assert_non_null(strstr(out.data, ">a &amp; b<"));
		assert_int_equal(count(out.data, "<text"), count(out.data, "</text>"));
		int n = labels_of(out.data, v, 64);
		assert_true(n >= 5);
		for (int a = 0; a < n; a++)
			for (int b = 0; b < a; b++)
				assert_true(fabs(v[a].y - v[b].y) > 11 || fabs(v[a].x - v[b].x) > (v[a].width + v[b].width) / 2);
		moe_buf_free(&out);
		moe_fleet_free(&r.fleet);
	}
}

static void a_policy_that_cannot_be_is_refused(void **state)
{
	struct moe_buf out = MOE_BUF_INIT;
	struct rig r;

	(void)state;
	rig_open(&r, "t4", MOE_SCHEDULE_CGOPIPE);
	r.execution.batch = 0;
	assert_int_equal(moe_roofline_svg(&r.setting, &r.execution, "", &out, NULL), MOE_E_INPUT);
	assert_null(out.data);
	moe_fleet_free(&r.fleet);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_t4_turns_where_it_should),
		cmocka_unit_test(what_does_not_move_has_no_turning_points),
		cmocka_unit_test(labels_do_not_overlap),
		cmocka_unit_test(a_policy_that_cannot_be_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
