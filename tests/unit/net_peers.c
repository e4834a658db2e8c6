/* What a server knows of its clients and may take for them: the table, rates, memory, connections without end. */
#include "net_raw.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "net_lanes.h"

#define SECOND 1000000000u

static struct peer name(uint32_t n)
{
	struct peer p = {.size = 5};

	memcpy(p.id + 1, &n, sizeof n);
	return p;
}

static void silent_clients_are_forgotten(void **state)
{
	struct peers *p = moe_calloc(1, sizeof *p, "test", NULL);
	uint64_t now = 100u * (uint64_t)SECOND;

	(void)state;
	assert_non_null(p);
	for (uint32_t i = 0; i < 3; i++) {
		struct peer id = name(i);

		peers_hear(p, &id, now + i * (uint64_t)SECOND)->epoch = i == 2 ? 7 : 6;
	}
	assert_int_equal(peers_behind(p, 7), 2);
	assert_false(peers_forget(p, now + 15u * (uint64_t)SECOND));
	assert_true(peers_forget(p, now + 15u * (uint64_t)SECOND + 1));
	assert_int_equal(p->n, 2);
	assert_null(peers_find(p, &(struct peer){.size = 5}));
	assert_false(peers_forget(p, now)); /* heard after the clock was read */
	free(p);
}

static void a_full_table_drops_who_was_silent_longest(void **state)
{
	struct peers *p = moe_calloc(1, sizeof *p, "test", NULL);
	struct peer id;

	(void)state;
	assert_non_null(p);
	for (uint32_t i = 0; i < PEERS; i++) {
		id = name(i);
		peers_hear(p, &id, i == 5 ? 1 : 1000 + i);
	}
	id = name(PEERS);
	peers_hear(p, &id, 5000);
	assert_int_equal(p->n, PEERS);
	id = name(5);
	assert_null(peers_find(p, &id));
	id = name(4);
	assert_non_null(peers_find(p, &id));
	free(p);
}

static void a_bucket_holds_a_second(void **state)
{
	struct bucket b = {.at = 0};
	uint64_t now = SECOND;

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_true(bucket_take(&b, 10, now));
	assert_false(bucket_take(&b, 10, now));
	now += SECOND / 5;
	assert_true(bucket_take(&b, 10, now));
	assert_true(bucket_take(&b, 10, now));
	assert_false(bucket_take(&b, 10, now));
	now += 60u * (uint64_t)SECOND;
	for (int i = 0; i < 10; i++)
		assert_true(bucket_take(&b, 10, now));
	assert_false(bucket_take(&b, 10, now));
	assert_true(bucket_take(&b, 0, now));
}

static void over_its_rate_a_client_is_told(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct moe_status status;
	struct wire_error error;
	struct wire_hello w;
	struct served s;
	struct raw a;
	int busy = 0;

	served_make(h, &s, 0, 1, &id);
	s.server->c.rate = 0.01; /* one, and then none for more than a minute */
	served_run(&s);
	raw_open(h, &a);
	raw_hello(&a, &w);
	for (uint64_t i = 1; i <= 4; i++) {
		struct wire_request q = good(h, w.instance, i);

		raw_request(&a, &q);
		busy += raw_answer(&a, i, &error) == MOE_E_BUSY;
	}
	assert_int_equal(busy, 3);
	assert_string_equal(error.text, "over its rate of 0.01 messages a second");
	raw_status(&a, 1, &status);
	assert_true(status.clients == 1 && status.refused == 3 && status.batches == 1);
	raw_close(&a);
	served_end(&s);
}

static void watchers_are_no_clients(void **state)
{
	const struct here *h = *state;
	struct moe_status status;
	struct served s;
	struct raw a;

	served_start(h, &s, 0, 1);
	raw_open(h, &a);
	raw_ping(&a, 5, 0, WIRE_WATCHER);
	raw_pong(&a, 5, &status);
	assert_int_equal(status.clients, 0);
	raw_status(&a, 1, &status);
	assert_int_equal(status.clients, 1);
	assert_true(status.memory && status.memory_limit >= status.memory && status.pid == (uint32_t)getpid());
	raw_close(&a);
	served_end(&s);
}

/* ---- memory ---- */

static void under_pressure_nobody_new_is_let_in(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct moe_status status;
	struct wire_error error;
	struct wire_request q;
	struct served s;
	struct raw a;

	served_make(h, &s, 0, 1, &id);
	s.server->c.memory_pressure = 1e-9;
	served_run(&s);
	raw_open(h, &a);
	raw_send_hello(&a, 1);
	assert_int_equal(raw_answer(&a, 0, &error), MOE_E_BUSY);
	assert_non_null(strstr(error.text, "nobody new is let in: "));
	q = good(h, s.server->instance, 1);
	raw_request(&a, &q); /* who is there already goes on */
	assert_int_equal(raw_answer(&a, 1, &error), 0);
	raw_status(&a, 1, &status);
	assert_int_equal(status.clients, 1);
	raw_close(&a);
	served_end(&s);
}

