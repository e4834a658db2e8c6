/* Names of files and folders. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

char *moe_path_join(const char *dir, const char *name, struct moe_err *e)
{
	size_t n = strlen(dir);

	return moe_sprintf(e, "%s%s%s", dir, n && dir[n - 1] != '/' ? "/" : "", name);
}

bool moe_path_is_plain(const char *name)
{
	if (!name || !*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return false;
	for (const char *p = name; *p; p++)
		if (*p == '/' || (unsigned char)*p < 0x20 || *p == 0x7f)
			return false;
	return true;
}

bool moe_is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool moe_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

/* An absolute path that leads to a folder, or NULL. */
static const char *env_dir(const char *name)
{
	const char *dir = getenv(name);

	return dir && dir[0] == '/' && moe_is_dir(dir) ? dir : NULL;
}

static char *runtime_path(struct moe_err *e)
{
	const char *run = env_dir("XDG_RUNTIME_DIR"), *tmp = env_dir("TMPDIR");

	if (run)
		return moe_path_join(run, "moe", e);
	return moe_sprintf(e, "%s/moe-%lu", tmp ? tmp : "/tmp", (unsigned long)geteuid());
}

/* lstat, so that nobody can lead us elsewhere by a link with our name in a folder open to all. */
static int check_private(const char *path, struct moe_err *e)
{
	struct stat st;

	if (lstat(path, &st) != 0)
		return moe_fail_errno(e, "%s", path);
	if (!S_ISDIR(st.st_mode))
		return moe_fail(e, MOE_E_IO, "%s: not a folder", path);
	if (st.st_uid != geteuid())
		return moe_fail(e, MOE_E_IO, "%s: belongs to another user", path);
	if (st.st_mode & 077)
		return moe_fail(e, MOE_E_IO, "%s: others may enter it (mode %04o, 0700 is expected)", path,
		                (unsigned)(st.st_mode & 07777));
	return 0;
}

char *moe_runtime_dir(struct moe_err *e)
{
	char *path = runtime_path(e);
	int rc;

	if (!path)
		return NULL;
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		rc = moe_fail_errno(e, "%s", path);
	else
		rc = check_private(path, e);
	if (rc) {
		free(path);
		return NULL;
	}
	return path;
}
