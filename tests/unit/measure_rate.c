/* When sampling stops and which rate is reported; the loops do what they count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "measure/measure.h"

/* Gives rates from a list, each as one second's work; the last is repeated. */
struct script {
	const double *v;
	int n, taken, fail_at;
};

static int scripted(void *ctx, struct moe_sample *out, struct moe_err *e)
{
	struct script *s = ctx;
	int i = s->taken < s->n ? s->taken : s->n - 1;

	if (s->fail_at && s->taken == s->fail_at)
		return moe_fail(e, MOE_E_UNSUPPORTED, "no more");
	s->taken++;
	*out = (struct moe_sample){s->v[i], 1000000000};
	return 0;
}

static void stops_when_three_agree(void **state)
{
	const double v[] = {50, 100, 70, 99, 60, 98.5, 40, 90, 95, 96};
	struct script s = {v, 10, 0, 0};
	struct moe_rate r;

	(void)state;
	assert_int_equal(moe_measure_rate(scripted, &s, 30, &r, NULL), 0);
	assert_int_equal(r.samples, MOE_SAMPLES_LEAST);
	assert_true(r.settled);
	assert_true(r.steady == 98.5); /* what three samples reached */
	assert_true(r.median == 80);   /* between 70 and 90 */
	assert_true(r.spread > 0.187 && r.spread < 0.189);
}

static void one_lucky_sample_does_not_settle_it(void **state)
{
	const double v[] = {100, 50, 50, 50, 50, 50, 50, 50, 50, 50, 100, 60, 100, 30};
	struct script s = {v, 14, 0, 0};
	struct moe_rate r;

	(void)state;
	assert_int_equal(moe_measure_rate(scripted, &s, 30, &r, NULL), 0);
	assert_int_equal(r.samples, 13);
	assert_true(r.steady == 100 && r.settled);
}

static void a_quarter_of_the_time_is_taken(void **state)
{
	const double v[] = {10};
	struct script s = {v, 1, 0, 0};
	struct moe_rate r;

	(void)state;
	assert_int_equal(moe_measure_rate(scripted, &s, 80, &r, NULL), 0);
	assert_int_equal(r.samples, 20);
	assert_true(r.settled);
}

static void the_time_ends_it(void **state)
{
	const double v[] = {7};
	struct script s = {v, 1, 0, 0};
	struct moe_rate r;

	(void)state;
	assert_int_equal(moe_measure_rate(scripted, &s, 0, &r, NULL), 0);
	assert_int_equal(r.samples, 1);
	assert_true(r.steady == 7 && r.median == 7 && r.spread == 0 && !r.settled);
}

static void an_error_ends_it(void **state)
{
	const double v[] = {1, 2};
	struct script s = {v, 2, 0, 2};
	struct moe_rate r;
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(moe_measure_rate(scripted, &s, 1e6, &r, &e), MOE_E_UNSUPPORTED);
	assert_string_equal(e.msg, "no more");
}

static void roofs_are_there(void **state)
{
	struct moe_team *team;
	struct moe_roofs r;

	(void)state;
	assert_int_equal(moe_team_new(2, &team, NULL), 0);
	assert_int_equal(moe_measure_roofs(team, 0.01, &r, NULL), 0);
	assert_int_equal(r.threads, 2);
	assert_true(r.memory.steady > 0 && r.dot[MOE_F32_DOT].steady > 0);
	for (int a = 0; a < MOE_ARITHMETICS; a++)
		assert_true((r.dot[a].steady > 0) == (moe_measure_dot_name((enum moe_arithmetic)a) != NULL));
	moe_team_free(team);
}

static void impossible_kernels_are_refused(void **state)
{
	struct moe_kernel_case k = {.quant = MOE_Q_F32, .rows = 0, .cols = 5, .m = 1};
	struct moe_kernel_rate r;
	struct moe_backend *b;
	struct moe_team *team;

	(void)state;
	assert_int_equal(moe_team_new(1, &team, NULL), 0);
	assert_int_equal(moe_backend_cpu(team, NULL, &b, NULL), 0);
	assert_int_equal(moe_measure_kernel(b, &k, 1 << 16, 0.001, &r, NULL), MOE_E_RANGE);
	k.rows = 64;
	k.m = 0;
	assert_int_equal(moe_measure_kernel(b, &k, 1 << 16, 0.001, &r, NULL), MOE_E_RANGE);
	k.m = 2;
	assert_int_equal(moe_measure_kernel(b, &k, 1 << 16, 0.001, &r, NULL), 0);
	assert_true(r.bytes == 64 * 5 * 4 && r.operations == 2 * 64 * 5 * 2 && r.calls.steady > 0);
	b->ops->close(b);
	moe_team_free(team);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stops_when_three_agree),
		cmocka_unit_test(one_lucky_sample_does_not_settle_it),
		cmocka_unit_test(a_quarter_of_the_time_is_taken),
		cmocka_unit_test(the_time_ends_it),
		cmocka_unit_test(an_error_ends_it),
		cmocka_unit_test(roofs_are_there),
		cmocka_unit_test(impossible_kernels_are_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("measure_rate", tests, NULL, NULL);
}
