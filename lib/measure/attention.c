/* Timing the backend's attention over keys and values that no cache holds. */
#include <stdlib.h>

#include "measure/calls.h"

#define HEAD_DIM 128
#define KV_HEADS 8
#define POSITIONS 2048           /* that the last query of a call sees */

struct attention {
	struct moe_backend *b;
	struct moe_attention shape;
	struct moe_kv_view kv;
	int rows, sequences, next;
	int32_t *blocks;
	float *q, *out;
};

static int call_once(void *ctx, struct moe_err *e)
{
	struct attention *a = ctx;
	const struct moe_attn_seq s = {0, a->rows, POSITIONS - a->rows, a->blocks + (size_t)a->next * (POSITIONS / MOE_KV_BLOCK)};

	a->next = (a->next + 1) % a->sequences;
	return a->b->ops->attention(a->b, NULL, a->out, a->q, a->kv, &s, 1, &a->shape, e);
}

/* As many sequences as fill the memory, and all of it written once: zeros are numbers of every type. */
static int make(struct attention *a, size_t memory, struct moe_err *e)
{
	size_t block = 2 * KV_HEADS * MOE_KV_BLOCK * moe_kv_vector_bytes(a->kv.type, HEAD_DIM);
	size_t each = POSITIONS / MOE_KV_BLOCK, values = (size_t)a->rows * (size_t)a->shape.heads * HEAD_DIM;
	size_t most = moe_memory_available() / 4;

	memory = memory > most ? most : memory;
	a->kv.stride = block;
	a->sequences = (int)(memory / (block * each)) + 1;
	a->kv.base = moe_aligned(block * each * (size_t)a->sequences, "keys and values", e);
	a->blocks = moe_calloc(each * (size_t)a->sequences, sizeof *a->blocks, "blocks", e);
	a->q = moe_aligned(values * sizeof *a->q, "queries", e);
	a->out = moe_aligned(values * sizeof *a->out, "results", e);
	if (!a->kv.base || !a->blocks || !a->q || !a->out)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < each * (size_t)a->sequences; i++)
		a->blocks[i] = (int32_t)i;
	return 0;
}

/* Each query of a call sees the positions before it; on the average, that many. */
static double mean_positions(int rows)
{
	return POSITIONS - (rows - 1) / 2.0;
}

int moe_measure_attention(struct moe_backend *b, enum moe_kv_type type, int group, int rows, size_t memory, double seconds,
                          struct moe_rate *out, struct moe_err *e)
{
	struct attention a = {.b = b, .kv.type = type, .rows = rows};
	double vector = (double)moe_kv_vector_bytes(type, HEAD_DIM), bytes;
	int rc;

	*out = (struct moe_rate){0};
	if (group < 1 || group > 64 || rows < 1 || rows > POSITIONS)
		return moe_fail(e, MOE_E_RANGE, "attention of %d rows and groups of %d: at most %d and 64", rows, group, POSITIONS);
	a.shape = (struct moe_attention){.heads = group * KV_HEADS, .kv_heads = KV_HEADS, .head_dim = HEAD_DIM, .scale = 0.088f};
	rc = make(&a, memory, e);
	rc = rc ? rc : moe_measure_calls(b, call_once, &a, seconds, out, e);
	bytes = 2 * KV_HEADS * vector * mean_positions(rows);
	out->steady *= bytes;
	out->median *= bytes;
	free(a.kv.base);
	free(a.blocks);
	free(a.q);
	free(a.out);
	return rc;
}
