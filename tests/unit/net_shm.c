/* Shared memory between client and server: how it is had, what is refused, and that nothing is left of it. */
#include "net_lanes.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* ---- the handover ---- */

static void only_the_same_user_shares_memory(void **state)
{
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(lane_check_user(1000, 1000, &e), 0);
	assert_int_equal(lane_check_user(1001, 1000, &e), MOE_E_PEER);
	assert_non_null(strstr(e.msg, "of user 1001, this process of 1000"));
	assert_int_equal(lane_check_user(0, 1000, &e), MOE_E_PEER);
}

static void messages_that_are_none_are_refused(void **state)
{
	struct lane_offer offer = {.shape = {2, 4096, 8192}, .instance = 77}, got;
	unsigned char wish[LANE_WISH + 1] = {0}, words[LANE_OFFER + 1] = {0};
	uint32_t rows;

	(void)state;
	lane_put_wish(9, wish);
	assert_int_equal(lane_get_wish(wish, LANE_WISH, &rows, NULL), 0);
	assert_int_equal(rows, 9);
	for (size_t n = 0; n < LANE_WISH; n++)
		assert_int_equal(lane_get_wish(wish, n, &rows, NULL), MOE_E_PEER);
	assert_int_equal(lane_get_wish(wish, LANE_WISH + 1, &rows, NULL), MOE_E_PEER);
	wish[4]++;
	assert_int_equal(lane_get_wish(wish, LANE_WISH, &rows, NULL), MOE_E_UNSUPPORTED);
	lane_put_wish(0, wish);
	assert_int_equal(lane_get_wish(wish, LANE_WISH, &rows, NULL), MOE_E_RANGE);

	lane_put_offer(&offer, words);
	assert_int_equal(lane_get_offer(words, LANE_OFFER, &got, NULL), 0);
	assert_int_equal(got.shape.slots, 2);
	assert_int_equal(got.shape.reply, 8192);
	assert_int_equal(got.instance, 77);
	for (size_t n = 0; n < LANE_OFFER; n++)
		assert_int_equal(lane_get_offer(words, n, &got, NULL), MOE_E_PEER);
	assert_int_equal(lane_get_offer(words, LANE_OFFER + 1, &got, NULL), MOE_E_PEER);
	offer.shape.reply = LANE_MOST;
	lane_put_offer(&offer, words);
	assert_int_equal(lane_get_offer(words, LANE_OFFER, &got, NULL), MOE_E_RANGE);
	words[8] = 200;
	assert_int_equal(lane_get_offer(words, LANE_OFFER, &got, NULL), MOE_E_RANGE);
	words[0]++;
	assert_int_equal(lane_get_offer(words, LANE_OFFER, &got, NULL), MOE_E_PEER);
}

/* A memfd as a server would make it, but for these seals and this size. */
static int memory(int seals, off_t bytes)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, bytes), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void memory_that_could_change_its_size_is_refused(void **state)
{
	const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	static const int too_few[] = {0, F_SEAL_SHRINK, F_SEAL_GROW | F_SEAL_SEAL, F_SEAL_SHRINK | F_SEAL_SEAL};
	const struct ring_shape shape = {RING_SLOTS, 4096, 8192};
	struct moe_err e = MOE_ERR_INIT;
	size_t bytes, got;
	int fd;

	(void)state;
	assert_int_equal(ring_bytes(&shape, &bytes, NULL), 0);
	fd = memory(all, (off_t)bytes);
	assert_int_equal(lane_check_memory(fd, &shape, &got, &e), 0);
	assert_int_equal(got, bytes);
	close(fd);
	for (size_t i = 0; i < sizeof too_few / sizeof *too_few; i++) {
		fd = memory(too_few[i], (off_t)bytes);
		assert_int_equal(lane_check_memory(fd, &shape, &got, &e), MOE_E_PEER);
		assert_non_null(strstr(e.msg, "not sealed"));
		close(fd);
	}
	fd = memory(all, (off_t)bytes - 1);
	assert_int_equal(lane_check_memory(fd, &shape, &got, &e), MOE_E_PEER);
	assert_non_null(strstr(e.msg, "its shape takes"));
	close(fd);
	fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	assert_int_equal(lane_check_memory(fd, &shape, &got, &e), MOE_E_PEER);
	close(fd);
}

/* ---- whole clients ---- */

