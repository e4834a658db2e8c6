/* A server held against a client that writes frames by hand: every request gets its answer or an error, and nothing that
 * is sent harms it. */
#include "net_raw.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static void malformed_requests_get_errors(void **state)
{
	const struct here *h = *state;
	struct wire_error error;
	struct wire_hello welcome;
	struct wire_request q;
	struct served s;
	struct raw r;

	served_start(h, &s, 0, 1);
	raw_open(h, &r);
	raw_hello(&r, &welcome);
	q = good(h, welcome.instance, 1);
	raw_request(&r, &q);
	assert_int_equal(raw_answer(&r, 1, &error), 0);
	q = good(h, welcome.instance, 2);
	q.rows = MAX_ROWS + 1;
	raw_request(&r, &q);
	assert_int_equal(raw_answer(&r, 2, &error), MOE_E_RANGE);
	q = good(h, welcome.instance + 1, 3);
	raw_request(&r, &q);
	assert_int_equal(raw_answer(&r, 3, &error), MOE_E_PEER);
	assert_int_equal(error.flags, WIRE_HELLO_AGAIN);
	q = good(h, welcome.instance, 4);
	q.remaining_ns = 0;
	raw_request(&r, &q);
	assert_int_equal(raw_answer(&r, 4, &error), MOE_E_TIMEOUT);
	q = good(h, welcome.instance, 5);
	q.flags = WIRE_PRESUM;
	raw_request(&r, &q);
	assert_int_equal(raw_answer(&r, 5, &error), 0);
	assert_int_equal(moe_server_stats(s.server).refused, 3);
	assert_int_equal(moe_server_stats(s.server).batches, 2);
	raw_close(&r);
	served_end(&s);
}

static void noise_does_no_harm(void **state)
{
	const struct here *h = *state;
	struct wire_error error;
	struct wire_hello welcome;
	struct wire_request q;
	struct served s;
	struct raw r;
	uint32_t seed = 17;

	served_start(h, &s, 0, 1);
	raw_open(h, &r);
	raw_hello(&r, &welcome);
	for (int i = 0; i < 500; i++) {
		int parts = 1 + (int)(next_random(&seed) >> 24) % 9;

		for (int j = 0; j < parts; j++) {
			unsigned char bytes[200];
			size_t n = (next_random(&seed) >> 16) % sizeof bytes;

			for (size_t k = 0; k < n; k++)
				bytes[k] = (unsigned char)(next_random(&seed) >> 24);
			assert_int_equal(zmq_send(r.socket, bytes, n, j + 1 < parts ? ZMQ_SNDMORE : 0), (int)n);
		}
	}
	q = good(h, welcome.instance, 1);
	raw_request(&r, &q);
	assert_int_equal(raw_answer(&r, 1, &error), 0);
	assert_int_equal(moe_server_stats(s.server).refused, 500);
	raw_close(&r);
	served_end(&s);
}

/* Bytes that are not even ZeroMQ's. */
static void strangers_do_no_harm(void **state)
{
	const struct here *h = *state;
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct wire_hello welcome;
	struct served s;
	struct raw r;

	served_start(h, &s, 0, 1);
	snprintf(to.sun_path, sizeof to.sun_path, "%s/0", h->dir);
	for (int i = 0; i < 10; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);

		assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
		assert_int_equal(send(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, MSG_NOSIGNAL), 27);
		close(fd);
	}
	raw_open(h, &r);
	raw_hello(&r, &welcome);
	raw_close(&r);
	served_end(&s);
}

/* Peers that choose a name longer than we take: each of their messages counts in a turn as any other does. */
static void long_names_are_dropped(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct served s;
	struct message m;
	struct peer peer;
	struct raw r;
	char name[200], to[64];

	served_make(h, &s, 0, 1, &id);
	r.ctx = zmq_ctx_new();
	r.socket = zmq_socket(r.ctx, ZMQ_DEALER);
	memset(name, 'x', sizeof name);
	assert_int_equal(zmq_setsockopt(r.socket, ZMQ_ROUTING_ID, name, sizeof name), 0);
	snprintf(to, sizeof to, "ipc://%s/0", h->dir);
	assert_int_equal(zmq_connect(r.socket, to), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(zmq_send(r.socket, "a", 1, ZMQ_SNDMORE), 1);
		assert_int_equal(zmq_send(r.socket, "b", 1, 0), 1);
	}
	for (int i = 0; i < 3; i++) {
		zmq_poll(&(zmq_pollitem_t){.socket = s.server->socket, .events = ZMQ_POLLIN}, 1, 30000);
		assert_int_equal(message_receive(s.server->socket, &m, &peer), 1);
		assert_int_equal(m.n, 0);
	}
	raw_close(&r);
	served_end(&s);
}

