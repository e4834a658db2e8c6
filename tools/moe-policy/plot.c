/* --plot: the roofline with the policy's operations. */
#include <stdio.h>

#include "base/file.h"
#include "policy.h"

int write_plot(const struct options *o, const struct solution *s, struct moe_err *e)
{
	struct moe_buf out = MOE_BUF_INIT;
	char title[256];
	int rc;

	snprintf(title, sizeof title, "%s on %s", o->model, s->setting.hardware->name);
	rc = moe_roofline_svg(&s->setting, &s->execution, title, &out, e);
	rc = rc ? rc : moe_write_file(o->plot, out.data, out.len, e);
	moe_buf_free(&out);
	return rc;
}
