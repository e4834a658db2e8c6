/* From the tensors of a quantised checkpoint to tensors that read as values. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "checkpoint/coded.h"

/* ---- which tensor is what ---- */

enum kind { PLAIN, CODES, PART, DROPPED };

/* What names end in; the first that fits counts.  What is dropped scales activations or keys and values, which are
 * not quantised here. */
static const struct ending {
	enum moe_method method;
	enum kind kind;
	const char *text;
} endings[] = {
	{MOE_METHOD_FP8, DROPPED, ".input_scale"}, {MOE_METHOD_FP8, DROPPED, ".input_scale_ub"},
	{MOE_METHOD_FP8, DROPPED, ".activation_scale"}, {MOE_METHOD_FP8, DROPPED, ".output_scale"},
	{MOE_METHOD_FP8, DROPPED, ".q_scale"}, {MOE_METHOD_FP8, DROPPED, ".k_scale"}, {MOE_METHOD_FP8, DROPPED, ".v_scale"},
	{MOE_METHOD_FP8, DROPPED, ".kv_scale"}, {MOE_METHOD_FP8, DROPPED, ".prob_scale"},
	{MOE_METHOD_FP8, PART, "_scale_inv"}, {MOE_METHOD_FP8, PART, "_scale"},
	{MOE_METHOD_GPTQ, CODES, ".qweight"}, {MOE_METHOD_GPTQ, PART, ".qzeros"}, {MOE_METHOD_GPTQ, PART, ".scales"},
	{MOE_METHOD_GPTQ, PART, ".g_idx"},
	{MOE_METHOD_AWQ, CODES, ".qweight"}, {MOE_METHOD_AWQ, PART, ".qzeros"}, {MOE_METHOD_AWQ, PART, ".scales"},
	{MOE_METHOD_CT, DROPPED, ".input_scale"}, {MOE_METHOD_CT, DROPPED, ".input_zero_point"},
	{MOE_METHOD_CT, DROPPED, ".input_global_scale"}, {MOE_METHOD_CT, DROPPED, ".output_scale"},
	{MOE_METHOD_CT, DROPPED, ".output_zero_point"}, {MOE_METHOD_CT, DROPPED, ".q_scale"},
	{MOE_METHOD_CT, DROPPED, ".k_scale"}, {MOE_METHOD_CT, DROPPED, ".v_scale"},
	{MOE_METHOD_CT, DROPPED, ".k_zero_point"}, {MOE_METHOD_CT, DROPPED, ".v_zero_point"},
	{MOE_METHOD_CT, CODES, "_packed"}, {MOE_METHOD_CT, PART, "_global_scale"}, {MOE_METHOD_CT, PART, "_scale"},
	{MOE_METHOD_CT, PART, "_zero_point"}, {MOE_METHOD_CT, PART, "_shape"}, {MOE_METHOD_CT, PART, "_g_idx"},
	{MOE_METHOD_MXFP4, CODES, "_blocks"}, {MOE_METHOD_MXFP4, PART, "_scales"},
};

static bool ends_in(const char *name, const char *ending)
{
	size_t n = strlen(name), k = strlen(ending);

	return n > k && strcmp(name + n - k, ending) == 0;
}

/* Codes that keep the weight's own name. */
static bool coded_in_place(enum moe_method m, const struct moe_tensor *t)
{
	return (m == MOE_METHOD_FP8 || m == MOE_METHOD_CT) &&
	       (t->dtype == MOE_F8_E4M3 || (m == MOE_METHOD_CT && t->dtype == MOE_I8));
}

/* *cut: length of the ending. */
static enum kind kind_of(enum moe_method m, const struct moe_tensor *t, size_t *cut)
{
	for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
		if (endings[i].method == m && ends_in(t->name, endings[i].text)) {
			*cut = strlen(endings[i].text);
			return endings[i].kind;
		}
	*cut = 0;
	return coded_in_place(m, t) ? CODES : PLAIN;
}

