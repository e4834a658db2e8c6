/* More requests than can be done: who waits, who gives way, who is told at once that it would come too late;
 * and what is given up when memory gets short. */
#include <sys/mman.h>
#include <unistd.h>

#include "engine/requests.h"
#include "engine_rig.h"

#define SPEC "tiny-mixtral,seed=1"

static struct moe_engine_config shedding(int places, int waiting)
{
	struct moe_engine_config c = rig_config(places, 128, 64);

	c.shed = true;
	c.max_waiting = waiting;
	return c;
}

static int try_to(struct rig *r, int make, int priority, double timeout, uint64_t *id, struct moe_err *e)
{
	struct moe_request q = request(4, make);
	int32_t *t = some_tokens(r, 4, 1);
	int rc;

	q.tokens = t;
	q.priority = priority;
	q.timeout = timeout;
	rc = moe_engine_submit(r->g, &q, id, e);
	free(t);
	return rc;
}

static int ask(struct rig *r, int priority)
{
	struct moe_err e;

	return try_to(r, 4, priority, 0, NULL, &e);
}

/* ---- how many wait ---- */

static void places_are_not_waiting(void **state)
{
	struct rig *r = rig_open(SPEC, shedding(2, 1));
	struct moe_err e;

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(ask(r, 0), 0);
	assert_int_equal(try_to(r, 4, 0, 0, NULL, &e), MOE_E_OVERLOADED);
	assert_string_equal(e.msg, "refused: 1 requests wait already, which is the most");
	step(r);
	assert_int_equal(ask(r, 0), MOE_E_OVERLOADED);
	run_all(r);
	assert_int_equal(ask(r, 0), 0);
	run_all(r);
	for (uint64_t id = 1; id <= 4; id++)
		assert_int_equal(record_of(r, id)->finish, MOE_FINISH_LENGTH);
	rig_close(r);
}

static void none_may_wait(void **state)
{
	struct rig *r = rig_open(SPEC, shedding(1, 0));

	(void)state;
	assert_int_equal(ask(r, 0), 0);
	assert_int_equal(ask(r, 9), 0); /* the first has not begun: it gives way */
	step(r);
	assert_int_equal(record_of(r, 1)->err.code, MOE_E_OVERLOADED);
	assert_int_equal(ask(r, 10), MOE_E_OVERLOADED); /* the second has */
	run_all(r);
	assert_int_equal(record_of(r, 2)->finish, MOE_FINISH_LENGTH);
	rig_close(r);
}

static void without_shedding_all_wait(void **state)
{
	struct rig *r = rig_open(SPEC, rig_config(1, 128, 64));

	(void)state;
	for (int i = 0; i < 20; i++)
		assert_int_equal(ask(r, 0), 0);
	run_all(r);
	for (uint64_t id = 1; id <= 20; id++)
		assert_int_equal(record_of(r, id)->finish, MOE_FINISH_LENGTH);
	rig_close(r);
}

/* Of the lowest priority the last; equal ones give way to nobody of their own. */
static void the_least_gives_way(void **state)
{
	static const int priority[] = {5, 1, 1, 3};
	struct rig *r = rig_open(SPEC, shedding(1, 3));
	struct moe_err e;

	(void)state;
	assert_int_equal(ask(r, 5), 0);
	step(r);
	for (int i = 1; i < 4; i++)
		assert_int_equal(ask(r, priority[i]), 0);
	assert_int_equal(try_to(r, 4, 1, 0, NULL, &e), MOE_E_OVERLOADED);
	assert_int_equal(ask(r, 2), 0);  /* in place of 3 */
	assert_int_equal(ask(r, 2), 0);  /* in place of 2 */
	assert_int_equal(ask(r, 2), MOE_E_OVERLOADED);
	assert_false(record_of(r, 3)->done); /* told by the next step, as every event */
	step(r);
	assert_true(record_of(r, 2)->done && record_of(r, 3)->done);
	assert_string_equal(record_of(r, 3)->err.msg, "gave way to a request of higher priority: 3 waited, which is the most");
	assert_int_equal(record_of(r, 2)->err.code, MOE_E_OVERLOADED);
	run_all(r);
	for (uint64_t id = 4; id <= 6; id++)
		assert_int_equal(record_of(r, id)->finish, MOE_FINISH_LENGTH);
	rig_close(r);
}

