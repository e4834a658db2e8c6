/* Timing the backend's products with weights that no cache holds. */
#include <stdlib.h>
#include <string.h>

#include "measure/calls.h"

#define ACTIVATION 0.05f

struct bench {
	struct moe_backend *b;
	const struct moe_kernel_case *k;
	unsigned char *weights;
	size_t matrix_bytes, copy_bytes; /* of gate (or the one matrix); of all matrices of a copy */
	int copies, next;
	float *x, *y, *scratch;
	/* of a call of experts */
	struct moe_expert_group *groups;
	int32_t *x_row;
	float *weight;
};

/* ---- random weights ---- */

static uint64_t next_random(uint64_t *state) /* xorshift */
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void fill_words(unsigned char *p, size_t bytes, uint64_t *state, uint64_t keep, uint64_t set)
{
	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t r = (next_random(state) & keep) | set;

		memcpy(p + i, &r, bytes - i < 8 ? bytes - i : 8);
	}
}

/* Every block's scale is 2^-12: random codes then give weights of about 1/64. */
static void set_scales(const struct moe_matrix *m, unsigned char *data)
{
	struct moe_quant_shape s;
	size_t lanes = m->layout == MOE_L_R64 ? MOE_TILE_ROWS : 1, bytes = moe_matrix_bytes(m);
	const uint16_t scale = moe_f32_to_bf16(1.0f / 4096);

	moe_quant_shape(m->quant, m->cols, &s);
	for (size_t at = s.block_bytes * lanes; at <= bytes; at += s.block_bytes * lanes)
		for (size_t i = 1; i <= lanes; i++)
			memcpy(data + at - 2 * i, &scale, sizeof scale);
}

/* Small numbers of either sign: the exponent of floats is held where nothing overflows. */
static void fill_matrix(struct moe_matrix *m, unsigned char *data, uint64_t *state)
{
	size_t bytes = moe_matrix_bytes(m);

	m->data = data;
	if (moe_quant_is_coded(m->quant)) {
		fill_words(data, bytes, state, UINT64_MAX, 0);
		set_scales(m, data);
	} else if (m->quant == MOE_Q_F32) {
		fill_words(data, bytes, state, 0x80ffffff80ffffff, 0x3c0000003c000000);
	} else if (m->quant == MOE_Q_BF16) {
		fill_words(data, bytes, state, 0x80ff80ff80ff80ff, 0x3c003c003c003c00);
	} else {
		fill_words(data, bytes, state, 0x83ff83ff83ff83ff, 0x2400240024002400);
	}
}

void moe_measure_fill(struct moe_matrix *m, unsigned char *data, uint64_t seed)
{
	fill_matrix(m, data, &seed);
}

/* ---- a call ---- */

static struct moe_matrix gate_shape(const struct moe_kernel_case *k)
{
	return (struct moe_matrix){.quant = k->quant, .layout = k->layout, .rows = k->rows, .cols = k->cols};
}

static struct moe_matrix down_shape(const struct moe_kernel_case *k)
{
	return (struct moe_matrix){.quant = k->quant, .layout = k->layout, .rows = k->cols, .cols = k->rows};
}

static struct moe_expert_weights copy_at(const struct bench *n, int copy)
{
	const unsigned char *p = n->weights + (size_t)copy * n->copy_bytes;
	struct moe_expert_weights w = {gate_shape(n->k), gate_shape(n->k), down_shape(n->k)};

	w.gate.data = p;
	w.up.data = p + n->matrix_bytes;
	w.down.data = p + 2 * n->matrix_bytes;
	return w;
}

static int call_experts(struct bench *n, struct moe_err *e)
{
	const struct moe_kernel_case *k = n->k;

	for (int i = 0; i < k->experts; i++) {
		n->groups[i] = (struct moe_expert_group){copy_at(n, n->next), i * k->m, k->m};
		n->next = (n->next + 1) % n->copies;
	}
	return n->b->ops->experts(n->b, NULL, n->y, n->x, n->groups, k->experts, n->x_row, n->weight, MOE_ACT_SILU, n->scratch, e);
}

static int call_once(void *ctx, struct moe_err *e)
{
	struct bench *n = ctx;
	struct moe_matrix w;

	if (n->k->experts)
		return call_experts(n, e);
	w = copy_at(n, n->next).gate;
	n->next = (n->next + 1) % n->copies;
	return n->b->ops->matmul(n->b, NULL, n->y, n->x, n->k->m, &w, NULL, e);
}

/* ---- memory for it ---- */

static int check_case(const struct moe_kernel_case *k, struct moe_err *e)
{
	const int64_t most = 1 << 20;

	if (k->rows < 1 || k->cols < 1 || k->rows > most || k->cols > most)
		return moe_fail(e, MOE_E_RANGE, "a matrix of %lldx%lld: sides are 1 to %lld", (long long)k->rows, (long long)k->cols, (long long)most);
	if (k->m < 1 || k->m > 65536 || k->experts < 0 || k->experts > 4096)
		return moe_fail(e, MOE_E_RANGE, "%d rows, %d experts: at most 65536 and 4096", k->m, k->experts);
	return 0;
}