/* Is there something that has a part with this name? */
static bool has_codes(const struct moe_coder *c, const char *name, size_t cut)
{
	const struct moe_tensor *t = moe_coded_part(c, name, cut, "");

	if (t && coded_in_place(c->q->method, t))
		return true;
	for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
		if (endings[i].method == c->q->method && endings[i].kind == CODES &&
		    moe_coded_part(c, name, cut, endings[i].text))
			return true;
	return false;
}

/* ---- what the methods share ---- */

const struct moe_tensor *moe_coded_part(const struct moe_coder *c, const char *name, size_t cut, const char *suffix)
{
	char buf[MOE_NAME_CAP];
	int n = snprintf(buf, sizeof buf, "%.*s%s", (int)(strlen(name) - cut), name, suffix);

	return n > 0 && (size_t)n < sizeof buf ? moe_tensors_find(c->raw, buf) : NULL;
}

int moe_coded_need(const struct moe_coder *c, const char *name, size_t cut, const char *suffix,
                   const struct moe_tensor **out, struct moe_err *e)
{
	*out = moe_coded_part(c, name, cut, suffix);
	if (*out)
		return 0;
	return moe_fail(e, MOE_E_MISSING, "tensor %.*s%s is missing (%s is quantised)", (int)(strlen(name) - cut), name, suffix,
	                name);
}

int moe_coded_expect(const struct moe_coder *c, const char *name, int ndim, int64_t *shape, struct moe_err *e)
{
	struct moe_tensor_id id;
	int n;

	if (!moe_tensor_identify(c->m, name, &id))
		return moe_fail(e, MOE_E_UNSUPPORTED, "tensor %s is none that this %s model has", name, c->m->name);
	if (!moe_tensor_shape(c->m, id, shape, &n) || n != ndim)
		return moe_fail(e, MOE_E_INPUT, "tensor %s: is no weight matrix that can be quantised", name);
	return 0;
}

int moe_coded_shape(const struct moe_tensor *t, enum moe_dtype dtype, int ndim, const int64_t *shape, struct moe_err *e)
{
	struct moe_tensor want = {.ndim = ndim};
	char found[160], wanted[160];

	if (t->dtype != dtype)
		return moe_fail(e, MOE_E_INPUT, "tensor %s is of type %s, %s is wanted", t->name, moe_dtype_name(t->dtype),
		                moe_dtype_name(dtype));
	memcpy(want.shape, shape, (size_t)ndim * sizeof *shape);
	if (t->ndim == ndim && memcmp(t->shape, shape, (size_t)ndim * sizeof *shape) == 0)
		return 0;
	return moe_fail(e, MOE_E_INPUT, "tensor %s has shape %s, %s is wanted", t->name, moe_shape_text(t, found),
	                moe_shape_text(&want, wanted));
}

int moe_coded_matrix(const struct moe_tensor *t, enum moe_dtype dtype, int64_t rows, int64_t cols, struct moe_err *e)
{
	return moe_coded_shape(t, dtype, 2, (int64_t[]){rows, cols}, e);
}

int moe_coded_floats(const struct moe_tensor *t, struct moe_err *e)
{
	if (t->dtype == MOE_F32 || t->dtype == MOE_F16 || t->dtype == MOE_BF16)
		return 0;
	return moe_fail(e, MOE_E_UNSUPPORTED, "tensor %s: scales of type %s are not supported", t->name, moe_dtype_name(t->dtype));
}

int moe_coded_groups(const struct moe_tensor *t, int64_t cols, int64_t groups, struct moe_err *e)
{
	int rc = moe_coded_shape(t, MOE_I32, 1, &cols, e);

	for (int64_t i = 0; !rc && i < cols; i++)
		if (moe_coded_word(t->data, i) >= groups)
			rc = moe_fail(e, MOE_E_INPUT, "tensor %s: column %lld is in group %d, there are %lld", t->name, (long long)i,
			              (int)moe_coded_word(t->data, i), (long long)groups);
	return rc;
}

