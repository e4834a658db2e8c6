/* Reading manifest.json: nothing in it is believed before it is checked against the model and against itself. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "shard/private.h"

#define MAX_BYTES ((int64_t)1 << 53) /* numbers in JSON are exact up to here */

void moe_manifest_free(struct moe_manifest *m)
{
	for (int i = 0; m->files && i < m->n_files; i++)
		free(m->files[i].name);
	free(m->files);
	free(m->experts);
	moe_placement_free(&m->placement);
	*m = (struct moe_manifest){0};
}

static int read_hash(const struct moe_json *o, const char *key, const char *what, struct moe_hash *out, struct moe_err *e)
{
	const char *text = NULL;
	int rc = moe_json_need_str(o, key, true, &text, what, e);

	if (rc == 0 && !moe_hash_parse(text, out))
		rc = moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is not 32 hexadecimal digits", what, key);
	return rc;
}

/* 16 hexadecimal digits. */
static int read_probe(const struct moe_json *o, const char *what, uint64_t *out, struct moe_err *e)
{
	const char *text = NULL;
	int rc = moe_json_need_str(o, "probe", true, &text, what, e);

	if (rc)
		return rc;
	if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
		return moe_fail(e, MOE_E_INPUT, "%s: \"probe\" is not 16 hexadecimal digits", what);
	*out = strtoull(text, NULL, 16);
	return 0;
}

static int read_int(const struct moe_json *o, const char *key, int64_t lo, int64_t hi, const char *what, int64_t *out,
                    struct moe_err *e)
{
	*out = lo;
	return moe_json_need_int(o, key, true, lo, hi, out, what, e);
}

static int check_model(const struct moe_json *j, const struct moe_model *m, struct moe_err *e)
{
	const struct moe_json *o = moe_json_get(j, "model");
	const struct {
		const char *key;
		int64_t have;
	} facts[] = {{"layers", m->n_layers}, {"hidden", m->hidden}, {"vocab", m->vocab}, {"experts", moe_model_max_experts(m)}};

	for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
		int64_t said;
		int rc = read_int(o, facts[i].key, 0, MAX_BYTES, "model", &said, e);

		if (rc)
			return rc;
		if (said != facts[i].have)
			return moe_fail(e, MOE_E_INPUT, "written for a model with %s %lld, config.json has %lld", facts[i].key,
			                (long long)said, (long long)facts[i].have);
	}
	return 0;
}

/* ---- files ---- */

static int read_role(const struct moe_json *o, int devices, struct moe_manifest_file *f, struct moe_err *e)
{
	const char *role = NULL;
	int64_t device = MOE_BASE;
	int rc = moe_json_need_str(o, "role", true, &role, f->name, e);

	if (rc)
		return rc;
	if (strcmp(role, "experts") == 0)
		rc = read_int(o, "device", 0, devices - 1, f->name, &device, e);
	else if (strcmp(role, "base") != 0)
		rc = moe_fail(e, MOE_E_INPUT, "%s: role \"%s\" is neither \"base\" nor \"experts\"", f->name, role);
	f->device = (int)device;
	return rc;
}

