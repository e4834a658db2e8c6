/* Slots in shared memory: what is written arrives, whole and once, whatever the other side does. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "net/ring.h"

static const struct ring_shape shape = {.slots = RING_SLOTS, .request = 4096, .reply = 8192};

struct pair {
	void *memory;
	struct ring client, server;
};

static void open_pair(struct pair *p)
{
	size_t bytes;

	assert_int_equal(ring_bytes(&shape, &bytes, NULL), 0);
	p->memory = moe_aligned(bytes, "test", NULL);
	assert_non_null(p->memory);
	ring_start(&p->client, RING_CLIENT, &shape, p->memory);
	ring_start(&p->server, RING_SERVER, &shape, p->memory);
}

static void *add(struct ring *r, int slot, const void *data, size_t n)
{
	struct ring_box box;
	void *at;

	ring_open(r, slot, &box);
	at = ring_add(&box, n);
	assert_non_null(at);
	memcpy(at, data, n);
	return at;
}

/* ---- one after the other ---- */

static void a_request_goes_there_and_an_answer_comes_back(void **state)
{
	struct wire_frame f[WIRE_MAX_FRAMES];
	struct pair p;
	int slot;

	(void)state;
	open_pair(&p);
	assert_int_equal(ring_asked(&p.server), -1);
	slot = ring_claim(&p.client);
	add(&p.client, slot, "what", 5);
	assert_false(ring_ready(&p.server));
	ring_ask(&p.client, slot);
	assert_true(ring_waits(&p.client));
	assert_true(ring_ready(&p.server));
	assert_int_equal(ring_asked(&p.server), slot);
	assert_int_equal(ring_asked(&p.server), -1);
	assert_int_equal(ring_frames(&p.server, slot, f), 1);
	assert_int_equal(f[0].size, 5);
	assert_string_equal(f[0].data, "what");
	assert_int_equal(ring_answered(&p.client), -1);
	add(&p.server, slot, "that", 5);
	ring_answer(&p.server, slot);
	assert_int_equal(ring_answered(&p.client), slot);
	assert_int_equal(ring_answered(&p.client), -1);
	assert_int_equal(ring_frames(&p.client, slot, f), 1);
	assert_string_equal(f[0].data, "that");
	ring_release(&p.client, slot);
	assert_int_equal(ring_asked(&p.server), -1);
	free(p.memory);
}

/* Whoever gave up on an answer does not get the slot before it has come. */
static void a_late_answer_meets_nothing_newer(void **state)
{
	struct pair p;

	(void)state;
	open_pair(&p);
	for (int i = 0; i < RING_SLOTS; i++) {
		assert_int_equal(ring_claim(&p.client), i);
		ring_ask(&p.client, i);
	}
	assert_int_equal(ring_claim(&p.client), -1);
	assert_int_equal(ring_asked(&p.server), 0);
	assert_int_equal(ring_claim(&p.client), -1);
	ring_answer(&p.server, 0);
	assert_int_equal(ring_claim(&p.client), -1);
	assert_int_equal(ring_answered(&p.client), 0);
	ring_release(&p.client, 0);
	assert_int_equal(ring_claim(&p.client), 0);
	free(p.memory);
}

static void a_held_slot_is_not_taken_twice(void **state)
{
	struct pair p;

	(void)state;
	open_pair(&p);
	ring_ask(&p.client, ring_claim(&p.client));
	assert_int_equal(ring_asked(&p.server), 0);
	/* A client that asks again in the same slot, out of turn. */
	ring_ask(&p.client, 0);
	assert_int_equal(ring_asked(&p.server), -1);
	ring_answer(&p.server, 0);
	assert_int_equal(ring_asked(&p.server), 0);
	free(p.memory);
}

