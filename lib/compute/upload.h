/* Weights of experts in a device's memory, each in a piece of its own that several struct moe_experts may share. */
#ifndef MOE_COMPUTE_UPLOAD_H
#define MOE_COMPUTE_UPLOAD_H

#include "compute/compute.h"

struct moe_upload;
/* Bytes that an expert takes there; false: that overflows. */
bool moe_upload_bytes(const struct moe_expert_weights *w, size_t *bytes);
/* Copy an expert there.  The weights stay the caller's until moe_backend_ops.sync.  Caller owns: moe_upload_release. */
int moe_upload_new(struct moe_backend *b, const struct moe_expert_weights *w, struct moe_upload **out, struct moe_err *e);
/* One more that uses it. */
struct moe_upload *moe_upload_keep(struct moe_upload *u);
/* One fewer; the last frees it.  NULL is fine.  From any thread. */
void moe_upload_release(struct moe_upload *u);
/* The expert as the device has it. */
struct moe_expert_weights moe_upload_weights(const struct moe_upload *u);

#endif
