/* quantization_config: which method, and what the tensors of its weights hold. */
#include <strings.h>
#include <string.h>

#include "checkpoint/coded.h"

#define MOST_GROUP (1 << 24)

static int group_size(const struct moe_json *o, const char *key, const char *what, int64_t *out, struct moe_err *e)
{
	int rc = moe_json_need_int(o, key, false, -1, MOST_GROUP, out, what, e);

	if (!rc && *out == 0)
		rc = moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is 0", what, key);
	return rc;
}

/* A pair of sizes; absent or null leaves *found false. */
static int block_size(const struct moe_json *o, const char *key, const char *what, int64_t *block, bool *found,
                      struct moe_err *e)
{
	const struct moe_json *v = moe_json_get(o, key);

	*found = moe_json_type(v) != MOE_JSON_NULL;
	if (!*found)
		return 0;
	if (moe_json_type(v) != MOE_JSON_ARRAY || moe_json_count(v) != 2)
		return moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is no pair of sizes", what, key);
	for (size_t i = 0; i < 2; i++)
		if (!moe_json_int(moe_json_at(v, i), &block[i]) || block[i] < 1 || block[i] > MOST_GROUP)
			return moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is no pair of sizes", what, key);
	return 0;
}

static int read_fp8(const struct moe_json *o, const char *what, struct moe_quantization *q, struct moe_err *e)
{
	bool blocks;
	int rc = block_size(o, "weight_block_size", what, q->v[0].block, &blocks, e);

	q->n = 1;
	q->v[0].codes = MOE_CODES_F8;
	q->v[0].share = blocks ? MOE_SHARE_BLOCK : MOE_SHARE_ANY;
	return rc;
}

/* A word that must be one of two, whatever the case; the second may be NULL. */
static int need_word(const struct moe_json *o, const char *key, const char *first, const char *second, bool *is_second,
                     const char *what, struct moe_err *e)
{
	const char *word = first;
	int rc = moe_json_need_str(o, key, false, &word, what, e);

	if (rc)
		return rc;
	*is_second = second && strcasecmp(word, second) == 0;
	if (*is_second || strcasecmp(word, first) == 0)
		return 0;
	return moe_fail(e, MOE_E_UNSUPPORTED, "%s: %s \"%s\" is not supported", what, key, word);
}

static int read_gptq(const struct moe_json *o, const char *what, struct moe_quantization *q, struct moe_err *e)
{
	struct moe_scheme *s = &q->v[0];
	const char *key = moe_json_get(o, "checkpoint_format") ? "checkpoint_format" : "format";
	bool second = false, marlin = false;
	int64_t bits = 0;
	int rc = moe_json_need_int(o, "bits", true, 1, 32, &bits, what, e);

	if (!rc && bits != 2 && bits != 3 && bits != 4 && bits != 8)
		rc = moe_fail(e, MOE_E_UNSUPPORTED, "%s: gptq of %d bits is not supported (2, 3, 4, 8 are)", what, (int)bits);
	s->group = 128;
	rc = rc ? rc : group_size(o, "group_size", what, &s->group, e);
	rc = rc ? rc : moe_json_need_bool(o, "desc_act", false, &q->act_order, what, e);
	rc = rc ? rc : need_word(o, key, "gptq", "gptq_v2", &second, what, e);
	rc = rc ? rc : moe_json_need_bool(o, "is_marlin_format", false, &marlin, what, e);
	if (!rc && marlin)
		rc = moe_fail(e, MOE_E_UNSUPPORTED, "%s: gptq in the marlin format is not supported", what);
	q->n = 1;
	q->zeros_less_one = !second;
	s->codes = MOE_CODES_PACKED;
	s->share = MOE_SHARE_GROUP;
	s->bits = (int)bits;
	return rc;
}

