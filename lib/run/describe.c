/* What is in effect, and how requests sample by default. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/opts.h"
#include "pool/pool.h"
#include "run/run.h"

/* ---- the device ---- */

static int describe_experts(const struct moe_run *r, struct moe_buf *out, struct moe_err *e)
{
	const struct moe_offload *o = &r->offload;
	struct moe_pager_config c = {.resident = o->weights, .pages = 1, .pinned = o->pinned, .from_disk = o->from_disk};
	struct moe_pager_sizes s;
	char stay[32], slots[32];
	int rc;

	if (o->schedule == MOE_SCHEDULE_RESIDENT)
		return moe_buf_printf(out, e, "experts: all on the %s\n", o->experts_on_cpu ? "host" : "device");
	rc = moe_pager_plan(r->model, r->tensors, &c, &s, e);
	if (rc)
		return rc;
	if (s.moved_experts == 0)
		return moe_buf_printf(out, e, "experts: all stay on the device, none come\n");
	return moe_buf_printf(out, e,
	                      "experts: %d of %d stay on the device (%s, a share of %.4g; asked for: %.4g); the others come from %s, a layer at a time, "
	                      "into two places of %s\n",
	                      s.resident_experts, s.resident_experts + s.moved_experts, moe_size_text((double)s.resident, stay),
	                      s.all ? (double)s.resident / (double)s.all : 0, o->weights,
	                      o->from_disk ? "the file" : o->pinned ? "pinned memory" : "memory through a pinned relay",
	                      moe_size_text((double)s.slots / 2, slots));
}

/* Is attention of generated tokens the device's? */
static bool attends(const struct moe_offload *o)
{
	if (o->schedule == MOE_SCHEDULE_RESIDENT)
		return !o->attention_on_cpu;
	return o->schedule == MOE_SCHEDULE_FLEXGEN || o->schedule == MOE_SCHEDULE_ZERO;
}

static int describe_offload(const struct moe_run *r, struct moe_buf *out, struct moe_err *e)
{
	const struct moe_offload *o = &r->offload;
	const struct moe_engine_memory *m = &r->memory;
	struct moe_device_memory d;
	char a[32], b[32], c[32], f[32], g[32];
	int rc;

	r->device->ops->memory(r->device, &d);
	rc = moe_buf_printf(out, e, "schedule: %s, %s; %d micro-batch%s of at most %d sequence%s, prompts %d tokens at a time; attention%s on the %s%s\n",
	                    moe_schedule_name(o->schedule), r->chosen, o->micro_batches, o->micro_batches == 1 ? "" : "es", o->micro_batch,
	                    o->micro_batch == 1 ? "" : "s", o->prefill_rows, attends(o) == o->kv_on_device ? ", keys and values" : "",
	                    attends(o) ? "device" : "host",
	                    attends(o) == o->kv_on_device ? "" : ", keys and values on the host");
	rc = rc ? rc : describe_experts(r, out, e);
	rc = rc ? rc : moe_buf_printf(out, e, "device memory: %s of %s (weights %s, places for those that come %s, keys and values %s, the rest buffers)\n",
	                              moe_size_text((double)m->device, a),
	                              d.cap ? moe_size_text((double)d.cap, b) : "no limit", moe_size_text((double)m->device_weights, c),
	                              moe_size_text((double)m->device_slots, f), moe_size_text((double)m->device_kv, g));
	return rc ? rc : moe_buf_printf(out, e, "host memory: %s beside the weights, %s of it pinned; %s are available\n",
	                                moe_size_text((double)m->total, a), moe_size_text((double)m->pinned, b),
	                                moe_size_text((double)moe_memory_available(), c));
}

static int describe_device(const struct moe_run *r, struct moe_buf *out, struct moe_err *e)
{
	char text[MOE_DEVICE_TEXT], a[32];
	int rc = moe_buf_printf(out, e, "device: %s\n", moe_device_text(r->device, text));
	struct moe_pooled_stats s;

	if (rc || !r->on_demand)
		return rc ? rc : describe_offload(r, out, e);
	moe_pooled_stats(r->experts, &s);
	return moe_buf_printf(out, e, "schedule: on-demand, %s; the device holds the %d experts that were needed last (%s)\n", r->chosen, s.slots,
	                      moe_size_text((double)r->cache_memory, a));
}

static int describe_servers(const struct moe_run *r, struct moe_buf *out, struct moe_err *e)
{
	int rc = moe_experts_remote_describe(r->experts, out, e);

	if (!rc && r->hedge > 0)
		rc = moe_buf_printf(out, e, "servers: one that is slower than %g %% of its answers is asked again elsewhere\n", 100 * r->hedge);
	if (!rc && r->degrade)
		rc = moe_buf_printf(out, e, "servers: experts that none can compute are left out, and answers say so\n");
	return rc;
}

int moe_run_describe(const struct moe_run *r, struct moe_buf *out, struct moe_err *e)
{
	char numerics[MOE_NUMERICS_TEXT], size[32];
	const struct moe_model *m = r->model;
	struct moe_engine_stats s = moe_engine_stats(r->engine);
	moe_numerics_id(&r->numerics, numerics);
	int rc = moe_buf_printf(out, e, "model: %s, %d layers, at most %d experts, vocabulary %d\n", m->name, m->n_layers,
	                        moe_model_max_experts(m), m->vocab);
	rc = rc ? rc : moe_buf_printf(out, e, "weights: %s in this process, %s\n",
	                              moe_size_text((double)moe_run_weight_bytes(r), size), moe_load_text(r->weights));
	rc = rc ? rc : moe_buf_printf(out, e, "compute: %s kernels, %d thread%s, numerics %s\n", moe_backend_cpu_isa(r->backend),
	                              moe_team_size(r->team), moe_team_size(r->team) == 1 ? "" : "s", numerics);
	rc = rc ? rc : moe_buf_printf(out, e, "KV cache: %s in %s, %zu blocks of %d positions, context %d\n",
	                              moe_size_text((double)s.kv_bytes, size), moe_kv_type_name(r->numerics.kv), s.kv_blocks,
	                              MOE_KV_BLOCK, r->ctx);
	if (rc)
		return rc;
	if (r->device)
		return describe_device(r, out, e);
	return r->remote ? describe_servers(r, out, e) : moe_buf_printf(out, e, "experts: in this process\n");
}

