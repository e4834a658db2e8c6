/* Holds: what a new epoch shares with the one before, what it is refused for, and what is given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/mem.h"
#include "run/run.h"

#define SPEC "synth:tiny-mixtral,seed=5,dtype=f32"

static char dir[] = "/tmp/moe-hold-XXXXXX";

static void must(int rc, const struct moe_err *e)
{
	if (rc)
		fail_msg("%s", e->msg);
}

/* ---- sets ---- */

static int probe(void *ctx, const struct moe_model *m, int layer, const struct moe_expert_weights *w, uint64_t *out, struct moe_err *e)
{
	return moe_probe_expert(ctx, m, layer, w, out, e);
}

/* All experts but the last of each layer on device 0, or all but the first; a device may have both ends. */
static int most_of_them(void *ctx, int layer, int expert, int *ids, int cap)
{
	const struct moe_source *s = ctx;
	int n = s->model.layers[layer].ffn.experts, spared = s->epoch % 2 ? 0 : n - 1;

	(void)cap;
	ids[0] = expert == spared;
	return 1;
}

struct rig {
	struct moe_team *team;
	struct moe_backend *b;
	struct moe_source *whole;
	struct moe_held_config c;
	char fingerprint[33];
	char set[64];
	struct moe_placement p;
};

/* The rig's set once more, in the placement of an even or odd epoch. */
static void write_set(struct rig *r, const char *from, bool probes)
{
	char numerics[MOE_NUMERICS_TEXT];
	struct moe_shard_probe how = {.numerics = numerics, .fn = probe, .ctx = r->b};
	struct moe_shard_options o = MOE_SHARD_OPTIONS_INIT;
	const struct moe_checkpoint *c;
	struct moe_shard_report report;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_source *s;

	moe_numerics_experts_id(&(struct moe_numerics)MOE_NUMERICS_INIT, numerics);
	o.threads = 1;
	o.probe = probes ? &how : NULL;
	must(moe_source_open(from, &s, &e), &e);
	must(moe_source_whole(s, &c, &e), &e);
	must(moe_placement_make(&s->model, 2, most_of_them, s, &r->p, &e), &e);
	must(moe_shard_write(c, &r->p, &o, r->set, &report, &e), &e);
	moe_placement_free(&r->p);
	moe_source_close(s);
}

static struct moe_source *open_set(const char *path)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_source *s;

	must(moe_source_open(path, &s, &e), &e);
	return s;
}

static void rig_open(struct rig *r, const char *name, enum moe_load weights)
{
	static const struct moe_numerics numerics = MOE_NUMERICS_INIT;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_source *s;
	struct moe_hash hash;

	*r = (struct rig){0};
	snprintf(r->set, sizeof r->set, "%s/%s", dir, name);
	must(moe_team_new(1, &r->team, &e), &e);
	must(moe_backend_cpu(r->team, &numerics, &r->b, &e), &e);
	write_set(r, SPEC, true);
	r->whole = open_set(SPEC);
	s = open_set(r->set);
	must(moe_source_fingerprint(s, &hash, &e), &e);
	memcpy(r->fingerprint, hash.hex, sizeof r->fingerprint);
	moe_source_close(s);
	r->c = (struct moe_held_config){.model = &r->whole->model, .backend = r->b, .fingerprint = r->fingerprint, .max_rows = 4,
	                                .weights = weights, .team = r->team};
}

static void rig_close(struct rig *r)
{
	moe_source_close(r->whole);
	r->b->ops->close(r->b);
	moe_team_free(r->team);
}

/* Rank 0's experts as the set has them now, checked if there are some before. */
static int hold(struct rig *r, const uint8_t *want, struct moe_held *before, struct moe_held **out, struct moe_held_report *report,
                struct moe_err *e)
{
	struct moe_source *s;
	int rc = moe_source_open(r->set, &s, e);

	if (rc)
		return rc;
	r->c.check = before != NULL;
	rc = moe_held_open(&r->c, s, want, before, out, report, e);
	moe_source_close(s);
	return rc;
}

static uint64_t probe_of(struct rig *r, const struct moe_held *h, int layer, int expert)
{
	struct moe_expert_weights w;
	struct moe_err e = MOE_ERR_INIT;
	uint64_t probed;

	assert_true(moe_held_expert(h, layer, expert, &w));
	must(moe_probe_expert(r->b, &r->whole->model, layer, &w, &probed, &e), &e);
	return probed;
}

