/* --explain: a policy as a page for people. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "policy.h"

#define LEVERS_SHOWN 6
#define WORTH 0.005 /* a gain below half a percent is none */

struct page {
	const struct options *o;
	const struct solution *s;
	const struct moe_hardware *h;
	int layer;                   /* the first with experts */
};

static const char *level_name(const struct page *p, int level)
{
	return p->h->levels[level].name;
}

/* What people call a lane. */
static const char *lane_words(enum moe_lane l)
{
	static const char *const words[MOE_LANES] = {
		[MOE_LANE_GPU] = "GPU", [MOE_LANE_CPU] = "CPU", [MOE_LANE_H2D] = "link to the GPU", [MOE_LANE_D2H] = "link from the GPU",
		[MOE_LANE_PIN] = "copying into pinned memory", [MOE_LANE_DISK] = "disk", [MOE_LANE_NETWORK] = "network",
	};

	return words[l];
}

/* "3.22 GB/s": three digits and a prefix of 1000. */
static const char *rate(double v, const char *unit, char buf[32])
{
	static const char *const prefix[] = {"", "k", "M", "G", "T", "P"};
	int i = 0;

	for (; v >= 999.5 && i < 5; i++)
		v /= 1000;
	snprintf(buf, 32, "%.3g %s%s", v, prefix[i], unit);
	return buf;
}

static const char *seconds(double v, char buf[32])
{
	if (v >= 1)
		snprintf(buf, 32, "%.3g s", v);
	else if (v >= 1e-3)
		snprintf(buf, 32, "%.3g ms", 1e3 * v);
	else
		snprintf(buf, 32, "%.3g us", 1e6 * v);
	return buf;
}

/* The largest terms of a sum, as "experts 12.1, base 0.9". */
static void print_terms(const struct moe_sum *sum, double unit)
{
	bool done[MOE_TERMS] = {false};
	const char *comma = "";

	for (int shown = 0; shown < 4; shown++) {
		int best = -1;

		for (int i = 0; i < sum->n; i++)
			if (!done[i] && (best < 0 || sum->terms[i].amount > sum->terms[best].amount))
				best = i;
		if (best < 0 || sum->terms[best].amount < 0.001 * sum->total)
			break;
		done[best] = true;
		printf("%s%s %.3g", comma, sum->terms[best].name, sum->terms[best].amount / unit);
		comma = ", ";
	}
	putchar('\n');
}

static void print_shares(const struct page *p, const char *what, const double *share)
{
	const char *comma = "";

	printf("              %s ", what);
	for (int i = 0; i < p->h->n_levels; i++)
		if (share[i] > 0) {
			printf("%s%.3g %% on %s", comma, 100 * share[i], level_name(p, i));
			comma = ", ";
		}
	putchar('\n');
}

static void print_question(const struct page *p)
{
	const struct moe_model *m = p->s->setting.model;
	const struct moe_ffn *f = &m->layers[p->layer].ffn;
	const struct moe_workload *w = &p->s->setting.workload;
	enum moe_quant experts = p->s->setting.quants.experts, rest = p->s->setting.quants.rest;

	printf("Model         %.3g B parameters, %.3g B for a token; %d layers, %d experts a layer, %d for a token\n",
	       (double)moe_model_parameters(m, false) / 1e9, (double)moe_model_parameters(m, true) / 1e9, m->n_layers, f->experts, f->gate.top_k);
	printf("              experts in %s, the rest in %s, keys and values of %d bytes\n", experts == MOE_Q_KEEP ? "bf16" : moe_quant_name(experts),
	       rest == MOE_Q_KEEP ? "bf16" : moe_quant_name(rest), p->s->setting.kv_bytes);
	printf("Workload      %s: prompts of %.4g tokens%s, %.4g generated\n", w->name[0] ? w->name : "given", moe_workload_prompt(w),
	       w->padded ? " (padded)" : "", w->generate);
}

static void print_policy_words(const struct page *p)
{
	const struct moe_execution *x = &p->s->execution;
	int64_t n = (x->batch + x->micro_batch - 1) / x->micro_batch;

	printf("Policy        %s: %lld sequence%s in %lld micro-batch%s of %lld; attention on %s, experts on %s\n", moe_schedule_name(x->schedule),
	       (long long)x->batch, x->batch == 1 ? "" : "s", (long long)n, n == 1 ? "" : "es", (long long)x->micro_batch,
	       level_name(p, x->attention_on), level_name(p, x->ffn_on));
	print_shares(p, "experts:", x->weights);
	print_shares(p, "keys and values:", x->kv);
}