/* ---- quants ---- */

static void count(double weights[MOE_QUANTS], const struct moe_matrix *m)
{
	weights[m->quant] += (double)m->rows * (double)m->cols;
}

static void count_ffn(double weights[MOE_QUANTS], const struct moe_expert_weights *w)
{
	count(weights, &w->gate);
	count(weights, &w->up);
	count(weights, &w->down);
}

static int count_base(const struct moe_run *r, double weights[MOE_QUANTS], struct moe_err *e)
{
	struct moe_base_weights w;
	int rc = moe_bind_base(r->tensors, r->model, &w, e);
	if (rc)
		return rc;
	count(weights, &w.embed);
	if (!r->model->tied)
		count(weights, &w.head);
	for (int l = 0; l < r->model->n_layers; l++) {
		const struct moe_layer_weights *layer = &w.layers[l];
		count(weights, &layer->q);
		count(weights, &layer->k);
		count(weights, &layer->v);
		count(weights, &layer->o);
		count_ffn(weights, &layer->ffn);
		count_ffn(weights, &layer->shared);
	}
	moe_base_free(&w);
	return 0;
}

/* Of the experts that `tensors` has. */
static int count_experts(const struct moe_run *r, const struct moe_tensors *tensors, double weights[MOE_QUANTS], struct moe_err *e)
{
	int rc = 0;
	for (int l = 0; l < r->model->n_layers; l++)
		for (int i = 0; i < r->model->layers[l].ffn.experts && !rc; i++) {
			struct moe_expert_weights w;
			rc = moe_bind_expert(tensors, r->model, l, i, &w, e);
			if (!rc)
				count_ffn(weights, &w);
		}
	return rc;
}

static bool has_word(const char *list, const char *word, size_t n)
{
	for (; *list; list += strcspn(list, ",") + (list[strcspn(list, ",")] == ','))
		if (strcspn(list, ",") == n && !memcmp(list, word, n))
			return true;
	return false;
}

/* Each word of `more` that is not there yet. */
static void add_words(char *list, const char *more)
{
	for (size_t n; *more; more += n + (more[n] == ',')) {
		size_t len = strlen(list);
		n = strcspn(more, ",");
		if (!has_word(list, more, n))
			snprintf(list + len, MOE_QUANTS_TEXT - len, "%s%.*s", len ? "," : "", (int)n, more);
	}
}

static void add_counted(char *list, double weights[MOE_QUANTS])
{
	for (;;) {
		int most = 0;
		for (int q = 1; q < MOE_QUANTS; q++)
			most = weights[q] > weights[most] ? q : most;
		if (weights[most] <= 0)
			return;
		add_words(list, moe_quant_name((enum moe_quant)most));
		weights[most] = 0;
	}
}

int moe_run_quants(const struct moe_run *r, char *buf, struct moe_err *e)
{
	const struct moe_manifest *m = &r->source->manifest;
	double weights[MOE_QUANTS] = {0};
	bool told = r->remote && r->source->sharded;
	int rc = count_base(r, weights, e);
	buf[0] = 0;
	for (int i = 0; told && i < m->n_files; i++)
		if (m->files[i].device != MOE_BASE)
			add_words(buf, m->files[i].quant);
	if (!rc && !told)
		rc = count_experts(r, r->remote ? r->source->checkpoint->tensors : r->tensors, weights, e);
	if (!rc)
		add_counted(buf, weights);
	return rc;
}

/* ---- sampling ---- */

static int read_sampling(const struct moe_json *g, const char *what, struct moe_sampling *s, struct moe_err *e)
{
	double temperature = 1, top_p = 1, min_p = 0;
	int64_t top_k = 0;
	int rc = moe_json_need_num(g, "temperature", false, 0, 1e6, &temperature, what, e);
	rc = rc ? rc : moe_json_need_num(g, "top_p", false, 0, 1, &top_p, what, e);
	rc = rc ? rc : moe_json_need_num(g, "min_p", false, 0, 1, &min_p, what, e);
	rc = rc ? rc : moe_json_need_int(g, "top_k", false, 0, INT32_MAX, &top_k, what, e);
	s->temperature = (float)temperature;
	s->top_p = (float)top_p;
	s->min_p = (float)min_p;
	s->top_k = (int)top_k;
	return rc;
}

int moe_run_sampling(const struct moe_run *r, struct moe_sampling *out, struct moe_err *e)
{
	*out = (struct moe_sampling)MOE_SAMPLING_GREEDY;
	const char *dir = moe_source_text_dir(r->source);
	char *path = dir ? moe_path_join(dir, "generation_config.json", e) : NULL;
	struct moe_json *g = NULL;
	int rc = dir && !path ? MOE_E_NOMEM : 0;
	bool sample = false;
	if (path && moe_exists(path))
		rc = moe_json_read_regular(path, 1 << 20, &g, e);
	if (!rc && g)
		rc = moe_json_need_bool(g, "do_sample", false, &sample, path, e);
	if (!rc && sample)
		rc = read_sampling(g, path, out, e);
	moe_json_free(g);
	free(path);
	return rc;
}
