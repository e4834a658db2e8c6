/* Which rank this is: from the command line or from the launcher's environment. */
#include <stdlib.h>
#include <string.h>

#include "base/opts.h"
#include "serve.h"

/* What each launcher calls the rank, the rank among those of this host, and how many these are. */
static const struct launcher {
	const char *rank, *place, *neighbours;
} launchers[] = {
	{"SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"},
	{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
	{"PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
	{"LWS_WORKER_INDEX", NULL, NULL},
};

static int env_number(const char *name, int lo, int otherwise, int *out, struct moe_err *e)
{
	const char *text = name ? getenv(name) : NULL;
	int64_t v;

	*out = otherwise;
	if (!text)
		return 0;
	if (!moe_parse_int(text, lo, MOE_MAX_DEVICES, &v))
		return moe_fail(e, MOE_E_INPUT, "%s=%s is not a number from %d to %d", name, text, lo, MOE_MAX_DEVICES);
	*out = (int)v;
	return 0;
}

int rank_from_env(int *rank, const char **variable, int *place, int *neighbours, struct moe_err *e)
{
	for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
		const struct launcher *l = &launchers[i];
		int rc;

		if (!getenv(l->rank))
			continue;
		*variable = l->rank;
		rc = env_number(l->rank, 0, 0, rank, e);
		if (!rc)
			rc = env_number(l->place, 0, 0, place, e);
		return rc ? rc : env_number(l->neighbours, 1, 1, neighbours, e);
	}
	return moe_fail(e, MOE_E_MISSING,
	                "--rank env: none of SLURM_PROCID, OMPI_COMM_WORLD_RANK, PMI_RANK, LWS_WORKER_INDEX is set");
}

bool rank_range(const char *text, int *first, int *last)
{
	const char *dash = strchr(text, '-');
	char left[16];
	int64_t a, b;

	if (!dash || (size_t)(dash - text) >= sizeof left)
		return moe_parse_int(text, 0, MOE_MAX_DEVICES - 1, &a) && (*first = *last = (int)a, true);
	memcpy(left, text, (size_t)(dash - text));
	left[dash - text] = 0;
	if (!moe_parse_int(left, 0, MOE_MAX_DEVICES - 1, &a) || !moe_parse_int(dash + 1, a, MOE_MAX_DEVICES - 1, &b))
		return false;
	*first = (int)a;
	*last = (int)b;
	return true;
}
