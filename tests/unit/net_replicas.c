/* Servers that hold the same experts: what one does not answer, another does, and the bits are the same. */
#include <unistd.h>

#include "net_fake.h"
#include "net/server.h"

/* ---- a fake of rank 0 and a server of rank 1, which both hold everything ---- */

struct pair {
	struct fake f;
	struct served s;
	struct work w;
	struct moe_experts *x;
};

static struct moe_experts *client_with(struct moe_remote_config *c)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_experts *x = NULL;

	if (moe_experts_remote(c, &x, &e))
		print_message("%s\n", e.msg);
	assert_non_null(x);
	return x;
}

/* Small batches go to the lower rank, the fake. */
static void pair_open(const struct here *h, struct pair *p, enum mood mood, double hedge)
{
	struct moe_endpoints to = endpoints(h, 2);
	struct moe_remote_config c = client_config(h, &to);

	*p = (struct pair){.f = {.of = 1, .right = true}};
	work_new(h, &p->w, 3, 21);
	fake_start(&p->f, h, mood);
	served_start(h, &p->s, 1, 1);
	c.hedge = hedge;
	p->x = client_with(&c);
	moe_endpoints_free(&to);
}

static void pair_close(struct pair *p)
{
	p->x->ops->close(p->x);
	fake_end(&p->f);
	served_end(&p->s);
	work_free(&p->w);
}

static void run_right(const struct here *h, struct moe_experts *x, struct work *w)
{
	struct moe_err e = MOE_ERR_INIT;

	memset(w->y, 0, (size_t)w->b.rows * (size_t)h->hidden * sizeof *w->y);
	if (run(x, &w->b, &e))
		print_message("%s\n", e.msg);
	assert_int_equal(e.code, 0);
	assert_right(h, w);
}

static bool says(struct moe_experts *x, const char *words)
{
	struct moe_buf text = MOE_BUF_INIT;
	bool found;

	assert_int_equal(moe_experts_remote_describe(x, &text, NULL), 0);
	found = strstr(text.data, words) != NULL;
	moe_buf_free(&text);
	return found;
}

/* Right answers all the while, until a description says it, or does not. */
static void run_until(const struct here *h, struct moe_experts *x, struct work *w, const char *words, bool there)
{
	int tries = 0;

	while (says(x, words) != there) {
		assert_true(tries++ < 30000);
		run_right(h, x, w);
		usleep(1000);
	}
}

static void a_server_that_dies_in_the_middle_costs_nothing(void **state)
{
	const struct here *h = *state;
	struct pair p;
	uint64_t ticket;

	pair_open(h, &p, HOLD, 0);
	assert_int_equal(p.x->ops->submit(p.x, &p.w.b, &ticket, NULL), 0);
	while (p.f.hold < 1)
		usleep(1000);
	fake_end(&p.f);
	assert_int_equal(p.x->ops->wait(p.x, ticket, NULL), 0);
	assert_right(h, &p.w);
	assert_true(moe_experts_remote_stats(p.x).retried + moe_experts_remote_stats(p.x).hedged >= 1);
	/* And back again: it is found, and used. */
	p.f = (struct fake){.of = 1, .right = true};
	fake_start(&p.f, h, ANSWER);
	for (int i = 0; i < 30000 && !p.f.asked; i++) {
		run_right(h, p.x, &p.w);
		usleep(1000);
	}
	assert_true(p.f.asked > 0);
	pair_close(&p);
}

static void silence_is_suspect_and_others_are_asked(void **state)
{
	const struct here *h = *state;
	struct pair p;
	int asked;

	pair_open(h, &p, HOLD, 0);
	run_right(h, p.x, &p.w);
	assert_int_equal(p.f.asked, 1);
	assert_int_equal(moe_experts_remote_stats(p.x).hedged, 1);
	assert_true(says(p.x, "suspect"));
	for (int i = 0; i < 5; i++)
		run_right(h, p.x, &p.w);
	assert_int_equal(p.f.asked, 1);
	/* It answers at last, what nobody waits for; then it is as good as any. */
	p.f.mood = ANSWER;
	run_until(h, p.x, &p.w, "suspect", false);
	asked = p.f.asked;
	for (int i = 0; i < 30000 && p.f.asked == asked; i++)
		run_right(h, p.x, &p.w);
	assert_true(p.f.asked > asked);
	pair_close(&p);
}

