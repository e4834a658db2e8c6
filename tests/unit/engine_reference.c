/* The decoder against another one: a whole prompt at once, in double, written from the models' definition alone. */
#include <math.h>

#include "engine_rig.h"

#define T 70                         /* positions; more than one KV block */

/* ---- small things, in double ---- */

static double weight_at(const struct moe_matrix *m, int64_t i)
{
	switch (m->quant) {
	case MOE_Q_F32:
		return (double)((const float *)m->data)[i];
	case MOE_Q_F16:
		return (double)moe_f16_to_f32(((const uint16_t *)m->data)[i]);
	case MOE_Q_BF16:
		return (double)moe_bf16_to_f32(((const uint16_t *)m->data)[i]);
	default:
		fail_msg("quant %d", (int)m->quant);
		return 0.0;
	}
}

static float vector_at(const struct moe_vector *v, int64_t i)
{
	float f;

	assert_int_equal(moe_to_f32(v->t->dtype, v->t->data + (size_t)i * moe_dtype_size(v->t->dtype), &f, 1, NULL), 0);
	return f;
}

static void matvec(double *y, const struct moe_matrix *m, const double *x, const struct moe_vector *bias)
{
	for (int64_t r = 0; r < m->rows; r++) {
		y[r] = bias && bias->t ? (double)vector_at(bias, r) : 0.0;
		for (int64_t c = 0; c < m->cols; c++)
			y[r] += weight_at(m, r * m->cols + c) * x[c];
	}
}

static void norm(double *y, const double *x, int n, const struct moe_vector *w, double eps)
{
	double sum = 0.0;

	for (int i = 0; i < n; i++)
		sum += x[i] * x[i];
	for (int i = 0; i < n; i++)
		y[i] = x[i] / sqrt(sum / n + eps) * (double)vector_at(w, i);
}

static double *doubles(size_t n)
{
	double *d = calloc(n, sizeof *d);

	assert_non_null(d);
	return d;
}

/* ---- attention ---- */

static void prepare_heads(double *v, int heads, const struct moe_attention *a, const struct moe_vector *w, int position,
                          bool rotate, double eps)
{
	int d = a->head_dim, n = heads * d, half = a->rope.dims / 2;

	if (rotate && a->qk_norm == MOE_QKN_WHOLE)
		norm(v, v, n, w, eps);
	for (int h = 0; rotate && a->qk_norm == MOE_QKN_HEAD && h < heads; h++)
		norm(v + h * d, v + h * d, d, w, eps);
	for (int i = 0; i < n && a->clip > 0.0f; i++)
		v[i] = fmin(fmax(v[i], (double)-a->clip), (double)a->clip);
	for (int h = 0; h < heads && rotate; h++)
		for (int i = 0; i < half; i++) {
			double angle = position / a->rope.factor * pow(a->rope.theta, -2.0 * i / a->rope.dims);
			double p = v[h * d + i], q = v[h * d + i + half];

			v[h * d + i] = p * cos(angle) - q * sin(angle);
			v[h * d + i + half] = q * cos(angle) + p * sin(angle);
		}
}

/* One head's answer at position t. */
static void attend(double *out, const double *q, const double *k, const double *v, size_t stride, int t,
                   const struct moe_attention *a)
{
	int from = a->window > 0 && t >= a->window ? t - a->window + 1 : 0;
	double s[T], max = -INFINITY, sum = 0.0;

	for (int j = from; j <= t; j++) {
		s[j] = 0.0;
		for (int i = 0; i < a->head_dim; i++)
			s[j] += q[i] * k[(size_t)j * stride + (size_t)i];
		s[j] *= (double)a->scale;
		max = fmax(max, s[j]);
	}
	for (int j = from; j <= t; j++)
		sum += s[j] = exp(s[j] - max);
	for (int i = 0; i < a->head_dim; i++) {
		out[i] = 0.0;
		for (int j = from; j <= t; j++)
			out[i] += s[j] / sum * v[(size_t)j * stride + (size_t)i];
	}
}

