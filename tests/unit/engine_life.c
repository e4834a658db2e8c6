/* A request's life: refused, waiting, admitted, ended. */
#include <time.h>

#include "engine_rig.h"

#define SPEC "tiny-mixtral,seed=1"

static struct rig *open_small(int sequences, int ctx, int chunk)
{
	return rig_open(SPEC, rig_config(sequences, ctx, chunk));
}

/* An engine whose KV memory holds `blocks` blocks. */
static struct rig *open_blocks(int sequences, int ctx, int blocks)
{
	struct moe_engine_config c = rig_config(1, MOE_KV_BLOCK, 64);
	struct moe_engine_memory one;
	struct rig *r = rig_model(SPEC, 1);

	assert_int_equal(moe_engine_plan(&r->c->model, NULL, &c, &one, NULL), 0);
	c.max_sequences = sequences;
	c.ctx = ctx;
	c.kv_memory = one.kv * (size_t)blocks;
	rig_engine(r, c, NULL);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks, blocks);
	return r;
}

static int try_submit(struct rig *r, struct moe_request q, struct moe_err *e)
{
	int32_t *t = some_tokens(r, q.n_tokens > 0 ? q.n_tokens : 1, 1);
	int rc;

	q.tokens = t;
	rc = moe_engine_submit(r->g, &q, NULL, e);
	free(t);
	return rc;
}

/* ---- refused ---- */

static void refused_lengths(void **state)
{
	struct rig *r = open_small(2, 100, 16);
	struct moe_request q = request(0, 1);
	struct moe_err e;

	(void)state;
	assert_int_equal(try_submit(r, q, &e), MOE_E_RANGE);
	assert_int_equal(try_submit(r, request(101, 1), &e), MOE_E_RANGE);
	assert_int_equal(try_submit(r, request(90, 11), &e), MOE_E_RANGE);
	assert_non_null(strstr(e.msg, "90"));
	assert_non_null(strstr(e.msg, "100"));
	assert_int_equal(try_submit(r, request(100, 0), &e), MOE_E_RANGE); /* nothing left to generate in */
	assert_int_equal(try_submit(r, request(5, -1), &e), MOE_E_RANGE);
	assert_int_equal(try_submit(r, request(5, 2147483647), &e), MOE_E_RANGE);
	q = request(100, 0);
	q.score = true;
	assert_int_equal(try_submit(r, q, &e), 0);
	assert_int_equal(try_submit(r, request(90, 10), &e), 0);
	assert_int_equal(moe_engine_stats(r->g).waiting, 2);
	rig_close(r);
}

static void refused_tokens(void **state)
{
	struct rig *r = open_small(2, 100, 16);
	int32_t t[3] = {0, r->c->model.vocab, 1};
	struct moe_request q = request(3, 1);
	struct moe_err e;

	(void)state;
	q.tokens = t;
	assert_int_equal(moe_engine_submit(r->g, &q, NULL, &e), MOE_E_RANGE);
	t[1] = -1;
	assert_int_equal(moe_engine_submit(r->g, &q, NULL, &e), MOE_E_RANGE);
	rig_close(r);
}

static void refused_sampling(void **state)
{
	const struct moe_sampling bad[] = {{-1.0f, 0, 1.0f, 0.0f, 0}, {__builtin_nanf(""), 0, 1.0f, 0.0f, 0},
	                                   {1.0f, -1, 1.0f, 0.0f, 0}, {1.0f, 0, 1.5f, 0.0f, 0},
	                                   {1.0f, 0, 1.0f, -0.5f, 0}, {__builtin_inff(), 0, 1.0f, 0.0f, 0}};
	struct rig *r = open_small(2, 100, 16);
	struct moe_request q = request(3, 1);
	struct moe_err e;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		q.sampling = bad[i];
		assert_int_equal(try_submit(r, q, &e), MOE_E_RANGE);
	}
	q = request(3, 1);
	q.timeout = -1.0;
	assert_int_equal(try_submit(r, q, &e), MOE_E_RANGE);
	rig_close(r);
}

static void refused_kv_memory(void **state)
{
	struct rig *r = open_blocks(2, 256, 2);
	struct moe_err e;

	(void)state;
	assert_int_equal(try_submit(r, request(100, 29), &e), MOE_E_RANGE);
	assert_non_null(strstr(e.msg, "128"));
	assert_int_equal(try_submit(r, request(100, 28), &e), 0);
	rig_close(r);
}

/* ---- waiting and admission ---- */

static void step_without_work(void **state)
{
	struct rig *r = open_small(2, 100, 16);

	(void)state;
	assert_false(step(r));
	assert_int_equal(moe_engine_stats(r->g).steps, 0);
	rig_close(r);
}

static void memory_queues(void **state)
{
	struct rig *r = open_blocks(4, 128, 3);

	(void)state;
	for (int i = 0; i < 5; i++)
		submit(r, request(60, 10), (uint64_t)i); /* two blocks each */
	step(r);
	assert_int_equal(moe_engine_stats(r->g).running, 1);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_used, 2);
	run_all(r);
	assert_int_equal(r->n_done, 5);
	assert_int_equal(moe_engine_stats(r->g).most_running, 1);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_used, 0);
	for (uint64_t id = 1; id <= 5; id++)
		assert_int_equal(record_of(r, id)->finish, MOE_FINISH_LENGTH);
	rig_close(r);
}