static void late_by_its_own_measure(void **state)
{
	const struct here *h = *state;
	struct pair p;

	pair_open(h, &p, ANSWER, 0.9);
	for (int i = 0; i < 50; i++)
		run_right(h, p.x, &p.w);
	p.f.mood = HOLD;
	while (!p.f.hold)
		run_right(h, p.x, &p.w);
	assert_true(moe_experts_remote_stats(p.x).hedged >= 1);
	pair_close(&p);
}

static void refusals_are_no_failures(void **state)
{
	const struct here *h = *state;
	const enum mood moods[] = {BUSY, FAIL, STALE, NONSENSE};

	for (size_t i = 0; i < sizeof moods / sizeof *moods; i++) {
		struct pair p;

		pair_open(h, &p, moods[i], 0);
		run_right(h, p.x, &p.w);
		/* More than once where the other one is so slow that the refusal is tried again. */
		assert_true(moe_experts_remote_stats(p.x).retried >= 1);
		assert_true(p.f.asked >= 1);
		pair_close(&p);
	}
}

/* The only one that there is may be busy for a while. */
static void who_is_busy_is_asked_again(void **state)
{
	const struct here *h = *state;
	struct fake f = {.of = 1, .right = true, .busy = 3};
	struct moe_experts *x;
	struct work w;

	work_new(h, &w, 3, 22);
	fake_start(&f, h, ANSWER);
	x = client(h, 1);
	run_right(h, x, &w);
	assert_int_equal(f.asked, 4);
	f.busy = 1 << 30;
	w.b.deadline = moe_now_ns() + 200000000;
	assert_int_equal(run(x, &w.b, NULL), MOE_E_TIMEOUT);
	x->ops->close(x);
	fake_end(&f);
	work_free(&w);
}

/* Three failures, and it is left alone until a PING is answered. */
static void who_fails_is_left_alone(void **state)
{
	const struct here *h = *state;
	struct pair p;

	pair_open(h, &p, FAIL, 0);
	p.f.mute = true;
	for (int i = 0; i < 3; i++)
		run_right(h, p.x, &p.w);
	assert_true(says(p.x, "open"));
	assert_int_equal(p.f.asked, 3);
	for (int i = 0; i < 5; i++)
		run_right(h, p.x, &p.w);
	assert_int_equal(p.f.asked, 3);
	p.f.mood = ANSWER;
	p.f.mute = false;
	run_until(h, p.x, &p.w, "open", false);
	for (int i = 0; i < 30000 && p.f.asked == 3; i++)
		run_right(h, p.x, &p.w);
	assert_true(p.f.asked > 3);
	pair_close(&p);
}

/* It held nothing, and says now that it holds everything. */
static void what_a_server_says_unasked_counts(void **state)
{
	const struct here *h = *state;
	struct pair p = {.f = {.right = true}};

	work_new(h, &p.w, 3, 23);
	fake_start(&p.f, h, ANSWER);
	served_start(h, &p.s, 1, 1);
	p.x = client(h, 2);
	run_right(h, p.x, &p.w);
	assert_int_equal(p.f.asked, 0);
	p.f.of = 1;
	p.f.announce = true;
	for (int i = 0; i < 30000 && !p.f.asked; i++) {
		run_right(h, p.x, &p.w);
		usleep(1000);
	}
	assert_true(p.f.asked > 0);
	pair_close(&p);
}

/* ---- servers that come late, and lists that change ---- */

static void who_comes_late_is_used(void **state)
{
	const struct here *h = *state;
	struct served s[2];
	struct moe_experts *x;
	struct work w;

	work_new(h, &w, 3, 24);
	served_start(h, &s[0], 0, 1);
	x = client(h, 2);
	run_right(h, x, &w);
	served_start(h, &s[1], 1, 1);
	run_until(h, x, &w, "not connected", false);
	served_end(&s[0]);
	run_right(h, x, &w);
	assert_true(moe_server_stats(s[1].server).batches > 0);
	x->ops->close(x);
	served_end(&s[1]);
	work_free(&w);
}

static void write_hosts(const char *path, const struct here *h, int place)
{
	char tmp[80];
	FILE *f;

	snprintf(tmp, sizeof tmp, "%s.new", path);
	f = fopen(tmp, "w");
	assert_non_null(f);
	fprintf(f, "ipc://%s/%d\n", h->dir, place);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(rename(tmp, path), 0);
}

