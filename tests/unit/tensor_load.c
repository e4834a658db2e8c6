/* Weights from files into memory: the same bytes in every way, all of them there, and errors that name the file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/team.h"
#include "tensor/tensor.h"

#define BYTES ((size_t)40 << 20) /* a few pieces, the last one cut */
#define HEAD 1000                /* what belongs to no tensor, and leaves the first one unaligned */
#define TENSORS 3

/* Sanitizers make mlock do nothing. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define SANITIZED true
#else
#define SANITIZED false
#endif

static const size_t ends[TENSORS + 1] = {HEAD, HEAD + 12345, (size_t)17 << 20, BYTES - 77};

struct rig {
	char path[64];
	struct moe_team *team;
	struct moe_tensors *set;
	struct moe_map *map;
};

static unsigned char byte_at(size_t i)
{
	return (unsigned char)(i * 2654435761u >> 13);
}

static void fill(int fd)
{
	unsigned char *bytes = malloc(BYTES);

	assert_non_null(bytes);
	for (size_t i = 0; i < BYTES; i++)
		bytes[i] = byte_at(i);
	assert_int_equal(write(fd, bytes, BYTES), BYTES);
	free(bytes);
}

static int setup(void **state)
{
	static struct rig r;
	int fd;

	strcpy(r.path, "/tmp/moe-tensor-load-XXXXXX");
	fd = mkstemp(r.path);
	assert_true(fd >= 0);
	fill(fd);
	close(fd);
	assert_int_equal(moe_team_new(3, &r.team, NULL), 0);
	assert_int_equal(moe_tensors_new(&r.set, NULL), 0);
	assert_int_equal(moe_map_open(r.path, &r.map, NULL), 0);
	assert_int_equal(moe_tensors_own_map(r.set, r.map, NULL), 0);
	for (int i = TENSORS - 1; i >= 0; i--) {
		char name[2] = {(char)('a' + i), 0};
		struct moe_tensor t = {.name = name, .dtype = MOE_U8, .ndim = 1, .data = r.map->data + ends[i],
		                       .bytes = ends[i + 1] - ends[i], .map = r.map};

		t.shape[0] = (int64_t)t.bytes;
		assert_int_equal(moe_tensors_add(r.set, &t, NULL), 0);
	}
	*state = &r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	moe_tensors_free(r->set);
	moe_team_free(r->team);
	unlink(r->path);
	return 0;
}

static void assert_bytes(const struct rig *r)
{
	for (int i = 0; i < TENSORS; i++) {
		char name[2] = {(char)('a' + i), 0};
		const struct moe_tensor *t = moe_tensors_find(r->set, name);

		for (size_t k = 0; k < t->bytes; k++)
			if (t->data[k] != byte_at(ends[i] + k))
				fail_msg("%s: byte %zu differs", name, k);
	}
	assert_int_equal(moe_tensors_check(r->set, NULL), 0);
}

/* A number in kB after `key` in a file of /proc, in the part that begins with `from` (NULL: all of it). */
static long kib_of(const char *file, const char *from, const char *key)
{
	FILE *f = fopen(file, "r");
	char line[512];
	bool in = from == NULL;
	long kib = -1;

	assert_non_null(f);
	while (kib < 0 && fgets(line, sizeof line, f)) {
		in = in || strstr(line, from);
		if (in && strncmp(line, key, strlen(key)) == 0)
			kib = strtol(line + strlen(key), NULL, 10);
	}
	fclose(f);
	return kib;
}

static void words(void **state)
{
	enum moe_load how = MOE_LOAD_COPY;

	(void)state;
	assert_true(moe_load_parse("map", &how) && how == MOE_LOAD_MAP);
	assert_true(moe_load_parse("read", &how) && how == MOE_LOAD_READ);
	assert_true(moe_load_parse("lock", &how) && how == MOE_LOAD_LOCK);
	assert_true(moe_load_parse("copy", &how) && how == MOE_LOAD_COPY);
	assert_false(moe_load_parse("", &how) || moe_load_parse("Map", &how) || moe_load_parse("maps", &how));
	assert_string_equal(moe_load_text(MOE_LOAD_LOCK), "locked");
}

struct seen {
	int calls, stop_at;
	uint64_t done, total;
};

static bool look(void *ctx, uint64_t done, uint64_t total)
{
	struct seen *s = ctx;

	assert_true(done > s->done && done <= total);
	s->done = done;
	s->total = total;
	return ++s->calls != s->stop_at;
}

