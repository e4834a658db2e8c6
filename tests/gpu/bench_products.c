/* Experts of Mixtral 8x7B on a GPU beside what the GPU can do: at decode the weights' bytes over time as a part of the bandwidth that a
 * copy reaches, at prefill operations over time as a part of what cuBLASLt reaches with bf16, both measured in the same run.
 *
 *   bench_products [cuda:N]
 *
 * Times are medians of calls of the backend's `experts`, quantising of rows and all launches included, by events on its stream.
 * Expert weights are many times the second cache; where only two of the eight are at work, calls take turns. */
#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compute/cuda/private.h"

enum { HIDDEN = 4096, WIDTH = 14336, EXPERTS = 8, WARM = 5, CALLS = 31, MOST_ROWS = 1024 };
#define COPY_BYTES ((size_t)2 << 30)
#define WORKSPACE ((size_t)64 << 20)

static struct moe_err err = MOE_ERR_INIT;

static void must(int rc, const char *what)
{
	if (rc == 0)
		return;
	fprintf(stderr, "bench_products: %s: %s\n", what, err.msg[0] ? err.msg : cudaGetErrorString((cudaError_t)rc));
	exit(1);
}

/* ---- time ---- */

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

/* Median of the seconds that fn(arg, call) takes on the stream. */
static double median(cudaStream_t s, void (*fn)(void *arg, int call), void *arg)
{
	cudaEvent_t from, to;
	float ms[CALLS];

	must(cudaEventCreate(&from), "event");
	must(cudaEventCreate(&to), "event");
	for (int i = -WARM; i < CALLS; i++) {
		float t;

		must(cudaEventRecord(from, s), "event");
		fn(arg, i + WARM);
		must(cudaEventRecord(to, s), "event");
		must(cudaEventSynchronize(to), "work");
		must(cudaEventElapsedTime(&t, from, to), "event");
		if (i >= 0)
			ms[i] = t;
	}
	cudaEventDestroy(from);
	cudaEventDestroy(to);
	qsort(ms, CALLS, sizeof *ms, by_value);
	return ms[CALLS / 2] / 1e3;
}

/* ---- roofs ---- */

struct copy {
	cudaStream_t s;
	void *to, *from;
};

static void copy_once(void *arg, int call)
{
	const struct copy *c = arg;

	(void)call;
	must(cudaMemcpyAsync(c->to, c->from, COPY_BYTES, cudaMemcpyDeviceToDevice, c->s), "copy");
}

/* Bytes read and written a second. */
static double copy_bandwidth(struct moe_backend *b, struct moe_stream_q *q)
{
	struct copy c = {.s = q->s};
	double t;

	must(b->ops->alloc(b, COPY_BYTES, &c.to, &err), "memory");
	must(b->ops->alloc(b, COPY_BYTES, &c.from, &err), "memory");
	t = median(c.s, copy_once, &c);
	b->ops->release(b, c.to);
	b->ops->release(b, c.from);
	return 2.0 * COPY_BYTES / t;
}

struct gemm {
	cudaStream_t s;
	cublasLtHandle_t lt;
	cublasLtMatmulDesc_t op;
	cublasLtMatrixLayout_t a, b, c;
	cublasLtMatmulHeuristicResult_t how;
	void *mem[4];                /* A, B, C, workspace */
};

static void gemm_once(void *arg, int call)
{
	const struct gemm *g = arg;
	const float one = 1, zero = 0;

	(void)call;
	must((int)cublasLtMatmul(g->lt, g->op, &one, g->mem[0], g->a, g->mem[1], g->b, &zero, g->mem[2], g->c, g->mem[2], g->c, &g->how.algo,
	                         g->mem[3], WORKSPACE, g->s), "cublasLtMatmul");
}

