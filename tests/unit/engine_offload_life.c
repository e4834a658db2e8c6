/* A request's life in an engine with offload, where steps are graphs: cancelled, late, stopped and failing in the middle of one; how long
 * graphs are; what is refused. */
#include <stdatomic.h>
#include <time.h>

#include "engine_offload_rig.h"

#define SPEC "tiny-mixtral,seed=1"

/* An engine on a device with memory enough, and what happens when events come. */
struct small {
	struct rig *r;
	struct moe_engine_config c;
	struct moe_offload o;
	uint64_t watch, other;       /* at the at'th event of `watch` ... */
	int at;
	bool cancel, pause;          /* ... `other` is cancelled; time passes */
	int seen;                    /* events of `watch` when `other` was done */
};

static int small_event(void *ctx, const struct moe_event *ev)
{
	struct small *s = ctx;
	const struct record *watched = &s->r->rec[s->watch ? s->watch - 1 : 0];
	int rc = rig_event(s->r, ev);

	if (ev->kind == MOE_EV_DONE && ev->id == s->other)
		s->seen = watched->n;
	if (ev->kind == MOE_EV_DONE || ev->id != s->watch || watched->n != s->at)
		return rc;
	if (s->cancel)
		moe_engine_cancel(s->r->g, s->other);
	if (s->pause)
		nanosleep(&(struct timespec){0, 40000000}, NULL);
	return rc;
}

static void small_setup(struct small *s, enum moe_schedule schedule, int sequences, int micro_batches)
{
	struct moe_device_config d = {.device = "cpu", .threads = 1, .numerics = MOE_NUMERICS_INIT};
	struct moe_err e;

	*s = (struct small){.r = rig_model(SPEC, 1)};
	s->o = (struct moe_offload){.schedule = schedule, .weights = 0.5, .micro_batches = micro_batches, .micro_batch = sequences};
	s->c = rig_config(sequences, 256, 32);
	s->c.offload = &s->o;
	s->c.on_event = small_event;
	must(moe_device_open(&d, &s->o.device, &e), &e);
}

static void small_open(struct small *s)
{
	struct rig *r = s->r;
	struct moe_err e;

	s->c.ctx_event = s;
	must(moe_engine_new(&r->c->model, r->c->tensors, r->b, NULL, &s->c, &r->g, &e), &e);
}

/* The device has everything back. */
static void small_close(struct small *s)
{
	struct moe_device_memory used;

	moe_engine_free(s->r->g);
	s->r->g = NULL;
	s->o.device->ops->memory(s->o.device, &used);
	assert_int_equal(used.used, 0);
	s->o.device->ops->close(s->o.device);
	rig_close(s->r);
}

static const enum moe_schedule schedules[] = {MOE_SCHEDULE_CGOPIPE, MOE_SCHEDULE_COALESCED, MOE_SCHEDULE_FLEXGEN, MOE_SCHEDULE_FLEXGEN_C,
                                              MOE_SCHEDULE_ZERO, MOE_SCHEDULE_RESIDENT};
#define N_SCHEDULES (sizeof schedules / sizeof *schedules)

/* ---- in the middle of a graph ---- */

static void cancelled_within_a_step(void **state)
{
	struct small s;

	(void)state;
	for (size_t i = 0; i < N_SCHEDULES; i++) {
		small_setup(&s, schedules[i], 3, 3);
		small_open(&s);
		s.watch = submit(s.r, request(4, 30), 1);
		s.other = submit(s.r, request(6, 30), 2);
		s.at = 5;
		s.cancel = true;
		run_all(s.r);
		assert_int_equal(record_of(s.r, s.other)->finish, MOE_FINISH_CANCELLED);
		assert_in_range(record_of(s.r, s.other)->n, 4, 6);
		assert_in_range(s.seen, 5, 7); /* it was told at once */
		assert_int_equal(record_of(s.r, s.watch)->n, 30);
		assert_int_equal(moe_engine_stats(s.r->g).graphs, 1);
		small_close(&s);
	}
}

