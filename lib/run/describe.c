/* What is in effect, and how requests sample by default. */
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "base/opts.h"
#include "run/run.h"

int moe_run_describe(const struct moe_run *r, struct moe_buf *out, struct moe_err *e)
{
	char numerics[MOE_NUMERICS_TEXT], size[32];
	const struct moe_model *m = r->model;
	struct moe_engine_stats s = moe_engine_stats(r->engine);
	moe_numerics_id(&r->numerics, numerics);
	int rc = moe_buf_printf(out, e, "model: %s, %d layers, at most %d experts, vocabulary %d\n", m->name, m->n_layers,
	                        moe_model_max_experts(m), m->vocab);
	rc = rc ? rc : moe_buf_printf(out, e, "weights: %s in this process\n",
	                              moe_size_text((double)moe_run_weight_bytes(r), size));
	rc = rc ? rc : moe_buf_printf(out, e, "compute: %s kernels, %d threads, numerics %s\n", moe_backend_cpu_isa(r->backend),
	                              moe_team_size(r->team), numerics);
	rc = rc ? rc : moe_buf_printf(out, e, "KV cache: %s in %s, %zu blocks of %d positions, context %d\n",
	                              moe_size_text((double)s.kv_bytes, size), moe_kv_type_name(r->numerics.kv), s.kv_blocks,
	                              MOE_KV_BLOCK, r->ctx);
	if (rc)
		return rc;
	return r->remote ? moe_experts_remote_describe(r->experts, out, e) : moe_buf_printf(out, e, "experts: in this process\n");
}

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
