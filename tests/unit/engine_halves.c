/* Steps in two halves: the same bits as in one, and a failure takes the same requests with it. */
#include <math.h>
#include <time.h>

#include "base/clock.h"
#include "engine_rig.h"

#define SPEC "tiny-mixtral,seed=1"
#define MOST_BATCHES 4000
#define REQUESTS 5

/* ---- experts elsewhere: a batch is computed only when it is waited for, so that several are under way ---- */

struct away {
	struct moe_experts x;
	struct moe_experts *local;
	int fail_at, fail_row, fail_rc; /* of this batch, counted from 1, this row fails */
	bool hang;                   /* it fails at its deadline, not at once */
	int most;                    /* batches that it takes at once; 0: any number */
	int busy;                    /* times that it says so of the next batch anyway */
	int n, said_busy, under_way, most_under_way, cancelled;
	struct moe_batch seen[MOST_BATCHES];
};

static size_t hidden_size;

static int away_submit(struct moe_experts *x, const struct moe_batch *b, uint64_t *ticket, struct moe_err *e)
{
	struct away *f = (struct away *)x;

	assert_true(f->n < MOST_BATCHES);
	if (f->busy > 0 || (f->most && f->under_way == f->most)) {
		f->busy -= f->busy > 0;
		f->said_busy++;
		return moe_fail(e, MOE_E_BUSY, "a server has no credits left");
	}
	f->seen[f->n++] = *b;
	*ticket = (uint64_t)f->n;
	if (++f->under_way > f->most_under_way)
		f->most_under_way = f->under_way;
	return 0;
}

static int away_wait(struct moe_experts *x, uint64_t ticket, struct moe_err *e)
{
	struct away *f = (struct away *)x;
	const struct moe_batch *b = &f->seen[ticket - 1];
	uint64_t inner;

	f->under_way--;
	must(f->local->ops->submit(f->local, b, &inner, e), e);
	must(f->local->ops->wait(f->local, inner, e), e);
	if (ticket != (uint64_t)f->fail_at)
		return 0;
	while (f->hang && moe_now_ns() < b->deadline)
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	b->failed[f->fail_row] = 1;
	for (size_t i = 0; i < hidden_size; i++)
		b->y[(size_t)f->fail_row * hidden_size + i] = NAN;
	return moe_fail(e, f->fail_rc, "batch %d failed", f->fail_at);
}

static void away_cancel(struct moe_experts *x, uint64_t ticket)
{
	struct away *f = (struct away *)x;

	(void)ticket;
	f->under_way--;
	f->cancelled++;
}

static const struct moe_experts_ops away_ops = {
	.concurrent = true, .submit = away_submit, .wait = away_wait, .cancel = away_cancel};

static struct rig *open_away(const char *spec, struct moe_engine_config c, struct away *f)
{
	struct rig *r = rig_model(spec, 1);

	f->x.ops = &away_ops;
	f->local = r->local;
	hidden_size = (size_t)r->c->model.hidden;
	rig_engine(r, c, &f->x);
	return r;
}

static struct moe_engine_config halves(int sequences, int chunk)
{
	struct moe_engine_config c = rig_config(sequences, 128, chunk);

	c.overlap = MOE_OVERLAP_ON;
	return c;
}

/* ---- requests: long and short prompts, one of them scored ---- */

static void submit_all(struct rig *r)
{
	static const int prompt[REQUESTS] = {5, 40, 1, 23, 9};

	for (int i = 0; i < REQUESTS; i++) {
		struct moe_request q = request(prompt[i], 6);

		q.score = i == 3;
		q.max_tokens = q.score ? 0 : 6;
		submit(r, q, (uint64_t)i);
	}
}

/* Their answers one by one, in one part. */
static struct rig *undisturbed(const char *spec)
{
	struct rig *r = rig_open(spec, rig_config(1, 128, 64));

	submit_all(r);
	run_all(r);
	assert_int_equal(moe_engine_stats(r->g).halved, 0);
	return r;
}

static void assert_all_right(const struct rig *r, const struct rig *good)
{
	for (uint64_t id = 1; id <= REQUESTS; id++)
		assert_same_answer(record_of(r, id), record_of(good, id));
}

static void the_same_bits(void **state)
{
	static const char *const specs[] = {SPEC, "tiny-qwen2-moe,seed=3", "tiny-olmoe,seed=2"};
	static const int chunks[] = {2, 7, 33, 128};

	(void)state;
	for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
		struct rig *good = undisturbed(specs[i]);

		for (int sequences = 1; sequences <= REQUESTS; sequences += 2)
			for (size_t j = 0; j < sizeof chunks / sizeof *chunks; j++) {
				struct away f = {0};
				struct rig *r = open_away(specs[i], halves(sequences, chunks[j]), &f);

				submit_all(r);
				run_all(r);
				assert_all_right(r, good);
				assert_int_equal(f.most_under_way, 2);
				assert_true(moe_engine_stats(r->g).halved > 0);
				assert_int_equal(moe_engine_stats(r->g).kv_blocks_used, 0);
				rig_close(r);
			}
		rig_close(good);
	}
}