static void the_list_may_change(void **state)
{
	const struct here *h = *state;
	char path[64], second[64];
	struct moe_members_config mc = {.hosts = path, .timeout = 10, .every = 0.05};
	struct moe_remote_config c = client_config(h, NULL);
	struct served s[2];
	struct moe_experts *x;
	struct work w;

	work_new(h, &w, 3, 25);
	snprintf(path, sizeof path, "%s/hosts", h->dir);
	snprintf(second, sizeof second, "ipc://%s/1", h->dir);
	write_hosts(path, h, 0);
	assert_int_equal(moe_members_new(&mc, &c.members, NULL), 0);
	served_start(h, &s[0], 0, 1);
	served_start(h, &s[1], 1, 1);
	x = client_with(&c);
	run_right(h, x, &w);
	assert_false(says(x, second));
	/* The new one is there before the old one goes only if nobody waits for it: rows may fail in between. */
	write_hosts(path, h, 1);
	for (int i = 0; i < 30000 && !moe_server_stats(s[1].server).batches; i++) {
		run(x, &w.b, NULL);
		usleep(1000);
	}
	run_right(h, x, &w);
	assert_true(says(x, second));
	x->ops->close(x);
	moe_members_free(c.members);
	unlink(path);
	served_end(&s[0]);
	served_end(&s[1]);
	work_free(&w);
}

/* ---- the only one that there is, away for a moment ---- */

struct late {
	const struct here *h;
	struct served s;
};

static void *start_late(void *arg)
{
	struct late *l = arg;

	usleep(200000);
	served_start(l->h, &l->s, 0, 1);
	return NULL;
}

static void the_only_server_is_waited_for_while_it_restarts(void **state)
{
	struct late l = {.h = *state};
	struct moe_experts *x;
	pthread_t t;
	struct work w;

	work_new(l.h, &w, 3, 31);
	served_start(l.h, &l.s, 0, 1);
	x = client(l.h, 1);
	for (int i = 0; i < 2; i++) {
		run_right(l.h, x, &w);
		served_end(&l.s);
		assert_int_equal(pthread_create(&t, NULL, start_late, &l), 0);
		run_right(l.h, x, &w);
		pthread_join(t, NULL);
	}
	x->ops->close(x);
	served_end(&l.s);
	work_free(&w);
}

/* It would be left alone for seconds, were there another. */
static void the_last_resort_is_asked_how_it_is(void **state)
{
	const struct here *h = *state;
	struct fake f = {.of = 1, .right = true};
	struct moe_experts *x;
	struct work w;

	work_new(h, &w, 3, 32);
	fake_start(&f, h, FAIL);
	x = client(h, 1);
	for (int i = 0; i < 8; i++)
		assert_int_equal(run(x, &w.b, NULL), MOE_E_IO);
	f.mood = ANSWER;
	run_right(h, x, &w);
	x->ops->close(x);
	fake_end(&f);
	work_free(&w);
}

/* However often its connections have ended: the one that there is now has not. */
static void who_is_connected_is_greeted(void **state)
{
	const struct here *h = *state;
	struct fake f = {.of = 1, .right = true};
	struct moe_experts *x;
	struct work w;

	work_new(h, &w, 3, 33);
	fake_start(&f, h, ANSWER);
	x = client(h, 1);
	for (int i = 0; i < 8; i++) {
		fake_end(&f);
		f = (struct fake){.of = 1, .right = true};
		fake_start(&f, h, ANSWER);
		for (int n = 0; n < 30000 && !f.hellos; n++)
			usleep(1000);
		assert_true(f.hellos > 0);
	}
	fake_end(&f);
	f = (struct fake){.of = 1, .right = true};
	fake_start(&f, h, ANSWER);
	run_right(h, x, &w);
	x->ops->close(x);
	fake_end(&f);
	work_free(&w);
}

/* ---- another epoch ---- */

static void followed(void *ctx, uint64_t epoch, enum moe_hold_event what, const char *words)
{
	(void)words;
	if (what == MOE_HOLD_TAKEN)
		*(_Atomic uint64_t *)ctx = epoch;
}

