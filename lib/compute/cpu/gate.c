/* The gate: which experts a row goes to, and with what weights. */
#include <string.h>

#include "cpu.h"

struct gate {
	struct moe_cpu *c;
	const float *logits;
	size_t experts;
	const struct moe_gate *g;
	int32_t *ids;
	float *weights;
};

/* The k highest of n, ties to the lowest, as ascending indices.  Compares logits, not probabilities: rounding may
 * make two of those equal that were not.  `taken` holds n bytes. */
static void top_k(const float *v, size_t n, size_t k, int32_t *ids, unsigned char *taken)
{
	memset(taken, 0, n);
	for (size_t j = 0; j < k; j++) {
		size_t best = n;

		for (size_t i = 0; i < n; i++)
			if (!taken[i] && (best == n || v[i] > v[best]))
				best = i;
		taken[best] = 1;
	}
	for (size_t i = 0; i < n; i++)
		if (taken[i])
			*ids++ = (int32_t)i;
}

static void weigh(const struct moe_gate *g, const float *probs, const int32_t *ids, float *weights)
{
	float sum = 0.0f;

	for (int j = 0; j < g->top_k; j++) {
		weights[j] = probs[ids[j]];
		sum += weights[j];
	}
	for (int j = 0; j < g->top_k; j++) {
		if (g->renorm)
			weights[j] /= sum;
		weights[j] *= g->factor;
	}
}

static void gate_row(void *arg, size_t row, int worker)
{
	const struct gate *m = arg;
	size_t k = (size_t)m->g->top_k;
	const float *logits = m->logits + row * m->experts;
	float *probs = moe_cpu_part(m->c, worker);

	m->c->k->softmax(probs, logits, (int)m->experts);
	top_k(logits, m->experts, k, m->ids + row * k, (unsigned char *)(probs + m->experts));
	weigh(m->g, probs, m->ids + row * k, m->weights + row * k);
}

int moe_cpu_gate(struct moe_backend *b, struct moe_stream_q *q, const float *logits, int rows, int experts,
                 const struct moe_gate *g, int32_t *ids, float *weights, struct moe_err *e)
{
	struct gate m = {.c = moe_cpu(b), .logits = logits, .experts = (size_t)experts, .g = g, .ids = ids, .weights = weights};
	int rc;

	(void)q;
	if (g->score != MOE_SCORE_SOFTMAX)
		return moe_fail(e, MOE_E_UNSUPPORTED, "gate score %d: not one the CPU has", (int)g->score);
	if (g->top_k < 1 || g->top_k > experts)
		return moe_fail(e, MOE_E_RANGE, "top_k %d: from 1 to the %d experts", g->top_k, experts);
	rc = moe_cpu_scratch(m.c, (size_t)experts * 2, e); /* probabilities, then marks */
	if (rc == 0)
		moe_team_run(m.c->team, (size_t)rows, gate_row, &m);
	return rc;
}
