/* moe-shard --list-files: what to copy to a host, a name a line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/net.h"
#include "shard.h"

struct devices {
	int64_t v[MOE_MAX_DEVICES];
	int n;
};

/* The host of an endpoint: tcp://HOST:PORT. */
static bool is_at(const char *endpoint, const char *host)
{
	size_t n = strlen(host);

	return strncmp(endpoint, "tcp://", 6) == 0 && strncmp(endpoint + 6, host, n) == 0 && endpoint[6 + n] == ':' &&
	       !strchr(endpoint + 7 + n, ':');
}

/* Rank i is the i-th server of a hosts file. */
static int by_hosts(const struct shard_args *a, struct devices *d, int *known, struct moe_err *e)
{
	struct moe_endpoints list = {NULL, 0};
	int rc = moe_hosts_read(a->hosts, 0, &list, e);

	*known = list.n;
	for (int i = 0; i < list.n && i < MOE_MAX_DEVICES && !rc; i++)
		if (is_at(list.v[i].at, a->host))
			d->v[d->n++] = i;
	moe_endpoints_free(&list);
	return rc;
}

static int by_policy(const struct shard_args *a, const struct moe_source *s, struct devices *d, int *known, struct moe_err *e)
{
	struct moe_placement placement = {0};
	struct moe_device *devices = NULL;
	int rc = moe_policy_read(a->policy, &s->model, &devices, &placement, e);

	*known = placement.devices;
	for (int i = 0; i < placement.devices && i < MOE_MAX_DEVICES && !rc; i++)
		if (strcmp(devices[i].host, a->host) == 0)
			d->v[d->n++] = i;
	moe_placement_free(&placement);
	free(devices);
	return rc;
}

static int by_host(const struct shard_args *a, const struct moe_source *s, struct devices *d, struct moe_err *e)
{
	const char *file = a->policy ? a->policy : a->hosts;
	int known = 0, rc = a->policy ? by_policy(a, s, d, &known, e) : by_hosts(a, d, &known, e);

	if (rc)
		return rc;
	if (known != s->placement.devices)
		return moe_fail(e, MOE_E_INPUT, "%s: has %d device%s, %s was cut for %d", file, known, known == 1 ? "" : "s", s->path,
		                s->placement.devices);
	if (!d->n)
		return moe_fail(e, MOE_E_MISSING, "%s: no device on host '%s'", file, a->host);
	return 0;
}

static int choose(const struct shard_args *a, const struct moe_source *s, struct devices *d, struct moe_err *e)
{
	if (a->host)
		return by_host(a, s, d, e);
	if (a->device) /* main has looked at the form */
		d->n = moe_parse_int_list(a->device, 0, MOE_MAX_DEVICES - 1, d->v, MOE_MAX_DEVICES);
	else if (!a->base)
		while (d->n < s->placement.devices && d->n < MOE_MAX_DEVICES) {
			d->v[d->n] = d->n;
			d->n++;
		}
	return 0;
}

static void print(void *ctx, const char *name)
{
	(void)ctx;
	puts(name);
}

int list_files(const struct shard_args *a, const char *dir, struct moe_err *e)
{
	bool all = !a->host && !a->device && !a->base;
	struct devices *d = moe_calloc(1, sizeof *d, "devices", e);
	struct moe_source *s;
	int rc = d ? moe_source_open(dir, &s, e) : MOE_E_NOMEM;

	if (!rc) {
		rc = choose(a, s, d, e);
		if (!rc)
			rc = moe_shard_list(s, d->v, d->n, a->base || all, print, NULL, e);
		moe_source_close(s);
	}
	free(d);
	return rc;
}
