/* Placements: how even, how close to the memories, what is refused. */
#include "plan_rig.h"

/* Largest minus smallest count of a layer (-1: of all) over the devices. */
static int spread(const struct moe_placement *p, int layer)
{
	int lo = 1 << 30, hi = 0;

	for (int d = 0; d < p->devices; d++) {
		int n = rig_count(p, d, layer);

		lo = n < lo ? n : lo;
		hi = n > hi ? n : hi;
	}
	return hi - lo;
}

static void assert_each_once(const struct moe_placement *p)
{
	int n;

	for (int l = 0; l < p->layers; l++)
		for (int x = 0; x < p->experts[l]; x++) {
			const int *ids = moe_placement_of(p, l, x, &n);

			assert_int_equal(n, 1);
			assert_in_range(ids[0], 0, p->devices - 1);
		}
}

static void round_robin_is_even(void **state)
{
	struct moe_model m = rig_model(5, 8, 2);
	struct moe_placement p;

	(void)state;
	for (int devices = 1; devices <= 40; devices++) {
		assert_int_equal(moe_place_round_robin(&m, devices, &p, NULL), 0);
		assert_each_once(&p);
		assert_true(spread(&p, -1) <= 1);
		moe_placement_free(&p);
	}
}

static void round_robin_goes_on_from_layer_to_layer(void **state)
{
	struct moe_model m = rig_model(3, 4, 1);
	struct moe_placement p;
	int n;

	(void)state;
	assert_int_equal(moe_place_round_robin(&m, 3, &p, NULL), 0);
	for (int x = 0; x < 4; x++) {
		assert_int_equal(moe_placement_of(&p, 0, x, &n)[0], x % 3);
		assert_int_equal(moe_placement_of(&p, 2, x, &n)[0], (x + 4) % 3);
	}
	moe_placement_free(&p);
}

static void balanced_is_even_in_each_layer_and_in_all(void **state)
{
	struct moe_model m = rig_model(7, 8, 0);
	struct moe_placement p;

	(void)state;
	for (int devices = 1; devices <= 12; devices++) {
		assert_int_equal(moe_place_balanced(&m, devices, rig_equal, NULL, &p, NULL), 0);
		assert_each_once(&p);
		assert_true(spread(&p, -1) <= 1);
		for (int l = 0; l < 7; l++)
			assert_true(spread(&p, l) <= 1);
		moe_placement_free(&p);
	}
}

static uint64_t unlike(void *ctx, int layer, int expert)
{
	(void)ctx;
	return (uint64_t)(1000 + 37 * ((layer * 31 + expert * 17) % 29));
}

static void balanced_weighs_bytes(void **state)
{
	struct moe_model m = rig_model(16, 32, -1);
	struct moe_placement p;

	(void)state;
	for (int devices = 2; devices <= 8; devices++) {
		assert_int_equal(moe_place_balanced(&m, devices, unlike, NULL, &p, NULL), 0);
		assert_true(moe_placement_imbalance(&p, unlike, NULL) < 0.05);
		moe_placement_free(&p);
	}
}

static void capacity_follows_memory(void **state)
{
	static const struct moe_device devices[] = {{.memory = 6000}, {.memory = 3000}, {.memory = 1000}};
	struct moe_model m = rig_model(10, 8, -1);
	struct moe_placement p;

	(void)state;
	assert_int_equal(moe_place_capacity(&m, devices, 3, rig_equal, NULL, &p, NULL), 0);
	assert_each_once(&p);
	assert_int_equal(rig_count(&p, 0, -1), 48);
	assert_int_equal(rig_count(&p, 1, -1), 24);
	assert_int_equal(rig_count(&p, 2, -1), 8);
	for (int l = 0; l < 10; l++) /* 4.8, 2.4 and 0.8 of each layer */
		for (int d = 0; d < 3; d++) {
			const double share[] = {4.8, 2.4, 0.8};

			assert_true(rig_count(&p, d, l) < share[d] + 1 && rig_count(&p, d, l) > share[d] - 1.5);
		}
	moe_placement_free(&p);
}

static void capacity_fills_to_the_last_byte(void **state)
{
	static const struct moe_device devices[] = {{.memory = 1599}, {.memory = 5000}, {.memory = 1500}};
	struct moe_model m = rig_model(10, 8, -1);
	struct moe_placement p;

	(void)state;
	assert_int_equal(moe_place_capacity(&m, devices, 3, rig_equal, NULL, &p, NULL), 0);
	assert_int_equal(rig_count(&p, 0, -1), 15);
	assert_int_equal(rig_count(&p, 1, -1), 50);
	assert_int_equal(rig_count(&p, 2, -1), 15);
	moe_placement_free(&p);
}

