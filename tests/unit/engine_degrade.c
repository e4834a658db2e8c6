/* Rows that go on without experts that nobody can compute: who is told, and what others never see of it. */
#include "engine_rig.h"

#define SPEC "tiny-mixtral,seed=1"

/* Experts that cannot compute all of one row. */
struct poor {
	struct moe_experts x;
	struct rig *r;
	struct moe_batch batch;
	int n;                       /* batches */
	int at, row;                 /* of this batch, counted from 1, this row; at 0: none */
	bool allowed;                /* the last batch said that it may be */
};

static int poor_submit(struct moe_experts *x, const struct moe_batch *b, uint64_t *ticket, struct moe_err *e)
{
	struct poor *f = (struct poor *)x;

	f->batch = *b;
	f->allowed = b->degraded != NULL;
	f->n++;
	return f->r->local->ops->submit(f->r->local, b, ticket, e);
}

static int poor_wait(struct moe_experts *x, uint64_t ticket, struct moe_err *e)
{
	struct poor *f = (struct poor *)x;
	size_t hidden = (size_t)f->r->c->model.hidden;
	int rc = f->r->local->ops->wait(f->r->local, ticket, e);

	if (rc != 0 || f->n != f->at)
		return rc;
	if (!f->batch.degraded) {
		f->batch.failed[f->row] = 1;
		return moe_fail(e, MOE_E_PEER, "no server holds an expert");
	}
	f->batch.degraded[f->row] = 1;
	for (size_t i = 0; i < hidden; i++)
		f->batch.y[(size_t)f->row * hidden + i] *= 0.5f;
	return 0;
}

static const struct moe_experts_ops poor_ops = {.submit = poor_submit, .wait = poor_wait};

static struct rig *open_poor(struct moe_engine_config c, bool degrade, struct poor *f)
{
	struct rig *r = rig_model(SPEC, 1);

	f->x.ops = &poor_ops;
	f->r = r;
	c.degrade = degrade;
	rig_engine(r, c, &f->x);
	return r;
}

static uint64_t ask(struct rig *r, int n, int make, bool score)
{
	struct moe_request q = request(n, score ? 0 : make);

	q.score = score;
	return submit(r, q, 1);
}

static void not_allowed(void **state)
{
	struct poor f = {.at = 1, .row = 2};
	struct rig *r = open_poor(rig_config(2, 128, 64), false, &f);

	(void)state;
	ask(r, 5, 4, false);
	run_all(r);
	assert_false(f.allowed);
	assert_int_equal(record_of(r, 1)->finish, MOE_FINISH_ERROR);
	assert_false(record_of(r, 1)->degraded);
	rig_close(r);
}

/* Three together; the row is the second one's.  It is told, the others are exact. */
static void who_is_told(void **state)
{
	struct poor none = {0}, f = {.at = 1, .row = 5 + 3};
	struct rig *good = open_poor(rig_config(1, 128, 64), true, &none), *r = open_poor(rig_config(3, 128, 64), true, &f);

	(void)state;
	for (int i = 0; i < 3; i++) {
		submit(good, request(5 + i, 6), (uint64_t)i);
		submit(r, request(5 + i, 6), (uint64_t)i);
	}
	run_all(good);
	run_all(r);
	assert_true(f.allowed);
	for (uint64_t id = 1; id <= 3; id++) {
		assert_int_equal(record_of(r, id)->degraded, id == 2);
		assert_false(record_of(good, id)->degraded);
		if (id != 2)
			assert_same_answer(record_of(r, id), record_of(good, id));
	}
	assert_int_equal(record_of(r, 2)->finish, MOE_FINISH_LENGTH);
	assert_int_equal(record_of(r, 2)->n, 6);
	assert_int_not_equal(record_of(r, 2)->logits[0], record_of(good, 2)->logits[0]);
	rig_close(r);
	rig_close(good);
}

static void scores_are_told(void **state)
{
	struct poor f = {.at = 1, .row = 4};
	struct rig *r = open_poor(rig_config(2, 128, 64), true, &f);

	(void)state;
	ask(r, 9, 0, true);
	ask(r, 9, 0, true);
	run_all(r);
	assert_true(record_of(r, 1)->degraded);
	assert_false(record_of(r, 2)->degraded);
	assert_int_equal(record_of(r, 2)->n, 9);
	rig_close(r);
}

/* The row is in the second half of the step. */
static void in_halves(void **state)
{
	struct poor f = {.at = 2, .row = 1};
	struct moe_engine_config c = rig_config(2, 128, 64);
	struct rig *r;

	(void)state;
	c.overlap = MOE_OVERLAP_ON;
	r = open_poor(c, true, &f);
	submit(r, request(10, 4), 1);
	submit(r, request(10, 4), 2);
	step(r);
	assert_int_equal(moe_engine_stats(r->g).halved, 1);
	run_all(r);
	assert_false(record_of(r, 1)->degraded);
	assert_true(record_of(r, 2)->degraded);
	rig_close(r);
}

/* ---- what is kept for others ---- */

