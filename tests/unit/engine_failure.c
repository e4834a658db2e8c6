/* When experts or the backend fail: the requests concerned end with the reason, the others never notice. */
#include <math.h>
#include <time.h>

#include "base/clock.h"
#include "engine_rig.h"

#define SPEC "tiny-mixtral,seed=1"
#define MOST_BATCHES 400

/* ---- experts that fail on order; otherwise the real ones ---- */

struct fake {
	struct moe_experts x;
	struct moe_experts *local;
	int busy;                    /* answers "busy" this often before each batch; -1: for ever */
	int refuse_at, refuse_rc;    /* this batch is refused */
	int fail_at, fail_row, fail_rc; /* of this batch this row fails, -1: all, -2: none is named */
	bool hang;                   /* fail_at fails at its deadline, not at once */
	int said_busy, n, cancelled;
	struct moe_batch seen[MOST_BATCHES];
};

static int fake_submit(struct moe_experts *x, const struct moe_batch *b, uint64_t *ticket, struct moe_err *e)
{
	struct fake *f = (struct fake *)x;

	if (f->busy < 0 || f->said_busy < f->busy) {
		f->said_busy++;
		return moe_fail(e, MOE_E_BUSY, "queue full");
	}
	f->said_busy = 0;
	assert_true(f->n < MOST_BATCHES);
	f->seen[f->n++] = *b;
	if (f->n == f->refuse_at)
		return moe_fail(e, f->refuse_rc, "no server left");
	return f->local->ops->submit(f->local, b, ticket, e);
}

static void spoil(const struct moe_batch *b, int row, size_t hidden)
{
	b->failed[row] = 1;
	for (size_t i = 0; i < hidden; i++)
		b->y[(size_t)row * hidden + i] = NAN;
}

static size_t hidden_size;

static int fake_wait(struct moe_experts *x, uint64_t ticket, struct moe_err *e)
{
	struct fake *f = (struct fake *)x;
	const struct moe_batch *b = &f->seen[f->n - 1];
	int rc = f->local->ops->wait(f->local, ticket, e);

	if (rc != 0 || f->n != f->fail_at)
		return rc;
	while (f->hang && moe_now_ns() < b->deadline)
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	for (int r = 0; r < b->rows; r++)
		if (f->fail_row == r || f->fail_row == -1)
			spoil(b, r, hidden_size);
	return moe_fail(e, f->fail_rc, "batch %d failed", f->n);
}

static void fake_cancel(struct moe_experts *x, uint64_t ticket)
{
	struct fake *f = (struct fake *)x;

	f->cancelled++;
	f->local->ops->cancel(f->local, ticket);
}

static const struct moe_experts_ops fake_ops = {.submit = fake_submit, .wait = fake_wait, .cancel = fake_cancel};

static struct rig *open_fake(const char *spec, struct moe_engine_config c, struct fake *f)
{
	struct rig *r = rig_model(spec, 1);

	f->x.ops = &fake_ops;
	f->local = r->local;
	hidden_size = (size_t)r->c->model.hidden;
	rig_engine(r, c, &f->x);
	return r;
}

/* ---- the three requests of most tests ---- */

static struct moe_request trio(int i)
{
	static const int prompt[] = {5, 20, 9};

	return request(prompt[i], 12);
}

/* Their answers when nothing fails. */
static struct rig *undisturbed(const char *spec)
{
	struct rig *r = rig_open(spec, rig_config(1, 128, 64));

	for (int i = 0; i < 3; i++)
		submit(r, trio(i), (uint64_t)i);
	run_all(r);
	return r;
}

static void submit_trio(struct rig *r)
{
	for (int i = 0; i < 3; i++)
		submit(r, trio(i), (uint64_t)i);
}

/* What failed said a prefix of the right answer. */
static void assert_failed(const struct rig *r, const struct rig *good, uint64_t id, int code)
{
	const struct record *a = record_of(r, id), *b = record_of(good, id);

	assert_true(a->done);
	assert_int_equal(a->finish, MOE_FINISH_ERROR);
	assert_int_equal(a->err.code, code);
	assert_true(a->n < b->n);
	assert_memory_equal(a->logits, b->logits, (size_t)a->n * sizeof *a->logits);
}

