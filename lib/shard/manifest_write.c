/* Writing manifest.json. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/opts.h"
#include "shard/private.h"

static void put_int(struct moe_jw *w, const char *key, uint64_t v)
{
	moe_jw_key(w, key);
	moe_jw_int(w, (int64_t)v);
}

static void put_str(struct moe_jw *w, const char *key, const char *v)
{
	moe_jw_key(w, key);
	moe_jw_str(w, v);
}

static void write_model(struct moe_jw *w, const struct moe_model *m)
{
	moe_jw_key(w, "model");
	moe_jw_obj(w);
	put_str(w, "family", m->name);
	put_int(w, "layers", (uint64_t)m->n_layers);
	put_int(w, "moe_layers", (uint64_t)moe_model_moe_layers(m));
	put_int(w, "hidden", (uint64_t)m->hidden);
	put_int(w, "vocab", (uint64_t)m->vocab);
	put_int(w, "experts", (uint64_t)moe_model_max_experts(m));
	put_int(w, "parameters", moe_model_parameters(m, false));
	moe_jw_end(w);
}

static void write_files(struct moe_jw *w, const struct moe_manifest *man)
{
	moe_jw_key(w, "files");
	moe_jw_arr(w);
	for (int i = 0; i < man->n_files; i++) {
		const struct moe_manifest_file *f = &man->files[i];

		moe_jw_obj(w);
		put_str(w, "name", f->name);
		put_str(w, "role", f->device == MOE_BASE ? "base" : "experts");
		moe_jw_key(w, "device");
		if (f->device == MOE_BASE)
			moe_jw_null(w);
		else
			moe_jw_int(w, f->device);
		put_int(w, "bytes", f->bytes);
		put_str(w, "quant", f->quant);
		put_str(w, "layout", f->layout);
		put_str(w, "xxh3", f->hash.hex);
		moe_jw_end(w);
	}
	moe_jw_arr_end(w);
}

static void write_experts(struct moe_jw *w, const struct moe_manifest *man)
{
	moe_jw_key(w, "experts");
	moe_jw_arr(w);
	for (int i = 0; i < man->n_experts; i++) {
		const struct moe_manifest_expert *x = &man->experts[i];

		moe_jw_obj(w);
		put_int(w, "layer", (uint64_t)x->layer);
		put_int(w, "expert", (uint64_t)x->expert);
		put_int(w, "file", (uint64_t)x->file);
		put_int(w, "offset", x->offset);
		put_int(w, "bytes", x->bytes);
		put_str(w, "xxh3", x->hash.hex);
		if (man->probes[0]) {
			char probe[17];

			snprintf(probe, sizeof probe, "%016llx", (unsigned long long)x->probe);
			put_str(w, "probe", probe);
		}
		moe_jw_end(w);
	}
	moe_jw_arr_end(w);
}

static void write_copied(struct moe_jw *w, const struct moe_copied_set *copied)
{
	moe_jw_key(w, "copied");
	moe_jw_arr(w);
	for (int i = 0; i < copied->n; i++) {
		moe_jw_obj(w);
		put_str(w, "name", copied->v[i].name);
		put_int(w, "bytes", copied->v[i].len);
		put_str(w, "xxh3", copied->v[i].hash.hex);
		moe_jw_end(w);
	}
	moe_jw_arr_end(w);
}

int moe_manifest_write(const struct moe_manifest *man, const struct moe_model *m, const struct moe_copied_set *copied,
                       const char *path, struct moe_err *e)
{
	struct moe_jw w;
	size_t len;
	char *text;
	int rc;

	moe_jw_init(&w, true);
	moe_jw_obj(&w);
	put_int(&w, "schema", MOE_MANIFEST_SCHEMA);
	put_str(&w, "generator", "moe-shard " MOE_VERSION);
	write_model(&w, m);
	put_str(&w, "fingerprint", man->fingerprint.hex);
	put_int(&w, "epoch", man->epoch);
	if (man->probes[0])
		put_str(&w, "probes", man->probes);
	put_int(&w, "kv_bytes_per_token", man->kv_bytes_per_token);
	put_int(&w, "devices", (uint64_t)man->placement.devices);
	moe_jw_key(&w, "placement");
	moe_placement_write(&man->placement, &w);
	write_files(&w, man);
	write_experts(&w, man);
	write_copied(&w, copied);
	moe_jw_end(&w);
	text = moe_jw_done(&w, &len, e);
	if (!text)
		return MOE_E_NOMEM;
	rc = moe_write_file(path, text, len, e);
	free(text);
	return rc;
}
