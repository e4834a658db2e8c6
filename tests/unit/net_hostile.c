/* Peers that share memory and write what they should not, also while it is read. */
#include "net_lanes.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "net/client.h"
#include "net/message.h"

struct frames {
	uint32_t expert, row;
	float weight, x[MAX_ROWS * 512];
	struct wire_request q;
};

static void fill(const struct here *h, const struct served *s, struct frames *f)
{
	*f = (struct frames){.weight = 1};
	f->q = (struct wire_request){.id = 5, .epoch = 1, .instance = s->server->instance, .remaining_ns = WIRE_FOREVER,
	                             .layer = (uint32_t)h->moe_layer, .rows = 1, .width = (uint32_t)h->hidden, .pairs = 1};
	assert_true(h->hidden <= 512);
}

static void ask(const struct here *h, struct lane *lane, const struct frames *f)
{
	unsigned char header[WIRE_HEADER_MAX];
	struct message m;
	int slot = ring_claim(&lane->ring);

	assert_true(slot >= 0);
	message_for_slot(&m, lane, slot);
	assert_int_equal(message_add(&m, header, wire_put_request(&f->q, header), NULL, NULL), 0);
	assert_int_equal(message_add(&m, &f->expert, 4, NULL, NULL), 0);
	assert_int_equal(message_add(&m, &f->row, 4, NULL, NULL), 0);
	assert_int_equal(message_add(&m, &f->weight, 4, NULL, NULL), 0);
	assert_int_equal(message_add(&m, f->x, (size_t)h->hidden * 4, NULL, NULL), 0);
	message_send(NULL, &m, NULL);
}

/* The kind of the answer; 0: the server has ended the lane. */
static int await(struct lane *lane)
{
	struct wire_frame frames[WIRE_MAX_FRAMES];
	struct wire_head head;
	struct message m;
	int slot, kind = 0;

	while ((slot = ring_answered(&lane->ring)) < 0) {
		ring_park(&lane->ring);
		if (!ring_ready(&lane->ring))
			poll(&(struct pollfd){.fd = lane->fd, .events = POLLIN}, 1, -1);
		if (!lane_listen(lane))
			return 0;
	}
	assert_int_equal(message_from_slot(&m, lane, slot, 1, NULL), 0);
	message_frames(&m, frames);
	assert_int_equal(wire_head(frames, m.n, &head, NULL), 0);
	assert_int_equal(head.id, 5);
	kind = (int)head.kind;
	message_drop(&m);
	ring_release(&lane->ring, slot);
	return kind;
}

static void nonsense_is_answered_with_an_error(void **state)
{
	const struct here *h = *state;
	struct frames f;
	struct served s;
	struct lane *lane;

	served_start(h, &s, 0, 1);
	lane = raw_lane(h, &s);
	for (int i = 0; i < 8; i++) {
		fill(h, &s, &f);
		f.expert = i == 1 ? (uint32_t)h->experts : i == 2 ? UINT32_MAX : 0;
		f.row = i == 3 ? 1 : i == 4 ? UINT32_MAX : 0;
		f.q.rows = i == 5 ? 2 : 1;
		f.q.pairs = i == 6 ? 1000000 : 1;
		f.q.instance += i == 7;
		ask(h, lane, &f);
		assert_int_equal(await(lane), i == 0 ? WIRE_REPLY : WIRE_ERROR);
	}
	lane_end(lane);
	served_end(&s);
}

/* A box's table, and what its frames begin with. */
static uint64_t *table_of(struct lane *lane, int slot)
{
	struct ring_box box;

	ring_open(&lane->ring, slot, &box);
	return (uint64_t *)(void *)(box.data - 64);
}

