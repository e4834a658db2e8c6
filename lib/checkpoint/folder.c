/* A Hugging Face folder: config.json, generation_config.json, safetensors in one file or in several with an index. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "checkpoint/coded.h"

#define MOST_CONFIG ((size_t)16 << 20)
#define MOST_INDEX ((size_t)1 << 30)

static int parse_config(const char *text, size_t len, const char *path, struct moe_model *out, struct moe_err *e)
{
	struct moe_json *json;
	int rc = moe_json_parse(text, len, path, &json, e);

	if (rc)
		return rc;
	rc = moe_model_from_config(json, path, out, e);
	moe_json_free(json);
	return rc;
}

static int add_generation(struct moe_model *m, const char *dir, struct moe_err *e)
{
	char *path = moe_path_join(dir, "generation_config.json", e);
	struct moe_json *json = NULL;
	int rc = 0;

	if (!path)
		return MOE_E_NOMEM;
	if (moe_exists(path))
		rc = moe_json_read_regular(path, MOST_CONFIG, &json, e);
	if (!rc && json)
		rc = moe_model_add_generation(m, json, path, e);
	moe_json_free(json);
	free(path);
	return rc;
}

/* *text: config.json as it is; caller frees, also after a failure. */
static int read_model(const char *dir, struct moe_model *out, char **text, size_t *len, struct moe_err *e)
{
	char *path = moe_path_join(dir, "config.json", e);
	int rc;

	*text = NULL;
	if (!path)
		return MOE_E_NOMEM;
	rc = moe_read_regular(path, MOST_CONFIG, text, len, e);
	rc = rc ? rc : parse_config(*text, *len, path, out, e);
	free(path);
	if (rc)
		return rc;
	rc = add_generation(out, dir, e);
	if (rc)
		moe_model_free(out);
	return rc;
}

int moe_model_open(const char *dir, struct moe_model *out, struct moe_err *e)
{
	char *text;
	size_t len;
	int rc = read_model(dir, out, &text, &len, e);

	free(text);
	return rc;
}

/* Tensors [first, ...) of s came from `file`; the index must say the same. */
static int check_listed(const struct moe_tensors *s, size_t first, const struct moe_hf_index *x, const char *file,
                        const char *what, struct moe_err *e)
{
	for (size_t i = first; i < moe_tensors_count(s); i++) {
		const char *name = moe_tensors_at(s, i)->name;
		const char *said = moe_json_str(moe_json_get(x->map, name), NULL);

		if (!said)
			return moe_fail(e, MOE_E_INPUT, "%s: tensor %s of %s is not listed", what, name, file);
		if (strcmp(said, file) != 0)
			return moe_fail(e, MOE_E_INPUT, "%s: tensor %s is said to be in %s, it is in %s", what, name, said, file);
	}
	return 0;
}

static int check_present(const struct moe_tensors *s, const struct moe_hf_index *x, const char *what, struct moe_err *e)
{
	for (size_t i = 0; i < moe_json_count(x->map); i++) {
		const struct moe_json *member = moe_json_at(x->map, i);

		if (!moe_tensors_find(s, moe_json_name(member)))
			return moe_fail(e, MOE_E_INPUT, "%s: tensor %s is not in %s", what, moe_json_name(member),
			                moe_json_str(member, "?"));
	}
	return 0;
}

static int open_listed(struct moe_tensors *s, const char *dir, const struct moe_hf_index *x, const char *what, struct moe_err *e)
{
	for (size_t i = 0; i < x->n_files; i++) {
		size_t before = moe_tensors_count(s);
		char *path = moe_path_join(dir, x->files[i], e);
		int rc = path ? moe_st_open(s, path, e) : MOE_E_NOMEM;

		free(path);
		rc = rc ? rc : check_listed(s, before, x, x->files[i], what, e);
		if (rc)
			return rc;
	}
	return check_present(s, x, what, e);
}

static int open_indexed(struct moe_tensors *s, const char *dir, const char *path, struct moe_err *e)
{
	struct moe_hf_index x;
	char *text;
	size_t len;
	int rc = moe_read_regular(path, MOST_INDEX, &text, &len, e);

	if (rc)
		return rc;
	rc = moe_hf_index_parse(text, len, path, &x, e);
	free(text);
	if (rc)
		return rc;
	rc = open_listed(s, dir, &x, path, e);
	moe_hf_index_free(&x);
	return rc;
}