/* ---- who would be late ---- */

/* The engine's pace is what this says, not what was measured. */
static void set_pace(struct rig *r, double step, double made)
{
	r->g->pace.steps = 100;
	r->g->pace.step = step;
	r->g->pace.made = made;
	r->g->pace.ended = made > 0;
}

static double seconds(struct rig *r, int n_prompt, int max, int priority)
{
	struct moe_seq s = {.n_prompt = n_prompt, .max_tokens = max, .priority = priority};

	return moe_pace_seconds(&r->g->pace, r->g, &s);
}

static void pace_of_one(void **state)
{
	struct rig *r = rig_open(SPEC, shedding(2, 10));

	(void)state;
	assert_true(seconds(r, 64, 10, 0) == 0); /* nothing is known yet */
	set_pace(r, 0.5, 0);
	assert_float_equal(seconds(r, 64, 10, 0), 0.5 * 11, 1e-9);
	assert_float_equal(seconds(r, 128, 10, 0), 0.5 * 12, 1e-9);
	set_pace(r, 0.5, 4); /* others ended sooner than they might have */
	assert_float_equal(seconds(r, 64, 10, 0), 0.5 * 5, 1e-9);
	assert_float_equal(seconds(r, 64, 2, 0), 0.5 * 3, 1e-9);
	rig_close(r);
}

/* Two places: 10 and 20 steps are under way, 5 wait for the first place; then it is our turn, after 15. */
static void pace_behind_others(void **state)
{
	struct rig *r = rig_open(SPEC, shedding(2, 10));
	struct moe_seq a = {.max_tokens = 10}, b = {.max_tokens = 20}, w = {.max_tokens = 5, .priority = 1};

	(void)state;
	set_pace(r, 2, 0);
	r->g->running[0] = &a;
	r->g->running[1] = &b;
	r->g->n_running = 2;
	r->g->waiting = &w;
	assert_float_equal(seconds(r, 0, 3, 1), 2 * (10 + 5 + 3), 1e-9);
	assert_float_equal(seconds(r, 0, 3, 2), 2 * (10 + 3), 1e-9); /* it goes before those that wait */
	w.ended = true;
	assert_float_equal(seconds(r, 0, 3, 1), 2 * (10 + 3), 1e-9);
	r->g->n_running = 0;
	r->g->waiting = NULL;
	rig_close(r);
}

static void who_would_be_late_is_refused(void **state)
{
	struct rig *r = rig_open(SPEC, shedding(1, 10));
	struct moe_err e;
	uint64_t id;

	(void)state;
	set_pace(r, 10, 0);
	assert_int_equal(try_to(r, 50, 0, 400, &id, &e), MOE_E_OVERLOADED);
	assert_string_equal(e.msg, "refused: it would take about 501 s as things go, and has 400 s");
	assert_int_equal(try_to(r, 50, 0, 600, &id, &e), 0);
	assert_int_equal(try_to(r, 50, 0, 600, &id, &e), MOE_E_OVERLOADED);
	assert_int_equal(try_to(r, 50, 0, 0, &id, &e), 0); /* it has time */
	assert_int_equal(try_to(r, 2, 1, 25, &id, &e), 0); /* and this one goes first */
	run_all(r);
	for (uint64_t i = 1; i <= 3; i++)
		assert_int_equal(record_of(r, i)->finish, MOE_FINISH_LENGTH);
	rig_close(r);
}

static void the_pace_is_measured(void **state)
{
	struct rig *r = rig_open(SPEC, rig_config(2, 128, 64));

	(void)state;
	submit(r, request(5, 12), 1);
	submit(r, request(5, 12), 2);
	run_all(r);
	assert_int_equal(r->g->pace.steps, moe_engine_stats(r->g).steps);
	assert_true(r->g->pace.step > 0);
	assert_int_equal(r->g->pace.ended, 2);
	assert_float_equal(r->g->pace.made, 12, 1e-9);
	rig_close(r);
}

/* ---- memory ---- */

