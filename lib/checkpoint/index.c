/* model.safetensors.index.json: which file holds which tensor. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "checkpoint/private.h"

static int list_files(struct moe_hf_index *x, struct moe_index *seen, const char *what, struct moe_err *e)
{
	size_t n = moe_json_count(x->map);

	x->files = moe_calloc(n, sizeof *x->files, what, e);
	if (!x->files)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct moe_json *member = moe_json_at(x->map, i);
		const char *file = moe_json_str(member, NULL);
		int added;

		if (!file)
			return moe_fail(e, MOE_E_INPUT, "%s: weight_map: tensor %s: the file name is no string", what,
			                moe_json_name(member));
		if (!moe_path_is_plain(file))
			return moe_fail(e, MOE_E_INPUT, "%s: weight_map: tensor %s: \"%s\" is no plain file name", what,
			                moe_json_name(member), file);
		added = moe_index_add(seen, file, strlen(file), 0, NULL);
		if (added < 0)
			return moe_fail(e, MOE_E_NOMEM, "%s: no memory", what);
		if (added)
			x->files[x->n_files++] = file;
	}
	return 0;
}

static int read_map(struct moe_hf_index *x, const char *what, struct moe_err *e)
{
	struct moe_index *seen;
	int rc;

	x->map = moe_json_get(x->json, "weight_map");
	if (moe_json_type(x->map) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: no \"weight_map\"", what);
	if (moe_json_count(x->map) == 0)
		return moe_fail(e, MOE_E_INPUT, "%s: \"weight_map\" is empty", what);
	seen = moe_index_new(0, e);
	if (!seen)
		return MOE_E_NOMEM;
	rc = list_files(x, seen, what, e);
	moe_index_free(seen);
	return rc;
}

int moe_hf_index_parse(const char *text, size_t len, const char *what, struct moe_hf_index *out, struct moe_err *e)
{
	struct moe_hf_index x = {0};
	int rc = moe_json_parse(text, len, what, &x.json, e);

	if (rc)
		return rc;
	rc = read_map(&x, what, e);
	if (rc)
		moe_hf_index_free(&x);
	else
		*out = x;
	return rc;
}

void moe_hf_index_free(struct moe_hf_index *x)
{
	free(x->files);
	moe_json_free(x->json);
	*x = (struct moe_hf_index){0};
}
