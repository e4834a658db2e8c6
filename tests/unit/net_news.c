/* What is told of servers as it happens: once for each change, with names and fields, and never without end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/opts.h"
#include "net/client.h"
#include "net/server.h"

/* What is written to stderr goes into a file, from which it is read. */
static FILE *own;
static int kept;
static char text[1 << 16];

static int setup(void **state)
{
	(void)state;
	own = tmpfile();
	kept = dup(STDERR_FILENO);
	moe_common.log_json = moe_common.verbose = true;
	return !own || dup2(fileno(own), STDERR_FILENO) < 0;
}

static int teardown(void **state)
{
	(void)state;
	dup2(kept, STDERR_FILENO);
	close(kept);
	fclose(own);
	return 0;
}

/* What was written since the last call. */
static const char *heard(void)
{
	ssize_t n = pread(fileno(own), text, sizeof text - 1, 0);

	text[n > 0 ? n : 0] = 0;
	assert_int_equal(ftruncate(fileno(own), 0), 0);
	lseek(fileno(own), 0, SEEK_SET);
	return text;
}

static int count(const char *in, const char *what)
{
	int n = 0;

	while ((in = strstr(in, what))) {
		in++;
		n++;
	}
	return n;
}

static void link_is(struct link *l, enum link_state state, uint64_t open_until)
{
	l->state = state;
	l->pulse.open_until = open_until;
}

static struct link one_link(void)
{
	static char endpoint[] = "ipc://x";

	return (struct link){.endpoint = endpoint, .rank = 3, .why = {.code = MOE_E_PEER, .msg = "the connection ended"}};
}

static void each_change_is_told_once(void **state)
{
	struct link l = one_link();
	struct remote r = {.links = &l, .n = 1, .running = true, .terms = {.identity = {.epoch = 7}}};
	const char *s;

	(void)state;
	news_look(&r, 0);
	assert_string_equal(heard(), "");
	link_is(&l, LINK_READY, 0);
	for (int i = 0; i < 3; i++)
		news_look(&r, 0);
	s = heard();
	assert_int_equal(count(s, "\n"), 1);
	assert_non_null(strstr(s, "\"level\":\"info\",\"event\":\"server_ready\",\"message\":\"rank 3 at ipc://x: ready\",\"rank\":3,"
	                          "\"endpoint\":\"ipc://x\",\"epoch\":7}\n"));
	link_is(&l, LINK_DOWN, 0);
	news_look(&r, 0);
	assert_non_null(strstr(heard(), "\"level\":\"warn\",\"event\":\"server_lost\",\"message\":\"rank 3 at ipc://x: lost: the connection ended\""));
	link_is(&l, LINK_DOWN, 1);
	news_look(&r, 0);
	assert_non_null(strstr(heard(), "\"level\":\"warn\",\"event\":\"server_open\""));
	for (int i = 0; i < 4; i++) {
		link_is(&l, LINK_DOWN, i % 2);
		news_look(&r, 0);
	}
	assert_string_equal(heard(), "");
	link_is(&l, LINK_READY, 0);
	l.draining = true;
	news_look(&r, 0);
	link_is(&l, LINK_DOWN, 0);
	news_look(&r, 0);
	s = heard();
	assert_non_null(strstr(s, "\"level\":\"info\",\"event\":\"server_draining\""));
	assert_non_null(strstr(s, "\"level\":\"info\",\"event\":\"server_lost\""));
	news_gone(&r, 0);
	assert_non_null(strstr(heard(), "\"event\":\"server_gone\""));
}

static void late_is_a_detail(void **state)
{
	struct link l = one_link();
	struct remote r = {.links = &l, .n = 1};
	const char *s;

	(void)state;
	link_is(&l, LINK_READY, 0);
	news_look(&r, 0);
	assert_string_equal(heard(), ""); /* at the start nothing is news */
	r.running = true;
	l.pulse.suspect = true;
	news_look(&r, 0);
	l.pulse.suspect = false;
	news_look(&r, 0);
	s = heard();
	assert_int_equal(count(s, "\"level\":\"debug\""), 2);
	assert_int_equal(count(s, "\"event\":\"server_suspect\""), 1);
	assert_int_equal(count(s, "\"event\":\"server_ready\""), 1);
}

