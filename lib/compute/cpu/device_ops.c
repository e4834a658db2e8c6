/* Operations of the CPU as a device: those of the CPU, when the stream has done what is before them and all that is given lies
 * where the interface says, as on a device that could reach nothing else. */
#include "device.h"

/* What an operation is given: n bytes at `at`; nothing when n is 0. */
struct given {
	const char *what;
	const void *at;
	size_t n;
};
#define ARRAY(what, at, n) {what, at, sizeof *(at) * (size_t)(n)}
#define OPTIONAL(what, at, n) {what, at, (at) ? sizeof *(at) * (size_t)(n) : 0}
#define COUNT(a) (sizeof(a) / sizeof *(a))

static int on_device(struct moe_backend *b, const struct given *v, size_t n, struct moe_err *e)
{
	for (size_t i = 0; i < n; i++)
		if (v[i].n > 0 && !moe_arena_find(moe_cpu_device(b)->arena, v[i].at, v[i].n))
			return moe_fail(e, MOE_E_RANGE, "%s: %zu bytes at %p are not memory of the device", v[i].what, v[i].n, v[i].at);
	return 0;
}

static int on_host(struct moe_backend *b, const struct given *v, size_t n, struct moe_err *e)
{
	for (size_t i = 0; i < n; i++)
		if (v[i].n > 0 && moe_arena_meets(moe_cpu_device(b)->arena, v[i].at, v[i].n))
			return moe_fail(e, MOE_E_RANGE, "%s: %zu bytes at %p are not memory of the host", v[i].what, v[i].n, v[i].at);
	return 0;
}

static struct given matrix(const char *what, const struct moe_matrix *w)
{
	return (struct given){what, w->data, moe_matrix_bytes(w)};
}

static int weights_on_device(struct moe_backend *b, const struct moe_expert_weights *w, struct moe_err *e)
{
	const struct given v[] = {matrix("gate", &w->gate), matrix("up", &w->up), matrix("down", &w->down)};

	return on_device(b, v, COUNT(v), e);
}

/* How many rows such numbers of rows speak of. */
static size_t rows_of(const int32_t *v, size_t n)
{
	size_t rows = 0;

	for (size_t i = 0; i < n; i++)
		rows = v[i] >= 0 && (size_t)v[i] >= rows ? (size_t)v[i] + 1 : rows;
	return rows;
}

/* Begin and end what the team computes. */
static int begin(struct moe_backend *b, struct moe_stream_q *q, struct moe_err *e)
{
	struct moe_cpu_device *d = moe_cpu_device(b);
	int rc = moe_streams_drain(d->streams, q ? q : d->own, e);

	if (rc == 0)
		pthread_mutex_lock(&d->computing);
	return rc;
}

static int end(struct moe_backend *b, int rc)
{
	pthread_mutex_unlock(&moe_cpu_device(b)->computing);
	return rc;
}

static int device_matmul(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
                         const struct moe_matrix *w, const float *bias, struct moe_err *e)
{
	const struct given v[] = {ARRAY("y of matmul", y, rows * w->rows), ARRAY("x of matmul", x, rows * w->cols),
	                          OPTIONAL("bias", bias, w->rows), matrix("matrix of matmul", w)};
	int rc = rows > 0 ? on_device(b, v, COUNT(v), e) : 0;

	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_matmul(b, q, y, x, rows, w, bias, e));
}

static int device_embed(struct moe_backend *b, struct moe_stream_q *q, float *y, const int32_t *ids, int rows,
                        const struct moe_matrix *w, struct moe_err *e)
{
	const struct given v[] = {ARRAY("y of embed", y, rows * w->cols), matrix("matrix of embed", w)};
	int rc = rows > 0 ? on_device(b, v, COUNT(v), e) : 0;

	rc = rc ? rc : on_host(b, &(struct given)ARRAY("ids of embed", ids, rows), 1, e);
	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_embed(b, q, y, ids, rows, w, e));
}

static int device_rmsnorm(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows, int n,
                          const float *weight, float eps, struct moe_err *e)
{
	const struct given v[] = {ARRAY("y of rmsnorm", y, (size_t)rows * (size_t)n), ARRAY("x of rmsnorm", x, (size_t)rows * (size_t)n),
	                          ARRAY("weight of rmsnorm", weight, n)};
	int rc = rows > 0 ? on_device(b, v, COUNT(v), e) : 0;

	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_rmsnorm(b, q, y, x, rows, n, weight, eps, e));
}