static void the_same_bits_by_either_way(void **state)
{
	const struct here *h = *state;
	struct moe_err e = MOE_ERR_INIT;
	struct served s;

	served_start(h, &s, 0, 1);
	for (int t = MOE_TRANSPORT_AUTO; t <= MOE_TRANSPORT_SHM; t++) {
		struct moe_experts *x = client_by(h, (enum moe_transport)t, &e);
		struct moe_remote_stats n;
		struct work w;

		assert_non_null(x);
		for (int rows = 1; rows <= MAX_ROWS; rows++) {
			work_new(h, &w, rows, (uint32_t)rows);
			assert_int_equal(run(x, &w.b, NULL), 0);
			assert_right(h, &w);
			work_free(&w);
		}
		n = moe_experts_remote_stats(x);
		assert_int_equal(n.messages, MAX_ROWS);
		assert_int_equal(n.shm_messages, t == MOE_TRANSPORT_ZMQ ? 0 : MAX_ROWS);
		assert_int_equal(n.shm_bytes_out, t == MOE_TRANSPORT_ZMQ ? 0 : n.bytes_out);
		x->ops->close(x);
	}
	assert_int_equal(moe_server_stats(s.server).shm_batches, 2 * MAX_ROWS);
	served_end(&s);
}

static void a_server_without_it_is_used_or_refused(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct moe_buf text = MOE_BUF_INIT;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_server_config sc;
	struct moe_experts *x;
	struct served s;
	char bind[64];

	served_make(h, &s, 0, 1, &id);
	moe_server_free(s.server);
	snprintf(bind, sizeof bind, "ipc://%s/0", h->dir);
	sc = (struct moe_server_config){.bind = bind, .model = &h->c->model, .identity = id, .hold = {.epoch = id.epoch, .has = s.has, .experts = s.local},
	                                .max_rows = MAX_ROWS, .credits = 8, .no_shm = true};
	assert_int_equal(moe_server_new(&sc, &s.server, NULL), 0);
	assert_non_null(moe_server_no_shm(s.server));
	served_run(&s);
	x = client_by(h, MOE_TRANSPORT_AUTO, &e);
	assert_non_null(x);
	assert_int_equal(moe_experts_remote_describe(x, &text, NULL), 0);
	assert_non_null(strstr(text.data, ", ZeroMQ (offers no shared memory)"));
	x->ops->close(x);
	assert_null(client_by(h, MOE_TRANSPORT_SHM, &e));
	assert_int_equal(e.code, MOE_E_PEER);
	assert_non_null(strstr(e.msg, "rank 0 at ipc://"));
	assert_non_null(strstr(e.msg, "offers no shared memory"));
	moe_buf_free(&text);
	served_end(&s);
}

static void a_folder_that_others_may_enter_is_not_used(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct served s;

	chmod(h->dir, 0755);
	served_make(h, &s, 0, 1, &id);
	assert_non_null(strstr(moe_server_no_shm(s.server), "folder of our own (mode 0700)"));
	chmod(h->dir, 0700);
	served_end(&s);
}

/* What is given up leaves its slot busy until its answer has come; what is asked meanwhile is answered rightly. */
static void answers_to_what_was_given_up_meet_nobody(void **state)
{
	const struct here *h = *state;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_experts *x;
	struct served s;

	served_start(h, &s, 0, 1);
	x = client_by(h, MOE_TRANSPORT_SHM, &e);
	assert_non_null(x);
	for (uint32_t i = 0; i < 50; i++) {
		struct work gone, w;
		uint64_t ticket;
		int rc;

		work_new(h, &gone, MAX_ROWS, 1000 + i);
		work_new(h, &w, MAX_ROWS, i);
		rc = x->ops->submit(x, &gone.b, &ticket, NULL);
		if (!rc)
			x->ops->cancel(x, ticket);
		while ((rc = run(x, &w.b, &e)) == MOE_E_BUSY)
			;
		assert_int_equal(rc, 0);
		assert_right(h, &w);
		work_free(&gone);
		work_free(&w);
	}
	x->ops->close(x);
	served_end(&s);
}

/* ---- nothing is left ---- */

static int open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int shared_maps(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	int n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof line, f))
		n += strstr(line, "memfd:moe-serve") != NULL;
	fclose(f);
	return n;
}

/* A message without a byte, with a descriptor. */
static void send_nothing_but_a_file(int socket, int file)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} c;
	struct msghdr m = {.msg_control = &c, .msg_controllen = sizeof c.bytes};

	memset(&c, 0, sizeof c);
	c.head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof file)};
	memcpy(CMSG_DATA(&c.head), &file, sizeof file);
	assert_int_equal(sendmsg(socket, &m, 0), 0);
}

static void an_offer_of_no_bytes_leaves_no_file(void **state)
{
	struct lane *lane;
	int pair[2], before;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	lane = lane_new(pair[0], NULL);
	assert_non_null(lane);
	send_nothing_but_a_file(pair[1], 0);
	before = open_files();
	assert_int_equal(lane_take_offer(lane, 1, NULL), MOE_E_PEER);
	assert_int_equal(open_files(), before);
	lane_end(lane);
	close(pair[1]);
}