/* Every expert that h says it has computes what it does in the model itself. */
static void assert_right(struct rig *r, const struct moe_held *h, int experts)
{
	const struct moe_model *m = &r->whole->model;
	int wide = moe_model_max_experts(m), n = 0;

	for (int l = 0; l < m->n_layers; l++)
		for (int x = 0; x < m->layers[l].ffn.experts; x++) {
			struct moe_expert_weights w;
			uint64_t right;

			if (!moe_held_has(h)[l * wide + x]) {
				assert_false(moe_held_expert(h, l, x, &w));
				continue;
			}
			assert_int_equal(moe_bind_expert(r->whole->checkpoint->tensors, m, l, x, &w, NULL), 0);
			assert_int_equal(moe_probe_expert(r->b, m, l, &w, &right, NULL), 0);
			assert_true(probe_of(r, h, l, x) == right);
			n++;
		}
	assert_int_equal(n, experts);
	assert_int_equal(moe_held_count(h), experts);
}

static const void *data_of(const struct moe_held *h, int layer, int expert)
{
	struct moe_expert_weights w;

	return moe_held_expert(h, layer, expert, &w) ? w.down.data : NULL;
}

/* ---- what is shared ---- */

static void new_epoch_shares_what_stays(void **state)
{
	static const enum moe_load ways[] = {MOE_LOAD_MAP, MOE_LOAD_READ, MOE_LOAD_COPY};

	(void)state;
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		struct moe_err e = MOE_ERR_INIT;
		struct moe_held *a, *b;
		struct moe_held_report report;
		struct rig r;
		int layers, n;
		char name[16];

		snprintf(name, sizeof name, "share%zu", i);
		rig_open(&r, name, ways[i]);
		layers = r.whole->model.n_layers;
		n = r.whole->model.layers[0].ffn.experts;
		must(hold(&r, NULL, NULL, &a, &report, &e), &e);
		assert_int_equal(report.loaded, layers * (n - 1));
		assert_right(&r, a, layers * (n - 1));
		write_set(&r, r.set, true);
		must(hold(&r, NULL, a, &b, &report, &e), &e);
		assert_int_equal(moe_held_epoch(b), 2);
		assert_int_equal(report.kept, layers * (n - 2));
		assert_int_equal(report.loaded, layers);
		assert_true(report.probed);
		for (int l = 0; l < layers; l++) {
			assert_null(data_of(b, l, 0));
			for (int x = 1; x < n - 1; x++)
				assert_ptr_equal(data_of(a, l, x), data_of(b, l, x));
		}
		moe_held_release(a);
		assert_right(&r, b, layers * (n - 1));
		moe_held_release(b);
		rig_close(&r);
	}
}

/* Copies of experts that nobody has any more: their pages are gone, while their neighbours' stay. */
static void what_nobody_has_is_given_back(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_expert_weights w;
	struct moe_held *a, *b;
	struct moe_held_report report;
	const unsigned char *gone;
	size_t bytes, zeros = 0;
	struct rig r;

	(void)state;
	rig_open(&r, "back", MOE_LOAD_COPY);
	must(hold(&r, NULL, NULL, &a, &report, &e), &e);
	write_set(&r, r.set, true);
	must(hold(&r, NULL, a, &b, &report, &e), &e);
	assert_true(moe_held_expert(a, 0, 0, &w));
	assert_false(moe_held_expert(b, 0, 0, &w));
	gone = w.down.data;
	bytes = moe_matrix_bytes(&w.down);
	assert_true(bytes > 3 * 4096);
	moe_held_release(a);
	for (size_t i = 4096; i < bytes - 4096; i++)
		zeros += gone[i] == 0;
	assert_int_equal(zeros, bytes - 2 * 4096);
	assert_right(&r, b, moe_held_count(b));
	moe_held_release(b);
	rig_close(&r);
}