/* One that runs and one that waits for a place. */
static void late_within_a_step(void **state)
{
	struct moe_request q = request(6, 100);
	struct small s;

	(void)state;
	small_setup(&s, MOE_SCHEDULE_CGOPIPE, 2, 2);
	s.o.steps = 200;
	small_open(&s);
	s.watch = submit(s.r, request(4, 100), 1);
	q.timeout = 0.03;
	s.other = submit(s.r, q, 2);
	submit(s.r, q, 3);
	s.at = 5;
	s.pause = true;
	run_all(s.r);
	for (uint64_t id = 2; id <= 3; id++) {
		assert_int_equal(record_of(s.r, id)->finish, MOE_FINISH_ERROR);
		assert_int_equal(record_of(s.r, id)->err.code, MOE_E_TIMEOUT);
	}
	assert_true(record_of(s.r, 2)->n <= 6);
	assert_true(s.seen <= 7);
	assert_int_equal(record_of(s.r, 3)->n, 0);
	assert_int_equal(s.r->done_order[2], 1); /* the graph's end is not waited for */
	assert_int_equal(record_of(s.r, 1)->n, 100);
	small_close(&s);
}

/* Those of which all tasks were run. */
static void count_graph(void *ctx, const struct moe_graph *g, const struct moe_span *spans)
{
	bool all = true;

	for (uint32_t i = 0; i < g->n; i++)
		all = all && spans[i].end != MOE_SPAN_NONE;
	*(int *)ctx += all;
}

/* Nobody is left at the third step: the other 29 are not run, so the graph is not run to its end. */
static void stops_when_all_have_ended(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SCHEDULES; i++) {
		struct small s;
		int to_the_end = 0;

		small_setup(&s, schedules[i], 2, 2);
		s.o.on_graph = count_graph;
		s.o.ctx_graph = &to_the_end;
		small_open(&s);
		s.r->stop_id = submit(s.r, request(4, 60), 1);
		s.r->stop_at = 3;
		run_all(s.r);
		assert_int_equal(record_of(s.r, 1)->n, 3);
		assert_int_equal(record_of(s.r, 1)->finish, MOE_FINISH_STOP);
		assert_int_equal(moe_engine_stats(s.r->g).steps, 3);
		assert_int_equal(moe_engine_stats(s.r->g).graphs, 1);
		assert_int_equal(to_the_end, 0);
		submit(s.r, request(4, 5), 1); /* and the engine goes on */
		run_all(s.r);
		assert_memory_equal(record_of(s.r, 2)->logits, record_of(s.r, 1)->logits, 3 * sizeof(uint64_t));
		assert_int_equal(record_of(s.r, 2)->n, 5);
		assert_int_equal(to_the_end, 1);
		small_close(&s);
	}
}

/* What it had said is found by who begins alike: whole blocks, and of a graph that was stopped those before its last step. */
static void what_was_stopped_is_shared(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SCHEDULES; i++) {
		struct moe_request q = request(150, 60);
		struct small s;

		small_setup(&s, schedules[i], 2, 2);
		small_open(&s);
		s.r->stop_id = submit(s.r, q, 1);
		s.r->stop_at = 3;
		run_all(s.r);
		submit(s.r, q, 1);
		run_all(s.r);
		assert_int_equal(record_of(s.r, 2)->cached_tokens, 128);
		assert_memory_equal(record_of(s.r, 2)->logits, record_of(s.r, 1)->logits, 3 * sizeof(uint64_t));
		small_close(&s);
	}
}

/* ---- how long graphs are ---- */

static void as_long_as_the_last(void **state)
{
	struct small s;

	(void)state;
	small_setup(&s, MOE_SCHEDULE_CGOPIPE, 2, 2);
	small_open(&s);
	submit(s.r, request(4, 6), 1);
	submit(s.r, request(4, 20), 2);
	assert_false(step(s.r));
	assert_int_equal(moe_engine_stats(s.r->g).graphs, 1);
	assert_int_equal(moe_engine_stats(s.r->g).steps, 20);
	assert_int_equal(moe_engine_stats(s.r->g).rows, 8 + 6 + 20 - 2);
	small_close(&s);
}

