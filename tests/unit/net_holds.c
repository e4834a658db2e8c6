/* A server with two epochs: who is told of what, which one answers, and when one of them is released. */
#include "net_raw.h"

/* A hold whose experts are those of a server that was made for them, and what became of it. */
struct offer {
	struct served from;
	struct moe_hold hold;
	_Atomic int released;
};

static void let_go(void *ctx)
{
	((struct offer *)ctx)->released++;
}

static void offer_make(const struct here *h, struct offer *o, uint64_t epoch, int of)
{
	struct moe_identity id = identity();

	*o = (struct offer){.released = 0};
	served_make(h, &o->from, of == 1 ? 3 + (int)epoch : 2, of, &id); /* on an endpoint of its own */
	o->hold = (struct moe_hold){.epoch = epoch, .has = o->from.has, .experts = o->from.local, .release = let_go, .ctx = o};
}

struct told {
	_Atomic int taken, withdrawn;
	_Atomic uint64_t epoch;
	char words[256];             /* of the last; read it when the counts say that it is there */
};

static void hear(void *ctx, uint64_t epoch, enum moe_hold_event what, const char *words)
{
	struct told *t = ctx;

	snprintf(t->words, sizeof t->words, "%s", words);
	t->epoch = epoch;
	if (what == MOE_HOLD_TAKEN)
		t->taken++;
	else
		t->withdrawn++;
}

/* A server of all experts, epoch 1, that tells t. */
static void start(const struct here *h, struct served *s, struct told *t, double offer_timeout)
{
	struct moe_identity id = identity();

	*t = (struct told){.taken = 0};
	served_make(h, s, 0, 1, &id);
	s->server->c.event = hear;
	s->server->c.ctx = t;
	s->server->c.offer_timeout = offer_timeout;
	served_run(s);
}

static void wait_for(_Atomic int *v)
{
	for (int i = 0; i < 30000 && !*v; i++)
		usleep(1000);
	assert_int_equal(*v, 1);
}

static void nobody_there_means_at_once(void **state)
{
	const struct here *h = *state;
	struct served s;
	struct offer o;
	struct told t;

	start(h, &s, &t, 60);
	offer_make(h, &o, 2, 1);
	assert_int_equal(moe_server_offer(s.server, &o.hold, NULL), 0);
	wait_for(&t.taken);
	assert_true(t.epoch == 2 && !o.released);
	served_end(&s);
	assert_int_equal(o.released, 1);
	served_end(&o.from);
}

static void both_answer_until_all_have_followed(void **state)
{
	const struct here *h = *state;
	struct wire_hello w;
	struct wire_error error;
	struct wire_request q;
	struct moe_status status;
	struct moe_err e;
	struct served s;
	struct offer o, late;
	struct raw a, b;
	struct told t;

	start(h, &s, &t, 60);
	raw_open(h, &a);
	raw_hello(&a, &w);
	raw_open(h, &b);
	raw_hello(&b, &w);
	offer_make(h, &o, 2, 1);
	offer_make(h, &late, 3, 1);
	assert_int_equal(moe_server_offer(s.server, &o.hold, NULL), 0);
	assert_int_equal(moe_server_offer(s.server, &late.hold, &e), MOE_E_BUSY);
	raw_welcome(h, &a, &w, NULL);
	assert_true(w.identity.epoch == 2);
	raw_welcome(h, &b, &w, NULL);
	assert_true(w.identity.epoch == 2);
	for (uint64_t epoch = 1; epoch <= 2; epoch++) {
		q = good(h, w.instance, epoch);
		q.epoch = epoch;
		raw_request(&a, &q);
		assert_int_equal(raw_answer(&a, epoch, &error), 0);
	}
	raw_status(&a, 2, &status);
	assert_true(status.identity.epoch == 2 && status.old_epoch == 1 && status.clients == 2);
	raw_status(&b, 1, &status);
	assert_true(status.old_epoch == 1 && !t.taken);
	raw_status(&b, 2, &status);
	wait_for(&t.taken);
	raw_status(&a, 2, &status);
	assert_true(status.old_epoch == 0 && status.identity.epoch == 2);
	q = good(h, w.instance, 9);
	raw_request(&a, &q);
	assert_int_equal(raw_answer(&a, 9, &error), MOE_E_PEER);
	assert_int_equal(error.flags, WIRE_HELLO_AGAIN);
	assert_int_equal(moe_server_offer(s.server, &late.hold, NULL), 0);
	raw_close(&a);
	raw_close(&b);
	served_end(&s);
	assert_int_equal(late.released, 1);
	assert_int_equal(o.released, 1);
	served_end(&late.from);
	served_end(&o.from);
}

