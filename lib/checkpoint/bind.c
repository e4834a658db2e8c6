/* From tensors by name to the matrices and vectors a kernel takes. */
#include <stdlib.h>

#include "base/mem.h"
#include "checkpoint/private.h"

/* Where tensors are looked for, and the first failure. */
struct binder {
	const struct moe_tensors *s;
	const struct moe_model *m;
	struct moe_err *e;
	int rc;
};

static int missing(const struct binder *b, struct moe_tensor_id id)
{
	char name[MOE_NAME_CAP] = "?";

	moe_tensor_name(b->m, id, name, sizeof name);
	if (moe_role_is_expert(id.role))
		return moe_fail(b->e, MOE_E_MISSING, "tensor %s is missing (layer %d, expert %d)", name, id.layer, id.expert);
	return moe_fail(b->e, MOE_E_MISSING, "tensor %s is missing", name);
}

/* The tensor, there once; NULL: not, see rc. */
static const struct moe_tensor *find(struct binder *b, struct moe_tensor_id id)
{
	const struct moe_tensor *t, *second;

	if (b->rc)
		return NULL;
	t = moe_tensor_lookup(b->s, b->m, id, &second);
	if (!t)
		b->rc = missing(b, id);
	else if (second)
		b->rc = moe_fail(b->e, MOE_E_INPUT, "tensors %s and %s are the same thing", t->name, second->name);
	return b->rc ? NULL : t;
}

/* A tensor that is never coded, its shape and type fit for a kernel; NULL: not, see rc. */
static const struct moe_tensor *get(struct binder *b, struct moe_tensor_id id, enum moe_quant *quant)
{
	const struct moe_tensor *t = find(b, id);

	if (!t)
		return NULL;
	b->rc = moe_tensor_check_shape(b->m, id, t, b->e);
	if (!b->rc && !moe_quant_of(t->dtype, quant))
		b->rc = moe_fail(b->e, MOE_E_UNSUPPORTED, "tensor %s: weights of type %s are not supported", t->name,
		                 moe_dtype_name(t->dtype));
	return b->rc ? NULL : t;
}

static struct moe_matrix bind_matrix(struct binder *b, enum moe_role role, int layer, int expert)
{
	struct moe_tensor_id id = {role, layer, expert};
	struct moe_matrix x = {.layout = MOE_L_PLAIN};
	const struct moe_tensor *t = find(b, id);

	if (t)
		b->rc = moe_tensor_matrix(b->m, id, t, &x, b->e);
	x.f32_inputs = role == MOE_R_GATE || role == MOE_R_SHARED_SWITCH; /* a rounded router would choose other experts */
	return x;
}

static struct moe_vector bind_vector(struct binder *b, enum moe_role role, int layer)
{
	enum moe_quant quant;
	const struct moe_tensor *t = get(b, (struct moe_tensor_id){role, layer, -1}, &quant);

	return t ? (struct moe_vector){t, t->shape[0]} : (struct moe_vector){0};
}

static struct moe_vector bind_vector_if(bool there, struct binder *b, enum moe_role role, int layer)
{
	return there ? bind_vector(b, role, layer) : (struct moe_vector){0};
}

/* Rows [first, first + rows) of a matrix of `cols` columns that begins at data. */
static struct moe_matrix rows_of(enum moe_quant q, const unsigned char *data, int64_t first, int64_t rows, int64_t cols)
{
	struct moe_matrix x = {.quant = q, .layout = MOE_L_PLAIN, .rows = first, .cols = cols};

	x.data = data ? data + moe_matrix_bytes(&x) : NULL; /* of a tensor with a coding there is none */
	x.rows = rows;
	return x;
}

/* The forms an expert comes in. */
enum form { THREE, PARTS, FUSED, FORMS };

static const struct {
	enum moe_role gate, up, down; /* gate and up are one tensor where gate == up */
	const char *words;
} forms[FORMS] = {
	[THREE] = {MOE_R_EXPERT_GATE, MOE_R_EXPERT_UP, MOE_R_EXPERT_DOWN, "three tensors"},
	[PARTS] = {MOE_R_EXPERT_GATE_UP, MOE_R_EXPERT_GATE_UP, MOE_R_EXPERT_DOWN_PART, "parts of fused tensors"},
	[FUSED] = {MOE_R_EXPERTS_GATE_UP, MOE_R_EXPERTS_GATE_UP, MOE_R_EXPERTS_DOWN, "fused tensors"},
};

static bool any(const struct binder *b, enum form f, int layer, int expert)
{
	const enum moe_role roles[] = {forms[f].gate, forms[f].up, forms[f].down};

	for (int i = 0; i < 3; i++)
		if (moe_tensor_lookup(b->s, b->m, (struct moe_tensor_id){roles[i], layer, expert}, NULL))
			return true;
	return false;
}

/* Which form the expert is there in; of nothing, the message names the family's own: three tensors. */
static enum form find_form(struct binder *b, int layer, int expert)
{
	enum form found = FORMS;

	for (int f = 0; f < FORMS; f++) {
		if (!any(b, (enum form)f, layer, expert))
			continue;
		if (found != FORMS) {
			b->rc = moe_fail(b->e, MOE_E_INPUT, "layer %d, expert %d is there twice: as %s and as %s", layer, expert,
			                 forms[found].words, forms[f].words);
			break;
		}
		found = (enum form)f;
	}
	return found == FORMS ? THREE : found;
}

