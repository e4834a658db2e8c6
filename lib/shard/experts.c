/* Some experts of a source, compared with their checksums: what a server loads while it goes on serving. */
#include <stdlib.h>
#include <string.h>

#include "shard/private.h"

struct getter {
	struct moe_source *s;
	struct moe_pick pick;
	struct moe_tensors *to;
	const struct moe_load_tick *tick;
	uint64_t done, total;
};

static bool is_picked(const struct getter *g, const struct moe_manifest_expert *x)
{
	return g->pick.file[x->layer * g->pick.wide + x->expert] == x->file;
}

static int check_sum(struct getter *g, const struct moe_manifest_expert *x, const struct moe_map *map, struct moe_err *e)
{
	struct moe_hash found;

	moe_hash_text(XXH3_128bits(map->data + x->offset, (size_t)x->bytes), &found);
	g->done += x->bytes;
	if (moe_map_check(map, e))
		return MOE_E_IO;
	if (strcmp(found.hex, x->hash.hex) != 0)
		return moe_fail(e, MOE_E_SUM, "%s: checksum differs (layer %d, expert %d)", g->s->manifest.files[x->file].name, x->layer,
		                x->expert);
	if (g->tick && !g->tick->fn(g->tick->ctx, g->done, g->total))
		return moe_fail(e, MOE_E_CANCELLED, "stopped while loading experts");
	return 0;
}

/* rows[from..to) are those of this file. */
static int add_file(struct getter *g, int file, int from, int to, struct moe_err *e)
{
	const struct moe_manifest *man = &g->s->manifest;
	const struct moe_map *map;
	int rc = moe_source_add_file(g->s, file, &g->pick, g->to, &map, e);

	for (int i = from; i < to && !rc; i++)
		if (is_picked(g, &man->experts[i]))
			rc = check_sum(g, &man->experts[i], map, e);
	return rc;
}

static int add_picked(struct getter *g, struct moe_err *e)
{
	const struct moe_manifest *man = &g->s->manifest;
	int rc = 0;

	for (int i = 0; i < man->n_experts; i++)
		g->total += is_picked(g, &man->experts[i]) ? man->experts[i].bytes : 0;
	for (int from = 0, to; from < man->n_experts && !rc; from = to) {
		int file = man->experts[from].file;
		bool any = false;

		for (to = from; to < man->n_experts && man->experts[to].file == file; to++)
			any = any || is_picked(g, &man->experts[to]);
		if (any)
			rc = add_file(g, file, from, to, e);
	}
	return rc;
}

int moe_source_experts(struct moe_source *s, int device, const uint8_t *want, const struct moe_load_tick *tick, struct moe_tensors **out,
                       struct moe_err *e)
{
	struct getter g = {.s = s, .tick = tick};
	int rc = moe_tensors_new(&g.to, e);

	if (rc)
		return rc;
	if (s->sharded) {
		rc = moe_pick_experts(s, device, want, &g.pick, e);
		rc = rc ? rc : add_picked(&g, e);
		moe_pick_free(&g.pick);
	} else {
		rc = moe_source_add_views(s, 0, g.to, e);
	}
	rc = rc ? rc : moe_tensors_fit(&s->model, &g.to, s->path, &s->made_bytes, e);
	if (rc)
		moe_tensors_free(g.to);
	else
		*out = g.to;
	return rc;
}

const struct moe_manifest_expert *moe_source_expert(const struct moe_source *s, int device, int layer, int expert)
{
	int n;
	const int *devices = moe_placement_of(&s->placement, layer, expert, &n);
	int holder = device >= 0 && moe_placement_holds(&s->placement, device, layer, expert) ? device : devices[0];

	for (int i = 0; s->sharded && i < s->manifest.n_files; i++)
		if (s->manifest.files[i].device == holder)
			return moe_manifest_find(&s->manifest, i, layer, expert);
	return NULL;
}
