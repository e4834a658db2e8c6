/* Sources: whatever SHARDS on a command line names, opened as far as the caller needs it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "shard/private.h"

#define SYNTH "synth:"

/* ---- opening ---- */

static int open_shards(struct moe_source *s, struct moe_err *e)
{
	int rc = moe_model_open(s->path, &s->model, e);

	if (rc)
		return rc;
	rc = moe_manifest_read(s->path, &s->model, &s->manifest, NULL, e);
	if (rc)
		return rc;
	s->sharded = true;
	s->epoch = s->manifest.epoch;
	return moe_placement_copy(&s->manifest.placement, &s->placement, e);
}

static int open_whole(struct moe_source *s, struct moe_err *e)
{
	bool synth = strncmp(s->path, SYNTH, strlen(SYNTH)) == 0;
	int rc = synth ? moe_synth_open(s->path + strlen(SYNTH), &s->checkpoint, e)
	               : moe_checkpoint_open(s->path, &s->checkpoint, e);

	rc = rc ? rc : moe_model_copy(&s->checkpoint->model, &s->model, e);
	return rc ? rc : moe_place_round_robin(&s->model, 1, &s->placement, e);
}

static int open_any(struct moe_source *s, struct moe_err *e)
{
	struct stat st;

	if (strncmp(s->path, SYNTH, strlen(SYNTH)) == 0)
		return open_whole(s, e);
	if (stat(s->path, &st) != 0)
		return moe_fail_errno(e, "%s", s->path);
	if (!S_ISDIR(st.st_mode))
		return moe_fail(e, MOE_E_INPUT, "%s: not a folder", s->path);
	return moe_is_shards(s->path) ? open_shards(s, e) : open_whole(s, e);
}

