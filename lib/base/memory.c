/* How much memory this process may still use. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

#define SMALL_FILE 65536

/* The two generations of control groups name the same things differently. */
struct cgroup_names {
	const char *root, *limit, *used, *reclaimable;
};
static const struct cgroup_names v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                       "total_inactive_file"};
static const struct cgroup_names v2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};

static char *slurp(const char *path)
{
	char *text;

	return moe_read_file(path, SMALL_FILE, &text, NULL, NULL) == 0 ? text : NULL;
}

/* The number after `key` at the start of a line. */
static bool field(const char *text, const char *key, uint64_t *out)
{
	size_t n = strlen(key);

	for (const char *p = text; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (strncmp(p, key, n) == 0 && (p[n] == ' ' || p[n] == ':'))
			return sscanf(p + n + 1, "%" SCNu64, out) == 1;
	}
	return false;
}

static bool number_in(const char *dir, const char *name, uint64_t *out)
{
	char *path = moe_path_join(dir, name, NULL), *text = path ? slurp(path) : NULL;
	bool ok = text && sscanf(text, "%" SCNu64, out) == 1; /* "max" is no number: no limit */

	free(text);
	free(path);
	return ok;
}

static uint64_t group_left(const char *dir, const struct cgroup_names *names)
{
	uint64_t limit, used, cache = 0;
	char *path, *stat;

	if (!number_in(dir, names->limit, &limit) || !number_in(dir, names->used, &used))
		return UINT64_MAX;
	path = moe_path_join(dir, "memory.stat", NULL);
	stat = path ? slurp(path) : NULL;
	if (stat)
		field(stat, names->reclaimable, &cache);
	free(stat);
	free(path);
	used -= cache < used ? cache : used;
	return limit > used ? limit - used : 0;
}

static uint64_t group_limit(const char *dir, const struct cgroup_names *names)
{
	uint64_t limit;

	return number_in(dir, names->limit, &limit) ? limit : UINT64_MAX;
}

/* What is asked of a group: what it leaves, or its limit; UINT64_MAX: it has none. */
typedef uint64_t group_fn(const char *dir, const struct cgroup_names *names);

/* The least of a group and its parents.  Inside a container `path` may be the host's name for the group; then only the root exists
 * here, and it is the container's. */
static uint64_t least_of_groups(const char *path, const struct cgroup_names *names, group_fn *ask)
{
	char *dir = moe_sprintf(NULL, "%s%s", names->root, path);
	size_t root = strlen(names->root);
	uint64_t least = UINT64_MAX;

	while (dir) {
		uint64_t here = ask(dir, names);
		char *slash = strrchr(dir, '/');

		if (here < least)
			least = here;
		if (strlen(dir) <= root)
			break;
		*slash = 0;
	}
	free(dir);
	return least;
}

static uint64_t cgroup_least(group_fn *ask)
{
	char *text = slurp("/proc/self/cgroup"), *save = NULL;
	uint64_t least = UINT64_MAX;

	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		char *kind = strchr(line, ':'), *path = kind ? strchr(kind + 1, ':') : NULL;
		uint64_t here = UINT64_MAX;

		if (!path)
			continue;
		*path++ = 0;
		kind++;
		if (*kind == 0)
			here = least_of_groups(path, &v2, ask);
		else if (strcmp(kind, "memory") == 0)
			here = least_of_groups(path, &v1, ask);
		if (here < least)
			least = here;
	}
	free(text);
	return least;
}

static uint64_t system_left(void)
{
	char *text = slurp("/proc/meminfo");
	struct sysinfo info;
	uint64_t kib;
	bool ok = text && field(text, "MemAvailable", &kib);

	free(text);
	if (ok)
		return kib * 1024;
	return sysinfo(&info) == 0 ? (uint64_t)info.freeram * info.mem_unit : UINT64_MAX;
}

uint64_t moe_memory_limit(void)
{
	struct sysinfo info;
	uint64_t group = cgroup_least(group_limit), all = UINT64_MAX;

	if (sysinfo(&info) == 0)
		all = (uint64_t)info.totalram * info.mem_unit;
	return group < all ? group : all;
}

/* The first numbers of /proc/self/statm: pages mapped, resident, and of these shared. */
static bool pages_of_process(uint64_t *mapped, uint64_t *resident, uint64_t *shared)
{
	char *text = slurp("/proc/self/statm");
	bool ok = text && sscanf(text, "%" SCNu64 " %" SCNu64 " %" SCNu64, mapped, resident, shared) == 3;

	free(text);
	return ok;
}

uint64_t moe_memory_used(uint64_t *own)
{
	uint64_t mapped, resident = 0, shared = 0, page = (uint64_t)sysconf(_SC_PAGESIZE);

	if (!pages_of_process(&mapped, &resident, &shared))
		resident = shared = 0;
	if (own)
		*own = (resident - shared) * page;
	return resident * page;
}

static uint64_t address_space_left(void)
{
	struct rlimit limit;
	uint64_t pages, resident, shared, used;

	if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	if (!pages_of_process(&pages, &resident, &shared))
		pages = 0;
	used = pages * (uint64_t)sysconf(_SC_PAGESIZE);
	return limit.rlim_cur > used ? limit.rlim_cur - used : 0;
}

size_t moe_memory_available(void)
{
	uint64_t left = system_left(), group = cgroup_least(group_left), space = address_space_left();

	if (group < left)
		left = group;
	if (space < left)
		left = space;
	return left < SIZE_MAX ? (size_t)left : SIZE_MAX;
}