static void a_thousand_come_and_go(void **state)
{
	const struct here *h = *state;
	struct served s;
	int before;

	served_start(h, &s, 0, 1);
	before = open_files();
	for (int i = 0; i < 1000; i++)
		lane_end(raw_lane(h, &s));
	while (open_files() > before || shared_maps() > 0)
		usleep(1000);
	served_end(&s);
}

static void whole_clients_leave_nothing_either(void **state)
{
	const struct here *h = *state;
	struct moe_err e = MOE_ERR_INIT;
	struct served s;
	int before;

	served_start(h, &s, 0, 1);
	before = open_files();
	for (int i = 0; i < 30; i++) {
		struct moe_experts *x = client_by(h, MOE_TRANSPORT_SHM, &e);
		struct work w;
		uint64_t ticket;

		assert_non_null(x);
		work_new(h, &w, 2, 1);
		assert_int_equal(x->ops->submit(x, &w.b, &ticket, NULL), 0); /* and does not wait for it */
		x->ops->close(x);
		work_free(&w);
	}
	while (open_files() > before || shared_maps() > 0)
		usleep(1000);
	served_end(&s);
}

static void more_than_have_a_place_use_zeromq(void **state)
{
	const struct here *h = *state;
	struct moe_err e = MOE_ERR_INIT;
	struct lane *lane[LANES];
	struct moe_experts *x;
	struct served s;
	struct work w;

	served_start(h, &s, 0, 1);
	for (int i = 0; i < LANES; i++)
		lane[i] = raw_lane(h, &s);
	x = client_by(h, MOE_TRANSPORT_AUTO, &e);
	assert_non_null(x);
	work_new(h, &w, 5, 1);
	assert_int_equal(run(x, &w.b, NULL), 0);
	assert_right(h, &w);
	assert_int_equal(moe_experts_remote_stats(x).shm_messages, 0);
	x->ops->close(x);
	assert_null(client_by(h, MOE_TRANSPORT_SHM, &e));
	for (int i = 0; i < LANES; i++)
		lane_end(lane[i]);
	work_free(&w);
	served_end(&s);
}

/* Who connects and says nothing keeps nobody out. */
static void the_silent_give_way(void **state)
{
	const struct here *h = *state;
	int silent[LANES], rc;
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct moe_err e = MOE_ERR_INIT;
	struct lane *lane;
	struct served s;
	char path[64];

	served_start(h, &s, 0, 1);
	snprintf(path, sizeof path, "%s/0", h->dir);
	assert_true(lane_path(path, at.sun_path));
	for (int i = 0; i < LANES; i++) {
		silent[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(silent[i], (struct sockaddr *)&at, sizeof at), 0);
	}
	assert_int_equal(lane_connect(path, MAX_ROWS, &lane, &e), 0);
	while ((rc = lane_take_offer(lane, s.server->instance, &e)) == MOE_E_BUSY)
		poll(&(struct pollfd){.fd = lane->fd, .events = POLLIN}, 1, 1000);
	assert_int_equal(rc, 0);
	lane_end(lane);
	for (int i = 0; i < LANES; i++)
		close(silent[i]);
	served_end(&s);
}

/* The memory that is planned holds for whatever clients ask. */
static void the_plan_covers_every_wish(void **state)
{
	const struct here *h = *state;
	const struct moe_model *m = &h->c->model;
	const int most = 65536;
	size_t planned = lanes_bytes(m, most) / LANES;

	for (int rows = 1; rows <= most; rows++) {
		struct ring_shape shape = {.slots = RING_SLOTS};
		size_t bytes;

		assert_true(ring_room((uint64_t)rows, (uint64_t)(rows * h->k), (uint64_t)m->hidden, &shape.request, &shape.reply));
		assert_int_equal(ring_bytes(&shape, &bytes, NULL), 0);
		assert_true(bytes > LANE_MOST || bytes <= planned);
		assert_true(bytes > LANE_MOST || lanes_bytes(m, rows) == LANES * bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_same_user_shares_memory),
		cmocka_unit_test(messages_that_are_none_are_refused),
		cmocka_unit_test(memory_that_could_change_its_size_is_refused),
		cmocka_unit_test(the_same_bits_by_either_way),
		cmocka_unit_test(a_server_without_it_is_used_or_refused),
		cmocka_unit_test(a_folder_that_others_may_enter_is_not_used),
		cmocka_unit_test(answers_to_what_was_given_up_meet_nobody),
		cmocka_unit_test(an_offer_of_no_bytes_leaves_no_file),
		cmocka_unit_test(a_thousand_come_and_go),
		cmocka_unit_test(whole_clients_leave_nothing_either),
		cmocka_unit_test(more_than_have_a_place_use_zeromq),
		cmocka_unit_test(the_silent_give_way),
		cmocka_unit_test(the_plan_covers_every_wish),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_group, close_group);
}
