/* The device that a run is to use. */
#include <stdio.h>
#include <string.h>

#include "base/opts.h"
#include "run/private.h"

static int open_device(struct moe_run *r, const struct moe_run_config *c, const struct run_policy *p, const char *device, struct moe_err *e)
{
	struct moe_device_config d = {.device = device, .memory = c->offload.memory, .link_bandwidth = (double)c->offload.link_bandwidth,
	                              .threads = c->threads, .numerics = r->numerics};
	int rc;

	if (!d.memory && p->path && strcmp(device, "cpu") == 0 && p->gpu_memory < (double)SIZE_MAX)
		d.memory = (size_t)p->gpu_memory;
	d.numerics.kind = moe_device_kind(device, d.numerics.activation);
	rc = moe_device_open(&d, &r->device, e);
	if (rc == 0)
		r->numerics.kind = d.numerics.kind;
	return rc;
}

/* Why there is none, and what would do instead. */
static int no_device(const struct run_policy *p, int rc, struct moe_err *e)
{
	char size[32];

	if (!p->path)
		return rc;
	return moe_fail_prefix(e, rc, "%s is for a device of %s (--device cpu imitates one)", p->path, moe_size_text(p->gpu_memory, size));
}

int moe_run_device(struct moe_run *r, const struct moe_run_config *c, const struct run_policy *p, struct moe_err *e)
{
	const char *device = c->offload.device;
	struct moe_err why = MOE_ERR_INIT;
	int rc;

	if (p->path && p->on_host && moe_run_asks_device(&c->offload))
		return moe_fail(e, MOE_E_INPUT, "%s has the host compute everything, and %s is for a device: leave one of them out", p->path,
		                moe_run_asks_device(&c->offload));
	if (p->path && !p->on_host && !device)
		device = "cuda";
	if (!device)
		return 0;
	if (strcmp(device, "auto") != 0) {
		rc = open_device(r, c, p, device, e);
		return rc ? no_device(p, rc, e) : 0;
	}
	rc = open_device(r, c, p, "cuda", &why);
	if (rc == MOE_E_UNSUPPORTED)
		return moe_buf_printf(&r->notes, e, "--device auto: the host computes alone: %s\n", why.msg);
	if (rc && e)
		*e = why;
	return rc;
}
