/* --export: the placement as other programs read it. */
#include <stdio.h>

#include "base/words.h"
#include "policy.h"

int print_export(const struct options *o, const struct subject *s, const struct site *site, const struct moe_placement *p,
                 struct moe_err *e)
{
	static const char *const names[] = {"vllm", "tensorrt-llm", "llama.cpp", "hosts", "slurm", NULL};
	struct moe_buf text = MOE_BUF_INIT;
	enum moe_export format;
	int rc;

	if (!moe_export_named(o->export, &format)) {
		const char *near = moe_nearest(o->export, names);

		return moe_fail(e, MOE_E_INPUT, "--export: there is no format \"%s\"%s%s%s", o->export, near ? ": is " : "",
		                near ? near : "", near ? " meant?" : "");
	}
	rc = moe_placement_export(format, &s->model, site->devices, site->n, p, &text, e);
	if (rc == 0)
		fwrite(text.data, 1, text.len, stdout);
	moe_buf_free(&text);
	return rc;
}
