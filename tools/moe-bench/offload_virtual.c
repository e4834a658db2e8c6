/* moe-bench offload --virtual: the executor runs each schedule's graphs on a device that is only reckoned with. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "offload.h"

#define HARDWARE_CAP ((size_t)16 << 20)
/* A decode step is the mean of so many between the first, which fills the pipeline, and the last. */
#define STEPS 4

struct site {
	const struct offload_options *o;
	struct moe_fleet fleet;
	struct moe_model model;
	struct moe_setting setting;
	int host;                    /* level */
};

/* ---- what to reckon with ---- */

static int open_hardware(struct site *s, struct moe_err *e)
{
	const struct offload_options *o = s->o;
	struct moe_json *j;
	int rc = 0;

	if (moe_exists(o->virtual)) {
		rc = moe_json_read(o->virtual, HARDWARE_CAP, &j, e);
		if (rc)
			return rc;
		rc = moe_fleet_from_json(j, o->virtual, &s->fleet, e);
		moe_json_free(j);
	} else {
		rc = moe_hardware_named(o->virtual, &s->fleet, e);
	}
	for (int i = 0; i < o->set.n && !rc; i++) {
		rc = moe_hardware_set(&s->fleet, o->set.v[i], e);
		rc = rc ? moe_fail_prefix(e, rc, "--set") : 0;
	}
	if (rc)
		return rc;
	s->host = moe_level_find(s->fleet.hosts, "cpu");
	if (s->host < 1)
		return moe_fail(e, MOE_E_INPUT, "%s has no device beside its CPU", o->virtual);
	return 0;
}

static int open_model(struct site *s, struct moe_err *e)
{
	const char *what = s->o->model;

	if (strncmp(what, "synth:", 6) == 0)
		return moe_synth_model(what + 6, &s->model, e);
	return moe_is_dir(what) ? moe_model_open(what, &s->model, e) : moe_named_model(what, &s->model, e);
}

static int open_site(struct site *s, struct moe_err *e)
{
	const struct offload_options *o = s->o;
	enum moe_kv_type kv = MOE_KV_F16;
	int rc = open_hardware(s, e);

	rc = rc ? rc : open_model(s, e);
	if (rc)
		return rc;
	if (o->kv && !moe_kv_type_parse(o->kv, &kv))
		return moe_fail(e, MOE_E_RANGE, "--kv %s: not f32, f16, bf16 or q8", o->kv);
	s->setting = (struct moe_setting){.model = &s->model, .hardware = s->fleet.hosts, .quants = MOE_QUANTS_INIT, .exact = o->exact};
	s->setting.kv_bytes = (int)moe_kv_element_bytes(kv);
	s->setting.workload = (struct moe_workload){"", (double)o->prompt, (double)o->prompt, (double)o->generate, false};
	return o->quant ? moe_quants_parse(o->quant, &s->setting.quants, e) : 0;
}

static void close_site(struct site *s)
{
	moe_model_free(&s->model);
	moe_fleet_free(&s->fleet);
}

/* ---- policies ---- */

static int search(const struct site *s, enum moe_schedule schedule, struct moe_execution *out, struct moe_err *e)
{
	struct moe_search how = MOE_SEARCH_INIT;
	struct moe_found found;
	int rc;

	how.schedule = (int)schedule;
	rc = moe_search_cached(&s->setting, &how, &found, NULL, e);
	if (!rc)
		*out = found.execution;
	return rc ? moe_fail_prefix(e, rc, "%s", moe_schedule_name(schedule)) : 0;
}

/* The batch that all schedules have: what was asked for, else what is best for the first of them. */
static int common_batch(const struct site *s, enum moe_schedule first, int64_t *micro_batch, int64_t *micro_batches, struct moe_err *e)
{
	struct moe_execution x;
	int rc;

	*micro_batch = s->o->micro_batch;
	*micro_batches = s->o->micro_batches;
	if (*micro_batch && *micro_batches)
		return 0;
	rc = search(s, first, &x, e);
	if (rc)
		return rc;
	*micro_batch = *micro_batch ? *micro_batch : x.micro_batch;
	*micro_batches = *micro_batches ? *micro_batches : (x.batch + x.micro_batch - 1) / x.micro_batch;
	return 0;
}

/* ---- running ---- */

static int run_graph(const struct moe_graph *g, struct moe_durations *d, struct moe_timeline *out, struct moe_err *e)
{
	struct moe_span *spans = moe_calloc(g->n, sizeof *spans, "spans", e);
	int rc = spans ? moe_graph_rehearse(g, moe_durations_seconds, d, spans, e) : MOE_E_NOMEM;

	rc = rc ? rc : moe_spans_timeline(g, spans, out, e);
	free(spans);
	return rc;
}