/* Any row of the first step, in any layer. */
static void one_row_fails(void **state)
{
	struct rig *good = undisturbed(SPEC);
	const int first[] = {0, 5, 25, 34};

	(void)state;
	for (int layer = 0; layer < good->c->model.n_layers; layer++)
		for (int victim = 0; victim < 3; victim++) {
			struct fake f = {.fail_at = layer + 1, .fail_row = first[victim + 1] - 1, .fail_rc = MOE_E_PEER};
			struct rig *r = open_fake(SPEC, rig_config(3, 128, 64), &f);
			char words[32];

			submit_trio(r);
			run_all(r);
			snprintf(words, sizeof words, "batch %d failed", layer + 1);
			for (int i = 0; i < 3; i++) {
				if (i != victim)
					assert_same_answer(record_of(r, (uint64_t)i + 1), record_of(good, (uint64_t)i + 1));
			}
			assert_failed(r, good, (uint64_t)victim + 1, MOE_E_PEER);
			assert_string_equal(record_of(r, (uint64_t)victim + 1)->err.msg, words);
			assert_int_equal(f.seen[layer].rows, 34);
			if (layer + 1 < r->c->model.n_layers) /* the victim's rows are sent nowhere again */
				assert_int_equal(f.seen[layer + 1].rows, 34 - (first[victim + 1] - first[victim]));
			assert_int_equal(moe_engine_stats(r->g).kv_blocks_used, 0);
			rig_close(r);
		}
	rig_close(good);
}

static void decode_row_fails(void **state)
{
	struct rig *good = undisturbed(SPEC);
	struct fake f = {.fail_row = 1, .fail_rc = MOE_E_IO};
	struct rig *r = open_fake(SPEC, rig_config(3, 128, 64), &f);

	(void)state;
	f.fail_at = 3 * r->c->model.n_layers + 1; /* fourth step */
	submit_trio(r);
	run_all(r);
	assert_same_answer(record_of(r, 1), record_of(good, 1));
	assert_same_answer(record_of(r, 3), record_of(good, 3));
	assert_failed(r, good, 2, MOE_E_IO);
	assert_int_equal(record_of(r, 2)->n, 3);
	rig_close(r);
	rig_close(good);
}

static void all_fail(int fail_row)
{
	struct rig *good = undisturbed(SPEC);
	struct fake f = {.fail_at = 1, .fail_row = fail_row, .fail_rc = MOE_E_PEER};
	struct rig *r = open_fake(SPEC, rig_config(2, 128, 64), &f);

	submit_trio(r);
	assert_true(step(r));
	assert_int_equal(f.n, 1); /* no further layer for nobody */
	run_all(r);
	assert_failed(r, good, 1, MOE_E_PEER);
	assert_failed(r, good, 2, MOE_E_PEER);
	assert_same_answer(record_of(r, 3), record_of(good, 3)); /* waited, came later */
	rig_close(r);
	rig_close(good);
}

static void all_rows_fail(void **state)
{
	(void)state;
	all_fail(-1);
}

static void no_row_named(void **state)
{
	(void)state;
	all_fail(-2);
}

static void submit_refused(void **state)
{
	struct rig *good = undisturbed(SPEC);
	struct fake f = {.refuse_at = 2, .refuse_rc = MOE_E_PEER};
	struct rig *r = open_fake(SPEC, rig_config(2, 128, 64), &f);

	(void)state;
	submit_trio(r);
	run_all(r);
	assert_failed(r, good, 1, MOE_E_PEER);
	assert_string_equal(record_of(r, 1)->err.msg, "no server left");
	assert_failed(r, good, 2, MOE_E_PEER);
	assert_same_answer(record_of(r, 3), record_of(good, 3));
	rig_close(r);
	rig_close(good);
}

/* ---- busy ---- */

static void busy_for_a_while(void **state)
{
	struct rig *good = undisturbed(SPEC);
	struct fake f = {.busy = 2};
	struct rig *r = open_fake(SPEC, rig_config(3, 128, 64), &f);

	(void)state;
	submit_trio(r);
	run_all(r);
	for (uint64_t id = 1; id <= 3; id++)
		assert_same_answer(record_of(r, id), record_of(good, id));
	rig_close(r);
	rig_close(good);
}

static void busy_for_ever(void **state)
{
	struct fake f = {.busy = -1};
	struct moe_engine_config c = rig_config(3, 128, 64);
	struct rig *r;

	(void)state;
	c.step_timeout = 0.03;
	r = open_fake(SPEC, c, &f);
	submit_trio(r);
	run_all(r);
	for (uint64_t id = 1; id <= 3; id++)
		assert_int_equal(record_of(r, id)->err.code, MOE_E_BUSY);
	rig_close(r);
}

