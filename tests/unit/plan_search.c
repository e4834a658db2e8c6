/* The search: nothing better on a grid, nothing that does not fit, more of anything never worse, the same answer twice. */
#include <math.h>

#include "plan_rig.h"

#define GIB 1073741824.0
#define LOSS 1e-6 /* relative, of throughput: what the search may miss where one size is nearly as good as the next */

/* A question that owns what it points at. */
struct question {
	struct moe_model model;
	struct moe_hardware hardware;
	struct moe_setting setting;
	struct moe_search how;
};

static void ask(struct question *a, const char *model, const char *machine, const char *workload)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_fleet f;

	if (moe_synth_model(model, &a->model, &e) || moe_hardware_named(machine, &f, &e))
		fail_msg("%s", e.msg);
	a->hardware = f.hosts[0];
	moe_fleet_free(&f);
	a->setting = (struct moe_setting){.model = &a->model, .hardware = &a->hardware, .quants = MOE_QUANTS_INIT, .kv_bytes = 2};
	assert_int_equal(moe_workload_named(workload, &a->setting.workload, &e), 0);
	a->how = (struct moe_search)MOE_SEARCH_INIT;
}

static void drop(struct question *a)
{
	moe_model_free(&a->model);
}

static void found(const struct question *a, struct moe_found *f)
{
	struct moe_err e = MOE_ERR_INIT;

	if (moe_search(&a->setting, &a->how, f, &e))
		fail_msg("%s", e.msg);
}

static void set_level(struct question *a, const char *level, double memory)
{
	int i = moe_level_find(&a->hardware, level);

	assert_true(i >= 0);
	a->hardware.levels[i].memory = memory;
}

static bool is_long(void)
{
	const char *text = getenv("MOE_LONG");

	return text && strcmp(text, "1") == 0;
}

/* ---- a grid, walked without any cleverness ---- */

struct grid {
	const struct question *a;
	struct moe_execution x;
	double best;
	int shares;                  /* parts that 1 is cut into */
	long tried;
};

/* Does it fit on `level`? */
static bool point(struct grid *g, int level)
{
	struct moe_prediction p;
	double bound = g->a->how.latency_bound;

	g->tried++;
	if (moe_predict(&g->a->setting, &g->x, &p, NULL) != 0)
		return false;
	if (p.fits && !(bound > 0 && p.step_seconds > bound) && p.tokens_per_second > g->best)
		g->best = p.tokens_per_second;
	return p.memory[level].used.total <= p.memory[level].available;
}

/* The largest share of weights that fits on level `first`, the rest on `second`: bisection ends close to it. */
static void edge(struct grid *g, int first, int second)
{
	double low = 0, high = 1 - g->x.weights[second + 1], rest = high;

	for (int i = 0; i < 20; i++) {
		double middle = (low + high) / 2;

		g->x.weights[first] = middle;
		g->x.weights[second] = rest - middle;
		if (point(g, first))
			low = middle;
		else
			high = middle;
	}
}

/* Weights on the levels from ffn_on on: every part of the grid, and the edges of memory. */
static void over_weights(struct grid *g, int levels)
{
	int first = g->x.ffn_on;

	for (int third = 0; third <= (levels - first > 2 ? g->shares : 0); third++) {
		memset(g->x.weights, 0, sizeof g->x.weights);
		if (third)
			g->x.weights[first + 2] = (double)third / g->shares;
		if (first + 1 < levels) {
			edge(g, first, first + 1);
		} else {
			g->x.weights[first] = 1;
			point(g, first);
		}
	}
	memset(g->x.weights, 0, sizeof g->x.weights);
	g->x.weights[first] = 1;
	point(g, first);
}

static void over_kv(struct grid *g, int levels)
{
	int first = g->x.attention_on;

	for (int second = 0; second <= (first + 1 < levels ? g->shares : 0); second++) {
		memset(g->x.kv, 0, sizeof g->x.kv);
		g->x.kv[first] = 1 - (double)second / g->shares;
		g->x.kv[first + 1] = (double)second / g->shares;
		over_weights(g, levels);
	}
}

