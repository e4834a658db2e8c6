/* The parts without sockets: the server's queue, the terms of a handshake. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/link.h"
#include "net/queue.h"

/* ---- the queue ---- */

/* Offer it to the queue; what gives way to it is dropped.  Its place, taken or not. */
static struct pending *offer(struct queue *q, const struct wire_request *r, char peer, size_t bytes, int want)
{
	struct pending *p = queue_free_place(q), *other;

	assert_false(p->used);
	p->m.n = 0;
	assert_int_equal(message_add(&p->m, NULL, bytes, NULL, NULL), 0);
	p->from = (struct peer){.size = 1, .id = {(unsigned char)peer}};
	p->q = *r;
	p->received_ns = 1000;
	assert_int_equal(queue_check(q, p, NULL), want);
	if (want) {
		message_drop(&p->m);
		return p;
	}
	while ((other = queue_in_the_way(q, p)))
		queue_remove(q, other);
	queue_add(q, p);
	return p;
}

static struct pending *put(struct queue *q, char peer, int priority, size_t bytes, int want)
{
	struct wire_request r = {.priority = priority, .remaining_ns = WIRE_FOREVER, .pairs = 1};

	return offer(q, &r, peer, bytes, want);
}

static void empty(struct queue *q)
{
	struct pending *p;

	while ((p = queue_next(q)))
		queue_remove(q, p);
	assert_int_equal(q->length, 0);
	assert_int_equal(q->bytes, 0);
}

static void priority_first_then_age(void **state)
{
	static struct queue q;
	struct pending *order[4];

	(void)state;
	q = (struct queue){.credits = 8, .max_bytes = 1000};
	order[2] = put(&q, 'a', 0, 10, 0);
	order[0] = put(&q, 'b', 5, 10, 0);
	order[3] = put(&q, 'a', 0, 10, 0);
	order[1] = put(&q, 'b', 5, 10, 0);
	for (int i = 0; i < 4; i++) {
		assert_ptr_equal(queue_next(&q), order[i]);
		queue_remove(&q, order[i]);
	}
	empty(&q);
}

static void the_queue_is_bounded(void **state)
{
	static struct queue q;

	(void)state;
	q = (struct queue){.credits = 2, .max_bytes = 1000};
	put(&q, 'a', 0, 10, 0);
	put(&q, 'a', 0, 10, 0);
	put(&q, 'a', 0, 10, MOE_E_BUSY);
	put(&q, 'b', 0, 981, MOE_E_BUSY);
	put(&q, 'b', 0, 980, 0);
	empty(&q);
	q.credits = QUEUE_LENGTH + 1;
	for (int i = 0; i < QUEUE_LENGTH; i++)
		put(&q, 'a', 0, 1, 0);
	put(&q, 'b', 0, 1, MOE_E_BUSY);
	put(&q, 'b', -1, 1, MOE_E_BUSY);
	empty(&q);
}

static void clients_take_turns(void **state)
{
	static const char turns[] = "abababaaac";
	static struct queue q;
	char got[sizeof turns] = "";

	(void)state;
	q = (struct queue){.credits = 8, .max_bytes = 1000};
	for (int i = 0; i < 6; i++)
		put(&q, 'a', 0, 10, 0);
	for (int i = 0; i < 3; i++)
		put(&q, 'b', 0, 10, 0);
	put(&q, 'c', -1, 10, 0);
	for (int i = 0; i + 1 < (int)sizeof turns; i++) {
		struct pending *p = queue_next(&q);

		got[i] = (char)p->from.id[0];
		queue_remove(&q, p);
	}
	assert_string_equal(got, turns);
}

/* Who comes late does not wait for all that another has waiting, and who was there does not wait for who comes again and again. */
static void a_newcomer_joins_the_round_under_way(void **state)
{
	static struct queue q;

	(void)state;
	q = (struct queue){.credits = 8, .max_bytes = 1000};
	for (int i = 0; i < 6; i++)
		put(&q, 'a', 0, 10, 0);
	for (int i = 0; i < 3; i++)
		queue_remove(&q, queue_next(&q));
	for (int i = 0; i < 3; i++) {
		put(&q, 'b', 0, 10, 0);
		for (int j = 0; j < 2; j++) {
			struct pending *p = queue_next(&q);

			assert_int_equal(p->from.id[0], j ? 'a' : 'b');
			queue_remove(&q, p);
		}
	}
	empty(&q);
}

