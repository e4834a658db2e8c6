/* The gate: softmax over the experts, the k highest logits, their weights.  A warp for each row.
 *
 * The work is k passes over a row that lies in shared memory; at a step's rows it is the launch that costs. */
#include "kernel.h"
#include "private.h"

enum { ROWS = 4, SEGMENT = 256 };

/* The sum of v[n] as a dot product has it: 16 lanes, tree, segments.  Each half of the warp has every second segment. */
static __device__ float plain_sum(const float *v, int n, int lane)
{
	float total = 0.0f;

	for (int first = 0; first < n; first += 2 * SEGMENT) {
		int start = first + lane / 16 * SEGMENT, end = min(n, start + SEGMENT);
		float acc = 0.0f;

		for (int i = start + lane % 16; i < end; i += 16)
			acc += v[i];
		acc = moe_tree16(acc);
		total += __shfl_sync(MOE_ALL_LANES, acc, 0);
		if (first + SEGMENT < n)
			total += __shfl_sync(MOE_ALL_LANES, acc, 16);
	}
	return total;
}

/* The greatest that is not taken, the first among equals; NaN counts as least. */
static __device__ int best_of(const float *logits, const unsigned char *taken, int n, int lane)
{
	float most = -INFINITY;
	int best = -1;

	for (int i = lane; i < n; i += MOE_WARP) {
		float x = logits[i] == logits[i] ? logits[i] : -INFINITY;

		if (!taken[i] && (best < 0 || x > most)) {
			most = x;
			best = i;
		}
	}
	for (int i = 16; i > 0; i /= 2) {
		float x = __shfl_xor_sync(MOE_ALL_LANES, most, i);
		int other = __shfl_xor_sync(MOE_ALL_LANES, best, i);

		if (other >= 0 && (best < 0 || x > most || (x == most && other < best))) {
			most = x;
			best = other;
		}
	}
	return best;
}

struct gate {
	const float *logits;
	int32_t *ids;
	float *weights;
	int rows, experts, k;
	bool renorm;
	float factor;
};

static __global__ void gate_kernel(const struct gate g)
{
	MOE_DYNAMIC_SHARED(float, memory); /* of each row: probabilities, those of the chosen, which are taken */
	int lane = threadIdx.x % MOE_WARP, warp = threadIdx.x / MOE_WARP, row = blockIdx.x * (blockDim.x / MOE_WARP) + warp, n = g.experts;
	float *probs = memory + warp * 3 * n, *chosen = probs + n, most = -INFINITY, sum = 0.0f;
	unsigned char *taken = (unsigned char *)(chosen + n);
	const float *logits = g.logits + (size_t)row * n;
	int found = 0;

	if (row >= g.rows)
		return;
	for (int i = lane; i < n; i += MOE_WARP)
		most = logits[i] > most ? logits[i] : most;
	most = moe_warp_max(most);
	for (int i = lane; i < n; i += MOE_WARP) {
		probs[i] = moe_exp(logits[i] - most);
		taken[i] = 0;
	}
	__syncwarp();
	sum = plain_sum(probs, n, lane);
	for (int j = 0; j < g.k; j++) {
		int best = best_of(logits, taken, n, lane);

		if (best % MOE_WARP == lane)
			taken[best] = 1; /* only this lane looks at it */
	}
	for (int first = 0; first < n; first += MOE_WARP) {
		int i = first + lane;
		bool mine = i < n && taken[i];
		unsigned all = __ballot_sync(MOE_ALL_LANES, mine);

		if (mine) {
			int at = found + __popc(all & ((1u << lane) - 1));

			g.ids[(size_t)row * g.k + at] = i;
			chosen[at] = probs[i] / sum;
		}
		found += __popc(all);
	}
	__syncwarp();
	sum = 0.0f;
	for (int j = 0; j < g.k; j++)
		sum += chosen[j];
	for (int j = lane; j < g.k; j += MOE_WARP)
		g.weights[(size_t)row * g.k + j] = (g.renorm ? chosen[j] / sum : chosen[j]) * g.factor;
}

extern "C" int moe_cuda_gate(struct moe_backend *b, struct moe_stream_q *q, const float *logits, int rows, int experts,
                             const struct moe_gate *g, int32_t *ids, float *weights, struct moe_err *e)
{
	struct moe_cuda *c = moe_cuda(b);
	struct gate m = {logits, ids, weights, rows, experts, g->top_k, g->renorm, g->factor};
	size_t shared = 3 * sizeof(float) * (size_t)experts;
	int together = ROWS * shared <= (size_t)48 << 10 ? ROWS : 1, rc = moe_cuda_begin(c, &q, "gate", e);

	if (g->score != MOE_SCORE_SOFTMAX)
		return moe_fail(e, MOE_E_UNSUPPORTED, "gate score %d: not one the GPU has", (int)g->score);
	if (g->top_k < 1 || g->top_k > experts)
		return moe_fail(e, MOE_E_RANGE, "top_k %d: from 1 to the %d experts", g->top_k, experts);
	if (together * shared > (size_t)48 << 10)
		return moe_fail(e, MOE_E_UNSUPPORTED, "cuda:%d: gate: %d experts are more than fit", c->index, experts);
	if (rc || rows == 0)
		return rc;
	return moe_cuda_check(c, MOE_LAUNCH(gate_kernel, (unsigned)((rows + together - 1) / together), (unsigned)(together * MOE_WARP),
	                                    together * shared, q->s, m), "gate", e);
}