/* Pages of the KV cache that are in memory. */
static size_t resident(const struct rig *r)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = r->g->kv.block_bytes * (size_t)r->g->kv.n_blocks, n = 0;
	uintptr_t from = (uintptr_t)r->g->kv.mem / page * page, to = (uintptr_t)r->g->kv.mem + bytes;
	size_t pages = (to - from + page - 1) / page;
	unsigned char *there = calloc(pages, 1);

	assert_non_null(there);
	assert_int_equal(mincore((void *)from, pages * page, there), 0);
	for (size_t i = 0; i < pages; i++)
		n += there[i] & 1;
	free(there);
	return n;
}

static void what_is_kept_is_given_back(void **state)
{
	struct rig *r = rig_open(SPEC, rig_config(4, 256, 64));
	size_t before;

	(void)state;
	assert_true(r->g->kv.block_bytes >= 4 * (size_t)sysconf(_SC_PAGESIZE));
	submit(r, request(200, 4), 1);
	run_all(r);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_cached, 3);
	before = resident(r);
	moe_engine_press(r->g, MOE_PRESSURE_HIGH);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_cached, 0);
	assert_true(resident(r) < before / 2);
	submit(r, request(200, 4), 1);
	step(r);
	moe_engine_press(r->g, MOE_PRESSURE_HIGH); /* not what a sequence holds */
	run_all(r);
	assert_int_equal(record_of(r, 2)->cached_tokens, 0);
	assert_same_answer(record_of(r, 1), record_of(r, 2));
	rig_close(r);
}

static void one_at_a_time(void **state)
{
	struct rig *r = rig_open(SPEC, rig_config(4, 128, 64));
	struct rig *good = rig_open(SPEC, rig_config(4, 128, 64));

	(void)state;
	moe_engine_press(r->g, MOE_PRESSURE_HIGH);
	for (int i = 0; i < 4; i++) {
		submit(r, request(4, 3), (uint64_t)i);
		submit(good, request(4, 3), (uint64_t)i);
	}
	run_all(good);
	while (r->n_done < 2) {
		step(r);
		assert_in_range(moe_engine_stats(r->g).running, 0, 1);
	}
	assert_int_equal(moe_engine_stats(r->g).most_running, 1);
	moe_engine_press(r->g, MOE_PRESSURE_NONE);
	run_all(r);
	assert_int_equal(moe_engine_stats(r->g).most_running, 2);
	for (uint64_t id = 1; id <= 4; id++)
		assert_same_answer(record_of(r, id), record_of(good, id));
	rig_close(r);
	rig_close(good);
}

static void nothing_new_is_taken(void **state)
{
	struct rig *r = rig_open(SPEC, rig_config(1, 128, 64));
	struct moe_err e;

	(void)state;
	for (int i = 0; i < 2; i++)
		assert_int_equal(ask(r, 0), 0);
	step(r);
	moe_engine_press(r->g, MOE_PRESSURE_SEVERE);
	assert_int_equal(try_to(r, 4, 9, 0, NULL, &e), MOE_E_OVERLOADED);
	assert_string_equal(e.msg, "refused: memory is short");
	run_all(r); /* what was taken is done */
	assert_int_equal(record_of(r, 1)->finish, MOE_FINISH_LENGTH);
	assert_int_equal(record_of(r, 2)->finish, MOE_FINISH_LENGTH);
	moe_engine_press(r->g, MOE_PRESSURE_NONE);
	assert_int_equal(ask(r, 0), 0);
	run_all(r);
	rig_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places_are_not_waiting),
		cmocka_unit_test(none_may_wait),
		cmocka_unit_test(without_shedding_all_wait),
		cmocka_unit_test(the_least_gives_way),
		cmocka_unit_test(pace_of_one),
		cmocka_unit_test(pace_behind_others),
		cmocka_unit_test(who_would_be_late_is_refused),
		cmocka_unit_test(the_pace_is_measured),
		cmocka_unit_test(what_is_kept_is_given_back),
		cmocka_unit_test(one_at_a_time),
		cmocka_unit_test(nothing_new_is_taken),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine under load", tests, NULL, NULL);
}