static int open_weights(struct moe_tensors *s, const char *dir, struct moe_err *e)
{
	char *one = moe_path_join(dir, "model.safetensors", e);
	char *index = moe_path_join(dir, "model.safetensors.index.json", e);
	int rc;

	if (!one || !index)
		rc = MOE_E_NOMEM;
	else if (moe_exists(one))
		rc = moe_st_open(s, one, e);
	else if (moe_exists(index))
		rc = open_indexed(s, dir, index, e);
	else
		rc = moe_fail(e, MOE_E_MISSING, "%s: neither model.safetensors nor model.safetensors.index.json", dir);
	free(one);
	free(index);
	return rc;
}

/* Every tensor is one that the model has, under one name only, in the shape it must have. */
static int check_tensors(const struct moe_tensors *s, const struct moe_model *m, struct moe_err *e)
{
	for (size_t i = 0; i < moe_tensors_count(s); i++) {
		const struct moe_tensor *t = moe_tensors_at(s, i), *first, *second;
		struct moe_tensor_id id;
		int rc;

		if (!moe_tensor_identify(m, t->name, &id))
			return moe_fail(e, MOE_E_UNSUPPORTED, "tensor %s is none that this %s model has", t->name, m->name);
		rc = moe_tensor_check_shape(m, id, t, e);
		if (rc)
			return rc;
		if (id.role == MOE_R_ROTARY)
			continue;
		first = moe_tensor_lookup(s, m, id, &second);
		if (second)
			return moe_fail(e, MOE_E_INPUT, "tensors %s and %s are the same thing", first->name, second->name);
	}
	return 0;
}

static int check_needed(const struct moe_tensors *s, const struct moe_model *m, struct moe_err *e)
{
	struct moe_base_weights base;
	struct moe_expert_weights expert;
	int rc = moe_bind_base(s, m, &base, e);

	if (rc)
		return rc;
	moe_base_free(&base);
	for (int l = 0; l < m->n_layers; l++)
		for (int x = 0; x < m->layers[l].ffn.experts; x++) {
			rc = moe_bind_expert(s, m, l, x, &expert, e);
			if (rc)
				return rc;
		}
	return 0;
}

int moe_checkpoint_check(const struct moe_tensors *s, const struct moe_model *m, const char *what, struct moe_err *e)
{
	int rc = check_tensors(s, m, e);

	rc = rc ? rc : check_needed(s, m, e);
	return rc ? moe_fail_prefix(e, rc, "%s", what) : 0;
}

/* Where weights are coded, tensors that read as values take the place of what the files have. */
static int decode(struct moe_checkpoint *c, const char *dir, struct moe_err *e)
{
	struct moe_quantization q;
	struct moe_tensors *coded;
	struct moe_json *json;
	int rc = moe_json_parse(c->config, c->config_len, "config.json", &json, e);

	if (rc)
		return rc;
	rc = moe_quantization_read(json, "config.json", &q, e);
	moe_json_free(json);
	if (rc || q.method == MOE_METHOD_NONE)
		return rc;
	rc = moe_coded_open(&q, &c->model, c->tensors, &coded, e);
	if (rc)
		return moe_fail_prefix(e, rc, "%s", dir);
	c->coding = q.name;
	c->files = c->tensors;
	c->tensors = coded;
	return 0;
}

static int open_all(struct moe_checkpoint *c, const char *dir, struct moe_err *e)
{
	int rc = moe_tensors_new(&c->tensors, e);

	if (rc)
		return rc;
	c->path = moe_strdup(dir, e);
	if (!c->path)
		return MOE_E_NOMEM;
	rc = read_model(dir, &c->model, &c->config, &c->config_len, e);
	rc = rc ? rc : open_weights(c->tensors, dir, e);
	rc = rc ? rc : decode(c, dir, e);
	return rc ? rc : moe_checkpoint_check(c->tensors, &c->model, dir, e);
}

int moe_checkpoint_open(const char *dir, struct moe_checkpoint **out, struct moe_err *e)
{
	struct moe_checkpoint *c = moe_calloc(1, sizeof *c, "checkpoint", e);
	int rc;

	if (!c)
		return MOE_E_NOMEM;
	rc = open_all(c, dir, e);
	if (rc)
		moe_checkpoint_close(c);
	else
		*out = c;
	return rc;
}

void moe_checkpoint_close(struct moe_checkpoint *c)
{
	if (!c)
		return;
	moe_model_free(&c->model);
	moe_tensors_free(c->tensors);
	moe_tensors_free(c->files);
	free(c->path);
	free(c->config);
	free(c);
}

static bool has(const char *dir, const char *name)
{
	char *path = moe_path_join(dir, name, NULL);
	bool there = path && moe_exists(path);

	free(path);
	return there;
}

bool moe_checkpoint_is(const char *dir)
{
	return has(dir, "config.json") && !has(dir, "manifest.json") &&
	       (has(dir, "model.safetensors") || has(dir, "model.safetensors.index.json"));
}
