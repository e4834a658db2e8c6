/* config.json -> model description. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "checkpoint/private.h"

#define MOST_LAYERS 4096
#define MOST_EXPERTS 65536
#define MOST_IN_ALL (1 << 20) /* experts of all layers */
#define MOST_WIDTH (1 << 24) /* of an expert or a dense layer */
#define MOST_HIDDEN (1 << 20)
#define MOST_VOCAB (1 << 24)
#define MOST_POSITIONS (1 << 30)

bool moe_config_has(const struct moe_config *c, unsigned features)
{
	return (c->family->features & features) == features;
}

int moe_config_int(struct moe_config *c, const char *key, int64_t lo, int64_t hi, int def)
{
	int64_t v = def;

	if (!c->rc)
		c->rc = moe_json_need_int(c->json, key, false, lo, hi, &v, c->what, c->e);
	return (int)v;
}

double moe_config_num(struct moe_config *c, const char *key, double lo, double hi, double def)
{
	double v = def;

	if (!c->rc)
		c->rc = moe_json_need_num(c->json, key, false, lo, hi, &v, c->what, c->e);
	return v;
}

bool moe_config_bool(struct moe_config *c, const char *key, bool def)
{
	bool v = def;

	if (!c->rc)
		c->rc = moe_json_need_bool(c->json, key, false, &v, c->what, c->e);
	return v;
}

static int refuse_family(const struct moe_config *c, const char *type)
{
	char known[128] = "";
	const struct moe_family *f;

	for (size_t i = 0, n = 0; (f = moe_family_at(i)) && n < sizeof known; i++)
		n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", f->name);
	return moe_fail(c->e, MOE_E_UNSUPPORTED, "%s: model_type \"%s\" is not supported (%s are)", c->what, type, known);
}

static int find_family(struct moe_config *c)
{
	const char *type = NULL;
	int rc;

	if (moe_json_type(c->json) != MOE_JSON_OBJECT)
		return moe_fail(c->e, MOE_E_INPUT, "%s: not an object", c->what);
	rc = moe_json_need_str(c->json, "model_type", true, &type, c->what, c->e);
	if (rc)
		return rc;
	c->family = moe_family_find(type);
	return c->family ? 0 : refuse_family(c, type);
}

/* num_experts and num_local_experts are one thing under two names. */
static int read_experts(struct moe_config *c)
{
	int def = c->family->defaults.experts;
	int a = moe_config_int(c, "num_experts", 1, MOST_EXPERTS, -1);
	int b = moe_config_int(c, "num_local_experts", 1, MOST_EXPERTS, -1);

	if (!c->rc && a > 0 && b > 0 && a != b)
		c->rc = moe_fail(c->e, MOE_E_INPUT, "%s: \"num_experts\" is %d, \"num_local_experts\" is %d", c->what, a, b);
	return a > 0 ? a : b > 0 ? b : def;
}

static void read_activation(struct moe_config *c)
{
	const char *act = "silu";

	if (!c->rc)
		c->rc = moe_json_need_str(c->json, "hidden_act", false, &act, c->what, c->e);
	if (!c->rc && strcmp(act, "silu") && strcmp(act, "swish"))
		c->rc = moe_fail(c->e, MOE_E_UNSUPPORTED, "%s: hidden_act \"%s\" is not supported", c->what, act);
}

static struct moe_ffn read_moe(struct moe_config *c)
{
	const struct moe_defaults *d = &c->family->defaults;
	bool apart = moe_config_has(c, MOE_F_SPARSE);
	struct moe_ffn f = {.kind = MOE_FFN_MOE, .act = MOE_ACT_SILU};

	f.experts = read_experts(c);
	f.expert_width = moe_config_int(c, apart ? "moe_intermediate_size" : "intermediate_size", 1, MOST_WIDTH,
	                                apart ? d->expert_width : d->width);
	if (moe_config_has(c, MOE_F_SHARED)) {
		f.shared_width = moe_config_int(c, "shared_expert_intermediate_size", 1, MOST_WIDTH, 5632);
		f.shared_gate = true;
	}
	f.gate.score = MOE_SCORE_SOFTMAX;
	f.gate.top_k = moe_config_int(c, "num_experts_per_tok", 1, MOST_EXPERTS, d->top_k);
	f.gate.renorm = !moe_config_has(c, MOE_F_RENORM_KEY) || moe_config_bool(c, "norm_topk_prob", false);
	f.gate.factor = 1;
	if (!c->rc && f.gate.top_k > f.experts)
		c->rc = moe_fail(c->e, MOE_E_INPUT, "%s: \"num_experts_per_tok\" is %d, there are %d experts", c->what,
		                 f.gate.top_k, f.experts);
	return f;
}

