/* Weights of experts brought into a device's memory. */
#ifndef MOE_COMPUTE_UPLOAD_H
#define MOE_COMPUTE_UPLOAD_H

#include "compute/compute.h"

/* Bytes that the experts of w[n] take there; those without data take none.  False: the sum overflows. */
bool moe_upload_bytes(const struct moe_expert_weights *w, size_t n, size_t *bytes);
/* Copy them to `mem`, which has so many bytes, and let w speak of the copies.  Waits for the copies; if one fails, w is of no use. */
int moe_upload(struct moe_backend *b, unsigned char *mem, struct moe_expert_weights *w, size_t n, struct moe_err *e);

#endif
