/* Whole files in, whole files out. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define FIRST_READ 65536
#define TEMP_TRIES 100

static size_t first_size(int fd, size_t cap)
{
	struct stat st;
	size_t n = FIRST_READ;

	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
		n = (size_t)st.st_size;
	return n < cap ? n : cap;
}

/* Until the end, or one byte past cap, which tells that there is more. */
static int read_fd(int fd, const char *path, size_t cap, struct moe_buf *b, struct moe_err *e)
{
	if (cap > SSIZE_MAX - 2)
		cap = SSIZE_MAX - 2;
	b->cap = first_size(fd, cap) + 2;
	b->data = moe_calloc(b->cap, 1, path, e);
	if (!b->data)
		return MOE_E_NOMEM;
	for (;;) {
		ssize_t n;

		if (b->len + 1 == b->cap) {
			size_t more = b->cap < cap / 2 ? b->cap * 2 : cap + 2;
			char *p = moe_realloc(b->data, more, 1, path, e);

			if (!p)
				return MOE_E_NOMEM;
			b->data = p;
			b->cap = more;
		}
		n = read(fd, b->data + b->len, b->cap - b->len - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return moe_fail_errno(e, "%s", path);
		b->len += (size_t)n;
		b->data[b->len] = 0;
		if (b->len > cap)
			return moe_fail(e, MOE_E_INPUT, "%s: larger than the %zu bytes allowed", path, cap);
		if (n == 0)
			return 0;
	}
}

static int read_and_close(int fd, const char *path, size_t cap, char **data, size_t *len, struct moe_err *e)
{
	struct moe_buf b = MOE_BUF_INIT;
	int rc = read_fd(fd, path, cap, &b, e);

	close(fd);
	if (rc) {
		moe_buf_free(&b);
		return rc;
	}
	*data = b.data;
	if (len)
		*len = b.len;
	return 0;
}

int moe_read_file(const char *path, size_t cap, char **data, size_t *len, struct moe_err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? moe_fail_errno(e, "%s", path) : read_and_close(fd, path, cap, data, len, e);
}

int moe_read_regular(const char *path, size_t cap, char **data, size_t *len, struct moe_err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc;
	struct stat st;

	if (fd < 0)
		return moe_fail_errno(e, "%s", path);
	if (fstat(fd, &st) != 0)
		rc = moe_fail_errno(e, "%s", path);
	else if (!S_ISREG(st.st_mode))
		rc = moe_fail(e, MOE_E_IO, "%s: %s", path, S_ISDIR(st.st_mode) ? "a folder" : "not a regular file");
	else
		return read_and_close(fd, path, cap, data, len, e);
	close(fd);
	return rc;
}

int moe_write_all(int fd, const void *data, size_t len, const char *path, struct moe_err *e)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = write(fd, p, len < SSIZE_MAX ? len : SSIZE_MAX);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return moe_fail_errno(e, "%s", path);
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int moe_fsync_dir(const char *dir, struct moe_err *e)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return moe_fail_errno(e, "%s", dir);
	if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) /* some file systems cannot, and need not */
		rc = moe_fail_errno(e, "%s", dir);
	close(fd);
	return rc;
}

static int fsync_parent(const char *path, struct moe_err *e)
{
	const char *slash = strrchr(path, '/');
	char *dir;
	int rc;

	if (!slash)
		return moe_fsync_dir(".", e);
	dir = moe_strndup(path, slash == path ? 1 : (size_t)(slash - path), e);
	if (!dir)
		return MOE_E_NOMEM;
	rc = moe_fsync_dir(dir, e);
	free(dir);
	return rc;
}