static void who_comes_and_goes_is_not_told_without_end(void **state)
{
	struct link l = one_link();
	struct remote r = {.links = &l, .n = 1, .running = true};

	(void)state;
	for (int i = 0; i < 99; i++) {
		link_is(&l, i % 2 ? LINK_DOWN : LINK_READY, 0);
		news_look(&r, 0);
	}
	assert_int_equal(count(heard(), "\n"), NEWS_MOST);
	assert_int_equal(l.state, LINK_READY);
	l.news.loud.since -= NEWS_SPAN_NS;
	news_look(&r, 0);
	assert_non_null(strstr(heard(), "ready, after changes that were not told\""));
	news_look(&r, 0);
	assert_string_equal(heard(), "");
}

static void the_fleet_as_a_whole(void **state)
{
	struct remote r = {.running = true, .terms = {.identity = {.epoch = 9}}};
	const char *s;

	(void)state;
	news_epoch(&r, 8);
	assert_non_null(strstr(heard(), "\"event\":\"epoch_changed\",\"message\":\"epoch 9 is in use, 8 before\",\"epoch\":9}"));
	for (int i = 0; i < 5; i++) {
		r.stats.degraded += 2;
		news_degraded(&r, 2);
	}
	news_end(&r);
	s = heard();
	assert_int_equal(count(s, "\"level\":\"warn\",\"event\":\"degraded\""), 2);
	assert_non_null(strstr(s, "\"rows\":2}"));
	assert_non_null(strstr(s, "\"rows\":10}"));
}

static void requests_that_failed_or_took_long(void **state)
{
	static struct moe_server server = {.c = {.rank = 1}};
	struct pending p = {.q = {.trace = 5, .epoch = 2, .layer = 4, .rows = 3, .pairs = 6}};
	struct moe_err why;
	const char *s;

	(void)state;
	server_news_request(&server, &p, 10, 20, NULL);
	assert_string_equal(heard(), "");
	server_news_request(&server, &p, 600000000, 500000000, NULL);
	assert_non_null(strstr(heard(), ",\"rank\":1,\"trace\":5,\"epoch\":2,\"layer\":4,\"rows\":3,\"pairs\":6,\"queue_ns\":600000000,\"compute_ns\":500000000}"));
	moe_fail(&why, MOE_E_BUSY, "the queue is full");
	server_news_request(&server, &p, 10, 0, &why);
	s = heard();
	assert_non_null(strstr(s, "\"level\":\"debug\",\"event\":\"request\""));
	assert_non_null(strstr(s, "refused: the queue is full\""));
	assert_non_null(strstr(s, "\"code\":\"busy\"}"));
	for (int i = 0; i < 999; i++)
		server_news_request(&server, &p, 10, 0, &why);
	assert_true(count(heard(), "\n") < 100);
	server.peers.n = 2;
	server_news_clients(&server);
	server_news_clients(&server);
	server.peers.n = 1;
	server_news_clients(&server);
	s = heard();
	assert_int_equal(count(s, "\n"), 2);
	assert_non_null(strstr(s, "\"event\":\"client_came\",\"message\":\"rank 1: a client came: 2 now\",\"rank\":1,\"clients\":2}"));
	assert_non_null(strstr(s, "\"event\":\"client_went\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_change_is_told_once, setup, teardown),
		cmocka_unit_test_setup_teardown(late_is_a_detail, setup, teardown),
		cmocka_unit_test_setup_teardown(who_comes_and_goes_is_not_told_without_end, setup, teardown),
		cmocka_unit_test_setup_teardown(the_fleet_as_a_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(requests_that_failed_or_took_long, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
