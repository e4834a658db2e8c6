/* The quantization_config of compressed-tensors: a scheme per group of modules.
 *
 * Which modules a group means is said by names, classes and patterns; the tensors say it as well, by what there is and
 * in which shape, so only the schemes are read here. */
#include <stdio.h>
#include <string.h>

#include "checkpoint/coded.h"

#define MOST_GROUP (1 << 24)

/* What each format's codes are; bits and kind of number are checked against it. */
static const struct format {
	const char *name;
	enum moe_codes codes;
	int bits;                   /* 0: 2, 4 or 8 */
	bool floating;
	int64_t group;              /* that it must have; 0: any */
	bool exponents, global;
} formats[] = {
	{"pack-quantized", MOE_CODES_PACKED, 0, false, 0, false, false},
	{"int-quantized", MOE_CODES_I8, 8, false, 0, false, false},
	{"float-quantized", MOE_CODES_F8, 8, true, 0, false, false},
	{"nvfp4-pack-quantized", MOE_CODES_FP4, 4, true, 16, false, true},
	{"mxfp4-pack-quantized", MOE_CODES_FP4, 4, true, 32, true, false},
	{"mxfp8-quantized", MOE_CODES_F8, 8, true, 32, true, false},
};

/* naive-quantized stores each type of number as it is. */
static const struct format *find_format(const char *name, bool floating)
{
	if (strcmp(name, "naive-quantized") == 0)
		name = floating ? "float-quantized" : "int-quantized";
	for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
		if (strcmp(formats[i].name, name) == 0)
			return &formats[i];
	return NULL;
}

static int read_block(const struct moe_json *w, const char *what, int64_t *block, struct moe_err *e)
{
	const struct moe_json *v = moe_json_get(w, "block_structure");
	const char *text = moe_json_str(v, NULL);
	bool good = true;

	if (text) { /* "128x128" of old */
		long long a, b;
		char more;

		good = strlen(text) < 20 && sscanf(text, "%lldx%lld%c", &a, &b, &more) == 2;
		block[0] = good ? a : 0;
		block[1] = good ? b : 0;
	} else {
		for (size_t i = 0; i < 2; i++)
			good = good && moe_json_int(moe_json_at(v, i), &block[i]);
		good = good && moe_json_type(v) == MOE_JSON_ARRAY && moe_json_count(v) == 2;
	}
	for (int i = 0; i < 2; i++)
		good = good && block[i] >= 1 && block[i] <= MOST_GROUP;
	return good ? 0 : moe_fail(e, MOE_E_INPUT, "%s: \"block_structure\" is no pair of sizes", what);
}

static int read_share(const struct moe_json *w, const char *what, struct moe_scheme *s, struct moe_err *e)
{
	const char *strategy = NULL;
	int rc = moe_json_need_int(w, "group_size", false, -1, MOST_GROUP, &s->group, what, e);

	rc = rc ? rc : moe_json_need_str(w, "strategy", false, &strategy, what, e);
	if (rc)
		return rc;
	if (!strategy)
		strategy = s->group > 0 ? "group" : s->group < 0 ? "channel" : "tensor";
	if (strcmp(strategy, "tensor") == 0) {
		s->share = MOE_SHARE_TENSOR;
	} else if (strcmp(strategy, "channel") == 0) {
		s->share = MOE_SHARE_ROW;
	} else if (strcmp(strategy, "group") == 0 || strcmp(strategy, "tensor_group") == 0) {
		s->share = MOE_SHARE_GROUP;
		if (s->group < 1)
			return moe_fail(e, MOE_E_INPUT, "%s: strategy %s without a \"group_size\"", what, strategy);
	} else if (strcmp(strategy, "block") == 0) {
		s->share = MOE_SHARE_BLOCK;
		return read_block(w, what, s->block, e);
	} else {
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: strategy \"%s\" is not supported", what, strategy);
	}
	return 0;
}