static void a_newcomer_is_told_of_both(void **state)
{
	const struct here *h = *state;
	struct wire_hello w;
	struct served s;
	struct offer o;
	struct raw a, b;
	struct told t;

	start(h, &s, &t, 60);
	raw_open(h, &a);
	raw_hello(&a, &w);
	offer_make(h, &o, 2, 1);
	assert_int_equal(moe_server_offer(s.server, &o.hold, NULL), 0);
	raw_welcome(h, &a, &w, NULL);
	raw_open(h, &b);
	raw_send_hello(&b, 1);
	raw_welcome(h, &b, &w, NULL);
	assert_true(w.identity.epoch == 1);
	raw_welcome(h, &b, &w, NULL);
	assert_true(w.identity.epoch == 2);
	raw_send_hello(&b, 2);
	raw_welcome(h, &b, &w, NULL);
	assert_true(w.identity.epoch == 2);
	raw_send_hello(&b, 7);
	raw_welcome(h, &b, &w, NULL);
	assert_true(w.identity.epoch == 2);
	raw_close(&a);
	raw_close(&b);
	served_end(&s);
	served_end(&o.from);
}

static void who_does_not_follow_keeps_the_old_one(void **state)
{
	const struct here *h = *state;
	struct wire_hello w;
	struct wire_error error;
	struct wire_request q;
	struct served s;
	struct offer o;
	struct raw a;
	struct told t;

	start(h, &s, &t, 0.3);
	raw_open(h, &a);
	raw_hello(&a, &w);
	offer_make(h, &o, 2, 1);
	assert_int_equal(moe_server_offer(s.server, &o.hold, NULL), 0);
	raw_welcome(h, &a, &w, NULL);
	assert_true(w.identity.epoch == 2);
	raw_welcome(h, &a, &w, NULL);
	assert_true(w.identity.epoch == 1);
	wait_for(&t.withdrawn);
	assert_string_equal(t.words, "1 of 1 clients did not follow within 0.3 s");
	assert_true(o.released == 1 && t.epoch == 2);
	q = good(h, w.instance, 1);
	raw_request(&a, &q);
	assert_int_equal(raw_answer(&a, 1, &error), 0);
	q.epoch = 2;
	raw_request(&a, &q);
	assert_int_equal(raw_answer(&a, 1, &error), MOE_E_PEER);
	raw_close(&a);
	served_end(&s);
	served_end(&o.from);
}

static void an_offer_is_taken_back(void **state)
{
	const struct here *h = *state;
	struct wire_hello w;
	struct served s;
	struct offer o;
	struct raw a;
	struct told t;

	start(h, &s, &t, 60);
	raw_open(h, &a);
	raw_hello(&a, &w);
	offer_make(h, &o, 2, 1);
	assert_int_equal(moe_server_offer(s.server, &o.hold, NULL), 0);
	moe_server_withdraw(s.server, 5);
	raw_welcome(h, &a, &w, NULL);
	assert_true(w.identity.epoch == 2);
	moe_server_withdraw(s.server, 2);
	raw_welcome(h, &a, &w, NULL);
	assert_true(w.identity.epoch == 1);
	wait_for(&t.withdrawn);
	assert_int_equal(o.released, 1);
	raw_close(&a);
	served_end(&s);
	served_end(&o.from);
}

static void more_experts_of_the_same_epoch_take_their_place_at_once(void **state)
{
	const struct here *h = *state;
	struct wire_hello w;
	struct wire_error error;
	struct wire_request q;
	struct moe_status status;
	struct served s;
	struct offer o;
	struct raw a;
	struct told t;
	uint8_t *has = moe_calloc((size_t)h->c->model.n_layers, (size_t)moe_model_max_experts(&h->c->model), "test", NULL);

	assert_non_null(has);
	start(h, &s, &t, 60);
	raw_open(h, &a);
	raw_hello(&a, &w);
	offer_make(h, &o, 1, 3); /* without expert 0 */
	assert_int_equal(moe_server_offer(s.server, &o.hold, NULL), 0);
	raw_welcome(h, &a, &w, has);
	assert_true(w.identity.epoch == 1);
	assert_memory_equal(has, o.hold.has, (size_t)(h->c->model.n_layers * moe_model_max_experts(&h->c->model)));
	wait_for(&t.taken);
	raw_status(&a, 1, &status);
	assert_true(status.held == w.held && status.old_epoch == 0);
	q = good(h, w.instance, 1);
	raw_request(&a, &q);
	assert_int_equal(raw_answer(&a, 1, &error), MOE_E_MISSING);
	raw_close(&a);
	served_end(&s);
	assert_int_equal(o.released, 1);
	served_end(&o.from);
	free(has);
}