static void print_expected(const struct page *p)
{
	const struct moe_prediction *g = &p->s->prediction;
	char step[32], first[32];

	printf("Expected      %.4g tokens/s generated; decoding alone %.4g (a step takes %s)\n", g->tokens_per_second, g->decode_tokens_per_second,
	       seconds(g->step_seconds, step));
	printf("              prompts %.4g tokens/s, a batch's first tokens after %s\n", g->prefill_tokens_per_second, seconds(g->first_token_seconds, first));
}

/* ---- what binds ---- */

static void print_lanes(const char *what, const struct moe_layer_time *t)
{
	char buf[32];

	printf("\n%s: a layer takes %s, bound by the %s\n", what, seconds(t->seconds, buf), lane_words(t->bottleneck));
	for (int l = 0; l < MOE_LANES; l++) {
		const struct moe_sum *sum = &t->lanes[l];
		double unit = t->seconds >= 1 ? 1 : 1e-3;

		if (!(sum->total > 0))
			continue;
		printf("  %-8s %3.0f %%  %8.3g %s  ", moe_lane_name((enum moe_lane)l), 100 * sum->total / t->seconds, sum->total / unit, unit < 1 ? "ms" : "s");
		print_terms(sum, unit);
	}
}

/* ---- roofs ---- */

static void print_roofs(const struct page *p)
{
	static const char *const names[MOE_FLOPS_TYPES] = {"f32", "f16", "bf16", "i8"};
	char a[32], b[32];

	printf("\nRoofs\n");
	for (int i = 0; i < p->h->n_levels; i++) {
		const struct moe_memory_level *l = &p->h->levels[i];
		enum moe_flops t = MOE_FLOPS_BF16;
		double flops = moe_level_flops(l, t);

		if (!(flops > 0) || !(l->bandwidth > 0))
			continue;
		if (l->flops[t] <= 0 && l->flops[MOE_FLOPS_F16] > 0)
			t = MOE_FLOPS_F16;
		else if (l->flops[t] <= 0)
			t = MOE_FLOPS_F32;
		printf("  %-8s %d x %s, %s of %s: ridge at %.3g FLOP/byte\n", l->name, l->count, rate(l->bandwidth, "B/s", a), rate(flops, "FLOP/s", b), names[t],
		       flops / l->bandwidth);
	}
	for (int i = 0; i < p->h->n_links; i++) {
		const struct moe_link *k = &p->h->links[i];

		printf("  %s to %s %s\n", level_name(p, k->from), level_name(p, k->to), rate(k->bandwidth, "B/s", a));
	}
	if (p->h->network_bandwidth > 0)
		printf("  network %s, %s one way\n", rate(p->h->network_bandwidth, "B/s", a), seconds(p->h->network_latency, b));
}

static int level_of(const struct page *p, enum moe_op_kind k)
{
	return k == MOE_OP_ATTENTION ? p->s->execution.attention_on : p->s->execution.ffn_on;
}

/* The level that most of an operation's data has to come from; its own: none has to. */
static int source_of(const struct page *p, enum moe_op_kind k, int at)
{
	const double *share = k == MOE_OP_EXPERTS ? p->s->execution.weights : k == MOE_OP_ATTENTION ? p->s->execution.kv : NULL;
	int from = at;

	for (int i = 0; share && i < p->h->n_levels; i++)
		if (i != at && share[i] > 0 && (from == at || share[i] > share[from]))
			from = i;
	return from;
}

static void print_turns(const struct page *p, const struct moe_op *op, const struct moe_op *whole, int at, int from)
{
	const struct moe_execution *x = &p->s->execution;
	double moved = op->kind == MOE_OP_EXPERTS ? whole->weights * (1 - x->weights[at]) : whole->kv * (1 - x->kv[at]);
	double here = op->flops / (op->weights + op->kv + op->activations), there = whole->flops / moved;
	struct moe_roofline r;

	if (!moe_link_find(p->h, from, at) || moe_roofline(p->h, op->type, at, from, here, there, &r, NULL))
		return;
	if (isfinite(r.p1))
		printf("; from %s %.3g, worth moving above %.3g,", level_name(p, from), there, r.p1);
	else
		printf("; from %s %.3g, never worth moving,", level_name(p, from), there);
	printf(" link-bound below %.3g", r.p2);
}

