/* Writing a shard set. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "shard/private.h"

struct writer {
	const struct moe_checkpoint *c;
	const struct moe_shard_options *o;
	struct moe_stage stage;
	struct moe_pieces pieces;
	struct moe_cut cut;
	struct moe_copied_set copied;
	char **part;          /* [files] where a file is while its name is not known */
	bool *added;          /* [files] new in a set that is replaced */
};

/* Other tools' codes are not what a shard set holds. */
static int refuse_coded(const struct writer *w, const struct moe_quant_plan *quants, const struct moe_placement *p,
                        struct moe_err *e)
{
	for (size_t i = 0; i < w->pieces.n; i++) {
		const struct moe_piece *x = &w->pieces.v[i];
		bool is_matrix = moe_role_is_expert(x->id.role) || moe_role_may_be_coded(x->id.role);
		enum moe_quant q = MOE_Q_KEEP;
		int rc = x->from->coding && is_matrix ? moe_quant_plan_of(quants, p, x->id, &q, e) : 0;

		if (rc)
			return rc;
		if (x->from->coding && is_matrix && q == MOE_Q_KEEP)
			return moe_fail(e, MOE_E_UNSUPPORTED, "%s: its weights are quantised (%s): say in what the set shall have "
			                "them, --quant bf16 for the same values", w->c->path, w->c->coding);
	}
	return 0;
}

/* config.json without what no longer holds of the weights; caller frees. */
static char *config_of(const struct moe_checkpoint *c, size_t *len, struct moe_err *e)
{
	struct moe_json *json;
	struct moe_jw w;

	if (moe_json_parse(c->config, c->config_len, "config.json", &json, e))
		return NULL;
	moe_jw_init(&w, true);
	moe_jw_obj(&w);
	for (size_t i = 0; i < moe_json_count(json); i++) {
		const struct moe_json *member = moe_json_at(json, i);

		if (strcmp(moe_json_name(member), "quantization_config") == 0 ||
		    strcmp(moe_json_name(member), "compression_config") == 0)
			continue;
		moe_jw_key(&w, moe_json_name(member));
		moe_jw_json(&w, member);
	}
	moe_jw_end(&w);
	moe_json_free(json);
	return moe_jw_done(&w, len, e);
}

static int read_copied(struct writer *w, struct moe_err *e)
{
	const char *dir = moe_is_dir(w->c->path) ? w->c->path : NULL;
	size_t len;
	char *config;
	int rc;

	if (!w->c->coding)
		return moe_copied_read(dir, w->c->config, w->c->config_len, &w->copied, e);
	config = config_of(w->c, &len, e);
	rc = config ? moe_copied_read(dir, config, len, &w->copied, e) : MOE_E_NOMEM;
	free(config);
	return rc;
}

/* What goes where; and is there room for it at `out`? */
static int plan(struct writer *w, const struct moe_placement *p, struct moe_err *e)
{
	static const struct moe_quant_plan keep = MOE_QUANT_PLAN_INIT;
	const struct moe_quant_plan *quants = w->o->quants ? w->o->quants : &keep;
	struct moe_manifest *man = &w->cut.man;
	int rc = moe_pieces_of(&w->c->model, w->c->tensors, &w->pieces, e);
	rc = rc ? rc : refuse_coded(w, quants, p, e);
	rc = rc ? rc : moe_pieces_recode(&w->c->model, &w->pieces, quants, p, e);
	rc = rc ? rc : moe_cut_make(&w->c->model, &w->pieces, p, quants, &w->cut, e);
	rc = rc ? rc : read_copied(w, e);
	if (rc)
		return rc;
	man->epoch = w->o->epoch ? w->o->epoch : 1;
	if (w->stage.replaces) {
		uint64_t old;

		rc = moe_manifest_epoch(w->stage.out, &old, e);
		if (rc == 0 && w->o->epoch == 0)
			man->epoch = old + 1;
		rc = rc ? rc : moe_copied_compare(&w->copied, w->stage.out, e);
	}
	return rc ? rc : moe_stage_space(&w->stage, moe_cut_bytes(&w->cut), e);
}

