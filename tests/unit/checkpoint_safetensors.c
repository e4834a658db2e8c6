/* safetensors headers: what is accepted, and each thing that is refused with its name. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint/checkpoint.h"

/* Parse a header of this text before `data` bytes of data. */
static int parse(const char *text, uint64_t data, struct moe_st_header *h, struct moe_err *e)
{
	size_t len = strlen(text);
	unsigned char *bytes = malloc(8 + len); /* exactly as long as it is, for the sanitizer */
	int rc;

	assert_non_null(bytes);
	for (int i = 0; i < 8; i++)
		bytes[i] = (unsigned char)((uint64_t)len >> (8 * i));
	memcpy(bytes + 8, text, len);
	rc = moe_st_header_parse(bytes, 8 + len, 8 + len + data, "f", h, e);
	free(bytes);
	return rc;
}

static void in_order_of_the_data(void **state)
{
	struct moe_st_header h;

	(void)state;
	assert_int_equal(parse("{\"__metadata__\":{\"format\":\"pt\"},"
	                       "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
	                       "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}   ", 16, &h, NULL), 0);
	assert_int_equal(h.n, 2);
	assert_string_equal(h.v[0].name, "a");
	assert_int_equal(h.v[0].ndim, 0);
	assert_string_equal(h.v[1].name, "b");
	assert_int_equal(h.v[1].dtype, MOE_F16);
	assert_int_equal(h.v[1].shape[1], 3);
	assert_int_equal(h.v[1].begin, 4);
	assert_int_equal(h.v[1].end, 16);
	assert_string_equal(moe_json_str(moe_json_get(moe_json_get(h.json, "__metadata__"), "format"), ""), "pt");
	moe_st_header_free(&h);
}

static void may_be_empty(void **state)
{
	struct moe_st_header h;

	(void)state;
	assert_int_equal(parse("{}", 0, &h, NULL), 0);
	assert_int_equal(h.n, 0);
	moe_st_header_free(&h);
	/* Tensors without elements take no room, wherever they lie between others. */
	assert_int_equal(parse("{\"x\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[2,2]},"
	                       "\"w\":{\"dtype\":\"I64\",\"shape\":[9007199254740992,9007199254740992,0],\"data_offsets\":[0,0]},"
	                       "\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
	                       "\"z\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[2,3]}}", 3, &h, NULL), 0);
	assert_int_equal(h.n, 4);
	moe_st_header_free(&h);
}