/* 200 tokens, the row at `row`; then the same again.  Found are the whole blocks before the row, and the answer is exact. */
static void kept_before(int row, int chunk, int expected)
{
	struct poor none = {0}, f = {.at = 0};
	struct rig *good, *r;
	int layers, before = row / chunk;

	good = open_poor(rig_config(1, 256, 200), true, &none);
	ask(good, 200, 8, false);
	run_all(good);
	layers = good->c->model.n_layers;
	f.at = before * layers + 1;
	f.row = row - before * chunk;
	r = open_poor(rig_config(1, 256, chunk), true, &f);
	ask(r, 200, 8, false);
	run_all(r);
	assert_true(record_of(r, 1)->degraded);
	ask(r, 200, 8, false);
	run_all(r);
	assert_false(record_of(r, 2)->degraded);
	assert_int_equal(record_of(r, 2)->cached_tokens, expected);
	assert_same_answer(record_of(r, 2), record_of(good, 1));
	ask(r, 200, 8, false); /* now all of it is kept */
	run_all(r);
	assert_int_equal(record_of(r, 3)->cached_tokens, 192);
	assert_same_answer(record_of(r, 3), record_of(good, 1));
	rig_close(r);
	rig_close(good);
}

static void blocks_before_it_are_kept(void **state)
{
	static const int chunks[] = {17, 64, 200};

	(void)state;
	for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
		kept_before(0, chunks[i], 0);
		kept_before(63, chunks[i], 0);
		kept_before(64, chunks[i], 64);
		kept_before(130, chunks[i], 128);
		kept_before(199, chunks[i], 192);
	}
}

/* Two read the same prompt, a block a step in turn; the first one's third block is inexact.  It neither takes what the second publishes
 * behind it for its own, nor gives what it has. */
static void nothing_is_taken_behind_it(void **state)
{
	struct poor none = {0}, f = {0};
	struct rig *good = open_poor(rig_config(1, 256, 200), true, &none), *r;

	(void)state;
	ask(good, 250, 6, false);
	run_all(good);
	f.at = good->c->model.n_layers + 1;
	f.row = 3;
	r = open_poor(rig_config(2, 256, 64), true, &f);
	ask(r, 250, 6, false);
	ask(r, 250, 6, false);
	run_all(r);
	assert_true(record_of(r, 1)->degraded);
	assert_int_equal(record_of(r, 1)->cached_tokens, 0);
	assert_false(record_of(r, 2)->degraded);
	assert_int_equal(record_of(r, 2)->cached_tokens, 64);
	assert_same_answer(record_of(r, 2), record_of(good, 1));
	assert_int_equal(moe_engine_stats(r->g).kv_blocks_used, 0);
	rig_close(r);
	rig_close(good);
}

/* A prompt whose first block comes twice: the second is not taken for the first, which another published meanwhile, because the first one
 * of its own was not. */
static void nothing_is_taken_for_another(void **state)
{
	struct poor f = {.at = 1, .row = 64 + 3};
	struct rig *r = open_poor(rig_config(2, 256, 128), true, &f);
	int32_t *prompt = some_tokens(r, 200, 1);
	struct moe_request q = request(64, 6);
	struct moe_err e;

	(void)state;
	memcpy(prompt + 64, prompt, 64 * sizeof *prompt);
	q.tokens = prompt;
	must(moe_engine_submit(r->g, &q, NULL, &e), &e);
	q.n_tokens = 200;
	must(moe_engine_submit(r->g, &q, NULL, &e), &e);
	run_all(r);
	assert_false(record_of(r, 1)->degraded);
	assert_true(record_of(r, 2)->degraded);
	assert_int_equal(record_of(r, 2)->cached_tokens, 0);
	free(prompt);
	rig_close(r);
}

/* One that goes wrong while it generates: its answer is not kept behind the row either. */
static void answers_are_not_kept(void **state)
{
	struct poor none = {0}, f = {0};
	struct rig *good = open_poor(rig_config(1, 256, 64), true, &none), *r;
	int layers = good->c->model.n_layers;
	const struct record *a;
	int32_t *prompt;
	struct moe_request q;
	struct moe_err e;

	(void)state;
	f.at = 5 * layers + 1; /* the fifth token's row, at position 63 */
	r = open_poor(rig_config(1, 256, 60), true, &f);
	ask(r, 59, 80, false);
	run_all(r);
	a = record_of(r, 1);
	assert_true(a->degraded);
	prompt = some_tokens(r, 59 + 80, 1);
	memcpy(prompt + 59, a->token, 80 * sizeof *prompt);
	q = request(59 + 80, 4);
	q.tokens = prompt;
	must(moe_engine_submit(r->g, &q, NULL, &e), &e);
	run_all(r);
	must(moe_engine_submit(good->g, &q, NULL, &e), &e);
	run_all(good);
	assert_int_equal(record_of(r, 2)->cached_tokens, 0);
	assert_same_answer(record_of(r, 2), record_of(good, 1));
	free(prompt);
	rig_close(r);
	rig_close(good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(not_allowed),
		cmocka_unit_test(who_is_told),
		cmocka_unit_test(scores_are_told),
		cmocka_unit_test(in_halves),
		cmocka_unit_test(blocks_before_it_are_kept),
		cmocka_unit_test(nothing_is_taken_behind_it),
		cmocka_unit_test(nothing_is_taken_for_another),
		cmocka_unit_test(answers_are_not_kept),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine without some experts", tests, NULL, NULL);
}