static char *file_path(const char *dir, int device, const char *hash, struct moe_err *e)
{
	char stem[32];

	if (device == MOE_BASE)
		snprintf(stem, sizeof stem, "base");
	else
		snprintf(stem, sizeof stem, "experts-%04d", device);
	if (!hash)
		return moe_sprintf(e, "%s/%s.part", dir, stem);
	return moe_sprintf(e, "%s%s%s-%.16s.safetensors", dir ? dir : "", dir ? "/" : "", stem, hash);
}

static int check_expected(const struct writer *w, const struct moe_hash *found, struct moe_err *e)
{
	if (strcmp(w->o->expect->hex, found->hex) == 0)
		return 0;
	return moe_fail(e, MOE_E_SUM, "%s: damaged, its fingerprint differs (moe-shard --verify names the place)", w->c->path);
}

/* Does any piece become something else than it was?  Then what is written tells nothing of what was read. */
static bool recodes(const struct moe_pieces *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->v[i].has != p->v[i].quant)
			return true;
	return false;
}

/* A source whose sums do not come out of the writing is read once before. */
static int check_source(const struct writer *w, struct moe_err *e)
{
	struct moe_pieces p;
	struct moe_hash found;
	int rc = moe_pieces_of(&w->c->model, w->c->tensors, &p, e);

	if (rc)
		return rc;
	rc = moe_pieces_sum(&p, w->o, e);
	rc = rc ? rc : moe_pieces_fingerprint(&p, &found, e);
	moe_pieces_free(&p);
	return rc ? rc : check_expected(w, &found, e);
}

static int write_files(struct writer *w, struct moe_err *e)
{
	struct moe_manifest *man = &w->cut.man;
	bool before = w->o->expect && recodes(&w->pieces);
	int rc;

	for (int i = 0; i < man->n_files; i++) {
		w->part[i] = file_path(w->stage.dir, man->files[i].device, NULL, e);
		if (!w->part[i])
			return MOE_E_NOMEM;
		w->cut.flows[i].path = w->part[i];
	}
	rc = before ? check_source(w, e) : 0;
	rc = rc ? rc : moe_flows_run(w->cut.flows, (size_t)man->n_files, w->o, e);
	rc = rc ? rc : moe_tensors_check(w->c->tensors, e);
	rc = rc ? rc : moe_pieces_fingerprint(&w->pieces, &man->fingerprint, e);
	if (rc == 0 && w->o->expect && !before)
		rc = check_expected(w, &man->fingerprint, e);
	return rc;
}

static int rename_file(const char *from, const char *to, struct moe_err *e)
{
	return rename(from, to) == 0 ? 0 : moe_fail_errno(e, "%s", to);
}

/* Now that the sums are known, files get their names. */
static int name_files(struct writer *w, struct moe_err *e)
{
	struct moe_manifest *man = &w->cut.man;
	int rc = 0;

	for (int i = 0; i < man->n_files && rc == 0; i++) {
		struct moe_manifest_file *f = &man->files[i];
		char *path;

		f->name = file_path(NULL, f->device, f->hash.hex, e);
		path = f->name ? moe_path_join(w->stage.dir, f->name, e) : NULL;
		rc = path ? rename_file(w->part[i], path, e) : MOE_E_NOMEM;
		free(w->part[i]);
		w->part[i] = path;
	}
	return rc;
}

static int write_manifest(struct writer *w, const char *dir, struct moe_err *e)
{
	char *path = moe_path_join(dir, MOE_MANIFEST_NAME, e);
	int rc = path ? moe_manifest_write(&w->cut.man, &w->c->model, &w->copied, path, e) : MOE_E_NOMEM;

	free(path);
	return rc;
}

/* A first set: everything into the new folder, then its rename. */
static int commit_new(struct writer *w, struct moe_err *e)
{
	int rc = moe_copied_write(&w->copied, w->stage.dir, e);

	rc = rc ? rc : write_manifest(w, w->stage.dir, e);
	return rc ? rc : moe_stage_rename(&w->stage, e);
}