int moe_source_open(const char *spec, struct moe_source **out, struct moe_err *e)
{
	struct moe_source *s = moe_calloc(1, sizeof *s, "source", e);
	int rc;

	if (!s)
		return MOE_E_NOMEM;
	s->path = moe_strdup(spec, e);
	rc = s->path ? open_any(s, e) : MOE_E_NOMEM;
	if (rc) {
		moe_source_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void moe_source_close(struct moe_source *s)
{
	if (!s)
		return;
	moe_placement_free(&s->placement);
	moe_manifest_free(&s->manifest);
	moe_model_free(&s->model);
	moe_checkpoint_close(s->checkpoint);
	free(s->path);
	free(s);
}

/* ---- the tensors of a shard set's files ---- */

int moe_data_map(const char *dir, const struct moe_manifest_file *f, struct moe_map **out, struct moe_err *e)
{
	char *path = moe_path_join(dir, f->name, e);
	struct moe_map *map;
	int rc = path ? moe_map_open(path, &map, e) : MOE_E_NOMEM;

	if (rc == 0 && map->size != f->bytes) {
		rc = moe_fail(e, MOE_E_INPUT, "%s: has %zu bytes, the manifest says %llu", path, map->size,
		              (unsigned long long)f->bytes);
		moe_map_close(map);
	}
	if (rc == 0)
		*out = map;
	free(path);
	return rc;
}

/* One tensor of a data file: is it what the manifest and the model say is there? */
static int check_entry(const struct moe_source *s, int file, const struct moe_tensor *t, uint64_t at,
                       struct moe_tensor_id *id, struct moe_err *e)
{
	const struct moe_manifest_file *f = &s->manifest.files[file];
	const struct moe_manifest_expert *x;

	if (!moe_tensor_identify(&s->model, t->name, id))
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: %s: not a tensor of a %s model", f->name, t->name, s->model.name);
	if (moe_tensor_check_shape(&s->model, *id, t, e))
		return moe_fail_prefix(e, MOE_E_INPUT, "%s", f->name);
	if (!moe_role_is_expert(id->role)) {
		if (f->device == MOE_BASE)
			return 0;
		return moe_fail(e, MOE_E_INPUT, "%s: %s: belongs to no expert", f->name, t->name);
	}
	x = f->device == MOE_BASE ? NULL : moe_manifest_find(&s->manifest, file, id->layer, id->expert);
	if (!x)
		return moe_fail(e, MOE_E_INPUT, "%s: %s: of an expert that the manifest has not in this file", f->name, t->name);
	if (at < x->offset || at + t->bytes > x->offset + x->bytes)
		return moe_fail(e, MOE_E_INPUT, "%s: %s: lies outside its expert's bytes", f->name, t->name);
	return 0;
}

static struct moe_tensor view_of(const struct moe_map *map, const struct moe_st_entry *t, uint64_t at)
{
	struct moe_tensor view = {.name = t->name, .dtype = t->dtype, .ndim = t->ndim, .map = map,
	                          .data = map->data + at, .bytes = (size_t)(t->end - t->begin)};

	memcpy(view.shape, t->shape, sizeof view.shape);
	return view;
}

/* Is this what the file is opened for?  All of the base, and of experts what the pick takes from it. */
static bool wanted(const struct moe_source *s, const struct moe_pick *pick, int file, const struct moe_tensor_id *id)
{
	return s->manifest.files[file].device == MOE_BASE || pick->file[id->layer * pick->wide + id->expert] == file;
}

static int add_entries(struct moe_source *s, int file, const struct moe_pick *pick, const struct moe_map *map,
                       struct moe_tensors *to, struct moe_err *e)
{
	struct moe_st_header h;
	int rc = moe_st_header_parse(map->data, map->size, map->size, map->path, &h, e);

	if (rc)
		return rc;
	for (size_t i = 0; i < h.n && rc == 0; i++) {
		uint64_t at = h.data_start + h.v[i].begin;
		struct moe_tensor view = view_of(map, &h.v[i], at);
		struct moe_tensor_id id;

		rc = check_entry(s, file, &view, at, &id, e);
		if (rc == 0 && wanted(s, pick, file, &id))
			rc = moe_tensors_add(to, &view, e);
	}
	moe_st_header_free(&h);
	return rc;
}

/* All that the manifest promises of this file is there, in shapes that fit the model. */
static int check_bound(const struct moe_source *s, int file, const struct moe_pick *pick, const struct moe_tensors *t,
                       struct moe_err *e)
{
	const struct moe_manifest *man = &s->manifest;
	struct moe_base_weights base;
	struct moe_expert_weights w;
	int rc = 0;

	if (man->files[file].device == MOE_BASE) {
		rc = moe_bind_base(t, &s->model, &base, e);
		if (rc == 0)
			moe_base_free(&base);
	}
	for (int i = 0; i < man->n_experts && rc == 0; i++) {
		const struct moe_manifest_expert *x = &man->experts[i];
		struct moe_tensor_id id = {.layer = x->layer, .expert = x->expert};

		if (x->file == file && wanted(s, pick, file, &id))
			rc = moe_bind_expert(t, &s->model, x->layer, x->expert, &w, e);
	}
	return rc ? moe_fail_prefix(e, rc, "%s", man->files[file].name) : 0;
}

int moe_source_add_file(struct moe_source *s, int file, const struct moe_pick *pick, struct moe_tensors *to,
                        const struct moe_map **where, struct moe_err *e)
{
	struct moe_map *map;
	int rc = moe_data_map(s->path, &s->manifest.files[file], &map, e);

	if (rc)
		return rc;
	rc = moe_tensors_own_map(to, map, e);
	if (rc) {
		moe_map_close(map);
		return rc;
	}
	*where = map;
	rc = add_entries(s, file, pick, map, to, e);
	return rc ? rc : check_bound(s, file, pick, to, e);
}

/* ---- the tensors of a checkpoint ---- */

int moe_source_add_views(struct moe_source *s, int device, struct moe_tensors *to, struct moe_err *e)
{
	const struct moe_tensors *all = s->checkpoint->tensors;
	int rc = 0;

	for (size_t i = 0; i < moe_tensors_count(all) && rc == 0; i++) {
		const struct moe_tensor *t = moe_tensors_at(all, i);
		struct moe_tensor_id id;
		bool expert = moe_tensor_identify(&s->model, t->name, &id) && moe_role_is_expert(id.role);

		if (device == MOE_ALL || expert == (device != MOE_BASE))
			rc = moe_tensors_add(to, t, e);
	}
	return rc;
}

static int add_files(struct moe_source *s, int device, struct moe_tensors *to, struct moe_err *e)
{
	const struct moe_map *map;
	struct moe_pick pick;
	int rc = moe_pick_device(s, device, &pick, e);

	for (int i = 0; i < s->manifest.n_files && rc == 0; i++)
		if (device == MOE_ALL || s->manifest.files[i].device == device)
			rc = moe_source_add_file(s, i, &pick, to, &map, e);
	moe_pick_free(&pick);
	return rc;
}

int moe_source_views(struct moe_source *s, int device, struct moe_tensors **out, struct moe_err *e)
{
	struct moe_tensors *t;
	int rc;

	if (device < MOE_ALL || device >= s->placement.devices)
		return moe_fail(e, MOE_E_RANGE, "%s: no device %d (0 to %d exist)", s->path, device, s->placement.devices - 1);
	rc = moe_tensors_new(&t, e);
	if (rc)
		return rc;
	rc = s->sharded ? add_files(s, device, t, e) : moe_source_add_views(s, device, t, e);
	if (rc) {
		moe_tensors_free(t);
		return rc;
	}
	*out = t;
	return 0;
}

int moe_source_tensors(struct moe_source *s, int device, struct moe_tensors **out, struct moe_err *e)
{
	struct moe_tensors *t;
	int rc = moe_source_views(s, device, &t, e);

	if (rc)
		return rc;
	rc = moe_tensors_fit(&s->model, &t, s->path, &s->made_bytes, e);
	if (rc)
		moe_tensors_free(t);
	else
		*out = t;
	return rc;
}
