/* The roofs of a device, measured through the operations that every backend has: the CPU as one and a GPU by the same code. */
#include "base/clock.h"
#include "measure/calls.h"

#define SAMPLE_SECONDS 0.01      /* of a sample, and of a product where rows suffice */
#define CALLS_MOST 1024
#define ARRAY_MOST ((size_t)512 << 20)
#define PATTERN ((size_t)1 << 20) /* of random numbers, that are repeated */
#define SIDE_MOST 4096           /* of matrices, and rows that they are multiplied with */
#define SIDE_LEAST 64
#define ADD_BYTES 12.0           /* of x += y: two are read, one is written */

struct bench {
	struct moe_backend *b;
	struct moe_stream_q *q;
	struct moe_mark *begin, *end;
	int (*call)(struct bench *n, struct moe_err *e);
	int calls;                   /* of a sample */
	double work;                 /* of a call */
	float *x, *y;
	size_t floats;               /* x += y */
	struct moe_matrix w;         /* y = x w^T */
	void *weights;
	int rows;
};

static int add(struct bench *n, struct moe_err *e)
{
	return n->b->ops->add(n->b, n->q, n->x, n->y, n->floats, e);
}

static int multiply(struct bench *n, struct moe_err *e)
{
	return n->b->ops->matmul(n->b, n->q, n->y, n->x, n->rows, &n->w, NULL, e);
}

/* ---- time between two marks ---- */

static int sample(void *ctx, struct moe_sample *out, struct moe_err *e)
{
	struct bench *n = ctx;
	const struct moe_backend_ops *ops = n->b->ops;
	uint64_t begin = 0, end = 0;
	int rc = ops->event_record(n->b, n->q, n->begin, e);

	for (int i = 0; i < n->calls && !rc; i++)
		rc = n->call(n, e);
	rc = rc ? rc : ops->event_record(n->b, n->q, n->end, e);
	rc = rc ? rc : ops->sync(n->b, n->q, e);
	rc = rc ? rc : ops->event_time(n->b, n->begin, &begin, e);
	rc = rc ? rc : ops->event_time(n->b, n->end, &end, e);
	*out = (struct moe_sample){n->work * n->calls, end > begin ? end - begin : 1};
	return rc;
}

/* Seconds of a call that is not the first: that one touches memory and sets kernels up. */
static int time_call(struct bench *n, double *seconds, struct moe_err *e)
{
	struct moe_sample s = {0, 1};
	int rc;

	n->calls = 1;
	rc = sample(n, &s, e);
	rc = rc ? rc : sample(n, &s, e);
	*seconds = (double)s.ns / 1e9;
	return rc;
}

static int measure(struct bench *n, double seconds, struct moe_rate *out, struct moe_err *e)
{
	double one = 0, calls;
	int rc = time_call(n, &one, e);

	if (rc)
		return rc;
	calls = SAMPLE_SECONDS / one;
	n->calls = calls > CALLS_MOST ? CALLS_MOST : calls < 1 ? 1 : (int)calls;
	return moe_measure_rate(sample, n, seconds, out, e);
}

/* ---- what is on the device ---- */

static void let_go(struct bench *n)
{
	void *mem[] = {n->x, n->y, n->weights};

	for (int i = 0; i < 3; i++)
		if (mem[i])
			n->b->ops->release(n->b, mem[i]);
	n->x = n->y = NULL;
	n->weights = NULL;
}

/* A matrix of random numbers there.  It is made here, as the operations leave the bits of weights alone. */
static int put_matrix(struct bench *n, struct moe_matrix *m, void **mem, struct moe_err *e)
{
	size_t bytes = moe_matrix_bytes(m);
	void *host = NULL;
	int rc = n->b->ops->alloc(n->b, bytes, mem, e);

	rc = rc ? rc : n->b->ops->alloc_pinned(n->b, bytes, &host, e);
	if (rc)
		return rc;
	moe_measure_fill(m, host, 0x9e3779b97f4a7c15);
	rc = n->b->ops->copy_in(n->b, n->q, *mem, host, bytes, e);
	rc = rc ? rc : n->b->ops->sync(n->b, n->q, e);
	n->b->ops->release_pinned(n->b, host);
	m->data = *mem;
	return rc;
}

/* n floats there: one pattern again and again, so that a slow link is not waited for.  Zeros would not do: pages of zeros
 * may be a single one, and arithmetic on them takes less power. */
static int put_floats(struct bench *n, float **out, size_t floats, struct moe_err *e)
{
	size_t pattern = floats < PATTERN / sizeof(float) ? floats : PATTERN / sizeof(float);
	struct moe_matrix m = {.quant = MOE_Q_F32, .rows = 1, .cols = (int64_t)pattern};
	void *some = NULL, *all = NULL;
	int rc = put_matrix(n, &m, &some, e);

	rc = rc ? rc : n->b->ops->alloc(n->b, floats * sizeof(float), &all, e);
	*out = all;
	for (size_t at = 0; at < floats && !rc; at += pattern)
		rc = n->b->ops->add(n->b, n->q, *out + at, some, pattern < floats - at ? pattern : floats - at, e);
	rc = rc ? rc : n->b->ops->sync(n->b, n->q, e);
	if (some)
		n->b->ops->release(n->b, some);
	return rc;
}

