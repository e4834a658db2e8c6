/* Graphs of the pipeline: models and quants of all kinds, pages, what is reported, and how a graph is stopped. */
#include <unistd.h>

#include "engine/pipeline_private.h"
#include "engine_pipeline_rig.h"

/* The CPU as a device: memory of its own, streams and copies. */
static struct moe_backend *device(void)
{
	struct moe_device_config c = {.device = "cpu", .threads = 1, .numerics = MOE_NUMERICS_INIT};
	struct moe_backend *b = NULL;
	struct moe_err e;

	must(moe_device_open(&c, &b, &e), &e);
	return b;
}

static void finish(struct flow *f, const char *what)
{
	struct moe_err e = MOE_ERR_INIT;

	flow_fill(f, 8);
	if (flow_run(f, 3, &e) != 0)
		fail_msg("%s: %s", what, e.msg);
	assert_int_equal(f->compared, flow_expected(f));
}

static void compare(const struct rig *plain, const struct way *way, const struct moe_offload *with, enum moe_kv_type kv)
{
	struct moe_backend *b = device();
	struct moe_offload o = way_offload(way, b, 3, 3);
	struct moe_err e = MOE_ERR_INIT;
	struct flow f;

	o.weights = 0.3;
	o.pages = with->pages;
	o.pinned = with->pinned;
	o.from_disk = with->from_disk;
	o.prefill_rows = with->prefill_rows;
	must(flow_open(&f, plain, &o, kv, &e), &e);
	finish(&f, way->name);
	flow_close(&f);
	b->ops->close(b);
}

static void compare_all(const struct rig *plain, const struct moe_offload *with, enum moe_kv_type kv)
{
	for (size_t w = 0; w < N_WAYS; w++)
		compare(plain, &ways[w], with, kv);
}

static void quants_and_caches(void **state)
{
	static const struct {
		const char *spec;
		enum moe_kv_type kv;
	} some[] = {{"tiny-mixtral,seed=1,quant=q8", MOE_KV_Q8},       {"tiny-qwen3-moe,seed=2,quant=q4", MOE_KV_F16},
	            {"tiny-qwen2-moe,seed=3,quant=q2", MOE_KV_BF16},   {"tiny-olmoe,seed=4,dtype=f32", MOE_KV_Q8},
	            {"tiny-mixtral,seed=1,dtype=f16,fused", MOE_KV_F32}};

	(void)state;
	for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
		struct rig *plain = plain_answers(some[i].spec, some[i].kv);

		compare_all(plain, &(struct moe_offload){.prefill_rows = i % 2 ? 300 : 0}, some[i].kv);
		rig_close(plain);
	}
}

static void windows_and_clips(void **state)
{
	struct rig *plain = rig_model("tiny-qwen3-moe,seed=2", 1);

	(void)state;
	for (int l = 0; l < plain->c->model.n_layers; l++) {
		plain->c->model.layers[l].attn.window = l == 1 ? 0 : 20 + 40 * l;
		plain->c->model.layers[l].attn.clip = 0.5f;
	}
	plain_run(plain, MOE_KV_F32, NULL);
	compare_all(plain, &(struct moe_offload){.prefill_rows = 0}, MOE_KV_F32);
	compare_all(plain, &(struct moe_offload){.prefill_rows = 300}, MOE_KV_F32);
	rig_close(plain);
}

static void any_number_of_pages(void **state)
{
	static const int pages[] = {1, 2, 5};
	struct rig *plain = plain_answers("tiny-mixtral,seed=1,layers=3", MOE_KV_F32);

	(void)state;
	for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
		compare_all(plain, &(struct moe_offload){.pages = pages[i]}, MOE_KV_F32);
		compare_all(plain, &(struct moe_offload){.pages = pages[i], .pinned = true, .prefill_rows = 300}, MOE_KV_F32);
	}
	rig_close(plain);
}

/* Experts of more rows than go through them at a time: as many as a test can do with. */
static void experts_in_many_turns(void **state)
{
	struct rig *plain = plain_answers("tiny-qwen2-moe,seed=3", MOE_KV_F32);
	struct moe_backend *b = device();
	struct moe_err e = MOE_ERR_INIT;
	struct flow f;

	(void)state;
	for (size_t w = 0; w < N_WAYS; w++) {
		struct moe_offload o = way_offload(&ways[w], b, 3, 3);

		o.prefill_rows = w % 2 ? 200 : 0;
		must(flow_open(&f, plain, &o, MOE_KV_F32, &e), &e);
		assert_true(f.p->form.expert_rows > 7);
		f.p->form.expert_rows = 7;
		finish(&f, ways[w].name);
		flow_close(&f);
	}
	b->ops->close(b);
	rig_close(plain);
}

/* ---- what is reported ---- */

