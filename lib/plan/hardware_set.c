/* One number of a profile changed: [HOST:]KEY=VALUE. */
#include <stdio.h>
#include <string.h>

#include "base/words.h"
#include "plan/hardware.h"

#define KEY_CAP 64

/* Where a number lies in a profile and what it counts. */
struct place {
	char key[KEY_CAP];
	enum moe_unit unit;
	double *number;   /* or */
	int *count;
	bool *on;
};
/* All of a profile's numbers but those of kernels, which are measured. */
struct places {
	struct place v[MOE_MAX_LEVELS * (4 + MOE_FLOPS_TYPES) + MOE_MAX_LINKS * 3 + 4];
	int n;
};

static struct place *add(struct places *p, enum moe_unit unit)
{
	p->v[p->n] = (struct place){.unit = unit};
	return &p->v[p->n++];
}

static void add_level(struct places *p, struct moe_memory_level *l)
{
	struct place *x = add(p, MOE_UNIT_BYTES);

	snprintf(x->key, KEY_CAP, "%s.memory", l->name);
	x->number = &l->memory;
	x = add(p, MOE_UNIT_COUNT);
	snprintf(x->key, KEY_CAP, "%s.count", l->name);
	x->count = &l->count;
	if (!(moe_level_flops(l, MOE_FLOPS_F32) > 0))
		return;
	x = add(p, MOE_UNIT_BYTES_PER_SECOND);
	snprintf(x->key, KEY_CAP, "%s.bandwidth", l->name);
	x->number = &l->bandwidth;
	x = add(p, MOE_UNIT_SECONDS);
	snprintf(x->key, KEY_CAP, "%s.call", l->name);
	x->number = &l->call;
	for (int t = 0; t < MOE_FLOPS_TYPES; t++) {
		x = add(p, MOE_UNIT_FLOPS);
		snprintf(x->key, KEY_CAP, "%s.flops.%s", l->name, moe_flops_names[t]);
		x->number = &l->flops[t];
	}
}

static void add_link(struct places *p, const struct moe_hardware *h, struct moe_link *l)
{
	const char *from = h->levels[l->from].name, *to = h->levels[l->to].name;
	struct place *x = add(p, MOE_UNIT_BYTES_PER_SECOND);

	snprintf(x->key, KEY_CAP, "link.%s-%s.bandwidth", from, to);
	x->number = &l->bandwidth;
	x = add(p, MOE_UNIT_SECONDS);
	snprintf(x->key, KEY_CAP, "link.%s-%s.latency", from, to);
	x->number = &l->latency;
	x = add(p, MOE_UNIT_SWITCH);
	snprintf(x->key, KEY_CAP, "link.%s-%s.shared", from, to);
	x->on = &l->shared;
}

static void list_places(struct moe_hardware *h, struct places *p)
{
	int cpu = moe_level_find(h, "cpu");
	struct place *x;

	p->n = 0;
	for (int i = 0; i < h->n_levels; i++)
		add_level(p, &h->levels[i]);
	for (int i = 0; i < h->n_links; i++)
		add_link(p, h, &h->links[i]);
	x = add(p, MOE_UNIT_BYTES_PER_SECOND);
	snprintf(x->key, KEY_CAP, "network");
	x->number = &h->network_bandwidth;
	x = add(p, MOE_UNIT_SECONDS);
	snprintf(x->key, KEY_CAP, "network.latency");
	x->number = &h->network_latency;
	x = add(p, MOE_UNIT_BYTES);
	snprintf(x->key, KEY_CAP, "host_memory");
	x->number = &h->levels[cpu].memory;
}

static const struct place *find(const struct places *p, const char *key)
{
	for (int i = 0; i < p->n; i++)
		if (strcmp(p->v[i].key, key) == 0)
			return &p->v[i];
	return NULL;
}

static int assign(const struct place *x, const char *value, struct moe_err *e)
{
	double v;

	if (!moe_quantity_parse(value, x->unit, &v))
		return moe_fail(e, MOE_E_INPUT, "%s=%s: the value is to be positive, %s", x->key, value, moe_unit_example(x->unit));
	if (x->count && v > MOE_MAX_DEVICES)
		return moe_fail(e, MOE_E_INPUT, "%s=%s: at most %d", x->key, value, MOE_MAX_DEVICES);
	if (x->number)
		*x->number = v;
	else if (x->count)
		*x->count = (int)v;
	else
		*x->on = v > 0;
	return 0;
}

static int unknown_key(const struct places *p, const char *key, struct moe_err *e)
{
	const char *names[sizeof p->v / sizeof p->v[0] + 1], *near;
	int n = 0;

	for (; n < p->n; n++)
		names[n] = p->v[n].key;
	names[n] = NULL;
	near = moe_nearest(key, names);
	if (near)
		return moe_fail(e, MOE_E_MISSING, "hardware has no \"%s\": is %s meant?", key, near);
	return moe_fail(e, MOE_E_MISSING, "hardware has no \"%s\"", key);
}

/* HOST:KEY=VALUE into its parts, each in `buf`. */
static int split(const char *assignment, char *buf, size_t cap, char **host, char **key, char **value, struct moe_err *e)
{
	size_t n = strlen(assignment);
	char *equals, *colon;

	if (n >= cap || !strchr(assignment, '='))
		return moe_fail(e, MOE_E_INPUT, "\"%.100s\" is not KEY=VALUE", assignment);
	memcpy(buf, assignment, n + 1);
	equals = strchr(buf, '=');
	*equals = 0;
	*value = equals + 1;
	colon = strrchr(buf, ':');
	*host = colon ? buf : NULL;
	*key = colon ? colon + 1 : buf;
	if (colon)
		*colon = 0;
	return 0;
}

/* A host that `key` is unknown to stays as it is. */
static int set_host(struct moe_hardware *h, struct places *p, const char *key, const char *value, bool *known, struct moe_err *e)
{
	struct moe_hardware changed = *h;
	const struct place *x;
	int rc;

	list_places(&changed, p);
	x = find(p, key);
	*known = x != NULL;
	if (!x)
		return 0;
	rc = assign(x, value, e);
	rc = rc ? rc : moe_hardware_check(&changed, e);
	if (rc)
		return rc;
	*h = changed;
	return 0;
}

int moe_hardware_set(struct moe_fleet *f, const char *assignment, struct moe_err *e)
{
	char buf[256], *host = NULL, *key = NULL, *value = NULL;
	struct places p;
	int rc = split(assignment, buf, sizeof buf, &host, &key, &value, e);
	int hosts = 0, done = 0;

	for (int i = 0; i < f->n && rc == 0; i++) {
		bool known = false;

		if (host && strcmp(host, f->hosts[i].name) != 0)
			continue;
		rc = set_host(&f->hosts[i], &p, key, value, &known, e);
		hosts++;
		done += known;
	}
	if (rc)
		return rc;
	if (!hosts)
		return moe_fail(e, MOE_E_MISSING, "there is no host \"%s\"", host ? host : "");
	return done ? 0 : unknown_key(&p, key, e);
}
