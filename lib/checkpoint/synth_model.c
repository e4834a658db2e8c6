/* The shape of a synthetic checkpoint without its weights. */
#include <stdlib.h>

#include "checkpoint/synth.h"

int moe_synth_model(const char *spec, struct moe_model *out, struct moe_err *e)
{
	struct moe_synth_spec s;
	struct moe_json *json;
	char *text = NULL;
	size_t len;
	int rc = moe_synth_parse(spec, &s, e);

	rc = rc ? rc : moe_synth_config(&s, NULL, &text, &len, e);
	rc = rc ? rc : moe_json_parse(text, len, "synthetic checkpoint", &json, e);
	free(text);
	if (rc)
		return rc;
	rc = moe_model_from_config(json, "synthetic checkpoint", out, e);
	moe_json_free(json);
	return rc;
}
