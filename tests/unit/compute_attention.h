/* Attention for the compute tests: sequences in a KV store of any type, and the same the plain way in double. */
#ifndef COMPUTE_ATTENTION_H
#define COMPUTE_ATTENTION_H

#include "compute_rig.h"

struct attention_case {
	int heads, kv_heads, head_dim, window;
	int pos, rows;               /* of the second sequence; the first is a prompt of 70, the third decodes */
	int deep;                    /* the third's position */
};
static const struct attention_case attention_cases[] = {
	{4, 4, 64, 0, 0, 65, 200},    {8, 2, 128, 0, 63, 3, 200},    {6, 2, 40, 10, 100, 30, 200},
	{4, 1, 16, 64, 130, 1, 200},  {3, 3, 7, 1, 5, 12, 200},      {2, 1, 300, 100, 60, 80, 200},
	{16, 2, 32, 65, 0, 20, 200},  {6, 1, 32, 0, 1000, 50, 2100}, {2, 2, 24, 1100, 1990, 70, 3300},
};
#define ATTENTION_SEQS 3
#define ATTENTION_TABLE 64

struct attention_rig {
	struct moe_attention a;
	struct moe_attn_seq seqs[ATTENTION_SEQS];
	int32_t blocks[ATTENTION_SEQS][ATTENTION_TABLE]; /* where each sequence's blocks lie: not in order */
	int rows;
	size_t kv_bytes;
	struct moe_kv_view kv;
	float *k[ATTENTION_SEQS], *v[ATTENTION_SEQS]; /* [pos + rows, kv_heads, head_dim], all of the sequence */
};

static inline void store_span(struct moe_backend *b, struct pile *p, struct attention_rig *r, int s, int from, int to)
{
	size_t one = (size_t)r->a.kv_heads * (size_t)r->a.head_dim, n = (size_t)(to - from) * one * sizeof(float);
	struct moe_attn_seq seq = {0, to - from, from, r->seqs[s].blocks};
	struct moe_err e = MOE_ERR_INIT;
	int kept = p->n;

	assert_int_equal(b->ops->kv_store(b, NULL, r->kv, pile_copy(p, r->k[s] + (size_t)from * one, n),
	                                  pile_copy(p, r->v[s] + (size_t)from * one, n), &seq, 1, &r->a, &e), 0);
	assert_int_equal(b->ops->sync(b, NULL, &e), 0);
	while (p->n > kept)
		b->ops->release(b, p->v[--p->n]);
}

/* The blocks of all sequences, dealt out with a stride that meets each of them once. */
static inline size_t deal_blocks(struct attention_rig *r, const struct attention_case *c)
{
	const int ends[ATTENTION_SEQS] = {70, c->pos + c->rows, c->deep + 1};
	int n = 0, at = 0;

	for (int s = 0; s < ATTENTION_SEQS; s++)
		n += (ends[s] + MOE_KV_BLOCK - 1) / MOE_KV_BLOCK;
	n += n % 5 == 0;
	for (int s = 0; s < ATTENTION_SEQS; s++)
		for (int i = 0; i * MOE_KV_BLOCK < ends[s]; i++)
			r->blocks[s][i] = at++ * 5 % n;
	return (size_t)n;
}

static inline void attention_open(struct moe_backend *b, struct pile *p, struct attention_rig *r,
                                  const struct attention_case *c, enum moe_kv_type type)
{
	size_t one = (size_t)c->kv_heads * (size_t)c->head_dim, n;

	*r = (struct attention_rig){.a = {.heads = c->heads, .kv_heads = c->kv_heads, .head_dim = c->head_dim,
	                                  .window = c->window, .scale = 1 / sqrtf((float)c->head_dim)}};
	r->seqs[0] = (struct moe_attn_seq){0, 70, 0, r->blocks[0]};
	r->seqs[1] = (struct moe_attn_seq){70, c->rows, c->pos, r->blocks[1]};
	r->seqs[2] = (struct moe_attn_seq){70 + c->rows, 1, c->deep, r->blocks[2]};
	r->rows = 71 + c->rows;
	r->kv.type = type;
	r->kv.stride = 2 * MOE_KV_BLOCK * (size_t)c->kv_heads * moe_kv_vector_bytes(type, c->head_dim) + 64;
	n = deal_blocks(r, c);
	r->kv_bytes = n * r->kv.stride;
	r->kv.base = pile_new(p, r->kv_bytes);
	for (int s = 0; s < ATTENTION_SEQS; s++) {
		int end = r->seqs[s].pos + r->seqs[s].rows;

		r->k[s] = noises(20 + (uint64_t)s, (size_t)end * one);
		r->v[s] = noises(30 + (uint64_t)s, (size_t)end * one);
		store_span(b, p, r, s, 0, end);
	}
}

static inline void attention_close(struct attention_rig *r)
{
	for (int s = 0; s < ATTENTION_SEQS; s++)
		free(r->k[s]), free(r->v[s]);
}

/* ---- what a KV type keeps of a vector ---- */

