/* The search: nothing better on a grid, nothing that does not fit, more of anything never worse, the same answer twice. */
#include <math.h>

#include "plan_rig.h"

#define GIB 1073741824.0
#define LOSS 1e-9 /* relative, of throughput: what the search may miss */

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

/* ---- a grid, walked without any cleverness ---- */

struct grid {
	const struct question *a;
	struct moe_execution x;
	double best;
	int shares;                  /* parts that 1 is cut into */
	long tried;
};

static bool point(struct grid *g)
{
	struct moe_prediction p;
	double bound = g->a->how.latency_bound;

	g->tried++;
	if (moe_predict(&g->a->setting, &g->x, &p, NULL) != 0)
		return false;
	if (p.fits && !(bound > 0 && p.step_seconds > bound) && p.tokens_per_second > g->best)
		g->best = p.tokens_per_second;
	return p.fits;
}

/* The largest share of weights at level `first` that fits, the rest on `second`: bisection ends close to it. */
static void edge(struct grid *g, int first, int second)
{
	double low = 0, high = 1 - g->x.weights[0] - g->x.weights[1] - g->x.weights[2];
	double rest = high;

	for (int i = 0; i < 26; i++) {
		double middle = (low + high) / 2;

		g->x.weights[first] = middle;
		g->x.weights[second] = rest - middle;
		if (point(g))
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
			point(g);
		}
	}
	memset(g->x.weights, 0, sizeof g->x.weights);
	g->x.weights[first] = 1;
	point(g);
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
	static const int64_t prefills[] = {1, 4, 16, 64};
	int levels = g->a->hardware.n_levels;

	for (double batch = 1; batch <= (double)most; batch = batch * ratio + 1)
		for (size_t n = 0; n < 6; n++)
			for (size_t m = 0; m < 4; m++) {
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

static void compare(struct question *a, const char *what, int shares, double ratio, int64_t most)
{
	struct moe_found f;
	double best;

	found(a, &f);
	best = grid_best(a, shares, ratio, most);
	print_message("# %s: found %.9g, on the grid %.9g: %.6f\n", what, f.prediction.tokens_per_second, best,
	              f.prediction.tokens_per_second / best);
	assert_true(f.prediction.fits);
	assert_true(f.prediction.tokens_per_second >= best * (1 - LOSS));
}

static bool is_long(void)
{
	const char *text = getenv("MOE_LONG");

	return text && strcmp(text, "1") == 0;
}

static void nothing_better_on_a_grid(void **state)
{
	static const struct { const char *model, *machine, *workload; double host; bool quick; } cases[] = {
		{"mixtral-8x7b", "t4", "mtbench", 184, true}, {"mixtral-8x7b", "t4", "mtbench", 60, false},
		{"mixtral-8x7b", "l4", "helm-reasoning", 184, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct question a;

		if (!cases[i].quick && !is_long())
			continue;
		ask(&a, cases[i].model, cases[i].machine, cases[i].workload);
		set_level(&a, "cpu", cases[i].host * GIB);
		compare(&a, cases[i].model, is_long() ? 8 : 2, is_long() ? 1.1 : 1.7, 5000);
		drop(&a);
	}
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
	refused(&a, "GiB of cpu memory at batch 1, 40.0 there are", "with q4 weights it would fit");
	set_level(&a, "cpu", 1 * GIB);
	refused(&a, "1.0 there are", "no quant is small enough");
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
