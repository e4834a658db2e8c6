/* Which rank this is, and which port it has: from the command line or from the launcher's environment. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "serve.h"

/* What each launcher calls the rank, the rank among those of this host, and how many these are. */
static const struct launcher {
	const char *rank, *place, *neighbours;
} launchers[] = {
	{"MOE_RANK", NULL, NULL},
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
	                "--rank env: none of MOE_RANK, SLURM_PROCID, OMPI_COMM_WORLD_RANK, PMI_RANK, LWS_WORKER_INDEX is set");
}

/* ---- ports ---- */

static const char port_from_env[] = ":env";

/* The text before ":env", or 0. */
static size_t before_env(const char *bind)
{
	size_t n = strlen(bind), tail = sizeof port_from_env - 1;

	return strncmp(bind, "tcp://", 6) == 0 && n > tail + 6 && strcmp(bind + n - tail, port_from_env) == 0 ? n - tail : 0;
}

bool bind_by_env(const char *bind)
{
	return before_env(bind) > 0;
}

char *bind_form(const char *bind, struct moe_err *e)
{
	return bind_by_env(bind) ? moe_sprintf(e, "%.*s:0", (int)before_env(bind), bind) : moe_strdup(bind, e);
}

char *bind_from_env(const char *bind, int place, struct moe_err *e)
{
	static const char name[] = "SLURM_STEP_RESV_PORTS";
	const char *text = getenv(name);
	int64_t ports[MOE_MAX_DEVICES];
	int n;

	if (!text) {
		moe_fail(e, MOE_E_MISSING, "--bind %s: %s is not set (srun --resv-ports)", bind, name);
		return NULL;
	}
	n = moe_parse_int_list(text, 1, 65535, ports, MOE_MAX_DEVICES);
	if (n < 1)
		moe_fail(e, MOE_E_INPUT, "%s=%s is not a list of ports", name, text);
	else if (place >= n)
		moe_fail(e, MOE_E_RANGE, "%s=%s: %d port%s, too few for the servers of this host (srun --resv-ports=N)", name, text, n,
		         n == 1 ? "" : "s");
	else
		return moe_sprintf(e, "%.*s:%d", (int)before_env(bind), bind, (int)ports[place]);
	return NULL;
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