/* Is it a kind of policy at all? */
static bool is_kind(struct grid *g)
{
	struct moe_prediction p;

	g->x.batch = g->x.micro_batch = g->x.prefill_micro_batch = 1;
	memset(g->x.weights, 0, sizeof g->x.weights);
	memset(g->x.kv, 0, sizeof g->x.kv);
	g->x.weights[g->x.ffn_on] = g->x.kv[g->x.attention_on] = 1;
	return moe_predict(&g->a->setting, &g->x, &p, NULL) == 0;
}

static void over_sizes(struct grid *g, double ratio, int64_t most)
{
	static const int64_t counts[] = {1, 2, 3, 4, 8, 20};
	static const int64_t prefills[] = {1, 2, 4, 8, 12, 18, 24, 32, 64, 128};
	int levels = g->a->hardware.n_levels;

	for (double batch = 1; batch <= (double)most; batch = batch * ratio + 1)
		for (size_t n = 0; n < (is_long() ? 6 : 4); n++)
			for (size_t m = 0; m < 10; m++) {
				g->x.batch = (int64_t)batch;
				g->x.micro_batch = (g->x.batch + counts[n] - 1) / counts[n];
				g->x.prefill_micro_batch = prefills[m];
				if (counts[n] <= g->x.batch && prefills[m] <= g->x.batch)
					over_kv(g, levels);
			}
}

static double grid_best(const struct question *a, int shares, double ratio, int64_t most)
{
	struct grid g = {.a = a, .shares = shares};

	for (int s = 0; s < MOE_SCHEDULES; s++)
		for (g.x.attention_on = 0; g.x.attention_on < a->hardware.n_levels; g.x.attention_on++)
			for (g.x.ffn_on = 0; g.x.ffn_on < a->hardware.n_levels; g.x.ffn_on++) {
				g.x.schedule = (enum moe_schedule)s;
				if (is_kind(&g))
					over_sizes(&g, ratio, most);
			}
	print_message("# grid: %ld points, best %.6g\n", g.tried, g.best);
	return g.best;
}

/* The edges of memory with the last level's share of weights a little more or less. */
static void near_weights(struct grid *g, const struct moe_execution *x, int width)
{
	int first = x->ffn_on, last = g->a->hardware.n_levels - 1;
	bool third = last > first + 1;

	for (int t = third ? -width : 0; t <= (third ? width : 0); t++) {
		memset(g->x.weights, 0, sizeof g->x.weights);
		if (third)
			g->x.weights[last] = x->weights[last] * (1 + 0.1 * t / width);
		if (last > first)
			edge(g, first, first + 1);
		memcpy(g->x.weights, x->weights, sizeof x->weights);
		point(g, first);
	}
}

/* Every size near what was found, every share of the cache near it, and the edges of memory: nothing beside it is better. */
static double near_best(const struct question *a, const struct moe_found *f, int width)
{
	const struct moe_execution *x = &f->execution;
	int64_t n = (x->batch + x->micro_batch - 1) / x->micro_batch;
	struct grid g = {.a = a, .x = *x, .best = 0, .shares = 0};

	for (int b = -width; b <= width; b++)
		for (int64_t count = n > 2 ? n - 2 : 1; count <= n + 2; count++)
			for (int m = -2; m <= 2; m++)
				for (int k = 0; k <= width; k++) {
					int to = x->attention_on + 1;

					g.x = *x;
					g.x.batch = x->batch + (b < -2 || b > 2 ? b * x->batch / (20 * width) : b);
					g.x.prefill_micro_batch += m;
					if (g.x.batch < count || g.x.prefill_micro_batch < 1 || g.x.prefill_micro_batch > g.x.batch)
						continue;
					g.x.micro_batch = (g.x.batch + count - 1) / count;
					if (k > 0 && to < a->hardware.n_levels) {
						double moved = 0.02 * k / width;

						g.x.kv[x->attention_on] -= moved;
						g.x.kv[to] += moved;
						if (g.x.kv[x->attention_on] < 0)
							continue;
					}
					near_weights(&g, x, width);
				}
	print_message("# near it: %ld points\n", g.tried);
	return g.best;
}

/* The host's memory in GiB; no disk: `levels` 2. */
struct comparison {
	const char *model, *machine, *workload;
	double host;
	int levels, shares;
	double ratio;
	int64_t most;
};

static void keep_levels(struct moe_hardware *h, int n)
{
	int links = 0;

	for (int i = 0; i < h->n_links; i++)
		if (h->links[i].from < n && h->links[i].to < n)
			h->links[links++] = h->links[i];
	h->n_levels = n;
	h->n_links = links;
}

