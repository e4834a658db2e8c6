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

static struct pending *put(struct queue *q, char peer, int priority, size_t bytes, int want)
{
	struct pending *p = queue_free_place(q);

	assert_false(p->used);
	p->m.n = 0;
	assert_int_equal(message_add(&p->m, NULL, bytes, NULL, NULL), 0);
	p->from = (struct peer){.size = 1, .id = {(unsigned char)peer}};
	p->q.priority = priority;
	assert_int_equal(queue_add(q, p, NULL), want);
	if (want)
		message_drop(&p->m);
	return p;
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
	put(&q, 'b', 9, 1, MOE_E_BUSY);
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
		cmocka_unit_test(terms_are_compared),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
