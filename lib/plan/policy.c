/* policy.json, read: a plan people may have edited. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/plan.h"

#define POLICY_CAP ((size_t)256 << 20)
#define MAX_MEMORY 9007199254740992 /* 2^53 */

/* A member of at most cap - 1 bytes; absent: dst stays. */
static int read_text(const struct moe_json *o, const char *key, char *dst, size_t cap, struct moe_err *e)
{
	const char *s = NULL;
	int rc = moe_json_need_str(o, key, false, &s, "device", e);

	if (rc || !s)
		return rc;
	if (strlen(s) >= cap)
		return moe_fail(e, MOE_E_INPUT, "device: \"%s\" is longer than %zu bytes", key, cap - 1);
	memcpy(dst, s, strlen(s) + 1);
	return 0;
}

/* What moe-shard can write; other values are for later programs and must not be half obeyed. */
static int check_device(const struct moe_device *d, int index, struct moe_err *e)
{
	const char *l = d->layout;
	enum moe_quant q;

	if (d->quant[0] && !moe_quant_parse(d->quant, &q))
		return moe_fail(e, MOE_E_UNSUPPORTED, "device %d: quant \"%s\" is none that is written", index, d->quant);
	if (l[0] && strcmp(l, "plain") != 0 && strcmp(l, "packed") != 0 && strcmp(l, moe_layout_name(MOE_L_R64)) != 0)
		return moe_fail(e, MOE_E_UNSUPPORTED, "device %d: layout \"%s\" is neither plain nor packed", index, l);
	return 0;
}

static int read_device(const struct moe_json *v, int n, struct moe_device *devices, struct moe_err *e)
{
	struct moe_device d = {.kind = "cpu", .speed = 1};
	int64_t index = -1, memory = 0;
	int rc = moe_json_need_int(v, "index", true, 0, n - 1, &index, "device", e);

	if (rc)
		return rc;
	if (devices[index].speed > 0)
		return moe_fail(e, MOE_E_INPUT, "device %d: described twice", (int)index);
	rc = moe_json_need_int(v, "memory", false, 0, MAX_MEMORY, &memory, "device", e);
	rc = rc ? rc : read_text(v, "host", d.host, sizeof d.host, e);
	rc = rc ? rc : read_text(v, "kind", d.kind, sizeof d.kind, e);
	rc = rc ? rc : read_text(v, "quant", d.quant, sizeof d.quant, e);
	rc = rc ? rc : read_text(v, "layout", d.layout, sizeof d.layout, e);
	rc = rc ? rc : check_device(&d, (int)index, e);
	d.memory = (uint64_t)memory;
	devices[index] = d;
	return rc;
}

static int read_devices(const struct moe_json *j, struct moe_device **out, int *n, struct moe_err *e)
{
	const struct moe_json *list = moe_json_get(j, "devices");
	struct moe_device *v;
	size_t count = moe_json_count(list);
	int rc = 0;

	if (moe_json_type(list) != MOE_JSON_ARRAY || count == 0 || count > MOE_MAX_DEVICES)
		return moe_fail(e, MOE_E_INPUT, "no list \"devices\" of 1 to %d", MOE_MAX_DEVICES);
	v = moe_calloc(count, sizeof *v, "devices", e);
	if (!v)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < count && rc == 0; i++)
		rc = read_device(moe_json_at(list, i), (int)count, v, e);
	if (rc) {
		free(v);
		return rc;
	}
	*out = v;
	*n = (int)count;
	return 0;
}

static int check_policy(const struct moe_json *j, struct moe_err *e)
{
	int64_t schema = 0;
	int rc = moe_json_need_int(j, "schema", true, 1, INT32_MAX, &schema, "policy", e);

	if (rc == 0 && schema > MOE_POLICY_SCHEMA)
		rc = moe_fail(e, MOE_E_UNSUPPORTED, "schema %d is newer than this program, which reads up to %d", (int)schema,
		              MOE_POLICY_SCHEMA);
	if (rc == 0 && !moe_json_get(j, "placement"))
		rc = moe_fail(e, MOE_E_INPUT, "no \"placement\"");
	return rc;
}

int moe_policy_from_json(const struct moe_json *j, const char *what, const struct moe_model *m, struct moe_device **devices,
                         struct moe_placement *out, struct moe_err *e)
{
	struct moe_device *v = NULL;
	int n = 0, rc = check_policy(j, e);

	rc = rc ? rc : read_devices(j, &v, &n, e);
	if (rc)
		return moe_fail_prefix(e, rc, "%s", what);
	rc = moe_placement_from_json(j, what, m, n, out, e);
	if (rc)
		free(v);
	else
		*devices = v;
	return rc;
}

int moe_policy_read(const char *path, const struct moe_model *m, struct moe_device **devices, struct moe_placement *out,
                    struct moe_err *e)
{
	struct moe_json *j;
	int rc = moe_json_read(path, POLICY_CAP, &j, e);

	if (rc)
		return rc;
	rc = moe_policy_from_json(j, path, m, devices, out, e);
	moe_json_free(j);
	return rc;
}