static void compare(const struct comparison *c)
{
	double best, near;
	struct moe_found f;
	struct question a;

	ask(&a, c->model, c->machine, c->workload);
	set_level(&a, "cpu", c->host * GIB);
	keep_levels(&a.hardware, c->levels);
	found(&a, &f);
	best = grid_best(&a, c->shares, c->ratio, c->most);
	near = near_best(&a, &f, is_long() ? 20 : 2);
	print_message("# %s, %s, %.0f GiB, %d levels: %.9g tokens/s; of the best on the grid %.9f, near it %.9f\n", c->model, c->machine,
	              c->host, c->levels, f.prediction.tokens_per_second, f.prediction.tokens_per_second / best,
	              f.prediction.tokens_per_second / near);
	assert_true(f.prediction.fits);
	assert_true(f.prediction.tokens_per_second >= best * (1 - LOSS));
	assert_true(f.prediction.tokens_per_second >= near * (1 - LOSS));
	drop(&a);
}

static void nothing_better_on_a_grid(void **state)
{
	static const struct comparison quick[] = {
		{"mixtral-8x7b", "t4", "mtbench", 184, 2, 1, 1.25, 4000},
		{"mixtral-8x7b", "t4", "mtbench", 184, 3, 2, 3, 5000},
	};
	static const struct comparison dense[] = {
		{"mixtral-8x7b", "t4", "mtbench", 184, 2, 4, 1.02, 5000},    {"mixtral-8x7b", "t4", "helm-summarization", 184, 2, 4, 1.02, 2000},
		{"mixtral-8x7b", "l4", "helm-reasoning", 120, 2, 4, 1.02, 5000}, {"qwen3-30b-a3b", "rtx4090", "mtbench", 128, 2, 4, 1.02, 10000},
		{"olmoe-1b-7b", "a10", "mtbench", 64, 2, 4, 1.02, 10000},    {"mixtral-8x22b", "a100-80", "mtbench", 384, 2, 4, 1.02, 6000},
		{"mixtral-8x7b", "t4", "mtbench", 60, 3, 5, 1.15, 4000},      {"qwen3-30b-a3b", "rtx3090", "helm-reasoning", 40, 3, 5, 1.15, 4000},
		{"mixtral-8x7b", "n1", "mtbench", 184, 1, 1, 1.01, 6000},     {"mixtral-8x22b", "xeon-1s", "mtbench", 256, 2, 8, 1.05, 4000},
	};

	(void)state;
	for (size_t i = 0; i < sizeof quick / sizeof *quick; i++)
		compare(&quick[i]);
	for (size_t i = 0; is_long() && i < sizeof dense / sizeof *dense; i++)
		compare(&dense[i]);
}

/* ---- properties ---- */

/* Numbers that repeat: no library's generator is the same everywhere. */
static double draw(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (double)(*state >> 33) / (double)(1u << 31);
}

static double spread(uint64_t *state, double low, double high)
{
	return low * pow(high / low, draw(state));
}

/* A machine like those that exist: GPU, host and disk, or only a host. */
static void machine(struct moe_hardware *h, uint64_t *state)
{
	struct moe_hardware m = {.name = "drawn", .n_levels = 3, .n_links = 4};
	bool only_host = draw(state) < 0.2;

	m.levels[0] = (struct moe_memory_level){.name = "gpu", .count = 1 + (int)(draw(state) * 4), .memory = spread(state, 12 * GIB, 90 * GIB),
	                                        .bandwidth = spread(state, 3e11, 4e12), .flops = {1e13, spread(state, 3e13, 1e15), 0, 0}};
	m.levels[1] = (struct moe_memory_level){.name = "cpu", .count = 1, .memory = spread(state, 30 * GIB, 800 * GIB),
	                                        .bandwidth = spread(state, 3e10, 7e11), .flops = {spread(state, 5e11, 2e13), 0, 0, 0}};
	m.levels[2] = (struct moe_memory_level){.name = "disk", .count = 1, .memory = 4e12};
	m.links[0] = (struct moe_link){1, 0, spread(state, 8e9, 6e10), 1e-5, draw(state) < 0.5};
	m.links[1] = (struct moe_link){0, 1, m.links[0].bandwidth, 1e-5, m.links[0].shared};
	m.links[2] = (struct moe_link){2, 1, spread(state, 5e8, 1.2e10), 1e-4, true};
	m.links[3] = (struct moe_link){1, 2, m.links[2].bandwidth, 1e-4, true};
	if (only_host) {
		m.levels[0] = m.levels[1];
		m.levels[1] = m.levels[2];
		m.links[0] = (struct moe_link){1, 0, m.links[2].bandwidth, 1e-4, true};
		m.links[1] = (struct moe_link){0, 1, m.links[2].bandwidth, 1e-4, true};
		m.n_levels = m.n_links = 2;
	}
	*h = m;
}