/* ---- time ---- */

static void step_timeout(void **state)
{
	struct rig *good = undisturbed(SPEC);
	struct fake f = {.fail_at = 2, .fail_row = 0, .fail_rc = MOE_E_TIMEOUT, .hang = true};
	struct moe_engine_config c = rig_config(3, 128, 64);
	struct rig *r;

	(void)state;
	c.step_timeout = 0.05;
	r = open_fake(SPEC, c, &f);
	submit_trio(r);
	run_all(r);
	assert_true(f.seen[0].deadline > 0);
	assert_failed(r, good, 1, MOE_E_TIMEOUT);
	assert_same_answer(record_of(r, 2), record_of(good, 2));
	assert_same_answer(record_of(r, 3), record_of(good, 3));
	rig_close(r);
	rig_close(good);
}

/* The batch's deadline is that of request 2; when it passes, request 2 alone is out of time. */
static void deadline_of_another(void **state)
{
	struct rig *good = undisturbed(SPEC);
	struct fake f = {.fail_at = 1, .fail_row = -1, .fail_rc = MOE_E_TIMEOUT, .hang = true};
	struct rig *r = open_fake(SPEC, rig_config(3, 128, 64), &f);

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct moe_request q = trio(i);

		q.timeout = i == 1 ? 0.3 : 100.0;
		submit(r, q, (uint64_t)i);
	}
	run_all(r);
	assert_failed(r, good, 2, MOE_E_TIMEOUT);
	assert_same_answer(record_of(r, 1), record_of(good, 1));
	assert_same_answer(record_of(r, 3), record_of(good, 3));
	assert_int_equal(f.seen[0].rows, 34);
	assert_int_equal(f.seen[1].rows, 14); /* the same layer again, without it */
	assert_int_equal(f.seen[1].layer, f.seen[0].layer);
	rig_close(r);
	rig_close(good);
}

/* A timeout reported before the deadline is a failure like others. */
static void early_timeout(void **state)
{
	struct rig *good = undisturbed(SPEC);
	struct fake f = {.fail_at = 1, .fail_row = 3, .fail_rc = MOE_E_TIMEOUT};
	struct moe_engine_config c = rig_config(3, 128, 64);
	struct rig *r;

	(void)state;
	c.step_timeout = 100.0;
	r = open_fake(SPEC, c, &f);
	submit_trio(r);
	run_all(r);
	assert_failed(r, good, 1, MOE_E_TIMEOUT);
	assert_same_answer(record_of(r, 2), record_of(good, 2));
	rig_close(r);
	rig_close(good);
}

static void batch_says_who(void **state)
{
	struct fake f = {0};
	struct rig *r = open_fake(SPEC, rig_config(2, 128, 64), &f);
	struct moe_request q = trio(0);

	(void)state;
	q.priority = 3;
	submit(r, q, 1);
	q.priority = 9;
	submit(r, q, 2);
	step(r);
	assert_int_equal(f.seen[0].trace, 2); /* admitted first */
	assert_int_equal(f.seen[0].priority, 9);
	assert_int_equal(f.seen[0].deadline, 0);
	assert_int_equal(f.seen[0].rows, 10);
	assert_int_equal(f.seen[0].k, r->c->model.layers[0].ffn.gate.top_k);
	rig_close(r);
}

/* ---- routes ---- */

static void count_route(void *ctx, const struct moe_routing *r)
{
	((int *)ctx)[r->id]++;
}

static void routes_of_computed_rows(void **state)
{
	struct fake f = {.fail_at = 2, .fail_row = 0, .fail_rc = MOE_E_PEER};
	struct rig *r = open_fake(SPEC, rig_config(3, 128, 64), &f);
	int count[4] = {0};

	(void)state;
	moe_engine_on_route(r->g, count_route, count);
	submit_trio(r);
	step(r);
	assert_int_equal(count[1], 5); /* its first layer only */
	assert_int_equal(count[2], 20 * r->c->model.n_layers);
	assert_int_equal(count[3], 9 * r->c->model.n_layers);
	rig_close(r);
}

/* ---- a backend that fails ---- */

static struct moe_backend_ops broken;
static int broken_countdown;