static void boxes_are_bounded(void **state)
{
	struct wire_frame f[WIRE_MAX_FRAMES];
	struct ring_box box;
	struct pair p;

	(void)state;
	open_pair(&p);
	assert_int_equal(ring_claim(&p.client), 0);
	ring_open(&p.client, 0, &box);
	assert_null(ring_add(&box, shape.request + 1));
	assert_non_null(ring_add(&box, shape.request - 64));
	assert_null(ring_add(&box, 65));
	assert_non_null(ring_add(&box, 64));
	assert_null(ring_add(&box, 1));
	assert_non_null(ring_add(&box, 0));
	assert_int_equal(ring_frames(&p.server, 0, f), 3);
	ring_open(&p.client, 0, &box);
	for (int i = 0; i < WIRE_MAX_FRAMES; i++)
		assert_true((uintptr_t)ring_add(&box, 1) % 64 == 0);
	assert_null(ring_add(&box, 1));
	free(p.memory);
}

/* The table in front of a box, as anyone may write it: a count, then sizes. */
static void tables_that_lie_are_refused(void **state)
{
	struct wire_frame f[WIRE_MAX_FRAMES];
	struct ring_box box;
	struct pair p;
	uint64_t *table;

	(void)state;
	open_pair(&p);
	ring_claim(&p.client);
	ring_open(&p.client, 0, &box);
	table = (uint64_t *)(void *)(box.data - 64);
	table[0] = WIRE_MAX_FRAMES + 1;
	assert_int_equal(ring_frames(&p.server, 0, f), -1);
	table[0] = UINT64_MAX;
	assert_int_equal(ring_frames(&p.server, 0, f), -1);
	table[0] = 2;
	table[1] = shape.request + 1;
	assert_int_equal(ring_frames(&p.server, 0, f), -1);
	table[1] = UINT64_MAX;
	assert_int_equal(ring_frames(&p.server, 0, f), -1);
	table[1] = 65;
	table[2] = shape.request - 127;
	assert_int_equal(ring_frames(&p.server, 0, f), -1);
	table[2] = shape.request - 128;
	assert_int_equal(ring_frames(&p.server, 0, f), 2);
	assert_ptr_equal(f[1].data, box.data + 128);
	free(p.memory);
}

static void shapes_that_nobody_needs_are_refused(void **state)
{
	static const struct ring_shape bad[] = {
		{0, 4096, 4096}, {RING_SLOTS + 1, 4096, 4096}, {UINT32_MAX, 4096, 4096}, {1, 0, 4096}, {1, 4096, 64}, {1, 4097, 4096},
		{1, 4096, 4104}, {1, UINT64_MAX - 63, 4096}, {1, 4096, UINT64_C(1) << 40},
	};
	uint64_t request, reply;
	size_t bytes;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(ring_bytes(&bad[i], &bytes, NULL), MOE_E_RANGE);
	assert_true(ring_room(3, 7, 10, &request, &reply));
	assert_int_equal(request, 1024 + 3 * 64 + 128);
	assert_int_equal(reply, 1024 + 320);
	assert_false(ring_room(1u << 30, 1, 1u << 30, &request, &reply));
	assert_false(ring_room(1, 1u << 30, 1u << 30, &request, &reply));
	assert_false(ring_room(1, 1u << 31, 0, &request, &reply));
}

static void who_sleeps_is_woken_once(void **state)
{
	struct pair p;

	(void)state;
	open_pair(&p);
	assert_false(ring_must_wake(&p.client));
	ring_park(&p.server);
	assert_true(ring_must_wake(&p.client));
	assert_false(ring_must_wake(&p.client));
	ring_park(&p.server);
	ring_unpark(&p.server);
	assert_false(ring_must_wake(&p.client));
	assert_false(ring_must_wake(&p.server));
	free(p.memory);
}

/* ---- both at once ---- */

#define ASKED 20000

struct storm {
	struct pair p;
	sem_t bell[2];           /* by side: what the lane's socket is elsewhere */
	uint64_t asked[RING_SLOTS];
	uint32_t random;
};

static uint32_t next_random(uint32_t *s)
{
	return *s = *s * 1664525u + 1013904223u;
}

static void await(struct storm *s, struct ring *r)
{
	ring_park(r);
	if (!ring_ready(r))
		sem_wait(&s->bell[r->side]);
	ring_unpark(r);
}

