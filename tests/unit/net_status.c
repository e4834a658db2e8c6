/* Servers that are asked how they are. */
#include "net_raw.h"

#include "net/recent.h"

static void all_are_asked_side_by_side(void **state)
{
	const struct here *h = *state;
	struct moe_endpoints to = endpoints(h, 2);
	struct moe_status out[3];
	struct moe_err e = MOE_ERR_INIT;
	struct wire_error error;
	struct wire_hello w;
	struct wire_request q;
	struct served s[2];
	struct raw a;

	assert_int_equal(moe_endpoints_add(&to, "tcp://127.0.0.1:1", NULL), 0);
	served_start(h, &s[0], 0, 2);
	served_start(h, &s[1], 1, 2);
	moe_server_say(s[1].server, true, "epoch 2: bad checksum");
	raw_open(h, &a);
	raw_hello(&a, &w);
	q = good(h, w.instance, 1);
	raw_request(&a, &q);
	assert_int_equal(raw_answer(&a, 1, &error), 0);
	assert_int_equal(moe_status_ask(&to, NULL, 3, out, &e), 0);
	assert_true(out[0].code == 0 && out[0].rank == 0 && out[0].batches == 1 && out[0].rows == 1 && out[0].pairs == 1);
	assert_true(out[0].clients == 1 && out[0].at == to.v[0].at && out[0].compute_p50_ns && out[0].compute_p99_ns == out[0].compute_p50_ns);
	assert_true(out[0].instance == w.instance && out[0].held == w.held && out[0].bytes_in && out[0].bytes_out);
	assert_string_equal(out[0].identity.fingerprint, fingerprint);
	assert_false(out[0].loading || out[0].draining || out[0].spare);
	assert_string_equal(out[0].trouble, "");
	assert_true(out[1].code == 0 && out[1].rank == 1 && out[1].loading && out[1].clients == 0);
	assert_string_equal(out[1].trouble, "epoch 2: bad checksum");
	assert_int_equal(out[2].code, MOE_E_TIMEOUT);
	assert_string_equal(out[2].why, "no answer within 3 s");
	raw_close(&a);
	served_end(&s[0]);
	served_end(&s[1]);
	moe_endpoints_free(&to);
}

/* Somebody at the endpoint who is no server: answers one question with what it was told. */
struct rude {
	void *socket;
	struct wire_error error;     /* code 0: with noise */
};

static void *answer_rudely(void *arg)
{
	struct rude *r = arg;
	unsigned char header[WIRE_HEADER_MAX];
	struct message m = {.n = 0};
	struct peer from;

	zmq_poll(&(zmq_pollitem_t){.socket = r->socket, .events = ZMQ_POLLIN}, 1, 30000);
	if (message_receive(r->socket, &m, &from) != 1)
		return NULL;
	message_drop(&m);
	message_add(&m, r->error.code ? header : (const void *)"noise", r->error.code ? wire_put_error(&r->error, header) : 5, NULL, NULL);
	message_send(r->socket, &m, &from);
	return NULL;
}

static void what_is_no_answer_is_said(void **state)
{
	const struct here *h = *state;
	struct moe_endpoints to = endpoints(h, 1);
	struct rude r = {.error = {.id = 1, .code = MOE_E_BUSY, .text = "go away"}};
	struct moe_status out;
	void *ctx = zmq_ctx_new();
	pthread_t thread;

	r.socket = zmq_socket(ctx, ZMQ_ROUTER);
	assert_int_equal(zmq_bind(r.socket, to.v[0].at), 0);
	assert_int_equal(pthread_create(&thread, NULL, answer_rudely, &r), 0);
	assert_int_equal(moe_status_ask(&to, NULL, 30, &out, NULL), 0);
	pthread_join(thread, NULL);
	assert_int_equal(out.code, MOE_E_BUSY);
	assert_string_equal(out.why, "go away");
	r.error.code = 0;
	assert_int_equal(pthread_create(&thread, NULL, answer_rudely, &r), 0);
	assert_int_equal(moe_status_ask(&to, NULL, 30, &out, NULL), 0);
	pthread_join(thread, NULL);
	assert_int_equal(out.code, MOE_E_PEER);
	assert_string_equal(out.why, "message shorter than a header");
	zmq_close(r.socket);
	zmq_ctx_term(ctx);
	unlink(to.v[0].at + strlen("ipc://"));
	moe_endpoints_free(&to);
}

static void percentiles_are_of_the_last_requests(void **state)
{
	static struct recent r;

	(void)state;
	recent_sort(&r, 1);
	assert_true(r.p50 == 0 && r.p99 == 0);
	for (uint64_t i = 1; i <= 100; i++)
		recent_add(&r, 101 - i);
	recent_sort(&r, 1);
	assert_true(r.p50 == 50 && r.p99 == 99);
	recent_add(&r, 1000000);
	recent_sort(&r, 2);
	assert_true(r.p99 == 99); /* not so soon again */
	for (int i = 0; i < RECENT; i++)
		recent_add(&r, 7);
	recent_sort(&r, 1000000000);
	assert_true(r.p50 == 7 && r.p99 == 7);
}

static bool says(const struct moe_watch *w, const char *line)
{
	struct moe_buf text = MOE_BUF_INIT;
	bool there;

	assert_int_equal(moe_watch_text((struct moe_watch *)w, &text, NULL), 0);
	there = strstr(text.data, line) != NULL;
	moe_buf_free(&text);
	return there;
}

static void what_is_watched_is_counted(void **state)
{
	const struct here *h = *state;
	struct moe_watch *watch = moe_watch_new(NULL, NULL);
	struct moe_identity id = identity();
	struct moe_server_config c;
	struct wire_error error;
	struct wire_request q;
	struct moe_status status;
	struct served s;
	struct raw a;
	char bind[64];

	assert_non_null(watch);
	served_make(h, &s, 0, 1, &id);
	c = s.server->c;
	moe_server_free(s.server);
	snprintf(bind, sizeof bind, "ipc://%s/0", h->dir);
	c.bind = bind;
	c.watch = watch;
	assert_int_equal(moe_server_new(&c, &s.server, NULL), 0);
	served_run(&s);
	raw_open(h, &a);
	q = good(h, s.server->instance, 1);
	raw_request(&a, &q);
	assert_int_equal(raw_answer(&a, 1, &error), 0);
	q.epoch = 9;
	raw_request(&a, &q);
	assert_int_equal(raw_answer(&a, 1, &error), MOE_E_PEER);
	raw_status(&a, 1, &status);
	assert_true(says(watch, "\nmoe_serve_refused_total{code=\"peer\"} 1\n"));
	assert_true(says(watch, "\nmoe_serve_queue_seconds_count 1\n") && says(watch, "\nmoe_serve_compute_seconds_count 1\n"));
	assert_true(says(watch, "\nmoe_serve_epoch 1\n") && says(watch, "\nmoe_serve_queue_depth 0\n"));
	assert_true(says(watch, "\nmoe_serve_held_experts ") && !says(watch, "\nmoe_serve_held_experts 0\n"));
	raw_close(&a);
	served_end(&s);
	moe_watch_free(watch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_are_asked_side_by_side),
		cmocka_unit_test(what_is_no_answer_is_said),
		cmocka_unit_test(percentiles_are_of_the_last_requests),
		cmocka_unit_test(what_is_watched_is_counted),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_group, close_group);
}