static void idle_shared_memory_goes_first(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct served s;
	struct lane *lane;
	char byte;

	served_make(h, &s, 0, 1, &id);
	served_run(&s);
	lane = raw_lane(h, &s);
	assert_int_equal(recv(lane->fd, &byte, 1, MSG_DONTWAIT), -1);
	moe_server_stop(s.server);
	pthread_join(s.thread, NULL);
	assert_int_equal(lanes_give_up_idle(s.server, moe_now_ns()), 0);
	assert_int_equal(lanes_give_up_idle(s.server, moe_now_ns() + 2u * (uint64_t)SECOND), 1);
	assert_int_equal(recv(lane->fd, &byte, 1, 0), 0);
	lane_end(lane);
	s.running = false;
	served_end(&s);
}

/* ---- connections ---- */

static int connect_to(const struct here *h)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(to.sun_path, sizeof to.sun_path, "%s/0", h->dir);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
	return fd;
}

static void a_thousand_idle_connections_are_no_trouble(void **state)
{
	const struct here *h = *state;
	enum { MANY = 1000 };
	struct wire_error error;
	struct wire_hello w;
	struct wire_request q;
	struct rlimit files;
	struct served s;
	struct raw a;
	int fd[MANY];

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	files.rlim_cur = files.rlim_max;
	if (files.rlim_max < 2 * MANY + 100 || setrlimit(RLIMIT_NOFILE, &files))
		skip();
	served_start(h, &s, 0, 1);
	for (int i = 0; i < MANY; i++)
		fd[i] = connect_to(h);
	raw_open(h, &a);
	raw_hello(&a, &w);
	q = good(h, w.instance, 1);
	raw_request(&a, &q);
	assert_int_equal(raw_answer(&a, 1, &error), 0);
	assert_int_equal(moe_server_stats(s.server).batches, 1);
	for (int i = 0; i < MANY; i++)
		close(fd[i]);
	raw_close(&a);
	served_end(&s);
}

/* ---- floods ---- */

/* ZMTP 3.0 (RFC 23): who we are, without security. */
static void greet(int fd)
{
	static const unsigned char ready[] = "\4\51\5READY\13Socket-Type\0\0\0\6DEALER\10Identity\0\0\0";
	unsigned char greeting[64] = {[0] = 0xff, [9] = 0x7f, [10] = 3, [12] = 'N', 'U', 'L', 'L'}, in[256];
	ssize_t n = 0;

	assert_int_equal(send(fd, greeting, sizeof greeting, MSG_NOSIGNAL), sizeof greeting);
	while (n < 64) {
		ssize_t got = recv(fd, in, (size_t)(64 - n), 0);

		assert_true(got > 0);
		n += got;
	}
	assert_int_equal(send(fd, ready, sizeof ready, MSG_NOSIGNAL), sizeof ready);
}

/* Frames of one message, until the connection is ended; how many bytes. */
static uint64_t flood(int fd, uint64_t most)
{
	unsigned char frame[2 + 200] = {1, 200}; /* more to come; of 200 bytes */
	static unsigned char many[1000 * sizeof frame];
	uint64_t sent = 0;

	for (size_t i = 0; i < sizeof many; i += sizeof frame)
		memcpy(many + i, frame, sizeof frame);
	while (sent < most) {
		for (size_t at = 0; at < sizeof many;) {
			ssize_t n = send(fd, many + at, sizeof many - at, MSG_NOSIGNAL);

			if (n <= 0)
				return sent;
			at += (size_t)n;
			sent += (uint64_t)n;
		}
		/* As over a fast network, not as through memory: the test should not fill it. */
		usleep(1000);
	}
	return sent;
}

static void a_message_without_end_is_cut_off(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct wire_error error;
	struct wire_hello w;
	struct wire_request q;
	struct served s;
	struct raw a;
	uint64_t most = 1u << 30;
	int fd;

	served_make(h, &s, 0, 1, &id);
	s.server->memory.planned = 16u << 20;
	served_run(&s);
	raw_open(h, &a);
	raw_hello(&a, &w);
	fd = connect_to(h);
	greet(fd);
	assert_true(flood(fd, most) < most);
	close(fd);
	/* Others connect again by themselves; what they sent meanwhile may be lost. */
	do
		raw_send_hello(&a, 1);
	while (zmq_poll(&(zmq_pollitem_t){.socket = a.socket, .events = ZMQ_POLLIN}, 1, 1000) == 0);
	raw_welcome(h, &a, &w, NULL);
	q = good(h, w.instance, 1);
	raw_request(&a, &q);
	assert_int_equal(raw_answer(&a, 1, &error), 0);
	raw_close(&a);
	served_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(silent_clients_are_forgotten),
		cmocka_unit_test(a_full_table_drops_who_was_silent_longest),
		cmocka_unit_test(a_bucket_holds_a_second),
		cmocka_unit_test(over_its_rate_a_client_is_told),
		cmocka_unit_test(watchers_are_no_clients),
		cmocka_unit_test(under_pressure_nobody_new_is_let_in),
		cmocka_unit_test(idle_shared_memory_goes_first),
		cmocka_unit_test(a_thousand_idle_connections_are_no_trouble),
		cmocka_unit_test(a_message_without_end_is_cut_off),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_group, close_group);
}
