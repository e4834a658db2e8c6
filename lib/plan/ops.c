/* The operations of a layer: FLOP and bytes of each, counted from the model's shapes and the quants of its parts. */
#include <math.h>

#include "plan/private.h"

/* ---- weights ---- */

static enum moe_quant kept(enum moe_quant q)
{
	return q == MOE_Q_KEEP ? MOE_Q_BF16 : q;
}

static double matrix(enum moe_quant q, int64_t rows, int64_t cols)
{
	struct moe_matrix m = {.quant = kept(q), .rows = rows, .cols = cols};

	m.layout = moe_quant_is_coded(m.quant) ? MOE_L_R64 : MOE_L_PLAIN;
	return (double)moe_matrix_bytes(&m);
}

/* Of one row among many. */
static double row_bytes(enum moe_quant q, int64_t cols)
{
	return matrix(q, MOE_TILE_ROWS, cols) / MOE_TILE_ROWS;
}

/* gate, up and down. */
static double ffn_weights(enum moe_quant q, int64_t hidden, int64_t width)
{
	return width > 0 ? 2 * matrix(q, width, hidden) + matrix(q, hidden, width) : 0;
}

double plan_expert_bytes(const struct moe_setting *s, int layer)
{
	return ffn_weights(s->quants.experts, s->model->hidden, s->model->layers[layer].ffn.expert_width);
}

double plan_kv_bytes(const struct moe_setting *s, int layer)
{
	const struct moe_attention *a = &s->model->layers[layer].attn;
	double vectors = a->kind == MOE_ATTN_MLA ? 1 : 2.0 * a->kv_heads;

	/* Of q8 every vector has a scale, a bf16. */
	return (double)moe_attention_kv(a) * s->kv_bytes + (s->kv_bytes == 1 ? 2 * vectors : 0);
}

struct plan_heads plan_heads(const struct moe_attention *a)
{
	double heads = a->heads, kept = (double)moe_attention_kv(a);

	if (a->kind == MOE_ATTN_MLA)
		return (struct plan_heads){heads * kept, kept, heads * a->kv_rank};
	return (struct plan_heads){heads * a->head_dim, kept, heads * a->head_dim};
}

/* Query, then the compressed keys and values, and what makes heads of them. */
static double mla_weights(enum moe_quant q, const struct moe_attention *a, int64_t h)
{
	int64_t wide = (int64_t)a->heads * a->head_dim, plain = a->head_dim - a->rope.dims;
	double query = a->q_rank ? matrix(q, a->q_rank, h) + matrix(q, wide, a->q_rank) : matrix(q, wide, h);

	return query + matrix(q, a->kv_rank + a->rope.dims, h) + matrix(q, a->heads * (plain + a->v_dim), a->kv_rank);
}

static double qkv_weights(const struct moe_setting *s, const struct moe_attention *a)
{
	int64_t h = s->model->hidden, d = a->head_dim;

	if (a->kind == MOE_ATTN_MLA)
		return mla_weights(s->quants.rest, a, h);
	return matrix(s->quants.rest, a->heads * d, h) + 2 * matrix(s->quants.rest, a->kv_heads * d, h);
}

/* Columns of the output's matrix. */
static int64_t o_width(const struct moe_attention *a)
{
	return (int64_t)a->heads * (a->kind == MOE_ATTN_MLA ? a->v_dim : a->head_dim);
}

static double o_weights(const struct moe_setting *s, const struct moe_attention *a)
{
	return matrix(s->quants.rest, s->model->hidden, o_width(a));
}

double plan_base_bytes(const struct moe_setting *s, int layer)
{
	const struct moe_model *m = s->model;
	const struct moe_layer *l = &m->layers[layer < 0 ? 0 : layer];
	double norms = 2.0 * m->hidden * 2;

	if (layer < 0)
		return matrix(s->quants.embed, m->vocab, m->hidden) + (m->tied ? 0 : matrix(s->quants.head, m->vocab, m->hidden)) + norms / 2;
	return qkv_weights(s, &l->attn) + o_weights(s, &l->attn) + norms + matrix(MOE_Q_KEEP, l->ffn.experts, m->hidden) +
	       ffn_weights(s->quants.rest, m->hidden, l->ffn.shared_width) + ffn_weights(s->quants.rest, m->hidden, l->ffn.width);
}

/* ---- distinct experts ---- */

double plan_choices(const struct moe_setting *s, int layer)
{
	const struct moe_usage *u = s->usage;
	double total = 0;

	if (!u || layer >= u->layers || u->experts[layer] != s->model->layers[layer].ffn.experts)
		return 0;
	for (int x = 0; x < u->experts[layer]; x++)
		total += u->prefill[layer][x] + u->decode[layer][x];
	return total;
}

