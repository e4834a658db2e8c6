/* A policy file, held against the model that is to be run by it. */
#include <stdlib.h>
#include <string.h>

#include "run/private.h"

#define POLICY_CAP ((size_t)256 << 20)
#define MOST_NUMBER 1e12

/* What it says of its model; a part that it does not say is not held against this one. */
static int check_model(const struct moe_json *j, const struct moe_model *m, struct moe_err *e)
{
	const struct moe_json *o = moe_json_get(j, "model");
	const char *family = moe_json_str(moe_json_get(o, "family"), m->name);
	double layers = moe_json_num(moe_json_get(o, "layers"), m->n_layers), hidden = moe_json_num(moe_json_get(o, "hidden"), m->hidden);
	double experts = moe_json_num(moe_json_get(o, "experts"), moe_model_max_experts(m));

	if (strcmp(family, m->name) == 0 && layers == m->n_layers && hidden == m->hidden && experts == moe_model_max_experts(m))
		return 0;
	return moe_fail(e, MOE_E_INPUT,
	                "it is for another model: %s, %g layers of %g, %g experts; this one is %s, %d layers of %d, %d experts", family,
	                layers, hidden, experts, m->name, m->n_layers, m->hidden, moe_model_max_experts(m));
}

/* Experts and devices are moe-shard's and moe-serve's; but a policy whose placement does not fit the model is not this model's. */
static int check_placement(const struct moe_json *j, const char *path, const struct moe_model *m, struct moe_err *e)
{
	struct moe_placement placement;
	struct moe_device *devices;
	int rc = moe_policy_from_json(j, path, m, &devices, &placement, e);

	if (rc)
		return rc;
	moe_placement_free(&placement);
	free(devices);
	return 0;
}

/* One device beside the host: the one that does what the host does not. */
static int find_device(const struct moe_hardware *h, struct run_policy *p, struct moe_err *e)
{
	const struct moe_execution *x = &p->execution;
	int attention = x->attention_on, ffn = x->ffn_on;

	p->host = moe_level_find(h, "cpu");
	p->on_host = attention == p->host && ffn == p->host;
	p->gpu = ffn != p->host ? ffn : attention;
	if (p->on_host) {
		p->gpu = -1;
		return 0;
	}
	if (attention != p->host && ffn != p->host && attention != ffn)
		return moe_fail(e, MOE_E_UNSUPPORTED, "attention on %s and experts on %s are two devices, and a run has one", h->levels[attention].name,
		                h->levels[ffn].name);
	if (h->levels[p->gpu].count > 1)
		return moe_fail(e, MOE_E_UNSUPPORTED, "it is for %d devices \"%s\", and a run has one: plan with --set %s.count=1",
		                h->levels[p->gpu].count, h->levels[p->gpu].name, h->levels[p->gpu].name);
	p->gpu_memory = h->levels[p->gpu].memory;
	return 0;
}

/* The rules of the schedules, which a file that was written by hand may break. */
static int check_execution(const struct moe_hardware *h, const struct run_policy *p, struct moe_err *e)
{
	const struct moe_execution *x = &p->execution;
	const char *name = moe_schedule_name(x->schedule);
	bool fetches = x->schedule == MOE_SCHEDULE_FLEXGEN || x->schedule == MOE_SCHEDULE_ZERO;

	if (x->schedule == MOE_SCHEDULE_RESIDENT) {
		if (!p->on_host && x->weights[x->ffn_on] < 1)
			return moe_fail(e, MOE_E_INPUT, "%s: all experts lie where they are computed, and \"%s\" has only %.4g of them", name,
			                h->levels[x->ffn_on].name, x->weights[x->ffn_on]);
		return 0;
	}
	if (x->ffn_on == p->host)
		return moe_fail(e, MOE_E_INPUT, "%s brings experts to a device, and \"ffn_on\" is \"%s\"", name, h->levels[p->host].name);
	if (fetches == (x->attention_on == p->host))
		return moe_fail(e, MOE_E_INPUT, "%s computes attention on the %s, and \"attention_on\" is \"%s\"", name,
		                fetches ? "device" : "host", h->levels[x->attention_on].name);
	return 0;
}

static int read_rest(const struct moe_json *j, struct run_policy *p, struct moe_err *e)
{
	const struct moe_json *o = moe_json_get(j, "policy"), *w = moe_json_get(j, "workload");
	int64_t kv_bytes = 0;
	double mean = 0, most = 0, generate = 0;
	bool padded = false;
	int rc;

	p->pinned = moe_schedule_pins(p->execution.schedule);
	rc = moe_json_need_bool(o, "pinned", false, &p->pinned, "policy", e);
	rc = rc ? rc : moe_json_need_int(o, "kv_bytes", false, 1, 8, &kv_bytes, "policy", e);
	if (moe_json_type(w) == MOE_JSON_OBJECT) {
		rc = rc ? rc : moe_json_need_num(w, "prompt_mean", false, 0, MOST_NUMBER, &mean, "workload", e);
		rc = rc ? rc : moe_json_need_num(w, "prompt_max", false, 0, MOST_NUMBER, &most, "workload", e);
		rc = rc ? rc : moe_json_need_num(w, "generate", false, 0, MOST_NUMBER, &generate, "workload", e);
		rc = rc ? rc : moe_json_need_bool(w, "padded", false, &padded, "workload", e);
	}
	rc = rc ? rc : moe_json_need_num(moe_json_get(j, "prediction"), "tokens_per_second", false, 0, MOST_NUMBER, &p->predicted, "prediction", e);
	p->kv_bytes = (int)kv_bytes;
	p->prompt = padded && most > mean ? most : mean;
	p->positions = p->prompt > 0 ? p->prompt + generate : 0;
	return rc;
}

static int read_execution(const struct moe_json *j, const char *path, struct run_policy *p, struct moe_err *e)
{
	const struct moe_json *hardware = moe_json_get(j, "hardware");
	struct moe_fleet fleet;
	int rc;

	if (!moe_json_get(j, "policy"))
		return moe_fail(e, MOE_E_MISSING, "%s: it only says which device holds which expert, nothing of how a batch is run: it is for moe-shard --policy",
		                path);
	if (!hardware)
		return moe_fail(e, MOE_E_INPUT, "%s: no \"hardware\": \"policy\" names its levels", path);
	rc = moe_fleet_from_json(hardware, path, &fleet, e);
	if (rc)
		return rc;
	rc = moe_execution_from_json(j, path, &fleet.hosts[0], &p->execution, e);
	if (!rc) {
		rc = find_device(&fleet.hosts[0], p, e);
		rc = rc ? rc : check_execution(&fleet.hosts[0], p, e);
		rc = rc ? rc : read_rest(j, p, e);
		if (rc)
			moe_fail_prefix(e, rc, "%s", path);
	}
	moe_fleet_free(&fleet);
	return rc;
}

int moe_run_policy(const char *path, const struct moe_model *m, struct run_policy *out, struct moe_err *e)
{
	struct run_policy p = {.path = path};
	struct moe_json *j;
	int rc = moe_json_read(path, POLICY_CAP, &j, e);

	if (rc)
		return rc;
	rc = check_model(j, m, e);
	if (rc)
		moe_fail_prefix(e, rc, "%s", path);
	rc = rc ? rc : check_placement(j, path, m, e);
	rc = rc ? rc : read_execution(j, path, &p, e);
	moe_json_free(j);
	if (rc == 0)
		*out = p;
	return rc;
}
