/* What the files of moe-shard share. */
#ifndef MOE_SHARD_TOOL_H
#define MOE_SHARD_TOOL_H

#include "base/opts.h"
#include "base/team.h"
#include "compute/compute.h"
#include "shard/shard.h"

struct shard_args {
	const char *policy, *placement, *usage, *quant, *layout, *importance;
	const char *device, *host, *hosts; /* of whom files are listed, or verified; device: a list of numbers */
	int64_t devices, threads;
	bool info, verify, merge, gc, list_files, base, dry_run;
};

/* Where the experts go, from --policy, --placement and --devices.  *devices: those of the policy, caller frees; else NULL. */
int choose_placement(const struct shard_args *a, struct moe_source *s, struct moe_placement *out,
                     struct moe_device **devices, struct moe_err *e);

/* --list-files: print the files of a set that a host needs. */
int list_files(const struct shard_args *a, const char *dir, struct moe_err *e);

/* Who lets every expert compute one row, for the manifest. */
struct probes {
	struct moe_team *team;
	struct moe_backend *backend;
	char numerics[MOE_NUMERICS_TEXT];
	struct moe_shard_probe how;
};
/* threads 0: all cores.  probes_close in any case. */
int probes_open(struct probes *p, int threads, struct moe_err *e);
void probes_close(struct probes *p);

#endif
