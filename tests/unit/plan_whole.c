/* Shares of weights as whole experts, by the solver that moe-policy has. */
#include <math.h>

#include "plan_rig.h"

moe_lp_solve whole_experts; /* tools/moe-policy/whole.c */

/* Three items of values 8, 11, 6 and weights 5, 7, 4 in a sack of 14, each at most once: the best is all that fit but one
 * takes fractions, in whole items 5 + 7. */
static void a_sack_is_packed(void **state)
{
	struct moe_lp p = {.columns = 3, .rows = 4, .cost = {-8, -11, -6}, .limit = {14, 1, 1, 1}, .whole = {true, true, true}};
	double x[3];

	(void)state;
	memcpy(p.row[0], (double[]){5, 7, 4}, 3 * sizeof(double));
	for (int i = 0; i < 3; i++)
		p.row[1 + i][i] = 1;
	assert_int_equal(whole_experts(NULL, &p, x, NULL), 0);
	assert_true(fabs(x[0] - 1) < 1e-6 && fabs(x[1] - 1) < 1e-6 && fabs(x[2]) < 1e-6);
}

static void what_cannot_be_is_refused(void **state)
{
	struct moe_lp p = {.columns = 1, .rows = 2, .cost = {1}, .limit = {0.7, -0.3}, .whole = {true}};
	struct moe_err e = MOE_ERR_INIT;
	double x;

	(void)state;
	p.row[0][0] = 1;
	p.row[1][0] = -1;
	assert_int_equal(whole_experts(NULL, &p, &x, &e), MOE_E_RANGE);
}

static double experts(const struct moe_model *m)
{
	double n = 0;

	for (int l = 0; l < m->n_layers; l++)
		n += m->layers[l].ffn.experts;
	return n;
}

static void policies_have_whole_experts(void **state)
{
	static const struct { const char *model, *machine; double host; } cases[] = {
		{"mixtral-8x7b", "t4", 184}, {"mixtral-8x7b", "t4", 40}, {"qwen3-30b-a3b", "rtx4090", 30},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct moe_search how = MOE_SEARCH_INIT;
		struct moe_found parts, whole;
		struct moe_setting s = {.quants = MOE_QUANTS_INIT, .kv_bytes = 2};
		struct moe_fleet f;
		struct moe_model m;

		assert_int_equal(moe_synth_model(cases[i].model, &m, NULL), 0);
		assert_int_equal(moe_hardware_named(cases[i].machine, &f, NULL), 0);
		assert_int_equal(moe_workload_named("mtbench", &s.workload, NULL), 0);
		s.model = &m;
		s.hardware = f.hosts;
		f.hosts[0].levels[1].memory = cases[i].host * 0x1p30;
		assert_int_equal(moe_search(&s, &how, &parts, NULL), 0);
		how.solve = whole_experts;
		assert_int_equal(moe_search(&s, &how, &whole, NULL), 0);
		for (int l = 0; l < f.hosts[0].n_levels; l++) {
			double n = whole.execution.weights[l] * experts(&m);

			assert_true(fabs(n - round(n)) < 1e-6);
		}
		assert_true(whole.prediction.fits);
		print_message("# %s on %s: %.6f of what fractions have\n", cases[i].model, cases[i].machine,
		              whole.prediction.tokens_per_second / parts.prediction.tokens_per_second);
		assert_true(whole.prediction.tokens_per_second <= parts.prediction.tokens_per_second * (1 + 1e-9));
		assert_true(whole.prediction.tokens_per_second >= parts.prediction.tokens_per_second * 0.98);
		moe_model_free(&m);
		moe_fleet_free(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sack_is_packed),
		cmocka_unit_test(what_cannot_be_is_refused),
		cmocka_unit_test(policies_have_whole_experts),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
