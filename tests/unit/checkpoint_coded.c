/* Checkpoints quantised by other tools (tests/data/coded/make.py): their weights read as what those tools say they mean,
 * and what does not fit together is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "checkpoint/checkpoint.h"
#include "shard/shard.h"

#define DATA "tests/data/coded/"

static char dir[] = "/tmp/moe-coded-XXXXXX";

static int begin(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int end(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command);
}

/* ---- values ---- */

static const struct {
	const char *name, *method, *coding;
} fixtures[] = {
	{"fp8-block", "fp8", "fp8 24x24"},
	{"fp8-128", "fp8", "fp8 128x128"},
	{"fp8-tensor", "fp8", "fp8 by tensor"},
	{"fbgemm-fp8", "fbgemm_fp8", "fp8 by row"},
	{"gptq-4", "gptq", "gptq 4-bit"},
	{"gptq-4-order", "gptq", "gptq 4-bit"},
	{"gptq-v2", "gptq", "gptq 4-bit"},
	{"gptq-8", "gptq", "gptq 8-bit"},
	{"gptq-3", "gptq", "gptq 3-bit"},
	{"gptq-2", "gptq", "gptq 2-bit"},
	{"awq", "awq", "awq 4-bit"},
	{"awq-row", "awq", "awq 4-bit"},
	{"ct-4", "compressed-tensors", "compressed-tensors 4-bit"},
	{"ct-4-order", "compressed-tensors", "compressed-tensors 4-bit"},
	{"ct-8", "compressed-tensors", "compressed-tensors 8-bit"},
	{"ct-mixed", "compressed-tensors", NULL},
	{"ct-int8", "compressed-tensors", "compressed-tensors 8-bit"},
	{"ct-fp8", "compressed-tensors", "compressed-tensors fp8"},
	{"ct-fp8-tensor", "compressed-tensors", "compressed-tensors fp8"},
	{"ct-fp8-block", "compressed-tensors", "compressed-tensors fp8"},
	{"ct-nvfp4", "compressed-tensors", "compressed-tensors nvfp4"},
	{"ct-mxfp4", "compressed-tensors", "compressed-tensors mxfp4"},
	{"ct-mxfp8", "compressed-tensors", "compressed-tensors mxfp8"},
	{"mxfp4", "mxfp4", "mxfp4"},
};

static struct moe_checkpoint *open_at(const char *path)
{
	struct moe_checkpoint *c = NULL;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_checkpoint_open(path, &c, &e))
		fail_msg("%s", e.msg);
	return c;
}

static void compare(const struct moe_tensor *got, const struct moe_tensor *want)
{
	int64_t rows = got->shape[0], cols = got->shape[1];
	float *row = malloc(sizeof *row * (size_t)(rows * cols));
	struct moe_err e = MOE_ERR_INIT;

	assert_int_equal(want->bytes, (size_t)(rows * cols) * sizeof *row);
	for (int64_t first = 0, n; first < rows; first += n) {
		n = rows - first < 5 ? rows - first : 5;
		if (moe_tensor_read(got, first, n, row + first * cols, &e))
			fail_msg("%s", e.msg);
	}
	for (int64_t i = 0; i < rows * cols; i++) {
		float x;

		memcpy(&x, want->data + (size_t)i * sizeof x, sizeof x);
		if (row[i] != x)
			fail_msg("%s: element [%lld, %lld] is %.9g, not %.9g", got->name, (long long)(i / cols), (long long)(i % cols),
			         (double)row[i], (double)x);
	}
	free(row);
}

