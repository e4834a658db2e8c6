#include "run/run.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "pool/pool.h"
#include "run/private.h"

static int find_servers(struct moe_run *r, const struct moe_run_config *c, struct moe_err *e)
{
	struct moe_members_config m = {.hosts = c->hosts, .connect = c->connect, .n_connect = c->n_connect, .timeout = c->timeout};
	int rc = moe_members_new(&m, &r->members, e);
	return rc ? rc : moe_members_get(r->members, &r->endpoints, e);
}

int moe_run_servers(struct moe_run *r, const struct moe_run_config *c, int max_rows, struct moe_err *e)
{
	struct moe_keys_config keys = {.own = c->client_key, .server = c->server_key};
	struct moe_hash fingerprint;
	int rc = c->client_key ? moe_keys_new(&keys, &r->keys, e) : 0;
	rc = rc ? rc : find_servers(r, c, e);
	rc = rc ? rc : moe_source_fingerprint(r->source, &fingerprint, e);
	if (rc)
		return rc;
	struct moe_remote_config rc_config = {
		.endpoints = &r->endpoints,
		.members = r->members,
		.keys = r->keys,
		.model = r->model,
		.mixed_numerics = c->mixed_numerics,
		.presum = c->presum,
		.degrade = c->degrade,
		.hedge = c->hedge,
		.wire = r->numerics.wire,
		.transport = c->transport,
		.busy_poll = c->busy_poll,
		.connect_timeout = c->timeout,
		.timeout = c->timeout,
		.max_rows = max_rows,
		.watch = c->watch,
		.on_ask = c->on_ask,
		.ctx_ask = c->ctx_ask,
	};
	struct moe_identity *id = &rc_config.identity;
	memcpy(id->fingerprint, fingerprint.hex, sizeof id->fingerprint);
	id->epoch = r->source->epoch;
	id->numerics = moe_numerics_experts_id(&r->numerics, id->numerics_text);
	return moe_experts_remote(&rc_config, &r->experts, e);
}

static int open_local(struct moe_run *r, int max_rows, struct moe_err *e)
{
	return moe_experts_local(r->backend, r->tensors, r->model, NULL, max_rows, &r->experts, e);
}

static int open_on_demand(struct moe_run *r, int max_rows, struct moe_err *e)
{
	struct moe_pooled_config p = {.device = r->device, .memory = r->cache_memory, .evict = MOE_EVICT_LRU, .max_rows = max_rows};
	return moe_experts_pooled(r->model, r->tensors, &p, &r->experts, e);
}

static int set_ctx(struct moe_run *r, struct moe_engine_config *c, int by_default, struct moe_err *e)
{
	int most = r->model->max_positions;
	if (!by_default)
		by_default = 4096;
	if (!c->ctx)
		c->ctx = most < by_default ? most : by_default;
	if (c->ctx > most)
		return moe_fail(e, MOE_E_RANGE, "a context of %d is more than the %d positions of this model", c->ctx, most);
	r->ctx = c->ctx;
	return 0;
}

int moe_run_numerics(struct moe_run_config *c, bool exact, const char *activations, const char *kv, const char *wire,
                     struct moe_err *e)
{
	int rc = moe_numerics_choose(exact, activations, &c->numerics, e);
	if (rc)
		return rc;
	c->kv_by_weights = !exact && !kv;
	if (kv && !moe_kv_type_parse(kv, &c->numerics.kv))
		return moe_fail(e, MOE_E_RANGE, "--kv %s: not f32, f16, bf16 or q8", kv);
	if (exact && c->numerics.kv != MOE_KV_F32)
		return moe_fail(e, MOE_E_RANGE, "--exact keeps keys and values in f32, --kv %s does not", kv);
	if (wire && !moe_wire_type_parse(wire, &c->numerics.wire))
		return moe_fail(e, MOE_E_RANGE, "--wire %s: not f32, f16 or bf16", wire);
	if (c->numerics.wire == MOE_WIRE_F32)
		return 0;
	if (exact)
		return moe_fail(e, MOE_E_RANGE, "--exact sends hidden states in f32, --wire %s does not", wire);
	if (!c->hosts && !c->n_connect)
		return moe_fail(e, MOE_E_RANGE, "--wire %s needs servers (--hosts or --connect)", wire);
	return 0;
}