/* A device's memory has kept experts once. */
static void devices_share_too(void **state)
{
	struct moe_device_config d = {.device = "cpu", .threads = 1, .numerics = MOE_NUMERICS_INIT};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_backend *device;
	struct moe_device_memory one, two, after;
	struct moe_held *a, *b;
	struct moe_held_report report;
	struct rig r;

	(void)state;
	rig_open(&r, "device", MOE_LOAD_READ);
	must(moe_device_open(&d, &device, &e), &e);
	r.c.backend = device;
	must(hold(&r, NULL, NULL, &a, &report, &e), &e);
	device->ops->memory(device, &one);
	write_set(&r, r.set, true);
	must(hold(&r, NULL, a, &b, &report, &e), &e);
	device->ops->memory(device, &two);
	moe_held_release(a);
	device->ops->memory(device, &after);
	assert_int_equal(after.used, one.used);
	assert_true(two.used - one.used < one.used - report.kept_bytes / 2);
	moe_held_release(b);
	device->ops->memory(device, &after);
	assert_int_equal(after.used, 0);
	device->ops->close(device);
	rig_close(&r);
}

/* A server that stands by takes over what it is told, in the same epoch, and gets more later. */
static void spare_takes_what_is_missing(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_held *none, *some, *more;
	struct moe_held_report report;
	uint8_t want[256] = {0};
	struct rig r;
	int wide;

	(void)state;
	rig_open(&r, "spare", MOE_LOAD_READ);
	wide = moe_model_max_experts(&r.whole->model);
	r.c.rank = MOE_BASE;
	must(hold(&r, NULL, NULL, &none, &report, &e), &e);
	assert_int_equal(moe_held_count(none), 0);
	want[1] = want[wide] = 1;
	must(hold(&r, want, none, &some, &report, &e), &e);
	moe_held_release(none);
	assert_right(&r, some, 2);
	want[wide + 2] = 1;
	must(hold(&r, want, some, &more, &report, &e), &e);
	assert_int_equal(report.kept, 2);
	assert_int_equal(report.loaded, 1);
	assert_ptr_equal(data_of(some, 0, 1), data_of(more, 0, 1));
	moe_held_release(some);
	assert_right(&r, more, 3);
	moe_held_release(more);
	rig_close(&r);
}

/* A rank that is not in the new epoch holds nothing then. */
static void rank_that_is_gone_holds_nothing(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_held *h;
	struct moe_held_report report;
	struct rig r;

	(void)state;
	rig_open(&r, "gone", MOE_LOAD_MAP);
	r.c.rank = 2;
	must(hold(&r, NULL, NULL, &h, &report, &e), &e);
	assert_int_equal(moe_held_count(h), 0);
	moe_held_release(h);
	rig_close(&r);
}

/* ---- what is refused ---- */

static void slurp(const char *path, char **text, size_t *len)
{
	assert_int_equal(moe_read_file(path, (size_t)1 << 30, text, len, NULL), 0);
}

/* The first place of `old` in the manifest becomes `new`, of the same length. */
static void edit_manifest(const struct rig *r, const char *old, const char *new)
{
	char path[128], *json, *at;
	size_t len;

	snprintf(path, sizeof path, "%s/manifest.json", r->set);
	slurp(path, &json, &len);
	at = strstr(json, old);
	assert_non_null(at);
	memcpy(at, new, strlen(new));
	assert_int_equal(moe_write_file(path, json, len, NULL), 0);
	free(json);
}

/* The row of an expert that the new epoch has to load. */
static const struct moe_manifest_expert *loaded_row(const struct moe_source *s, const struct moe_held *before)
{
	int wide = moe_model_max_experts(&s->model);

	for (int x = 0; x < wide; x++)
		if (moe_placement_holds(&s->placement, 0, 1, x) && !moe_held_has(before)[wide + x])
			return moe_source_expert(s, 0, 1, x);
	fail_msg("the new epoch loads nothing");
	return NULL;
}

/* Four bytes of that expert's file; sums: and its sum in the manifest. */
static void write_into(const struct rig *r, const struct moe_held *before, uint32_t v, bool sums)
{
	struct moe_source *s = open_set(r->set);
	const struct moe_manifest_expert *x = loaded_row(s, before);
	XXH128_canonical_t canonical;
	char path[256], hex[33], *bytes;
	size_t len;

	snprintf(path, sizeof path, "%s/%s", r->set, s->manifest.files[x->file].name);
	slurp(path, &bytes, &len);
	memcpy(bytes + x->offset + 64, &v, sizeof v);
	XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes + x->offset, x->bytes));
	for (size_t i = 0; i < 16; i++)
		snprintf(hex + 2 * i, 3, "%02x", canonical.digest[i]);
	if (sums)
		edit_manifest(r, x->hash.hex, hex);
	assert_int_equal(moe_write_file(path, bytes, len, NULL), 0);
	free(bytes);
	moe_source_close(s);
}