static int device_rope(struct moe_backend *b, struct moe_stream_q *q, float *x, const int32_t *positions, int rows, int heads,
                       int head_dim, const struct moe_rope *rope, struct moe_err *e)
{
	int rc = on_device(b, &(struct given)ARRAY("x of rope", x, (size_t)rows * (size_t)heads * (size_t)head_dim), 1, e);

	rc = rc ? rc : on_host(b, &(struct given)ARRAY("positions of rope", positions, rows), 1, e);
	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_rope(b, q, x, positions, rows, heads, head_dim, rope, e));
}

static int device_clamp(struct moe_backend *b, struct moe_stream_q *q, float *x, size_t n, float limit, struct moe_err *e)
{
	int rc = on_device(b, &(struct given)ARRAY("x of clamp", x, n), 1, e);

	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_clamp(b, q, x, n, limit, e));
}

/* ---- attention ---- */

static size_t all_rows(const struct moe_attn_seq *seqs, int n_seqs)
{
	size_t end = 0;

	for (int i = 0; i < n_seqs; i++)
		if (seqs[i].rows > 0 && (size_t)(seqs[i].row + seqs[i].rows) > end)
			end = (size_t)(seqs[i].row + seqs[i].rows);
	return end;
}

/* The blocks of positions from `from` to the sequence's last row. */
static int kv_on_device(struct moe_backend *b, const struct moe_kv_view *kv, const struct moe_attention *a,
                        const struct moe_attn_seq *s, int from, struct moe_err *e)
{
	size_t bytes = 2 * MOE_KV_BLOCK * (size_t)a->kv_heads * moe_kv_vector_bytes(kv->type, a->head_dim);

	for (int i = from / MOE_KV_BLOCK; s->rows > 0 && i <= (s->pos + s->rows - 1) / MOE_KV_BLOCK; i++) {
		const unsigned char *at = kv->base + (size_t)s->blocks[i] * kv->stride;
		int rc = on_device(b, &(struct given){"block of keys and values", at, bytes}, 1, e);

		if (rc)
			return rc;
	}
	return 0;
}

static int lists_on_host(struct moe_backend *b, const struct moe_attn_seq *seqs, int n_seqs, struct moe_err *e)
{
	int rc = on_host(b, &(struct given)ARRAY("sequences", seqs, n_seqs), 1, e);

	for (int i = 0; !rc && i < n_seqs; i++)
		rc = on_host(b, &(struct given)ARRAY("table of blocks", seqs[i].blocks, 1), 1, e);
	return rc;
}

static int device_kv_store(struct moe_backend *b, struct moe_stream_q *q, struct moe_kv_view kv, const float *k, const float *v,
                           const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a, struct moe_err *e)
{
	size_t n = all_rows(seqs, n_seqs) * (size_t)a->kv_heads * (size_t)a->head_dim;
	const struct given g[] = {ARRAY("keys", k, n), ARRAY("values", v, n)};
	int rc = on_device(b, g, COUNT(g), e);

	rc = rc ? rc : lists_on_host(b, seqs, n_seqs, e);
	for (int i = 0; !rc && i < n_seqs; i++)
		rc = kv_on_device(b, &kv, a, &seqs[i], seqs[i].pos, e);
	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_kv_store(b, q, kv, k, v, seqs, n_seqs, a, e));
}

static int device_attention(struct moe_backend *b, struct moe_stream_q *q, float *out, const float *query,
                            struct moe_kv_view kv, const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a,
                            struct moe_err *e)
{
	size_t n = all_rows(seqs, n_seqs) * (size_t)a->heads * (size_t)a->head_dim;
	const struct given g[] = {ARRAY("out of attention", out, n), ARRAY("query", query, n)};
	int rc = on_device(b, g, COUNT(g), e);

	rc = rc ? rc : lists_on_host(b, seqs, n_seqs, e);
	for (int i = 0; !rc && i < n_seqs; i++) {
		int first = seqs[i].pos - a->window + 1;

		rc = kv_on_device(b, &kv, a, &seqs[i], a->window > 0 && first > 0 ? first : 0, e);
	}
	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_attention(b, q, out, query, kv, seqs, n_seqs, a, e));
}

/* ---- experts ---- */

