/* Shard sets as sources: which files are opened, what is refused, what a failure leaves. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "shard/private.h"

#define SPEC "synth:tiny-qwen2-moe"

static char dir[] = "/tmp/moe-shard-set-XXXXXX";

static char *in_dir(const char *name)
{
	static char buf[8][256];
	static int i;

	snprintf(buf[i = (i + 1) % 8], sizeof buf[0], "%s/%s", dir, name);
	return buf[i];
}

static void clear(const char *name)
{
	char command[300];

	snprintf(command, sizeof command, "rm -rf '%s'", in_dir(name));
	assert_int_equal(system(command), 0);
}

static int entries(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;

	assert_non_null(d);
	for (struct dirent *x; (x = readdir(d));)
		n += x->d_name[0] != '.';
	closedir(d);
	return n;
}

/* Cut `from` over `devices` devices into dir/name; returns what moe_shard_write does. */
static int cut(const char *from, int devices, const char *name, const struct moe_shard_options *o, struct moe_err *e)
{
	struct moe_shard_report report;
	const struct moe_checkpoint *c;
	struct moe_placement p;
	struct moe_source *s;
	int rc;

	assert_int_equal(moe_source_open(from, &s, NULL), 0);
	assert_int_equal(moe_source_whole(s, &c, NULL), 0);
	assert_int_equal(moe_place_round_robin(&s->model, devices, &p, NULL), 0);
	rc = moe_shard_write(c, &p, o, in_dir(name), &report, e);
	moe_placement_free(&p);
	moe_source_close(s);
	return rc;
}

static struct moe_source *open_set(const char *name)
{
	struct moe_source *s = NULL;
	struct moe_err e = MOE_ERR_INIT;

	if (moe_source_open(in_dir(name), &s, &e))
		fail_msg("%s", e.msg);
	return s;
}

static char *file_of(const struct moe_source *s, int device)
{
	static char path[512];

	for (int i = 0; i < s->manifest.n_files; i++)
		if (s->manifest.files[i].device == device)
			snprintf(path, sizeof path, "%s/%s", s->path, s->manifest.files[i].name);
	return path;
}

static void only_the_needed_files_are_opened(void **state)
{
	struct moe_tensors *t;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_source *s;

	(void)state;
	assert_int_equal(cut(SPEC, 3, "part", NULL, NULL), 0);
	s = open_set("part");
	unlink(file_of(s, MOE_BASE));
	unlink(file_of(s, 0));
	moe_source_close(s);
	s = open_set("part");
	assert_int_equal(moe_source_tensors(s, 1, &t, NULL), 0);
	for (int i = 0; i < s->manifest.n_experts; i++) {
		const struct moe_manifest_expert *x = &s->manifest.experts[i];
		struct moe_expert_weights w;
		bool mine = s->manifest.files[x->file].device == 1;

		assert_int_equal(moe_bind_expert(t, &s->model, x->layer, x->expert, &w, NULL), mine ? 0 : MOE_E_MISSING);
	}
	moe_tensors_free(t);
	assert_int_equal(moe_source_tensors(s, MOE_BASE, &t, &e), MOE_E_MISSING);
	assert_int_equal(moe_source_tensors(s, MOE_ALL, &t, &e), MOE_E_MISSING);
	assert_int_equal(moe_source_tensors(s, 3, &t, &e), MOE_E_RANGE);
	moe_source_close(s);
	clear("part");
}

static void every_source_has_the_same_tensors(void **state)
{
	static const char *const specs[] = {SPEC, "synth:tiny-mixtral,fused"};

	(void)state;
	for (size_t k = 0; k < 2; k++) {
		struct moe_source *a, *b;
		struct moe_tensors *ta, *tb, *base;
		struct moe_hash ha, hb;
		struct moe_expert_weights x, y;

		assert_int_equal(cut(specs[k], 2, "two", NULL, NULL), 0);
		assert_int_equal(moe_source_open(specs[k], &a, NULL), 0);
		b = open_set("two");
		assert_int_equal(moe_source_fingerprint(a, &ha, NULL), 0);
		assert_int_equal(moe_source_fingerprint(b, &hb, NULL), 0);
		assert_string_equal(ha.hex, hb.hex);
		assert_int_equal(moe_source_tensors(a, 0, &ta, NULL), 0);
		assert_int_equal(moe_source_tensors(b, MOE_ALL, &tb, NULL), 0);
		for (int l = 0; l < a->model.n_layers; l++)
			for (int e = 0; e < a->model.layers[l].ffn.experts; e++) {
				assert_int_equal(moe_bind_expert(ta, &a->model, l, e, &x, NULL), 0);
				assert_int_equal(moe_bind_expert(tb, &b->model, l, e, &y, NULL), 0);
				assert_memory_equal(x.down.data, y.down.data, moe_matrix_bytes(&x.down));
				assert_memory_equal(x.up.data, y.up.data, moe_matrix_bytes(&x.up));
				assert_true(moe_source_expert_bytes(a, l, e) == moe_source_expert_bytes(b, l, e));
			}
		assert_int_equal(moe_source_tensors(a, MOE_BASE, &base, NULL), 0);
		assert_int_equal(moe_tensors_count(base) + moe_tensors_count(ta), moe_tensors_count(a->checkpoint->tensors));
		moe_tensors_free(base);
		moe_tensors_free(ta);
		moe_tensors_free(tb);
		moe_source_close(a);
		moe_source_close(b);
		clear("two");
	}
}

