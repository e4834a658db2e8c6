/* The attention of every layer: heads, biases, rotary embedding, windows. */
#include <math.h>
#include <string.h>

#include "checkpoint/private.h"

#define MOST_HEADS 65536
#define MOST_HEAD_DIM 65536
#define MOST_PROJECTION (1 << 24) /* heads times head_dim */
#define MOST_WINDOW (1 << 30)

static void read_kv_heads(struct moe_config *c, struct moe_attention *a)
{
	const struct moe_json *v = moe_json_get(c->json, "num_key_value_heads");
	int def = c->family->defaults.kv_heads;

	if (def == 0 || (v && moe_json_type(v) == MOE_JSON_NULL)) /* null: every head has its own */
		def = a->heads;
	a->kv_heads = moe_config_int(c, "num_key_value_heads", 1, MOST_HEADS, def);
	if (!c->rc && a->heads % a->kv_heads != 0)
		c->rc = moe_fail(c->e, MOE_E_INPUT, "%s: %d heads do not divide among \"num_key_value_heads\" %d", c->what,
		                 a->heads, a->kv_heads);
}

static void read_head_dim(struct moe_config *c, const struct moe_model *m, struct moe_attention *a)
{
	a->head_dim = moe_config_int(c, "head_dim", 1, MOST_HEAD_DIM, 0);
	if (c->rc)
		return;
	if (a->head_dim == 0 && m->hidden % a->heads != 0)
		c->rc = moe_fail(c->e, MOE_E_INPUT, "%s: \"hidden_size\" %d does not divide by \"num_attention_heads\" %d",
		                 c->what, m->hidden, a->heads);
	if (a->head_dim == 0)
		a->head_dim = m->hidden / a->heads;
	if (!c->rc && (a->head_dim % 2 != 0 || a->head_dim == 0))
		c->rc = moe_fail(c->e, MOE_E_INPUT, "%s: heads of %d elements have no halves to rotate", c->what, a->head_dim);
	if (!c->rc && (int64_t)a->heads * a->head_dim > MOST_PROJECTION)
		c->rc = moe_fail(c->e, MOE_E_UNSUPPORTED, "%s: %d heads of %d elements are too large", c->what, a->heads,
		                 a->head_dim);
	if (!c->rc && a->qk_norm == MOE_QKN_WHOLE && (int64_t)a->heads * a->head_dim != m->hidden)
		c->rc = moe_fail(c->e, MOE_E_UNSUPPORTED, "%s: \"head_dim\" %d: %d heads of it are not \"hidden_size\" %d",
		                 c->what, a->head_dim, a->heads, m->hidden);
}

static void refuse_rope_keys(struct moe_config *c, const struct moe_json *rope, const char *name)
{
	static const char *const known[] = {"rope_type", "type", "rope_theta", "factor", "partial_rotary_factor"};

	for (size_t i = 0; !c->rc && i < moe_json_count(rope); i++) {
		const struct moe_json *v = moe_json_at(rope, i);
		size_t k = 0;

		while (k < sizeof known / sizeof known[0] && strcmp(known[k], moe_json_name(v)) != 0)
			k++;
		if (k == sizeof known / sizeof known[0] && moe_json_type(v) != MOE_JSON_NULL)
			c->rc = moe_fail(c->e, MOE_E_UNSUPPORTED, "%s: %s: key \"%s\" is not understood", c->what, name,
			                 moe_json_name(v));
	}
}

static void refuse_partial(struct moe_config *c, const struct moe_json *in)
{
	double part = 1;

	if (!c->rc)
		c->rc = moe_json_need_num(in, "partial_rotary_factor", false, 0, 1e9, &part, c->what, c->e);
	if (!c->rc && part != 1)
		c->rc = moe_fail(c->e, MOE_E_UNSUPPORTED, "%s: partial_rotary_factor %g is not supported", c->what, part);
}

/* Its kind: "rope_type", which older files call "type". */
static const char *rope_type(struct moe_config *c, const struct moe_json *rope)
{
	const char *type = NULL;

	if (!c->rc)
		c->rc = moe_json_need_str(rope, "type", false, &type, c->what, c->e);
	if (!c->rc)
		c->rc = moe_json_need_str(rope, "rope_type", false, &type, c->what, c->e);
	return type ? type : "default";
}

/* rope_scaling (transformers 4) or rope_parameters (5). */
static void read_rope_object(struct moe_config *c, const char *name, struct moe_rope *r)
{
	const struct moe_json *rope = moe_json_get(c->json, name);
	const char *type;

	if (c->rc || moe_json_type(rope) == MOE_JSON_NULL)
		return;
	if (moe_json_type(rope) != MOE_JSON_OBJECT) {
		c->rc = moe_fail(c->e, MOE_E_INPUT, "%s: \"%s\" is no object", c->what, name);
		return;
	}
	type = rope_type(c, rope);
	if (!c->rc && strcmp(type, "default") && strcmp(type, "linear")) {
		c->rc = moe_fail(c->e, MOE_E_UNSUPPORTED, "%s: %s %s is not supported", c->what, name, type);
		return;
	}
	refuse_rope_keys(c, rope, name);
	refuse_partial(c, rope);
	if (!c->rc)
		c->rc = moe_json_need_num(rope, "rope_theta", false, 1e-3, 1e30, &r->theta, c->what, c->e);
	if (!c->rc && strcmp(type, "linear") == 0)
		c->rc = moe_json_need_num(rope, "factor", true, 1e-3, 1e9, &r->factor, c->what, c->e);
}