static void assert_refused(struct rig *r, struct moe_held *before, int code, const char *words)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_held *h = NULL;
	struct moe_held_report report;

	assert_int_equal(hold(r, NULL, before, &h, &report, &e), code);
	assert_null(h);
	if (!strstr(e.msg, words))
		fail_msg("%s", e.msg);
	assert_right(r, before, moe_held_count(before));
}

static void bad_sets_change_nothing(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_source *s;
	struct moe_held *a;
	struct moe_held_report report;
	char text[64];
	struct rig r;

	(void)state;
	rig_open(&r, "bad", MOE_LOAD_READ);
	must(hold(&r, NULL, NULL, &a, &report, &e), &e);
	write_set(&r, r.set, true);
	s = open_set(r.set);
	snprintf(text, sizeof text, "\"probe\": \"%016llx", (unsigned long long)loaded_row(s, a)->probe);
	moe_source_close(s);
	edit_manifest(&r, text, "\"probe\": \"0123456789abcdef");
	assert_refused(&r, a, MOE_E_INPUT, "its answer to the probe is not what the manifest says");
	edit_manifest(&r, "\"probe\": \"0123456789abcdef", text);
	write_into(&r, a, 0x3f3f3f3f, false);
	assert_refused(&r, a, MOE_E_SUM, "checksum differs (layer 1");
	write_into(&r, a, 0x7fc07fc0, true); /* NaN */
	assert_refused(&r, a, MOE_E_INPUT, "one of its weights is not finite");
	r.c.max_rows = 100000000;
	assert_refused(&r, a, MOE_E_NOMEM, "is available");
	moe_held_release(a);
	rig_close(&r);
}

static void another_model_is_refused(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_held *a;
	struct moe_held_report report;
	struct rig r, other;

	(void)state;
	rig_open(&r, "one", MOE_LOAD_READ);
	rig_open(&other, "two", MOE_LOAD_READ);
	must(hold(&r, NULL, NULL, &a, &report, &e), &e);
	snprintf(r.set, sizeof r.set, "%s/three", dir);
	write_set(&r, "synth:tiny-mixtral,seed=6,dtype=f32", false);
	assert_refused(&r, a, MOE_E_INPUT, "another model");
	moe_held_release(a);
	rig_close(&other);
	rig_close(&r);
}

static void sets_without_probes_are_taken(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_held *a, *b;
	struct moe_held_report report;
	struct rig r;

	(void)state;
	rig_open(&r, "old", MOE_LOAD_READ);
	must(hold(&r, NULL, NULL, &a, &report, &e), &e);
	write_set(&r, r.set, false);
	must(hold(&r, NULL, a, &b, &report, &e), &e);
	assert_false(report.probed);
	assert_true(report.loaded > 0);
	moe_held_release(a);
	moe_held_release(b);
	rig_close(&r);
}

static bool no(void *ctx, uint64_t done, uint64_t total)
{
	(void)ctx, (void)done, (void)total;
	return false;
}

static void loading_can_be_stopped(void **state)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_held *a;
	struct moe_held_report report;
	struct rig r;

	(void)state;
	rig_open(&r, "stop", MOE_LOAD_READ);
	must(hold(&r, NULL, NULL, &a, &report, &e), &e);
	write_set(&r, r.set, true);
	r.c.tick.fn = no;
	assert_refused(&r, a, MOE_E_CANCELLED, "stopped");
	moe_held_release(a);
	rig_close(&r);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[80];

	(void)state;
	snprintf(command, sizeof command, "rm -rf '%s'", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(new_epoch_shares_what_stays),
		cmocka_unit_test(what_nobody_has_is_given_back),
		cmocka_unit_test(devices_share_too),
		cmocka_unit_test(spare_takes_what_is_missing),
		cmocka_unit_test(rank_that_is_gone_holds_nothing),
		cmocka_unit_test(bad_sets_change_nothing),
		cmocka_unit_test(another_model_is_refused),
		cmocka_unit_test(sets_without_probes_are_taken),
		cmocka_unit_test(loading_can_be_stopped),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