/* Two files of one size change their contents: every sum in the manifest is false, but sizes and names are right. */
static void a_file_with_other_experts_is_refused(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_tensors *t;
	struct moe_source *s;
	char *path, *spare = in_dir("spare");

	(void)state;
	assert_int_equal(cut("synth:tiny-olmoe", 2, "swap", NULL, NULL), 0);
	s = open_set("swap");
	path = strdup(file_of(s, 0));
	assert_int_equal(rename(path, spare), 0);
	assert_int_equal(rename(file_of(s, 1), path), 0);
	assert_int_equal(rename(spare, file_of(s, 1)), 0);
	assert_int_equal(moe_source_tensors(s, 0, &t, &e), MOE_E_INPUT);
	free(path);
	moe_source_close(s);
	clear("swap");
}

static void a_merge_into_several_files_is_a_checkpoint(void **state)
{
	struct moe_shard_options o = {.file_bytes = 50000};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_source *s, *set;
	struct moe_hash hash;

	(void)state;
	assert_int_equal(cut("synth:tiny-qwen2-moe,fused", 2, "set", NULL, NULL), 0);
	set = open_set("set");
	if (moe_shard_merge(in_dir("set"), in_dir("merged"), &o, &e) || moe_source_open(in_dir("merged"), &s, &e))
		fail_msg("%s", e.msg);
	assert_true(moe_exists(in_dir("merged/model.safetensors.index.json")));
	assert_true(entries(in_dir("merged")) > 4);
	assert_int_equal(moe_source_fingerprint(s, &hash, NULL), 0);
	assert_string_equal(hash.hex, set->manifest.fingerprint.hex);
	moe_source_close(s);
	moe_source_close(set);
	clear("set");
	clear("merged");
}

struct cutter {
	char path[300];
	int calls, cancel_at;
};

/* Cuts the source short while it is being read. */
static bool cut_source(void *ctx, uint64_t done, uint64_t total)
{
	struct cutter *c = ctx;

	(void)done;
	(void)total;
	if (c->path[0] && c->calls == 0)
		assert_int_equal(truncate(c->path, 1 << 20), 0);
	return ++c->calls != c->cancel_at;
}

/* A checkpoint of 12 MiB: a few chunks. */
static void make_checkpoint(const char *name)
{
	assert_int_equal(cut("synth:tiny-mixtral,layers=100", 1, "tmp", NULL, NULL), 0);
	assert_int_equal(moe_shard_merge(in_dir("tmp"), in_dir(name), NULL, NULL), 0);
	clear("tmp");
}

static void a_source_cut_short_is_never_a_set_of_zeros(void **state)
{
	struct cutter c = {.calls = 0};
	struct moe_shard_options o = {.threads = 1, .tick = cut_source, .ctx = &c};
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	make_checkpoint("ck");
	snprintf(c.path, sizeof c.path, "%s/model.safetensors", in_dir("ck"));
	assert_int_equal(cut(in_dir("ck"), 2, "out", &o, &e), MOE_E_IO);
	assert_non_null(strstr(e.msg, "model.safetensors"));
	assert_non_null(strstr(e.msg, "cut short"));
	assert_int_equal(entries(dir), 1);
	clear("ck");
}