static int make_weights(struct bench *n, size_t memory, struct moe_err *e)
{
	const struct moe_kernel_case *k = n->k;
	struct moe_matrix shapes[3] = {gate_shape(k), gate_shape(k), down_shape(k)};
	size_t copies, at = 0;
	uint64_t state = 0x9e3779b97f4a7c15;

	n->matrix_bytes = moe_matrix_bytes(&shapes[0]);
	n->copy_bytes = n->matrix_bytes + (k->experts ? n->matrix_bytes + moe_matrix_bytes(&shapes[2]) : 0);
	copies = memory / n->copy_bytes;
	copies = copies < (size_t)k->experts ? (size_t)k->experts : copies;
	n->copies = copies < 1 ? 1 : copies > 1 << 20 ? 1 << 20 : (int)copies;
	if (n->copy_bytes > moe_memory_available() / (size_t)n->copies)
		return moe_fail(e, MOE_E_NOMEM, "%d matrices take %.3g bytes, %.3g are available", n->copies * (k->experts ? 3 : 1),
		                (double)n->copy_bytes * n->copies, (double)moe_memory_available());
	n->weights = moe_aligned(n->copy_bytes * (size_t)n->copies, "weights", e);
	if (!n->weights)
		return MOE_E_NOMEM;
	for (int c = 0; c < n->copies; c++)
		for (int i = 0; i < (k->experts ? 3 : 1); i++) {
			fill_matrix(&shapes[i], n->weights + at, &state);
			at += moe_matrix_bytes(&shapes[i]);
		}
	return 0;
}

static int make_rows(struct bench *n, struct moe_err *e)
{
	const struct moe_kernel_case *k = n->k;
	size_t m = (size_t)k->m, pairs = m * (size_t)(k->experts ? k->experts : 1);
	size_t out = (size_t)(k->experts ? k->cols : k->rows), inner = k->experts ? (size_t)k->rows : 0;
	uint64_t state = 1;

	n->x = moe_aligned(m * (size_t)k->cols * sizeof *n->x, "rows", e);
	n->y = moe_aligned(pairs * out * sizeof *n->y, "results", e);
	n->scratch = moe_aligned(pairs * inner * sizeof *n->scratch, "scratch", e);
	n->groups = moe_calloc((size_t)k->experts, sizeof *n->groups, "groups", e);
	n->x_row = moe_calloc(pairs, sizeof *n->x_row, "rows", e);
	n->weight = moe_calloc(pairs, sizeof *n->weight, "weights", e);
	if (!n->x || !n->y || !n->scratch || !n->groups || !n->x_row || !n->weight)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < m * (size_t)k->cols; i++)
		n->x[i] = ACTIVATION * (float)(int64_t)(next_random(&state) >> 40) / (1 << 23) - ACTIVATION;
	for (size_t p = 0; p < pairs; p++) {
		n->x_row[p] = (int32_t)(p % m);
		n->weight[p] = 0.5f;
	}
	return 0;
}

static void release_rows(struct bench *n)
{
	free(n->x);
	free(n->y);
	free(n->scratch);
	free(n->groups);
	free(n->x_row);
	free(n->weight);
	n->x = n->y = n->scratch = n->weight = NULL;
	n->groups = NULL;
	n->x_row = NULL;
}

/* With the weights that are there. */
static int time_rows(struct bench *n, double seconds, struct moe_kernel_rate *out, struct moe_err *e)
{
	const struct moe_kernel_case *k = n->k;
	double values = (double)k->rows * (double)k->cols * (k->experts ? 3 : 1);
	int each = k->experts ? k->experts : 1, rc = make_rows(n, e);

	*out = (struct moe_kernel_rate){0};
	rc = rc ? rc : moe_measure_calls(n->b, call_once, n, seconds, &out->calls, e);
	out->copies = n->copies;
	out->bytes = (double)n->copy_bytes * each;
	out->operations = 2 * values * k->m * each;
	release_rows(n);
	return rc;
}

int moe_measure_kernel(struct moe_backend *b, const struct moe_kernel_case *k, size_t memory, double seconds,
                       struct moe_kernel_rate *out, struct moe_err *e)
{
	struct bench n = {.b = b, .k = k};
	int rc = check_case(k, e);

	*out = (struct moe_kernel_rate){0};
	rc = rc ? rc : make_weights(&n, memory, e);
	rc = rc ? rc : time_rows(&n, seconds, out, e);
	free(n.weights);
	return rc;
}

int moe_measure_kernel_curve(struct moe_backend *b, const struct moe_kernel_case *k, const int *rows, int n_rows, size_t memory,
                             double seconds, struct moe_kernel_rate *out, struct moe_err *e)
{
	struct moe_kernel_case one = *k;
	struct bench n = {.b = b, .k = &one};
	int rc = check_case(k, e);

	rc = rc ? rc : make_weights(&n, memory, e);
	for (int i = 0; i < n_rows && !rc; i++) {
		one.m = rows[i];
		rc = check_case(&one, e);
		rc = rc ? rc : time_rows(&n, seconds, &out[i], e);
	}
	free(n.weights);
	return rc;
}
