/* A hosts file that is replaced or edited while it is in use. */
#include <string.h>

#include "net/members.h"

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* All zero where there is none, which is a state of the file like others. */
static struct stat mark(const char *path)
{
	struct stat st;

	if (stat(path, &st) != 0)
		memset(&st, 0, sizeof st);
	return st;
}

static int read_list(struct hosts_file *f, double timeout, struct moe_err *e)
{
	struct moe_endpoints list = {NULL, 0};
	int rc = moe_hosts_read(f->path, timeout, &list, e);

	if (rc) {
		moe_endpoints_free(&list);
		return rc;
	}
	moe_endpoints_free(&f->list);
	f->list = list;
	return 0;
}

int hosts_file_open(struct hosts_file *f, const char *path, double timeout, struct moe_err *e)
{
	int rc;

	*f = (struct hosts_file){.path = path};
	/* Marked before it is read: what changes in between is a change. */
	f->read = mark(path);
	rc = read_list(f, timeout, e);
	f->watched = !f->read.st_ino || S_ISREG(f->read.st_mode);
	f->met = f->read;
	return rc;
}

int hosts_file_look(struct hosts_file *f, uint64_t now_ns, enum file_news *news, struct moe_err *e)
{
	struct stat now;
	int rc;

	*news = FILE_SAME;
	if (!f->watched)
		return 0;
	now = mark(f->path);
	if (!same(&now, &f->met)) {
		f->met = now;
		f->met_ns = now_ns;
	}
	if (same(&now, &f->read))
		return 0;
	*news = FILE_CHANGING;
	if (now_ns - f->met_ns < FILE_SETTLE_NS)
		return 0;
	rc = read_list(f, 0, e);
	f->read = now;
	*news = rc ? FILE_SAME : FILE_READ;
	return rc;
}

void hosts_file_close(struct hosts_file *f)
{
	moe_endpoints_free(&f->list);
}
