/* A folder in the making: OUT.tmp-PID beside OUT, renamed when it is whole; or, when OUT is a shard set that gets new
 * files, moe-shard.tmp-PID inside it, so that both are on one file system.
 *
 * A writer holds a lock on its folder.  What a killed one left is known by its name, by its number being free, and by
 * the lock, which the kernel let go. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file.h"
#include "base/opts.h"
#include "shard/private.h"

#define INSIDE "moe-shard"       /* .tmp-PID: the folder's name within a set */
#define SLACK ((uint64_t)1 << 20) /* for folders, the manifest, the file system's own */

/* The folder that holds path.  NULL: no memory. */
static char *parent_of(const char *path, struct moe_err *e)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return moe_strdup(".", e);
	return moe_strndup(path, slash == path ? 1 : (size_t)(slash - path), e);
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static char *without_slashes(const char *path, struct moe_err *e)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	return moe_strndup(path, n, e);
}

/* A folder with nothing in it, which the rename can put another in place of. */
static bool is_empty(const char *dir)
{
	const struct dirent *found;
	DIR *d = moe_path_is_plain(last_part(dir)) ? opendir(dir) : NULL;
	bool empty = d != NULL;

	while (empty && (found = readdir(d)))
		empty = strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0;
	if (d)
		closedir(d);
	return empty;
}

/* Nothing is renamed over a mount point, and that is told before hours of writing. */
static int check_mount(const char *out, const struct stat *st, struct moe_err *e)
{
	char *parent = parent_of(out, e);
	struct stat above;
	int rc = parent ? 0 : MOE_E_NOMEM;

	if (parent && stat(parent, &above) == 0 && above.st_dev != st->st_dev)
		rc = moe_fail(e, MOE_E_IO, "%s: is the root of a file system: name a new folder in it", out);
	free(parent);
	return rc;
}

static int look_at(const char *out, bool may_replace, bool *replaces, struct moe_err *e)
{
	struct stat st;

	*replaces = false;
	if (lstat(out, &st) != 0) {
		if (errno == ENOENT && moe_path_is_plain(last_part(out)))
			return 0;
		return moe_fail_errno(e, "%s", out);
	}
	if (S_ISDIR(st.st_mode) && is_empty(out))
		return check_mount(out, &st, e);
	if (!may_replace)
		return moe_fail(e, MOE_E_IO, "%s: exists already", out);
	if (!moe_is_shards(out))
		return moe_fail(e, MOE_E_IO, "%s: exists and is not a shard set", out);
	*replaces = true;
	return 0;
}

int moe_stage_look(const char *out, bool may_replace, struct moe_stage *s, struct moe_err *e)
{
	char *parent = NULL;
	int rc;

	*s = (struct moe_stage)MOE_STAGE_INIT;
	s->out = without_slashes(out, e);
	rc = s->out ? look_at(s->out, may_replace, &s->replaces, e) : MOE_E_NOMEM;
	if (rc == 0) {
		parent = parent_of(s->out, e);
		rc = parent ? 0 : MOE_E_NOMEM;
	}
	if (rc == 0 && !moe_is_dir(parent))
		rc = moe_fail(e, MOE_E_MISSING, "%s: no such folder", parent);
	free(parent);
	if (rc)
		moe_stage_close(s);
	return rc;
}

int moe_stage_lock(const char *dir, struct moe_err *e)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		moe_fail_errno(e, "%s", dir);
		return -1;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) { /* file systems without locks: go on */
		moe_fail(e, MOE_E_BUSY, "%s: another moe-shard is writing here", dir);
		close(fd);
		return -1;
	}
	return fd;
}

static int make_folder(struct moe_stage *s, struct moe_err *e)
{
	long pid = (long)getpid();

	s->dir = s->replaces ? moe_sprintf(e, "%s/" INSIDE ".tmp-%ld", s->out, pid) : moe_sprintf(e, "%s.tmp-%ld", s->out, pid);
	if (!s->dir)
		return MOE_E_NOMEM;
	if (mkdir(s->dir, 0777) != 0) {
		int rc = moe_fail_errno(e, "%s", s->dir);

		free(s->dir); /* not ours to remove */
		s->dir = NULL;
		return rc;
	}
	s->lock = moe_stage_lock(s->dir, e);
	return s->lock < 0 ? MOE_E_BUSY : 0;
}

int moe_stage_open(const char *out, bool may_replace, struct moe_stage *s, struct moe_err *e)
{
	int found, rc = moe_stage_look(out, may_replace, s, e);

	if (rc)
		return rc;
	if (s->replaces) {
		s->out_lock = moe_stage_lock(s->out, e);
		rc = s->out_lock < 0 ? MOE_E_BUSY : 0;
	}
	if (rc == 0)
		rc = moe_stage_sweep(s->out, false, NULL, NULL, &found, e);
	if (rc == 0)
		rc = make_folder(s, e);
	if (rc)
		moe_stage_close(s);
	return rc;
}

int moe_stage_space(const struct moe_stage *s, uint64_t bytes, struct moe_err *e)
{
	char *parent = s->replaces ? moe_strdup(s->out, e) : parent_of(s->out, e);
	struct statvfs fs;
	char needed[32], available[32];
	uint64_t have;
	int rc = 0;

	if (!parent)
		return MOE_E_NOMEM;
	if (statvfs(parent, &fs) != 0) {
		rc = moe_fail_errno(e, "%s", parent);
	} else {
		have = (uint64_t)fs.f_bavail * fs.f_frsize;
		if (have < bytes + SLACK)
			rc = moe_fail(e, MOE_E_IO, "%s: %s (%llu bytes) needed, %s (%llu bytes) free on its file system", s->out,
			              moe_size_text((double)(bytes + SLACK), needed), (unsigned long long)(bytes + SLACK),
			              moe_size_text((double)have, available), (unsigned long long)have);
	}
	free(parent);
	return rc;
}

int moe_stage_rename(struct moe_stage *s, struct moe_err *e)
{
	char *parent = parent_of(s->out, e);
	int rc = parent ? moe_fsync_dir(s->dir, e) : MOE_E_NOMEM;

	if (rc == 0 && rename(s->dir, s->out) != 0) {
		if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR)
			rc = moe_fail(e, MOE_E_IO, "%s: appeared while it was being written", s->out);
		else
			rc = moe_fail_errno(e, "%s", s->out);
	}
	if (rc == 0) {
		free(s->dir);
		s->dir = NULL;
		rc = moe_fsync_dir(parent, e);
	}
	free(parent);
	return rc;
}