/* Bytes that may be taken still. */
static size_t room(struct moe_backend *b)
{
	struct moe_device_memory m;

	b->ops->memory(b, &m);
	return m.cap ? m.cap - m.used : moe_memory_available();
}

/* ---- the roofs ---- */

static int measure_memory(struct bench *n, double seconds, struct moe_device_rates *out, struct moe_err *e)
{
	size_t bytes = room(n->b) / 4;
	int rc;

	n->call = add;
	n->floats = (bytes < ARRAY_MOST ? bytes : ARRAY_MOST) / sizeof(float) / 16 * 16;
	if (n->floats == 0)
		return moe_fail(e, MOE_E_NOMEM, "a device of %zu bytes: too small to be measured", room(n->b));
	rc = put_floats(n, &n->x, n->floats, e);
	rc = rc ? rc : put_floats(n, &n->y, n->floats, e);
	n->work = ADD_BYTES * (double)n->floats;
	rc = rc ? rc : measure(n, seconds, &out->memory, e);
	n->floats = 1;
	n->work = 1;
	rc = rc ? rc : measure(n, seconds, &out->calls, e);
	let_go(n);
	return rc;
}

/* Rows until the product takes as long as a sample: a few keep a CPU busy, a GPU wants thousands. */
static int find_rows(struct bench *n, int most, struct moe_err *e)
{
	double seconds = 0;
	int rc = 0;

	for (n->rows = SIDE_LEAST;; n->rows *= 2) {
		rc = time_call(n, &seconds, e);
		if (rc || seconds >= SAMPLE_SECONDS || 2 * n->rows > most)
			return rc;
	}
}

static int measure_product(struct bench *n, enum moe_quant quant, double seconds, struct moe_rate *out, struct moe_err *e)
{
	size_t bytes = room(n->b), side = SIDE_MOST;
	int rc;

	while (side > SIDE_LEAST && 4 * sizeof(float) * side * side > bytes)
		side /= 2;
	n->call = multiply;
	n->w = (struct moe_matrix){.quant = quant, .rows = (int64_t)side, .cols = (int64_t)side,
	                           .layout = moe_quant_is_coded(quant) ? MOE_L_R64 : MOE_L_PLAIN};
	rc = put_matrix(n, &n->w, &n->weights, e);
	rc = rc ? rc : put_floats(n, &n->x, side * side, e);
	rc = rc ? rc : put_floats(n, &n->y, side * side, e);
	rc = rc ? rc : find_rows(n, (int)side, e);
	n->work = 2.0 * (double)side * (double)side * n->rows;
	rc = rc ? rc : measure(n, seconds, out, e);
	let_go(n);
	return rc;
}

static int measure_roofs(struct bench *n, double seconds, bool bf16, struct moe_device_rates *out, struct moe_err *e)
{
	const struct moe_backend_ops *ops = n->b->ops;
	int rc = ops->stream_open(n->b, &n->q, e);

	rc = rc ? rc : ops->event_open(n->b, &n->begin, e);
	rc = rc ? rc : ops->event_open(n->b, &n->end, e);
	rc = rc ? rc : measure_memory(n, seconds, out, e);
	rc = rc ? rc : measure_product(n, MOE_Q_F32, seconds, &out->flops[MOE_F32_DOT], e);
	rc = rc ? rc : measure_product(n, MOE_Q_Q8, seconds, &out->flops[MOE_I8_DOT], e);
	if (bf16)
		rc = rc ? rc : measure_product(n, MOE_Q_BF16, seconds, &out->flops[MOE_BF16_DOT], e);
	ops->stream_close(n->b, n->q);
	ops->event_close(n->b, n->begin);
	ops->event_close(n->b, n->end);
	return rc;
}

/* With bf16 activations where the device has them: f32 and coded matrices are multiplied the same either way. */
static int open_device(struct moe_device_config *c, bool *bf16, struct moe_backend **out, struct moe_err *e)
{
	int rc;

	c->numerics = (struct moe_numerics)MOE_NUMERICS_INIT;
	c->numerics.activation = MOE_A_BF16;
	c->numerics.kind = moe_device_kind(c->device, MOE_A_BF16);
	rc = moe_device_open(c, out, e);
	*bf16 = !rc;
	if (rc != MOE_E_UNSUPPORTED)
		return rc;
	c->numerics.activation = MOE_A_I8;
	c->numerics.kind = moe_device_kind(c->device, MOE_A_I8);
	return moe_device_open(c, out, e);
}

int moe_measure_device(const struct moe_device_config *config, double seconds, struct moe_device_rates *out, struct moe_err *e)
{
	struct moe_device_config c = *config;
	struct bench n = {.b = NULL};
	double part = seconds / 6;       /* memory, calls, three products, the link */
	bool bf16;
	int rc = open_device(&c, &bf16, &n.b, e);

	*out = (struct moe_device_rates){.bytes = 0};
	if (rc)
		return rc;
	moe_device_text(n.b, out->text);
	out->bytes = room(n.b);
	rc = measure_roofs(&n, part, bf16, out, e);
	rc = rc ? rc : moe_measure_link(n.b, part, &out->link, e);
	rc = rc ? rc : moe_measure_link_both(n.b, part / 2, &out->both, e);
	n.b->ops->close(n.b);
	return rc;
}
