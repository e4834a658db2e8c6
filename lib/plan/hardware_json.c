/* Profiles and fleets from JSON (moe-policy(5)). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/hardware.h"

/* A name of at most cap - 1 bytes. */
static int read_name(const struct moe_json *o, const char *key, char *dst, size_t cap, const char *what, struct moe_err *e)
{
	const char *s = NULL;
	int rc = moe_json_need_str(o, key, true, &s, what, e);

	if (rc)
		return rc;
	if (!*s || strlen(s) >= cap)
		return moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is empty or longer than %zu bytes", what, key, cap - 1);
	memcpy(dst, s, strlen(s) + 1);
	return 0;
}

/* A number that has to be positive where it is given. */
static int read_positive(const struct moe_json *o, const char *key, double *out, const char *what, struct moe_err *e)
{
	double v = 1;
	int rc = moe_json_need_num(o, key, false, -HUGE_VAL, HUGE_VAL, &v, what, e);

	if (rc || moe_json_type(moe_json_get(o, key)) == MOE_JSON_NULL)
		return rc;
	if (!(v > 0))
		return moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is %g, not a positive number", what, key, v);
	*out = v;
	return 0;
}

/* A time: also zero. */
static int read_seconds(const struct moe_json *o, const char *key, double *out, const char *what, struct moe_err *e)
{
	return moe_json_need_num(o, key, false, 0, 1e6, out, what, e);
}

/* One number, which is then that of f32 and counts for all types; or one a type. */
static int read_flops(const struct moe_json *level, struct moe_memory_level *l, struct moe_err *e)
{
	const struct moe_json *v = moe_json_get(level, "flops");
	int rc = 0;

	if (moe_json_type(v) != MOE_JSON_OBJECT)
		return read_positive(level, "flops", &l->flops[MOE_FLOPS_F32], l->name, e);
	for (int t = 0; t < MOE_FLOPS_TYPES && rc == 0; t++)
		rc = read_positive(v, moe_flops_names[t], &l->flops[t], "flops", e);
	if (rc == 0 && !(moe_level_flops(l, MOE_FLOPS_F32) > 0))
		rc = moe_fail(e, MOE_E_INPUT, "\"flops\" has none of f32, f16, bf16, i8");
	return rc ? moe_fail_prefix(e, rc, "%s", l->name) : 0;
}

/* A few numbers; their values are checked with the whole profile. */
static int read_numbers(const struct moe_json *o, const char *key, double *out, int *n, const char *what, struct moe_err *e)
{
	const struct moe_json *list = moe_json_get(o, key);

	if (moe_json_type(list) != MOE_JSON_ARRAY || moe_json_count(list) < 1 || moe_json_count(list) > MOE_KERNEL_ROWS)
		return moe_fail(e, MOE_E_INPUT, "%s: \"%s\" is no list of 1 to %d numbers", what, key, MOE_KERNEL_ROWS);
	*n = (int)moe_json_count(list);
	for (int i = 0; i < *n; i++) {
		if (moe_json_type(moe_json_at(list, (size_t)i)) != MOE_JSON_NUMBER)
			return moe_fail(e, MOE_E_INPUT, "%s: \"%s\" has something that is no number", what, key);
		out[i] = moe_json_num(moe_json_at(list, (size_t)i), 0);
	}
	return 0;
}

static int read_kernel(const struct moe_json *v, struct moe_kernel_roof *k, const char *what, struct moe_err *e)
{
	int rows = 0, n = 0, rc = read_numbers(v, "rows", k->rows, &rows, what, e);

	rc = rc ? rc : read_numbers(v, "bandwidth", k->bandwidth, &n, what, e);
	if (rc == 0 && rows != n)
		return moe_fail(e, MOE_E_INPUT, "%s: %d \"rows\" and %d of \"bandwidth\"", what, rows, n);
	k->n = n;
	return rc;
}

static int read_kernels(const struct moe_json *level, struct moe_memory_level *l, struct moe_err *e)
{
	const struct moe_json *list = moe_json_get(level, "kernels");
	int rc = 0;

	if (moe_json_type(list) != MOE_JSON_OBJECT && moe_json_type(list) != MOE_JSON_NULL)
		return moe_fail(e, MOE_E_INPUT, "%s: \"kernels\" is no object", l->name);
	for (int k = 0; k < MOE_KERNELS && rc == 0; k++) {
		const struct moe_json *v = moe_json_get(list, moe_kernel_name(k));

		rc = v ? read_kernel(v, &l->kernels[k], moe_kernel_name(k), e) : 0;
	}
	return rc ? moe_fail_prefix(e, rc, "%s: kernels", l->name) : 0;
}

