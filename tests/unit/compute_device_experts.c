/* Experts on a device whose memory is apart: what they take of it, and what happens when it fails. */
#include "compute_rig.h"
#include "failing_device.h"

static void must(int rc, const struct moe_err *e)
{
	if (rc != 0)
		fail_msg("%s", e->msg);
}

static const struct moe_device_config unlimited = {.device = "cpu", .threads = 1, .numerics = MOE_NUMERICS_INIT};

static struct moe_backend *device(size_t memory)
{
	struct moe_device_config c = unlimited;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_backend *b;

	c.memory = memory;
	must(moe_device_open(&c, &b, &e), &e);
	return b;
}

static size_t used_of(struct moe_backend *b)
{
	struct moe_device_memory m;

	b->ops->memory(b, &m);
	return m.used;
}

#define ROWS 3

/* Opening experts where any allocation or copy fails says so and leaves nothing behind. */
static void experts_open_on_a_device_or_not_at_all(void **state)
{
	static const enum failing kinds[] = {FAIL_ALLOC, FAIL_COPY};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_checkpoint *m;
	struct failing_device f;

	(void)state;
	must(moe_synth_open("tiny-mixtral,seed=3", &m, &e), &e);
	failing_open(&f, &unlimited);
	for (size_t k = 0; k < COUNT(kinds); k++)
		for (int n = 0;; n += n < 8 ? 1 : 13) {
			struct moe_experts *x = NULL;
			int rc;

			failing_arm(&f, kinds[k], n, MOE_E_IO);
			rc = moe_experts_local(f.b, m->tensors, &m->model, NULL, ROWS, &x, &e);
			assert_int_equal(rc, f.failed ? MOE_E_IO : 0);
			if (rc == 0)
				x->ops->close(x);
			assert_int_equal(used_of(f.b), 0);
			if (rc == 0) {
				assert_true(n > 2);
				break;
			}
		}
	failing_close(&f);
	moe_checkpoint_close(m);
}

/* A batch that the device fails fails as a whole; the next one is computed. */
static void experts_fail_with_their_device(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_checkpoint *m;
	struct failing_device f;
	struct moe_experts *x;
	int32_t ids[ROWS] = {0, 1, 1};
	float weights[ROWS] = {1, 1, 1}, *in, *out, *want;
	uint8_t failed[ROWS];
	struct moe_batch b;
	uint64_t ticket;
	size_t n;

	(void)state;
	must(moe_synth_open("tiny-mixtral,seed=3", &m, &e), &e);
	n = ROWS * (size_t)m->model.hidden;
	in = noises(1, n), out = noises(2, n), want = noises(3, n);
	failing_open(&f, &unlimited);
	must(moe_experts_local(f.b, m->tensors, &m->model, NULL, ROWS, &x, &e), &e);
	b = (struct moe_batch){.rows = ROWS, .k = 1, .x = in, .ids = ids, .weights = weights, .y = want, .failed = failed};
	must(x->ops->submit(x, &b, &ticket, &e), &e);
	must(x->ops->wait(x, ticket, &e), &e);
	b.y = out;
	for (int i = 0; i < 4; i++) { /* the copy in, the copy out, experts, combine */
		failing_arm(&f, i < 2 ? FAIL_COPY : FAIL_OP, i % 2, MOE_E_IO);
		must(x->ops->submit(x, &b, &ticket, &e), &e);
		assert_int_equal(x->ops->wait(x, ticket, &e), MOE_E_IO);
		assert_true(f.failed && failed[0] && failed[1] && failed[2]);
		must(x->ops->submit(x, &b, &ticket, &e), &e);
		must(x->ops->wait(x, ticket, &e), &e);
		assert_false(failed[0] || failed[1] || failed[2]);
		assert_memory_equal(out, want, n * sizeof *out);
	}
	x->ops->close(x);
	failing_close(&f);
	moe_checkpoint_close(m);
	free(in), free(out), free(want);
}

/* What experts take of a device is what they say: one byte less is refused before anything is taken. */
static void experts_that_do_not_fit_are_refused(void **state)
{
	struct moe_backend *b = device(0);
	struct moe_err e = MOE_ERR_INIT;
	struct moe_checkpoint *m;
	struct moe_experts *x;
	struct moe_device_memory used;
	size_t need;

	(void)state;
	must(moe_synth_open("tiny-mixtral,seed=3", &m, &e), &e);
	must(moe_experts_local(b, m->tensors, &m->model, NULL, ROWS, &x, &e), &e);
	need = used_of(b);
	x->ops->close(x);
	b->ops->close(b);
	b = device(need - 1);
	assert_int_equal(moe_experts_local(b, m->tensors, &m->model, NULL, ROWS, &x, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "a batch of 3 rows"));
	b->ops->memory(b, &used);
	assert_int_equal(used.most, 0);
	b->ops->close(b);
	b = device(need);
	must(moe_experts_local(b, m->tensors, &m->model, NULL, ROWS, &x, &e), &e);
	x->ops->close(x);
	assert_int_equal(used_of(b), 0);
	b->ops->close(b);
	moe_checkpoint_close(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(experts_open_on_a_device_or_not_at_all),
		cmocka_unit_test(experts_fail_with_their_device),
		cmocka_unit_test(experts_that_do_not_fit_are_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("compute_device_experts", tests, NULL, NULL);
}