/* Rows x[m, k] times w[n, k] of bf16: C = W^T X as cuBLAS counts. */
static void gemm_open(struct gemm *g, size_t m, size_t n, size_t k)
{
	cublasLtMatmulPreference_t wish;
	cublasOperation_t transposed = CUBLAS_OP_T;
	size_t workspace = WORKSPACE;
	int found = 0;

	must((int)cublasLtCreate(&g->lt), "cublasLt");
	must((int)cublasLtMatmulDescCreate(&g->op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLt");
	must((int)cublasLtMatmulDescSetAttribute(g->op, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed), "cublasLt");
	must((int)cublasLtMatrixLayoutCreate(&g->a, CUDA_R_16BF, k, n, (int64_t)k), "cublasLt");
	must((int)cublasLtMatrixLayoutCreate(&g->b, CUDA_R_16BF, k, m, (int64_t)k), "cublasLt");
	must((int)cublasLtMatrixLayoutCreate(&g->c, CUDA_R_16BF, n, m, (int64_t)n), "cublasLt");
	must((int)cublasLtMatmulPreferenceCreate(&wish), "cublasLt");
	must((int)cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace), "cublasLt");
	must((int)cublasLtMatmulAlgoGetHeuristic(g->lt, g->op, g->a, g->b, g->c, g->c, wish, 1, &g->how, &found), "cublasLt");
	if (found == 0)
		must(1, "cublasLt knows no way");
	cublasLtMatmulPreferenceDestroy(wish);
}

static void gemm_close(struct gemm *g)
{
	cublasLtMatrixLayoutDestroy(g->a);
	cublasLtMatrixLayoutDestroy(g->b);
	cublasLtMatrixLayoutDestroy(g->c);
	cublasLtMatmulDescDestroy(g->op);
	cublasLtDestroy(g->lt);
}

/* ---- random data ---- */

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* bf16 of both signs between 2^-7 and 2^-6. */
static uint16_t random_half(uint64_t *state)
{
	return (uint16_t)((next_random(state) & 0x807f) | 0x3c00);
}

static void *random_halves(size_t n)
{
	uint16_t *p = malloc(n * sizeof *p);
	uint64_t state = 88172645463325252u;

	if (!p)
		must(1, "no memory");
	for (size_t i = 0; i < n; i++)
		p[i] = random_half(&state);
	return p;
}

/* Operations a second of cuBLASLt with bf16, 8192 cubed. */
static double gemm_rate(struct moe_backend *b, struct moe_stream_q *q)
{
	const size_t n = 8192;
	struct gemm g = {.s = q->s};
	void *values = random_halves(n * n);
	double t;

	for (int i = 0; i < 4; i++)
		must(b->ops->alloc(b, i < 3 ? n * n * 2 : WORKSPACE, &g.mem[i], &err), "memory");
	for (int i = 0; i < 2; i++)
		must(b->ops->copy_in(b, NULL, g.mem[i], values, n * n * 2, &err), "copy");
	must(b->ops->sync(b, NULL, &err), "copy");
	gemm_open(&g, n, n, n);
	t = median(g.s, gemm_once, &g);
	gemm_close(&g);
	for (int i = 0; i < 4; i++)
		b->ops->release(b, g.mem[i]);
	free(values);
	return 2.0 * (double)n * (double)n * (double)n / t;
}

/* ---- experts ---- */

struct experts {
	struct moe_backend *b;
	struct moe_stream_q *q;
	struct moe_expert_weights w[EXPERTS];
	void *mem[3 * EXPERTS];
	size_t bytes;                /* of one expert */
	void *x, *y, *scratch;
	int32_t x_row[EXPERTS * MOST_ROWS];
	float weight[EXPERTS * MOST_ROWS];
	int active, rows;            /* experts at work in a call, and rows of each */
};

static void calls(void *arg, int call)
{
	struct experts *s = arg;
	struct moe_expert_group g[EXPERTS];

	for (int i = 0; i < s->active; i++)
		g[i] = (struct moe_expert_group){s->w[(call * s->active + i) % EXPERTS], i * s->rows, s->rows};
	must(s->b->ops->experts(s->b, s->q, s->y, s->x, g, s->active, s->x_row, s->weight, MOE_ACT_SILU, s->scratch, &err), "experts");
}

/* A matrix's bytes: random, with scales that are moderate. */
static unsigned char *random_matrix(const struct moe_matrix *m)
{
	size_t bytes = moe_matrix_bytes(m), block;
	unsigned char *p = random_halves((bytes + 1) / 2);
	struct moe_quant_shape s;
	uint64_t state = 1234567;

	if (!moe_quant_is_coded(m->quant))
		return p;
	moe_quant_shape(m->quant, m->cols, &s);
	block = MOE_TILE_ROWS * s.block_bytes;
	for (size_t i = 0; i + 8 <= bytes; i += 8) {
		uint64_t r = next_random(&state);

		memcpy(p + i, &r, 8);
	}
	for (size_t at = block; at <= bytes; at += block)
		for (size_t j = 0; j < MOE_TILE_ROWS; j++) {
			uint16_t d = random_half(&state);

			memcpy(p + at - 2 * MOE_TILE_ROWS + 2 * j, &d, 2);
		}
	return p;
}

static void experts_open(struct experts *s, enum moe_quant quant)
{
	enum moe_layout layout = moe_quant_is_coded(quant) ? MOE_L_R64 : MOE_L_PLAIN;
	struct moe_matrix wide = {quant, layout, WIDTH, HIDDEN, NULL, false}, tall = {quant, layout, HIDDEN, WIDTH, NULL, false};
	size_t pairs = EXPERTS * MOST_ROWS;
	float *x = malloc(pairs * HIDDEN * sizeof *x);
	uint64_t state = 5;

	s->bytes = 2 * moe_matrix_bytes(&wide) + moe_matrix_bytes(&tall);
	for (int part = 0; part < 3; part++) {
		struct moe_matrix m = part == 2 ? tall : wide;
		unsigned char *values = random_matrix(&m);

		for (int i = 0; i < EXPERTS; i++) {
			struct moe_expert_weights *w = &s->w[i];

			must(s->b->ops->alloc(s->b, moe_matrix_bytes(&m), &s->mem[3 * i + part], &err), "memory");
			must(s->b->ops->copy_in(s->b, NULL, s->mem[3 * i + part], values, moe_matrix_bytes(&m), &err), "copy");
			m.data = s->mem[3 * i + part];
			*(part == 0 ? &w->gate : part == 1 ? &w->up : &w->down) = m;
		}
		must(s->b->ops->sync(s->b, NULL, &err), "copy");
		free(values);
	}
	for (size_t i = 0; x && i < pairs * HIDDEN; i++)
		x[i] = (float)(next_random(&state) >> 40) * 0x1p-23f - 1;
	must(x == NULL, "memory");
	must(s->b->ops->alloc(s->b, pairs * HIDDEN * sizeof *x, &s->x, &err), "memory");
	must(s->b->ops->alloc(s->b, pairs * HIDDEN * sizeof *x, &s->y, &err), "memory");
	must(s->b->ops->alloc(s->b, pairs * WIDTH * sizeof *x, &s->scratch, &err), "memory");
	must(s->b->ops->copy_in(s->b, NULL, s->x, x, pairs * HIDDEN * sizeof *x, &err), "copy");
	must(s->b->ops->sync(s->b, NULL, &err), "copy");
	free(x);
	for (size_t i = 0; i < pairs; i++) {
		s->x_row[i] = (int32_t)i;
		s->weight[i] = 0.5f;
	}
}

static void experts_close(struct experts *s)
{
	for (int i = 0; i < 3 * EXPERTS; i++)
		s->b->ops->release(s->b, s->mem[i]);
	s->b->ops->release(s->b, s->x);
	s->b->ops->release(s->b, s->y);
	s->b->ops->release(s->b, s->scratch);
}

struct roofs {
	double bandwidth, rate;
};

static void measure(struct experts *s, enum moe_quant quant, const struct roofs *roofs)
{
	static const struct {
		int active, rows;
	} loads[] = {{2, 1}, {8, 1}, {8, 4}, {8, 8}, {8, 16}, {8, 32}, {8, 64}, {8, 256}, {8, 1024}};

	for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
		double t, bytes, operations;

		s->active = loads[i].active;
		s->rows = loads[i].rows;
		t = median(s->q->s, calls, s);
		bytes = (double)s->bytes * s->active / t;
		operations = 6.0 * HIDDEN * WIDTH * s->active * s->rows / t;
		printf("%-5s %7d %5d %10.1f %8.0f %6.1f%% %8.1f %6.1f%%\n", moe_quant_name(quant), s->active, s->rows, t * 1e6, bytes / 1e9,
		       100 * bytes / roofs->bandwidth, operations / 1e12, 100 * operations / roofs->rate);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	static const enum moe_quant quants[] = {MOE_Q_Q4, MOE_Q_Q8, MOE_Q_BF16};
	static struct experts s;
	struct moe_device_config config = {.device = "cuda", .numerics = MOE_NUMERICS_INIT};
	struct roofs roofs;
	char text[160];

	config.numerics.activation = MOE_A_BF16; /* bf16 with bf16, coded ones with int8 */
	must(moe_cuda_open(&config, argc > 1 && strncmp(argv[1], "cuda:", 5) == 0 ? atoi(argv[1] + 5) : 0, &s.b, &err), "device");
	must(s.b->ops->stream_open(s.b, &s.q, &err), "stream");
	roofs.bandwidth = copy_bandwidth(s.b, s.q);
	roofs.rate = gemm_rate(s.b, s.q);
	printf("%s\ncopy %.0f GB/s (read and written); cuBLASLt bf16 8192^3 %.1f TFLOP/s; experts [%d, %d]\n\n", moe_cuda_text(s.b, text),
	       roofs.bandwidth / 1e9, roofs.rate / 1e12, HIDDEN, WIDTH);
	printf("%-5s %7s %5s %10s %8s %7s %8s %7s\n", "quant", "experts", "rows", "us", "GB/s", "of copy", "TFLOP/s", "of Lt");
	for (size_t i = 0; i < sizeof quants / sizeof *quants; i++) {
		experts_open(&s, quants[i]);
		measure(&s, quants[i], &roofs);
		experts_close(&s);
	}
	s.b->ops->stream_close(s.b, s.q);
	s.b->ops->close(s.b);
	return 0;
}