static void drawn(struct question *a, uint64_t *state)
{
	static const char *const models[] = {"mixtral-8x7b", "qwen3-30b-a3b", "olmoe-1b-7b"};
	static const char *const workloads[] = {"mtbench", "helm-reasoning", "helm-summarization"};

	ask(a, models[(int)(draw(state) * 3)], "t4", workloads[(int)(draw(state) * 3)]);
	machine(&a->hardware, state);
}

static double best_of(const struct question *a)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_found f;
	int rc = moe_search(&a->setting, &a->how, &f, &e);

	if (rc == MOE_E_RANGE)
		return 0;
	assert_int_equal(rc, 0);
	assert_true(f.prediction.fits);
	return f.prediction.tokens_per_second;
}

/* One number of the machine half as large again; false: there is no such number. */
static bool improve(struct moe_hardware *h, int which)
{
	int level = which / 3;

	if (which >= 9) {
		if (which - 9 >= h->n_links)
			return false;
		h->links[which - 9].bandwidth *= 1.5;
		return true;
	}
	if (level >= h->n_levels || (which % 3 > 0 && h->levels[level].bandwidth == 0))
		return false;
	if (which % 3 == 0)
		h->levels[level].memory *= 1.5;
	else if (which % 3 == 1)
		h->levels[level].bandwidth *= 1.5;
	else
		for (int t = 0; t < MOE_FLOPS_TYPES; t++)
			h->levels[level].flops[t] *= 1.5;
	return true;
}

static void more_of_anything_is_never_worse(void **state)
{
	uint64_t random = 7;

	(void)state;
	for (int i = 0; i < (is_long() ? 200 : 2); i++) {
		struct question a;
		double before;

		drawn(&a, &random);
		before = best_of(&a);
		for (int which = 0; which < 13; which++) {
			struct question b = a;

			b.setting.model = &b.model;
			b.setting.hardware = &b.hardware;
			if (!improve(&b.hardware, which))
				continue;
			if (best_of(&b) < before * (1 - LOSS))
				fail_msg("machine %d: %.9g tokens/s with more of number %d, %.9g before", i, best_of(&b), which, before);
		}
		drop(&a);
	}
}

static void a_bound_on_the_step_is_kept(void **state)
{
	struct moe_found free, bound;
	struct question a;

	(void)state;
	ask(&a, "mixtral-8x7b", "t4", "mtbench");
	found(&a, &free);
	for (double part = 0.9; part > 0.3; part -= 0.25) {
		a.how.latency_bound = free.prediction.step_seconds * part;
		found(&a, &bound);
		assert_true(bound.prediction.step_seconds <= a.how.latency_bound);
		assert_true(bound.prediction.tokens_per_second <= free.prediction.tokens_per_second);
		assert_true(bound.prediction.fits);
	}
	a.how.latency_bound = 0;
	a.how.objective = MOE_LEAST_LATENCY;
	found(&a, &bound);
	assert_int_equal(bound.execution.batch, 1);
	assert_true(bound.prediction.step_seconds < free.prediction.step_seconds);
	drop(&a);
}

static void what_is_fixed_stays(void **state)
{
	struct moe_found f;
	struct question a;

	(void)state;
	ask(&a, "mixtral-8x7b", "t4", "mtbench");
	a.how.batch = 504;
	a.how.micro_batch = 36;
	a.how.schedule = MOE_SCHEDULE_CGOPIPE;
	found(&a, &f);
	assert_int_equal(f.execution.batch, 504);
	assert_int_equal(f.execution.micro_batch, 36);
	assert_int_equal(f.execution.schedule, MOE_SCHEDULE_CGOPIPE);
	a.how.batch = a.how.micro_batch = 0;
	a.how.schedule = -1;
	a.how.ffn_on = a.how.attention_on = 1;
	a.how.max_batch = 100;
	found(&a, &f);
	assert_int_equal(f.execution.ffn_on, 1);
	assert_int_equal(f.execution.attention_on, 1);
	assert_in_range(f.execution.batch, 1, 100);
	drop(&a);
}

