/* Which device a name means. */
#include <stdio.h>
#include <string.h>

#include "base/opts.h"
#include "compute/compute.h"
#include "cpu/device.h"
#ifdef MOE_CUDA
#include "cuda/cuda.h"
#endif

#define MOST_GPUS 1024

/* "cuda" is "cuda:0"; -1: not of that form. */
static int gpu_number(const char *name)
{
	int64_t n;

	if (strcmp(name, "cuda") == 0)
		return 0;
	return strncmp(name, "cuda:", 5) == 0 && moe_parse_int(name + 5, 0, MOST_GPUS - 1, &n) ? (int)n : -1;
}

int moe_device_check(const char *device, struct moe_err *e)
{
	if (strcmp(device, "cpu") == 0 || strcmp(device, "auto") == 0 || gpu_number(device) >= 0)
		return 0;
	return moe_fail(e, MOE_E_RANGE, "--device %s: not cpu, cuda, cuda:N or auto", device);
}

/* Products of integers are exact, and those of f32 keep their order there; tensor cores add up bf16 in an order of their own. */
enum moe_kind moe_device_kind(const char *device, enum moe_activation a)
{
	return strncmp(device, "cuda", 4) == 0 && a == MOE_A_BF16 ? MOE_KIND_CUDA : MOE_KIND_CPU;
}

#ifdef MOE_CUDA
int moe_device_gpus(void)
{
	return moe_cuda_count();
}

static int open_gpu(const struct moe_device_config *c, int index, struct moe_backend **out, struct moe_err *e)
{
	if (c->link_bandwidth > 0)
		return moe_fail(e, MOE_E_UNSUPPORTED, "the link of a GPU is as fast as it is: only the CPU as a device has a rate");
	return moe_cuda_open(c, index, out, e);
}
#else
int moe_device_gpus(void)
{
	return 0;
}

static int open_gpu(const struct moe_device_config *c, int index, struct moe_backend **out, struct moe_err *e)
{
	(void)index, (void)out;
	return moe_fail(e, MOE_E_UNSUPPORTED, "device %s: this moe-tools was built without CUDA", c->device);
}
#endif

int moe_device_open(const struct moe_device_config *c, struct moe_backend **out, struct moe_err *e)
{
	int gpu = gpu_number(c->device), rc = moe_device_check(c->device, e);

	if (rc)
		return rc;
	if (strcmp(c->device, "auto") == 0)
		gpu = moe_device_gpus() > 0 ? 0 : -1;
	return gpu < 0 ? moe_cpu_device_open(c, out, e) : open_gpu(c, gpu, out, e);
}

const char *moe_device_text(struct moe_backend *b, char buf[MOE_DEVICE_TEXT])
{
#ifdef MOE_CUDA
	if (strcmp(b->ops->name, "cuda") == 0)
		return moe_cuda_text(b, buf);
#endif
	if (!b->ops->host_memory)
		return moe_cpu_device_text(b, buf);
	snprintf(buf, MOE_DEVICE_TEXT, "cpu (%s)", moe_backend_cpu_isa(b));
	return buf;
}