static int read_level(const struct moe_json *v, struct moe_memory_level *l, struct moe_err *e)
{
	int64_t count = 1;
	int rc = read_name(v, "name", l->name, sizeof l->name, "level", e);

	rc = rc ? rc : moe_json_need_int(v, "count", false, 1, MOE_MAX_DEVICES, &count, l->name, e);
	rc = rc ? rc : read_positive(v, "memory", &l->memory, l->name, e);
	rc = rc ? rc : read_positive(v, "bandwidth", &l->bandwidth, l->name, e);
	rc = rc ? rc : read_seconds(v, "call", &l->call, l->name, e);
	rc = rc ? rc : read_flops(v, l, e);
	rc = rc ? rc : read_kernels(v, l, e);
	l->count = (int)count;
	if (!(moe_level_flops(l, MOE_FLOPS_F32) > 0))
		l->bandwidth = 0; /* nothing there reads it: its link says how fast it is */
	return rc;
}

static int read_end(const struct moe_json *v, const char *key, const struct moe_hardware *h, int *out, struct moe_err *e)
{
	const char *name = NULL;
	int rc = moe_json_need_str(v, key, true, &name, "link", e);

	if (rc)
		return rc;
	*out = moe_level_find(h, name);
	return *out < 0 ? moe_fail(e, MOE_E_INPUT, "link: \"%s\" is \"%s\", and there is no such level", key, name) : 0;
}

static int read_link(const struct moe_json *v, const struct moe_hardware *h, struct moe_link *l, struct moe_err *e)
{
	int rc = read_end(v, "from", h, &l->from, e);

	rc = rc ? rc : read_end(v, "to", h, &l->to, e);
	rc = rc ? rc : read_positive(v, "bandwidth", &l->bandwidth, "link", e);
	rc = rc ? rc : read_seconds(v, "latency", &l->latency, "link", e);
	return rc ? rc : moe_json_need_bool(v, "shared", false, &l->shared, "link", e);
}

static int check_list(const struct moe_json *list, const char *key, size_t most, struct moe_err *e)
{
	if (moe_json_type(list) != MOE_JSON_ARRAY && moe_json_type(list) != MOE_JSON_NULL)
		return moe_fail(e, MOE_E_INPUT, "\"%s\" is no list", key);
	if (moe_json_count(list) > most)
		return moe_fail(e, MOE_E_INPUT, "\"%s\" has %zu elements, more than %zu", key, moe_json_count(list), most);
	return 0;
}

static int read_parts(const struct moe_json *j, struct moe_hardware *h, struct moe_err *e)
{
	const struct moe_json *levels = moe_json_get(j, "levels"), *links = moe_json_get(j, "links");
	const struct moe_json *network = moe_json_get(j, "network");
	int rc = check_list(levels, "levels", MOE_MAX_LEVELS, e);

	rc = rc ? rc : check_list(links, "links", MOE_MAX_LINKS, e);
	for (size_t i = 0; i < moe_json_count(levels) && rc == 0; i++)
		rc = read_level(moe_json_at(levels, i), &h->levels[h->n_levels++], e);
	for (size_t i = 0; i < moe_json_count(links) && rc == 0; i++)
		rc = read_link(moe_json_at(links, i), h, &h->links[h->n_links++], e);
	rc = rc ? rc : read_positive(network, "bandwidth", &h->network_bandwidth, "network", e);
	return rc ? rc : read_seconds(network, "latency", &h->network_latency, "network", e);
}

/* A profile without a name is that of its only host: it is named after what it was read from. */
static int read_host(const struct moe_json *j, const char *name, struct moe_hardware *h, struct moe_err *e)
{
	int rc;

	if (moe_json_type(j) != MOE_JSON_OBJECT)
		return moe_fail(e, MOE_E_INPUT, "a profile is an object, not %s", moe_json_type_name(moe_json_type(j)));
	if (moe_json_get(j, "name") || !name)
		rc = read_name(j, "name", h->name, sizeof h->name, "profile", e);
	else
		rc = 0;
	if (rc)
		return rc;
	if (!h->name[0])
		memcpy(h->name, name, strlen(name) + 1);
	rc = read_parts(j, h, e);
	if (rc)
		return moe_fail_prefix(e, rc, "host \"%s\"", h->name);
	return moe_hardware_check(h, e);
}

int moe_fleet_from_json(const struct moe_json *j, const char *what, struct moe_fleet *out, struct moe_err *e)
{
	const struct moe_json *hosts = moe_json_get(j, "hosts");
	size_t n = hosts ? moe_json_count(hosts) : 1;
	struct moe_fleet f = {NULL, 0};
	int rc = 0;

	if (hosts && (moe_json_type(hosts) != MOE_JSON_ARRAY || n == 0 || n > MOE_MAX_HOSTS))
		return moe_fail(e, MOE_E_INPUT, "%s: \"hosts\" is no list of 1 to %d profiles", what, MOE_MAX_HOSTS);
	f.hosts = moe_calloc(n, sizeof *f.hosts, "hosts", e);
	if (!f.hosts)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = read_host(hosts ? moe_json_at(hosts, i) : j, hosts ? NULL : "host", &f.hosts[f.n++], e);
	rc = rc ? rc : moe_fleet_check(&f, e);
	if (rc) {
		moe_fleet_free(&f);
		return moe_fail_prefix(e, rc, "%s", what);
	}
	*out = f;
	return 0;
}