static void the_same_answer_twice(void **state)
{
	struct moe_found f, g;
	struct question a;

	(void)state;
	ask(&a, "qwen3-30b-a3b", "rtx4090", "helm-reasoning");
	found(&a, &f);
	found(&a, &g);
	assert_memory_equal(&f.execution, &g.execution, sizeof f.execution);
	assert_int_equal(f.tried, g.tried);
	drop(&a);
}

static void smaller_quants_are_chosen_where_they_may_be(void **state)
{
	struct moe_found kept, chosen;
	struct question a;

	(void)state;
	ask(&a, "mixtral-8x7b", "t4", "mtbench");
	found(&a, &kept);
	a.how.any_quant = true;
	found(&a, &chosen);
	assert_int_equal(kept.quants.experts, MOE_Q_KEEP);
	assert_true(chosen.prediction.tokens_per_second > kept.prediction.tokens_per_second);
	assert_true(moe_quant_is_coded(chosen.quants.experts));
	drop(&a);
}

static void what_would_help_is_told(void **state)
{
	struct moe_lever levers[MOE_LEVERS];
	struct moe_found f;
	struct question a;
	int n;

	(void)state;
	ask(&a, "mixtral-8x7b", "t4", "mtbench");
	found(&a, &f);
	assert_int_equal(moe_search_sensitivity(&a.setting, &a.how, &f, levers, &n, NULL), 0);
	/* Three levels of which two compute, four links, two factors. */
	assert_int_equal(n, 2 * (3 + 2 + 2 + a.hardware.n_links));
	for (int i = 0; i < n; i++) {
		assert_true(levers[i].gain >= 0 && isfinite(levers[i].gain));
		assert_true(i == 0 || levers[i].gain <= levers[i - 1].gain);
		print_message("# %-26s x %.2f: %+.1f %%\n", levers[i].name, levers[i].factor, 100 * levers[i].gain);
	}
	/* Weights that pass the link are what takes time. */
	assert_true(levers[0].gain > 0.05 && levers[0].factor > 1.5);
	drop(&a);
}

/* ---- what does not fit ---- */

static void refused(const struct question *a, const char *words, const char *more)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_found f;

	assert_int_equal(moe_search(&a->setting, &a->how, &f, &e), MOE_E_RANGE);
	print_message("# %s\n", e.msg);
	if (!strstr(e.msg, words) || !strstr(e.msg, more))
		fail_msg("\"%s\" should say \"%s\" and \"%s\"", e.msg, words, more);
}

static void what_does_not_fit_is_refused_with_numbers(void **state)
{
	struct question a;

	(void)state;
	ask(&a, "mixtral-8x7b", "n1", "mtbench");
	set_level(&a, "cpu", 40 * GIB);
	a.hardware.n_levels = 1;
	a.hardware.n_links = 0;
	refused(&a, "GiB of cpu memory at batch 1, 40.0 GiB there are", "with q4 weights it would fit");
	set_level(&a, "cpu", 1 * GIB);
	refused(&a, "1.0 GiB there are", "no quant is small enough");
	set_level(&a, "cpu", 120 * GIB);
	a.how.latency_bound = 1e-4;
	refused(&a, "a decode step takes", "are allowed");
	a.how.latency_bound = 0;
	a.how.batch = 100000;
	refused(&a, "a batch of 100000 does not fit", "does");
	drop(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_better_on_a_grid),
		cmocka_unit_test(more_of_anything_is_never_worse),
		cmocka_unit_test(a_bound_on_the_step_is_kept),
		cmocka_unit_test(what_is_fixed_stays),
		cmocka_unit_test(the_same_answer_twice),
		cmocka_unit_test(smaller_quants_are_chosen_where_they_may_be),
		cmocka_unit_test(what_would_help_is_told),
		cmocka_unit_test(what_does_not_fit_is_refused_with_numbers),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