static void clients_follow_to_the_next_epoch(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	_Atomic uint64_t taken[2] = {0, 0};
	struct served s[2], next[2];
	struct moe_hold offer[2];
	struct moe_experts *x;
	struct work w;

	work_new(h, &w, MAX_ROWS, 26);
	for (int i = 0; i < 2; i++) {
		served_make(h, &s[i], i, 2, &id);
		s[i].server->c.event = followed;
		s[i].server->c.ctx = &taken[i];
		s[i].server->c.offer_timeout = 60;
		served_run(&s[i]);
		/* The other half: they change places. */
		served_make(h, &next[i], 2 + i, 1, &id);
		hold(h, next[i].has, 1 - i, 2);
	}
	x = client(h, 2);
	run_right(h, x, &w);
	assert_true(moe_experts_remote_stats(x).epoch == 1);
	for (int i = 0; i < 2; i++) {
		offer[i] = (struct moe_hold){.epoch = 2, .has = next[i].has, .experts = next[i].local};
		assert_int_equal(moe_server_offer(s[i].server, &offer[i], NULL), 0);
		for (int n = 0; n < 20; n++)
			run_right(h, x, &w);
		/* Half of it alone is not enough. */
		assert_true(i || moe_experts_remote_stats(x).epoch == 1);
	}
	for (int i = 0; i < 30000 && !(taken[0] == 2 && taken[1] == 2); i++)
		run_right(h, x, &w);
	assert_true(taken[0] == 2 && taken[1] == 2);
	assert_true(moe_experts_remote_stats(x).epoch == 2);
	run_right(h, x, &w);
	x->ops->close(x);
	for (int i = 0; i < 2; i++) {
		served_end(&s[i]);
		served_end(&next[i]);
	}
	work_free(&w);
}

/* It asks for nothing while the server offers the next epoch and lets go of the one before, nor while the server is replaced. */
static void an_idle_client_follows(void **state)
{
	const struct here *h = *state;
	struct moe_identity id = identity();
	_Atomic uint64_t taken = 0;
	struct served s, next;
	struct moe_hold offer;
	struct moe_experts *x;
	struct work w;

	work_new(h, &w, 3, 34);
	served_make(h, &s, 0, 1, &id);
	s.server->c.event = followed;
	s.server->c.ctx = &taken;
	s.server->c.offer_timeout = 60;
	served_run(&s);
	served_make(h, &next, 1, 1, &id);
	x = client(h, 1);
	run_right(h, x, &w);
	offer = (struct moe_hold){.epoch = 2, .has = next.has, .experts = next.local};
	assert_int_equal(moe_server_offer(s.server, &offer, NULL), 0);
	for (int i = 0; i < 60000 && taken != 2; i++)
		usleep(1000);
	assert_true(taken == 2);
	run_right(h, x, &w);
	assert_true(moe_experts_remote_stats(x).epoch == 2);
	served_end(&s);
	served_end(&next);
	id.epoch = 3;
	served_make(h, &s, 0, 1, &id);
	served_run(&s);
	run_right(h, x, &w);
	assert_true(moe_experts_remote_stats(x).epoch == 3);
	x->ops->close(x);
	served_end(&s);
	work_free(&w);
}

/* What it holds of the epoch that was asked for is nothing: it is asked what it holds, and then for that. */
static void who_speaks_of_another_run_is_greeted_and_asked(void **state)
{
	const struct here *h = *state;
	struct fake f = {.of = 1, .right = true, .stale = 1};
	struct moe_experts *x;
	struct work w;

	work_new(h, &w, 3, 35);
	fake_start(&f, h, ANSWER);
	x = client(h, 1);
	run_right(h, x, &w);
	assert_int_equal(f.hellos, 2);
	/* It took this client for gone, so it did not say that it went on to another epoch; a PONG does. */
	f.epoch = 2;
	for (int i = 0; i < 60000 && f.hellos < 3; i++)
		usleep(1000);
	/* The WELCOME is on its way. */
	for (int i = 0; i < 6000 && moe_experts_remote_stats(x).epoch != 2; i++) {
		usleep(1000);
		run_right(h, x, &w);
	}
	assert_true(moe_experts_remote_stats(x).epoch == 2);
	x->ops->close(x);
	fake_end(&f);
	work_free(&w);
}

/* ---- when nobody is left ---- */

static void what_nobody_has_is_left_out_if_it_may_be(void **state)
{
	const struct here *h = *state;
	struct moe_endpoints to = endpoints(h, 2);
	struct moe_remote_config c = client_config(h, &to);
	uint8_t degraded[MAX_ROWS] = {0};
	struct served s[2];
	struct moe_experts *x;
	struct work w;

	work_new(h, &w, MAX_ROWS, 27);
	served_start(h, &s[0], 0, 2);
	served_start(h, &s[1], 1, 2);
	c.degrade = true;
	x = client_with(&c);
	served_end(&s[1]);
	/* Only if the batch can be told. */
	assert_int_equal(run(x, &w.b, NULL), MOE_E_PEER);
	w.b.degraded = degraded;
	assert_int_equal(run(x, &w.b, NULL), 0);
	for (int r = 0; r < MAX_ROWS; r++) {
		assert_int_equal(w.failed[r], 0);
		assert_int_equal(degraded[r], needs(h, &w, r, 1, 2));
		assert_true(degraded[r] || row_is_right(h, &w, r));
	}
	assert_true(moe_experts_remote_stats(x).degraded > 0);
	x->ops->close(x);
	moe_endpoints_free(&to);
	served_end(&s[0]);
	work_free(&w);
}

