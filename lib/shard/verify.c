/* Verifying: every byte of a shard set against its manifest. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "shard/private.h"

typedef const struct moe_manifest_expert *row;

struct check {
	const char *dir;
	const struct moe_manifest *man;
	int device;               /* or MOE_BASE, MOE_ALL */
	bool with_base;           /* look at the base too */
	struct moe_map **maps;    /* [files] */
	struct moe_flow *flows;   /* [files] */
	struct moe_hash *files;   /* [files] as found */
	struct moe_hash *experts; /* [experts] as found, in the manifest's order */
	row *rows;                /* [experts] by file and offset */
	struct moe_extent *v;     /* [2 experts + files] all flows' extents */
};

/* Is file i to be looked at? */
static bool wanted(const struct check *c, int i)
{
	int device = c->man->files[i].device;

	return c->device == MOE_ALL || device == c->device || (device == MOE_BASE && c->with_base);
}

static int by_offset(const void *a, const void *b)
{
	row x = *(const row *)a, y = *(const row *)b;

	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	return (x->offset > y->offset) - (x->offset < y->offset);
}

static void add_range(struct moe_flow *f, const struct moe_map *map, uint64_t end, struct moe_hash *sum)
{
	moe_flow_add(f, (struct moe_extent){.data = map->data + f->bytes, .map = map, .bytes = end - f->bytes, .sum = sum});
}

/* The file as a flow: experts, and what lies between them.  rows[0..n) are those of this file. */
static int make_flow(struct check *c, int file, const row *rows, size_t n, struct moe_err *e)
{
	const struct moe_manifest_file *f = &c->man->files[file];
	struct moe_flow *flow = &c->flows[file];
	int rc = moe_data_map(c->dir, f, &c->maps[file], e);

	if (rc)
		return rc;
	flow->whole = &c->files[file];
	for (size_t i = 0; i < n; i++) {
		if (rows[i]->offset < flow->bytes)
			return moe_fail(e, MOE_E_INPUT, "%s: the manifest lets experts overlap (layer %d, expert %d)", f->name,
			                rows[i]->layer, rows[i]->expert);
		add_range(flow, c->maps[file], rows[i]->offset, NULL);
		add_range(flow, c->maps[file], rows[i]->offset + rows[i]->bytes, &c->experts[rows[i] - c->man->experts]);
	}
	add_range(flow, c->maps[file], f->bytes, NULL);
	return 0;
}

static size_t rows_of(const struct check *c, int file, size_t from)
{
	size_t n = 0;

	while (from + n < (size_t)c->man->n_experts && c->rows[from + n]->file == file)
		n++;
	return n;
}

static int make_flows(struct check *c, struct moe_err *e)
{
	size_t from = 0;
	struct moe_extent *v = c->v;
	int rc = 0;

	for (int i = 0; i < c->man->n_experts; i++)
		c->rows[i] = &c->man->experts[i];
	qsort(c->rows, (size_t)c->man->n_experts, sizeof *c->rows, by_offset);
	for (int i = 0; i < c->man->n_files && rc == 0; i++) {
		size_t n = rows_of(c, i, from);

		c->flows[i].v = v;
		if (wanted(c, i))
			rc = make_flow(c, i, c->rows + from, n, e);
		from += n;
		v += 2 * n + 1;
	}
	return rc;
}

static bool differs(const struct moe_hash *a, const struct moe_hash *b)
{
	return strcmp(a->hex, b->hex) != 0;
}

/* The first damage: in a file's experts by their place, else anywhere in it. */
static int compare(const struct check *c, struct moe_err *e)
{
	size_t from = 0;

	for (int i = 0; i < c->man->n_files; i++) {
		const struct moe_manifest_file *f = &c->man->files[i];
		size_t n = rows_of(c, i, from);

		for (size_t k = from; wanted(c, i) && k < from + n; k++)
			if (differs(&c->experts[c->rows[k] - c->man->experts], &c->rows[k]->hash))
				return moe_fail(e, MOE_E_SUM, "%s: checksum differs (layer %d, expert %d)", f->name, c->rows[k]->layer,
				                c->rows[k]->expert);
		if (wanted(c, i) && differs(&c->files[i], &f->hash))
			return moe_fail(e, MOE_E_SUM, "%s: checksum differs", f->name);
		from += n;
	}
	return 0;
}

static int check_maps(const struct check *c, struct moe_err *e)
{
	int rc = 0;

	for (int i = 0; i < c->man->n_files && rc == 0; i++)
		rc = c->maps[i] ? moe_map_check(c->maps[i], e) : 0;
	return rc;
}