double plan_chance(const struct moe_setting *s, int layer, int expert, double choices)
{
	const struct moe_ffn *f = &s->model->layers[layer].ffn;
	double p;

	if (choices <= 0)
		return (double)f->gate.top_k / f->experts;
	p = f->gate.top_k * (s->usage->prefill[layer][expert] + s->usage->decode[layer][expert]) / choices;
	return p < 1 ? p : 1;
}

double moe_distinct_experts(const struct moe_setting *s, int layer, double rows)
{
	const struct moe_ffn *f = &s->model->layers[layer].ffn;
	double choices = plan_choices(s, layer), sum = 0;

	if (f->kind != MOE_FFN_MOE)
		return 0;
	if (choices <= 0)
		return f->experts * (1 - pow(1 - plan_chance(s, layer, 0, 0), rows));
	for (int x = 0; x < f->experts; x++)
		sum += 1 - pow(1 - plan_chance(s, layer, x, choices), rows);
	return sum;
}

/* ---- operations ---- */

struct plan_rows plan_decode_rows(double rows, double context, double element)
{
	return (struct plan_rows){rows, rows, context, context, element};
}

/* A causal prompt: its rows see 1, 2, ... positions. */
struct plan_rows plan_prefill_rows(double sequences, double prompt, double element)
{
	return (struct plan_rows){sequences * prompt, sequences, (prompt + 1) / 2, prompt, element};
}

/* What is multiplied: codes with int8 unless the setting is exact, then f32; other weights as what they are. */
static enum moe_flops type_of(const struct moe_setting *s, enum moe_quant q)
{
	switch (kept(q)) {
	case MOE_Q_F32:
		return MOE_FLOPS_F32;
	case MOE_Q_F16:
		return MOE_FLOPS_F16;
	case MOE_Q_BF16:
		return MOE_FLOPS_BF16;
	default:
		return s->exact ? MOE_FLOPS_F32 : MOE_FLOPS_I8;
	}
}

static struct moe_op product(const struct moe_setting *s, enum moe_op_kind kind, enum moe_quant q, double rows, double flops,
                             double weights, double activations, double calls)
{
	return (struct moe_op){.kind = kind, .flops = flops, .weights = weights, .activations = activations,
	                       .type = type_of(s, q), .kernel = (int)kept(q), .rows = rows, .calls = calls};
}

/* Positions that a row sees when no more than a window's last count: of rows that see 1, 2, ... n (mean keys (n + 1) / 2) or
 * n each, for the first kind the mean of min(i, window). */
static double seen(const struct plan_rows *r, double window)
{
	if (window <= 0 || r->stored <= window)
		return r->keys;
	if (r->keys == r->stored)
		return window;
	return window - window * (window - 1) / (2 * r->stored);
}

/* Both products, q k and p v, of one query with one position.  MLA reads what is kept as it is when a token comes, and makes
 * heads of it for a prompt, which takes fewer operations. */
static double operations(const struct moe_attention *a, const struct plan_rows *r)
{
	if (a->kind == MOE_ATTN_MLA && r->keys < r->stored)
		return 2.0 * a->heads * (a->head_dim + a->v_dim);
	return moe_attention_operations(a);
}

/* A sequence's keys and values are read as far as its rows see them, and those of the new rows, among the activations, are
 * written; `rows` are the queries that share a key. */
static struct moe_op attention(const struct moe_setting *s, int layer, const struct plan_rows *r)
{
	const struct moe_attention *a = &s->model->layers[layer].attn;
	struct plan_heads w = plan_heads(a);
	double keys = seen(r, a->window), group = (double)a->heads / (a->kind == MOE_ATTN_MLA ? 1 : a->kv_heads);

	return (struct moe_op){.kind = MOE_OP_ATTENTION,
	                       .flops = r->rows * keys * operations(a, r),
	                       .kv = r->sequences * keys * plan_kv_bytes(s, layer),
	                       .activations = r->rows * ((w.query + w.out) * r->element + plan_kv_bytes(s, layer)),
	                       .type = MOE_FLOPS_F16,
	                       .kernel = MOE_KERNEL_ATTENTION,
	                       .rows = r->rows / r->sequences * group,
	                       .calls = 2};
}

/* norm, products, norms of the heads, turning of q and k; two operations for every weight. */
static struct moe_op qkv(const struct moe_setting *s, const struct moe_attention *a, const struct plan_rows *r)
{
	double h = s->model->hidden, out = plan_heads(a).query + plan_heads(a).kv;
	double weights = (double)moe_attention_parameters(a, s->model->hidden) - (double)o_width(a) * h;
	double calls = 6 + (a->qk_norm != MOE_QKN_NONE ? 2 : 0) + (a->clip > 0 ? 3 : 0);

