/* What operations take for themselves, counted beforehand. */
#include "attend.h"
#include "private.h"
#include "rows.h"

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Rows as int8 in blocks of either size, or as bf16. */
static size_t row_bytes(size_t cols)
{
	return larger(moe_cuda_bf16_row((int64_t)cols), larger(moe_cuda_coded_row((int64_t)cols, 256), moe_cuda_coded_row((int64_t)cols, 128)));
}

/* attention.cu: tiles of queries, which are filled up, and for those of few queries what each part of their context gave. */
struct tiles {
	size_t n, queries, parts;
};

static struct tiles tiles_of(const struct moe_work *w)
{
	size_t queries = w->rows * (w->heads / larger(w->kv_heads, 1)), few = w->sequences * MOE_ATTEND_MOST_FEW;
	struct tiles t = {queries / 4 + w->sequences, queries, w->positions / MOE_PART + 1}; /* tiles of four queries at least */

	if (w->head_dim <= MOE_ATTEND_MANY_DIM && few < queries)
		t.queries = few;
	t.queries += w->sequences * MOE_ATTEND_FEW;
	return t;
}

static size_t attention_bytes(const struct moe_work *w)
{
	struct tiles t = tiles_of(w);

	return t.queries * t.parts * w->heads * moe_attend_scratch(1, (int)w->head_dim) * sizeof(float);
}

/* Of the arrays of one call: attention's tiles, pieces and block tables, or experts' rows and weights. */
static size_t staged_bytes(const struct moe_work *w)
{
	struct tiles t = tiles_of(w);
	size_t attention = t.n * sizeof(struct attend_tile) + t.queries * t.parts * sizeof(struct attend_piece) +
	                   w->sequences * (w->positions / MOE_KV_BLOCK + 1) * sizeof(int32_t);

	return larger(attention, 2 * w->pairs * sizeof(int32_t)) + larger(w->rows, w->pairs) * sizeof(int32_t);
}

size_t moe_cuda_work_bytes(const struct moe_backend *b, const struct moe_work *w)
{
	(void)b;
	return w->rows * row_bytes(w->inputs) + w->pairs * (row_bytes(w->hidden) + w->hidden * sizeof(float)) + attention_bytes(w) +
	       moe_cuda_staging_bytes(0) + moe_cuda_staging_bytes(staged_bytes(w));
}