/* Until the first place is free when somebody waits for one; and never longer than `steps`. */
static void until_a_place_is_free(void **state)
{
	struct small s;

	(void)state;
	small_setup(&s, MOE_SCHEDULE_CGOPIPE, 2, 2);
	s.o.steps = 9;
	small_open(&s);
	submit(s.r, request(4, 6), 1);
	submit(s.r, request(4, 20), 2);
	submit(s.r, request(4, 3), 3);
	step(s.r);
	assert_int_equal(moe_engine_stats(s.r->g).steps, 6);
	assert_int_equal(moe_engine_stats(s.r->g).running, 1);
	step(s.r); /* 14 to go for the second, 3 for the third, and nobody waits */
	assert_int_equal(moe_engine_stats(s.r->g).steps, 6 + 9);
	assert_int_equal(moe_engine_stats(s.r->g).admitted_while_decoding, 1);
	run_all(s.r);
	assert_int_equal(moe_engine_stats(s.r->g).steps, 20);
	small_close(&s);
}

/* Long prompts are read in chunks, which the micro-batches that read share: 10 rows a step of each of two prompts of 41. */
static void chunks_are_shared(void **state)
{
	struct small s;

	(void)state;
	small_setup(&s, MOE_SCHEDULE_CGOPIPE, 2, 2);
	s.c.chunk = 20;
	small_open(&s);
	submit(s.r, request(41, 2), 1);
	submit(s.r, request(41, 2), 2);
	assert_false(step(s.r));
	assert_int_equal(moe_engine_stats(s.r->g).steps, 6); /* five to read, of which the last says something */
	small_close(&s);
}

static void prompts_have_graphs(void **state)
{
	struct small s;

	(void)state;
	small_setup(&s, MOE_SCHEDULE_FLEXGEN, 4, 1);
	s.o.prefill_rows = 64;
	small_open(&s);
	for (int i = 0; i < 4; i++)
		submit(s.r, request(30, 4), (uint64_t)i);
	step(s.r);
	step(s.r);
	assert_int_equal(moe_engine_stats(s.r->g).prefill_graphs, 2); /* two prompts of 30 in each */
	assert_int_equal(moe_engine_stats(s.r->g).generated, 4);
	run_all(s.r);
	assert_int_equal(moe_engine_stats(s.r->g).prefill_graphs, 2);
	assert_int_equal(moe_engine_stats(s.r->g).graphs, 3);
	small_close(&s);
}

/* One short prompt more while three generate: it is read along with them. */
static void few_prompts_go_along(void **state)
{
	struct small s;

	(void)state;
	small_setup(&s, MOE_SCHEDULE_FLEXGEN, 4, 1);
	s.o.prefill_rows = 64;
	s.o.steps = 4;
	small_open(&s);
	for (int i = 0; i < 3; i++)
		submit(s.r, request(20, 30), (uint64_t)i);
	step(s.r);
	assert_int_equal(moe_engine_stats(s.r->g).prefill_graphs, 1);
	submit(s.r, request(20, 4), 4);
	step(s.r);
	assert_int_equal(moe_engine_stats(s.r->g).prefill_graphs, 1);
	assert_int_equal(record_of(s.r, 4)->n, 4);
	run_all(s.r);
	small_close(&s);
}

/* ---- a device that fails ---- */

static struct {
	struct moe_backend_ops ops;
	const struct moe_backend_ops *good;
	atomic_int calls;
	int fail_at;
} faulty;

static int count_call(struct moe_err *e)
{
	int n = atomic_fetch_add(&faulty.calls, 1) + 1;

	return n == faulty.fail_at ? moe_fail(e, MOE_E_IO, "call %d: the device has fallen off the bus", n) : 0;
}

static int faulty_matmul(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows, const struct moe_matrix *w,
                         const float *bias, struct moe_err *e)
{
	int rc = count_call(e);

	return rc ? rc : faulty.good->matmul(b, q, y, x, rows, w, bias, e);
}

static int faulty_copy_in(struct moe_backend *b, struct moe_stream_q *q, void *mem, const void *host, size_t bytes, struct moe_err *e)
{
	int rc = count_call(e);

	return rc ? rc : faulty.good->copy_in(b, q, mem, host, bytes, e);
}

static int faulty_copy_out(struct moe_backend *b, struct moe_stream_q *q, void *host, const void *mem, size_t bytes, struct moe_err *e)
{
	int rc = count_call(e);

	return rc ? rc : faulty.good->copy_out(b, q, host, mem, bytes, e);
}