static void test_values(void **state)
{
	(void)state;
	for (size_t f = 0; f < sizeof fixtures / sizeof fixtures[0]; f++) {
		char path[128];
		struct moe_tensors *expected;
		struct moe_checkpoint *c;

		snprintf(path, sizeof path, DATA "%s", fixtures[f].name);
		c = open_at(path);
		assert_string_equal(c->coding, fixtures[f].method);
		assert_int_equal(moe_tensors_new(&expected, NULL), 0);
		snprintf(path, sizeof path, DATA "%s/expected.safetensors", fixtures[f].name);
		assert_int_equal(moe_st_open(expected, path, NULL), 0);
		assert_true(moe_tensors_count(expected) >= 2);
		for (size_t i = 0; i < moe_tensors_count(expected); i++) {
			const struct moe_tensor *want = moe_tensors_at(expected, i), *got = moe_tensors_find(c->tensors, want->name);

			assert_non_null(got);
			assert_non_null(got->coding);
			assert_true(got->coding->bytes > 0 && got->data == NULL && got->bytes == 0);
			if (fixtures[f].coding)
				assert_string_equal(got->coding->name, fixtures[f].coding);
			compare(got, want);
		}
		moe_tensors_free(expected);
		moe_checkpoint_close(c);
	}
}

/* Decoded, a checkpoint is the one that has all weights in bf16, and its matrices can be bound. */
static void test_decoded(void **state)
{
	static const char *const names[] = {"fp8-block", "gptq-4-order"};

	(void)state;
	for (size_t f = 0; f < 2; f++) {
		char path[128];
		struct moe_checkpoint *plain;
		struct moe_source *source;
		struct moe_tensors *t;
		struct moe_base_weights base;

		snprintf(path, sizeof path, DATA "%s", names[f]);
		assert_int_equal(moe_source_open(path, &source, NULL), 0);
		snprintf(path, sizeof path, DATA "%s-bf16", names[f]);
		plain = open_at(path);
		assert_null(plain->coding);
		assert_int_equal(moe_source_tensors(source, MOE_ALL, &t, NULL), 0);
		assert_true(source->made_bytes > 0);
		assert_int_equal(moe_tensors_count(t), moe_tensors_count(plain->tensors));
		for (size_t i = 0; i < moe_tensors_count(t); i++) {
			const struct moe_tensor *got = moe_tensors_at(t, i), *want = moe_tensors_find(plain->tensors, got->name);

			assert_non_null(want);
			assert_null(got->coding);
			assert_int_equal(got->dtype, want->dtype);
			assert_int_equal(got->bytes, want->bytes);
			assert_memory_equal(got->data, want->data, want->bytes);
		}
		assert_int_equal(moe_bind_base(t, &source->model, &base, NULL), 0);
		moe_base_free(&base);
		moe_tensors_free(t);
		moe_source_close(source);
		moe_checkpoint_close(plain);
	}
}

/* A checkpoint and what it decodes to have one identity. */
static void test_fingerprint(void **state)
{
	struct moe_hash hash[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct moe_source *s;

		assert_int_equal(moe_source_open(i ? DATA "fp8-block-bf16" : DATA "fp8-block", &s, NULL), 0);
		assert_int_equal(moe_source_fingerprint(s, &hash[i], NULL), 0);
		moe_source_close(s);
	}
	assert_string_equal(hash[0].hex, hash[1].hex);
}

/* ---- what does not fit ---- */

/* A change to a checkpoint: of its config.json, of one tensor. */
struct change {
	const char *from;           /* fixture */
	const char *find, *put;     /* in config.json */
	const char *tensor;         /* part of a name */
	const char *as;             /* its new name; "" drops it */
	int64_t rows;               /* its new first dimension, as far as its bytes go; 0: as it is */
	enum moe_dtype dtype;       /* its new type, of the same size; MOE_F32: as it is */
	int64_t word, value;        /* an I32 in it */
	int code;
	const char *says;
};

static char *changed_config(const struct change *x)
{
	char path[128], *text, *at, *out;

	snprintf(path, sizeof path, DATA "%s/config.json", x->from);
	assert_int_equal(moe_read_file(path, 1 << 20, &text, NULL, NULL), 0);
	if (!x->find)
		return text;
	at = strstr(text, x->find);
	assert_non_null(at);
	out = moe_sprintf(NULL, "%.*s%s%s", (int)(at - text), text, x->put, at + strlen(x->find));
	free(text);
	return out;
}

static bool is_meant(const struct change *x, const struct moe_tensor *t)
{
	return x->tensor && strstr(t->name, x->tensor);
}