/* Of a micro-batch at the operation's own level; what is fetched is fetched once for the whole batch. */
static void print_ops(const struct page *p)
{
	const struct moe_setting *s = &p->s->setting;
	const struct moe_execution *x = &p->s->execution;
	double context = moe_workload_prompt(&s->workload) + s->workload.generate / 2;
	struct moe_op ops[MOE_OPS], whole[MOE_OPS];
	int n, same;

	moe_layer_ops(s, p->layer, (double)x->micro_batch, context, ops, &n);
	moe_layer_ops(s, p->layer, (double)x->batch, context, whole, &same);
	printf("\nOperations of a decode step, FLOP/byte where they are done\n");
	for (int i = 0; i < n; i++) {
		int at = level_of(p, ops[i].kind), from = source_of(p, ops[i].kind, at);
		double here = ops[i].flops / (ops[i].weights + ops[i].kv + ops[i].activations);
		struct moe_roofline r;
		char buf[32];

		if (moe_roofline(p->h, ops[i].type, at, at, here, here, &r, NULL))
			continue;
		printf("  %-10s %-4s %7.3g: at most %s, %s-bound", moe_op_name(ops[i].kind), level_name(p, at), here, rate(r.attainable, "FLOP/s", buf), r.binds);
		if (from != at)
			print_turns(p, &ops[i], &whole[i], at, from);
		putchar('\n');
	}
}

static void print_memory(const struct page *p)
{
	printf("\nMemory, GiB\n");
	for (int i = 0; i < p->h->n_levels; i++) {
		const struct moe_level_memory *m = &p->s->prediction.memory[i];
		const double gib = 1 << 30;

		printf("  %-8s %8.1f of %8.1f  ", level_name(p, i), m->used.total / gib, m->available / gib);
		print_terms(&m->used, gib);
	}
}

/* ---- what would help ---- */

static const struct moe_lever *find_lever(const struct moe_lever *v, int n, const char *name, bool doubled)
{
	for (int i = 0; i < n; i++)
		if (strcmp(v[i].name, name) == 0 && (v[i].factor >= 1.9 || v[i].factor <= 0.55) == doubled)
			return &v[i];
	return NULL;
}

static bool is_first(const struct moe_lever *v, int i)
{
	for (int k = 0; k < i; k++)
		if (strcmp(v[k].name, v[i].name) == 0)
			return false;
	return true;
}

static int print_levers(const struct page *p, struct moe_err *e)
{
	struct moe_lever v[MOE_LEVERS];
	int n = 0, shown = 0, rc;

	if (p->s->setting.variant == MOE_VARIANT_PAPER)
		return 0;
	rc = moe_search_sensitivity(&p->s->setting, &p->s->how, &p->s->found, v, &n, e);
	if (rc)
		return rc;
	printf("\nWhat would help most   a tenth better   twice as good\n");
	for (int i = 0; i < n && shown < LEVERS_SHOWN; i++) {
		const struct moe_lever *tenth = find_lever(v, n, v[i].name, false), *twice = find_lever(v, n, v[i].name, true);

		if (!is_first(v, i) || v[i].gain < WORTH)
			continue;
		printf("  %-28s %+6.1f %%        %+6.1f %%\n", v[i].name, tenth ? 100 * tenth->gain : 0, twice ? 100 * twice->gain : 0);
		shown++;
	}
	if (!shown)
		printf("  no single number of this machine, even doubled\n");
	return 0;
}

int print_explanation(const struct options *o, const struct solution *s, struct moe_err *e)
{
	struct page p = {.o = o, .s = s, .h = s->setting.hardware};

	while (p.layer + 1 < s->setting.model->n_layers && s->setting.model->layers[p.layer].ffn.kind != MOE_FFN_MOE)
		p.layer++;
	printf("%s on %s: %.4g tokens/s, bound by the %s\n\n", o->model, o->hardware, s->prediction.tokens_per_second,
	       lane_words(s->prediction.decode.bottleneck));
	print_question(&p);
	print_policy_words(&p);
	print_expected(&p);
	print_lanes("Decoding", &s->prediction.decode);
	print_lanes("Prompts", &s->prediction.prefill);
	print_roofs(&p);
	print_ops(&p);
	print_memory(&p);
	return print_levers(&p, e);
}