/* What failed said a prefix of the right answer. */
static void assert_failed(const struct rig *r, const struct rig *good, uint64_t id, int code)
{
	const struct record *a = record_of(r, id), *b = record_of(good, id);

	assert_true(a->done && a->finish == MOE_FINISH_ERROR);
	assert_int_equal(a->err.code, code);
	assert_true(a->n < b->n);
	assert_memory_equal(a->logits, b->logits, (size_t)a->n * sizeof *a->logits);
}

/* Any row of any batch of the first step: 78 rows, of which the cut at 39 goes through request 2's. */
static void one_row_fails(void **state)
{
	static const int start[REQUESTS + 1] = {0, 5, 45, 46, 69, 78};
	struct rig *good = undisturbed(SPEC);
	int layers = good->c->model.n_layers;

	(void)state;
	for (int batch = 0; batch < 2 * layers; batch++)
		for (int victim = 0; victim < REQUESTS; victim++) {
			int first = batch % 2 ? 39 : 0, last = batch % 2 ? 78 : 39, row = start[victim];
			struct away f = {.fail_at = batch + 1, .fail_rc = MOE_E_PEER};
			struct rig *r;

			row = row < first ? first : row;
			if (row >= last || row >= start[victim + 1])
				continue; /* the victim is in the other half */
			f.fail_row = row - first;
			r = open_away(SPEC, halves(REQUESTS, 128), &f);
			submit_all(r);
			run_all(r);
			for (int i = 0; i < REQUESTS; i++)
				if (i != victim)
					assert_same_answer(record_of(r, (uint64_t)i + 1), record_of(good, (uint64_t)i + 1));
			assert_failed(r, good, (uint64_t)victim + 1, MOE_E_PEER);
			assert_int_equal(f.seen[0].rows, 39);
			assert_int_equal(f.seen[1].rows, 39);
			if (batch + 2 < 2 * layers) /* the victim's rows are sent nowhere again */
				assert_true(f.seen[batch + 2].rows < 39);
			assert_int_equal(f.under_way, 0);
			assert_int_equal(moe_engine_stats(r->g).kv_blocks_used, 0);
			rig_close(r);
		}
	rig_close(good);
}

/* The deadline of the second half's batch is that of request 5; when it passes, request 5 alone is out of time. */
static void deadline_in_one_half(void **state)
{
	struct rig *good = undisturbed(SPEC);
	struct away f = {.fail_at = 2, .fail_row = 0, .fail_rc = MOE_E_TIMEOUT, .hang = true};
	struct rig *r = open_away(SPEC, halves(REQUESTS, 128), &f);
	static const int prompt[REQUESTS] = {5, 40, 1, 23, 9};

	(void)state;
	for (int i = 0; i < REQUESTS; i++) {
		struct moe_request q = request(prompt[i], i == 3 ? 0 : 6);

		q.score = i == 3;
		q.timeout = i == 4 ? 0.3 : 100.0;
		submit(r, q, (uint64_t)i);
	}
	run_all(r);
	assert_failed(r, good, 5, MOE_E_TIMEOUT);
	for (uint64_t id = 1; id < 5; id++)
		assert_same_answer(record_of(r, id), record_of(good, id));
	assert_int_equal(f.seen[3].rows, 30); /* the same layer again, without it, after the first half's next */
	assert_int_equal(f.seen[3].layer, f.seen[1].layer);
	rig_close(r);
	rig_close(good);
}

/* ---- busy ---- */

/* There is never room for both halves' batches: the first is waited for, and the answers are the same. */
static void room_for_one_batch(void **state)
{
	struct rig *good = undisturbed(SPEC);
	struct away f = {.most = 1};
	struct rig *r = open_away(SPEC, halves(REQUESTS, 128), &f);

	(void)state;
	submit_all(r);
	run_all(r);
	assert_all_right(r, good);
	assert_int_equal(f.most_under_way, 1);
	assert_true(f.said_busy > 0);
	assert_true(moe_engine_stats(r->g).halved > 0);
	/* Once for each second batch, not again and again while the first is under way. */
	assert_true(f.said_busy <= f.n);
	rig_close(r);
	rig_close(good);
}

static void busy_with_nothing_under_way(void **state)
{
	struct rig *good = undisturbed(SPEC);
	struct away f = {.most = 1, .busy = 5};
	struct rig *r = open_away(SPEC, halves(REQUESTS, 128), &f);

	(void)state;
	submit_all(r);
	run_all(r);
	assert_all_right(r, good);
	rig_close(r);
	rig_close(good);
}

