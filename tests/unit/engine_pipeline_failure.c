/* Devices that fail and files that are cut short: a graph ends with one message, nothing stays taken, and the pipeline goes on. */
#include <unistd.h>

#include "engine_pipeline_rig.h"
#include "failing_device.h"

#define SEQUENCES 6
#define STEPS 2

static void failing(struct failing_device *d)
{
	failing_open(d, &(struct moe_device_config){.device = "cpu", .threads = 1, .numerics = MOE_NUMERICS_INIT});
}

static struct moe_offload offload(const struct way *way, struct moe_backend *b)
{
	struct moe_offload o = way_offload(way, b, 3, 2);

	o.weights = 0.3;
	o.prefill_rows = (way - ways) % 2 ? 200 : 0;
	return o;
}

static void nothing_is_taken(const struct failing_device *d)
{
	struct moe_device_memory m;

	d->whole->memory(d->b, &m);
	assert_int_equal(m.used, 0);
}

/* ---- opening ---- */

/* How many allocations, streams, copies ... there are when it is opened. */
static void count_opening(const struct rig *r, const struct way *way, int count[FAILINGS])
{
	struct failing_device d;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_offload o;
	struct flow f;

	failing(&d);
	o = offload(way, d.b);
	must(flow_open(&f, r, &o, MOE_KV_F32, &e), &e);
	for (int i = 0; i < FAILINGS; i++)
		count[i] = atomic_load(&d.done[i]);
	flow_close(&f);
	failing_close(&d);
}

static void fail_opening(const struct rig *r, const struct way *way, enum failing what, int after)
{
	struct failing_device d;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_offload o;
	struct flow f;

	failing(&d);
	o = offload(way, d.b);
	failing_arm(&d, what, after, MOE_E_NOMEM);
	assert_int_equal(flow_open(&f, r, &o, MOE_KV_F32, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "as it was told to"));
	assert_true(d.failed);
	flow_close(&f);
	nothing_is_taken(&d);
	failing_close(&d);
}

static void opening_fails_and_leaves_nothing(void **state)
{
	static const enum failing what[] = {FAIL_ALLOC, FAIL_PINNED, FAIL_STREAM, FAIL_COPY};
	struct rig *r = plain_answers("tiny-qwen2-moe,seed=3", MOE_KV_F32);

	(void)state;
	for (size_t w = 0; w < N_DEVICE_WAYS; w++) {
		int count[FAILINGS];

		count_opening(r, &ways[w], count);
		for (size_t i = 0; i < sizeof what / sizeof *what; i++)
			for (int after = 0; after < count[what[i]]; after += 1 + count[what[i]] / 7)
				fail_opening(r, &ways[w], what[i], after);
	}
	rig_close(r);
}

/* ---- graphs ---- */

/* Copies and operations of a whole run. */
static void count_run(const struct rig *r, const struct way *way, int count[FAILINGS])
{
	struct failing_device d;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_offload o;
	struct flow f;

	failing(&d);
	o = offload(way, d.b);
	must(flow_open(&f, r, &o, MOE_KV_F32, &e), &e);
	for (int i = 0; i < FAILINGS; i++)
		atomic_store(&d.done[i], 0);
	flow_fill(&f, SEQUENCES);
	must(flow_run(&f, STEPS, &e), &e);
	for (int i = 0; i < FAILINGS; i++)
		count[i] = atomic_load(&d.done[i]);
	flow_close(&f);
	failing_close(&d);
}

/* Afterwards the same sequences, begun again, get through. */
static void fail_run(const struct rig *r, const struct way *way, enum failing what, int after)
{
	struct failing_device d;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_offload o;
	struct flow f;
	int rc;

	failing(&d);
	o = offload(way, d.b);
	must(flow_open(&f, r, &o, MOE_KV_F32, &e), &e);
	flow_fill(&f, SEQUENCES);
	failing_arm(&d, what, after, MOE_E_IO);
	rc = flow_run(&f, STEPS, &e);
	if (rc != MOE_E_IO)
		fail_msg("%s: %d instead of a failure: %s", way->name, rc, e.msg);
	assert_true(d.failed);
	assert_non_null(strstr(e.msg, "as it was told to"));
	assert_true(strstr(e.msg, " of step ") || strstr(e.msg, "lane "));
	flow_empty(&f);
	flow_fill(&f, SEQUENCES);
	must(flow_run(&f, STEPS, &e), &e);
	assert_int_equal(f.compared, flow_expected(&f));
	flow_close(&f);
	nothing_is_taken(&d);
	failing_close(&d);
}

