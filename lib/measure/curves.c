/* The backend's kernels as curves over the rows they are given. */
#include "base/clock.h"
#include "measure/measure.h"

#define SIDE 2048                /* of the experts' matrices */
#define EXPERTS 4                /* a call */
#define SMALL 64                 /* values of the smallest operation */

static const int rows[] = {1, 2, 4, 8, 16, 32, 64, 256};
#define N_ROWS ((int)(sizeof rows / sizeof *rows))
_Static_assert(sizeof rows / sizeof *rows <= MOE_KERNEL_ROWS, "a profile has room for these");

/* Queries that share a key: of one token, of a token with eight query heads a group, of prompts. */
static const struct {
	int group, rows;
} queries[] = {{1, 1}, {4, 1}, {8, 1}, {4, 8}, {4, 64}, {4, 512}};
#define N_QUERIES ((int)(sizeof queries / sizeof *queries))

/* Memory that no cache holds, but not more than a quarter of what there is. */
static size_t enough_memory(void)
{
	size_t wish = 2 * moe_machine_cache(), most = moe_memory_available() / 4;

	wish = wish < (size_t)64 << 20 ? (size_t)64 << 20 : wish;
	return wish > most ? most : wish;
}

static int curve_of_quant(struct moe_backend *b, enum moe_quant q, double seconds, struct moe_kernel_roof *out, struct moe_err *e)
{
	const struct moe_kernel_case k = {.quant = q, .layout = moe_quant_is_coded(q) ? MOE_L_R64 : MOE_L_PLAIN,
	                                  .rows = SIDE, .cols = SIDE, .m = 1, .experts = EXPERTS};
	struct moe_kernel_rate r[N_ROWS];
	int rc = moe_measure_kernel_curve(b, &k, rows, N_ROWS, enough_memory(), seconds, r, e);

	if (rc)
		return moe_fail_prefix(e, rc, "experts in %s", moe_quant_name(q));
	out->n = N_ROWS;
	for (int i = 0; i < N_ROWS; i++) {
		out->rows[i] = rows[i];
		out->bandwidth[i] = r[i].calls.steady * r[i].bytes;
	}
	return 0;
}

static int curve_of_attention(struct moe_backend *b, enum moe_kv_type kv, double seconds, struct moe_kernel_roof *out, struct moe_err *e)
{
	for (int i = 0; i < N_QUERIES; i++) {
		struct moe_rate r;
		int rc = moe_measure_attention(b, kv, queries[i].group, queries[i].rows, enough_memory(), seconds, &r, e);

		if (rc)
			return moe_fail_prefix(e, rc, "attention");
		out->rows[i] = queries[i].group * queries[i].rows;
		out->bandwidth[i] = r.steady;
	}
	out->n = N_QUERIES;
	return 0;
}

static int small_calls(void *ctx, struct moe_sample *out, struct moe_err *e)
{
	struct moe_backend *b = ctx;
	static const float weight[SMALL], x[SMALL];
	float y[SMALL];
	uint64_t start = moe_now_ns();
	int rc = 0;

	for (int i = 0; i < 1000 && !rc; i++)
		rc = b->ops->rmsnorm(b, NULL, y, x, 1, SMALL, weight, 1e-5f, e);
	*out = (struct moe_sample){1000, moe_now_ns() - start};
	return rc;
}

int moe_measure_kernels(struct moe_backend *b, unsigned quants, enum moe_kv_type kv, double seconds, struct moe_kernels *out,
                        struct moe_err *e)
{
	struct moe_rate calls;
	int rc = 0;

	*out = (struct moe_kernels){.call = 0};
	for (int q = 0; q < MOE_QUANTS && !rc; q++)
		if (quants >> q & 1)
			rc = curve_of_quant(b, (enum moe_quant)q, seconds, &out->roofs[q], e);
	rc = rc ? rc : curve_of_attention(b, kv, seconds, &out->roofs[MOE_KERNEL_ATTENTION], e);
	rc = rc ? rc : moe_measure_rate(small_calls, b, seconds, &calls, e);
	if (!rc)
		out->call = 1 / calls.steady;
	return rc;
}