static int check_format(const struct format *f, bool floating, const char *name, const char *what,
                        const struct moe_scheme *s, struct moe_err *e)
{
	bool bits = f->bits ? s->bits == f->bits : s->bits == 2 || s->bits == 4 || s->bits == 8;

	if (f->floating != floating || !bits)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: format %s of %s numbers of %d bits is not supported", what, name,
		                floating ? "floating" : "whole", s->bits);
	if (f->floating && !s->symmetric)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: format %s with zero points is not supported", what, name);
	if (f->group && (s->share != MOE_SHARE_GROUP || s->group != f->group))
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: format %s in groups of other than %d is not supported", what, name,
		                (int)f->group);
	return 0;
}

static int read_weights(const struct moe_json *w, const char *format, const char *what, struct moe_scheme *s,
                        struct moe_err *e)
{
	const struct format *f;
	const char *type = "int";
	int64_t bits = 8;
	bool floating;
	int rc = moe_json_need_int(w, "num_bits", false, 1, 64, &bits, what, e);

	s->symmetric = true;
	rc = rc ? rc : moe_json_need_str(w, "type", false, &type, what, e);
	rc = rc ? rc : moe_json_need_bool(w, "symmetric", false, &s->symmetric, what, e);
	rc = rc ? rc : read_share(w, what, s, e);
	if (rc)
		return rc;
	floating = strcmp(type, "float") == 0;
	if (!floating && strcmp(type, "int") != 0)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: type \"%s\" is not supported", what, type);
	f = find_format(format, floating);
	if (!f)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: format \"%s\" is not supported", what, format);
	s->bits = (int)bits;
	s->codes = f->codes;
	s->exponents = f->exponents;
	s->global = f->global;
	return check_format(f, floating, format, what, s, e);
}

static int read_group(const struct moe_json *group, const char *format, const char *what, struct moe_quantization *q,
                      struct moe_err *e)
{
	const struct moe_json *w = moe_json_get(group, "weights");
	int rc;

	if (moe_json_type(group) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: group \"%s\" is no object", what, moe_json_name(group));
	if (moe_json_type(w) == MOE_JSON_NULL) /* only activations */
		return 0;
	if (moe_json_type(w) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: \"weights\" of group \"%s\" is no object", what, moe_json_name(group));
	if (q->n == MOE_SCHEMES)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: more than %d groups", what, MOE_SCHEMES);
	rc = moe_json_need_str(group, "format", false, &format, what, e);
	rc = rc ? rc : read_weights(w, format, what, &q->v[q->n], e);
	q->n++;
	return rc;
}

/* Sparsity and rotations change the weights in ways that are not undone here. */
static int refuse_more(const struct moe_json *o, const char *what, struct moe_err *e)
{
	static const char *const keys[] = {"transform_config", "moe_sparsity_config", NULL};
	const struct moe_json *sparsity = moe_json_get(o, "sparsity_config");
	const char *status = "compressed", *format = moe_json_str(moe_json_get(sparsity, "format"), "dense");
	int rc = moe_json_need_str(o, "quantization_status", false, &status, what, e);

	if (rc)
		return rc;
	for (int i = 0; keys[i]; i++)
		if (moe_json_count(moe_json_get(o, keys[i])))
			return moe_fail(e, MOE_E_UNSUPPORTED, "%s: %s is not supported", what, keys[i]);
	if (moe_json_count(sparsity) && strcmp(format, "dense") != 0)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: sparsity_config %s is not supported", what, format);
	if (strcmp(status, "compressed") != 0)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: quantization_status %s is not supported", what, status);
	return 0;
}

int moe_quantization_read_ct(const struct moe_json *o, const char *what, struct moe_quantization *q, struct moe_err *e)
{
	const struct moe_json *groups = moe_json_get(o, "config_groups");
	const char *format = "none";
	int rc = refuse_more(o, what, e);

	rc = rc ? rc : moe_json_need_str(o, "format", false, &format, what, e);
	if (!rc && moe_json_type(groups) != MOE_JSON_OBJECT)
		rc = moe_fail(e, MOE_E_INPUT, "%s: \"config_groups\" is no object", what);
	for (size_t i = 0; !rc && i < moe_json_count(groups); i++)
		rc = read_group(moe_json_at(groups, i), format, what, q, e);
	if (!rc && q->n == 0)
		rc = moe_fail(e, MOE_E_UNSUPPORTED, "%s: no group says how weights are coded", what);
	return rc;
}