static void stopping_leaves_what_was_there(void **state)
{
	struct cutter c = {.cancel_at = 1};
	struct moe_shard_options o = {.threads = 2, .tick = cut_source, .ctx = &c};
	struct moe_err e = MOE_ERR_INIT;
	int before;

	(void)state;
	assert_int_equal(cut(SPEC, 2, "out", &o, &e), MOE_E_CANCELLED);
	assert_int_equal(entries(dir), 0);
	assert_int_equal(cut(SPEC, 2, "out", NULL, NULL), 0);
	before = entries(in_dir("out"));
	c.calls = 0;
	assert_int_equal(cut(SPEC, 3, "out", &o, &e), MOE_E_CANCELLED);
	assert_int_equal(entries(in_dir("out")), before);
	assert_int_equal(moe_shard_verify(in_dir("out"), MOE_ALL, NULL, NULL), 0);
	c.calls = 0;
	assert_int_equal(moe_shard_verify(in_dir("out"), MOE_ALL, &o, &e), MOE_E_CANCELLED);
	c.calls = 0;
	assert_int_equal(moe_shard_merge(in_dir("out"), in_dir("merged"), &o, &e), MOE_E_CANCELLED);
	assert_int_equal(entries(dir), 1);
	clear("out");
}

static void another_fingerprint_than_expected_is_not_written(void **state)
{
	struct moe_hash other = {"00000000000000000000000000000000"};
	struct moe_shard_options o = {.expect = &other};
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	assert_int_equal(cut(SPEC, 2, "out", &o, &e), MOE_E_SUM);
	assert_int_equal(entries(dir), 0);
}

static void the_epoch_counts_or_is_given(void **state)
{
	struct moe_shard_options o = {.epoch = 7};
	struct moe_source *s;

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(cut(SPEC, 2, "out", i == 1 ? &o : NULL, NULL), 0);
		s = open_set("out");
		assert_true(s->epoch == (i == 0 ? 1u : i == 1 ? 7u : 8u));
		moe_source_close(s);
	}
	clear("out");
}

/* The sums and the order that the fingerprint's description promises, by hand. */
static void the_fingerprint_is_as_documented(void **state)
{
	struct moe_buf text = MOE_BUF_INIT;
	struct moe_pieces p;
	struct moe_source *s;
	struct moe_hash got, want;

	(void)state;
	assert_int_equal(moe_source_open("synth:tiny-mixtral,fused", &s, NULL), 0);
	assert_int_equal(moe_source_fingerprint(s, &got, NULL), 0);
	assert_int_equal(moe_pieces_of(&s->model, s->checkpoint->tensors, &p, NULL), 0);
	for (size_t done = 0; done < p.n; done++) { /* selection sort: the next name each time */
		size_t next = p.n;
		char line[512];
		int len;

		for (size_t i = 0; i < p.n; i++)
			if (p.v[i].view.data && (next == p.n || strcmp(p.v[i].name, p.v[next].name) < 0))
				next = i;
		moe_hash_text(XXH3_128bits(p.v[next].view.data, p.v[next].view.bytes), &want);
		len = snprintf(line, sizeof line, "%s BF16 %lld", p.v[next].name, (long long)p.v[next].view.shape[0]);
		if (p.v[next].view.ndim == 2)
			len += snprintf(line + len, sizeof line - (size_t)len, "x%lld", (long long)p.v[next].view.shape[1]);
		len += snprintf(line + len, sizeof line - (size_t)len, " %s\n", want.hex);
		assert_int_equal(moe_buf_add(&text, line, (size_t)len, NULL), 0);
		p.v[next].view.data = NULL;
	}
	moe_hash_text(XXH3_128bits(text.data, text.len), &want);
	assert_string_equal(got.hex, want.hex);
	assert_non_null(strstr(text.data, "gate_up_proj.0 BF16"));
	moe_buf_free(&text);
	moe_pieces_free(&p);
	moe_source_close(s);
}

static void names_that_are_nothing(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_source *s;

	(void)state;
	assert_int_not_equal(moe_source_open("", &s, &e), 0);
	assert_int_equal(moe_source_open(in_dir("none"), &s, &e), MOE_E_MISSING);
	assert_int_not_equal(moe_source_open("synth:", &s, &e), 0);
	assert_int_not_equal(moe_source_open(dir, &s, &e), 0);
}

static int open_all(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int close_all(void **state)
{
	(void)state;
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_needed_files_are_opened),
		cmocka_unit_test(every_source_has_the_same_tensors),
		cmocka_unit_test(a_file_with_other_experts_is_refused),
		cmocka_unit_test(a_merge_into_several_files_is_a_checkpoint),
		cmocka_unit_test(a_source_cut_short_is_never_a_set_of_zeros),
		cmocka_unit_test(stopping_leaves_what_was_there),
		cmocka_unit_test(another_fingerprint_than_expected_is_not_written),
		cmocka_unit_test(the_epoch_counts_or_is_given),
		cmocka_unit_test(the_fingerprint_is_as_documented),
		cmocka_unit_test(names_that_are_nothing),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_all, close_all);
}