static void graphs_fail_and_the_pipeline_goes_on(void **state)
{
	static const enum failing what[] = {FAIL_OP, FAIL_COPY};
	struct rig *r = plain_answers("tiny-qwen2-moe,seed=3", MOE_KV_F32);

	(void)state;
	for (size_t w = 0; w < N_DEVICE_WAYS; w++) {
		int count[FAILINGS];

		count_run(r, &ways[w], count);
		for (size_t i = 0; i < sizeof what / sizeof *what; i++)
			for (int after = 0; after < count[what[i]]; after += 1 + count[what[i]] / 5)
				fail_run(r, &ways[w], what[i], after);
	}
	rig_close(r);
}

/* ---- files ---- */

/* Experts that are read from a file again for every step, which is cut short between two graphs. */
static void cut_file(const struct way *way)
{
	char parent[] = "/tmp/moe-pipeline-XXXXXX", dir[64], path[128];
	struct rig *r = rig_model("tiny-mixtral,seed=1,layers=4", 1);
	struct failing_device d;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_offload o;
	struct flow f;

	assert_non_null(mkdtemp(parent));
	snprintf(dir, sizeof dir, "%s/model", parent);
	must(moe_synth_write("tiny-mixtral,seed=1,layers=4", NULL, dir, &e), &e);
	plain_run(r, MOE_KV_F32, NULL);
	moe_engine_free(r->g);
	r->g = NULL;
	r->local->ops->close(r->local);
	moe_checkpoint_close(r->c);
	must(moe_checkpoint_open(dir, &r->c, &e), &e);
	must(moe_experts_local(r->b, r->c->tensors, &r->c->model, NULL, 256, &r->local, &e), &e);
	failing(&d);
	o = offload(way, d.b);
	o.from_disk = true;
	must(flow_open(&f, r, &o, MOE_KV_F32, &e), &e);
	flow_fill(&f, SEQUENCES);
	must(moe_pipeline_run(f.p, f.mb, f.n, 1, false, NULL, &e), &e);
	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	assert_int_equal(truncate(path, 4096), 0);
	assert_int_equal(moe_pipeline_run(f.p, f.mb, f.n, 1, false, NULL, &e), MOE_E_IO);
	assert_non_null(strstr(e.msg, "model.safetensors"));
	flow_close(&f);
	failing_close(&d);
	rig_close(r);
	snprintf(path, sizeof path, "rm -rf %s", parent);
	assert_int_equal(system(path), 0);
}

static void a_file_that_is_cut_short_is_named(void **state)
{
	(void)state;
	for (size_t w = 0; w < N_DEVICE_WAYS; w++)
		if (ways[w].o.schedule != MOE_SCHEDULE_RESIDENT)
			cut_file(&ways[w]);
}

/* ---- clients ---- */

static int refuses(void *ctx, struct moe_micro_batch *mb, int step, struct moe_err *e)
{
	(void)ctx, (void)mb;
	return step == 1 ? moe_fail(e, MOE_E_TIMEOUT, "the client does not want to") : 0;
}

static void a_client_that_fails_ends_the_graph(void **state)
{
	struct rig *r = plain_answers("tiny-mixtral,seed=1", MOE_KV_F32);
	struct moe_pipeline_client client = {refuses, refuses, NULL};
	struct failing_device d;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_offload o;
	struct flow f;

	(void)state;
	failing(&d);
	o = offload(&ways[0], d.b);
	must(flow_open(&f, r, &o, MOE_KV_F32, &e), &e);
	moe_pipeline_close(f.p);
	must(moe_pipeline_open(&r->c->model, r->c->tensors, f.host, &f.kv, &f.c, &client, &f.p, &e), &e);
	flow_fill(&f, SEQUENCES);
	must(moe_pipeline_run(f.p, f.mb, f.n, 1, false, NULL, &e), &e);
	assert_int_equal(moe_pipeline_run(f.p, f.mb, f.n, 2, false, NULL, &e), MOE_E_TIMEOUT);
	assert_non_null(strstr(e.msg, "embed of step 1"));
	flow_close(&f);
	failing_close(&d);
	rig_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opening_fails_and_leaves_nothing),
		cmocka_unit_test(graphs_fail_and_the_pipeline_goes_on),
		cmocka_unit_test(a_file_that_is_cut_short_is_named),
		cmocka_unit_test(a_client_that_fails_ends_the_graph),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine_pipeline_failure", tests, NULL, NULL);
}