/* Does a file have this content already?  Read it all: what is damaged must not be kept. */
static bool has_content(const char *path, const struct moe_manifest_file *f, const struct moe_shard_options *o)
{
	struct moe_shard_options quiet = {.threads = o->threads};
	struct moe_extent extent;
	struct moe_hash hash = {""};
	struct moe_flow flow = {.v = &extent, .whole = &hash};
	struct moe_map *map;
	bool same = false;

	if (moe_map_open(path, &map, NULL))
		return false;
	if (map->size == f->bytes) {
		moe_flow_add(&flow, (struct moe_extent){.data = map->data, .map = map, .bytes = map->size});
		same = moe_flows_run(&flow, 1, &quiet, NULL) == 0 && moe_map_check(map, NULL) == 0 &&
		       strcmp(hash.hex, f->hash.hex) == 0;
	}
	moe_map_close(map);
	return same;
}

static int move_file(struct writer *w, int i, struct moe_err *e)
{
	char *to = moe_path_join(w->stage.out, w->cut.man.files[i].name, e);
	bool there;
	int rc = 0;

	if (!to)
		return MOE_E_NOMEM;
	there = moe_exists(to);
	if (!there || !has_content(to, &w->cut.man.files[i], w->o)) {
		rc = rename_file(w->part[i], to, e);
		w->added[i] = rc == 0 && !there;
	}
	free(to);
	return rc;
}

static void take_back(struct writer *w)
{
	for (int i = 0; i < w->cut.man.n_files; i++) {
		char *path = w->added[i] ? moe_path_join(w->stage.out, w->cut.man.files[i].name, NULL) : NULL;

		if (path)
			unlink(path);
		free(path);
	}
}

/* Onto a set: new data files beside the old, then the manifest's rename. */
static int commit_beside(struct writer *w, struct moe_err *e)
{
	int rc = 0;

	for (int i = 0; i < w->cut.man.n_files && rc == 0; i++)
		rc = move_file(w, i, e);
	rc = rc ? rc : moe_copied_write(&w->copied, w->stage.out, e);
	rc = rc ? rc : moe_fsync_dir(w->stage.out, e);
	rc = rc ? rc : write_manifest(w, w->stage.out, e);
	if (rc)
		take_back(w);
	return rc;
}

static void report(const struct writer *w, struct moe_shard_report *r)
{
	const struct moe_manifest *man = &w->cut.man;

	*r = (struct moe_shard_report){.files = man->n_files, .devices = man->placement.devices, .epoch = man->epoch,
	                               .fingerprint = man->fingerprint, .bytes_written = moe_cut_bytes(&w->cut)};
	for (size_t i = 0; i < w->pieces.n; i++)
		r->bytes_read += moe_piece_read_bytes(&w->pieces.v[i]);
}

static int write_set(struct writer *w, struct moe_err *e)
{
	size_t files = (size_t)w->cut.man.n_files;
	int rc;

	w->part = moe_calloc(files, sizeof *w->part, "file list", e);
	w->added = moe_calloc(files, sizeof *w->added, "file list", e);
	rc = w->part && w->added ? write_files(w, e) : MOE_E_NOMEM;
	rc = rc ? rc : name_files(w, e);
	rc = rc ? rc : moe_probe_files(&w->cut.man, &w->c->model, w->part, w->o, e);
	if (rc)
		return rc;
	return w->stage.replaces ? commit_beside(w, e) : commit_new(w, e);
}

static void writer_close(struct writer *w)
{
	for (int i = 0; w->part && i < w->cut.man.n_files; i++)
		free(w->part[i]);
	free(w->part);
	free(w->added);
	moe_stage_close(&w->stage);
	moe_cut_free(&w->cut);
	moe_pieces_free(&w->pieces);
	moe_copied_free(&w->copied);
}

int moe_shard_write(const struct moe_checkpoint *c, const struct moe_placement *p, const struct moe_shard_options *o,
                    const char *out, struct moe_shard_report *r, struct moe_err *e)
{
	static const struct moe_shard_options defaults = MOE_SHARD_OPTIONS_INIT;
	struct writer w = {.c = c, .o = o ? o : &defaults, .stage = MOE_STAGE_INIT};
	int rc = w.o->dry_run ? moe_stage_look(out, true, &w.stage, e) : moe_stage_open(out, true, &w.stage, e);

	rc = rc ? rc : plan(&w, p, e);
	if (rc == 0 && !w.o->dry_run)
		rc = write_set(&w, e);
	if (rc == 0)
		report(&w, r);
	writer_close(&w);
	return rc;
}