/* The large one at the head is not overtaken, though the small ones behind it would fit. */
static void no_overtaking(void **state)
{
	struct rig *r = open_blocks(4, 192, 3);

	(void)state;
	submit(r, request(10, 30), 1);   /* one block */
	submit(r, request(100, 60), 2);  /* three */
	submit(r, request(5, 2), 3);
	step(r);
	assert_int_equal(moe_engine_stats(r->g).running, 1);
	run_all(r);
	assert_int_equal(r->done_order[0], 1);
	assert_int_equal(r->done_order[1], 2);
	assert_int_equal(r->done_order[2], 3);
	rig_close(r);
}

static void priority_first(void **state)
{
	const int priority[] = {0, 5, -1, 5, 7, 0};
	const uint64_t order[] = {5, 2, 4, 1, 6, 3};
	struct rig *r = open_small(1, 64, 16);

	(void)state;
	for (int i = 0; i < 6; i++) {
		struct moe_request q = request(4, 2);

		q.priority = priority[i];
		submit(r, q, 1);
	}
	run_all(r);
	assert_memory_equal(r->done_order, order, sizeof order);
	rig_close(r);
}

static void admitted_while_decoding(void **state)
{
	struct rig *r = open_small(4, 128, 64);

	(void)state;
	submit(r, request(4, 20), 1);
	step(r);
	step(r);
	assert_int_equal(moe_engine_stats(r->g).admitted_while_decoding, 0);
	submit(r, request(30, 4), 2);
	submit(r, request(3, 4), 3);
	step(r);
	assert_int_equal(moe_engine_stats(r->g).admitted_while_decoding, 2);
	assert_int_equal(moe_engine_stats(r->g).running, 3);
	run_all(r);
	assert_int_equal(moe_engine_stats(r->g).generated, 28);
	assert_int_equal(moe_engine_stats(r->g).rows, 37 + 28 - 3); /* last tokens are nobody's input */
	rig_close(r);
}

/* ---- ending ---- */

static void length_of_context(void **state)
{
	struct rig *r = open_small(1, 50, 64);

	(void)state;
	submit(r, request(20, 0), 1);
	run_all(r);
	assert_int_equal(record_of(r, 1)->n, 30);
	assert_int_equal(record_of(r, 1)->finish, MOE_FINISH_LENGTH);
	assert_int_equal(record_of(r, 1)->prompt_tokens, 20);
	assert_int_equal(record_of(r, 1)->completion_tokens, 30);
	rig_close(r);
}

/* Make a token that is generated the end-of-text token, then generate again. */
static void eos_ends(void **state)
{
	struct rig *r = open_small(1, 128, 64);
	struct moe_request q = request(20, 40);
	const struct record *rec;
	int first;

	(void)state;
	submit(r, q, 1);
	run_all(r);
	r->c->model.eos[0] = record_of(r, 1)->token[9];
	r->c->model.n_eos = 1;
	for (first = 0; record_of(r, 1)->token[first] != r->c->model.eos[0]; first++)
		;
	q.ignore_eos = false;
	submit(r, q, 1);
	submit(r, request(20, 40), 1);
	run_all(r);
	rec = record_of(r, 2);
	assert_int_equal(rec->finish, MOE_FINISH_STOP);
	assert_int_equal(rec->n, first);
	assert_int_equal(rec->completion_tokens, first);
	assert_memory_equal(rec->token, record_of(r, 1)->token, (size_t)first * sizeof(int32_t));
	assert_same_answer(record_of(r, 1), record_of(r, 3)); /* ignore_eos */
	rig_close(r);
}

static void callback_stops(void **state)
{
	struct rig *r = open_small(2, 128, 64);
	struct moe_request q = request(40, 0);

	(void)state;
	r->stop_id = submit(r, request(9, 40), 1);
	r->stop_at = 6;
	run_all(r);
	assert_int_equal(record_of(r, 1)->n, 6);
	assert_int_equal(record_of(r, 1)->finish, MOE_FINISH_STOP);
	q.score = true; /* in the middle of a step's rows */
	r->stop_id = submit(r, q, 1);
	run_all(r);
	assert_int_equal(record_of(r, 2)->n, 6);
	assert_int_equal(record_of(r, 2)->finish, MOE_FINISH_STOP);
	rig_close(r);
}

static void cancel_frees(void **state)
{
	struct rig *r = open_blocks(2, 256, 4);
	uint64_t a, b;

	(void)state;
	a = submit(r, request(100, 100), 1);
	b = submit(r, request(10, 10), 2);
	for (int i = 0; i < 3; i++)
		step(r);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_used, 4);
	assert_int_equal(moe_engine_stats(r->g).waiting, 1);
	moe_engine_cancel(r->g, a);
	moe_engine_cancel(r->g, 12345); /* nobody */
	step(r);
	assert_true(record_of(r, a)->done);
	assert_int_equal(record_of(r, a)->finish, MOE_FINISH_CANCELLED);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_used, 1);
	run_all(r);
	assert_int_equal(record_of(r, b)->finish, MOE_FINISH_LENGTH);
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_used, 0);
	rig_close(r);
}