static void what_is_no_message_ends_the_lane(void **state)
{
	const struct here *h = *state;
	struct frames f;
	struct served s;

	served_start(h, &s, 0, 1);
	for (int i = 0; i < 4; i++) {
		struct lane *lane = raw_lane(h, &s);
		uint64_t *table = table_of(lane, 0);

		fill(h, &s, &f);
		assert_int_equal(ring_claim(&lane->ring), 0);
		memset(table + 8, i == 3 ? 0 : 'x', 64);
		table[0] = i == 0 ? 6 : i == 1 ? 1 : i == 2 ? 2 : 0;
		table[1] = i == 1 ? UINT64_MAX : 64;
		table[2] = 64;
		ring_ask(&lane->ring, 0);
		if (ring_must_wake(&lane->ring))
			assert_int_equal(send(lane->fd, "", 1, 0), 1);
		assert_int_equal(await(lane), 0);
		lane_end(lane);
	}
	served_end(&s);
}

/* What is to come by ZeroMQ is refused here; without an id there is no answer, and whoever waits for one is ended. */
static void other_kinds_are_refused(void **state)
{
	const struct here *h = *state;
	struct served s;
	struct lane *lane;

	served_start(h, &s, 0, 1);
	lane = raw_lane(h, &s);
	for (int i = 0; i < 2; i++) {
		struct wire_ping ping = {.id = i ? 0 : 5, .epoch = 1};
		unsigned char header[WIRE_HEADER_MAX];
		struct message m;
		int slot = ring_claim(&lane->ring);

		assert_true(slot >= 0);
		message_for_slot(&m, lane, slot);
		assert_int_equal(message_add(&m, header, wire_put_ping(&ping, header), NULL, NULL), 0);
		message_send(NULL, &m, NULL);
		assert_int_equal(await(lane), i ? 0 : WIRE_ERROR);
	}
	assert_int_equal(moe_server_stats(s.server).clients, 0);
	lane_end(lane);
	served_end(&s);
}

/* ---- rewriting while it is read ---- */

#define WORDS 256                /* of a box, table included, that are rewritten: sizes, header, lists and rows */
#define MESSAGES 4000

struct vandal {
	const struct here *h;
	const struct served *s;
	struct ring ring;        /* of a forger: the server's view of a client's memory, mapped once more */
	_Atomic bool stop;
};

/* Something wrong in a box: mostly in header, lists and rows, now and then in the table. */
static void spoil(volatile uint64_t *box, uint32_t *seed)
{
	uint32_t what = next_random(seed) >> 16, bit = next_random(seed) >> 26;

	if (what % 64 == 0)
		box[what >> 8 & 7] = what >> 10;
	else
		box[8 + what % (WORDS - 8)] ^= (uint64_t)1 << bit;
}

static void restore(volatile uint64_t *box, const uint64_t *good)
{
	for (int i = 0; i < WORDS; i++)
		box[i] = good[i];
}