static void attention(double *x, const struct moe_model *m, const struct moe_attention *a,
                      const struct moe_layer_weights *w)
{
	size_t hd = (size_t)m->hidden, qn = (size_t)(a->heads * a->head_dim), kn = (size_t)(a->kv_heads * a->head_dim);
	double *h = doubles(hd), *q = doubles(T * qn), *k = doubles(T * kn), *v = doubles(T * kn), *o = doubles(qn);

	for (int t = 0; t < T; t++) {
		size_t at = (size_t)t;

		norm(h, x + at * hd, m->hidden, &w->attn_norm, (double)m->norm_eps);
		matvec(q + at * qn, &w->q, h, &w->q_bias);
		matvec(k + at * kn, &w->k, h, &w->k_bias);
		matvec(v + at * kn, &w->v, h, &w->v_bias);
		prepare_heads(q + at * qn, a->heads, a, &w->q_norm, t, true, (double)m->norm_eps);
		prepare_heads(k + at * kn, a->kv_heads, a, &w->k_norm, t, true, (double)m->norm_eps);
		prepare_heads(v + at * kn, a->kv_heads, a, NULL, t, false, (double)m->norm_eps);
	}
	for (int t = 0; t < T; t++) {
		for (int i = 0; i < a->heads; i++) {
			size_t kv = (size_t)(i / (a->heads / a->kv_heads) * a->head_dim), at = (size_t)(i * a->head_dim);

			attend(o + at, q + (size_t)t * qn + at, k + kv, v + kv, kn, t, a);
		}
		matvec(h, &w->o, o, &w->o_bias);
		for (size_t i = 0; i < hd; i++)
			x[(size_t)t * hd + i] += h[i];
	}
	free(h), free(q), free(k), free(v), free(o);
}

/* ---- FFN ---- */

static void add_ffn(double *y, const double *x, const struct moe_expert_weights *w, double times)
{
	double *gate = doubles((size_t)w->gate.rows), *up = doubles((size_t)w->up.rows), *down = doubles((size_t)w->down.rows);

	matvec(gate, &w->gate, x, NULL);
	matvec(up, &w->up, x, NULL);
	for (int64_t i = 0; i < w->gate.rows; i++)
		up[i] *= gate[i] / (1.0 + exp(-gate[i]));
	matvec(down, &w->down, up, NULL);
	for (int64_t i = 0; i < w->down.rows; i++)
		y[i] += times * down[i];
	free(gate), free(up), free(down);
}

/* The k highest of p, marked; returns how far the k-th is from the next. */
static double choose(const double *p, int n, int k, bool *chosen)
{
	double last = 0.0, next = 0.0;

	for (int i = 0; i < n; i++)
		chosen[i] = false;
	for (int i = 0; i <= k && i < n; i++) {
		int best = -1;

		for (int j = 0; j < n; j++)
			if (!chosen[j] && (best < 0 || p[j] > p[best]))
				best = j;
		if (i == k)
			next = p[best];
		else
			chosen[best] = true, last = p[best];
	}
	return last - next;
}

static double moe(double *y, const double *x, const struct rig *r, int layer, const struct moe_layer_weights *w)
{
	const struct moe_ffn *f = &r->c->model.layers[layer].ffn;
	double p[256], sum = 0.0, kept = 0.0, margin, s;
	bool chosen[256];

	assert_in_range(f->experts, 1, 256);
	matvec(p, &w->gate, x, NULL);
	for (int i = 0; i < f->experts; i++)
		sum += p[i] = exp(p[i]);
	for (int i = 0; i < f->experts; i++)
		p[i] /= sum;
	margin = choose(p, f->experts, f->gate.top_k, chosen);
	for (int i = 0; i < f->experts; i++)
		kept += chosen[i] ? p[i] : 0.0;
	for (int i = 0; i < f->experts; i++) {
		struct moe_expert_weights ew;

		if (!chosen[i])
			continue;
		assert_int_equal(moe_bind_expert(r->c->tensors, &r->c->model, layer, i, &ew, NULL), 0);
		add_ffn(y, x, &ew, (f->gate.renorm ? p[i] / kept : p[i]) * (double)f->gate.factor);
	}
	if (f->shared_width > 0) {
		s = 1.0;
		if (f->shared_gate) {
			matvec(&s, &w->shared_switch, x, NULL);
			s = 1.0 / (1.0 + exp(-s));
		}
		add_ffn(y, x, &w->shared, s);
	}
	return margin;
}

