/* What the roofline model expects of schedules, with rates measured in the same run. */
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "offload.h"

#define ROOF_SECONDS 1.0
/* What a copy takes besides its bytes. */
#define COPY_SECONDS 1e-5

struct moe_execution offload_execution(enum moe_schedule schedule, int host, double weights, int64_t micro_batch, int64_t micro_batches)
{
	bool cpu = schedule == MOE_SCHEDULE_CGOPIPE || schedule == MOE_SCHEDULE_COALESCED || schedule == MOE_SCHEDULE_FLEXGEN_C;
	bool here = schedule == MOE_SCHEDULE_ZERO || schedule == MOE_SCHEDULE_RESIDENT;
	double share = schedule == MOE_SCHEDULE_RESIDENT ? 1 : weights;
	struct moe_execution x = {.schedule = schedule, .batch = micro_batch * micro_batches, .micro_batch = micro_batch,
	                          .prefill_micro_batch = micro_batch, .attention_on = cpu ? host : 0};

	if (schedule == MOE_SCHEDULE_ZERO)
		x.micro_batch = x.prefill_micro_batch = x.batch;
	x.weights[0] = share;
	x.weights[host] = 1 - share;
	x.kv[here ? 0 : host] = 1;
	return x;
}

/* The CPU as a device computes as fast as the CPU does. */
static void set_hardware(const struct moe_run *r, const struct offload_results *rates, const struct moe_memory_level *cpu, struct moe_hardware *out)
{
	struct moe_device_memory memory;

	*out = (struct moe_hardware){.name = "here", .n_levels = 2, .n_links = 2, .levels = {*cpu, *cpu}};
	snprintf(out->levels[0].name, sizeof out->levels[0].name, "gpu");
	r->device->ops->memory(r->device, &memory);
	if (memory.cap)
		out->levels[0].memory = (double)memory.cap;
	out->links[0] = (struct moe_link){1, 0, rates->link_in, COPY_SECONDS, false};
	out->links[1] = (struct moe_link){0, 1, rates->link_out, COPY_SECONDS, false};
}

int offload_forecast_make(const struct moe_run *r, const struct offload_results *rates, struct offload_forecast *out, struct moe_err *e)
{
	struct moe_roofs roofs;
	int rc;

	if (strcmp(r->device->ops->name, "cpu") != 0) {
		moe_log(MOE_INFO, "the device's kernels are not measured: there are no predictions");
		return 0;
	}
	rc = bench_roofs(moe_team_size(r->team), ROOF_SECONDS, &roofs, e);
	rc = rc ? rc : bench_predictor_make(r, &roofs, &out->predictor, e);
	if (rc)
		return rc;
	set_hardware(r, rates, &out->predictor.hardware.levels[0], &out->hardware);
	out->made = true;
	return 0;
}

static int play(const struct moe_setting *s, const struct moe_execution *x, const struct moe_schedule_shape *shape, double *seconds, struct moe_err *e)
{
	struct moe_durations *d = NULL;
	struct moe_timeline t = {.makespan = NAN};
	struct moe_graph g;
	int rc = moe_schedule_build(shape, &g, e);

	rc = rc ? rc : moe_durations_new(s, x, &g, &d, e);
	rc = rc ? rc : moe_play(&g, moe_durations_seconds, d, &t, e);
	*seconds = rc ? NAN : t.makespan;
	moe_timeline_free(&t);
	moe_durations_free(d);
	moe_graph_free(&g);
	return rc;
}

double offload_forecast_graph(const struct offload_forecast *f, const struct offload_options *o, const struct moe_execution *x,
                              const struct moe_schedule_shape *shape)
{
	const struct bench_predictor *p = &f->predictor;
	const struct moe_setting s = {.model = p->model, .hardware = &f->hardware, .quants = p->quants, .kv_bytes = p->kv_bytes, .exact = p->exact,
	                              .workload = {"", (double)o->prompt, (double)o->prompt, (double)o->generate, false}};
	struct moe_execution as_run = *x;
	struct moe_err e = MOE_ERR_INIT;
	int64_t micro = (x->batch + shape->micro_batches - 1) / shape->micro_batches;
	double seconds;

	as_run.prefill_micro_batch = micro;
	if (!shape->prefill)
		as_run.micro_batch = micro;
	if (play(&s, &as_run, shape, &seconds, &e))
		moe_log(MOE_WARN, "%s: no prediction: %s", moe_schedule_name(x->schedule), e.msg);
	return seconds;
}