static int faulty_record(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *m, struct moe_err *e)
{
	int rc = count_call(e);

	return rc ? rc : faulty.good->event_record(b, q, m, e);
}

static void make_faulty(struct moe_backend *b)
{
	faulty.good = b->ops;
	faulty.ops = *b->ops;
	faulty.ops.matmul = faulty_matmul;
	faulty.ops.copy_in = faulty_copy_in;
	faulty.ops.copy_out = faulty_copy_out;
	faulty.ops.event_record = faulty_record;
	b->ops = &faulty.ops;
}

static void submit_four(struct small *s)
{
	for (int i = 0; i < 4; i++)
		submit(s->r, request(5 + 9 * i, 5), (uint64_t)i);
}

/* Run until a call fails, if one does.  Those that ran have ended with that error, who waited has its answer in the end. */
static bool run_and_fail(struct small *s)
{
	struct moe_err e = MOE_ERR_INIT;
	bool busy = true, failed = false;

	while (busy) {
		int rc = moe_engine_step(s->r->g, &busy, &e);

		failed |= rc != 0;
		if (rc != 0)
			assert_int_equal(rc, MOE_E_IO);
	}
	for (uint64_t id = 1; id <= 4 && failed; id++) {
		const struct record *r = record_of(s->r, id);

		assert_true(r->done);
		assert_true(r->finish == MOE_FINISH_LENGTH || r->finish == MOE_FINISH_ERROR);
		if (r->finish == MOE_FINISH_ERROR)
			assert_non_null(strstr(r->err.msg, "fallen off the bus"));
	}
	return failed;
}

/* At this call and that, all through opening and running.  Afterwards the device does as it should again, and so does the engine. */
static void the_device_fails(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SCHEDULES; i++) {
		int failures = 0;

		for (int at = 1;; at += 1 + at / 3) {
			struct small s;
			struct moe_err e = MOE_ERR_INIT;
			bool failed = false;
			int rc;

			small_setup(&s, schedules[i], 3, 2);
			s.o.prefill_rows = 40;
			s.c.ctx_event = &s;
			make_faulty(s.o.device);
			faulty.calls = 0;
			faulty.fail_at = at;
			rc = moe_engine_new(&s.r->c->model, s.r->c->tensors, s.r->b, NULL, &s.c, &s.r->g, &e);
			if (rc != 0) {
				assert_int_equal(rc, MOE_E_IO);
				assert_null(s.r->g);
			} else {
				submit_four(&s);
				failed = run_and_fail(&s);
				faulty.fail_at = 0;
				assert_int_equal(moe_engine_stats(s.r->g).kv_blocks_used, 0);
				submit(s.r, request(5, 5), 0);
				run_all(s.r);
				assert_int_equal(record_of(s.r, 5)->finish, MOE_FINISH_LENGTH);
				if (record_of(s.r, 1)->finish == MOE_FINISH_LENGTH)
					assert_same_answer(record_of(s.r, 1), record_of(s.r, 5));
			}
			small_close(&s);
			failures += failed;
			if (rc == 0 && !failed)
				break;
		}
		assert_in_range(failures, 5, 60);
	}
}

/* ---- routes ---- */

struct routes {
	uint64_t sum, n;             /* of hashes, whatever the order */
};

static void add_route(void *ctx, const struct moe_routing *r)
{
	struct routes *all = ctx;
	uint64_t head[4] = {r->id, (uint64_t)r->position, (uint64_t)r->layer, r->prefill};

	all->sum += XXH3_64bits(head, sizeof head) ^ XXH3_64bits(r->ids, (size_t)r->k * sizeof *r->ids) ^
	            XXH3_64bits(r->weights, (size_t)r->k * sizeof *r->weights);
	all->n++;
}

static struct routes routes_of(struct rig *r)
{
	struct routes all = {0, 0};

	moe_engine_on_route(r->g, add_route, &all);
	for (int i = 0; i < 4; i++)
		submit(r, request(5 + 9 * i, 5), (uint64_t)i);
	run_all(r);
	return all;
}

