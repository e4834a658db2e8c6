/* --hardware and --set: the machines to plan for. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "policy.h"

#define HARDWARE_CAP ((size_t)16 << 20)

static int alike(int n, struct site *s, struct moe_err *e)
{
	s->devices = moe_calloc((size_t)n, sizeof *s->devices, "devices", e);
	if (!s->devices)
		return MOE_E_NOMEM;
	s->n = n;
	for (int i = 0; i < n; i++)
		s->devices[i] = (struct moe_device){.kind = "cpu", .speed = 1};
	return 0;
}

static bool has_flops(const struct moe_json *profile)
{
	const struct moe_json *levels = moe_json_get(profile, "levels");

	for (size_t i = 0; i < moe_json_count(levels); i++)
		if (moe_json_get(moe_json_at(levels, i), "flops"))
			return true;
	return false;
}

/* Does any host say how fast it is?  Else it is a list of memories, good for a placement only. */
static bool is_rated(const struct moe_json *hardware)
{
	const struct moe_json *hosts = moe_json_get(hardware, "hosts");

	for (size_t i = 0; i < moe_json_count(hosts); i++)
		if (has_flops(moe_json_at(hosts, i)))
			return true;
	return has_flops(hardware);
}

static bool ends_with(const char *s, const char *end)
{
	return strlen(s) >= strlen(end) && strcmp(s + strlen(s) - strlen(end), end) == 0;
}

/* The profile was measured once; what memory may be used is a matter of now. */
static int read_automatic(struct site *s, struct moe_err *e)
{
	struct moe_json *j;
	int rc = automatic_profile(&j, e);

	if (rc)
		return rc;
	rc = moe_fleet_from_json(j, "this machine's profile", &s->fleet, e);
	if (rc == 0)
		s->fleet.hosts->levels[moe_level_find(s->fleet.hosts, "cpu")].memory = (double)moe_memory_available();
	moe_json_free(j);
	return rc;
}

static int read_hardware(const char *what, struct site *s, struct moe_err *e)
{
	int rc;

	if (strcmp(what, "auto") == 0)
		return read_automatic(s, e);
	if (!moe_exists(what) && !ends_with(what, ".json"))
		return moe_hardware_named(what, &s->fleet, e);
	rc = moe_json_read(what, HARDWARE_CAP, &s->json, e);
	if (rc == 0 && is_rated(s->json))
		rc = moe_fleet_from_json(s->json, what, &s->fleet, e);
	return rc;
}

/* residual and reserve are no hardware: solve() reads them. */
static bool is_of_model(const char *assignment)
{
	return strncmp(assignment, "residual=", 9) == 0 || strncmp(assignment, "reserve=", 8) == 0;
}

static int set_numbers(const struct options *o, struct site *s, struct moe_err *e)
{
	bool changed = false;
	int rc = 0;

	for (int i = 0; i < o->set.n && rc == 0; i++) {
		if (is_of_model(o->set.v[i]))
			continue;
		if (s->fleet.n == 0)
			return moe_fail(e, MOE_E_INPUT, "--set %s: %s has no \"flops\": only its memories are known", o->set.v[i], o->hardware);
		rc = moe_hardware_set(&s->fleet, o->set.v[i], e);
		changed = true;
	}
	if (rc)
		return moe_fail_prefix(e, rc, "--set");
	moe_fleet_doubt(&s->fleet);
	if (changed) {
		moe_json_free(s->json);
		s->json = NULL;
	}
	return 0;
}

/* How long a fleet takes cannot be said when nothing joins its hosts; where experts go can. */
static void drop_speeds(const struct options *o, struct site *s)
{
	bool joined = true;

	for (int i = 0; i < s->fleet.n; i++)
		joined &= s->fleet.hosts[i].network_bandwidth > 0;
	if (s->fleet.n < 2 || joined)
		return;
	moe_log(MOE_WARN, "%s: a host has no \"network\": experts are placed, and no batch is planned", o->hardware);
	moe_fleet_free(&s->fleet);
}

int site_open(const struct options *o, struct site *s, struct moe_err *e)
{
	int rc;

	*s = (struct site){.n = 0};
	if (!o->hardware)
		return alike((int)o->devices, s, e);
	rc = read_hardware(o->hardware, s, e);
	rc = rc ? rc : set_numbers(o, s, e);
	if (rc == 0 && s->fleet.n > 0)
		rc = moe_devices_from_fleet(&s->fleet, &s->devices, &s->n, e);
	else if (rc == 0)
		rc = moe_devices_from_json(s->json, o->hardware, &s->devices, &s->n, e);
	if (rc)
		site_close(s);
	else
		drop_speeds(o, s);
	return rc;
}

void site_close(struct site *s)
{
	free(s->devices);
	moe_json_free(s->json);
	moe_fleet_free(&s->fleet);
	*s = (struct site){.n = 0};
}