static void what_matters_less_gives_way(void **state)
{
	static struct queue q;
	struct wire_request soon = {.remaining_ns = 5000, .pairs = 1}, later = {.remaining_ns = 9000, .pairs = 1};
	struct pending *low, *first, *second;

	(void)state;
	q = (struct queue){.credits = QUEUE_LENGTH, .max_bytes = 1000};
	first = offer(&q, &soon, 'a', 1, 0);
	second = offer(&q, &later, 'a', 1, 0);
	low = put(&q, 'a', -1, 1, 0);
	for (int i = 3; i < QUEUE_LENGTH; i++)
		put(&q, 'a', 1, 1, 0);
	put(&q, 'b', 2, 1, 0);
	assert_false(low->used);
	assert_true(first->used && second->used);
	put(&q, 'b', 2, 1, 0);
	assert_false(first->used && first->q.priority == 0);
	put(&q, 'b', 0, 1, 0);
	assert_false(second->used && second->q.remaining_ns == 9000);
	put(&q, 'b', 0, 1, MOE_E_BUSY);
	empty(&q);
	/* By bytes: none is dropped when that would not help. */
	for (int i = 0; i < 4; i++)
		put(&q, 'a', i, 250, 0);
	put(&q, 'b', 1, 501, MOE_E_BUSY);
	assert_int_equal(q.length, 4);
	put(&q, 'b', 2, 500, 0);
	assert_int_equal(q.length, 3);
	empty(&q);
}

static void what_cannot_be_done_in_time_is_refused_at_once(void **state)
{
	static struct queue q;
	struct wire_request r = {.remaining_ns = 4999, .pairs = 100};

	(void)state;
	q = (struct queue){.credits = 8, .max_bytes = 1000};
	offer(&q, &r, 'a', 1, 0);
	queue_remove(&q, queue_next(&q));
	queue_measure(&q, 1000, 20); /* 50 ns a pair */
	queue_measure(&q, 6400, 64); /* slower ones count little */
	assert_true(q.ns_per_pair > 50 && q.ns_per_pair < 55);
	queue_measure(&q, 5000, 100);
	assert_true(q.ns_per_pair == 50);
	offer(&q, &r, 'a', 1, 0);
	offer(&q, &r, 'b', 1, MOE_E_TIMEOUT);
	r.priority = 1;
	offer(&q, &r, 'b', 1, 0);
	empty(&q);
}

/* ---- terms ---- */

static void terms_are_compared(void **state)
{
	static const struct moe_model model = {.hidden = 8, .n_layers = 2};
	const struct link_terms terms = {
		.model = &model, .identity = {.fingerprint = "a", .epoch = 1, .numerics = 2, .numerics_text = "ours"}, .max_rows = 16,
		.max_request = 512,
	};
	const struct wire_hello good = {
		.version_min = 1, .version_max = 4, .identity = terms.identity, .hidden = 8, .layers = 2, .max_rows = 16, .credits = 1,
		.max_bytes = 512,
	};
	struct wire_hello w;
	struct moe_err e;

	(void)state;
	assert_int_equal(link_check_terms(&good, &terms, NULL), 0);
	w = good;
	w.version_min = 2;
	assert_int_equal(link_check_terms(&w, &terms, &e), MOE_E_PEER);
	assert_string_equal(e.msg, "speaks wire version 2 to 4, this program 1");
	w = good;
	w.hidden = 9;
	assert_int_equal(link_check_terms(&w, &terms, &e), MOE_E_PEER);
	w = good;
	w.credits = 0;
	assert_int_equal(link_check_terms(&w, &terms, &e), MOE_E_PEER);
	w = good;
	w.max_bytes = 511;
	assert_int_equal(link_check_terms(&w, &terms, &e), MOE_E_PEER);
	w = good;
	w.max_rows = 15;
	assert_int_equal(link_check_terms(&w, &terms, &e), MOE_E_PEER);
	assert_string_equal(e.msg, "takes 15 rows a message, this program sends up to 16: start it with --max-rows 16");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(priority_first_then_age),
		cmocka_unit_test(the_queue_is_bounded),
		cmocka_unit_test(clients_take_turns),
		cmocka_unit_test(a_newcomer_joins_the_round_under_way),
		cmocka_unit_test(what_matters_less_gives_way),
		cmocka_unit_test(what_cannot_be_done_in_time_is_refused_at_once),
		cmocka_unit_test(terms_are_compared),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
