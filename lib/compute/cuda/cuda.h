/* The CUDA backend as the rest of the room sees it; there when built with MOE_CUDA. */
#ifndef MOE_CUDA_H
#define MOE_CUDA_H

#include "compute/compute.h"

/* GPUs of this machine; 0 without a driver. */
int moe_cuda_count(void);
/* GPU number `index`; c->device has been read already.  MOE_E_UNSUPPORTED: no driver, no such GPU, or one that cannot do what
 * c->numerics need, all named. */
int moe_cuda_open(const struct moe_device_config *c, int index, struct moe_backend **out, struct moe_err *e);
/* moe_device_text of a backend that moe_cuda_open made. */
const char *moe_cuda_text(struct moe_backend *b, char *buf);

#endif
