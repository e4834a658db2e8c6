/* Curves of kernels, attention and the loopback: what they count is what they did. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "measure/measure.h"

struct rig {
	struct moe_team *team;
	struct moe_backend *backend;
};

static struct rig make(void)
{
	struct rig r;

	assert_int_equal(moe_team_new(1, &r.team, NULL), 0);
	assert_int_equal(moe_backend_cpu(r.team, NULL, &r.backend, NULL), 0);
	return r;
}

static void drop(struct rig *r)
{
	r->backend->ops->close(r->backend);
	moe_team_free(r->team);
}

static void a_curve_counts_bytes_and_operations(void **state)
{
	const struct moe_kernel_case k = {.quant = MOE_Q_BF16, .layout = MOE_L_PLAIN, .rows = 64, .cols = 128, .m = 1, .experts = 2};
	const int rows[] = {1, 3};
	struct moe_kernel_rate out[2];
	struct rig r = make();

	(void)state;
	assert_int_equal(moe_measure_kernel_curve(r.backend, &k, rows, 2, 1 << 20, 0.002, out, NULL), 0);
	for (int i = 0; i < 2; i++) {
		assert_true(out[i].bytes == 2 * 3 * 64 * 128 * 2.0);
		assert_true(out[i].operations == 2 * 3 * 64 * 128 * 2.0 * rows[i]);
		assert_true(out[i].calls.steady > 0);
	}
	drop(&r);
}

static void rows_out_of_range_are_refused(void **state)
{
	const struct moe_kernel_case k = {.quant = MOE_Q_F32, .layout = MOE_L_PLAIN, .rows = 64, .cols = 64, .m = 1, .experts = 1};
	const int rows[] = {0};
	struct moe_kernel_rate out[1];
	struct moe_rate rate;
	struct rig r = make();

	(void)state;
	assert_int_equal(moe_measure_kernel_curve(r.backend, &k, rows, 1, 1 << 16, 0.001, out, NULL), MOE_E_RANGE);
	assert_int_equal(moe_measure_attention(r.backend, MOE_KV_F16, 0, 1, 1 << 20, 0.001, &rate, NULL), MOE_E_RANGE);
	assert_int_equal(moe_measure_attention(r.backend, MOE_KV_F16, 1, 4096, 1 << 20, 0.001, &rate, NULL), MOE_E_RANGE);
	drop(&r);
}

static void attention_of_every_type_has_a_rate(void **state)
{
	struct rig r = make();

	(void)state;
	for (int t = 0; t < MOE_KV_TYPES; t++) {
		struct moe_rate rate;

		assert_int_equal(moe_measure_attention(r.backend, (enum moe_kv_type)t, 4, 2, 1 << 20, 0.001, &rate, NULL), 0);
		assert_true(rate.steady > 0 && rate.samples >= 1);
	}
	drop(&r);
}

static void the_loopback_answers(void **state)
{
	struct moe_loopback l;

	(void)state;
	assert_int_equal(moe_measure_loopback(0.01, &l, NULL), 0);
	assert_true(l.bytes.steady > 0);
	assert_true(l.trips.steady > 0);
}

static void a_curve_is_read_between_its_points(void **state)
{
	const struct moe_kernel_roof k = {.n = 3, .rows = {1, 4, 64}, .bandwidth = {16, 4, 1}}, none = {.n = 0};

	(void)state;
	assert_true(moe_kernel_bandwidth(&none, 5) == 0);
	assert_true(moe_kernel_bandwidth(&k, 0.5) == 16);
	assert_true(moe_kernel_bandwidth(&k, 4) == 4);
	assert_true(moe_kernel_bandwidth(&k, 2) > 7.999 && moe_kernel_bandwidth(&k, 2) < 8.001);
	assert_true(moe_kernel_bandwidth(&k, 64) == 1);
	assert_true(moe_kernel_bandwidth(&k, 128) == 0.5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_curve_counts_bytes_and_operations),
		cmocka_unit_test(rows_out_of_range_are_refused),
		cmocka_unit_test(attention_of_every_type_has_a_rate),
		cmocka_unit_test(the_loopback_answers),
		cmocka_unit_test(a_curve_is_read_between_its_points),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("measure_kernels", tests, NULL, NULL);
}