static void the_same_routes(void **state)
{
	struct rig *plain = rig_open(SPEC, rig_config(3, 256, 32));
	const struct routes expected = routes_of(plain);

	(void)state;
	for (size_t i = 0; i < N_SCHEDULES; i++) {
		struct small s;
		struct routes all;

		small_setup(&s, schedules[i], 3, 2);
		s.o.prefill_rows = 40;
		small_open(&s);
		all = routes_of(s.r);
		assert_int_equal(all.n, expected.n);
		assert_int_equal(all.sum, expected.sum);
		small_close(&s);
	}
	rig_close(plain);
}

/* ---- refused ---- */

/* A byte less than was planned, and a KV cache that the device does not hold alone. */
static void too_small_a_device(void **state)
{
	struct moe_device_config d = {.device = "cpu", .threads = 1, .numerics = MOE_NUMERICS_INIT};
	struct moe_engine_memory plan;
	struct moe_backend *roomy;
	struct small s;
	struct moe_err e;

	(void)state;
	small_setup(&s, MOE_SCHEDULE_ZERO, 3, 2);
	s.o.kv_on_device = true;
	must(moe_engine_plan(&s.r->c->model, s.r->c->tensors, &s.c, &plan, &e), &e);
	assert_true(plan.device_kv > 0 && plan.kv == 0);
	assert_true(plan.device > plan.device_kv + plan.device_weights + plan.device_slots);
	roomy = s.o.device;
	d.memory = plan.device - 1;
	must(moe_device_open(&d, &s.o.device, &e), &e);
	assert_int_equal(moe_engine_new(&s.r->c->model, s.r->c->tensors, s.r->b, NULL, &s.c, &s.r->g, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "would fit"));
	s.o.device->ops->close(s.o.device);
	d.memory = plan.device_kv - 1;
	must(moe_device_open(&d, &s.o.device, &e), &e);
	assert_int_equal(moe_engine_new(&s.r->c->model, s.r->c->tensors, s.r->b, NULL, &s.c, &s.r->g, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "left on the device"));
	assert_non_null(strstr(e.msg, "--ctx"));
	s.o.device->ops->close(s.o.device);
	s.o.device = roomy;
	small_close(&s);
}

static void numbers_that_cannot_be(void **state)
{
	struct small s;
	struct moe_engine_memory plan;

	(void)state;
	small_setup(&s, MOE_SCHEDULE_CGOPIPE, 3, 2);
	s.o.micro_batches = 0;
	assert_int_equal(moe_engine_plan(&s.r->c->model, s.r->c->tensors, &s.c, &plan, NULL), MOE_E_RANGE);
	s.o.micro_batches = 2;
	s.o.micro_batch = 1; /* two places for three sequences */
	assert_int_equal(moe_engine_plan(&s.r->c->model, s.r->c->tensors, &s.c, &plan, NULL), MOE_E_RANGE);
	s.o.micro_batch = 2;
	s.o.weights = 1.5;
	assert_int_equal(moe_engine_plan(&s.r->c->model, s.r->c->tensors, &s.c, &plan, NULL), MOE_E_RANGE);
	s.o.weights = 0.0;
	s.o.steps = -1;
	assert_int_equal(moe_engine_plan(&s.r->c->model, s.r->c->tensors, &s.c, &plan, NULL), MOE_E_RANGE);
	s.o.steps = 0;
	assert_int_equal(moe_engine_plan(&s.r->c->model, s.r->c->tensors, &s.c, &plan, NULL), 0);
	small_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cancelled_within_a_step),
		cmocka_unit_test(late_within_a_step),
		cmocka_unit_test(stops_when_all_have_ended),
		cmocka_unit_test(what_was_stopped_is_shared),
		cmocka_unit_test(as_long_as_the_last),
		cmocka_unit_test(until_a_place_is_free),
		cmocka_unit_test(chunks_are_shared),
		cmocka_unit_test(prompts_have_graphs),
		cmocka_unit_test(few_prompts_go_along),
		cmocka_unit_test(the_device_fails),
		cmocka_unit_test(the_same_routes),
		cmocka_unit_test(too_small_a_device),
		cmocka_unit_test(numbers_that_cannot_be),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine offload life", tests, NULL, NULL);
}
