/* Removing folders in the making: our own after a failure, and what killed runs left. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "shard/private.h"

#define TEMP ".tmp-"

static bool starts(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

static bool ends(const char *s, const char *with)
{
	size_t n = strlen(s), k = strlen(with);

	return n >= k && strcmp(s + n - k, with) == 0;
}

/* HASH.safetensors: 16 digits and the end. */
static bool is_hash_end(const char *s)
{
	return strspn(s, "0123456789abcdef") == 16 && strcmp(s + 16, ".safetensors") == 0;
}

bool moe_is_data_name(const char *name)
{
	size_t digits;

	if (starts(name, "base-"))
		return is_hash_end(name + 5);
	if (!starts(name, "experts-"))
		return false;
	digits = strspn(name + 8, "0123456789");
	return digits >= 4 && name[8 + digits] == '-' && is_hash_end(name + 8 + digits + 1);
}

/* The last ".tmp-PID" or ".tmp-PID-K" of a name, or NULL. */
static const char *temp_part(const char *name)
{
	const char *found = NULL, *p = name;

	while ((p = strstr(p, TEMP)))
		found = p++;
	if (!found || !isdigit((unsigned char)found[strlen(TEMP)]) || found == name)
		return NULL;
	return strspn(found + strlen(TEMP), "0123456789-") == strlen(found + strlen(TEMP)) ? found : NULL;
}

bool moe_is_left_over(const char *name)
{
	const char *temp = temp_part(name);
	long pid;

	if (!temp)
		return false;
	pid = strtol(temp + strlen(TEMP), NULL, 10);
	if (pid <= 0 || pid > 1L << 30)
		return false;
	return pid == (long)getpid() || (kill((pid_t)pid, 0) != 0 && errno == ESRCH);
}

/* Final names too: a folder in the making has both. */
bool moe_is_temporary(const char *name)
{
	const char *temp = temp_part(name);
	size_t n = temp ? (size_t)(temp - name) : strlen(name);
	char plain[256];

	if (n >= sizeof plain)
		return false;
	memcpy(plain, name, n);
	plain[n] = 0;
	return moe_is_data_name(plain) || moe_is_copied_name(plain) || strcmp(plain, MOE_MANIFEST_NAME) == 0 ||
	       ends(plain, ".part") || (starts(plain, "model") && (ends(plain, ".safetensors") || ends(plain, ".json")));
}

/* Walk the files of an open folder.  First pass (bytes != NULL): add up sizes, false when one is not ours.  Second: remove. */
static bool walk(int fd, uint64_t *bytes)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *x;
	struct stat st;
	bool ok = d != NULL;

	if (!d && copy >= 0)
		close(copy);
	while (ok && (x = readdir(d))) {
		if (strcmp(x->d_name, ".") == 0 || strcmp(x->d_name, "..") == 0)
			continue;
		if (!bytes)
			ok = unlinkat(fd, x->d_name, 0) == 0;
		else if (fstatat(fd, x->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && moe_is_temporary(x->d_name))
			*bytes += (uint64_t)st.st_size;
		else
			ok = false;
	}
	if (d)
		closedir(d);
	return ok;
}

/* What is not a folder of ours, or somebody writes in, stays. */
static bool remove_left_over(const char *path, bool dry_run, uint64_t *bytes)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	bool gone;

	*bytes = 0;
	if (fd < 0)
		return false;
	gone = flock(fd, LOCK_EX | LOCK_NB) == 0 && walk(fd, bytes);
	if (gone && !dry_run)
		gone = walk(fd, NULL) && rmdir(path) == 0;
	close(fd);
	return gone;
}

static void remove_mine(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return;
	walk(fd, NULL);
	close(fd);
	rmdir(path);
}

void moe_stage_close(struct moe_stage *s)
{
	if (s->dir)
		remove_mine(s->dir);
	if (s->lock >= 0)
		close(s->lock);
	if (s->out_lock >= 0)
		close(s->out_lock);
	free(s->dir);
	free(s->out);
	*s = (struct moe_stage)MOE_STAGE_INIT;
}

struct sweep {
	bool dry_run;
	void (*removed)(void *ctx, const char *name, uint64_t bytes);
	void *ctx;
	int found;
};

/* Folders PREFIX.tmp-PID in dir. */
static int sweep_in(struct sweep *w, const char *dir, const char *prefix, struct moe_err *e)
{
	DIR *d = opendir(dir);
	struct dirent *x;
	uint64_t bytes;
	int rc = 0;

	if (!d && errno == EACCES) /* what may not be looked at was not made by us */
		return 0;
	if (!d)
		return moe_fail_errno(e, "%s", dir);
	while (rc == 0 && (x = readdir(d))) {
		const char *temp = temp_part(x->d_name);
		char *path;

		if (!temp || (size_t)(temp - x->d_name) != strlen(prefix) || !starts(x->d_name, prefix) ||
		    !moe_is_left_over(x->d_name))
			continue;
		path = moe_path_join(dir, x->d_name, e);
		if (!path) {
			rc = MOE_E_NOMEM;
		} else if (remove_left_over(path, w->dry_run, &bytes)) {
			w->found++;
			if (w->removed)
				w->removed(w->ctx, x->d_name, bytes);
		}
		free(path);
	}
	closedir(d);
	return rc;
}

int moe_stage_sweep(const char *out, bool dry_run, void (*removed)(void *ctx, const char *name, uint64_t bytes), void *ctx,
                    int *found, struct moe_err *e)
{
	struct sweep w = {.dry_run = dry_run, .removed = removed, .ctx = ctx};
	size_t n = strlen(out);
	char *path, *slash, *parent;
	int rc;

	while (n > 1 && out[n - 1] == '/')
		n--;
	path = moe_strndup(out, n, e);
	if (!path)
		return MOE_E_NOMEM;
	slash = strrchr(path, '/');
	parent = slash ? moe_strndup(path, slash == path ? 1 : (size_t)(slash - path), e) : moe_strdup(".", e);
	rc = parent ? sweep_in(&w, parent, slash ? slash + 1 : path, e) : MOE_E_NOMEM;
	if (rc == 0 && moe_is_dir(path))
		rc = sweep_in(&w, path, "moe-shard", e);
	*found = w.found;
	free(parent);
	free(path);
	return rc;
}
