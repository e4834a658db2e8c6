/* Where a text begins and ends: bos and eos ids of config.json and generation_config.json. */
#include <limits.h>

#include "checkpoint/private.h"

/* An id the model has no row for can be neither fed nor produced: as if it were not there. */
static int add_eos(int64_t id, const char *what, struct moe_model *m, struct moe_err *e)
{
	if (id < 0 || id >= m->vocab)
		return 0;
	for (int i = 0; i < m->n_eos; i++)
		if (m->eos[i] == id)
			return 0;
	if (m->n_eos == (int)(sizeof m->eos / sizeof m->eos[0]))
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: more than %d ids in \"eos_token_id\"", what, m->n_eos);
	m->eos[m->n_eos++] = (int)id;
	return 0;
}

static bool is_id(const struct moe_json *v, int64_t *id)
{
	return moe_json_int(v, id) && *id >= -1 && *id <= INT_MAX; /* -1: how some files say none */
}

static int read_eos(const struct moe_json *v, const char *what, struct moe_model *m, struct moe_err *e)
{
	bool list = moe_json_type(v) == MOE_JSON_ARRAY;
	size_t n = list ? moe_json_count(v) : 1;

	for (size_t i = 0; i < n; i++) {
		int64_t id;
		int rc;

		if (!is_id(list ? moe_json_at(v, i) : v, &id))
			return moe_fail(e, MOE_E_INPUT, "%s: \"eos_token_id\" is neither a token id nor a list of them", what);
		rc = add_eos(id, what, m, e);
		if (rc)
			return rc;
	}
	return 0;
}

int moe_config_tokens(const struct moe_json *json, const char *what, int bos, int eos, struct moe_model *m, struct moe_err *e)
{
	const struct moe_json *b = moe_json_get(json, "bos_token_id"), *end = moe_json_get(json, "eos_token_id");
	int64_t id = bos;

	if (b && moe_json_type(b) == MOE_JSON_NULL)
		id = -1;
	else if (b && !is_id(b, &id))
		return moe_fail(e, MOE_E_INPUT, "%s: \"bos_token_id\" is no token id", what);
	m->bos = id < m->vocab ? (int)id : -1;
	if (!end)
		return add_eos(eos, what, m, e);
	return moe_json_type(end) == MOE_JSON_NULL ? 0 : read_eos(end, what, m, e);
}

int moe_model_add_generation(struct moe_model *m, const struct moe_json *generation, const char *what, struct moe_err *e)
{
	if (moe_json_type(generation) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "%s: not an object", what);
	/* What it does not say stays as config.json has it. */
	return moe_config_tokens(generation, what, m->bos, -1, m, e);
}