#define ONE(dtype, shape, offsets) "{\"t\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static const struct {
	const char *text;
	uint64_t data;
	int code;
	const char *says;
} bad[] = {
	{"", 0, MOE_E_INPUT, "does not begin with '{'"},
	{" {}", 0, MOE_E_INPUT, "does not begin with '{'"},
	{"{", 0, MOE_E_INPUT, "f: "},
	{"{}x", 0, MOE_E_INPUT, "f: "},
	{"{}", 1, MOE_E_INPUT, "1 bytes after the last tensor"},
	{ONE("\"F32\"", "[1]", "[0,4]"), 3, MOE_E_INPUT, "tensor t: its data end at 4, past the file's end at 3"},
	{ONE("\"F32\"", "[1]", "[0,4]"), 5, MOE_E_INPUT, "1 bytes after the last tensor"},
	{ONE("\"F32\"", "[1]", "[1,5]"), 5, MOE_E_INPUT, "after a hole"},
	{ONE("\"F32\"", "[2]", "[0,4]"), 4, MOE_E_INPUT, "its shape needs 8 bytes, its offsets give 4"},
	{ONE("\"F32\"", "[1]", "[4,0]"), 4, MOE_E_INPUT, "\"data_offsets\""},
	{ONE("\"F32\"", "[1]", "[0,4,8]"), 4, MOE_E_INPUT, "\"data_offsets\""},
	{ONE("\"F32\"", "[1]", "[0.5,4]"), 4, MOE_E_INPUT, "\"data_offsets\""},
	{ONE("\"F32\"", "[1]", "[-4,0]"), 4, MOE_E_INPUT, "\"data_offsets\""},
	{ONE("\"F32\"", "[1]", "[0,9007199254740993]"), 4, MOE_E_INPUT, "\"data_offsets\""},
	{ONE("\"F32\"", "[1]", "\"0,4\""), 4, MOE_E_INPUT, "\"data_offsets\""},
	{ONE("\"F32\"", "[-1]", "[0,4]"), 4, MOE_E_INPUT, "\"shape\""},
	{ONE("\"F32\"", "[1.5]", "[0,4]"), 4, MOE_E_INPUT, "\"shape\""},
	{ONE("\"F32\"", "[\"1\"]", "[0,4]"), 4, MOE_E_INPUT, "\"shape\""},
	{ONE("\"F32\"", "4", "[0,4]"), 4, MOE_E_INPUT, "\"shape\" is no list"},
	{ONE("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, MOE_E_UNSUPPORTED, "9 dimensions"},
	{ONE("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0, MOE_E_INPUT, "its size overflows"},
	{ONE("\"F32\"", "[4611686018427387904]", "[0,0]"), 0, MOE_E_INPUT, "\"shape\""},
	{ONE("\"F4\"", "[1]", "[0,4]"), 4, MOE_E_UNSUPPORTED, "dtype F4 is not known"},
	{ONE("\"f32\"", "[1]", "[0,4]"), 4, MOE_E_UNSUPPORTED, "dtype f32 is not known"},
	{ONE("32", "[1]", "[0,4]"), 4, MOE_E_INPUT, "no \"dtype\""},
	{"{\"t\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, MOE_E_INPUT, "no \"dtype\""},
	{"{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, MOE_E_INPUT, "\"shape\""},
	{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, MOE_E_INPUT, "\"data_offsets\""},
	{"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"strides\":[1]}}", 4, MOE_E_INPUT, "\"strides\""},
	{"{\"t\":[]}", 0, MOE_E_INPUT, "no object"},
	{"{\"t\":null}", 0, MOE_E_INPUT, "no object"},
	{"{\"__metadata__\":[]}", 0, MOE_E_INPUT, "\"__metadata__\""},
	{"{\"__metadata__\":{\"a\":1}}", 0, MOE_E_INPUT, "\"a\" is no string"},
	{"{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
	 "\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, MOE_E_INPUT, "\"t\""},
	{"{\"t\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
	 "\"u\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3, MOE_E_INPUT, "tensor u: its data begin at 1, inside"},
	{"{\"t\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
	 "\"u\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, MOE_E_INPUT, "inside another"},
	{"{\"t\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
	 "\"u\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]}}", 2, MOE_E_INPUT, "inside another"},
};

static void refused_with_its_name(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct moe_err e = MOE_ERR_INIT;
		struct moe_st_header h;
		int rc = parse(bad[i].text, bad[i].data, &h, &e);

		if (rc != bad[i].code || !strstr(e.msg, bad[i].says) || strncmp(e.msg, "f: ", 3))
			fail_msg("%s: %d \"%s\", wanted %d \"%s\"", bad[i].text, rc, e.msg, bad[i].code, bad[i].says);
		assert_int_equal(parse(bad[i].text, bad[i].data, &h, NULL), bad[i].code);
	}
}

static void length_is_checked_first(void **state)
{
	unsigned char b[16] = {2, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
	struct moe_st_header h;
	struct moe_err e;

	(void)state;
	for (size_t n = 0; n < 10; n++)
		assert_int_equal(moe_st_header_parse(b, n, n, "f", &h, &e), MOE_E_INPUT);
	assert_int_equal(moe_st_header_parse(b, 10, 10, "f", &h, &e), 0);
	moe_st_header_free(&h);
	assert_int_equal(moe_st_header_parse(b, 9, 100, "f", &h, &e), MOE_E_INPUT);
	assert_string_equal(e.msg, "f: header ends past the file");
	b[3] = 6; /* 100,663,298 */
	assert_int_equal(moe_st_header_parse(b, 10, (uint64_t)1 << 40, "f", &h, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "over the limit"));
	memset(b, 0xff, 8);
	assert_int_equal(moe_st_header_parse(b, 10, UINT64_MAX, "f", &h, &e), MOE_E_INPUT);
	assert_int_equal(moe_st_header_parse(NULL, 0, 0, "f", &h, &e), MOE_E_INPUT);
}

static void made_is_read(void **state)
{
	struct moe_st_entry v[] = {
		{.name = "quoted \" \\ \xc3\xa9", .dtype = MOE_BF16, .ndim = 2, .shape = {3, 5}},
		{.name = "none", .dtype = MOE_I64, .ndim = 1, .shape = {0}},
		{.name = "one", .dtype = MOE_F8_E4M3, .ndim = 0},
	};
	const char *const metadata[] = {"format", "pt", "k", "", NULL};
	unsigned char *bytes;
	size_t len;
	struct moe_st_header h;

	(void)state;
	for (size_t align = 8; align <= 4096; align *= 8) {
		assert_int_equal(moe_st_header_make(v, 3, metadata, align, &bytes, &len, NULL), 0);
		assert_int_equal(len % align, 0);
		assert_int_equal(v[0].end, 30);
		assert_int_equal(v[2].begin, 30);
		assert_int_equal(moe_st_header_parse(bytes, len, len + 31, "f", &h, NULL), 0);
		assert_int_equal(h.data_start, len);
		assert_string_equal(h.v[0].name, v[0].name);
		assert_string_equal(h.v[1].name, "none");
		assert_int_equal(h.v[2].dtype, MOE_F8_E4M3);
		moe_st_header_free(&h);
		free(bytes);
	}
}

static void too_much_is_not_made(void **state)
{
	struct moe_st_entry v = {.name = "t", .dtype = MOE_F32, .ndim = 2, .shape = {(int64_t)1 << 40, (int64_t)1 << 40}};
	unsigned char *bytes;
	size_t len;
	struct moe_err e;

	(void)state;
	assert_int_equal(moe_st_header_make(&v, 1, NULL, 8, &bytes, &len, &e), MOE_E_RANGE);
	v.shape[1] = 1 << 14;
	assert_int_equal(moe_st_header_make(&v, 1, NULL, 8, &bytes, &len, &e), MOE_E_RANGE);
	assert_string_equal(e.msg, "tensor t: its size overflows");
}

static void put(const char *path, const void *data, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write(fd, data, n), n);
	close(fd);
}

static void files_are_mapped(void **state)
{
	char text[80] = {64}, path[] = "/tmp/moe-safetensors-XXXXXX";
	struct moe_tensors *s;
	struct moe_err e;

	(void)state;
	snprintf(text + 8, 72, "%-64shi", "{\"t\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}");
	close(mkstemp(path));
	assert_int_equal(moe_tensors_new(&s, NULL), 0);
	put(path, text, 8 + 64 + 2);
	assert_int_equal(moe_st_open(s, path, &e), 0);
	assert_memory_equal(moe_tensors_find(s, "t")->data, "hi", 2);
	assert_int_equal(moe_tensors_find(s, "t")->bytes, 2);
	assert_non_null(moe_tensors_find(s, "t")->map);
	assert_int_equal(moe_st_open(s, path, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "there are two tensors t"));
	assert_non_null(strstr(e.msg, path));
	put(path, text, 8 + 64 + 1);
	assert_int_equal(moe_st_open(s, path, &e), MOE_E_INPUT);
	put(path, text, 0);
	assert_int_equal(moe_st_open(s, path, &e), MOE_E_INPUT);
	unlink(path);
	assert_int_equal(moe_st_open(s, path, &e), MOE_E_MISSING);
	moe_tensors_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order_of_the_data),
		cmocka_unit_test(may_be_empty),
		cmocka_unit_test(refused_with_its_name),
		cmocka_unit_test(length_is_checked_first),
		cmocka_unit_test(made_is_read),
		cmocka_unit_test(too_much_is_not_made),
		cmocka_unit_test(files_are_mapped),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("checkpoint_safetensors", tests, NULL, NULL);
}
