/* Hardware by name: FLEET = NODE+NODE+..., NODE = [N*]MACHINE[/NETWORK], MACHINE = HOST or GPU[xN][@HOST]. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "base/words.h"
#include "plan/hardware.h"

#define LONGEST 48 /* of a machine's name; "#1024" fits behind it in a host's */

/* A NODE, taken apart. */
struct node {
	char machine[LONGEST]; /* as written, without N* */
	const struct moe_known_gpu *gpu; /* NULL: none */
	const struct moe_known_host *host;
	const struct moe_known_network *network;
	int64_t gpus, copies;
};

static int unknown(const char *kind, const char *name, const char *const *names, struct moe_err *e)
{
	const char *near = moe_nearest(name, names);

	if (near)
		return moe_fail(e, MOE_E_MISSING, "there is no %s \"%s\": is %s meant?", kind, name, near);
	return moe_fail(e, MOE_E_MISSING, "there is no %s \"%s\"", kind, name);
}

/* Cuts text at the last c; the part behind it, or NULL. */
static char *cut(char *text, int c)
{
	char *at = strrchr(text, c);

	if (!at)
		return NULL;
	*at = 0;
	return at + 1;
}

/* GPU or GPUxN.  A whole name goes first: "rtx4090" is not 4090 of "rt". */
static int parse_gpu(char *text, struct node *n, struct moe_err *e)
{
	char *times;

	n->gpus = 1;
	n->gpu = moe_known_gpu(text);
	if (n->gpu)
		return 0;
	times = strrchr(text, 'x');
	if (times && isdigit((unsigned char)times[1]) && moe_parse_int(times + 1, 1, MOE_MAX_DEVICES, &n->gpus)) {
		*times = 0;
		n->gpu = moe_known_gpu(text);
	}
	return n->gpu ? 0 : unknown("hardware", text, moe_hardware_names(), e);
}

static int parse_machine(char *text, struct node *n, struct moe_err *e)
{
	char *network = cut(text, '/'), *host = cut(text, '@');
	int rc = 0;

	n->host = host ? moe_known_host(host) : moe_known_host(text);
	if (host && !n->host)
		return unknown("host", host, moe_hardware_names(), e);
	if (host || !n->host)
		rc = parse_gpu(text, n, e);
	if (rc)
		return rc;
	if (!n->host)
		n->host = moe_known_host(n->gpu->host);
	n->network = moe_known_network(network ? network : n->host->network);
	return n->network ? 0 : unknown("network", network, moe_network_names(), e);
}

static int parse_node(const char *text, size_t len, struct node *n, struct moe_err *e)
{
	char buf[LONGEST], *machine = buf, *times;

	*n = (struct node){.copies = 1};
	if (len == 0 || len >= sizeof buf)
		return moe_fail(e, MOE_E_MISSING, "there is no hardware \"%.*s\"", (int)(len < LONGEST ? len : LONGEST), text);
	memcpy(buf, text, len);
	buf[len] = 0;
	times = strchr(buf, '*');
	if (times) {
		*times = 0;
		machine = times + 1;
		if (!moe_parse_int(buf, 1, MOE_MAX_HOSTS, &n->copies))
			return moe_fail(e, MOE_E_INPUT, "\"%s*%s\": before the * stands a number of hosts, 1 to %d", buf, machine, MOE_MAX_HOSTS);
	}
	memcpy(n->machine, machine, strlen(machine) + 1);
	return parse_machine(machine, n, e);
}

static void add_level(struct moe_hardware *h, const char *name, int count, double memory, double bandwidth, const double *flops,
                      double call)
{
	struct moe_memory_level *l = &h->levels[h->n_levels++];

	snprintf(l->name, sizeof l->name, "%s", name);
	l->count = count;
	l->memory = memory;
	l->bandwidth = bandwidth;
	l->call = call;
	if (flops)
		memcpy(l->flops, flops, sizeof l->flops);
}

static void add_link(struct moe_hardware *h, const char *from, const char *to, double bandwidth, double latency)
{
	h->links[h->n_links++] =
		(struct moe_link){moe_level_find(h, from), moe_level_find(h, to), bandwidth, latency, false};
}

static void build(const struct node *n, struct moe_hardware *h)
{
	const struct moe_known_host *c = n->host;

	if (n->gpu) {
		add_level(h, "gpu", (int)n->gpus, n->gpu->memory, n->gpu->bandwidth, n->gpu->flops, MOE_KNOWN_CALL_GPU);
		add_level(h, "cpu", 1, c->memory, c->bandwidth, c->flops, MOE_KNOWN_CALL_CPU);
		add_link(h, "cpu", "gpu", n->gpu->link, MOE_KNOWN_LINK_LATENCY);
		add_link(h, "gpu", "cpu", n->gpu->link, MOE_KNOWN_LINK_LATENCY);
	} else {
		add_level(h, "cpu", 1, c->memory, c->bandwidth, c->flops, MOE_KNOWN_CALL_CPU);
	}
	add_level(h, "disk", 1, c->disk, 0, NULL, 0);
	add_link(h, "disk", "cpu", c->disk_bandwidth, MOE_KNOWN_DISK_LATENCY);
	h->network_bandwidth = n->network->bandwidth;
	h->network_latency = n->network->latency;
}

/* Hosts are called what they are, the second of a kind "NAME#2" and so on. */
static int add_hosts(struct moe_fleet *f, const struct node *n, struct moe_err *e)
{
	size_t len = strlen(n->machine);
	struct moe_hardware *grown;
	int before = 0;

	if (n->copies > MOE_MAX_HOSTS - f->n)
		return moe_fail(e, MOE_E_RANGE, "more than %d hosts", MOE_MAX_HOSTS);
	grown = moe_realloc(f->hosts, (size_t)(f->n + n->copies), sizeof *grown, "hosts", e);
	if (!grown)
		return MOE_E_NOMEM;
	f->hosts = grown;
	for (int i = 0; i < f->n; i++)
		if (strncmp(f->hosts[i].name, n->machine, len) == 0 && (!f->hosts[i].name[len] || f->hosts[i].name[len] == '#'))
			before++;
	for (int i = 0; i < n->copies; i++) {
		struct moe_hardware *h = &f->hosts[f->n++];

		*h = (struct moe_hardware){.n_levels = 0};
		if (before + i == 0)
			snprintf(h->name, sizeof h->name, "%s", n->machine);
		else
			snprintf(h->name, sizeof h->name, "%s#%d", n->machine, before + i + 1);
		build(n, h);
	}
	return 0;
}

int moe_hardware_named(const char *name, struct moe_fleet *out, struct moe_err *e)
{
	struct moe_fleet f = {NULL, 0};
	const char *at = name;
	int rc = 0;

	while (rc == 0 && at) {
		const char *end = strchrnul(at, '+');
		struct node n;

		rc = parse_node(at, (size_t)(end - at), &n, e);
		rc = rc ? rc : add_hosts(&f, &n, e);
		at = *end ? end + 1 : NULL;
	}
	if (rc) {
		moe_fleet_free(&f);
		return rc;
	}
	*out = f;
	return 0;
}
