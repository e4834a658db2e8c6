/* Which files of a set a host needs: what to copy there. */
#include <string.h>

#include "shard/private.h"

struct lister {
	moe_shard_file *file;
	void *ctx;
	const struct moe_manifest *man;
};

static void list_device(const struct lister *l, int device)
{
	for (int i = 0; i < l->man->n_files; i++)
		if (l->man->files[i].device == device)
			l->file(l->ctx, l->man->files[i].name);
}

/* Every companion of config.json, or (a server knows no text) that one alone. */
static int list_copied(const struct lister *l, const char *dir, bool all, struct moe_err *e)
{
	struct moe_copied_set s;
	int rc = moe_copied_read(dir, NULL, 0, &s, e);

	if (rc)
		return rc;
	for (int i = 0; i < s.n; i++)
		if (all || strcmp(s.v[i].name, "config.json") == 0)
			l->file(l->ctx, s.v[i].name);
	moe_copied_free(&s);
	return 0;
}

int moe_shard_list(const struct moe_source *s, const int64_t *devices, int n, bool base, moe_shard_file *file, void *ctx,
                   struct moe_err *e)
{
	struct lister l = {file, ctx, &s->manifest};
	int rc;

	if (!s->sharded)
		return moe_fail(e, MOE_E_UNSUPPORTED, "%s: is not a shard set", s->path);
	for (int i = 0; i < n; i++)
		if (devices[i] < 0 || devices[i] >= s->placement.devices)
			return moe_fail(e, MOE_E_RANGE, "device %lld: %s has %d device%s (0 to %d)", (long long)devices[i], s->path,
			                s->placement.devices, s->placement.devices == 1 ? "" : "s", s->placement.devices - 1);
	if (base)
		list_device(&l, MOE_BASE);
	for (int i = 0; i < n; i++)
		list_device(&l, (int)devices[i]);
	rc = list_copied(&l, s->path, base, e);
	if (!rc)
		file(ctx, MOE_MANIFEST_NAME);
	return rc;
}