static void capacity_says_what_does_not_fit(void **state)
{
	static const struct moe_device devices[] = {{.memory = 5000}, {.memory = 2999}};
	struct moe_model m = rig_model(10, 8, -1);
	struct moe_err e = MOE_ERR_INIT;
	struct moe_placement p;

	(void)state;
	assert_int_equal(moe_place_capacity(&m, devices, 2, rig_equal, NULL, &p, &e), MOE_E_RANGE);
	assert_non_null(strstr(e.msg, "8000 bytes"));
	assert_non_null(strstr(e.msg, "7999 bytes"));
}

static void unknown_memory_is_enough(void **state)
{
	static const struct moe_device devices[] = {{.memory = 0}, {.memory = 300}, {.memory = 0}};
	struct moe_model m = rig_model(4, 8, -1);
	struct moe_placement p;

	(void)state;
	assert_int_equal(moe_place_capacity(&m, devices, 3, rig_equal, NULL, &p, NULL), 0);
	assert_each_once(&p);
	assert_true(rig_count(&p, 1, -1) <= 3);
	moe_placement_free(&p);
}

static void fits_compares_with_memory(void **state)
{
	static const struct moe_device devices[] = {{.memory = 800}, {.memory = 799}};
	struct moe_model m = rig_model(2, 8, -1);
	struct moe_err e = MOE_ERR_INIT;
	struct moe_placement p;

	(void)state;
	assert_int_equal(moe_place_balanced(&m, 2, rig_equal, NULL, &p, NULL), 0);
	assert_int_equal(moe_placement_fits(&p, devices, rig_equal, NULL, &e), MOE_E_RANGE);
	assert_non_null(strstr(e.msg, "device 1"));
	moe_placement_free(&p);
}

static void numbers_of_devices_are_checked(void **state)
{
	struct moe_model m = rig_model(2, 8, -1);
	struct moe_placement p;

	(void)state;
	assert_int_equal(moe_place_round_robin(&m, 0, &p, NULL), MOE_E_RANGE);
	assert_int_equal(moe_place_balanced(&m, -1, rig_equal, NULL, &p, NULL), MOE_E_RANGE);
	assert_int_equal(moe_place_round_robin(&m, MOE_MAX_DEVICES + 1, &p, NULL), MOE_E_RANGE);
}

static int twice(void *ctx, int layer, int expert, int *ids, int cap)
{
	(void)ctx;
	(void)layer;
	(void)expert;
	(void)cap;
	ids[0] = ids[1] = 1;
	return 2;
}

static void a_device_holds_an_expert_once(void **state)
{
	struct moe_model m = rig_model(1, 2, -1);
	struct moe_err e = MOE_ERR_INIT;
	struct moe_placement p;

	(void)state;
	assert_int_equal(moe_placement_make(&m, 2, twice, NULL, &p, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "twice"));
}

static void what_does_not_exist_is_held_by_nobody(void **state)
{
	struct moe_model m = rig_model(2, 4, 1);
	struct moe_placement p;
	int n = 7;

	(void)state;
	assert_int_equal(moe_place_round_robin(&m, 2, &p, NULL), 0);
	assert_null(moe_placement_of(&p, 0, 4, &n));
	assert_int_equal(n, 0);
	assert_false(moe_placement_holds(&p, 0, 1, 0));
	assert_false(moe_placement_holds(&p, 0, -1, 0));
	assert_false(moe_placement_holds(&p, 0, 2, 0));
	moe_placement_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_robin_is_even),
		cmocka_unit_test(round_robin_goes_on_from_layer_to_layer),
		cmocka_unit_test(balanced_is_even_in_each_layer_and_in_all),
		cmocka_unit_test(balanced_weighs_bytes),
		cmocka_unit_test(capacity_follows_memory),
		cmocka_unit_test(capacity_fills_to_the_last_byte),
		cmocka_unit_test(capacity_says_what_does_not_fit),
		cmocka_unit_test(unknown_memory_is_enough),
		cmocka_unit_test(fits_compares_with_memory),
		cmocka_unit_test(numbers_of_devices_are_checked),
		cmocka_unit_test(a_device_holds_an_expert_once),
		cmocka_unit_test(what_does_not_exist_is_held_by_nobody),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