static void cancel_waiting(void **state)
{
	struct rig *r = open_small(1, 64, 64);

	(void)state;
	submit(r, request(4, 30), 1);
	submit(r, request(4, 5), 2);
	submit(r, request(4, 5), 3);
	step(r);
	moe_engine_cancel(r->g, 3);
	step(r);
	assert_int_equal(record_of(r, 3)->finish, MOE_FINISH_CANCELLED);
	assert_int_equal(record_of(r, 3)->completion_tokens, 0);
	submit(r, request(4, 5), 4); /* the queue's end is still known */
	run_all(r);
	assert_int_equal(r->n_done, 4);
	assert_int_equal(record_of(r, 4)->finish, MOE_FINISH_LENGTH);
	rig_close(r);
}

static void cancel_from_callback(void **state)
{
	struct rig *r = open_small(2, 64, 64);

	(void)state;
	submit(r, request(4, 30), 1);
	submit(r, request(4, 30), 2);
	step(r);
	r->cancel_id = 1;
	run_all(r);
	assert_int_equal(record_of(r, 1)->finish, MOE_FINISH_CANCELLED);
	assert_int_equal(record_of(r, 1)->n, 2); /* the step under way is its last */
	assert_int_equal(record_of(r, 2)->n, 30);
	rig_close(r);
}

static void timeout_running_and_waiting(void **state)
{
	struct rig *r = open_small(1, 256, 4);
	struct moe_request q = request(200, 30);
	struct timespec pause = {0, 30000000};

	(void)state;
	q.timeout = 0.02;
	submit(r, q, 1);
	submit(r, q, 2);
	submit(r, request(4, 3), 3);
	step(r);
	nanosleep(&pause, NULL);
	run_all(r);
	for (uint64_t id = 1; id <= 2; id++) {
		assert_int_equal(record_of(r, id)->finish, MOE_FINISH_ERROR);
		assert_int_equal(record_of(r, id)->err.code, MOE_E_TIMEOUT);
		assert_non_null(strstr(record_of(r, id)->err.msg, "0.02 s"));
	}
	assert_int_equal(record_of(r, 3)->finish, MOE_FINISH_LENGTH);
	rig_close(r);
}

/* ---- a callback that submits ---- */

struct chain {
	struct moe_engine *g;
	int left, done;
};

static int chain_event(void *ctx, const struct moe_event *ev)
{
	struct chain *c = ctx;
	int32_t t[3] = {1, 2, 3};
	struct moe_request q = request(3, 2);

	if (ev->kind != MOE_EV_DONE)
		return 0;
	c->done++;
	q.tokens = t;
	if (c->left-- > 0)
		assert_int_equal(moe_engine_submit(c->g, &q, NULL, NULL), 0);
	return 0;
}

static void submit_from_callback_works(void **state)
{
	struct rig *r = rig_model(SPEC, 1);
	struct moe_engine_config c = rig_config(2, 64, 8);
	struct chain chain = {.left = 6};
	struct moe_err e;
	bool busy = true;

	(void)state;
	c.on_event = chain_event;
	c.ctx_event = &chain;
	must(moe_engine_new(&r->c->model, r->c->tensors, r->b, r->local, &c, &r->g, &e), &e);
	chain.g = r->g;
	submit(r, request(4, 2), 1);
	submit(r, request(4, 2), 2);
	moe_engine_cancel(r->g, 2);
	while (busy)
		must(moe_engine_step(r->g, &busy, &e), &e);
	assert_int_equal(chain.done, 8);
	rig_close(r);
}

static void freed_with_work_left(void **state)
{
	struct rig *r = open_small(1, 64, 8);

	(void)state;
	submit(r, request(4, 30), 1);
	submit(r, request(4, 30), 2);
	step(r);
	rig_close(r); /* the leak checker watches */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refused_lengths),
		cmocka_unit_test(refused_tokens),
		cmocka_unit_test(refused_sampling),
		cmocka_unit_test(refused_kv_memory),
		cmocka_unit_test(step_without_work),
		cmocka_unit_test(memory_queues),
		cmocka_unit_test(no_overtaking),
		cmocka_unit_test(priority_first),
		cmocka_unit_test(admitted_while_decoding),
		cmocka_unit_test(length_of_context),
		cmocka_unit_test(eos_ends),
		cmocka_unit_test(callback_stops),
		cmocka_unit_test(cancel_frees),
		cmocka_unit_test(cancel_waiting),
		cmocka_unit_test(cancel_from_callback),
		cmocka_unit_test(timeout_running_and_waiting),
		cmocka_unit_test(submit_from_callback_works),
		cmocka_unit_test(freed_with_work_left),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine life", tests, NULL, NULL);
}