/* Requests that wait in the socket when the server is told to stop: answered, or an error says that it stops. */
static void draining_answers_everything(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct wire_error error;
	struct served s;
	struct raw r;

	served_make(h, &s, 0, 1, &id);
	raw_open(h, &r);
	for (uint64_t i = 1; i <= 5; i++) {
		struct wire_request q = good(h, s.server->instance, i);

		raw_request(&r, &q);
	}
	/* One there means that the connection stands; the others are on their way. */
	zmq_poll(&(zmq_pollitem_t){.socket = s.server->socket, .events = ZMQ_POLLIN}, 1, 30000);
	usleep(100000);
	moe_server_stop(s.server);
	assert_int_equal(moe_server_run(s.server, NULL), 0);
	assert_true(moe_server_stats(s.server).batches >= 1);
	for (uint64_t i = 1; i <= 5; i++) {
		int code = raw_answer(&r, 0, &error);

		assert_true(code == 0 || code == MOE_E_CANCELLED);
	}
	raw_close(&r);
	served_end(&s);
}

static void a_client_over_its_credits_is_told(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct wire_error error;
	struct served s;
	struct raw r;
	int busy = 0;

	served_make(h, &s, 0, 1, &id);
	raw_open(h, &r);
	for (uint64_t i = 1; i <= 12; i++) {
		struct wire_request q = good(h, s.server->instance, i);

		raw_request(&r, &q);
	}
	served_run(&s);
	for (uint64_t i = 1; i <= 12; i++)
		busy += raw_answer(&r, 0, &error) == MOE_E_BUSY;
	assert_int_equal(moe_server_stats(s.server).batches, 12 - busy);
	raw_close(&r);
	served_end(&s);
}

/* ---- the place ---- */

static int open_second(const struct here *h, const struct served *s, const char *bind, struct moe_server **out, struct moe_err *e)
{
	struct moe_server_config c = s->server->c;

	(void)h;
	c.bind = bind;
	return moe_server_new(&c, out, e);
}

static void a_living_server_is_not_pushed_away(void **state)
{
	const struct here *h = *state;
	struct moe_server *second = NULL;
	struct wire_hello welcome;
	struct moe_err e;
	struct served s;
	char bind[64];
	struct raw r;

	snprintf(bind, sizeof bind, "ipc://%s/0", h->dir);
	served_start(h, &s, 0, 1);
	assert_int_equal(open_second(h, &s, bind, &second, &e), MOE_E_BUSY);
	assert_non_null(strstr(e.msg, "already served by another process"));
	raw_open(h, &r);
	raw_hello(&r, &welcome);
	raw_close(&r);
	served_end(&s);
}

static void a_dead_servers_socket_is_replaced(void **state)
{
	const struct here *h = *state;
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct wire_hello welcome;
	struct served s;
	struct stat st;
	struct raw r;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(at.sun_path, sizeof at.sun_path, "%s/0", h->dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
	close(fd);
	served_start(h, &s, 0, 1);
	assert_int_equal(stat(at.sun_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	raw_open(h, &r);
	raw_hello(&r, &welcome);
	raw_close(&r);
	served_end(&s);
	assert_int_equal(stat(at.sun_path, &st), -1);
}

static void other_files_are_left_alone(void **state)
{
	const struct here *h = *state;
	struct moe_server *second = NULL;
	struct moe_err e;
	struct served s;
	char path[64], bind[80];
	FILE *f;

	served_start(h, &s, 0, 1);
	snprintf(path, sizeof path, "%s/file", h->dir);
	snprintf(bind, sizeof bind, "ipc://%s", path);
	f = fopen(path, "w");
	assert_non_null(f);
	fclose(f);
	assert_int_equal(open_second(h, &s, bind, &second, &e), MOE_E_IO);
	assert_non_null(strstr(e.msg, "not a socket"));
	assert_int_equal(unlink(path), 0);
	assert_int_not_equal(open_second(h, &s, "tcp://192.0.2.1:1", &second, &e), 0);
	served_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(malformed_requests_get_errors),
		cmocka_unit_test(noise_does_no_harm),
		cmocka_unit_test(strangers_do_no_harm),
		cmocka_unit_test(long_names_are_dropped),
		cmocka_unit_test(draining_answers_everything),
		cmocka_unit_test(a_client_over_its_credits_is_told),
		cmocka_unit_test(a_living_server_is_not_pushed_away),
		cmocka_unit_test(a_dead_servers_socket_is_replaced),
		cmocka_unit_test(other_files_are_left_alone),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_group, close_group);
}
