/* Flows: sums and files are those of the bytes, whatever the pieces, the chunks and the threads. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "shard/private.h"

#define BYTES ((size_t)19 << 20) /* several chunks and a bit */

static char dir[] = "/tmp/moe-shard-flow-XXXXXX", path[64];
static unsigned char *bytes;

static void hash(const void *data, size_t len, struct moe_hash *out)
{
	moe_hash_text(XXH3_128bits(data, len), out);
}

static void assert_hash(const struct moe_hash *got, const void *data, size_t len)
{
	struct moe_hash want;

	hash(data, len, &want);
	assert_string_equal(got->hex, want.hex);
}

/* A flow over `bytes` in extents of `size` (0: all), grouped by four. */
static struct moe_flow make_flow(size_t size, struct moe_hash *sums, struct moe_hash *groups)
{
	size_t n = (BYTES + size - 1) / size;
	struct moe_flow f = {.v = calloc(n, sizeof *f.v)};

	assert_non_null(f.v);
	for (size_t i = 0; i < n; i++) {
		size_t len = i + 1 < n ? size : BYTES - i * size;

		moe_flow_add(&f, (struct moe_extent){.data = bytes + i * size, .bytes = len, .sum = &sums[i],
		                                     .group = &groups[i / 4]});
	}
	return f;
}

static void check_sums(size_t size, const struct moe_hash *sums, const struct moe_hash *groups)
{
	for (size_t i = 0; i * size < BYTES; i++)
		assert_hash(&sums[i], bytes + i * size, BYTES - i * size < size ? BYTES - i * size : size);
	for (size_t i = 0; i * size * 4 < BYTES; i++)
		assert_hash(&groups[i], bytes + i * size * 4, BYTES - i * size * 4 < size * 4 ? BYTES - i * size * 4 : size * 4);
}

static void assert_file(void)
{
	char *data;
	size_t len;

	assert_int_equal(moe_read_file(path, BYTES, &data, &len, NULL), 0);
	assert_int_equal(len, BYTES);
	assert_memory_equal(data, bytes, len);
	free(data);
	unlink(path);
}

static void sums_and_file_are_those_of_the_bytes(void **state)
{
	static const size_t sizes[] = {BYTES, 5 << 20, 4 << 20, 1 << 20, 100003, 4096};

	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		for (int threads = 1; threads <= 5; threads += 2) {
			size_t n = BYTES / sizes[i] + 1;
			struct moe_hash *sums = calloc(n, sizeof *sums), *groups = calloc(n, sizeof *groups), whole;
			struct moe_flow f = make_flow(sizes[i], sums, groups);
			struct moe_shard_options o = {.threads = threads};

			f.path = path;
			f.whole = &whole;
			assert_int_equal(moe_flows_run(&f, 1, &o, NULL), 0);
			assert_hash(&whole, bytes, BYTES);
			check_sums(sizes[i], sums, groups);
			assert_file();
			free(f.v);
			free(sums);
			free(groups);
		}
}

static void empty_extents_have_sums(void **state)
{
	struct moe_hash sums[3], whole;
	struct moe_extent v[3];
	struct moe_flow f = {.v = v, .whole = &whole, .path = path};

	(void)state;
	moe_flow_add(&f, (struct moe_extent){.sum = &sums[0]});
	moe_flow_add(&f, (struct moe_extent){.data = bytes, .bytes = 10, .sum = &sums[1]});
	moe_flow_add(&f, (struct moe_extent){.sum = &sums[2]});
	assert_int_equal(moe_flows_run(&f, 1, NULL, NULL), 0);
	assert_hash(&sums[0], "", 0);
	assert_hash(&sums[1], bytes, 10);
	assert_hash(&sums[2], "", 0);
	assert_hash(&whole, bytes, 10);
	unlink(path);
}

static void an_empty_flow_makes_an_empty_file(void **state)
{
	struct moe_hash whole;
	struct moe_flow f = {.whole = &whole, .path = path};

	(void)state;
	assert_int_equal(moe_flows_run(&f, 1, NULL, NULL), 0);
	assert_hash(&whole, "", 0);
	assert_int_equal(unlink(path), 0);
}

struct ticks {
	uint64_t last, total;
	int calls, stop_at;
};

static bool tick(void *ctx, uint64_t done, uint64_t total)
{
	struct ticks *t = ctx;

	assert_true(done > t->last && done <= total);
	t->last = done;
	t->total = total;
	return ++t->calls != t->stop_at;
}