static void ring_bell(struct storm *s, struct ring *r)
{
	if (ring_must_wake(r))
		sem_post(&s->bell[r->side == RING_CLIENT ? RING_SERVER : RING_CLIENT]);
}

/* Words of a request: its number, then noise from it; and twice as much for the answer. */
static void write_words(struct ring *r, int slot, uint64_t number, size_t words)
{
	struct ring_box box;
	uint64_t *head, *body;

	ring_open(r, slot, &box);
	head = ring_add(&box, sizeof *head);
	body = ring_add(&box, words * sizeof *body);
	assert_true(head && body);
	*head = number;
	for (size_t i = 0; i < words; i++)
		body[i] = number * 31 + i;
}

static uint64_t read_words(struct ring *r, int slot, size_t *words)
{
	struct wire_frame f[WIRE_MAX_FRAMES];
	const uint64_t *body;
	uint64_t number;

	assert_int_equal(ring_frames(r, slot, f), 2);
	number = *(const uint64_t *)f[0].data;
	body = f[1].data;
	*words = f[1].size / sizeof *body;
	for (size_t i = 0; i < *words; i++)
		assert_true(body[i] == number * 31 + i);
	return number;
}

/* Takes several before it answers, and answers them in another order. */
static void *serve(void *arg)
{
	struct storm *s = arg;
	struct ring *r = &s->p.server;

	for (int done = 0; done < ASKED;) {
		int slots[RING_SLOTS], n = 0, slot;

		while ((slot = ring_asked(r)) >= 0)
			slots[n++] = slot;
		if (!n)
			await(s, r);
		done += n;
		while (n-- > 0) {
			size_t words;
			uint64_t number = read_words(r, slots[n], &words);

			write_words(r, slots[n], number, 2 * words);
			ring_answer(r, slots[n]);
			ring_bell(s, r);
		}
	}
	return NULL;
}

static void ask(struct storm *s, uint64_t number)
{
	int slot = ring_claim(&s->p.client);

	assert_true(slot >= 0);
	s->asked[slot] = number;
	write_words(&s->p.client, slot, number, (next_random(&s->random) >> 16) % 500);
	ring_ask(&s->p.client, slot);
	ring_bell(s, &s->p.client);
}

/* Reads the answer; some of those who asked have given up, and do not look. */
static void collect(struct storm *s, int slot)
{
	size_t words;

	if (next_random(&s->random) >> 16 & 3)
		assert_true(read_words(&s->p.client, slot, &words) == s->asked[slot]);
	ring_release(&s->p.client, slot);
}

static void a_storm(void **state)
{
	struct storm s = {.random = 1};
	pthread_t thread;
	uint64_t asked = 0;
	int got = 0;

	(void)state;
	open_pair(&s.p);
	sem_init(&s.bell[RING_CLIENT], 0, 0);
	sem_init(&s.bell[RING_SERVER], 0, 0);
	assert_int_equal(pthread_create(&thread, NULL, serve, &s), 0);
	while (got < ASKED) {
		int slot = ring_answered(&s.p.client), under_way = (int)asked - got;

		if (slot >= 0) {
			collect(&s, slot);
			got++;
		} else if (asked < ASKED && under_way < RING_SLOTS && (!under_way || next_random(&s.random) >> 31)) {
			ask(&s, ++asked);
		} else {
			await(&s, &s.p.client);
		}
	}
	pthread_join(thread, NULL);
	sem_destroy(&s.bell[0]);
	sem_destroy(&s.bell[1]);
	free(s.p.memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_goes_there_and_an_answer_comes_back),
		cmocka_unit_test(a_late_answer_meets_nothing_newer),
		cmocka_unit_test(a_held_slot_is_not_taken_twice),
		cmocka_unit_test(boxes_are_bounded),
		cmocka_unit_test(tables_that_lie_are_refused),
		cmocka_unit_test(shapes_that_nobody_needs_are_refused),
		cmocka_unit_test(who_sleeps_is_woken_once),
		cmocka_unit_test(a_storm),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