/* What the first half's batch says is kept when it was waited for to make room. */
static void failure_heard_while_making_room(void **state)
{
	struct rig *good = undisturbed(SPEC);
	struct away f = {.most = 1, .fail_at = 1, .fail_row = 0, .fail_rc = MOE_E_PEER};
	struct rig *r = open_away(SPEC, halves(REQUESTS, 128), &f);

	(void)state;
	submit_all(r);
	run_all(r);
	assert_failed(r, good, 1, MOE_E_PEER);
	for (uint64_t id = 2; id <= REQUESTS; id++)
		assert_same_answer(record_of(r, id), record_of(good, id));
	assert_int_equal(f.under_way, 0);
	rig_close(r);
	rig_close(good);
}

/* ---- a backend that fails ---- */

static struct moe_backend_ops broken;
static const struct moe_backend_ops *whole;
static int calls_left;

static int broken_attention(struct moe_backend *b, struct moe_stream_q *q, float *out, const float *query,
                            struct moe_kv_view kv, const struct moe_attn_seq *seqs, int n_seqs,
                            const struct moe_attention *a, struct moe_err *e)
{
	if (calls_left-- > 0)
		return whole->attention(b, q, out, query, kv, seqs, n_seqs, a, e);
	return moe_fail(e, MOE_E_IO, "the device is gone");
}

/* Whenever it happens, no batch stays under way. */
static void batches_are_cancelled(void **state)
{
	(void)state;
	for (int good = 0; good < 4; good++) {
		struct away f = {0};
		struct rig *r = open_away(SPEC, halves(REQUESTS, 128), &f);
		struct moe_err e;
		bool busy;

		submit_all(r);
		whole = r->b->ops;
		broken = *whole;
		broken.attention = broken_attention;
		calls_left = good;
		r->b->ops = &broken;
		assert_int_equal(moe_engine_step(r->g, &busy, &e), MOE_E_IO);
		assert_int_equal(f.under_way, 0);
		assert_int_equal(f.cancelled, good > 0);
		assert_false(busy);
		for (uint64_t id = 1; id <= REQUESTS; id++)
			assert_int_equal(record_of(r, id)->err.code, MOE_E_IO);
		r->b->ops = whole;
		rig_close(r);
	}
}

/* ---- when ---- */

static void auto_wants_many_rows_and_concurrency(void **state)
{
	struct away many = {0}, few = {0};
	struct moe_engine_config c = rig_config(1, 256, 250);
	struct moe_experts_ops alone = away_ops;
	struct away serial = {0};
	struct rig *r = rig_model(SPEC, 1);
	const struct moe_ffn *ffn = &r->c->model.layers[0].ffn;
	int enough = 2 * 16 * ffn->experts / ffn->gate.top_k;
	const struct {
		struct away *f;
		int rows, halved;
	} cases[] = {{&many, enough, 1}, {&few, enough - 1, 0}, {&serial, enough, 0}};

	(void)state;
	assert_in_range(enough, 2, 250);
	hidden_size = (size_t)r->c->model.hidden;
	alone.concurrent = false;
	for (int i = 0; i < 3; i++) {
		struct away *f = cases[i].f;

		f->x.ops = f == &serial ? &alone : &away_ops;
		f->local = r->local;
		rig_engine(r, c, &f->x);
		memset(r->rec, 0, sizeof r->rec);
		submit(r, request(cases[i].rows, 1), 1);
		run_all(r);
		assert_int_equal(moe_engine_stats(r->g).halved, cases[i].halved);
		assert_int_equal(f->most_under_way, 1 + cases[i].halved);
		if (i < 2)
			moe_engine_free(r->g);
		r->n_done = 0;
	}
	rig_close(r);
}

static void one_row_is_not_cut(void **state)
{
	struct away f = {0};
	struct rig *r = open_away(SPEC, halves(1, 128), &f);

	(void)state;
	submit(r, request(1, 4), 1);
	run_all(r);
	assert_int_equal(moe_engine_stats(r->g).halved, 0);
	assert_int_equal(record_of(r, 1)->n, 4);
	rig_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_bits),
		cmocka_unit_test(one_row_fails),
		cmocka_unit_test(deadline_in_one_half),
		cmocka_unit_test(room_for_one_batch),
		cmocka_unit_test(busy_with_nothing_under_way),
		cmocka_unit_test(failure_heard_while_making_room),
		cmocka_unit_test(batches_are_cancelled),
		cmocka_unit_test(auto_wants_many_rows_and_concurrency),
		cmocka_unit_test(one_row_is_not_cut),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine in halves", tests, NULL, NULL);
}
