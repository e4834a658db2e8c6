#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "shard.h"

#define FILE_CAP ((size_t)256 << 20)

static int from_file(const char *path, int devices, const struct moe_source *s, struct moe_placement *out, struct moe_err *e)
{
	struct moe_json *j;
	int rc = moe_json_read(path, FILE_CAP, &j, e);

	if (rc)
		return rc;
	rc = moe_placement_from_json(j, path, &s->model, devices, out, e);
	moe_json_free(j);
	return rc;
}

/* Devices alike, memory enough, one copy of each: as even as use was. */
static int by_usage(const char *path, int devices, struct moe_source *s, struct moe_placement *out, struct moe_err *e)
{
	struct moe_place_problem p = {.model = &s->model, .n = devices, .bytes = moe_source_expert_bytes, .ctx = s};
	struct moe_device *alike = moe_calloc((size_t)devices, sizeof *alike, "devices", e);
	struct moe_usage usage;
	int rc = alike ? moe_usage_read(path, &s->model, &usage, e) : MOE_E_NOMEM;

	if (rc == 0) {
		p.devices = alike;
		p.usage = &usage;
		rc = moe_place_fleet(&p, out, e);
		moe_usage_free(&usage);
	}
	free(alike);
	return rc;
}

/* A policy that was edited may ask too much of a server.  What is quantised on the way gets smaller, and a single machine may
 * keep experts on its disk: neither is known here. */
static int from_policy(const struct shard_args *a, struct moe_source *s, struct moe_placement *out, struct moe_device **devices,
                       struct moe_err *e)
{
	int rc = moe_policy_read(a->policy, &s->model, devices, out, e);
	bool plain = !a->quant && out->devices > 1;

	if (rc)
		return rc;
	for (int d = 0; d < out->devices; d++)
		plain &= !(*devices)[d].quant[0];
	rc = plain ? moe_placement_fits(out, *devices, moe_source_expert_bytes, s, e) : 0;
	if (rc == 0)
		return 0;
	moe_placement_free(out);
	free(*devices);
	*devices = NULL;
	return moe_fail_prefix(e, rc, "%s", a->policy);
}

static int choose(const struct shard_args *a, struct moe_source *s, struct moe_placement *out,
                  struct moe_device **policy_devices, struct moe_err *e)
{
	int devices = a->devices ? (int)a->devices : 1;

	if (a->policy)
		return from_policy(a, s, out, policy_devices, e);
	if (!a->placement || strcmp(a->placement, "balanced") == 0)
		return moe_place_balanced(&s->model, devices, moe_source_expert_bytes, s, out, e);
	if (strcmp(a->placement, "round-robin") == 0)
		return moe_place_round_robin(&s->model, devices, out, e);
	if (strcmp(a->placement, "usage") == 0)
		return by_usage(a->usage, devices, s, out, e);
	return from_file(a->placement, (int)a->devices, s, out, e);
}

int choose_placement(const struct shard_args *a, struct moe_source *s, struct moe_placement *out,
                     struct moe_device **devices, struct moe_err *e)
{
	int rc = choose(a, s, out, devices, e);

	if (rc == 0)
		moe_log(MOE_DEBUG, "%s: %s, %d layers, placed %s over %d device%s, imbalance %.2f %%", s->path, s->model.name,
		        s->model.n_layers, a->policy ? a->policy : a->placement ? a->placement : "balanced", out->devices,
		        out->devices == 1 ? "" : "s", 100 * moe_placement_imbalance(out, moe_source_expert_bytes, s));
	return rc;
}
