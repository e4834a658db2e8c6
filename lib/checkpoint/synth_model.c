/* The shape of a synthetic checkpoint without its weights. */
#include <stdlib.h>

#include "checkpoint/synth.h"

int moe_synth_describe(const struct moe_synth_spec *spec, const char *path, char **text, size_t *len, struct moe_model *out,
                       struct moe_err *e)
{
	const char *what = path ? path : "synthetic checkpoint";
	struct moe_json *json;
	int rc = moe_synth_config(spec, path, text, len, e);

	rc = rc ? rc : moe_json_parse(*text, *len, what, &json, e);
	if (rc)
		return rc;
	rc = moe_model_from_config(json, what, out, e);
	moe_json_free(json);
	return rc;
}

int moe_synth_model(const char *spec, struct moe_model *out, struct moe_err *e)
{
	struct moe_synth_spec s;
	char *text = NULL;
	size_t len;
	int rc = moe_synth_parse(spec, &s, e);

	rc = rc ? rc : moe_synth_describe(&s, NULL, &text, &len, out, e);
	free(text);
	return rc;
}