static void bind_three(struct binder *b, int layer, int expert, struct moe_expert_weights *out)
{
	out->gate = bind_matrix(b, MOE_R_EXPERT_GATE, layer, expert);
	out->up = bind_matrix(b, MOE_R_EXPERT_UP, layer, expert);
	out->down = bind_matrix(b, MOE_R_EXPERT_DOWN, layer, expert);
}

/* Expert `index` of tensors that hold one after the other. */
static void bind_stacked(struct binder *b, enum form f, int layer, int expert, struct moe_expert_weights *out)
{
	int64_t width = b->m->layers[layer].ffn.expert_width, hidden = b->m->hidden, index = f == FUSED ? expert : 0;
	enum moe_quant q1 = MOE_Q_F32, q2 = MOE_Q_F32;
	const struct moe_tensor *in = get(b, (struct moe_tensor_id){forms[f].gate, layer, expert}, &q1);
	const struct moe_tensor *down = get(b, (struct moe_tensor_id){forms[f].down, layer, expert}, &q2);

	if (!in || !down)
		return;
	out->gate = rows_of(q1, in->data, index * 2 * width, width, hidden);
	out->up = rows_of(q1, in->data, index * 2 * width + width, width, hidden);
	out->down = rows_of(q2, down->data, index * hidden, hidden, width);
}

int moe_bind_expert(const struct moe_tensors *s, const struct moe_model *m, int layer, int expert,
                    struct moe_expert_weights *out, struct moe_err *e)
{
	struct binder b = {.s = s, .m = m, .e = e};
	struct moe_expert_weights w = {0};
	enum form f;

	if (layer < 0 || layer >= m->n_layers || expert < 0 || expert >= m->layers[layer].ffn.experts)
		return moe_fail(e, MOE_E_RANGE, "the model has no expert %d in layer %d", expert, layer);
	f = find_form(&b, layer, expert);
	if (f == THREE)
		bind_three(&b, layer, expert, &w);
	else
		bind_stacked(&b, f, layer, expert, &w);
	if (!b.rc)
		*out = w;
	return b.rc;
}

static struct moe_expert_weights bind_ffn(struct binder *b, int layer, enum moe_role gate, enum moe_role up,
                                          enum moe_role down)
{
	struct moe_expert_weights w;

	w.gate = bind_matrix(b, gate, layer, -1);
	w.up = bind_matrix(b, up, layer, -1);
	w.down = bind_matrix(b, down, layer, -1);
	return w;
}

static void bind_attention(struct binder *b, int i, struct moe_layer_weights *w)
{
	const struct moe_attention *a = &b->m->layers[i].attn;
	bool norms = a->qk_norm != MOE_QKN_NONE;

	w->attn_norm = bind_vector(b, MOE_R_ATTN_NORM, i);
	w->q = bind_matrix(b, MOE_R_Q, i, -1);
	w->k = bind_matrix(b, MOE_R_K, i, -1);
	w->v = bind_matrix(b, MOE_R_V, i, -1);
	w->o = bind_matrix(b, MOE_R_O, i, -1);
	w->q_bias = bind_vector_if(a->qkv_bias, b, MOE_R_Q_BIAS, i);
	w->k_bias = bind_vector_if(a->qkv_bias, b, MOE_R_K_BIAS, i);
	w->v_bias = bind_vector_if(a->qkv_bias, b, MOE_R_V_BIAS, i);
	w->o_bias = bind_vector_if(a->o_bias, b, MOE_R_O_BIAS, i);
	w->q_norm = bind_vector_if(norms, b, MOE_R_Q_NORM, i);
	w->k_norm = bind_vector_if(norms, b, MOE_R_K_NORM, i);
}

static void bind_layer(struct binder *b, int i, struct moe_layer_weights *w)
{
	const struct moe_ffn *f = &b->m->layers[i].ffn;

	bind_attention(b, i, w);
	w->ffn_norm = bind_vector(b, MOE_R_FFN_NORM, i);
	if (f->kind == MOE_FFN_DENSE)
		w->ffn = bind_ffn(b, i, MOE_R_DENSE_GATE, MOE_R_DENSE_UP, MOE_R_DENSE_DOWN);
	else
		w->gate = bind_matrix(b, MOE_R_GATE, i, -1);
	if (f->shared_width)
		w->shared = bind_ffn(b, i, MOE_R_SHARED_GATE, MOE_R_SHARED_UP, MOE_R_SHARED_DOWN);
	if (f->shared_gate)
		w->shared_switch = bind_matrix(b, MOE_R_SHARED_SWITCH, i, -1);
}

int moe_bind_base(const struct moe_tensors *s, const struct moe_model *m, struct moe_base_weights *out, struct moe_err *e)
{
	struct binder b = {.s = s, .m = m, .e = e};
	struct moe_base_weights w = {0};

	w.layers = moe_calloc((size_t)m->n_layers, sizeof *w.layers, "layers", e);
	if (!w.layers)
		return MOE_E_NOMEM;
	w.embed = bind_matrix(&b, MOE_R_EMBED, -1, -1);
	w.head = m->tied ? w.embed : bind_matrix(&b, MOE_R_HEAD, -1, -1);
	w.final_norm = bind_vector(&b, MOE_R_FINAL_NORM, -1);
	for (int i = 0; !b.rc && i < m->n_layers; i++)
		bind_layer(&b, i, &w.layers[i]);
	if (b.rc)
		moe_base_free(&w);
	else
		*out = w;
	return b.rc;
}

void moe_base_free(struct moe_base_weights *b)
{
	free(b->layers);
	b->layers = NULL;
}