void moe_coded_uses(struct moe_coded *x, const struct moe_tensor *t)
{
	x->coding.bytes += t->bytes;
	for (size_t i = 0; t->map && i < sizeof x->maps / sizeof x->maps[0]; i++) {
		if (x->maps[i] == t->map)
			return;
		if (!x->maps[i]) {
			x->maps[i] = t->map;
			return;
		}
	}
}

int moe_coded_check(const struct moe_coded *x, struct moe_err *e)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < sizeof x->maps / sizeof x->maps[0] && x->maps[i]; i++)
		rc = moe_map_check(x->maps[i], e);
	return rc;
}

int moe_coded_add(struct moe_coder *c, const char *name, int64_t rows, int64_t cols, struct moe_coded *x, struct moe_err *e)
{
	struct moe_tensor t = {.name = name, .dtype = MOE_BF16, .ndim = 2, .shape = {rows, cols}, .map = x->maps[0],
	                       .coding = &x->coding};
	int rc = moe_tensors_own_memory(c->out, x, e);

	x->coding.name = x->name;
	if (rc)
		free(x);
	return rc ? rc : moe_tensors_add(c->out, &t, e);
}

/* ---- all tensors ---- */

static int add_codes(struct moe_coder *c, const struct moe_tensor *t, size_t cut, struct moe_err *e)
{
	bool turned = c->q->method == MOE_METHOD_GPTQ || c->q->method == MOE_METHOD_AWQ;
	char name[MOE_NAME_CAP];
	int n = snprintf(name, sizeof name, "%.*s%s", (int)(strlen(t->name) - cut), t->name, turned ? ".weight" : "");

	if (n < 0 || (size_t)n >= sizeof name)
		return moe_fail(e, MOE_E_UNSUPPORTED, "tensor %s is none that this %s model has", t->name, c->m->name);
	switch (c->q->method) {
	case MOE_METHOD_FP8:
		return moe_coded_fp8(c, name, t, e);
	case MOE_METHOD_GPTQ:
		return moe_coded_gptq(c, name, t, e);
	case MOE_METHOD_AWQ:
		return moe_coded_awq(c, name, t, e);
	case MOE_METHOD_CT:
		return moe_coded_ct(c, name, t, e);
	case MOE_METHOD_MXFP4:
		return moe_coded_mxfp4(c, name, t, e);
	default:
		return 0;
	}
}

/* GPTQ's tools write a bias for every module, of zeros where the model has none. */
static bool is_needless_bias(const struct moe_coder *c, const struct moe_tensor *t)
{
	struct moe_tensor_id id;

	if (!ends_in(t->name, ".bias") || moe_tensor_identify(c->m, t->name, &id) ||
	    !has_codes(c, t->name, strlen(".bias")))
		return false;
	for (size_t i = 0; i < t->bytes; i++)
		if (t->data[i])
			return false;
	return true;
}

static int add(struct moe_coder *c, const struct moe_tensor *t, struct moe_err *e)
{
	size_t cut;

	switch (kind_of(c->q->method, t, &cut)) {
	case CODES:
		return add_codes(c, t, cut, e);
	case DROPPED:
		return 0;
	case PART:
		if (has_codes(c, t->name, cut))
			return 0;
		return moe_fail(e, MOE_E_INPUT, "tensor %s: what it belongs to is not there or not quantised", t->name);
	default:
		return is_needless_bias(c, t) ? 0 : moe_tensors_add(c->out, t, e);
	}
}

int moe_coded_open(const struct moe_quantization *q, const struct moe_model *m, const struct moe_tensors *raw,
                   struct moe_tensors **out, struct moe_err *e)
{
	struct moe_coder c = {.q = q, .m = m, .raw = raw};
	int rc = moe_tensors_new(&c.out, e);

	for (size_t i = 0; rc == 0 && i < moe_tensors_count(raw); i++)
		rc = add(&c, moe_tensors_at(raw, i), e);
	if (rc)
		moe_tensors_free(c.out);
	else
		*out = c.out;
	return rc;
}