static void ticks_tell_and_stop(void **state)
{
	struct moe_hash whole;
	struct moe_extent v;
	struct ticks t = {.stop_at = 0};
	struct moe_shard_options o = {.threads = 3, .tick = tick, .ctx = &t};
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct moe_flow f = {.v = &v, .whole = &whole};

		moe_flow_add(&f, (struct moe_extent){.data = bytes, .bytes = BYTES});
		assert_int_equal(moe_flows_run(&f, 1, &o, &e), i ? MOE_E_CANCELLED : 0);
		if (!i)
			assert_true(t.last == BYTES && t.total == BYTES);
		t = (struct ticks){.stop_at = 2};
	}
}

static void a_file_that_is_there_is_not_overwritten(void **state)
{
	struct moe_extent v;
	struct moe_flow f = {.v = &v, .path = path};
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(moe_write_file(path, "keep", 4, NULL), 0);
	moe_flow_add(&f, (struct moe_extent){.data = bytes, .bytes = 4});
	assert_int_equal(moe_flows_run(&f, 1, NULL, &e), MOE_E_IO);
	assert_non_null(strstr(e.msg, path));
	unlink(path);
}

/* The limit on a file's size stands for all that makes a write fail midway. */
static void a_failed_write_stops_all_threads(void **state)
{
	struct rlimit before, small = {6 << 20, 6 << 20};
	struct moe_extent v;
	struct moe_flow f = {.v = &v, .path = path};
	struct moe_shard_options o = {.threads = 4};
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	moe_flow_add(&f, (struct moe_extent){.data = bytes, .bytes = BYTES});
	getrlimit(RLIMIT_FSIZE, &before);
	small.rlim_max = before.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &small);
	assert_int_equal(moe_flows_run(&f, 1, &o, &e), MOE_E_IO);
	setrlimit(RLIMIT_FSIZE, &before);
	assert_true(strncmp(e.msg, path, strlen(path)) == 0);
	unlink(path);
}

/* More files than may be open at once. */
static void many_files_need_few_descriptors(void **state)
{
	enum { N = 300 };
	static struct moe_flow f[N];
	static struct moe_extent v[N];
	static struct moe_hash whole[N];
	static char names[N][96];
	struct rlimit before, few = {64, 64};
	struct moe_shard_options o = {.threads = 4};

	(void)state;
	for (size_t i = 0; i < N; i++) {
		snprintf(names[i], sizeof names[i], "%s/%zu", dir, i);
		f[i] = (struct moe_flow){.path = names[i], .v = &v[i], .whole = &whole[i]};
		moe_flow_add(&f[i], (struct moe_extent){.data = bytes + i, .bytes = 1000 + i});
	}
	getrlimit(RLIMIT_NOFILE, &before);
	few.rlim_max = before.rlim_max;
	setrlimit(RLIMIT_NOFILE, &few);
	assert_int_equal(moe_flows_run(f, N, &o, NULL), 0);
	setrlimit(RLIMIT_NOFILE, &before);
	for (size_t i = 0; i < N; i++) {
		assert_hash(&whole[i], bytes + i, 1000 + i);
		assert_int_equal(unlink(names[i]), 0);
	}
}

static void hashes_are_parsed_strictly(void **state)
{
	struct moe_hash h;

	(void)state;
	assert_true(moe_hash_parse("0123456789abcdef0123456789abcdef", &h));
	assert_false(moe_hash_parse("0123456789abcdef0123456789abcde", &h));
	assert_false(moe_hash_parse("0123456789abcdef0123456789abcdeff", &h));
	assert_false(moe_hash_parse("0123456789ABCDEF0123456789abcdef", &h));
	assert_false(moe_hash_parse(NULL, &h));
}

static int open_all(void **state)
{
	uint32_t x = 1;

	(void)state;
	bytes = malloc(BYTES);
	if (!bytes || !mkdtemp(dir))
		return -1;
	for (size_t i = 0; i < BYTES; i++)
		bytes[i] = (unsigned char)((x = x * 1664525u + 1013904223u) >> 24);
	snprintf(path, sizeof path, "%s/f", dir);
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	free(bytes);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_and_file_are_those_of_the_bytes),
		cmocka_unit_test(empty_extents_have_sums),
		cmocka_unit_test(an_empty_flow_makes_an_empty_file),
		cmocka_unit_test(ticks_tell_and_stop),
		cmocka_unit_test(a_file_that_is_there_is_not_overwritten),
		cmocka_unit_test(a_failed_write_stops_all_threads),
		cmocka_unit_test(many_files_need_few_descriptors),
		cmocka_unit_test(hashes_are_parsed_strictly),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_all, close_all);
}