static int device_gate(struct moe_backend *b, struct moe_stream_q *q, const float *logits, int rows, int experts,
                       const struct moe_gate *g, int32_t *ids, float *weights, struct moe_err *e)
{
	size_t n = (size_t)rows * (size_t)g->top_k;
	const struct given v[] = {ARRAY("logits of the gate", logits, (size_t)rows * (size_t)experts),
	                          ARRAY("ids of the gate", ids, n), ARRAY("weights of the gate", weights, n)};
	int rc = on_device(b, v, COUNT(v), e);

	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_gate(b, q, logits, rows, experts, g, ids, weights, e));
}

static int device_ffn(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
                      const struct moe_expert_weights *w, enum moe_act act, float *scratch, struct moe_err *e)
{
	const struct given v[] = {ARRAY("y of ffn", y, rows * w->down.rows), ARRAY("x of ffn", x, rows * w->gate.cols),
	                          ARRAY("scratch of ffn", scratch, rows * w->gate.rows)};
	int rc = on_device(b, v, COUNT(v), e);

	rc = rc || rows == 0 ? rc : weights_on_device(b, w, e);
	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_ffn(b, q, y, x, rows, w, act, scratch, e));
}

static int group_given(struct moe_backend *b, const struct moe_expert_group *g, const float *y, const float *x, const int32_t *x_row,
                       const float *scratch, struct moe_err *e)
{
	size_t in = (size_t)g->w.gate.cols, width = (size_t)g->w.gate.rows, out = (size_t)g->w.down.rows;
	size_t first = (size_t)g->first, pairs = (size_t)g->pairs;
	const struct given v[] = {ARRAY("y of experts", y + first * out, pairs * out),
	                          ARRAY("x of experts", x, rows_of(x_row + first, pairs) * in),
	                          ARRAY("scratch of experts", scratch + first * width, pairs * width)};
	int rc = on_device(b, v, COUNT(v), e);

	return rc ? rc : weights_on_device(b, &g->w, e);
}

static int device_experts(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x,
                          const struct moe_expert_group *groups, int n_groups, const int32_t *x_row, const float *weight,
                          enum moe_act act, float *scratch, struct moe_err *e)
{
	const struct given v[] = {ARRAY("groups", groups, n_groups), OPTIONAL("rows of experts", x_row, n_groups > 0),
	                          OPTIONAL("weights of experts", weight, n_groups > 0)};
	int rc = on_host(b, v, COUNT(v), e);

	for (int i = 0; !rc && i < n_groups; i++)
		if (groups[i].pairs > 0)
			rc = group_given(b, &groups[i], y, x, x_row, scratch, e);
	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_experts(b, q, y, x, groups, n_groups, x_row, weight, act, scratch, e));
}

static int device_combine(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *parts, const int32_t *slot,
                          int rows, int k, int n, struct moe_err *e)
{
	size_t slots = (size_t)rows * (size_t)k;
	const struct given v[] = {ARRAY("y of combine", y, (size_t)rows * (size_t)n), ARRAY("parts", parts, rows_of(slot, slots) * (size_t)n)};
	int rc = on_host(b, &(struct given)ARRAY("slots", slot, slots), 1, e);

	rc = rc ? rc : on_device(b, v, COUNT(v), e);
	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_combine(b, q, y, parts, slot, rows, k, n, e));
}

static int device_add(struct moe_backend *b, struct moe_stream_q *q, float *x, const float *y, size_t n, struct moe_err *e)
{
	const struct given v[] = {ARRAY("x of add", x, n), ARRAY("y of add", y, n)};
	int rc = on_device(b, v, COUNT(v), e);

	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_add(b, q, x, y, n, e));
}

static int device_sigmoid_scale(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *s, int rows, int n,
                                struct moe_err *e)
{
	const struct given v[] = {ARRAY("y of sigmoid_scale", y, (size_t)rows * (size_t)n), ARRAY("s of sigmoid_scale", s, rows)};
	int rc = on_device(b, v, COUNT(v), e);

	rc = rc ? rc : begin(b, q, e);
	return rc ? rc : end(b, moe_cpu_sigmoid_scale(b, q, y, s, rows, n, e));
}

void moe_cpu_device_ops(struct moe_backend_ops *ops)
{
	ops->matmul = device_matmul;
	ops->embed = device_embed;
	ops->rmsnorm = device_rmsnorm;
	ops->rope = device_rope;
	ops->clamp = device_clamp;
	ops->kv_store = device_kv_store;
	ops->attention = device_attention;
	ops->gate = device_gate;
	ops->ffn = device_ffn;
	ops->experts = device_experts;
	ops->combine = device_combine;
	ops->add = device_add;
	ops->sigmoid_scale = device_sigmoid_scale;
}
