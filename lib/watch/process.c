/* What a process tells of itself: the model that it runs, and its own numbers, read when somebody wants to see them. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/opts.h"
#include "private.h"

struct process {
	struct moe_series *resident, *ratio, *files;
};

static int open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = -3; /* ".", ".." and this one */

	if (!d)
		return 0;
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void look(void *ctx)
{
	const struct process *p = ctx;
	uint64_t used = moe_memory_used(NULL), limit = moe_memory_limit();

	moe_gauge(p->resident, (double)used);
	moe_gauge(p->ratio, limit ? (double)used / (double)limit : 0);
	moe_gauge(p->files, open_files());
}

int moe_watch_process(struct moe_watch *w, struct moe_err *e)
{
	static const char *const version[] = {MOE_VERSION};
	struct process *p = w && !w->process ? moe_calloc(1, sizeof *p, "metrics", e) : NULL;

	if (!p)
		return w && !w->process ? MOE_E_NOMEM : 0;
	w->process = p;
	moe_gauge(moe_metric_series(moe_watch_metric(w, MOE_GAUGE, "moe_build_info", "1; the version is a label.", "version", NULL, 0), version), 1);
	p->ratio = moe_watch_one(w, MOE_GAUGE, "moe_process_memory_ratio",
	                         "What this process has of the memory that it may have, which is its control group's or the host's.");
	p->resident = moe_watch_one(w, MOE_GAUGE, "process_resident_memory_bytes", "Memory of this process.");
	p->files = moe_watch_one(w, MOE_GAUGE, "process_open_fds", "Open files and sockets.");
	moe_gauge(moe_watch_one(w, MOE_GAUGE, "process_start_time_seconds", "When it began to be watched, in seconds since 1970."), (double)time(NULL));
	return moe_watch_before(w, look, p, e);
}

int moe_watch_label_model(struct moe_buf *list, const char *path, struct moe_err *e)
{
	size_t end = strlen(path), from;
	char *name;
	int rc;

	while (end > 1 && path[end - 1] == '/')
		end--;
	for (from = end; from > 0 && path[from - 1] != '/';)
		from--;
	name = moe_strndup(path + from, end - from, e);
	rc = name ? moe_watch_label(list, "model_name", name, e) : MOE_E_NOMEM;
	free(name);
	return rc;
}
