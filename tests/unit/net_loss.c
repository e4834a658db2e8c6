/* Servers that die, stay silent, answer late, answer nonsense, or are not what they should be. */
#include "net_fake.h"

/* ---- handshakes that fail ---- */

static int connect_with(const struct here *h, const struct moe_identity *id, bool mixed, int rows, int servers,
                        struct moe_experts **x, struct moe_err *e)
{
	struct moe_endpoints to = endpoints(h, servers);
	struct moe_remote_config c = client_config(h, &to);
	int rc;

	c.identity = *id;
	c.mixed_numerics = mixed;
	c.max_rows = rows;
	c.connect_timeout = servers == 1 ? 30 : 0.2;
	rc = moe_experts_remote(&c, x, e);
	moe_endpoints_free(&to);
	return rc;
}

static void refuses(const struct here *h, const struct moe_identity *id, int rows, const char *words)
{
	struct moe_experts *x;
	struct moe_err e = MOE_ERR_INIT;

	assert_int_equal(connect_with(h, id, false, rows, 1, &x, &e), MOE_E_PEER);
	if (!strstr(e.msg, words))
		print_message("%s\n", e.msg);
	assert_non_null(strstr(e.msg, "rank 0 at ipc://"));
	assert_non_null(strstr(e.msg, words));
}

static void servers_that_do_not_fit_are_refused_by_name(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct moe_experts *x;
	struct served s;

	served_start(h, &s, 0, 1);
	id.fingerprint[0] = 'f';
	refuses(h, &id, MAX_ROWS, "serves another model (fingerprint 00112233");
	/* Another epoch of the same model gives the same bits. */
	id = identity();
	id.epoch = 2;
	assert_int_equal(connect_with(h, &id, false, MAX_ROWS, 1, &x, NULL), 0);
	x->ops->close(x);
	id = identity();
	id.numerics++;
	strcpy(id.numerics_text, "sum2");
	refuses(h, &id, MAX_ROWS, ", wanted sum2): ");
	assert_int_equal(connect_with(h, &id, true, MAX_ROWS, 1, &x, NULL), 0);
	x->ops->close(x);
	id = identity();
	refuses(h, &id, MAX_ROWS + 1, "start it with --max-rows 25");
	served_end(&s);
}

static void a_server_that_is_not_there_is_named(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct moe_err e = MOE_ERR_INIT;
	struct moe_experts *x;
	struct served s;

	served_start(h, &s, 0, 2);
	assert_int_equal(connect_with(h, &id, false, MAX_ROWS, 2, &x, &e), MOE_E_TIMEOUT);
	assert_non_null(strstr(e.msg, "rank 1 at ipc://"));
	assert_non_null(strstr(e.msg, "(1 of 2 servers are missing)"));
	served_end(&s);
}

static void experts_that_nobody_holds_are_named(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct moe_err e = MOE_ERR_INIT;
	struct moe_experts *x;
	struct served s;

	served_start(h, &s, 0, 2);
	assert_int_equal(connect_with(h, &id, false, MAX_ROWS, 1, &x, &e), MOE_E_PEER);
	assert_non_null(strstr(e.msg, "no server holds layer 0 expert 1"));
	served_end(&s);
}

/* ---- servers that die ---- */

static void a_dead_server_fails_only_its_rows_and_may_come_back(void **state)
{
	const struct here *h = *state;
	struct moe_err e = MOE_ERR_INIT;
	struct served s[2];
	struct moe_experts *x;
	struct work w;

	served_start(h, &s[0], 0, 2);
	served_start(h, &s[1], 1, 2);
	x = client(h, 2);
	work_new(h, &w, MAX_ROWS, 11);
	served_end(&s[1]);
	assert_int_equal(run(x, &w.b, &e), MOE_E_PEER);
	assert_non_null(strstr(e.msg, "rank 1 at ipc://"));
	for (int r = 0; r < MAX_ROWS; r++) {
		assert_int_equal(w.failed[r], needs(h, &w, r, 1, 2));
		assert_true(w.failed[r] || row_is_right(h, &w, r));
	}
	/* Known dead: refused at once, whatever the timeout. */
	assert_int_equal(run(x, &w.b, &e), MOE_E_PEER);
	served_start(h, &s[1], 1, 2);
	while (run(x, &w.b, NULL))
		usleep(1000);
	assert_right(h, &w);
	work_free(&w);
	x->ops->close(x);
	served_end(&s[0]);
	served_end(&s[1]);
}

static void a_server_that_comes_back_as_another_model_is_not_used(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct moe_err e = MOE_ERR_INIT;
	struct served s;
	struct moe_experts *x;
	struct work w;

	served_start(h, &s, 0, 1);
	x = client(h, 1);
	work_new(h, &w, 3, 12);
	served_end(&s);
	id.fingerprint[0] = 'f';
	served_make(h, &s, 0, 1, &id);
	served_run(&s);
	do
		assert_int_equal(run(x, &w.b, &e), MOE_E_PEER);
	while (!strstr(e.msg, "serves another model"));
	work_free(&w);
	x->ops->close(x);
	served_end(&s);
}

/* ---- servers that stay silent, answer late, answer nonsense ---- */

