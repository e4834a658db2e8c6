/* Placements by name or from a file. */
#include <string.h>

#include "base/mem.h"
#include "plan/plan.h"

#define FILE_CAP ((size_t)256 << 20)

static int round_robin(const struct moe_place_problem *p, struct moe_placement *out, struct moe_err *e)
{
	return moe_place_round_robin(p->model, p->n, out, e);
}

static int balanced(const struct moe_place_problem *p, struct moe_placement *out, struct moe_err *e)
{
	return moe_place_balanced(p->model, p->n, p->bytes, p->ctx, out, e);
}

static int capacity(const struct moe_place_problem *p, struct moe_placement *out, struct moe_err *e)
{
	return moe_place_capacity(p->model, p->devices, p->n, p->bytes, p->ctx, out, e);
}

static int usage(const struct moe_place_problem *p, struct moe_placement *out, struct moe_err *e)
{
	struct moe_place_problem flat = *p;

	flat.groups = 0;
	return moe_place_fleet(&flat, out, e);
}

static int count_hosts(const struct moe_place_problem *p)
{
	int hosts = 0;

	for (int d = 0; d < p->n; d++) {
		bool seen = false;

		for (int i = 0; i < d && !seen; i++)
			seen = strcmp(p->devices[i].host, p->devices[d].host) == 0;
		hosts += !seen;
	}
	return hosts;
}

static int hierarchical(const struct moe_place_problem *p, struct moe_placement *out, struct moe_err *e)
{
	struct moe_place_problem grouped = *p;

	if (grouped.groups <= 0)
		grouped.groups = count_hosts(p);
	return moe_place_fleet(&grouped, out, e);
}

static const struct {
	const char *name;
	int (*place)(const struct moe_place_problem *p, struct moe_placement *out, struct moe_err *e);
} ways[] = {
	{"round-robin", round_robin}, {"balanced", balanced}, {"capacity", capacity}, {"usage", usage}, {"hierarchical", hierarchical},
};

bool moe_place_is_named(const char *how)
{
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
		if (strcmp(how, ways[i].name) == 0)
			return true;
	return false;
}

static int from_file(const char *path, const struct moe_place_problem *p, struct moe_placement *out, struct moe_err *e)
{
	struct moe_json *j;
	int rc = moe_json_read(path, FILE_CAP, &j, e);

	if (rc)
		return rc;
	rc = moe_placement_from_json(j, path, p->model, p->n, out, e);
	moe_json_free(j);
	return rc;
}

int moe_place_named(const char *how, const struct moe_place_problem *p, struct moe_placement *out, struct moe_err *e)
{
	int rc = -1;

	for (size_t i = 0; i < sizeof ways / sizeof *ways && rc < 0; i++)
		if (strcmp(how, ways[i].name) == 0)
			rc = ways[i].place(p, out, e);
	if (rc < 0)
		rc = from_file(how, p, out, e);
	if (rc)
		return rc;
	rc = moe_placement_fits(out, p->devices, p->bytes, p->ctx, e);
	if (rc)
		moe_placement_free(out);
	return rc;
}