/* Ask without a pause until the server has had enough, in requests that change while it reads them. */
static void pester(const struct vandal *v, struct lane *lane, uint32_t *seed)
{
	volatile uint64_t *asked = (volatile uint64_t *)lane->memory + 16, *box[RING_SLOTS];
	uint64_t good[WORDS];
	struct frames f;

	fill(v->h, v->s, &f);
	for (int i = 0; i < RING_SLOTS; i++) {
		ask(v->h, lane, &f);
		box[i] = table_of(lane, i);
	}
	for (int i = 0; i < WORDS; i++)
		good[i] = box[0][i];
	good[0] = WIRE_MAX_FRAMES;
	while (!v->stop && lane_listen(lane)) {
		uint32_t slot = next_random(seed) >> 30;

		if (next_random(seed) >> 30 == 0)
			restore(box[slot], good);
		else
			spoil(box[slot], seed);
		asked[8 * slot]++;
		send(lane->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (next_random(seed) >> 28 == 0)
			sched_yield(); /* where there is one core only */
	}
}

static void *vandalise(void *arg)
{
	const struct vandal *v = arg;
	uint32_t seed = 3;

	while (!v->stop) {
		struct lane *lane = raw_lane(v->h, v->s);

		pester(v, lane, &seed);
		lane_end(lane);
	}
	return NULL;
}

static uint64_t met(const struct served *s)
{
	struct moe_server_stats n = moe_server_stats(s->server);

	return n.batches + n.refused;
}

static void requests_rewritten_while_they_are_read_harm_nobody_else(void **state)
{
	const struct here *h = *state;
	struct vandal v = {.h = h};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_experts *x;
	struct served s;
	struct work w;
	pthread_t thread;

	served_start(h, &s, 0, 1);
	x = client_by(h, MOE_TRANSPORT_SHM, &e);
	assert_non_null(x);
	work_new(h, &w, MAX_ROWS, 4);
	v.s = &s;
	assert_int_equal(pthread_create(&thread, NULL, vandalise, &v), 0);
	while (met(&s) < MESSAGES) {
		assert_int_equal(run(x, &w.b, NULL), 0);
		assert_right(h, &w);
	}
	v.stop = true;
	pthread_join(thread, NULL);
	work_free(&w);
	x->ops->close(x);
	served_end(&s);
}

static void *forge(void *arg)
{
	struct vandal *v = arg;
	volatile uint64_t *box[RING_SLOTS];
	uint32_t seed = 5;

	for (int i = 0; i < RING_SLOTS; i++) {
		struct ring_box b;

		ring_open(&v->ring, i, &b);
		box[i] = (volatile uint64_t *)(void *)(b.data - 64);
	}
	while (!v->stop) {
		spoil(box[next_random(&seed) >> 30], &seed);
		if (next_random(&seed) >> 28 == 0)
			sched_yield();
	}
	return NULL;
}

/* Ask until something goes wrong, or long enough; how often. */
static int ask_among_forgers(const struct here *h, const struct served *s, int most)
{
	struct vandal v = {.h = h, .s = s};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_experts *x = client_by(h, MOE_TRANSPORT_SHM, &e);
	const struct lane *lane;
	pthread_t thread;
	struct work w;
	void *again;
	size_t bytes;
	int n = 0, rc = 0;

	assert_non_null(x);
	lane = ((struct remote *)x)->links[0].lane;
	bytes = lane->bytes;
	again = mremap(lane->memory, 0, bytes, MREMAP_MAYMOVE); /* of 0 bytes: the same memory at a second place */
	assert_true(again != MAP_FAILED);
	ring_start(&v.ring, RING_SERVER, &lane->ring.shape, again);
	assert_int_equal(pthread_create(&thread, NULL, forge, &v), 0);
	work_new(h, &w, 3, 4);
	for (; n < most && !rc; n++) {
		w.b.deadline = moe_now_ns() + 50000000;
		rc = run(x, &w.b, &e);
	}
	assert_true(!rc || strstr(e.msg, "rank 0 at ipc://"));
	v.stop = true;
	pthread_join(thread, NULL);
	munmap(again, bytes);
	work_free(&w);
	x->ops->close(x);
	return n;
}

static void answers_rewritten_while_they_are_read_end_in_an_error_at_worst(void **state)
{
	const struct here *h = *state;
	struct served s;
	struct work w;
	struct moe_experts *x;
	struct moe_err e = MOE_ERR_INIT;

	served_start(h, &s, 0, 1);
	for (int n = 0; n < MESSAGES;)
		n += ask_among_forgers(h, &s, MESSAGES - n);
	x = client_by(h, MOE_TRANSPORT_SHM, &e);
	assert_non_null(x);
	work_new(h, &w, MAX_ROWS, 4);
	assert_int_equal(run(x, &w.b, NULL), 0);
	assert_right(h, &w);
	work_free(&w);
	x->ops->close(x);
	served_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nonsense_is_answered_with_an_error),
		cmocka_unit_test(what_is_no_message_ends_the_lane),
		cmocka_unit_test(other_kinds_are_refused),
		cmocka_unit_test(requests_rewritten_while_they_are_read_harm_nobody_else),
		cmocka_unit_test(answers_rewritten_while_they_are_read_end_in_an_error_at_worst),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_group, close_group);
}