static void check_free(struct check *c)
{
	for (int i = 0; c->maps && i < c->man->n_files; i++)
		moe_map_close(c->maps[i]);
	free(c->maps);
	free(c->flows);
	free(c->files);
	free(c->experts);
	free(c->rows);
	free(c->v);
}

static int verify_data(const char *dir, const struct moe_manifest *man, int device, bool with_base,
                       const struct moe_shard_options *o, struct moe_err *e)
{
	size_t files = (size_t)man->n_files, experts = (size_t)man->n_experts;
	struct check c = {.dir = dir, .man = man, .device = device, .with_base = with_base};
	int rc = MOE_E_NOMEM;

	c.maps = moe_calloc(files, sizeof *c.maps, "file list", e);
	c.flows = moe_calloc(files, sizeof *c.flows, "file list", e);
	c.files = moe_calloc(files, sizeof *c.files, "file list", e);
	c.experts = moe_calloc(experts, sizeof *c.experts, "expert list", e);
	c.rows = moe_calloc(experts, sizeof *c.rows, "expert list", e);
	c.v = moe_calloc(2 * experts + files, sizeof *c.v, "expert list", e);
	if (c.maps && c.flows && c.files && c.experts && c.rows && c.v)
		rc = make_flows(&c, e);
	rc = rc ? rc : moe_flows_run(c.flows, files, o, e);
	rc = rc ? rc : check_maps(&c, e);
	rc = rc ? rc : compare(&c, e);
	check_free(&c);
	return rc;
}

/* One row of "copied": is the file in the folder the same? */
static int verify_copy(const struct moe_json *o, const struct moe_copied_set *found, struct moe_err *e)
{
	const char *name = NULL, *sum = NULL;
	int rc = moe_json_need_str(o, "name", true, &name, "copied", e);

	rc = rc ? rc : moe_json_need_str(o, "xxh3", true, &sum, "copied", e);
	if (rc)
		return rc;
	for (int i = 0; i < found->n; i++)
		if (strcmp(found->v[i].name, name) == 0)
			return strcmp(found->v[i].hash.hex, sum) == 0 ? 0 : moe_fail(e, MOE_E_SUM, "%s: checksum differs", name);
	return moe_fail(e, MOE_E_MISSING, "%s: missing", name);
}

static int verify_copied(const char *dir, const struct moe_json *json, struct moe_err *e)
{
	const struct moe_json *list = moe_json_get(json, "copied");
	struct moe_copied_set found;
	int rc = moe_copied_read(dir, NULL, 0, &found, e);

	if (rc)
		return rc;
	for (size_t i = 0; i < moe_json_count(list) && rc == 0; i++)
		rc = verify_copy(moe_json_at(list, i), &found, e);
	moe_copied_free(&found);
	return rc;
}

static int check_device(const char *dir, const struct moe_manifest *man, int device, struct moe_err *e)
{
	if (device == MOE_ALL)
		return 0;
	for (int i = 0; i < man->n_files; i++)
		if (man->files[i].device == device)
			return 0;
	return moe_fail(e, MOE_E_RANGE, "%s: the set has no file of device %d", dir, device);
}

int moe_shard_verify(const char *dir, int device, const struct moe_shard_options *o, struct moe_err *e)
{
	struct moe_json *json = NULL;
	struct moe_manifest man = {0};
	struct moe_model m = {0};
	int rc;

	if (!moe_is_shards(dir))
		return moe_fail(e, MOE_E_MISSING, "%s: not a shard set (no " MOE_MANIFEST_NAME ")", dir);
	rc = moe_model_open(dir, &m, e);
	rc = rc ? rc : moe_manifest_read(dir, &m, &man, &json, e);
	rc = rc ? rc : check_device(dir, &man, device, e);
	rc = rc ? rc : verify_copied(dir, json, e);
	rc = rc ? rc : verify_data(dir, &man, device, true, o, e); /* all that a device's host needs */
	moe_json_free(json);
	moe_manifest_free(&man);
	moe_model_free(&m);
	return rc;
}

int moe_source_verify(const struct moe_source *s, int device, const struct moe_shard_options *o, struct moe_err *e)
{
	int rc;

	if (!s->sharded)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: has no checksums to verify, as a shard set has", s->path);
	rc = check_device(s->path, &s->manifest, device, e);
	return rc ? rc : verify_data(s->path, &s->manifest, device, false, o, e);
}
