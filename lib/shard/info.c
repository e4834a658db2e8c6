/* What is in a checkpoint or shard set, from headers and manifests alone. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "shard/private.h"

struct counter {
	uint64_t tensors, bytes, weights;
};

struct tally {
	struct counter dtypes[MOE_DTYPES], quants[MOE_QUANTS];
	uint64_t base, experts; /* bytes */
	struct counter coded;   /* weights of other tools' codes */
};

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

static void put_bool(struct moe_jw *w, const char *key, bool v)
{
	moe_jw_key(w, key);
	moe_jw_bool(w, v);
}

static void add(struct counter *c, uint64_t bytes, uint64_t weights)
{
	c->tensors++;
	c->bytes += bytes;
	c->weights += weights;
}

/* A tensor as its file has it. */
static int count(struct tally *t, const struct moe_model *m, const struct moe_tensor *x, struct moe_err *e)
{
	struct moe_tensor_id id;
	struct moe_piece p;
	uint64_t weights, bytes;
	int rc;

	if (!moe_tensor_identify(m, x->name, &id))
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: not a tensor of a %s model", x->name, m->name);
	rc = moe_tensor_check_shape(m, id, x, e);
	rc = rc ? rc : moe_piece_of(m, x, id, &p, e);
	if (rc)
		return rc;
	weights = (uint64_t)p.rows * (uint64_t)p.cols;
	bytes = x->coding ? x->coding->bytes : x->bytes;
	if (x->coding)
		add(&t->coded, bytes, weights);
	else
		add(&t->dtypes[x->dtype], bytes, weights);
	if (!x->coding && p.quant != MOE_Q_KEEP)
		add(&t->quants[p.quant], bytes, weights);
	*(moe_role_is_expert(id.role) ? &t->experts : &t->base) += bytes;
	moe_piece_free(&p);
	return 0;
}

static int tally_checkpoint(const struct moe_source *s, struct tally *t, struct moe_err *e)
{
	const struct moe_tensors *all = s->checkpoint->tensors;
	int rc = 0;

	for (size_t i = 0; i < moe_tensors_count(all) && rc == 0; i++)
		rc = count(t, &s->model, moe_tensors_at(all, i), e);
	return rc;
}

static char *file_path(const struct moe_source *s, int file, struct moe_err *e)
{
	return moe_path_join(s->path, s->manifest.files[file].name, e);
}

static int tally_file(const struct moe_source *s, int file, struct tally *t, struct moe_err *e)
{
	struct moe_st_header h;
	struct moe_map *map;
	int rc = moe_data_map(s->path, &s->manifest.files[file], &map, e);

	if (rc)
		return rc;
	rc = moe_st_header_parse(map->data, map->size, map->size, map->path, &h, e);
	if (rc == 0) {
		for (size_t i = 0; i < h.n && rc == 0; i++) {
			struct moe_tensor x = {.name = h.v[i].name, .dtype = h.v[i].dtype, .ndim = h.v[i].ndim,
			                       .bytes = (size_t)(h.v[i].end - h.v[i].begin)};

			memcpy(x.shape, h.v[i].shape, sizeof x.shape);
			rc = count(t, &s->model, &x, e);
		}
		moe_st_header_free(&h);
	}
	moe_map_close(map);
	return rc;
}

/* Files that are not here are no error: a host may hold only its own. */
static int tally_shards(const struct moe_source *s, bool *present, struct tally *t, struct moe_err *e)
{
	int rc = 0;

	for (int i = 0; i < s->manifest.n_files && rc == 0; i++) {
		char *path = file_path(s, i, e);

		if (!path)
			return MOE_E_NOMEM;
		present[i] = moe_exists(path);
		free(path);
		if (present[i])
			rc = tally_file(s, i, t, e);
	}
	return rc;
}

static const struct moe_layer *first_moe_layer(const struct moe_model *m)
{
	for (int l = 0; l < m->n_layers; l++)
		if (m->layers[l].ffn.kind == MOE_FFN_MOE)
			return &m->layers[l];
	return NULL;
}

static void write_model(struct moe_jw *w, const struct moe_model *m)
{
	const struct moe_layer *first = first_moe_layer(m);
	const struct moe_attention *a = &m->layers[0].attn;

	put_str(w, "family", m->name);
	put_int(w, "layers", (uint64_t)m->n_layers);
	put_int(w, "moe_layers", (uint64_t)moe_model_moe_layers(m));
	put_int(w, "hidden", (uint64_t)m->hidden);
	put_int(w, "vocab", (uint64_t)m->vocab);
	put_int(w, "heads", (uint64_t)a->heads);
	put_int(w, "kv_heads", (uint64_t)a->kv_heads);
	put_int(w, "head_dim", (uint64_t)a->head_dim);
	put_int(w, "max_positions", (uint64_t)m->max_positions);
	put_int(w, "experts", (uint64_t)moe_model_max_experts(m));
	if (first) {
		put_int(w, "top_k", (uint64_t)first->ffn.gate.top_k);
		put_int(w, "expert_width", (uint64_t)first->ffn.expert_width);
		put_int(w, "shared_width", (uint64_t)first->ffn.shared_width);
	}
	put_int(w, "parameters", moe_model_parameters(m, false));
	put_int(w, "active_parameters", moe_model_parameters(m, true));
	put_int(w, "kv_bytes_per_token", moe_model_kv_bytes_per_token(m, 4));
}

