/* The pipeline's memory is what its plan says, to the byte, and a device that is too small is refused beforehand. */
#include "engine_pipeline_rig.h"

static struct moe_backend *device(size_t memory)
{
	struct moe_device_config c = {.device = "cpu", .memory = memory, .threads = 2, .numerics = MOE_NUMERICS_INIT};
	struct moe_backend *b = NULL;
	struct moe_err e;

	must(moe_device_open(&c, &b, &e), &e);
	return b;
}

static struct moe_offload way(size_t i, struct moe_backend *b)
{
	struct moe_offload o = way_offload(&ways[i], b, 3, 3);

	o.weights = 0.4;
	o.prefill_rows = i % 2 ? 300 : 0;
	return o;
}

static size_t used(struct moe_backend *b)
{
	struct moe_device_memory m;

	b->ops->memory(b, &m);
	assert_int_equal(m.most, m.used);
	return m.used;
}

/* Bytes of the device that it takes, the KV cache not counted, which is returned apart. */
static size_t planned(const struct rig *r, const struct moe_offload *o, size_t *kv)
{
	struct moe_engine_config c = flow_config(o, MOE_KV_F32);
	struct moe_engine_memory m = {0};
	struct moe_err e;
	size_t block;

	must(moe_pipeline_plan(&r->c->model, r->c->tensors, &c, &m, &e), &e);
	assert_true(moe_kv_block_bytes(&r->c->model, MOE_KV_F32, &block));
	*kv = moe_pipeline_kv_on_device(o) ? block * (size_t)c.max_sequences * CTX / MOE_KV_BLOCK : 0;
	assert_true(m.device_weights + m.device_slots < m.device);
	assert_true(m.pinned <= m.total);
	assert_int_equal(m.buffers, m.total);
	return m.device;
}

static void plan_is_what_is_taken(void **state)
{
	struct rig *r = plain_answers("tiny-qwen2-moe,seed=3", MOE_KV_F32);
	struct moe_err e = MOE_ERR_INIT;
	struct flow f;
	size_t kv;

	(void)state;
	for (size_t i = 0; i < N_DEVICE_WAYS; i++) {
		struct moe_backend *b = device(0);
		struct moe_offload o = way(i, b);
		size_t plan = planned(r, &o, &kv);

		must(flow_open(&f, r, &o, MOE_KV_F32, &e), &e);
		assert_int_equal(used(b), plan + kv);
		flow_fill(&f, 8);
		must(flow_run(&f, 3, &e), &e);
		assert_int_equal(f.compared, flow_expected(&f));
		assert_int_equal(used(b), plan + kv);
		flow_close(&f);
		b->ops->close(b);
	}
	rig_close(r);
}

/* A byte less than it needs. */
static void too_small_is_refused(const struct rig *r, size_t i, size_t plan, size_t kv)
{
	struct moe_backend *b = device(plan + kv - 1);
	struct moe_offload o = way(i, b);
	struct moe_err e = MOE_ERR_INIT;
	struct moe_device_memory m;
	struct flow f;

	assert_int_equal(flow_open(&f, r, &o, MOE_KV_F32, &e), MOE_E_NOMEM);
	if (!strstr(e.msg, "left of its memory") || !strstr(e.msg, "would fit") || !strstr(e.msg, moe_schedule_name(o.schedule)))
		if (o.schedule != MOE_SCHEDULE_RESIDENT)
			fail_msg("%s", e.msg);
	b->ops->memory(b, &m);
	assert_int_equal(m.used, kv);
	assert_int_equal(m.most, kv);
	flow_close(&f);
	b->ops->close(b);
}

static void just_enough_is_enough(void **state)
{
	struct rig *r = plain_answers("tiny-qwen3-moe,seed=3", MOE_KV_F32);
	struct moe_err e = MOE_ERR_INIT;
	struct flow f;
	size_t kv;

	(void)state;
	for (size_t i = 0; i < N_DEVICE_WAYS; i++) {
		struct moe_offload o = way(i, r->b); /* a plan does not look at the device */
		size_t plan = planned(r, &o, &kv);
		struct moe_backend *b = device(plan + kv);

		o.device = b;
		must(flow_open(&f, r, &o, MOE_KV_F32, &e), &e);
		flow_close(&f);
		b->ops->close(b);
		too_small_is_refused(r, i, plan, kv);
	}
	rig_close(r);
}

static void refuse(const struct rig *r, struct moe_offload o, size_t memory, const char *words)
{
	struct moe_err e = MOE_ERR_INIT;
	struct flow f;

	o.device = device(memory);
	assert_int_equal(flow_open(&f, r, &o, MOE_KV_F32, &e), MOE_E_NOMEM);
	if (!strstr(e.msg, words))
		fail_msg("'%s' is not in: %s", words, e.msg);
	flow_close(&f);
	o.device->ops->close(o.device);
}

/* And it is true. */
static void share_fits(const struct rig *r, struct moe_offload o, size_t memory)
{
	static const char words[] = "; a share of ";
	struct moe_err e = MOE_ERR_INIT;
	struct flow f;

	o.device = device(memory);
	assert_int_equal(flow_open(&f, r, &o, MOE_KV_F32, &e), MOE_E_NOMEM);
	flow_close(&f);
	if (!strstr(e.msg, words))
		fail_msg("%s", e.msg);
	o.weights = strtod(strstr(e.msg, words) + strlen(words), NULL);
	must(flow_open(&f, r, &o, MOE_KV_F32, &e), &e);
	flow_close(&f);
	o.device->ops->close(o.device);
}