/* Requests that wait when their experts go are refused, not computed. */
static void waiting_requests_are_looked_at_again(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	struct wire_error error;
	struct wire_request q;
	struct served s;
	struct offer o;
	struct raw a;

	served_make(h, &s, 0, 1, &id);
	raw_open(h, &a);
	q = good(h, s.server->instance, 1);
	raw_request(&a, &q);
	zmq_poll(&(zmq_pollitem_t){.socket = s.server->socket, .events = ZMQ_POLLIN}, 1, 30000);
	{
		struct pending *p = queue_free_place(&s.server->queue);

		assert_int_equal(message_receive(s.server->socket, &p->m, &p->from), 1);
		answer_received(s.server, p);
		assert_int_equal(s.server->queue.length, 1);
	}
	offer_make(h, &o, 1, 3);
	assert_int_equal(moe_server_offer(s.server, &o.hold, NULL), 0);
	holds_attend(s.server);
	assert_int_equal(s.server->queue.length, 0);
	assert_int_equal(raw_answer(&a, 1, &error), MOE_E_MISSING);
	raw_close(&a);
	served_end(&s);
	served_end(&o.from);
}

/* ---- draining, spares ---- */

static int take_these(void *ctx, const uint8_t *want, struct moe_err *e)
{
	_Atomic int *n = ctx;

	if (!want[0])
		return moe_fail(e, MOE_E_BUSY, "loading already");
	++*n;
	return 0;
}

static void a_spare_is_told_what_to_take(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	size_t all = (size_t)(h->c->model.n_layers * moe_model_max_experts(&h->c->model));
	uint8_t *want = moe_calloc(all, 1, "test", NULL);
	_Atomic int taken = 0;
	struct wire_error error;
	struct moe_status status;
	struct wire_hello w;
	struct served s;
	struct raw a;

	assert_non_null(want);
	served_make(h, &s, 0, 1, &id);
	s.server->c.take = take_these;
	s.server->c.ctx = &taken;
	served_run(&s);
	raw_open(h, &a);
	raw_hello(&a, &w);
	assert_int_equal(w.flags, WIRE_SPARE);
	raw_take(h, &a, 1, 1, want);
	assert_int_equal(raw_answer(&a, 1, &error), MOE_E_BUSY);
	want[0] = 1;
	raw_take(h, &a, 2, 1, want);
	raw_pong(&a, 2, &status);
	assert_true(taken == 1 && status.spare);
	raw_take(h, &a, 3, 4, want);
	assert_int_equal(raw_answer(&a, 3, &error), MOE_E_BUSY);
	raw_close(&a);
	served_end(&s);
	served_start(h, &s, 0, 1);
	raw_open(h, &a);
	raw_take(h, &a, 4, 1, want);
	assert_int_equal(raw_answer(&a, 4, &error), MOE_E_UNSUPPORTED);
	raw_close(&a);
	served_end(&s);
	free(want);
}

static void the_end_is_announced(void **state)
{
	const struct here *h = *state;
	struct wire_hello w;
	struct served s;
	struct raw a;

	served_start(h, &s, 0, 1);
	raw_open(h, &a);
	raw_hello(&a, &w);
	assert_int_equal(w.flags, 0);
	moe_server_stop(s.server);
	raw_welcome(h, &a, &w, NULL);
	assert_int_equal(w.flags, WIRE_DRAINING);
	served_end(&s);
	raw_close(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_there_means_at_once),
		cmocka_unit_test(both_answer_until_all_have_followed),
		cmocka_unit_test(a_newcomer_is_told_of_both),
		cmocka_unit_test(who_does_not_follow_keeps_the_old_one),
		cmocka_unit_test(an_offer_is_taken_back),
		cmocka_unit_test(more_experts_of_the_same_epoch_take_their_place_at_once),
		cmocka_unit_test(waiting_requests_are_looked_at_again),
		cmocka_unit_test(a_spare_is_told_what_to_take),
		cmocka_unit_test(the_end_is_announced),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_group, close_group);
}
