/* The link to a device: copies are counted, and what they move arrives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/team.h"
#include "measure/measure.h"

static void a_link_has_a_rate(void **state)
{
	struct moe_link_rates rates;
	struct moe_rate both;
	struct moe_device_memory memory;
	struct moe_backend *b;
	struct moe_team *team;
	(void)state;
	assert_int_equal(moe_team_new(1, &team, NULL), 0);
	assert_int_equal(moe_backend_cpu(team, NULL, &b, NULL), 0);
	assert_int_equal(moe_measure_link(b, 0.01, &rates, NULL), 0);
	assert_true(rates.in.steady > 0 && rates.out.steady > 0);
	assert_int_equal(moe_measure_link_both(b, 0.01, &both, NULL), 0);
	assert_true(both.steady > 0);
	b->ops->memory(b, &memory);
	assert_int_equal(memory.used, 0);
	b->ops->close(b);
	moe_team_free(team);
}

static void a_small_device_has_room_for_it(void **state)
{
	const struct moe_device_config c = {.device = "cpu", .memory = 64 << 10, .threads = 1, .numerics = MOE_NUMERICS_INIT};
	struct moe_link_rates rates;
	struct moe_device_memory memory;
	struct moe_backend *b;
	struct moe_rate both;
	(void)state;
	assert_int_equal(moe_device_open(&c, &b, NULL), 0);
	assert_int_equal(moe_measure_link(b, 0.01, &rates, NULL), 0);
	assert_int_equal(moe_measure_link_both(b, 0.01, &both, NULL), 0);
	b->ops->memory(b, &memory);
	assert_int_equal(memory.used, 0);
	assert_true(memory.most > 0 && memory.most <= 64 << 10);
	b->ops->close(b);
}

static void copies_are_counted(void **state)
{
	const struct moe_backend_ops *before;
	struct moe_traffic *t;
	struct moe_backend *b;
	struct moe_team *team;
	char there[64], back[64] = "";
	void *mem;
	(void)state;
	assert_int_equal(moe_team_new(1, &team, NULL), 0);
	assert_int_equal(moe_backend_cpu(team, NULL, &b, NULL), 0);
	assert_int_equal(b->ops->alloc(b, sizeof there, &mem, NULL), 0);
	before = b->ops;
	assert_int_equal(moe_traffic_start(b, &t, NULL), 0);
	memset(there, 7, sizeof there);
	assert_int_equal(b->ops->copy_in(b, NULL, mem, there, sizeof there, NULL), 0);
	assert_int_equal(b->ops->copy_in(b, NULL, mem, there, 10, NULL), 0);
	assert_int_equal(b->ops->copy_out(b, NULL, back, mem, 60, NULL), 0);
	assert_int_equal(b->ops->sync(b, NULL, NULL), 0);
	assert_memory_equal(there, back, 60);
	assert_int_equal(moe_traffic_so_far(t).in, 74);
	assert_int_equal(moe_traffic_so_far(t).out, 60);
	moe_traffic_stop(t);
	assert_ptr_equal(b->ops, before);
	moe_traffic_stop(NULL);
	b->ops->release(b, mem);
	b->ops->close(b);
	moe_team_free(team);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_link_has_a_rate),
		cmocka_unit_test(a_small_device_has_room_for_it),
		cmocka_unit_test(copies_are_counted),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
