/* The executor on backends: what a task wrote on one stream is there for the tasks that depend on it, on others and on the host. */
#include "base/team.h"
#include "executor_rig.h"

#define MOST_DEPS 40000

/* Task i writes i + 1 to its place on the device; whoever depends on it reads that. */
struct trial {
	struct moe_backend *b;
	struct moe_stream_q *streams[MOE_LANES];
	const struct moe_graph *g;
	uint64_t *device, *written, *seen; /* [tasks], [tasks] and [deps], the last two pinned */
};

static bool writes(const struct trial *r, uint32_t i)
{
	return r->streams[r->g->tasks[i].lane] != NULL;
}

static int run(void *ctx, const struct moe_task *t, struct moe_stream_q *q, struct moe_err *e)
{
	struct trial *r = ctx;
	uint32_t i = (uint32_t)(t - r->g->tasks);
	int rc = 0;
	for (uint32_t d = t->first; d < t->first + t->n && !rc; d++)
		if (writes(r, r->g->deps[d]))
			rc = r->b->ops->copy_out(r->b, q, &r->seen[d], &r->device[r->g->deps[d]], sizeof *r->seen, e);
	if (!q)
		return rc ? rc : r->b->ops->sync(r->b, NULL, e);
	r->written[i] = i + 1;
	return rc ? rc : r->b->ops->copy_in(r->b, q, &r->device[i], &r->written[i], sizeof *r->written, e);
}

static void run_graph(struct trial *r, struct moe_executor *x, const struct moe_graph *g)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_span *spans = calloc(g->n, sizeof *spans);
	assert_true(g->n <= RIG_MOST && g->n_deps <= MOST_DEPS);
	r->g = g;
	memset(r->seen, 0, MOST_DEPS * sizeof *r->seen);
	if (moe_executor_run(x, g, spans, NULL, &e))
		fail_msg("%s", e.msg);
	for (uint32_t i = 0; i < g->n; i++) {
		const struct moe_task *t = &g->tasks[i];
		assert_true(spans[i].begin > 0 && spans[i].begin <= spans[i].end);
		for (uint32_t d = t->first; d < t->first + t->n; d++)
			if (writes(r, g->deps[d])) {
				assert_int_equal(r->seen[d], g->deps[d] + 1);
				assert_true(spans[g->deps[d]].end <= spans[i].begin);
			}
	}
	free(spans);
}

static void run_graphs(struct trial *r, struct moe_executor *x)
{
	struct moe_schedule_shape s;
	struct moe_graph g;
	for (int n = 0; n < RIG_FLAVOURS; n++) {
		if (!rig_flavour(n, &s))
			continue;
		s.layers = s.micro_batches = 3;
		s.steps = 2;
		rig_build(&s, &g);
		run_graph(r, x, &g);
		moe_graph_free(&g);
	}
}

static void on_backend(struct moe_backend *b)
{
	static const enum moe_lane lanes[] = {MOE_LANE_GPU, MOE_LANE_H2D, MOE_LANE_D2H};
	struct moe_executor_config c = {.device = b, .run = run};
	struct trial r = {.b = b};
	struct moe_executor *x;
	void *mem[3];
	assert_int_equal(b->ops->alloc(b, RIG_MOST * sizeof *r.device, &mem[0], NULL), 0);
	assert_int_equal(b->ops->alloc_pinned(b, RIG_MOST * sizeof *r.written, &mem[1], NULL), 0);
	assert_int_equal(b->ops->alloc_pinned(b, MOST_DEPS * sizeof *r.seen, &mem[2], NULL), 0);
	r.device = mem[0];
	r.written = mem[1];
	r.seen = mem[2];
	for (int i = 0; i < 3; i++)
		assert_int_equal(b->ops->stream_open(b, &r.streams[lanes[i]], NULL), 0);
	memcpy(c.streams, r.streams, sizeof c.streams);
	c.ctx = &r;
	assert_int_equal(moe_executor_open(&c, &x, NULL), 0);
	run_graphs(&r, x);
	moe_executor_close(x);
	for (int i = 0; i < 3; i++)
		b->ops->stream_close(b, r.streams[lanes[i]]);
	b->ops->release(b, mem[0]);
	b->ops->release_pinned(b, mem[1]);
	b->ops->release_pinned(b, mem[2]);
	b->ops->close(b);
}

static void the_cpu_backend_runs_graphs(void **state)
{
	struct moe_backend *b;
	struct moe_team *team;
	(void)state;
	assert_int_equal(moe_team_new(1, &team, NULL), 0);
	assert_int_equal(moe_backend_cpu(team, NULL, &b, NULL), 0);
	on_backend(b);
	moe_team_free(team);
}

static void the_cpu_as_a_device_runs_graphs(void **state)
{
	const struct moe_device_config c = {.device = "cpu", .link_bandwidth = 1e7, .threads = 1, .numerics = MOE_NUMERICS_INIT};
	struct moe_backend *b;
	(void)state;
	assert_int_equal(moe_device_open(&c, &b, NULL), 0);
	on_backend(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_cpu_backend_runs_graphs),
		cmocka_unit_test(the_cpu_as_a_device_runs_graphs),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
