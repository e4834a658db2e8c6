/* Removing what no manifest names. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "shard/private.h"

struct gc {
	bool dry_run;
	void (*removed)(void *ctx, const char *name, uint64_t bytes);
	void *ctx;
};

static bool is_named(const struct moe_manifest *man, const char *name)
{
	for (int i = 0; i < man->n_files; i++)
		if (strcmp(man->files[i].name, name) == 0)
			return true;
	return false;
}

/* A data file of an older set, or a file that a killed run was writing.  Anything else is not ours to judge. */
static bool is_garbage(const struct moe_manifest *man, const char *name)
{
	if (moe_is_left_over(name))
		return moe_is_temporary(name);
	return moe_is_data_name(name) && !is_named(man, name);
}

static int remove_garbage(const struct gc *g, const struct moe_manifest *man, const char *dir, struct moe_err *e)
{
	DIR *d = opendir(dir);
	struct dirent *x;
	struct stat st;
	int rc = 0;

	if (!d)
		return moe_fail_errno(e, "%s", dir);
	while (rc == 0 && (x = readdir(d))) {
		if (!is_garbage(man, x->d_name) || fstatat(dirfd(d), x->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
		    S_ISDIR(st.st_mode))
			continue;
		if (!g->dry_run && unlinkat(dirfd(d), x->d_name, 0) != 0)
			rc = moe_fail_errno(e, "%s/%s", dir, x->d_name);
		else if (g->removed)
			g->removed(g->ctx, x->d_name, (uint64_t)st.st_size);
	}
	closedir(d);
	return rc;
}

/* The manifest must be whole and understood: what it does not name is removed. */
static int collect(const struct gc *g, const char *dir, struct moe_err *e)
{
	struct moe_manifest man = {0};
	struct moe_model m = {0};
	int lock = moe_stage_lock(dir, e), rc;

	if (lock < 0)
		return MOE_E_BUSY;
	rc = moe_model_open(dir, &m, e);
	rc = rc ? rc : moe_manifest_read(dir, &m, &man, NULL, e);
	rc = rc ? rc : remove_garbage(g, &man, dir, e);
	moe_manifest_free(&man);
	moe_model_free(&m);
	close(lock);
	return rc;
}

int moe_shard_gc(const char *dir, bool dry_run, void (*removed)(void *ctx, const char *name, uint64_t bytes), void *ctx,
                 struct moe_err *e)
{
	struct gc g = {.dry_run = dry_run, .removed = removed, .ctx = ctx};
	int found = 0, rc;

	if (moe_exists(dir) && !moe_is_shards(dir))
		return moe_fail(e, MOE_E_MISSING, "%s: not a shard set (no " MOE_MANIFEST_NAME ")", dir);
	rc = moe_exists(dir) ? collect(&g, dir, e) : 0;
	rc = rc ? rc : moe_stage_sweep(dir, dry_run, removed, ctx, &found, e);
	if (rc == 0 && found == 0 && !moe_exists(dir)) /* not even a first run that was killed */
		rc = moe_fail(e, MOE_E_MISSING, "%s: no such folder", dir);
	return rc;
}