/* The entry of a changed tensor; false: dropped. */
static bool changed_entry(const struct change *x, const struct moe_tensor *t, struct moe_st_entry *v)
{
	*v = (struct moe_st_entry){.name = t->name, .dtype = t->dtype, .ndim = t->ndim};
	memcpy(v->shape, t->shape, sizeof t->shape);
	if (!is_meant(x, t))
		return true;
	if (x->as && !*x->as)
		return false;
	v->name = x->as ? x->as : v->name;
	v->dtype = x->dtype != MOE_F32 ? x->dtype : v->dtype;
	v->shape[0] = x->rows ? x->rows : v->shape[0];
	return true;
}

static void write_changed(const struct change *x, const struct moe_tensors *all)
{
	struct moe_st_entry v[128];
	struct moe_buf b = MOE_BUF_INIT;
	unsigned char *header;
	char path[128];
	size_t n = 0, len;

	for (size_t i = 0; i < moe_tensors_count(all); i++)
		n += changed_entry(x, moe_tensors_at(all, i), &v[n]);
	assert_int_equal(moe_st_header_make(v, n, NULL, 8, &header, &len, NULL), 0);
	assert_int_equal(moe_buf_add(&b, header, len, NULL), 0);
	free(header);
	n = 0;
	for (size_t i = 0; i < moe_tensors_count(all); i++) {
		const struct moe_tensor *t = moe_tensors_at(all, i);
		struct moe_st_entry entry;
		size_t at = b.len;

		if (!changed_entry(x, t, &entry))
			continue;
		assert_true(v[n].end - v[n].begin <= t->bytes);
		assert_int_equal(moe_buf_add(&b, t->data, (size_t)(v[n].end - v[n].begin), NULL), 0);
		if (is_meant(x, t) && x->value) {
			int32_t word = (int32_t)x->value;

			memcpy(b.data + at + 4 * x->word, &word, sizeof word);
		}
		n++;
	}
	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	assert_int_equal(moe_write_file(path, b.data, b.len, NULL), 0);
	moe_buf_free(&b);
}

static void apply(const struct change *x)
{
	char path[128], *config = changed_config(x);
	struct moe_tensors *all;

	snprintf(path, sizeof path, "%s/config.json", dir);
	assert_int_equal(moe_write_file(path, config, strlen(config), NULL), 0);
	free(config);
	assert_int_equal(moe_tensors_new(&all, NULL), 0);
	snprintf(path, sizeof path, DATA "%s/model.safetensors", x->from);
	assert_int_equal(moe_st_open(all, path, NULL), 0);
	write_changed(x, all);
	moe_tensors_free(all);
}

#define Q0 "model.layers.0.self_attn.q_proj"
#define METHOD "\"quant_method\": "