	return product(s, MOE_OP_QKV, s->quants.rest, r->rows, 2 * r->rows * weights, qkv_weights(s, a),
	               r->rows * (3 * h + 3 * out) * r->element, calls);
}

/* The product, and the addition to the residual stream. */
static struct moe_op output(const struct moe_setting *s, const struct moe_attention *a, const struct plan_rows *r)
{
	double h = s->model->hidden, in = (double)o_width(a);

	return product(s, MOE_OP_O, s->quants.rest, r->rows, 2 * r->rows * h * in, o_weights(s, a), r->rows * (in + 4 * h) * r->element, 2);
}

/* norm, product, choice. */
static struct moe_op gate(const struct moe_setting *s, const struct moe_ffn *f, const struct plan_rows *r)
{
	double h = s->model->hidden;

	return product(s, MOE_OP_GATE, MOE_Q_KEEP, r->rows, 2 * r->rows * h * f->experts, matrix(MOE_Q_KEEP, f->experts, s->model->hidden),
	               r->rows * (3 * h + 2.0 * f->experts) * r->element, 3);
}

/* Three products of every row with each of its k experts; the outputs, added up, and added to the residual stream. */
static struct moe_op experts(const struct moe_setting *s, int layer, const struct plan_rows *r)
{
	const struct moe_ffn *f = &s->model->layers[layer].ffn;
	double h = s->model->hidden, i = f->expert_width, pairs = r->rows * f->gate.top_k;
	double distinct = moe_distinct_experts(s, layer, r->rows);
	struct moe_op op = product(s, MOE_OP_EXPERTS, s->quants.experts, pairs / distinct, 6 * pairs * h * i,
	                           distinct * plan_expert_bytes(s, layer), (pairs * (3 * h + 2 * i) + 3 * r->rows * h) * r->element, 4);

	op.tokens = r->rows;
	op.chance = (double)f->gate.top_k / f->experts;
	return op;
}

static struct moe_op ffn(const struct moe_setting *s, enum moe_op_kind kind, double width, const struct plan_rows *r)
{
	double h = s->model->hidden;

	return product(s, kind, s->quants.rest, r->rows, 6 * r->rows * h * width, ffn_weights(s->quants.rest, s->model->hidden, (int64_t)width),
	               r->rows * (4 * h + 2 * width) * r->element, 4);
}

/* The last row of every sequence; logits are looked at three times (the greatest, the sum of exponentials, the copy). */
static struct moe_op head(const struct moe_setting *s, const struct plan_rows *r)
{
	double h = s->model->hidden, v = s->model->vocab;

	return product(s, MOE_OP_HEAD, s->quants.head, r->sequences, 2 * r->sequences * h * v,
	               matrix(s->quants.head, s->model->vocab, s->model->hidden), r->sequences * (3 * h + 4 * v) * r->element, 3);
}

static struct moe_op embed(const struct moe_setting *s, const struct plan_rows *r)
{
	struct moe_op op = product(s, MOE_OP_EMBED, s->quants.embed, r->rows, 0, r->rows * row_bytes(s->quants.embed, s->model->hidden),
	                           r->rows * s->model->hidden * r->element, 1);

	op.kernel = -1;
	return op;
}

void plan_ops(const struct moe_setting *s, int layer, const struct plan_rows *r, struct moe_op *out, int *n)
{
	const struct moe_layer *l = &s->model->layers[layer < 0 ? 0 : layer];

	*n = 0;
	if (layer < 0) {
		out[(*n)++] = embed(s, r);
		out[(*n)++] = head(s, r);
		return;
	}
	out[(*n)++] = qkv(s, &l->attn, r);
	out[(*n)++] = attention(s, layer, r);
	out[(*n)++] = output(s, &l->attn, r);
	if (l->ffn.kind == MOE_FFN_DENSE) {
		out[(*n)++] = ffn(s, MOE_OP_DENSE, l->ffn.width, r);
		return;
	}
	out[(*n)++] = gate(s, &l->ffn, r);
	out[(*n)++] = experts(s, layer, r);
	if (l->ffn.shared_width > 0)
		out[(*n)++] = ffn(s, MOE_OP_SHARED, l->ffn.shared_width, r);
}

void moe_layer_ops(const struct moe_setting *s, int layer, double rows, double context, struct moe_op *out, int *n)
{
	struct plan_rows r = plan_decode_rows(rows, context, s->exact ? 4 : 2);

	plan_ops(s, layer, &r, out, n);
}

const char *moe_op_name(enum moe_op_kind k)
{
	static const char *const names[MOE_OPS] = {"qkv", "attention", "o", "gate", "experts", "shared", "dense", "embed", "head"};

	return names[k];
}
