/* Choosing a token.
 *
 * The random number is a function of (seed, position), not of a state: a request yields the same tokens whatever ran
 * beside or before it.  Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
#include "engine/private.h"

void moe_philox(uint64_t key, uint64_t counter, uint32_t out[4])
{
	uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
	uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};

	for (int round = 0; round < 10; round++) {
		uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
		uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a};

		for (int i = 0; i < 4; i++)
			c[i] = next[i];
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	for (int i = 0; i < 4; i++)
		out[i] = c[i];
}

/* In [0, 1), 53 bits. */
static double uniform(uint64_t seed, uint64_t position)
{
	uint32_t w[4];

	moe_philox(seed, position, w);
	return (double)(((uint64_t)w[0] << 32 | w[1]) >> 11) * 0x1p-53;
}

/* ---- tokens, best first, only as many as are looked at: a heap ---- */

static bool better(const float *logits, int32_t a, int32_t b)
{
	return logits[a] > logits[b] || (a < b && logits[a] == logits[b]);
}

static void sink(int32_t *heap, int n, int i, const float *logits)
{
	int32_t id = heap[i];

	for (;;) {
		int child = 2 * i + 1;

		if (child >= n)
			break;
		if (child + 1 < n && better(logits, heap[child + 1], heap[child]))
			child++;
		if (!better(logits, heap[child], id))
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = id;
}

static void make_heap(int32_t *heap, int n, const float *logits)
{
	for (int i = 0; i < n; i++)
		heap[i] = i;
	for (int i = n / 2 - 1; i >= 0; i--)
		sink(heap, n, i, logits);
}

/* The best goes to heap[n-1], so that what was taken stands in order from the end down. */
static int32_t take_best(int32_t *heap, int n, const float *logits)
{
	int32_t best = heap[0];

	heap[0] = heap[n - 1];
	heap[n - 1] = best;
	sink(heap, n - 1, 0, logits);
	return best;
}

/* ---- the draw ---- */

/* All tokens, in index order. */
static int draw_any(const float *p, int n, double sum, double u)
{
	double target = u * sum, seen = 0.0;

	for (int i = 0; i < n; i++) {
		seen += (double)p[i];
		if (target < seen)
			return i;
	}
	return n - 1; /* u * sum rounded up to sum */
}

/* Tokens taken from the heap stand at order[vocab-1], order[vocab-2], ...  How many of them top_p and min_p leave,
 * and the sum of their p.  `sum`: of all that top_k left. */
struct kept {
	int n;
	double sum;
};

static bool enough(const struct moe_sampling *s, const struct kept *k, double sum)
{
	return k->n > 0 && s->top_p < 1.0f && k->sum >= (double)s->top_p * sum;
}

static struct kept keep(const struct moe_sampling *s, const float *logits, int vocab, double sum, const float *p,
                        int32_t *order)
{
	int most = s->top_k > 0 && s->top_k < vocab ? s->top_k : vocab;
	struct kept k = {0, 0.0};

	make_heap(order, vocab, logits);
	if (most < vocab) {
		sum = 0.0;
		for (int i = 0; i < most; i++)
			sum += (double)p[take_best(order, vocab - i, logits)];
	}
	while (k.n < most && !enough(s, &k, sum)) {
		int32_t id = most < vocab ? order[vocab - 1 - k.n] : take_best(order, vocab - k.n, logits);

		if (k.n > 0 && p[id] < s->min_p) /* the best has p = 1 before the division by the sum */
			break;
		k.sum += (double)p[id];
		k.n++;
	}
	return k;
}

int moe_sample(const struct moe_sampling *s, const float *logits, int vocab, int best, uint64_t position, float *p,
               int32_t *order)
{
	double sum, u, seen = 0.0;
	struct kept k;

	if (s->temperature <= 0.0f || s->top_k == 1)
		return best;
	sum = moe_exp_sum(logits, vocab, logits[best], s->temperature, p);
	u = uniform(s->seed, position);
	if ((s->top_k == 0 || s->top_k >= vocab) && s->top_p >= 1.0f && s->min_p <= 0.0f)
		return draw_any(p, vocab, sum, u);
	k = keep(s, logits, vocab, sum, p, order);
	for (int i = 0; i < k.n; i++) {
		seen += (double)p[order[vocab - 1 - i]];
		if (u * k.sum < seen)
			return order[vocab - 1 - i];
	}
	return order[vocab - k.n];
}