static const struct change bad[] = {
	/* What is missing is named. */
	{"fp8-block", .tensor = "q_proj.weight_scale_inv", .as = "", .code = MOE_E_MISSING, .says = Q0 ".weight_scale_inv is missing"},
	{"fp8-tensor", .tensor = "q_proj.weight_scale", .as = "", .code = MOE_E_MISSING, .says = Q0 ".weight_scale_inv is missing"},
	{"gptq-4", .tensor = "q_proj.scales", .as = "", .code = MOE_E_MISSING, .says = Q0 ".scales is missing"},
	{"gptq-4", .tensor = "q_proj.qzeros", .as = "", .code = MOE_E_MISSING, .says = Q0 ".qzeros is missing"},
	{"gptq-4-order", .tensor = "q_proj.g_idx", .as = "", .code = MOE_E_MISSING, .says = Q0 ".g_idx is missing"},
	{"gptq-4", .tensor = "q_proj.qweight", .as = "", .code = MOE_E_INPUT, .says = "not there or not quantised"},
	{"awq", .tensor = "q_proj.scales", .as = "", .code = MOE_E_MISSING, .says = Q0 ".scales is missing"},
	{"awq", .tensor = "experts.1.w2.qzeros", .as = "", .code = MOE_E_MISSING, .says = "w2.qzeros is missing"},
	{"ct-4", .tensor = "q_proj.weight_scale", .as = "", .code = MOE_E_MISSING, .says = Q0 ".weight_scale is missing"},
	{"ct-4", .tensor = "q_proj.weight_shape", .as = "", .code = MOE_E_MISSING, .says = Q0 ".weight_shape is missing"},
	{"ct-8", .tensor = "q_proj.weight_zero_point", .as = "", .code = MOE_E_MISSING, .says = Q0 ".weight_zero_point is missing"},
	{"ct-nvfp4", .tensor = "q_proj.weight_global_scale", .as = "", .code = MOE_E_MISSING, .says = "weight_global_scale is missing"},
	{"mxfp4", .tensor = "down_proj_scales", .as = "", .code = MOE_E_MISSING, .says = "down_proj_scales is missing"},
	/* Sizes that do not fit. */
	{"fp8-block", "24,\n   24", "24,\n   16", .code = MOE_E_INPUT, .says = "has shape [2, 3], [2, 4] is wanted"},
	{"gptq-4", "\"group_size\": 32", "\"group_size\": 16", .code = MOE_E_INPUT, .says = "has shape [1, 64], [2, 64] is wanted"},
	{"gptq-4", "\"bits\": 4", "\"bits\": 8", .code = MOE_E_INPUT, .says = "has shape [4, 64], [8, 64] is wanted"},
	{"gptq-8", .tensor = "q_proj.qzeros", .dtype = MOE_U32, .code = MOE_E_INPUT, .says = "is of type U32, I32 is wanted"},
	{"awq", "\"group_size\": 32", "\"group_size\": 16", .code = MOE_E_INPUT, .says = "is wanted"},
	{"awq", .tensor = "q_proj.qweight", .rows = 16, .code = MOE_E_INPUT, .says = "[16, 4], [32, 4] is wanted"},
	{"awq", .tensor = "q_proj.scales", .dtype = MOE_I16, .code = MOE_E_UNSUPPORTED, .says = "scales of type I16"},
	{"ct-4", "\"group_size\": 32", "\"group_size\": 8", .code = MOE_E_INPUT, .says = "[64, 1], [64, 4] is wanted"},
	{"ct-4", "\"num_bits\": 4", "\"num_bits\": 8", .code = MOE_E_INPUT, .says = "[64, 4], [64, 8] is wanted"},
	{"ct-4", .tensor = "q_proj.weight_shape", .word = 2, .value = 31, .code = MOE_E_INPUT, .says = "says [32, 31], [32, 32] is wanted"},
	{"ct-fp8-block", "    32\n", "    16\n", .code = MOE_E_INPUT, .says = "is wanted"},
	{"mxfp4", .tensor = "down_proj_scales", .rows = 1, .code = MOE_E_INPUT, .says = "is wanted"},
	{"fp8-block", "\"hidden_size\": 32", "\"hidden_size\": 64", .code = MOE_E_INPUT, .says = "is wanted"},
	/* Groups that are none. */
	{"gptq-4-order", .tensor = "q_proj.g_idx", .word = 31, .value = 2, .code = MOE_E_INPUT, .says = "column 31 is in group 2, there are 2"},
	{"gptq-4", .tensor = "q_proj.g_idx", .word = 3, .value = -1, .code = MOE_E_INPUT, .says = "column 3 is in group -1"},
	{"ct-4-order", .tensor = "q_proj.weight_g_idx", .word = 0, .value = 1 << 30, .code = MOE_E_INPUT, .says = "column 0 is in group"},
	/* Names of what the model has not. */
	{"ct-fp8", .tensor = "q_proj.weight_scale", .as = "model.extra", .code = MOE_E_MISSING, .says = Q0 ".weight_scale is missing"},
	{"fp8-block", .tensor = "q_norm.weight", .as = "model.layers.9.q.weight", .code = MOE_E_UNSUPPORTED, .says = "is none that this"},
	{"gptq-4", .tensor = "q_proj.bias", .value = 1, .code = MOE_E_UNSUPPORTED, .says = Q0 ".bias is none that this mixtral model has"},
	/* Methods and variants. */
	{"awq", METHOD "\"awq\"", METHOD "\"bitsandbytes\"", .code = MOE_E_UNSUPPORTED, .says = "quant_method \"bitsandbytes\" is not supported"},
	{"awq", METHOD "\"awq\",", "", .code = MOE_E_UNSUPPORTED, .says = "\"quant_method\" is missing"},
	{"awq", "\"gemm\"", "\"gemv\"", .code = MOE_E_UNSUPPORTED, .says = "version \"gemv\" is not supported"},
	{"awq", "\"zero_point\": true", "\"zero_point\": false", .code = MOE_E_UNSUPPORTED, .says = "awq without zero points"},
	{"awq", "\"bits\": 4", "\"bits\": 3", .code = MOE_E_UNSUPPORTED, .says = "awq of 3 bits"},
	{"gptq-4", "\"bits\": 4", "\"bits\": 5", .code = MOE_E_UNSUPPORTED, .says = "gptq of 5 bits"},
	{"gptq-4", "\"bits\": 4,", "", .code = MOE_E_INPUT, .says = "bits"},
	{"gptq-4", "\"checkpoint_format\": \"gptq\"", "\"checkpoint_format\": \"marlin\"", .code = MOE_E_UNSUPPORTED, .says = "\"marlin\""},
	{"gptq-4", "\"group_size\": 32", "\"group_size\": 0", .code = MOE_E_INPUT, .says = "group_size"},
	{"ct-4", "\"format\": \"pack-quantized\"", "\"format\": \"marlin-24\"", .code = MOE_E_UNSUPPORTED, .says = "format \"marlin-24\""},
	{"ct-4", "\"strategy\": \"group\"", "\"strategy\": \"token\"", .code = MOE_E_UNSUPPORTED, .says = "strategy \"token\""},
	{"ct-4", "\"quantization_status\": \"compressed\"", "\"quantization_status\": \"frozen\"", .code = MOE_E_UNSUPPORTED, .says = "frozen"},
	{"ct-4", "\"kv_cache_scheme\": null", "\"transform_config\": {\"a\": 1}", .code = MOE_E_UNSUPPORTED, .says = "transform_config"},
	{"ct-4", "\"kv_cache_scheme\": null", "\"sparsity_config\": {\"format\": \"sparse-24-bitmask\"}", .code = MOE_E_UNSUPPORTED, .says = "sparse-24-bitmask"},
	{"fp8-block", "24,\n   24", "24", .code = MOE_E_INPUT, .says = "no pair of sizes"},
	{"fp8-block", "24,\n   24", "0, 24", .code = MOE_E_INPUT, .says = "no pair of sizes"},
};