/* x += FFN(norm(x)); margin[t] falls to the least gate margin seen so far. */
static void ffn(double *x, const struct rig *r, int layer, const struct moe_layer_weights *w, double *margin)
{
	const struct moe_model *m = &r->c->model;
	size_t hd = (size_t)m->hidden;
	double *h = doubles(hd), *y = doubles(hd);

	for (size_t t = 0; t < T; t++) {
		memset(y, 0, hd * sizeof *y);
		norm(h, x + t * hd, m->hidden, &w->ffn_norm, (double)m->norm_eps);
		if (m->layers[layer].ffn.kind == MOE_FFN_DENSE)
			add_ffn(y, h, &w->ffn, 1.0);
		else
			margin[t] = fmin(margin[t], moe(y, h, r, layer, w));
		for (size_t i = 0; i < hd; i++)
			x[t * hd + i] += y[i];
	}
	free(h), free(y);
}

/* ---- the whole ---- */

/* log p(token t+1 | tokens 0..t) into logprob[t]. */
static void reference(const struct rig *r, const int32_t *tokens, double *logprob, double *margin)
{
	const struct moe_model *m = &r->c->model;
	size_t hd = (size_t)m->hidden;
	struct moe_base_weights w;
	double *x = doubles(T * hd), *logits = doubles((size_t)m->vocab);

	assert_int_equal(moe_bind_base(r->c->tensors, m, &w, NULL), 0);
	for (size_t t = 0; t < T; t++) {
		margin[t] = 1.0;
		for (size_t i = 0; i < hd; i++)
			x[t * hd + i] = weight_at(&w.embed, (int64_t)tokens[t] * m->hidden + (int64_t)i);
	}
	for (int l = 0; l < m->n_layers; l++) {
		attention(x, m, &m->layers[l].attn, &w.layers[l]);
		ffn(x, r, l, &w.layers[l], margin);
	}
	for (size_t t = 0; t + 1 < T; t++) {
		double sum = 0.0;

		norm(x + t * hd, x + t * hd, m->hidden, &w.final_norm, (double)m->norm_eps);
		matvec(logits, &w.head, x + t * hd, NULL);
		for (int i = 0; i < m->vocab; i++)
			sum += exp(logits[i]);
		logprob[t] = logits[tokens[t + 1]] - log(sum);
	}
	moe_base_free(&w);
	free(x), free(logits);
}

static void check(const char *spec)
{
	struct rig *r = rig_open(spec, rig_config(1, 128, 50));
	int32_t *tokens = some_tokens(r, T, 8);
	double want[T], margin[T], worst = 0.0;
	struct moe_request q = request(T, 0);
	int held = 0;

	q.score = true;
	submit(r, q, 8);
	run_all(r);
	reference(r, tokens, want, margin);
	/* From the first choice too close to call on, the two may go different ways. */
	while (held < T - 1 && margin[held] >= 1e-5) {
		worst = fmax(worst, fabs((double)record_of(r, 1)->logprob[held] - want[held]));
		held++;
	}
	if (worst > 1e-4 || held < T / 2)
		fail_msg("%s: off by %g over %d positions", spec, worst, held);
	free(tokens);
	rig_close(r);
}

static void mixtral(void **state)
{
	(void)state;
	check("tiny-mixtral,seed=1,dtype=f32");
}

static void qwen3_moe(void **state)
{
	(void)state;
	check("tiny-qwen3-moe,seed=1,dtype=f32");
}

static void qwen2_moe(void **state)
{
	(void)state;
	check("tiny-qwen2-moe,seed=1,dtype=f32");
}

static void olmoe(void **state)
{
	(void)state;
	check("tiny-olmoe,seed=1,dtype=f32");
}

static void bf16_weights(void **state)
{
	(void)state;
	check("tiny-mixtral,seed=6,dtype=bf16");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mixtral),
		cmocka_unit_test(qwen3_moe),
		cmocka_unit_test(qwen2_moe),
		cmocka_unit_test(olmoe),
		cmocka_unit_test(bf16_weights),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("engine reference", tests, NULL, NULL);
}