static struct moe_rope read_rope(struct moe_config *c, int dims)
{
	struct moe_rope r = {.theta = c->family->defaults.theta, .dims = dims, .factor = 1};
	bool two = moe_json_count(moe_json_get(c->json, "rope_scaling")) &&
	           moe_json_count(moe_json_get(c->json, "rope_parameters"));
	double theta = moe_config_num(c, "rope_theta", 1e-3, 1e30, -1);

	if (!c->rc && two)
		c->rc = moe_fail(c->e, MOE_E_INPUT, "%s: both \"rope_scaling\" and \"rope_parameters\"", c->what);
	if (theta > 0)
		r.theta = theta;
	read_rope_object(c, "rope_scaling", &r);
	read_rope_object(c, "rope_parameters", &r);
	if (!c->rc && theta > 0 && r.theta != theta)
		c->rc = moe_fail(c->e, MOE_E_INPUT, "%s: \"rope_theta\" is %g here and %g there", c->what, theta, r.theta);
	refuse_partial(c, c->json);
	return r;
}

/* The width of the window where there is one; 0: nowhere. */
static int read_window(struct moe_config *c)
{
	const struct moe_json *v = moe_json_get(c->json, "sliding_window");
	bool used = !moe_config_has(c, MOE_F_SWITCH) || moe_config_bool(c, "use_sliding_window", false);

	if (!moe_config_has(c, MOE_F_WINDOW) || (v && moe_json_type(v) == MOE_JSON_NULL))
		return 0;
	/* One that is not used may be anything, 0 too. */
	int window = moe_config_int(c, "sliding_window", used ? 1 : 0, MOST_WINDOW, c->family->defaults.window);
	return used ? window : 0;
}

/* Does layer_types, which is there, say that this layer has a window? */
static bool listed_window(struct moe_config *c, const struct moe_json *types, int layer)
{
	const char *type = moe_json_str(moe_json_at(types, (size_t)layer), "");

	if (strcmp(type, "sliding_attention") == 0)
		return true;
	if (strcmp(type, "full_attention") != 0)
		c->rc = moe_fail(c->e, MOE_E_UNSUPPORTED, "%s: layer_types: \"%s\" of layer %d is not supported", c->what, type,
		                 layer);
	return false;
}

static void read_windows(struct moe_config *c, struct moe_model *m)
{
	const struct moe_json *types = moe_json_get(c->json, "layer_types");
	bool listed = moe_json_type(types) != MOE_JSON_NULL, by_layer = moe_config_has(c, MOE_F_BY_LAYER);
	int window = read_window(c), first = m->n_layers;

	if (moe_config_has(c, MOE_F_SWITCH))
		first = moe_config_int(c, "max_window_layers", 0, MOST_WINDOW, 28);
	if (!c->rc && listed && (moe_json_type(types) != MOE_JSON_ARRAY || moe_json_count(types) != (size_t)m->n_layers))
		c->rc = moe_fail(c->e, MOE_E_INPUT, "%s: \"layer_types\" is no list of %d layers", c->what, m->n_layers);
	for (int i = 0; !c->rc && i < m->n_layers; i++) {
		/* Qwen2-MoE: every other one of the first max_window_layers. */
		bool has = window && (!by_layer || (i % 2 == 0 && i < first));
		bool says = listed ? listed_window(c, types, i) : has;

		if (!c->rc && says != has && (!by_layer || !window))
			c->rc = moe_fail(c->e, MOE_E_INPUT, "%s: layer_types: layer %d contradicts \"sliding_window\"", c->what, i);
		m->layers[i].attn.window = says ? window : 0;
	}
}

void moe_config_attention(struct moe_config *c, struct moe_model *m)
{
	struct moe_attention a = {.kind = MOE_ATTN_GQA, .qk_norm = c->family->qk_norm};

	a.heads = moe_config_int(c, "num_attention_heads", 1, MOST_HEADS, c->family->defaults.heads);
	read_kv_heads(c, &a);
	read_head_dim(c, m, &a);
	a.rope = read_rope(c, a.head_dim);
	if (moe_config_has(c, MOE_F_ALL_BIAS))
		a.qkv_bias = a.o_bias = moe_config_bool(c, "attention_bias", false);
	if (moe_config_has(c, MOE_F_QKV_BIAS))
		a.qkv_bias = moe_config_bool(c, "qkv_bias", true);
	if (moe_config_has(c, MOE_F_CLIP))
		a.clip = (float)moe_config_num(c, "clip_qkv", 1e-30, 1e30, 0);
	if (c->rc)
		return;
	a.scale = (float)(1 / sqrt(a.head_dim));
	for (int i = 0; i < m->n_layers; i++)
		m->layers[i].attn = a;
	read_windows(c, m);
}
