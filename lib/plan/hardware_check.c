/* Is a profile sound, and are its numbers those of a machine? */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "plan/hardware.h"

#define LARGEST 1e24 /* products of a few such numbers are still finite */

/* Positive and finite; zero too where it may be left out. */
static int number(const struct moe_hardware *h, double v, bool must, const char *where, const char *key, struct moe_err *e)
{
	if ((v > 0 || (v == 0 && !must)) && v <= LARGEST)
		return 0;
	if (v == 0)
		return moe_fail(e, MOE_E_INPUT, "host \"%s\": %s: \"%s\" is missing or zero", h->name, where, key);
	return moe_fail(e, MOE_E_INPUT, "host \"%s\": %s: \"%s\" is %g, not a positive finite number", h->name, where, key, v);
}

static int check_kernel(const struct moe_hardware *h, const struct moe_memory_level *l, int kernel, struct moe_err *e)
{
	const struct moe_kernel_roof *r = &l->kernels[kernel];
	char where[64];
	int rc = 0;

	snprintf(where, sizeof where, "level \"%s\": kernel \"%s\"", l->name, moe_kernel_name(kernel));
	for (int i = 0; i < r->n && rc == 0; i++) {
		rc = number(h, r->rows[i], true, where, "rows", e);
		rc = rc ? rc : number(h, r->bandwidth[i], true, where, "bandwidth", e);
		if (rc == 0 && (r->rows[i] < 1 || (i > 0 && r->rows[i] <= r->rows[i - 1])))
			rc = moe_fail(e, MOE_E_INPUT, "host \"%s\": %s: \"rows\" are not ascending from 1 on", h->name, where);
	}
	return rc;
}

static int check_kernels(const struct moe_hardware *h, const struct moe_memory_level *l, struct moe_err *e)
{
	int rc = 0;

	for (int k = 0; k < MOE_KERNELS && rc == 0; k++)
		rc = check_kernel(h, l, k, e);
	return rc;
}

static int check_level(const struct moe_hardware *h, int i, struct moe_err *e)
{
	const struct moe_memory_level *l = &h->levels[i];
	char where[40];
	int rc = 0;

	snprintf(where, sizeof where, "level \"%s\"", l->name);
	if (!l->name[0])
		return moe_fail(e, MOE_E_INPUT, "host \"%s\": a level has an empty name", h->name);
	if (moe_level_find(h, l->name) != i)
		return moe_fail(e, MOE_E_INPUT, "host \"%s\": there are two levels \"%s\"", h->name, l->name);
	if (l->count < 1 || l->count > MOE_MAX_DEVICES)
		return moe_fail(e, MOE_E_INPUT, "host \"%s\": %s: \"count\" is %d, not 1 to %d", h->name, where, l->count, MOE_MAX_DEVICES);
	rc = number(h, l->memory, true, where, "memory", e);
	for (int t = 0; t < MOE_FLOPS_TYPES && rc == 0; t++)
		rc = number(h, l->flops[t], false, where, "flops", e);
	rc = rc ? rc : number(h, l->bandwidth, moe_level_flops(l, MOE_FLOPS_F32) > 0, where, "bandwidth", e);
	rc = rc ? rc : number(h, l->call, false, where, "call", e);
	return rc ? rc : check_kernels(h, l, e);
}

static int check_link(const struct moe_hardware *h, int i, struct moe_err *e)
{
	const struct moe_link *l = &h->links[i];
	char where[64];
	int rc;

	snprintf(where, sizeof where, "link %s-%s", h->levels[l->from].name, h->levels[l->to].name);
	if (l->from == l->to)
		return moe_fail(e, MOE_E_INPUT, "host \"%s\": %s leads nowhere", h->name, where);
	if (moe_link_find(h, l->from, l->to) != l)
		return moe_fail(e, MOE_E_INPUT, "host \"%s\": there are two of %s", h->name, where);
	rc = number(h, l->bandwidth, true, where, "bandwidth", e);
	return rc ? rc : number(h, l->latency, false, where, "latency", e);
}

/* The host's own processor is the last one, and called "cpu": what is planned tells it by that. */
static int check_order(const struct moe_hardware *h, struct moe_err *e)
{
	const char *last = NULL;

	for (int i = 0; i < h->n_levels; i++)
		if (moe_level_flops(&h->levels[i], MOE_FLOPS_F32) > 0)
			last = h->levels[i].name;
	if (!last)
		return moe_fail(e, MOE_E_INPUT, "host \"%s\": no level has \"flops\": nothing there computes", h->name);
	if (strcmp(last, "cpu") != 0)
		return moe_fail(e, MOE_E_INPUT, "host \"%s\": the last level with \"flops\" is \"%s\", where the host's own, \"cpu\", belongs",
		                h->name, last);
	return 0;
}

