/* The way to the servers and back, without the rest of the model. */
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench.h"

struct net {
	struct moe_run *run;
	int layer, rows, k, experts;
	float *x, *y, *weights;
	int32_t *ids;
	uint8_t *failed;
};

static int find_layer(const struct moe_model *m)
{
	int l = 0;
	while (l + 1 < m->n_layers && m->layers[l].ffn.kind != MOE_FFN_MOE)
		l++;
	return l;
}

static int make(struct net *n, struct moe_err *e)
{
	const struct moe_model *m = n->run->model;
	size_t rows = (size_t)n->rows, width = (size_t)m->hidden;
	n->layer = find_layer(m);
	n->k = m->layers[n->layer].ffn.gate.top_k;
	n->experts = m->layers[n->layer].ffn.experts;
	n->x = moe_calloc(rows * width, sizeof *n->x, "rows", e);
	n->y = moe_calloc(rows * width, sizeof *n->y, "results", e);
	n->weights = moe_calloc(rows * (size_t)n->k, sizeof *n->weights, "gate weights", e);
	n->ids = moe_calloc(rows * (size_t)n->k, sizeof *n->ids, "experts", e);
	n->failed = moe_calloc(rows, 1, "rows", e);
	if (!n->x || !n->y || !n->weights || !n->ids || !n->failed)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < rows * width; i++)
		n->x[i] = (float)(i * 37 % 101) / 101 - 0.5f;
	for (size_t i = 0; i < rows * (size_t)n->k; i++)
		n->weights[i] = 1 / (float)n->k;
	return 0;
}

/* Another run of k neighbours for each row and each time; ascending, as they must be. */
static void choose(struct net *n, int turn)
{
	for (int r = 0; r < n->rows; r++) {
		int first = (turn * 7 + r * 3) % (n->experts - n->k + 1);
		for (int j = 0; j < n->k; j++)
			n->ids[r * n->k + j] = first + j;
	}
}

static int round_trip(struct net *n, int turn, uint64_t *ns, struct moe_err *e)
{
	struct moe_experts *x = n->run->experts;
	struct moe_batch b = {
		.layer = n->layer, .rows = n->rows, .k = n->k, .x = n->x, .ids = n->ids, .weights = n->weights, .y = n->y, .failed = n->failed,
	};
	uint64_t ticket, start;
	choose(n, turn);
	start = moe_now_ns();
	int rc = x->ops->submit(x, &b, &ticket, e);
	rc = rc ? rc : x->ops->wait(x, ticket, e);
	*ns = moe_now_ns() - start;
	return rc;
}

int bench_net(struct moe_run *r, int rows, struct bench_samples *out, struct moe_err *e)
{
	struct net n = {.run = r, .rows = rows};
	uint64_t first;
	int rc = make(&n, e);
	rc = rc ? rc : round_trip(&n, 0, &first, e); /* not counted */
	for (int i = 0; i < out->n && !rc; i++) {
		rc = round_trip(&n, i + 1, &out->ns[i], e);
		out->ts[i] = NAN;
	}
	free(n.x);
	free(n.y);
	free(n.weights);
	free(n.ids);
	free(n.failed);
	return rc;
}