static inline double next_bf16_up(double x)
{
	float f = (float)x;
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	bits = (bits + 0xffff) & 0xffff0000;
	memcpy(&f, &bits, sizeof f);
	return (double)f;
}

static inline void keep_q8(float *x, size_t n)
{
	double most = 0, scale;

	for (size_t i = 0; i < n; i++)
		most = fmax(most, fabs((double)x[i]));
	scale = next_bf16_up((double)(float)(most / 127));
	for (size_t i = 0; i < n; i++)
		x[i] = scale > 0 ? (float)(nearbyint((double)((float)(x[i] / scale))) * scale) : 0.0f;
}

/* x[n] as it comes back, the plain way. */
static inline void keep_as(enum moe_kv_type type, float *x, size_t n)
{
	if (type == MOE_KV_Q8)
		keep_q8(x, n);
	for (size_t i = 0; i < n; i++)
		if (type == MOE_KV_F16)
			x[i] = moe_f16_to_f32(moe_f32_to_f16(fmaxf(fminf(x[i], 65504), -65504)));
		else if (type == MOE_KV_BF16)
			x[i] = moe_bf16_to_f32(moe_f32_to_bf16(x[i]));
}

static inline void keep_all(struct attention_rig *r)
{
	for (int s = 0; s < ATTENTION_SEQS; s++)
		for (int i = 0; i < (r->seqs[s].pos + r->seqs[s].rows) * r->a.kv_heads; i++) {
			keep_as(r->kv.type, r->k[s] + (size_t)i * (size_t)r->a.head_dim, (size_t)r->a.head_dim);
			keep_as(r->kv.type, r->v[s] + (size_t)i * (size_t)r->a.head_dim, (size_t)r->a.head_dim);
		}
}

/* out[head_dim] of one head of one query at pos of sequence s, the plain way. */
static inline void attend_plainly(const struct attention_rig *r, int s, int pos, int head, const float *q, double *out)
{
	int first = r->a.window > 0 && pos >= r->a.window ? pos - r->a.window + 1 : 0;
	size_t dim = (size_t)r->a.head_dim, kv = (size_t)(head / (r->a.heads / r->a.kv_heads));
	double max = -INFINITY, sum = 0, *score = calloc((size_t)pos + 1, sizeof *score);

	assert_non_null(score);
	for (int j = first; j <= pos; j++) {
		const float *k = r->k[s] + ((size_t)j * (size_t)r->a.kv_heads + kv) * dim;

		score[j] = 0;
		for (size_t d = 0; d < dim; d++)
			score[j] += (double)q[d] * k[d];
		score[j] *= r->a.scale;
		max = score[j] > max ? score[j] : max;
	}
	memset(out, 0, dim * sizeof *out);
	for (int j = first; j <= pos; j++) {
		const float *v = r->v[s] + ((size_t)j * (size_t)r->a.kv_heads + kv) * dim;
		double w = exp(score[j] - max);

		sum += w;
		for (size_t d = 0; d < dim; d++)
			out[d] += w * v[d];
	}
	for (size_t d = 0; d < dim; d++)
		out[d] /= sum;
	free(score);
}

static inline void vector_attention_case(struct moe_backend *b, const struct attention_case *c, enum moe_kv_type type)
{
	struct pile p = {.b = b};
	struct moe_err e = MOE_ERR_INIT;
	struct attention_rig r;
	size_t row = (size_t)c->heads * (size_t)c->head_dim;
	double want[300];
	float *q, *out, *dout;

	attention_open(b, &p, &r, c, type);
	q = noises(40, (size_t)r.rows * row);
	for (size_t i = 0; i < (size_t)r.rows * row; i++)
		q[i] *= 5;
	out = noises(41, (size_t)r.rows * row);
	dout = pile_copy(&p, out, (size_t)r.rows * row * sizeof *out);
	assert_int_equal(b->ops->attention(b, NULL, dout, pile_copy(&p, q, (size_t)r.rows * row * sizeof *q), r.kv, r.seqs,
	                                   ATTENTION_SEQS, &r.a, &e), 0);
	pile_read(&p, out, dout, (size_t)r.rows * row * sizeof *out);
	keep_all(&r);
	for (int s = 0; s < ATTENTION_SEQS; s++)
		for (int i = 0; i < r.seqs[s].rows * c->heads; i++) {
			size_t at = ((size_t)r.seqs[s].row * (size_t)c->heads + (size_t)i) * (size_t)c->head_dim;

			attend_plainly(&r, s, r.seqs[s].pos + i / c->heads, i % c->heads, q + at, want);
			for (size_t d = 0; d < (size_t)c->head_dim; d++)
				near(out[at + d], want[d], 3e-6, "attention", at + d);
		}
	free(q), free(out);
	attention_close(&r);
	pile_free(&p);
}

static inline void vector_attention(struct moe_backend *b)
{
	for (size_t i = 0; i < COUNT(attention_cases); i++)
		for (int t = 0; t < MOE_KV_TYPES; t++)
			vector_attention_case(b, &attention_cases[i], (enum moe_kv_type)t);
}

#endif