static void silence_ends_at_the_deadline(void **state)
{
	const struct here *h = *state;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_experts *x;
	struct fake f = {.of = 1};
	struct work w;

	fake_start(&f, h, HOLD);
	x = client(h, 1);
	work_new(h, &w, 3, 13);
	w.b.deadline = moe_now_ns() + 50000000;
	assert_int_equal(run(x, &w.b, &e), MOE_E_TIMEOUT);
	assert_non_null(strstr(e.msg, "rank 0 at ipc://"));
	assert_true(w.failed[0] && w.failed[1] && w.failed[2]);
	w.b.deadline = moe_now_ns() + 50000000;
	assert_int_equal(run(x, &w.b, &e), MOE_E_TIMEOUT);
	/* It gave two credits and owes two answers: it is not asked a third time. */
	w.b.deadline = 0;
	assert_int_equal(run(x, &w.b, &e), MOE_E_TIMEOUT);
	assert_non_null(strstr(e.msg, "silent"));
	assert_int_equal(moe_experts_remote_stats(x).messages, 2);
	/* The late answers are nobody's; then it is asked again. */
	f.mood = ANSWER;
	while (run(x, &w.b, NULL))
		usleep(1000);
	for (int r = 0; r < 3; r++)
		assert_int_equal(w.failed[r], 0);
	work_free(&w);
	x->ops->close(x);
	fake_end(&f);
}

/* The first answer is still under way when the second batch waits for its own. */
static void late_answers_are_known_by_their_id(void **state)
{
	const struct here *h = *state;
	struct moe_experts *x;
	struct fake f = {.of = 1};
	struct work w;
	uint64_t ticket;

	fake_start(&f, h, HOLD);
	x = client(h, 1);
	work_new(h, &w, 3, 14);
	assert_int_equal(x->ops->submit(x, &w.b, &ticket, NULL), 0);
	while (f.hold < 1)
		usleep(1000);
	x->ops->cancel(x, ticket);
	w.b.rows = 2;
	assert_int_equal(x->ops->submit(x, &w.b, &ticket, NULL), 0);
	f.mood = ANSWER;
	assert_int_equal(x->ops->wait(x, ticket, NULL), 0);
	assert_int_equal(x->ops->wait(x, ticket, NULL), MOE_E_RANGE);
	work_free(&w);
	x->ops->close(x);
	fake_end(&f);
}

static void check_mood(const struct here *h, enum mood mood, int code, const char *words)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_experts *x;
	struct fake f = {.of = 1};
	struct work w;

	fake_start(&f, h, mood);
	x = client(h, 1);
	work_new(h, &w, 3, 15);
	assert_int_equal(run(x, &w.b, &e), code);
	if (!strstr(e.msg, words))
		print_message("%s\n", e.msg);
	assert_non_null(strstr(e.msg, words));
	assert_true(w.failed[0] && w.failed[1] && w.failed[2]);
	work_free(&w);
	x->ops->close(x);
	fake_end(&f);
}

static void errors_and_nonsense_fail_the_rows(void **state)
{
	check_mood(*state, NONSENSE, MOE_E_PEER, "does not fit the request");
	check_mood(*state, FOREIGN, MOE_E_PEER, "shorter than a header");
	check_mood(*state, FAIL, MOE_E_IO, "the disk is gone");
	check_mood(*state, STALE, MOE_E_PEER, "the disk is gone");
}

/* A server that broke the protocol cannot welcome itself back. */
static void refused_stays_refused(void **state)
{
	const struct here *h = *state;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_experts *x;
	struct fake f = {.of = 1};
	struct work w;

	fake_start(&f, h, UNASKED);
	x = client(h, 1);
	work_new(h, &w, 3, 17);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(run(x, &w.b, &e), MOE_E_PEER);
		assert_non_null(strstr(e.msg, "shorter than a header"));
		f.mood = ANSWER;
		usleep(1000);
	}
	work_free(&w);
	x->ops->close(x);
	fake_end(&f);
}

/* ---- clients that leave ---- */

static void closing_in_the_middle_leaves_nothing(void **state)
{
	const struct here *h = *state;
	struct served s;
	struct work w;

	served_start(h, &s, 0, 1);
	work_new(h, &w, MAX_ROWS, 16);
	for (int i = 0; i < 20; i++) {
		struct moe_experts *x = client(h, 1);
		uint64_t ticket;

		assert_int_equal(x->ops->submit(x, &w.b, &ticket, NULL), 0);
		x->ops->close(x);
	}
	work_free(&w);
	served_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(servers_that_do_not_fit_are_refused_by_name),
		cmocka_unit_test(a_server_that_is_not_there_is_named),
		cmocka_unit_test(experts_that_nobody_holds_are_named),
		cmocka_unit_test(a_dead_server_fails_only_its_rows_and_may_come_back),
		cmocka_unit_test(a_server_that_comes_back_as_another_model_is_not_used),
		cmocka_unit_test(silence_ends_at_the_deadline),
		cmocka_unit_test(late_answers_are_known_by_their_id),
		cmocka_unit_test(errors_and_nonsense_fail_the_rows),
		cmocka_unit_test(refused_stays_refused),
		cmocka_unit_test(closing_in_the_middle_leaves_nothing),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_group, close_group);
}