static int run_phase(const struct site *s, const struct moe_execution *x, bool prefill, struct moe_timeline *out, struct moe_err *e)
{
	struct moe_durations *d = NULL;
	struct moe_graph g;
	int rc = moe_execution_graph(&s->setting, x, prefill, prefill ? 1 : STEPS, &g, e);

	rc = rc ? rc : moe_durations_new(&s->setting, x, &g, &d, e);
	rc = rc ? rc : run_graph(&g, d, out, e);
	if (!rc && s->o->trace) {
		rc = offload_trace(s->o->trace, &g, out, e);
		if (rc)
			moe_timeline_free(out);
	}
	moe_durations_free(d);
	moe_graph_free(&g);
	return rc;
}

/* Of the graph that was run, as if it were all there is. */
static void set_phase(struct offload_phase *p, const struct moe_timeline *t, double seconds)
{
	*p = (struct offload_phase){.seconds = seconds, .in = NAN, .out = NAN, .predicted = NAN};
	for (int l = 0; l < MOE_LANES; l++)
		p->busy[l] = t->makespan > 0 ? t->busy[l] / t->makespan * seconds : 0;
}

/* The first token comes out of the prefill. */
static int run_execution(const struct site *s, const struct moe_execution *x, struct offload_result *r, struct moe_err *e)
{
	double generate = s->setting.workload.generate, tokens = (double)x->batch * generate, decode;
	struct moe_prediction predicted;
	struct moe_timeline t;
	int rc = moe_predict(&s->setting, x, &predicted, e);

	rc = rc ? rc : run_phase(s, x, true, &t, e);
	if (rc)
		return rc;
	set_phase(&r->prefill, &t, t.makespan);
	moe_timeline_free(&t);
	rc = run_phase(s, x, false, &t, e);
	if (rc)
		return rc;
	decode = (generate - 1) * t.step_seconds;
	set_phase(&r->decode, &t, decode);
	r->decode_ts = (double)x->batch / t.step_seconds;
	moe_timeline_free(&t);
	r->samples.ns[0] = (uint64_t)llround((r->prefill.seconds + decode) * 1e9);
	r->samples.ts[0] = tokens / (r->prefill.seconds + decode);
	r->predicted_ts = tokens / (predicted.prefill_seconds + (generate - 1) * predicted.step_seconds);
	r->fits = predicted.fits;
	return bench_statistics(&r->samples, e);
}

static int run_schedule(const struct site *s, const struct moe_execution *x, struct offload_result *r, struct moe_err *e)
{
	int rc;

	r->schedule = x->schedule;
	r->policy = s->o->best ? "best" : "equal";
	r->batch = x->batch;
	r->micro_batch = x->micro_batch;
	r->micro_batches = (x->batch + x->micro_batch - 1) / x->micro_batch;
	r->weights = x->weights[0];
	r->samples.n = 1;
	r->samples.ns = moe_calloc(1, sizeof *r->samples.ns, "samples", e);
	r->samples.ts = moe_calloc(1, sizeof *r->samples.ts, "samples", e);
	rc = r->samples.ns && r->samples.ts ? run_execution(s, x, r, e) : MOE_E_NOMEM;
	if (rc)
		return moe_fail_prefix(e, rc, "%s", moe_schedule_name(x->schedule));
	if (!r->fits)
		moe_log(MOE_WARN, "%s: a batch of %lld does not fit the memory of %s", moe_schedule_name(x->schedule), (long long)x->batch, s->o->virtual);
	return 0;
}

static int run_all(const struct site *s, const struct offload_plan *p, struct offload_results *out, struct moe_err *e)
{
	int64_t micro_batch = 0, micro_batches = 0;
	int rc = s->o->best ? 0 : common_batch(s, p->schedules[0], &micro_batch, &micro_batches, e);

	for (int i = 0; i < p->n && !rc; i++) {
		struct moe_execution x;

		if (s->o->best)
			rc = search(s, p->schedules[i], &x, e);
		else
			x = offload_execution(p->schedules[i], s->host, s->o->weights, micro_batch, micro_batches);
		rc = rc ? rc : run_schedule(s, &x, &out->of[out->n++], e);
	}
	return rc;
}

int offload_virtual(const struct offload_options *o, const struct offload_plan *p, struct offload_results *out, struct moe_err *e)
{
	struct site s = {.o = o};
	int rc = open_site(&s, e);

	out->model = o->model;
	snprintf(out->machine, sizeof out->machine, "%s", o->virtual);
	out->link_in = out->link_out = NAN;
	rc = rc ? rc : run_all(&s, p, out, e);
	close_site(&s);
	return rc;
}