int moe_run_overlap(struct moe_run_config *c, const char *overlap, struct moe_err *e)
{
	static const char *const names[] = {[MOE_OVERLAP_AUTO] = "auto", [MOE_OVERLAP_ON] = "on", [MOE_OVERLAP_OFF] = "off"};
	enum moe_overlap *o = &c->engine.overlap;
	*o = MOE_OVERLAP_AUTO;
	while (overlap && *o <= MOE_OVERLAP_OFF && strcmp(overlap, names[*o]) != 0)
		++*o;
	if (*o > MOE_OVERLAP_OFF)
		return moe_fail(e, MOE_E_RANGE, "--overlap %s: not auto, on or off", overlap);
	if (*o == MOE_OVERLAP_ON && !c->hosts && !c->n_connect)
		return moe_fail(e, MOE_E_RANGE, "--overlap on needs servers (--hosts or --connect)");
	return 0;
}

int moe_run_check_connect(const char *const *connect, int n, struct moe_err *e)
{
	int rc = 0;
	for (int i = 0; i < n && rc == 0; i++) {
		rc = moe_members_check(connect[i], e);
		for (int j = 0; j < i && rc == 0; j++)
			if (strcmp(connect[i], connect[j]) == 0)
				rc = moe_fail(e, MOE_E_INPUT, "%s is listed twice", connect[i]);
	}
	return rc ? moe_fail_prefix(e, rc, "--connect") : 0;
}

int moe_run_check_keys(const struct moe_run_config *c, struct moe_err *e)
{
	if (c->server_key && !c->client_key)
		return moe_fail(e, MOE_E_RANGE, "--server-key needs --client-key: servers with keys want to know who asks");
	if (c->client_key && !c->hosts && !c->n_connect)
		return moe_fail(e, MOE_E_RANGE, "--client-key needs servers (--hosts or --connect)");
	return 0;
}

int moe_run_reload(struct moe_run *r, struct moe_err *e)
{
	if (r->members)
		moe_members_look(r->members);
	return r->keys ? moe_keys_reload(r->keys, e) : 0;
}

static int verify(const struct moe_run *r, const struct moe_run_config *c, struct moe_err *e)
{
	struct moe_shard_options o = MOE_SHARD_OPTIONS_INIT;
	if (!c->verify)
		return 0;
	o.threads = c->threads;
	o.tick = c->tick.fn;
	o.ctx = c->tick.ctx;
	return moe_source_verify(r->source, r->remote ? MOE_BASE : MOE_ALL, &o, e);
}

/* Keys come out of a product with weights; where those have 16 bits or fewer, as many do for the keys. */
static int set_kv(struct moe_run *r, const struct moe_run_config *c, struct moe_err *e)
{
	struct moe_base_weights w;
	if (!c->kv_by_weights)
		return 0;
	int rc = moe_bind_base(r->tensors, r->model, &w, e);
	if (rc)
		return rc;
	r->numerics.kv = MOE_KV_F32;
	for (int l = 0; l < r->model->n_layers; l++)
		if (w.layers[l].k.quant != MOE_Q_F32)
			r->numerics.kv = MOE_KV_F16;
	moe_base_free(&w);
	return 0;
}

/* Sequences that go together, on a device or not, and what they take.  Nothing has been read yet but headers. */
static int settle(struct moe_run *r, const struct moe_run_config *c, struct moe_engine_config *engine, struct moe_err *e)
{
	struct run_policy policy = {.path = NULL};
	int rc = c->offload.policy ? moe_run_policy(c->offload.policy, r->model, &policy, e) : 0;

	r->predicted = policy.predicted;
	rc = rc ? rc : moe_run_device(r, c, &policy, e);
	rc = rc ? rc : verify(r, c, e);
	rc = rc ? rc : moe_source_tensors(r->source, r->remote ? MOE_BASE : MOE_ALL, &r->tensors, e);
	rc = rc ? rc : set_kv(r, c, e);
	engine->kv = r->numerics.kv;
	return rc ? rc : moe_run_settle(r, c, &policy, engine, e);
}

