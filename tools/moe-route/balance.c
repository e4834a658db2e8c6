/* Tokens per server and layer, as they were really routed, over the last minute or so. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "metrics.h"

#define LOOK_NS 1000000000u      /* between two looks */
#define HALVE_NS 30000000000u    /* what was counted weighs half after so long */

struct balance {
	struct moe_run *run;
	const struct moe_placement *placement;
	int layers, wide;            /* wide: most experts of a layer */
	double *tokens;              /* [layers * wide] choices, the older ones weighing less */
	double *load;                /* [devices] */
	struct moe_series **ratio;   /* [layers]; NULL: a dense layer, or one server */
	struct moe_series **chosen;  /* [layers * wide], or NULL: not wanted */
	uint64_t looked, halved;
};

static void on_route(void *ctx, const struct moe_routing *r)
{
	struct balance *b = ctx;
	size_t at = (size_t)r->layer * (size_t)b->wide;

	for (int i = 0; i < r->k; i++) {
		b->tokens[at + (size_t)r->ids[i]] += 1;
		if (b->chosen)
			moe_count(b->chosen[at + (size_t)r->ids[i]], 1);
	}
}

/* An expert's tokens are its holders', in equal parts. */
static void add_load(struct balance *b, int layer, int expert)
{
	double tokens = b->tokens[(size_t)layer * (size_t)b->wide + (size_t)expert];
	int holders = 0;

	for (int d = 0; d < b->placement->devices; d++)
		holders += moe_placement_holds(b->placement, d, layer, expert);
	for (int d = 0; d < b->placement->devices && holders; d++)
		if (moe_placement_holds(b->placement, d, layer, expert))
			b->load[d] += tokens / holders;
}

/* The most loaded server's share of the mean: 1 is even. */
static double ratio(struct balance *b, int layer)
{
	double most = 0, all = 0;

	for (int d = 0; d < b->placement->devices; d++)
		b->load[d] = 0;
	for (int x = 0; x < b->run->model->layers[layer].ffn.experts; x++)
		add_load(b, layer, x);
	for (int d = 0; d < b->placement->devices; d++) {
		most = b->load[d] > most ? b->load[d] : most;
		all += b->load[d];
	}
	return all > 0 ? most * b->placement->devices / all : 1;
}

void balance_look(struct balance *b, uint64_t now)
{
	if (!b || now - b->looked < LOOK_NS)
		return;
	b->looked = now;
	for (int l = 0; l < b->layers; l++)
		if (b->ratio[l])
			moe_gauge(b->ratio[l], ratio(b, l));
	if (now - b->halved < HALVE_NS)
		return;
	b->halved = now;
	for (size_t i = 0; i < (size_t)b->layers * (size_t)b->wide; i++)
		b->tokens[i] /= 2;
}

static void make_ratios(struct balance *b, struct moe_watch *w)
{
	struct moe_metric *m = moe_watch_metric(w, MOE_GAUGE, "moe_placement_imbalance_ratio",
	                                        "Tokens of the most loaded server, compared with the mean of all: 1 is even.", "layer", NULL, 0);
	char number[16];

	for (int l = 0; l < b->layers; l++) {
		if (b->run->model->layers[l].ffn.experts == 0 || b->placement->devices < 2)
			continue;
		snprintf(number, sizeof number, "%d", l);
		b->ratio[l] = moe_metric_series(m, (const char *const[]){number});
		moe_gauge(b->ratio[l], 1);
	}
}

static void make_experts(struct balance *b, struct moe_watch *w)
{
	struct moe_metric *m = moe_watch_metric(w, MOE_COUNTER, "moe_expert_tokens_total", "Tokens that chose the expert.", "layer,expert", NULL, 0);
	char layer[16], expert[16];

	for (int l = 0; l < b->layers; l++)
		for (int x = 0; x < b->run->model->layers[l].ffn.experts; x++) {
			snprintf(layer, sizeof layer, "%d", l);
			snprintf(expert, sizeof expert, "%d", x);
			b->chosen[(size_t)l * (size_t)b->wide + (size_t)x] = moe_metric_series(m, (const char *const[]){layer, expert});
		}
}

int balance_open(struct moe_watch *w, struct moe_run *run, bool experts, struct balance **out, struct moe_err *e)
{
	struct balance *b = moe_calloc(1, sizeof *b, "metrics", e);
	size_t all;

	if (!b)
		return MOE_E_NOMEM;
	b->run = run;
	b->placement = &run->source->placement;
	b->layers = run->model->n_layers;
	b->wide = moe_model_max_experts(run->model);
	all = (size_t)b->layers * (size_t)b->wide;
	b->tokens = moe_calloc(all, sizeof *b->tokens, "metrics", e);
	b->load = moe_calloc((size_t)b->placement->devices, sizeof *b->load, "metrics", e);
	b->ratio = moe_calloc((size_t)b->layers, sizeof(*b->ratio), "metrics", e);
	b->chosen = experts ? moe_calloc(all, sizeof(*b->chosen), "metrics", e) : NULL;
	*out = b;
	if (!b->tokens || !b->load || !b->ratio || (experts && !b->chosen))
		return MOE_E_NOMEM;
	make_ratios(b, w);
	if (experts)
		make_experts(b, w);
	moe_run_listen(run, on_route, b);
	return 0;
}

void balance_close(struct balance *b)
{
	if (!b)
		return;
	moe_run_unlisten(b->run, b);
	free(b->tokens);
	free(b->load);
	free(b->ratio);
	free(b->chosen);
	free(b);
}