static void write_counter(struct moe_jw *w, const char *name, const struct counter *c)
{
	if (c->tensors == 0)
		return;
	moe_jw_key(w, name);
	moe_jw_obj(w);
	put_int(w, "tensors", c->tensors);
	put_int(w, "bytes", c->bytes);
	put_int(w, "weights", c->weights);
	moe_jw_key(w, "bits_per_weight");
	moe_jw_num(w, c->weights ? 8 * (double)c->bytes / (double)c->weights : 0);
	moe_jw_end(w);
}

static void write_tally(struct moe_jw *w, const struct tally *t)
{
	struct counter all = t->coded;

	for (int i = 0; i < MOE_QUANTS; i++) {
		all.bytes += t->quants[i].bytes;
		all.weights += t->quants[i].weights;
	}
	moe_jw_key(w, "bytes");
	moe_jw_obj(w);
	put_int(w, "total", t->base + t->experts);
	put_int(w, "base", t->base);
	put_int(w, "experts", t->experts);
	moe_jw_end(w);
	moe_jw_key(w, "bits_per_weight");
	moe_jw_num(w, all.weights ? 8 * (double)all.bytes / (double)all.weights : 0);
	moe_jw_key(w, "dtypes");
	moe_jw_obj(w);
	for (int i = 0; i < MOE_DTYPES; i++)
		write_counter(w, moe_dtype_name((enum moe_dtype)i), &t->dtypes[i]);
	moe_jw_end(w);
	moe_jw_key(w, "quants");
	moe_jw_obj(w);
	for (int i = 0; i < MOE_QUANTS; i++)
		write_counter(w, moe_quant_name((enum moe_quant)i), &t->quants[i]);
	moe_jw_end(w);
}

static void write_coding(struct moe_jw *w, const char *method, const struct tally *t)
{
	moe_jw_key(w, "quantized");
	moe_jw_obj(w);
	put_str(w, "method", method);
	put_int(w, "tensors", t->coded.tensors);
	put_int(w, "bytes", t->coded.bytes);
	moe_jw_end(w);
}

static void write_file(struct moe_jw *w, const struct moe_manifest *man, int file, bool present)
{
	const struct moe_manifest_file *f = &man->files[file];
	uint64_t experts = 0, bytes = 0;

	for (int i = 0; i < man->n_experts; i++)
		if (man->experts[i].file == file) {
			experts++;
			bytes += man->experts[i].bytes;
		}
	moe_jw_obj(w);
	moe_jw_key(w, "device");
	if (f->device == MOE_BASE)
		moe_jw_null(w);
	else
		moe_jw_int(w, f->device);
	put_str(w, "file", f->name);
	put_int(w, "bytes", f->bytes);
	put_int(w, "experts", experts);
	put_int(w, "expert_bytes", bytes);
	if (f->quant[0])
		put_str(w, "quant", f->quant);
	if (f->layout[0])
		put_str(w, "layout", f->layout);
	put_bool(w, "present", present);
	moe_jw_end(w);
}

static void write_shards(struct moe_jw *w, const struct moe_manifest *man, const bool *present)
{
	put_int(w, "schema", (uint64_t)man->schema);
	put_str(w, "fingerprint", man->fingerprint.hex);
	put_int(w, "epoch", man->epoch);
	put_int(w, "devices", (uint64_t)man->placement.devices);
	moe_jw_key(w, "files");
	moe_jw_arr(w);
	for (int i = 0; i < man->n_files; i++)
		write_file(w, man, i, present[i]);
	moe_jw_arr_end(w);
}

static const char *kind_of(const struct moe_source *s)
{
	return s->sharded ? "shards" : moe_is_dir(s->path) ? "checkpoint" : "synthetic";
}

static int write_info(const struct moe_source *s, struct moe_buf *out, struct moe_err *e)
{
	bool *present = moe_calloc((size_t)s->manifest.n_files, sizeof *present, "file list", e);
	struct tally t = {.base = 0};
	struct moe_jw w;
	int rc = present ? 0 : MOE_E_NOMEM;

	if (rc == 0 && s->sharded)
		rc = tally_shards(s, present, &t, e);
	else if (rc == 0)
		rc = tally_checkpoint(s, &t, e);
	if (rc == 0) {
		size_t len;

		moe_jw_init(&w, true);
		moe_jw_obj(&w);
		put_str(&w, "kind", kind_of(s));
		put_str(&w, "path", s->path);
		write_model(&w, &s->model);
		write_tally(&w, &t);
		if (s->checkpoint && s->checkpoint->coding)
			write_coding(&w, s->checkpoint->coding, &t);
		if (s->sharded)
			write_shards(&w, &s->manifest, present);
		moe_jw_end(&w);
		*out = (struct moe_buf){.data = moe_jw_done(&w, &len, e)};
		out->len = out->data ? len : 0;
		out->cap = out->data ? len + 1 : 0;
		rc = out->data ? 0 : MOE_E_NOMEM;
	}
	free(present);
	return rc;
}

int moe_shard_info(const char *dir, struct moe_buf *out, struct moe_err *e)
{
	struct moe_source *s;
	int rc = moe_source_open(dir, &s, e);

	if (rc)
		return rc;
	rc = write_info(s, out, e);
	moe_source_close(s);
	return rc;
}