static void one_that_stands_by_takes_over(void **state)
{
	const struct here *h = *state;
	struct fake f = {.right = true, .spare = true, .place = 2};
	struct served s[2];
	struct moe_experts *x;
	struct work w;
	uint32_t missing;

	work_new(h, &w, MAX_ROWS, 28);
	served_start(h, &s[0], 0, 2);
	served_start(h, &s[1], 1, 2);
	fake_start(&f, h, ANSWER);
	x = client(h, 3);
	run_right(h, x, &w);
	assert_int_equal(f.asked, 0);
	missing = wire_count_held(&h->c->model, s[1].has);
	served_end(&s[1]);
	run_right(h, x, &w);
	assert_int_equal(f.taken, missing);
	assert_true(f.asked > 0);
	x->ops->close(x);
	served_end(&s[0]);
	fake_end(&f);
	work_free(&w);
}

/* ---- telling ---- */

struct heard {
	int answered, lost, again;
	int rank;
};

static void hear(void *ctx, const struct moe_ask *a)
{
	struct heard *t = ctx;

	t->answered += a->outcome == MOE_ASK_ANSWERED;
	t->lost += a->outcome == MOE_ASK_REFUSED;
	t->again += a->again;
	t->rank = a->rank;
	assert_true(a->answered_ns >= a->sent_ns && a->pairs > 0 && a->trace == 77);
}

static void what_happens_is_told(void **state)
{
	const struct here *h = *state;
	struct moe_endpoints to = endpoints(h, 2);
	struct moe_remote_config c = client_config(h, &to);
	struct moe_buf text = MOE_BUF_INIT;
	struct fake f = {.of = 1, .busy = 1};
	struct heard told = {0};
	struct served s;
	struct moe_experts *x;
	struct work w;

	work_new(h, &w, 3, 29);
	fake_start(&f, h, ANSWER);
	served_start(h, &s, 1, 1);
	c.watch = moe_watch_new(NULL, NULL);
	c.on_ask = hear;
	c.ctx_ask = &told;
	x = client_with(&c);
	w.b.trace = 77;
	run_right(h, x, &w);
	assert_true(told.answered == 1 && told.lost == 1 && told.again == 1 && told.rank == 1);
	x->ops->close(x);
	assert_int_equal(moe_watch_text(c.watch, &text, NULL), 0);
	assert_non_null(strstr(text.data, "moe_expert_retries_total{rank=\"0\",reason=\"busy\"} 1"));
	assert_non_null(strstr(text.data, "moe_expert_rpc_seconds_count{rank=\"1\"} 1"));
	assert_non_null(strstr(text.data, "moe_fleet_epoch"));
	moe_buf_free(&text);
	moe_watch_free(c.watch);
	moe_endpoints_free(&to);
	fake_end(&f);
	served_end(&s);
	work_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_server_that_dies_in_the_middle_costs_nothing),
		cmocka_unit_test(silence_is_suspect_and_others_are_asked),
		cmocka_unit_test(late_by_its_own_measure),
		cmocka_unit_test(refusals_are_no_failures),
		cmocka_unit_test(who_is_busy_is_asked_again),
		cmocka_unit_test(who_fails_is_left_alone),
		cmocka_unit_test(what_a_server_says_unasked_counts),
		cmocka_unit_test(who_comes_late_is_used),
		cmocka_unit_test(the_list_may_change),
		cmocka_unit_test(the_only_server_is_waited_for_while_it_restarts),
		cmocka_unit_test(the_last_resort_is_asked_how_it_is),
		cmocka_unit_test(who_is_connected_is_greeted),
		cmocka_unit_test(clients_follow_to_the_next_epoch),
		cmocka_unit_test(an_idle_client_follows),
		cmocka_unit_test(who_speaks_of_another_run_is_greeted_and_asked),
		cmocka_unit_test(what_nobody_has_is_left_out_if_it_may_be),
		cmocka_unit_test(one_that_stands_by_takes_over),
		cmocka_unit_test(what_happens_is_told),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_group, close_group);
}
