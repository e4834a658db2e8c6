/* Random codes: a coded matrix whose values are spread as those of an encoded one would be, without encoding any. */
#include <stdlib.h>
#include <string.h>

#include "checkpoint/synth.h"

/* The sub-blocks' code, and the deviation of w over all codes u: tensor.h says what they mean.  The code is one that makes
 * the mean of w zero or nearly so. */
static const struct {
	unsigned char head;
	double deviation;
} kinds[MOE_QUANTS] = {
	[MOE_Q_Q8] = {0, 73.9},       /* u - 128 */
	[MOE_Q_Q4] = {0xc4, 55.3},    /* 12 (u - 8) and 12 (u - 7) in turn */
	[MOE_Q_Q3] = {0x77, 18.3},    /* 8 u - 28 */
	[MOE_Q_Q2] = {0x47, 8.94},    /* 8 u - 12 */
};

struct job {
	const struct moe_synth_tensor *t;
	struct moe_quant_shape s;
	uint64_t key;
	uint16_t scale;
	unsigned char *dst;
	unsigned char **rows; /* [threads] a tile in the layout plain */
};

static void make_row(const struct job *j, int64_t row, unsigned char *out)
{
	uint64_t at = (uint64_t)row * j->s.row_bytes;

	for (size_t i = 0; i < j->s.row_bytes; i += 8) {
		uint64_t r = moe_synth_random(j->key, at + i + 1);
		size_t n = j->s.row_bytes - i < 8 ? j->s.row_bytes - i : 8;

		memcpy(out + i, &r, n);
	}
	for (int64_t b = 0; b < j->s.blocks; b++) {
		unsigned char *block = out + (size_t)b * j->s.block_bytes;

		memset(block, kinds[j->t->quant].head, j->s.head_bytes);
		memcpy(block + j->s.head_bytes + j->s.code_bytes, &j->scale, sizeof j->scale);
	}
}

static void make_tile(void *arg, size_t tile, int worker)
{
	const struct job *j = arg;
	int64_t first = (int64_t)tile * MOE_TILE_ROWS, left = j->t->shape[0] - first;
	int n = left < MOE_TILE_ROWS ? (int)left : MOE_TILE_ROWS;

	for (int i = 0; i < n; i++)
		make_row(j, first + i, j->rows[worker] + (size_t)i * j->s.row_bytes);
	moe_quant_pack(j->t->quant, j->rows[worker], n, j->t->shape[1], j->dst + tile * MOE_TILE_ROWS * j->s.row_bytes);
}

int moe_synth_codes(const struct moe_synth_plan *p, const struct moe_synth_tensor *t, unsigned char *dst,
                    struct moe_team *team, struct moe_err *e)
{
	struct job j = {.t = t, .key = moe_synth_key(p, t->id), .dst = dst};
	int threads = moe_team_size(team), rc = 0;

	moe_quant_shape(t->quant, t->shape[1], &j.s);
	j.scale = moe_f32_to_bf16((float)(moe_synth_deviation(p, t->id, t->shape[1]) / kinds[t->quant].deviation));
	j.rows = moe_calloc((size_t)threads, sizeof *j.rows, "threads", e);
	if (!j.rows)
		return MOE_E_NOMEM;
	for (int i = 0; i < threads && rc == 0; i++) {
		j.rows[i] = moe_realloc(NULL, MOE_TILE_ROWS, j.s.row_bytes, "rows", e);
		rc = j.rows[i] ? 0 : MOE_E_NOMEM;
	}
	if (rc == 0)
		moe_team_run(team, (size_t)((t->shape[0] + MOE_TILE_ROWS - 1) / MOE_TILE_ROWS), make_tile, &j);
	for (int i = 0; i < threads; i++)
		free(j.rows[i]);
	free(j.rows);
	return rc;
}
