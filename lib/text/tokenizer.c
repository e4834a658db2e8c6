/* A tokenizer: read from a model's folder, asked about its tokens. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "text/text_private.h"

#define MAX_FILE ((size_t)256 << 20)
#define MAX_CONFIG ((size_t)16 << 20)

static int check_version(const struct moe_json *root, const char *what, struct moe_err *e)
{
	const char *version = "1.0";
	int rc;

	if (moe_json_type(root) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: not a tokenizer: not a JSON object", what);
	rc = moe_json_need_str(root, "version", false, &version, what, e);
	if (!rc && strcmp(version, "1.0") != 0)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: tokenizer version %s is not supported", what, version);
	return rc;
}

/* "truncation" and "padding" are passed over: they are settings of the program that wrote the file, and those who
 * encode text for a model put them aside. */
static int read_parts(const struct moe_json *root, const char *what, struct moe_tokenizer *t, struct moe_err *e)
{
	const struct moe_json *model = moe_json_get(root, "model"), *added = moe_json_get(root, "added_tokens");
	int rc = check_version(root, what, e);

	if (rc)
		return rc;
	if (moe_json_type(model) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: no model", what);
	rc = text_vocab_read(moe_json_get(model, "vocab"), moe_json_count(added), what, &t->vocab, e);
	if (!rc)
		rc = text_bpe_read(model, &t->vocab, what, &t->bpe, e);
	if (!rc)
		rc = text_norms_read(moe_json_get(root, "normalizer"), what, &t->norms, e);
	if (!rc)
		rc = text_added_read(added, &t->norms, &t->vocab, what, &t->added, e);
	if (!rc)
		rc = text_pres_read(moe_json_get(root, "pre_tokenizer"), what, &t->pres, e);
	if (!rc)
		rc = text_post_read(moe_json_get(root, "post_processor"), &t->vocab, what, &t->post, e);
	return rc ? rc : text_decs_read(moe_json_get(root, "decoder"), what, &t->decs, e);
}

static int from_json(const struct moe_json *root, const char *what, struct moe_tokenizer **out, struct moe_err *e)
{
	struct moe_tokenizer *t = moe_calloc(1, sizeof *t, "a tokenizer", e);
	int rc;

	if (!t)
		return MOE_E_NOMEM;
	t->bos = t->eos = -1;
	rc = read_parts(root, what, t, e);
	if (rc) {
		moe_tokenizer_free(t);
		return rc;
	}
	*out = t;
	return 0;
}

int moe_tokenizer_parse(const char *json, size_t len, const char *what, struct moe_tokenizer **out, struct moe_err *e)
{
	struct moe_json *root = NULL;
	int rc = moe_json_parse(json, len, what, &root, e);

	if (!rc)
		rc = from_json(root, what, out, e);
	moe_json_free(root);
	return rc;
}

/* "bos_token": "<s>", or {"content": "<s>", ...}. */
static int named_token(const struct moe_tokenizer *t, const struct moe_json *config, const char *name)
{
	const struct moe_json *v = moe_json_get(config, name);
	const char *token = moe_json_str(moe_json_type(v) == MOE_JSON_OBJECT ? moe_json_get(v, "content") : v, NULL);

	return token ? moe_tokenizer_id(t, token) : -1;
}

static int read_config(const char *dir, struct moe_tokenizer *t, struct moe_err *e)
{
	char *path = moe_path_join(dir, "tokenizer_config.json", e);
	struct moe_json *config = NULL;
	int rc = 0;

	if (!path)
		return MOE_E_NOMEM;
	if (moe_exists(path))
		rc = moe_json_read_regular(path, MAX_CONFIG, &config, e);
	if (!rc && config && moe_json_type(config) != MOE_JSON_OBJECT)
		rc = moe_fail(e, MOE_E_INPUT, "%s: not an object", path);
	t->bos = named_token(t, config, "bos_token");
	t->eos = named_token(t, config, "eos_token");
	moe_json_free(config);
	free(path);
	return rc;
}

int moe_tokenizer_open(const char *dir, struct moe_tokenizer **out, struct moe_err *e)
{
	char *path = moe_path_join(dir, "tokenizer.json", e);
	struct moe_tokenizer *t = NULL;
	struct moe_json *root = NULL;
	int rc;

	if (!path)
		return MOE_E_NOMEM;
	rc = moe_json_read_regular(path, MAX_FILE, &root, e);
	if (!rc)
		rc = from_json(root, path, &t, e);
	moe_json_free(root);
	free(path);
	if (!rc)
		rc = read_config(dir, t, e);
	if (rc) {
		moe_tokenizer_free(t);
		return rc;
	}
	*out = t;
	return 0;
}

void moe_tokenizer_free(struct moe_tokenizer *t)
{
	if (!t)
		return;
	text_added_free(&t->added);
	text_norms_free(&t->norms);
	text_pres_free(&t->pres);
	text_post_free(&t->post);
	text_decs_free(&t->decs);
	text_bpe_free(&t->bpe);
	text_vocab_free(&t->vocab);
	free(t);
}

int moe_tokenizer_size(const struct moe_tokenizer *t)
{
	return t->vocab.n;
}

int moe_tokenizer_id(const struct moe_tokenizer *t, const char *token)
{
	return text_vocab_id(&t->vocab, token, strlen(token));
}

bool moe_tokenizer_is_special(const struct moe_tokenizer *t, int id)
{
	return id >= 0 && id < t->vocab.n && t->vocab.v[id].flags & TOKEN_SPECIAL;
}

int moe_tokenizer_bos(const struct moe_tokenizer *t)
{
	return t->bos;
}

int moe_tokenizer_eos(const struct moe_tokenizer *t)
{
	return t->eos;
}

void moe_ids_free(struct moe_ids *ids)
{
	free(ids->v);
	*ids = (struct moe_ids)MOE_IDS_INIT;
}