/* Layers that mlp_only_layers names are dense. */
static void mark_dense(struct moe_config *c, struct moe_model *m, const struct moe_ffn *dense)
{
	const struct moe_json *list = moe_json_get(c->json, "mlp_only_layers");
	int64_t layer;

	if (moe_json_type(list) == MOE_JSON_NULL)
		return;
	if (moe_json_type(list) != MOE_JSON_ARRAY) {
		c->rc = moe_fail(c->e, MOE_E_INPUT, "%s: \"mlp_only_layers\" is no list", c->what);
		return;
	}
	for (size_t i = 0; i < moe_json_count(list); i++) {
		if (!moe_json_int(moe_json_at(list, i), &layer) || layer < 0 || layer > INT_MAX) {
			c->rc = moe_fail(c->e, MOE_E_INPUT, "%s: \"mlp_only_layers\" holds something that is no layer", c->what);
			return;
		}
		if (layer < m->n_layers) /* a longer model's list is harmless */
			m->layers[layer].ffn = *dense;
	}
}

static void read_ffns(struct moe_config *c, struct moe_model *m)
{
	struct moe_ffn moe = read_moe(c), dense = {.kind = MOE_FFN_DENSE, .act = MOE_ACT_SILU};
	int step = 1;

	read_activation(c);
	if (moe_config_has(c, MOE_F_SPARSE)) {
		step = moe_config_int(c, "decoder_sparse_step", 1, INT_MAX, 1);
		dense.width = moe_config_int(c, "intermediate_size", 1, MOST_WIDTH, c->family->defaults.width);
	}
	if (c->rc)
		return;
	for (int i = 0; i < m->n_layers; i++)
		m->layers[i].ffn = (i + 1) % step == 0 ? moe : dense;
	if (moe_config_has(c, MOE_F_SPARSE))
		mark_dense(c, m, &dense);
	if (!c->rc && moe_model_moe_layers(m) == 0)
		c->rc = moe_fail(c->e, MOE_E_UNSUPPORTED, "%s: no layer has experts", c->what);
}

static void read_model(struct moe_config *c, struct moe_model *m)
{
	const struct moe_defaults *d = &c->family->defaults;

	m->family = c->family;
	memcpy(m->name, c->family->name, strlen(c->family->name) + 1);
	m->hidden = moe_config_int(c, "hidden_size", 1, MOST_HIDDEN, d->hidden);
	m->vocab = moe_config_int(c, "vocab_size", 1, MOST_VOCAB, d->vocab);
	m->n_layers = moe_config_int(c, "num_hidden_layers", 1, MOST_LAYERS, d->layers);
	m->max_positions = moe_config_int(c, "max_position_embeddings", 1, MOST_POSITIONS, d->max_positions);
	m->norm_eps = (float)moe_config_num(c, "rms_norm_eps", 1e-30, 1, d->eps);
	m->tied = moe_config_bool(c, "tie_word_embeddings", false);
	if (!c->rc)
		c->rc = moe_config_tokens(c->json, c->what, d->bos, d->eos, m, c->e);
	if (c->rc)
		return;
	m->layers = moe_calloc((size_t)m->n_layers, sizeof *m->layers, "layers", c->e);
	if (!m->layers) {
		c->rc = MOE_E_NOMEM;
		return;
	}
	moe_config_attention(c, m);
	read_ffns(c, m);
}

/* All sizes together must leave room for sums of bytes, and lists of experts must stay small. */
static int check_total(const struct moe_config *c, const struct moe_model *m)
{
	double total = 2.0 * m->vocab * m->hidden;
	int64_t experts = 0;

	for (int i = 0; i < m->n_layers; i++) {
		const struct moe_attention *a = &m->layers[i].attn;
		const struct moe_ffn *f = &m->layers[i].ffn;
		double wide = 3.0 * ((double)f->experts * f->expert_width + f->shared_width + f->width) + f->experts;

		experts += f->experts;
		total += m->hidden * (wide + 2.0 * a->head_dim * (a->heads + a->kv_heads) + 8.0);
	}
	if (total > 0x1p58)
		return moe_fail(c->e, MOE_E_UNSUPPORTED, "%s: a model of %.3g parameters is too large", c->what, total);
	if (experts > MOST_IN_ALL)
		return moe_fail(c->e, MOE_E_UNSUPPORTED, "%s: %lld experts in all are more than the %d supported", c->what,
		                (long long)experts, MOST_IN_ALL);
	return 0;
}

int moe_model_from_config(const struct moe_json *config, const char *what, struct moe_model *out, struct moe_err *e)
{
	struct moe_config c = {.json = config, .what = what, .e = e};
	struct moe_model m = {.bos = -1};

	c.rc = find_family(&c);
	if (c.rc)
		return c.rc;
	moe_config_check_keys(&c);
	if (!c.rc)
		read_model(&c, &m);
	if (!c.rc)
		c.rc = check_total(&c, &m);
	if (c.rc)
		moe_model_free(&m);
	else
		*out = m;
	return c.rc;
}