static int broken_attention(struct moe_backend *b, struct moe_stream_q *q, float *out, const float *query,
                            struct moe_kv_view kv, const struct moe_attn_seq *seqs, int n_seqs,
                            const struct moe_attention *a, struct moe_err *e)
{
	(void)b, (void)q, (void)out, (void)query, (void)kv, (void)seqs, (void)n_seqs, (void)a;
	return moe_fail(e, MOE_E_IO, "the device is gone");
}

static int broken_ffn(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
                      const struct moe_expert_weights *w, enum moe_act act, float *scratch, struct moe_err *e)
{
	(void)b, (void)q, (void)y, (void)x, (void)rows, (void)w, (void)act, (void)scratch;
	return moe_fail(e, MOE_E_IO, "the device is gone");
}

static void nothing_can_go_on(void **state)
{
	struct rig *good = undisturbed(SPEC);
	struct rig *r = rig_open(SPEC, rig_config(2, 128, 64));
	const struct moe_backend_ops *whole = r->b->ops;
	struct moe_err e;
	bool busy;

	(void)state;
	submit_trio(r);
	step(r);
	broken = *whole;
	broken.attention = broken_attention;
	r->b->ops = &broken;
	assert_int_equal(moe_engine_step(r->g, &busy, &e), MOE_E_IO);
	assert_string_equal(e.msg, "the device is gone");
	assert_true(busy);
	assert_failed(r, good, 1, MOE_E_IO);
	assert_failed(r, good, 2, MOE_E_IO);
	r->b->ops = whole;
	run_all(r);
	assert_same_answer(record_of(r, 3), record_of(good, 3));
	rig_close(r);
	rig_close(good);
}

/* The experts' batch must not outlive the step that gave it up. */
static void batch_cancelled_when_backend_fails(void **state)
{
	struct fake f = {0};
	struct rig *r = open_fake("tiny-qwen2-moe,seed=3", rig_config(2, 128, 64), &f);
	const struct moe_backend_ops *whole = r->b->ops;
	struct moe_err e;
	bool busy;

	(void)state;
	submit(r, trio(0), 1);
	broken = *whole;
	broken.ffn = broken_ffn;
	r->b->ops = &broken;
	assert_int_equal(moe_engine_step(r->g, &busy, &e), MOE_E_IO);
	assert_int_equal(f.cancelled, 1);
	assert_false(busy);
	r->b->ops = whole;
	rig_close(r);
}

/* ---- logits that are no numbers ---- */

static const struct moe_backend_ops *whole_ops;
static size_t row_bytes;

static int nan_copy_out(struct moe_backend *b, struct moe_stream_q *q, void *host, const void *mem, size_t bytes,
                        struct moe_err *e)
{
	int rc = whole_ops->copy_out(b, q, host, mem, bytes, e);

	if (bytes == row_bytes && --broken_countdown == 0)
		((float *)host)[3] = NAN;
	return rc;
}

static void not_finite(void **state)
{
	struct rig *good = undisturbed(SPEC);
	struct rig *r = rig_open(SPEC, rig_config(3, 128, 64));

	(void)state;
	submit_trio(r);
	whole_ops = r->b->ops;
	broken = *whole_ops;
	broken.copy_out = nan_copy_out;
	row_bytes = (size_t)r->c->model.vocab * sizeof(float);
	broken_countdown = 5; /* second step, second sequence */
	r->b->ops = &broken;
	run_all(r);
	r->b->ops = whole_ops;
	assert_failed(r, good, 2, MOE_E_INPUT);
	assert_same_answer(record_of(r, 1), record_of(good, 1));
	assert_same_answer(record_of(r, 3), record_of(good, 3));
	rig_close(r);
	rig_close(good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_row_fails),
		cmocka_unit_test(decode_row_fails),
		cmocka_unit_test(all_rows_fail),
		cmocka_unit_test(no_row_named),
		cmocka_unit_test(submit_refused),
		cmocka_unit_test(busy_for_a_while),
		cmocka_unit_test(busy_for_ever),
		cmocka_unit_test(step_timeout),
		cmocka_unit_test(deadline_of_another),
		cmocka_unit_test(early_timeout),
		cmocka_unit_test(batch_says_who),
		cmocka_unit_test(routes_of_computed_rows),
		cmocka_unit_test(nothing_can_go_on),
		cmocka_unit_test(batch_cancelled_when_backend_fails),
		cmocka_unit_test(not_finite),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine failure", tests, NULL, NULL);
}
