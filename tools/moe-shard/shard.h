/* What the files of moe-shard share. */
#ifndef MOE_SHARD_TOOL_H
#define MOE_SHARD_TOOL_H

#include "base/opts.h"
#include "shard/shard.h"

struct shard_args {
	const char *policy, *placement, *usage, *quant, *layout, *importance;
	int64_t devices, device, threads; /* device: -1: all */
	bool info, verify, merge, gc, dry_run;
};

/* Where the experts go, from --policy, --placement and --devices.  *devices: those of the policy, caller frees; else NULL. */
int choose_placement(const struct shard_args *a, struct moe_source *s, struct moe_placement *out,
                     struct moe_device **devices, struct moe_err *e);

#endif