/* AutoAWQ's own names, and those of the first AWQ. */
static int read_awq(const struct moe_json *o, const char *what, struct moe_quantization *q, struct moe_err *e)
{
	struct moe_scheme *s = &q->v[0];
	const char *bits_key = moe_json_get(o, "w_bit") ? "w_bit" : "bits";
	const char *group_key = moe_json_get(o, "q_group_size") ? "q_group_size" : "group_size";
	bool second, zeros = true;
	int64_t bits = 4;
	int rc = moe_json_need_int(o, bits_key, false, 1, 32, &bits, what, e);

	if (!rc && bits != 4)
		rc = moe_fail(e, MOE_E_UNSUPPORTED, "%s: awq of %d bits is not supported (4 are)", what, (int)bits);
	s->group = 128;
	rc = rc ? rc : group_size(o, group_key, what, &s->group, e);
	rc = rc ? rc : moe_json_need_bool(o, "zero_point", false, &zeros, what, e);
	if (!rc && !zeros)
		rc = moe_fail(e, MOE_E_UNSUPPORTED, "%s: awq without zero points is not supported", what);
	rc = rc ? rc : need_word(o, moe_json_get(o, "version") ? "version" : "format", "gemm", NULL, &second, what, e);
	q->n = 1;
	s->codes = MOE_CODES_PACKED;
	s->share = MOE_SHARE_GROUP;
	s->bits = 4;
	return rc;
}

static int read_mxfp4(const struct moe_json *o, const char *what, struct moe_quantization *q, struct moe_err *e)
{
	(void)o;
	(void)what;
	(void)e;
	q->n = 1;
	q->v[0] = (struct moe_scheme){.codes = MOE_CODES_FP4, .share = MOE_SHARE_GROUP, .group = 32, .exponents = true};
	return 0;
}

static const struct {
	const char *name;
	enum moe_method method;
	int (*read)(const struct moe_json *o, const char *what, struct moe_quantization *q, struct moe_err *e);
} methods[] = {
	{"fp8", MOE_METHOD_FP8, read_fp8},
	{"fbgemm_fp8", MOE_METHOD_FP8, read_fp8},
	{"gptq", MOE_METHOD_GPTQ, read_gptq},
	{"awq", MOE_METHOD_AWQ, read_awq},
	{"compressed-tensors", MOE_METHOD_CT, moe_quantization_read_ct},
	{"mxfp4", MOE_METHOD_MXFP4, read_mxfp4},
};

static int read_method(const struct moe_json *o, const char *name, const char *what, struct moe_quantization *q,
                       struct moe_err *e)
{
	for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
		if (strcmp(methods[i].name, name) == 0) {
			q->method = methods[i].method;
			q->name = methods[i].name;
			return methods[i].read(o, what, q, e);
		}
	return moe_fail(e, MOE_E_UNSUPPORTED, "%s: quant_method \"%s\" is not supported (fp8, fbgemm_fp8, gptq, awq, "
	                "compressed-tensors, mxfp4 are)", what, name);
}

/* compression_config is what compressed-tensors wrote before transformers knew it. */
static const char *key_of(const struct moe_json *config)
{
	const struct moe_json *v = moe_json_get(config, "quantization_config");

	if (moe_json_type(v) != MOE_JSON_NULL && !(moe_json_type(v) == MOE_JSON_OBJECT && moe_json_count(v) == 0))
		return "quantization_config";
	v = moe_json_get(config, "compression_config");
	return moe_json_type(v) != MOE_JSON_NULL ? "compression_config" : NULL;
}

int moe_quantization_read(const struct moe_json *config, const char *what, struct moe_quantization *out, struct moe_err *e)
{
	struct moe_quantization q = {.method = MOE_METHOD_NONE};
	const char *key = key_of(config), *name = NULL;
	const struct moe_json *o = key ? moe_json_get(config, key) : NULL;
	int rc = 0;

	if (o && moe_json_type(o) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is no object", what, key);
	if (o && moe_json_count(o)) {
		rc = moe_json_need_str(o, "quant_method", false, &name, key, e);
		if (!rc && !name && strcmp(key, "compression_config") == 0)
			name = "compressed-tensors";
		if (!rc && !name)
			rc = moe_fail(e, MOE_E_UNSUPPORTED, "%s: \"quant_method\" is missing", key);
		rc = rc ? rc : read_method(o, name, key, &q, e);
		rc = rc ? moe_fail_prefix(e, rc, "%s", what) : 0;
	}
	if (!rc)
		*out = q;
	return rc;
}