/* A short text, which only informs; absent: "". */
static int read_text(const struct moe_json *o, const char *key, const char *what, char *out, size_t cap, struct moe_err *e)
{
	const char *text = "";
	int rc = moe_json_need_str(o, key, false, &text, what, e);

	if (rc)
		return rc;
	if (strlen(text) >= cap)
		return moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is longer than %zu bytes", what, key, cap - 1);
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

static int read_file(const struct moe_json *o, int devices, struct moe_manifest_file *f, struct moe_err *e)
{
	const char *name = NULL;
	int64_t bytes;
	int rc = moe_json_need_str(o, "name", true, &name, "files", e);

	if (rc)
		return rc;
	if (!moe_path_is_plain(name))
		return moe_fail(e, MOE_E_INPUT, "files: a name is not that of a file in this folder");
	f->name = moe_strdup(name, e);
	if (!f->name)
		return MOE_E_NOMEM;
	rc = read_role(o, devices, f, e);
	rc = rc ? rc : read_int(o, "bytes", 8, MAX_BYTES, name, &bytes, e);
	rc = rc ? rc : read_text(o, "quant", name, f->quant, sizeof f->quant, e);
	rc = rc ? rc : read_text(o, "layout", name, f->layout, sizeof f->layout, e);
	rc = rc ? rc : read_hash(o, "xxh3", name, &f->hash, e);
	if (rc == 0)
		f->bytes = (uint64_t)bytes;
	return rc;
}

/* Each device and the base once, no name twice. */
static int check_files(const struct moe_manifest *m, struct moe_err *e)
{
	struct moe_index *names = moe_index_new((size_t)m->n_files, e);
	bool *seen = moe_calloc((size_t)m->n_files, sizeof *seen, "file list", e);
	int rc = names && seen ? 0 : MOE_E_NOMEM;

	for (int i = 0; i < m->n_files && rc == 0; i++) {
		const struct moe_manifest_file *f = &m->files[i];
		uint64_t old;
		int added = moe_index_add(names, f->name, strlen(f->name), 0, &old);

		if (added < 0)
			rc = moe_fail(e, MOE_E_NOMEM, "file list: no memory");
		else if (added == 0 || seen[f->device + 1])
			rc = moe_fail(e, MOE_E_INPUT, "%s: listed twice, or a second file of its device", f->name);
		else
			seen[f->device + 1] = true;
	}
	moe_index_free(names);
	free(seen);
	return rc;
}

static int read_files(const struct moe_json *j, int devices, struct moe_manifest *m, struct moe_err *e)
{
	const struct moe_json *list = moe_json_get(j, "files");
	int rc = 0;

	if (moe_json_type(list) != MOE_JSON_ARRAY || moe_json_count(list) != (size_t)devices + 1)
		return moe_fail(e, MOE_E_INPUT, "files: not a list of one for each of %d devices and the base", devices);
	m->files = moe_calloc((size_t)devices + 1, sizeof *m->files, "file list", e);
	if (!m->files)
		return MOE_E_NOMEM;
	m->n_files = devices + 1;
	for (int i = 0; i < m->n_files && rc == 0; i++)
		rc = read_file(moe_json_at(list, (size_t)i), devices, &m->files[i], e);
	return rc ? rc : check_files(m, e);
}

/* ---- experts ---- */

static int read_expert(const struct moe_json *o, const struct moe_manifest *m, struct moe_manifest_expert *x,
                       struct moe_err *e)
{
	int64_t layer, expert, file, offset, bytes;
	const struct moe_manifest_file *f;
	int rc = read_int(o, "layer", 0, m->placement.layers - 1, "experts", &layer, e);

	rc = rc ? rc : read_int(o, "expert", 0, m->placement.experts[layer] - 1, "experts", &expert, e);
	rc = rc ? rc : read_int(o, "file", 0, m->n_files - 1, "experts", &file, e);
	rc = rc ? rc : read_int(o, "offset", 8, MAX_BYTES, "experts", &offset, e);
	rc = rc ? rc : read_int(o, "bytes", 1, MAX_BYTES, "experts", &bytes, e);
	rc = rc ? rc : read_hash(o, "xxh3", "experts", &x->hash, e);
	if (!rc && m->probes[0])
		rc = read_probe(o, "experts", &x->probe, e);
	if (rc)
		return rc;
	f = &m->files[file];
	x->layer = (int)layer;
	x->expert = (int)expert;
	x->file = (int)file;
	x->offset = (uint64_t)offset;
	x->bytes = (uint64_t)bytes;
	if (x->offset > f->bytes || x->bytes > f->bytes - x->offset)
		return moe_fail(e, MOE_E_INPUT, "layer %d, expert %d: lies outside %s", x->layer, x->expert, f->name);
	if (!moe_placement_holds(&m->placement, f->device, x->layer, x->expert))
		return moe_fail(e, MOE_E_INPUT, "layer %d, expert %d: in %s, where the placement does not have it", x->layer,
		                x->expert, f->name);
	return 0;
}

static int by_file(const void *a, const void *b)
{
	const struct moe_manifest_expert *x = a, *y = b;

	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	if (x->layer != y->layer)
		return x->layer < y->layer ? -1 : 1;
	return (x->expert > y->expert) - (x->expert < y->expert);
}

/* As many rows as the placement has entries, each in one of its devices' files, none twice: so none is missing. */
static int read_experts(const struct moe_json *j, struct moe_manifest *m, struct moe_err *e)
{
	const struct moe_json *list = moe_json_get(j, "experts");
	size_t n = (size_t)m->placement.first[m->placement.start[m->placement.layers]];
	int rc = 0;

	if (moe_json_type(list) != MOE_JSON_ARRAY || moe_json_count(list) != n)
		return moe_fail(e, MOE_E_INPUT, "experts: %zu rows, the placement has %zu", moe_json_count(list), n);
	m->experts = moe_calloc(n, sizeof *m->experts, "expert list", e);
	if (!m->experts)
		return MOE_E_NOMEM;
	m->n_experts = (int)n;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = read_expert(moe_json_at(list, i), m, &m->experts[i], e);
	if (rc)
		return rc;
	qsort(m->experts, n, sizeof *m->experts, by_file);
	for (size_t i = 1; i < n; i++)
		if (by_file(&m->experts[i - 1], &m->experts[i]) == 0)
			return moe_fail(e, MOE_E_INPUT, "layer %d, expert %d: listed twice for one file", m->experts[i].layer,
			                m->experts[i].expert);
	return 0;
}

const struct moe_manifest_expert *moe_manifest_find(const struct moe_manifest *man, int file, int layer, int expert)
{
	int lo = 0, hi = man->n_experts;

	while (lo < hi) {
		int mid = lo + (hi - lo) / 2;
		const struct moe_manifest_expert *x = &man->experts[mid];
		int d = x->file != file ? x->file - file : x->layer != layer ? x->layer - layer : x->expert - expert;

		if (d == 0)
			return x;
		if (d < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* ---- the whole ---- */

static int check_schema(const struct moe_json *j, struct moe_err *e)
{
	int64_t schema;
	int rc = read_int(j, "schema", 1, INT32_MAX, "manifest", &schema, e);

	if (rc == 0 && schema > MOE_MANIFEST_SCHEMA)
		rc = moe_fail(e, MOE_E_UNSUPPORTED, "schema %d is newer than this program, which reads up to %d", (int)schema,
		              MOE_MANIFEST_SCHEMA);
	return rc;
}

static int parse(const struct moe_json *j, const struct moe_model *m, struct moe_manifest *out, struct moe_err *e)
{
	int64_t epoch, kv, devices;
	int rc = check_schema(j, e);

	rc = rc ? rc : check_model(j, m, e);
	rc = rc ? rc : read_hash(j, "fingerprint", "manifest", &out->fingerprint, e);
	rc = rc ? rc : read_int(j, "epoch", 1, MAX_BYTES, "manifest", &epoch, e);
	rc = rc ? rc : read_int(j, "kv_bytes_per_token", 0, MAX_BYTES, "manifest", &kv, e);
	rc = rc ? rc : read_text(j, "probes", "manifest", out->probes, sizeof out->probes, e);
	rc = rc ? rc : read_int(j, "devices", 1, MOE_MAX_DEVICES, "manifest", &devices, e);
	if (rc)
		return rc;
	out->schema = MOE_MANIFEST_SCHEMA;
	out->epoch = (uint64_t)epoch;
	out->kv_bytes_per_token = (uint64_t)kv;
	rc = moe_placement_from_json(j, "manifest", m, (int)devices, &out->placement, e);
	rc = rc ? rc : read_files(j, (int)devices, out, e);
	return rc ? rc : read_experts(j, out, e);
}

int moe_manifest_parse(const struct moe_json *j, const char *what, const struct moe_model *m, struct moe_manifest *out,
                       struct moe_err *e)
{
	struct moe_manifest man = {0};
	int rc = parse(j, m, &man, e);

	if (rc) {
		moe_manifest_free(&man);
		return moe_fail_prefix(e, rc, "%s", what);
	}
	*out = man;
	return 0;
}

static int read_json(const char *dir, char **path, struct moe_json **json, struct moe_err *e)
{
	int rc;

	*path = moe_path_join(dir, MOE_MANIFEST_NAME, e);
	if (!*path)
		return MOE_E_NOMEM;
	rc = moe_json_read_regular(*path, MOE_MANIFEST_CAP, json, e);
	if (rc)
		free(*path);
	return rc;
}

int moe_manifest_read(const char *dir, const struct moe_model *m, struct moe_manifest *out, struct moe_json **json,
                      struct moe_err *e)
{
	struct moe_json *j;
	char *path;
	int rc = read_json(dir, &path, &j, e);

	if (rc)
		return rc;
	rc = moe_manifest_parse(j, path, m, out, e);
	free(path);
	if (rc == 0 && json)
		*json = j;
	else
		moe_json_free(j);
	return rc;
}

int moe_manifest_epoch(const char *dir, uint64_t *epoch, struct moe_err *e)
{
	struct moe_json *j;
	int64_t n = 1;
	char *path;
	int rc = read_json(dir, &path, &j, e);

	if (rc)
		return rc;
	rc = check_schema(j, e);
	rc = rc ? rc : read_int(j, "epoch", 1, MAX_BYTES - 1, "manifest", &n, e);
	if (rc)
		moe_fail_prefix(e, rc, "%s", path);
	*epoch = (uint64_t)n;
	moe_json_free(j);
	free(path);
	return rc;
}

bool moe_is_shards(const char *dir)
{
	char *path = moe_path_join(dir, MOE_MANIFEST_NAME, NULL);
	bool is = path && moe_exists(path);

	free(path);
	return is;
}