static void every_route_is_reported(void **state)
{
	struct rig *plain = rig_model("tiny-qwen2-moe,seed=3", 1);
	struct moe_backend *b = device();
	struct moe_err e = MOE_ERR_INIT;
	uint64_t expected = 0;
	struct flow f;

	(void)state;
	plain_run(plain, MOE_KV_F32, &expected);
	for (size_t w = 0; w < N_WAYS; w++) {
		struct moe_offload o = way_offload(&ways[w], b, 3, 3);
		uint64_t routes = 0;

		o.prefill_rows = 300;
		must(flow_open(&f, plain, &o, MOE_KV_F32, &e), &e);
		moe_pipeline_on_route(f.p, add_route, &routes);
		finish(&f, ways[w].name);
		assert_int_equal(routes, expected);
		flow_close(&f);
	}
	b->ops->close(b);
	rig_close(plain);
}

struct seen {
	int graphs, prefills;
	uint64_t after;
};

static void look_at_graph(void *ctx, const struct moe_graph *g, const struct moe_span *spans)
{
	struct seen *s = ctx;
	struct moe_err e;

	must(moe_graph_check(g, &e), &e);
	s->graphs++;
	s->prefills += g->shape.prefill;
	for (uint32_t i = 0; i < g->n; i++) {
		assert_true(spans[i].begin >= s->after && spans[i].end >= spans[i].begin);
		for (uint32_t d = 0; d < g->tasks[i].n; d++)
			assert_true(spans[g->deps[g->tasks[i].first + d]].end <= spans[i].end);
	}
	s->after = spans[g->n - 1].begin;
}

static void graphs_are_shown_with_their_times(void **state)
{
	struct rig *plain = plain_answers("tiny-mixtral,seed=1", MOE_KV_F32);
	struct moe_backend *b = device();
	struct moe_err e = MOE_ERR_INIT;
	struct flow f;

	(void)state;
	for (size_t w = 0; w < N_WAYS; w++) {
		struct moe_offload o = way_offload(&ways[w], b, 3, 3);
		struct seen seen = {0};

		o.prefill_rows = 300;
		o.on_graph = look_at_graph;
		o.ctx_graph = &seen;
		must(flow_open(&f, plain, &o, MOE_KV_F32, &e), &e);
		finish(&f, ways[w].name);
		assert_int_equal(seen.prefills, 1);
		assert_int_equal(seen.graphs, 5); /* 11 steps, three a graph, after the prompts */
		flow_close(&f);
	}
	b->ops->close(b);
	rig_close(plain);
}

/* ---- ends ---- */

static void a_graph_is_stopped_when_all_have_ended(void **state)
{
	struct rig *plain = plain_answers("tiny-mixtral,seed=1", MOE_KV_F32);
	struct moe_backend *b = device();
	struct moe_err e = MOE_ERR_INIT;
	struct flow f;

	(void)state;
	for (size_t w = 0; w < N_WAYS; w++) {
		struct moe_offload o = way_offload(&ways[w], b, 3, 3);

		must(flow_open(&f, plain, &o, MOE_KV_F32, &e), &e);
		flow_fill(&f, 8);
		assert_int_equal(moe_pipeline_run(f.p, f.mb, f.n, 200, false, &f.stop, &e), MOE_E_CANCELLED);
		assert_int_equal(f.compared, flow_expected(&f));
		flow_close(&f);
	}
	b->ops->close(b);
	rig_close(plain);
}

static void graphs_that_cannot_be_are_refused(void **state)
{
	struct rig *plain = plain_answers("tiny-mixtral,seed=1", MOE_KV_F32);
	struct moe_backend *b = device();
	struct moe_offload o = way_offload(&ways[2], b, 3, 3);
	struct moe_err e = MOE_ERR_INIT;
	struct flow f;

	(void)state;
	must(flow_open(&f, plain, &o, MOE_KV_F32, &e), &e);
	flow_fill(&f, 8);
	assert_int_equal(moe_pipeline_run(f.p, f.mb, 0, 1, false, NULL, &e), MOE_E_RANGE);
	assert_int_equal(moe_pipeline_run(f.p, f.mb, 4, 1, false, NULL, &e), MOE_E_RANGE);
	assert_int_equal(moe_pipeline_run(f.p, f.mb, 3, 0, false, NULL, &e), MOE_E_RANGE);
	assert_int_equal(moe_pipeline_run(f.p, f.mb, 3, 1, true, NULL, &e), MOE_E_RANGE); /* no rows for prompts */
	f.mb[0].n = 4;
	assert_int_equal(moe_pipeline_run(f.p, f.mb, 3, 1, false, NULL, &e), MOE_E_RANGE);
	f.mb[0].n = 3;
	must(flow_run(&f, 2, &e), &e);
	assert_int_equal(f.compared, flow_expected(&f));
	flow_close(&f);
	b->ops->close(b);
	rig_close(plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quants_and_caches),
		cmocka_unit_test(windows_and_clips),
		cmocka_unit_test(any_number_of_pages),
		cmocka_unit_test(experts_in_many_turns),
		cmocka_unit_test(every_route_is_reported),
		cmocka_unit_test(graphs_are_shown_with_their_times),
		cmocka_unit_test(a_graph_is_stopped_when_all_have_ended),
		cmocka_unit_test(graphs_that_cannot_be_are_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine_pipeline_runs", tests, NULL, NULL);
}
