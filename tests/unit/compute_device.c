/* Memory, streams and events of backends. */
#include "compute_rig.h"

static void must(int rc, const struct moe_err *e)
{
	if (rc != 0)
		fail_msg("%s", e->msg);
}

/* ---- the plain backend ---- */

static void plain_backend_is_never_behind(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_stream_q *q[2];
	struct moe_mark *ev;
	char from[] = "what is copied", mem[sizeof from], to[sizeof from];
	uint64_t first, second;
	struct rig r;

	(void)state;
	assert_true(rig_open(&r, "base", 1));
	assert_true(r.b->ops->host_memory);
	must(r.b->ops->stream_open(r.b, &q[0], &e), &e);
	must(r.b->ops->stream_open(r.b, &q[1], &e), &e);
	must(r.b->ops->event_open(r.b, &ev, &e), &e);
	assert_int_equal(r.b->ops->event_time(r.b, ev, &first, &e), MOE_E_BUSY);
	must(r.b->ops->copy_in(r.b, q[0], mem, from, sizeof from, &e), &e);
	must(r.b->ops->event_record(r.b, q[0], ev, &e), &e);
	must(r.b->ops->event_wait(r.b, q[1], ev, &e), &e);
	must(r.b->ops->copy_out(r.b, q[1], to, mem, sizeof from, &e), &e);
	assert_string_equal(to, from);
	must(r.b->ops->event_sync(r.b, ev, &e), &e);
	must(r.b->ops->event_time(r.b, ev, &first, &e), &e);
	must(r.b->ops->event_record(r.b, q[1], ev, &e), &e);
	must(r.b->ops->event_time(r.b, ev, &second, &e), &e);
	assert_true(first > 0 && second >= first);
	r.b->ops->event_close(r.b, ev);
	r.b->ops->event_close(r.b, NULL);
	r.b->ops->stream_close(r.b, q[0]);
	r.b->ops->stream_close(r.b, q[1]);
	r.b->ops->stream_close(r.b, NULL);
	rig_close(&r);
}

static void plain_backend_counts_its_memory(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_device_memory m;
	void *a, *b, *pinned;
	struct rig r;

	(void)state;
	assert_true(rig_open(&r, "base", 1));
	must(r.b->ops->alloc(r.b, 1000, &a, &e), &e);
	must(r.b->ops->alloc(r.b, 100000, &b, &e), &e);
	must(r.b->ops->alloc_pinned(r.b, 5000, &pinned, &e), &e);
	assert_int_equal((uintptr_t)pinned % 64, 0);
	r.b->ops->memory(r.b, &m);
	assert_in_range(m.used, 101000, 102000);
	r.b->ops->release(r.b, b);
	r.b->ops->memory(r.b, &m);
	assert_in_range(m.used, 1000, 1100);
	assert_in_range(m.most, 101000, 102000);
	assert_int_equal(m.cap, 0);
	r.b->ops->release(r.b, a);
	r.b->ops->release_pinned(r.b, pinned);
	r.b->ops->memory(r.b, &m);
	assert_int_equal(m.used, 0);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_backend_is_never_behind),
		cmocka_unit_test(plain_backend_counts_its_memory),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("compute_device", tests, NULL, NULL);
}