static void mapped_is_left_alone(void **state)
{
	struct rig *r = *state;
	struct seen s = {0};

	assert_int_equal(moe_tensors_load(r->set, MOE_LOAD_MAP, r->team, &(struct moe_load_tick){look, &s}, NULL), 0);
	assert_int_equal(s.calls, 0);
	assert_int_equal(kib_of("/proc/self/smaps", r->path, "Rss:"), 0);
	assert_bytes(*state);
}

static void read_is_there(void **state)
{
	struct rig *r = *state;
	struct seen s = {0};

	assert_int_equal(moe_tensors_load(r->set, MOE_LOAD_READ, r->team, &(struct moe_load_tick){look, &s}, NULL), 0);
	assert_true(s.calls > 0 && s.done == s.total && s.total >= BYTES - HEAD - 77);
	assert_true(kib_of("/proc/self/smaps", r->path, "Rss:") >= (long)(BYTES >> 10));
	assert_bytes(r);
}

static void copy_needs_no_file(void **state)
{
	struct rig *r = *state;

	assert_int_equal(moe_tensors_load(r->set, MOE_LOAD_COPY, r->team, NULL, NULL), 0);
	for (size_t i = 0; i < TENSORS; i++) {
		const struct moe_tensor *t = moe_tensors_at(r->set, i);

		assert_null(t->map);
		assert_true(t->data + t->bytes <= r->map->data || t->data >= r->map->data + r->map->size);
		assert_int_equal((uintptr_t)t->data % 64, (ends[TENSORS - 1 - i]) % 64); /* as aligned as in the file */
	}
	assert_int_equal(truncate(r->path, 0), 0);
	assert_bytes(r);
	assert_int_equal(moe_tensors_load(r->set, MOE_LOAD_COPY, r->team, NULL, NULL), 0); /* nothing is mapped any more */
	assert_bytes(r);
}

static void lock_stays_or_is_refused(void **state)
{
	struct rig *r = *state;
	struct rlimit limit = {0, 0};
	struct moe_err e = MOE_ERR_INIT;
	int rc;

	setrlimit(RLIMIT_MEMLOCK, &limit);
	rc = moe_tensors_load(r->set, MOE_LOAD_LOCK, r->team, NULL, &e);
	if (rc == 0 && !SANITIZED) { /* we are privileged */
		assert_true(kib_of("/proc/self/status", NULL, "VmLck:") >= (long)((BYTES - HEAD - 77) >> 10));
	} else if (rc) {
		assert_non_null(strstr(e.msg, " of weights cannot be locked in memory (the limit, ulimit -l, is 0 B)"));
	}
	assert_bytes(r);
}

/* Mapped within the test: cmocka's handler of SIGBUS, which every test begins with, would come after the mapping's. */
static void a_cut_file_is_named(void **state)
{
	static const enum moe_load ways[] = {MOE_LOAD_READ, MOE_LOAD_COPY};

	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		struct moe_err e = MOE_ERR_INIT;
		struct rig *r;

		setup(state);
		r = *state;
		assert_int_equal(truncate(r->path, (off_t)BYTES / 2), 0);
		assert_int_equal(moe_tensors_load(r->set, ways[i], r->team, NULL, &e), MOE_E_IO);
		assert_non_null(strstr(e.msg, r->path));
		assert_non_null(strstr(e.msg, "cut short"));
		teardown(state);
	}
}

static void whoever_watches_may_stop_it(void **state)
{
	struct rig *r = *state;
	struct seen s = {.stop_at = 1};

	assert_int_equal(moe_tensors_load(r->set, MOE_LOAD_COPY, r->team, &(struct moe_load_tick){look, &s}, NULL), MOE_E_CANCELLED);
	assert_int_equal(s.calls, 1);
	assert_bytes(r);
}

static void nothing_is_loaded_at_once(void **state)
{
	struct rig *r = *state;
	struct moe_tensors *none;

	assert_int_equal(moe_tensors_new(&none, NULL), 0);
	for (int how = MOE_LOAD_MAP; how <= MOE_LOAD_COPY; how++)
		assert_int_equal(moe_tensors_load(none, (enum moe_load)how, r->team, NULL, NULL), 0);
	moe_tensors_free(none);
}

int main(void)
{
#define RIGGED(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words),
		RIGGED(mapped_is_left_alone),
		RIGGED(read_is_there),
		RIGGED(copy_needs_no_file),
		cmocka_unit_test(a_cut_file_is_named),
		RIGGED(whoever_watches_may_stop_it),
		RIGGED(nothing_is_loaded_at_once),
		RIGGED(lock_stays_or_is_refused), /* last: the limit stays */
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("tensor_load", tests, NULL, NULL);
}
