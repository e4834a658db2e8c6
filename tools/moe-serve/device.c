/* What a server's experts are computed on: this host's processor, or a device with a memory of its own. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/opts.h"
#include "serve.h"

static bool is_cuda(const char *device)
{
	return device && strncmp(device, "cuda", 4) == 0;
}

int device_choose(struct plan *p, struct moe_err *e)
{
	bool any = p->o.device && strcmp(p->o.device, "auto") == 0;

	p->device = p->o.device;
	if (any || is_cuda(p->device))
		p->gpus = moe_device_gpus();
	if (any)
		p->device = p->gpus > 0 ? "cuda" : NULL;
	if (any && p->o.device_memory && !p->device)
		return moe_fail(e, MOE_E_UNSUPPORTED, "--device auto: there is no GPU, and --device-memory is for one");
	if (is_cuda(p->device) && p->gpus == 0)
		return moe_fail(e, MOE_E_UNSUPPORTED, "--device %s: there is no GPU here, or this is built without CUDA", p->device);
	p->o.numerics.kind = p->device ? moe_device_kind(p->device, p->o.numerics.activation) : MOE_KIND_CPU;
	return 0;
}

const char *device_name(const struct plan *p, int rank, char name[DEVICE_NAME])
{
	if (p->device && strcmp(p->device, "cuda") == 0)
		snprintf(name, DEVICE_NAME, "cuda:%d", rank == MOE_BASE ? 0 : rank % p->gpus);
	else
		snprintf(name, DEVICE_NAME, "%s", p->device ? p->device : "cpu");
	return name;
}

/* What moe_experts_local will take, before it does. */
static int check_memory(const struct plan *p, int rank, struct moe_backend *b, struct moe_err *e)
{
	uint64_t weights, need;
	struct moe_device_memory m;
	char a[32], buffers[32], has[32], name[DEVICE_NAME];
	size_t rows = moe_experts_local_bytes(&p->source->model, (int)p->o.max_rows);
	int rc = plan_weight_bytes(p, rank, &weights, e);

	if (rc)
		return rc;
	b->ops->memory(b, &m);
	if (m.cap == 0 || (!__builtin_add_overflow(weights, rows, &need) && need <= m.cap - m.used))
		return 0;
	return moe_fail(e, MOE_E_NOMEM,
	                "needs %s of experts and %s of buffers on %s, %s is available: cut the set for more devices, or lower --max-rows",
	                moe_size_text((double)weights, a), moe_size_text((double)rows, buffers), device_name(p, rank, name),
	                moe_size_text((double)(m.cap - m.used), has));
}

int device_open(const struct plan *p, int rank, struct moe_team *team, struct moe_backend **out, struct moe_err *e)
{
	char name[DEVICE_NAME];
	struct moe_device_config c = {.device = device_name(p, rank, name), .memory = p->o.device_memory, .threads = moe_team_size(team),
	                              .numerics = p->o.numerics};
	int rc;

	if (!p->device)
		return moe_backend_cpu(team, &p->o.numerics, out, e);
	rc = moe_device_open(&c, out, e);
	if (rc)
		return rc;
	rc = check_memory(p, rank, *out, e);
	if (rc) {
		(*out)->ops->close(*out);
		*out = NULL;
	}
	return rc;
}