static void what_would_fit_is_said(void **state)
{
	struct rig *r = plain_answers("tiny-mixtral,seed=3,layers=6", MOE_KV_F32);
	struct moe_offload o = {.schedule = MOE_SCHEDULE_CGOPIPE, .device = r->b, .micro_batches = 3, .micro_batch = 8};
	size_t none, all, kv;

	(void)state;
	none = planned(r, &o, &kv);
	o.weights = 0.8;
	all = planned(r, &o, &kv);
	assert_true(all > none);
	refuse(r, o, all - 1, "; a share of 0.7 of the experts would fit"); /* 21 of 30 */
	for (size_t memory = all - 1; memory > none; memory -= (all - none) / 7)
		share_fits(r, o, memory);
	refuse(r, o, none - 1, "; micro-batches of 4 sequences would fit with a share of 0 of the experts");
	refuse(r, o, 100000, " would do with a share of 0 of the experts");
	rig_close(r);
}

/* Before the KV cache is there it is counted too. */
static void kv_on_the_device_is_counted(void **state)
{
	struct rig *r = plain_answers("tiny-mixtral,seed=3", MOE_KV_F32);
	struct moe_offload o = {.schedule = MOE_SCHEDULE_RESIDENT, .device = r->b, .micro_batches = 3, .micro_batch = 8, .prefill_rows = 100};
	struct moe_engine_config c = flow_config(&o, MOE_KV_F32);
	struct moe_err e = MOE_ERR_INIT;
	size_t kv, plan = planned(r, &o, &kv);

	(void)state;
	o.device = device(plan + kv);
	must(moe_pipeline_fits(&r->c->model, r->c->tensors, &c, &e), &e);
	o.device->ops->close(o.device);
	o.device = device(plan + kv - 1);
	assert_int_equal(moe_pipeline_fits(&r->c->model, r->c->tensors, &c, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "KV cache 1.5 MiB"));
	assert_non_null(strstr(e.msg, "; micro-batches of 4 sequences and 50 prompt rows would fit"));
	o.device->ops->close(o.device);
	o.device = device(1000);
	assert_int_equal(moe_pipeline_fits(&r->c->model, r->c->tensors, &c, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "; a schedule that moves weights needs less"));
	o.device->ops->close(o.device);
	rig_close(r);
}

/* What every step fetches is pinned and counted so; what attention on the CPU reads is not. */
static void kv_that_moves_is_pinned(void **state)
{
	static const enum moe_schedule schedules[] = {MOE_SCHEDULE_FLEXGEN, MOE_SCHEDULE_ZERO, MOE_SCHEDULE_CGOPIPE, MOE_SCHEDULE_FLEXGEN_C};
	struct rig *r = plain_answers("tiny-mixtral,seed=3", MOE_KV_F32);
	struct moe_backend *d = device(0);

	(void)state;
	for (size_t i = 0; i < sizeof schedules / sizeof *schedules; i++) {
		bool moves = schedules[i] == MOE_SCHEDULE_FLEXGEN || schedules[i] == MOE_SCHEDULE_ZERO;
		struct moe_offload o = {.schedule = schedules[i], .device = d, .micro_batches = 2, .micro_batch = 3};
		struct moe_engine_config c = flow_config(&o, MOE_KV_F32);
		struct moe_kv_place place = moe_pipeline_kv_place(&o, r->b);
		struct moe_engine_memory whole, half;
		struct moe_err e;

		assert_int_equal(place.pinned, moves);
		assert_ptr_equal(place.b, moves ? d : r->b);
		must(moe_engine_plan(&r->c->model, r->c->tensors, &c, &whole, &e), &e);
		c.kv_memory = whole.kv / 2;
		must(moe_engine_plan(&r->c->model, r->c->tensors, &c, &half, &e), &e);
		assert_true(half.kv < whole.kv);
		assert_int_equal(whole.pinned - half.pinned, moves ? whole.kv - half.kv : 0);
	}
	d->ops->close(d);
	rig_close(r);
}

static void deny(const struct rig *r, struct moe_offload o, int code, const char *words)
{
	struct moe_err e = MOE_ERR_INIT;
	struct flow f;

	assert_int_equal(flow_open(&f, r, &o, MOE_KV_F32, &e), code);
	if (!strstr(e.msg, words))
		fail_msg("'%s' is not in: %s", words, e.msg);
	flow_close(&f);
}

static void what_does_not_go_together_is_refused(void **state)
{
	struct rig *r = plain_answers("tiny-mixtral,seed=3", MOE_KV_F32);
	const struct moe_offload good = {.schedule = MOE_SCHEDULE_CGOPIPE, .device = r->b, .micro_batches = 2, .micro_batch = 2};
	struct moe_offload o = good;

	(void)state;
	o.kv_on_device = true;
	deny(r, o, MOE_E_RANGE, "schedule cgopipe keeps the KV cache on the host");
	o = good;
	o.experts_on_cpu = true;
	deny(r, o, MOE_E_INPUT, "schedule cgopipe says itself where it computes");
	o = good;
	o.device = NULL;
	deny(r, o, MOE_E_RANGE, "schedule cgopipe needs a device");
	o = good;
	o.weights = 1.5;
	deny(r, o, MOE_E_RANGE, "a share of 1.5 of the experts");
	o = good;
	o.prefill_rows = -1;
	deny(r, o, MOE_E_RANGE, "-1 prefill rows");
	o = good;
	o.prefill_rows = 1 << 24;
	deny(r, o, MOE_E_RANGE, "are more than");
	rig_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plan_is_what_is_taken),
		cmocka_unit_test(just_enough_is_enough),
		cmocka_unit_test(what_would_fit_is_said),
		cmocka_unit_test(kv_on_the_device_is_counted),
		cmocka_unit_test(kv_that_moves_is_pinned),
		cmocka_unit_test(what_does_not_go_together_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine_pipeline_memory", tests, NULL, NULL);
}