static int open_compute(struct moe_run *r, const struct moe_run_config *c, struct moe_err *e)
{
	int rc = moe_team_new(c->threads, &r->team, e);

	rc = rc ? rc : moe_tensors_load(r->tensors, c->weights, r->team, c->tick.fn ? &c->tick : NULL, e);
	rc = rc ? rc : moe_backend_cpu(r->team, &r->numerics, &r->backend, e);
	return !rc && c->record ? moe_recorder_start(r->backend, &r->recorder, e) : rc;
}

static int open_experts(struct moe_run *r, const struct moe_run_config *c, const struct moe_engine_config *engine, struct moe_err *e)
{
	int max_rows = moe_run_max_rows(engine);

	if (r->remote)
		return moe_run_servers(r, c, max_rows, e);
	if (engine->offload)
		return 0;
	return r->on_demand ? open_on_demand(r, max_rows, e) : open_local(r, max_rows, e);
}

static int check(const struct moe_run *r, const struct moe_run_config *c, struct moe_err *e)
{
	if (!r->remote && r->numerics.wire != MOE_WIRE_F32)
		return moe_fail(e, MOE_E_UNSUPPORTED, "without servers no hidden states travel, and none are rounded");
	if (!r->remote && (c->degrade || c->hedge > 0))
		return moe_fail(e, MOE_E_UNSUPPORTED, "without servers no expert is missing or late");
	if (r->remote && c->record)
		return moe_fail(e, MOE_E_UNSUPPORTED, "what experts are multiplied with is only seen where they are computed here");
	return moe_run_check_offload(c, e);
}

static int open_all(struct moe_run *r, const struct moe_run_config *c, struct moe_err *e)
{
	struct moe_engine_config engine = c->engine;
	int rc;

	engine.step_timeout = c->timeout;
	r->numerics = c->numerics;
	r->weights = c->weights;
	r->remote = c->hosts || c->n_connect > 0;
	r->degrade = engine.degrade = c->degrade;
	r->hedge = c->hedge;
	r->memory_pressure = c->memory_pressure > 0 ? c->memory_pressure : MOE_RUN_MEMORY_PRESSURE;
	rc = check(r, c, e);
	rc = rc ? rc : moe_source_open(c->shards, &r->source, e);
	if (rc)
		return rc;
	r->model = &r->source->model;
	rc = set_ctx(r, &engine, c->most_ctx, e);
	rc = rc ? rc : settle(r, c, &engine, e);
	rc = rc ? rc : open_compute(r, c, e);
	rc = rc ? rc : open_experts(r, c, &engine, e);
	return rc ? rc : moe_engine_new(r->model, r->tensors, r->backend, r->experts, &engine, &r->engine, e);
}

int moe_run_open(const struct moe_run_config *c, struct moe_run **out, struct moe_err *e)
{
	struct moe_run *r = moe_calloc(1, sizeof *r, "a run", e);
	if (!r)
		return MOE_E_NOMEM;
	int rc = open_all(r, c, e);
	if (rc)
		moe_run_close(r);
	else
		*out = r;
	return rc;
}

void moe_run_close(struct moe_run *r)
{
	if (!r)
		return;
	moe_engine_free(r->engine);
	if (r->experts)
		r->experts->ops->close(r->experts);
	if (r->device)
		r->device->ops->close(r->device);
	moe_recorder_stop(r->recorder);
	if (r->backend)
		r->backend->ops->close(r->backend);
	moe_team_free(r->team);
	moe_endpoints_free(&r->endpoints);
	moe_members_free(r->members);
	moe_keys_free(r->keys);
	moe_tensors_free(r->tensors);
	moe_source_close(r->source);
	moe_buf_free(&r->notes);
	free(r);
}

uint64_t moe_run_weight_bytes(const struct moe_run *r)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < moe_tensors_count(r->tensors); i++)
		sum += moe_tensors_at(r->tensors, i)->bytes;
	return sum;
}