/* A new file beside path.  A name may be taken by another thread, or left by a killed process of our number. */
static int open_temp(const char *path, char **temp, int *fd, struct moe_err *e)
{
	for (int i = 0; i < TEMP_TRIES; i++) {
		*temp = i ? moe_sprintf(e, "%s.tmp-%ld-%d", path, (long)getpid(), i)
		          : moe_sprintf(e, "%s.tmp-%ld", path, (long)getpid());
		if (!*temp)
			return MOE_E_NOMEM;
		*fd = open(*temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (*fd >= 0)
			return 0;
		if (errno != EEXIST)
			break;
		free(*temp);
		*temp = NULL;
	}
	int rc = moe_fail_errno(e, "%s", path);

	free(*temp);
	*temp = NULL;
	return rc;
}

struct moe_draft {
	char *path, *temp;           /* temp NULL: what cannot be replaced, only written to */
	int fd;
};

/* The number in /dev/fd/N and its other names; -1: it is none.  Such a name is a link even when a regular file is open there: to
 * put another file in its place would take it from everybody. */
static int open_already(const char *path)
{
	static const char *const dirs[] = {"/dev/fd/", "/proc/self/fd/"};
	static const char *const names[] = {"/dev/stdin", "/dev/stdout", "/dev/stderr"};
	int used = 0, n;

	for (int i = 0; i < 3; i++)
		if (strcmp(path, names[i]) == 0)
			return i;
	for (int i = 0; i < 2; i++)
		if (strncmp(path, dirs[i], strlen(dirs[i])) == 0 && sscanf(path + strlen(dirs[i]), "%5d%n", &n, &used) == 1 &&
		    n >= 0 && !path[strlen(dirs[i]) + (size_t)used])
			return n;
	return -1;
}

static int open_draft(struct moe_draft *d, struct moe_err *e)
{
	int already = open_already(d->path);
	struct stat st;

	if (already < 0 && (stat(d->path, &st) != 0 || S_ISREG(st.st_mode)))
		return open_temp(d->path, &d->temp, &d->fd, e);
	d->fd = already < 0 ? open(d->path, O_WRONLY | O_CLOEXEC) : fcntl(already, F_DUPFD_CLOEXEC, 0);
	return d->fd < 0 ? moe_fail_errno(e, "%s", d->path) : 0;
}

int moe_draft_open(const char *path, struct moe_draft **out, struct moe_err *e)
{
	struct moe_draft *d = moe_calloc(1, sizeof *d, path, e);
	int rc;

	if (!d)
		return MOE_E_NOMEM;
	d->fd = -1;
	d->path = moe_strdup(path, e);
	rc = d->path ? open_draft(d, e) : MOE_E_NOMEM;
	if (rc)
		moe_draft_drop(d);
	else
		*out = d;
	return rc;
}

int moe_draft_add(struct moe_draft *d, const void *data, size_t len, struct moe_err *e)
{
	return moe_write_all(d->fd, data, len, d->path, e);
}

void moe_draft_drop(struct moe_draft *d)
{
	if (!d)
		return;
	if (d->fd >= 0)
		close(d->fd);
	if (d->temp)
		unlink(d->temp);
	free(d->temp);
	free(d->path);
	free(d);
}

int moe_draft_commit(struct moe_draft *d, struct moe_err *e)
{
	int rc = 0, closed;

	if (d->temp && fsync(d->fd) != 0)
		rc = moe_fail_errno(e, "%s", d->path);
	closed = close(d->fd);
	d->fd = -1;
	if (rc == 0 && (closed != 0 || (d->temp && rename(d->temp, d->path) != 0)))
		rc = moe_fail_errno(e, "%s", d->path);
	if (rc == 0 && d->temp) {
		free(d->temp);
		d->temp = NULL;
		rc = fsync_parent(d->path, e);
	}
	moe_draft_drop(d);
	return rc;
}

int moe_write_file(const char *path, const void *data, size_t len, struct moe_err *e)
{
	struct moe_draft *d;
	int rc = moe_draft_open(path, &d, e);

	if (rc)
		return rc;
	rc = moe_draft_add(d, data, len, e);
	if (rc == 0)
		return moe_draft_commit(d, e);
	moe_draft_drop(d);
	return rc;
}