static void test_bad(void **state)
{
	int wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct moe_checkpoint *c = NULL;
		struct moe_err e = MOE_ERR_INIT;
		int rc;

		apply(&bad[i]);
		rc = moe_checkpoint_open(dir, &c, &e);
		if (rc != bad[i].code || !strstr(e.msg, bad[i].says)) {
			print_error("%s, case %zu (%s): code %d: %s\n", bad[i].from, i, bad[i].says, rc, e.msg);
			wrong++;
		}
	}
	assert_int_equal(wrong, 0);
}

/* What other tools leave beside is no trouble. */
static void test_harmless(void **state)
{
	static const struct change good[] = {
		{"fp8-tensor", .tensor = "q_proj.input_scale", .as = ""},
		{"fp8-tensor", .tensor = "q_proj.input_scale", .as = Q0 ".k_scale"},
		{"gptq-4", .tensor = "q_proj.g_idx", .as = ""},
		{"gptq-4", .tensor = "q_proj.bias", .as = ""},
		{.from = "gptq-4", .find = "\"checkpoint_format\": \"gptq\"", .put = "\"backend\": \"auto\""},
		{"ct-4-order", .tensor = "q_proj.weight_g_idx", .value = -1},
		{.from = "ct-4", .find = "\"quantization_config\"", .put = "\"compression_config\""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		apply(&good[i]);
		moe_checkpoint_close(open_at(dir));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_decoded),
		cmocka_unit_test(test_fingerprint),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_harmless),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("checkpoint_coded", tests, begin, end);
}