int moe_hardware_check(const struct moe_hardware *h, struct moe_err *e)
{
	int rc = 0;

	if (h->n_levels < 1)
		return moe_fail(e, MOE_E_INPUT, "host \"%s\": \"levels\" is empty", h->name);
	for (int i = 0; i < h->n_levels && rc == 0; i++)
		rc = check_level(h, i, e);
	for (int i = 0; i < h->n_links && rc == 0; i++)
		rc = check_link(h, i, e);
	rc = rc ? rc : number(h, h->network_bandwidth, false, "network", "bandwidth", e);
	rc = rc ? rc : number(h, h->network_latency, false, "network", "latency", e);
	return rc ? rc : check_order(h, e);
}

int moe_fleet_check(const struct moe_fleet *f, struct moe_err *e)
{
	for (int i = 1; i < f->n; i++)
		for (int j = 0; j < i; j++)
			if (strcmp(f->hosts[i].name, f->hosts[j].name) == 0)
				return moe_fail(e, MOE_E_INPUT, "there are two hosts \"%s\"", f->hosts[i].name);
	return 0;
}

/* What exists today lies well within; a thousandth or a thousandfold of it does not. */
struct range {
	double least, most;
};
static const struct range gpu_memory = {1e9, 1e12}, cpu_memory = {1e9, 3e13}, store_memory = {1e10, 1e16};
static const struct range gpu_bandwidth = {2e10, 5e13}, cpu_bandwidth = {1e9, 5e12};
static const struct range gpu_flops = {1e12, 2e16}, cpu_flops = {5e9, 5e14};
static const struct range link_bandwidth = {1e8, 2e12}, network_bandwidth = {1e7, 2e11}, delay = {1e-8, 0.1};

static void doubt(const struct moe_hardware *h, const char *what, double v, const struct range *r, const char *unit)
{
	static const struct {
		double factor;
		const char *prefix;
	} scales[] = {{1e3, "K"}, {1e6, "M"}, {1e9, "G"}, {1e12, "T"}, {1e-3, "m"}, {1e-6, "u"}, {1e-9, "n"}};
	const char *prefix = NULL;

	if (v == 0 || (v >= r->least && v <= r->most))
		return;
	for (size_t i = 0; i < sizeof scales / sizeof scales[0] && !prefix; i++)
		if (v * scales[i].factor >= r->least && v * scales[i].factor <= r->most)
			prefix = scales[i].prefix;
	if (prefix && (v < r->least || strcmp(unit, "s") == 0))
		moe_log(MOE_WARN, "host \"%s\": %s is %g %s: are %g %s%s meant?", h->name, what, v, unit, v, prefix, unit);
	else
		moe_log(MOE_WARN, "host \"%s\": %s is %g %s: %s than any there is", h->name, what, v, unit, v < r->least ? "less" : "more");
}

static void doubt_level(const struct moe_hardware *h, const struct moe_memory_level *l)
{
	bool host = strcmp(l->name, "cpu") == 0, computes = moe_level_flops(l, MOE_FLOPS_F32) > 0;
	char what[64];

	snprintf(what, sizeof what, "%s memory", l->name);
	doubt(h, what, l->memory, !computes ? &store_memory : host ? &cpu_memory : &gpu_memory, "B");
	snprintf(what, sizeof what, "%s bandwidth", l->name);
	doubt(h, what, l->bandwidth, host ? &cpu_bandwidth : &gpu_bandwidth, "B/s");
	snprintf(what, sizeof what, "%s call", l->name);
	doubt(h, what, l->call, &delay, "s");
	for (int t = 0; t < MOE_FLOPS_TYPES; t++) {
		snprintf(what, sizeof what, "%s flops.%s", l->name, moe_flops_names[t]);
		doubt(h, what, l->flops[t], host ? &cpu_flops : &gpu_flops, "FLOP/s");
	}
}

void moe_hardware_doubt(const struct moe_hardware *h)
{
	char what[64];

	for (int i = 0; i < h->n_levels; i++)
		doubt_level(h, &h->levels[i]);
	for (int i = 0; i < h->n_links; i++) {
		const struct moe_link *l = &h->links[i];

		snprintf(what, sizeof what, "link %s-%s bandwidth", h->levels[l->from].name, h->levels[l->to].name);
		doubt(h, what, l->bandwidth, &link_bandwidth, "B/s");
		snprintf(what, sizeof what, "link %s-%s latency", h->levels[l->from].name, h->levels[l->to].name);
		doubt(h, what, l->latency, &delay, "s");
	}
	doubt(h, "network bandwidth", h->network_bandwidth, &network_bandwidth, "B/s");
	doubt(h, "network latency", h->network_latency, &delay, "s");
}

void moe_fleet_doubt(const struct moe_fleet *f)
{
	for (int i = 0; i < f->n; i++)
		moe_hardware_doubt(&f->hosts[i]);
}
