/* Hardware profiles as lists of devices. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/plan.h"

#define MAX_MEMORY 9007199254740992.0 /* 2^53: numbers in JSON are exact up to here */
#define MAX_BANDWIDTH 1e18

struct list {
	struct moe_device *v;
	int n;
};

static int add(struct list *list, const struct moe_device *d, int64_t count, struct moe_err *e)
{
	struct moe_device *v;

	if (count > MOE_MAX_DEVICES - list->n)
		return moe_fail(e, MOE_E_RANGE, "more than %d devices", MOE_MAX_DEVICES);
	v = moe_realloc(list->v, (size_t)list->n + (size_t)count, sizeof *v, "devices", e);
	if (!v)
		return MOE_E_NOMEM;
	list->v = v;
	for (int64_t i = 0; i < count; i++)
		list->v[list->n++] = *d;
	return 0;
}

/* An expert of few tokens takes as long as its weights take to read, so speeds are those of the memories, in units of the first that
 * is known; until here `speed` is bytes a second, 0 where nothing is known. */
static void relate_speeds(struct list *list)
{
	double unit = 0;

	for (int i = 0; i < list->n && unit <= 0; i++)
		unit = list->v[i].speed;
	for (int i = 0; i < list->n; i++)
		list->v[i].speed = list->v[i].speed > 0 ? list->v[i].speed / unit : 1;
}

/* The devices of one level: those that serve experts are its CPUs. */
static int add_level(struct list *list, const struct moe_json *level, const char *host, struct moe_err *e)
{
	struct moe_device d = {.kind = "cpu"};
	const char *name = NULL;
	double memory = 0;
	int64_t count = 1;
	int rc = moe_json_need_str(level, "name", true, &name, "level", e);

	if (rc == 0)
		rc = moe_json_need_int(level, "count", false, 1, MOE_MAX_DEVICES, &count, name, e);
	if (rc == 0)
		rc = moe_json_need_num(level, "memory", false, 0, MAX_MEMORY, &memory, name, e);
	if (rc == 0)
		rc = moe_json_need_num(level, "bandwidth", false, 0, MAX_BANDWIDTH, &d.speed, name, e);
	if (rc || strcmp(name, "cpu") != 0)
		return rc;
	d.memory = (uint64_t)memory;
	snprintf(d.host, sizeof d.host, "%s", host);
	return add(list, &d, count, e);
}

static int add_profile(struct list *list, const struct moe_json *profile, struct moe_err *e)
{
	const struct moe_json *levels = moe_json_get(profile, "levels");
	const char *host = "";
	int before = list->n, rc;

	rc = moe_json_need_str(profile, "name", false, &host, "profile", e);
	if (rc)
		return rc;
	if (strlen(host) >= sizeof list->v->host)
		return moe_fail(e, MOE_E_INPUT, "a profile's name is longer than %zu bytes", sizeof list->v->host - 1);
	if (moe_json_type(levels) != MOE_JSON_ARRAY)
		return moe_fail(e, MOE_E_INPUT, "profile \"%s\": no list of \"levels\"", host);
	for (size_t i = 0; i < moe_json_count(levels) && rc == 0; i++)
		rc = add_level(list, moe_json_at(levels, i), host, e);
	if (rc == 0 && list->n == before)
		rc = moe_fail(e, MOE_E_UNSUPPORTED, "profile \"%s\": no level \"cpu\", and others hold no experts yet", host);
	return rc;
}

int moe_devices_from_fleet(const struct moe_fleet *f, struct moe_device **out, int *n, struct moe_err *e)
{
	struct list list = {NULL, 0};
	int rc = 0;

	for (int i = 0; i < f->n && rc == 0; i++) {
		const struct moe_memory_level *cpu = &f->hosts[i].levels[moe_level_find(&f->hosts[i], "cpu")];
		struct moe_device d = {.kind = "cpu", .speed = cpu->bandwidth};

		snprintf(d.host, sizeof d.host, "%s", f->hosts[i].name);
		d.memory = (uint64_t)fmin(cpu->memory, MAX_MEMORY);
		rc = add(&list, &d, cpu->count, e);
	}
	if (rc) {
		free(list.v);
		return rc;
	}
	relate_speeds(&list);
	*out = list.v;
	*n = list.n;
	return 0;
}

int moe_devices_from_json(const struct moe_json *hardware, const char *what, struct moe_device **out, int *n,
                          struct moe_err *e)
{
	const struct moe_json *hosts = moe_json_get(hardware, "hosts");
	struct list list = {NULL, 0};
	int rc = 0;

	if (!hosts)
		rc = add_profile(&list, hardware, e);
	else if (moe_json_type(hosts) != MOE_JSON_ARRAY || moe_json_count(hosts) == 0)
		rc = moe_fail(e, MOE_E_INPUT, "\"hosts\" is no list of profiles");
	for (size_t i = 0; i < moe_json_count(hosts) && rc == 0; i++)
		rc = add_profile(&list, moe_json_at(hosts, i), e);
	if (rc) {
		free(list.v);
		return moe_fail_prefix(e, rc, "%s", what);
	}
	relate_speeds(&list);
	*out = list.v;
	*n = list.n;
	return 0;
}
