/* How a model goes through its device: what was asked for, what a policy says, and for the rest what fits. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/opts.h"
#include "pool/pool.h"
#include "run/private.h"

#define MICRO_BATCHES 4        /* by itself: attention two ahead, one being loaded, one being computed */
#define PREFILL_ROWS 2048      /* by itself, at most: a micro-batch's prompts together, for which a layer's experts come once */
#define LEAST_ROWS 32          /* of prompts, below which they would bring the experts too often */

struct settling {
	struct moe_run *r;
	const struct moe_run_offload *asked;
	const struct run_policy *p;
	struct moe_engine_config *engine;
	size_t available;            /* bytes of the device */
	bool free_share, free_sizes, free_prefill, free_chunk, free_kv; /* nobody said: what fits */
};

static bool whole(double share)
{
	return share > 1 - 1e-6;
}

/* ---- memory ---- */

static int plan(const struct settling *s, struct moe_engine_memory *out, struct moe_err *e)
{
	return moe_engine_plan(s->r->model, s->r->tensors, s->engine, out, e);
}

/* The largest share of the experts that fits beside everything else; MOE_E_RANGE: not even none of them does. */
static int share_that_fits(const struct settling *s, double *share, struct moe_err *e)
{
	struct moe_pager_config c = {.device = s->r->device, .pages = 1};
	struct moe_offload *o = &s->r->offload;
	struct moe_engine_memory none;
	double before = o->weights;
	int rc;

	o->weights = 0;
	rc = plan(s, &none, e);
	o->weights = before;
	if (rc)
		return rc;
	if (none.device > s->available)
		return moe_fail(e, MOE_E_RANGE, "does not fit");
	return moe_pager_share_for(s->r->model, s->r->tensors, &c, s->available - (none.device - none.device_slots), share, e);
}

/* What to ask for instead, into text of 128 bytes. */
static void what_would_fit(const struct settling *s, char *text)
{
	const struct moe_offload *o = &s->r->offload;
	double share;

	if (o->schedule == MOE_SCHEDULE_RESIDENT)
		snprintf(text, 128, ": with --schedule coalesced experts come when they are needed");
	else if (share_that_fits(s, &share, NULL) == 0)
		snprintf(text, 128, ": --resident %.3g would fit", floor(share * 1000) / 1000);
	else if (o->micro_batch > 1 || s->engine->chunk > LEAST_ROWS)
		snprintf(text, 128, ", too little for any share: a smaller --batch, --micro-batch or --chunk takes less");
	else
		snprintf(text, 128, ", too little for any share");
}

/* What the device would have to hold, and what it can. */
static int too_much(const struct settling *s, const struct moe_engine_memory *m, struct moe_err *e)
{
	char need[32], weights[32], slots[32], kv[32], buffers[32], has[32], hint[128];

	what_would_fit(s, hint);
	return moe_fail(e, MOE_E_NOMEM,
	                "%s needs %s on the device (weights that stay %s, two slots for those that come %s, keys and values %s, "
	                "buffers %s), %s are available%s",
	                moe_schedule_name(s->r->offload.schedule), moe_size_text((double)m->device, need),
	                moe_size_text((double)m->device_weights, weights), moe_size_text((double)m->device_slots, slots),
	                moe_size_text((double)m->device_kv, kv),
	                moe_size_text((double)(m->device - m->device_weights - m->device_slots - m->device_kv), buffers),
	                moe_size_text((double)s->available, has), hint);
}

/* ---- sizes ---- */

static int parts(int whole_size, int n)
{
	return (whole_size - 1) / n + 1;
}

static int fewer(int a, int b)
{
	return a < b ? a : b;
}

/* Micro-batches that hold the batch; memory is not taken for more of them, or larger ones, than it can fill. */
static int set_sizes(struct settling *s, struct moe_err *e)
{
	struct moe_offload *o = &s->r->offload;
	int batch = s->engine->max_sequences, n = fewer(s->asked->micro_batches, batch), size = fewer(s->asked->micro_batch, batch);

	s->free_sizes = false;
	if (!n && !size && s->p->path && s->p->execution.micro_batch < batch)
		size = (int)s->p->execution.micro_batch;
	if (o->schedule == MOE_SCHEDULE_ZERO) {
		n = 1;
		size = batch;
	} else if (!n && !size) {
		s->free_sizes = !s->p->path;
		n = s->p->path || o->schedule == MOE_SCHEDULE_RESIDENT ? 1 : MICRO_BATCHES;
		n = fewer(n, batch);
		size = parts(batch, n);
		n = parts(batch, size);
	}
	o->micro_batches = n ? n : parts(batch, size);
	o->micro_batch = size ? size : parts(batch, n);
	if ((int64_t)o->micro_batches * o->micro_batch < batch)
		return moe_fail(e, MOE_E_RANGE, "%d micro-batches of %d sequences hold %lld, and the batch is %d", o->micro_batches, o->micro_batch,
		                (long long)o->micro_batches * o->micro_batch, batch);
	return 0;
}

static void set_prefill(struct settling *s)
{
	struct moe_offload *o = &s->r->offload;
	const struct run_policy *p = s->p;
	double rows = p->path ? ceil((double)p->execution.prefill_micro_batch * p->prompt) : 0;

	s->free_prefill = rows < 1;
	if (rows < 1)
		rows = fmin((double)s->engine->ctx * o->micro_batch, PREFILL_ROWS);
	o->prefill_rows = rows < 1 << 20 ? (int)rows : 1 << 20;
}

static int halved(int rows)
{
	return parts(rows, 2) > LEAST_ROWS ? parts(rows, 2) : LEAST_ROWS;
}

/* Smaller, where nobody said how large: fewer prompt rows first, then fewer sequences in a micro-batch. */
static bool shrink(struct settling *s)
{
	struct moe_offload *o = &s->r->offload;
	struct moe_engine_config *c = s->engine;

	if (s->free_kv && o->kv_on_device) {
		o->kv_on_device = false;
	} else if (s->free_prefill && o->prefill_rows > LEAST_ROWS && o->prefill_rows >= c->chunk) {
		o->prefill_rows = halved(o->prefill_rows);
	} else if (s->free_chunk && c->chunk > LEAST_ROWS) {
		c->chunk = halved(c->chunk);
	} else if (s->free_sizes && o->micro_batch > 1) {
		o->micro_batch = parts(o->micro_batch, 2);
		o->micro_batches = parts(c->max_sequences, o->micro_batch);
	} else {
		return false;
	}
	return true;
}

/* ---- a schedule ---- */

/* Keys and values lie whole on the device or on the host; a policy may divide them. */
static int set_kv(struct settling *s, struct moe_err *e)
{
	const struct run_policy *p = s->p;
	struct moe_offload *o = &s->r->offload;
	bool zero = o->schedule == MOE_SCHEDULE_ZERO, resident = o->schedule == MOE_SCHEDULE_RESIDENT;
	double share = p->path && p->gpu >= 0 ? p->execution.kv[p->gpu] : 1;

	o->kv_on_device = (resident && !o->attention_on_cpu) || (zero && whole(share));
	s->free_kv = zero && !p->path;
	if (!p->path || share <= 0 || whole(share) || o->kv_on_device)
		return 0;
	return moe_buf_printf(&s->r->notes, e, "%s has %.3g of keys and values on the device; here all of them lie on the host\n", p->path, share);
}

static int begin_schedule(struct settling *s, enum moe_schedule schedule, struct moe_err *e)
{
	struct moe_offload *o = &s->r->offload;
	const struct run_policy *p = s->p;
	bool resident = schedule == MOE_SCHEDULE_RESIDENT;
	int rc;

	*o = (struct moe_offload){.schedule = schedule, .device = s->r->device, .on_graph = s->asked->on_graph, .ctx_graph = s->asked->ctx_graph};
	if (resident && p->path && p->execution.schedule == MOE_SCHEDULE_RESIDENT) {
		o->attention_on_cpu = p->execution.attention_on == p->host;
		o->experts_on_cpu = p->execution.ffn_on == p->host;
	}
	s->free_share = !resident && !s->asked->has_resident && !p->path;
	o->weights = s->asked->has_resident ? s->asked->resident : p->path && !resident ? p->execution.weights[p->gpu] : resident ? 1 : 0;
	for (int i = p->host + 1; !resident && p->path && i < MOE_MAX_LEVELS; i++)
		o->from_disk = o->from_disk || p->execution.weights[i] > 0;
	rc = set_sizes(s, e);
	set_prefill(s);
	return rc ? rc : set_kv(s, e);
}

/* What moves is kept in pinned memory for good where that leaves the host half of what it has. */
static int set_pinned(struct settling *s, struct moe_err *e)
{
	struct moe_offload *o = &s->r->offload;
	struct moe_pager_config c = {.resident = o->weights, .pages = 1, .pinned = true};
	struct moe_pager_sizes sizes;
	int rc;

	if (o->schedule == MOE_SCHEDULE_RESIDENT)
		return 0;
	if (s->asked->pinned != MOE_RUN_AUTO) {
		o->pinned = s->asked->pinned == MOE_RUN_ON;
		return 0;
	}
	if (s->p->path) {
		o->pinned = s->p->pinned;
		return 0;
	}
	rc = moe_pager_plan(s->r->model, s->r->tensors, &c, &sizes, e);
	o->pinned = !rc && sizes.pinned <= moe_memory_available() / 2;
	return rc;
}

/* Sizes and shares of a schedule, so that the device holds them. */
static int settle(struct settling *s, enum moe_schedule schedule, struct moe_err *e)
{
	struct moe_engine_memory m;
	int rc = begin_schedule(s, schedule, e);

	for (;;) {
		rc = rc ? rc : plan(s, &m, e);
		if (rc)
			return rc;
		if (m.device <= s->available)
			break;
		if (!shrink(s))
			return too_much(s, &m, e);
	}
	if (s->free_share)
		rc = share_that_fits(s, &s->r->offload.weights, e);
	rc = rc ? rc : set_pinned(s, e);
	return rc ? rc : plan(s, &s->r->memory, e);
}

/* Nobody named a schedule: everything on the device if it fits, else experts that come. */
static int settle_any(struct settling *s, struct moe_err *e)
{
	struct moe_err why = MOE_ERR_INIT;
	int rc;

	if (!s->asked->has_resident) {
		rc = settle(s, MOE_SCHEDULE_RESIDENT, &why);
		s->r->chosen = "by itself: everything fits on the device";
		if (rc != MOE_E_NOMEM) {
			if (rc && e)
				*e = why;
			return rc;
		}
	}
	s->r->chosen = "by itself: not everything fits on the device";
	return settle(s, MOE_SCHEDULE_COALESCED, e);
}

/* ---- experts that come one by one ---- */

/* The host decodes; the device's memory holds the experts that were needed last, and a batch's rows. */
static int settle_on_demand(struct settling *s, struct moe_err *e)
{
	struct moe_pager_config c = {.resident = 1, .pages = 1};
	struct moe_pager_sizes sizes;
	size_t rows;
	char need[32], has[32];
	int rc = moe_pager_plan(s->r->model, s->r->tensors, &c, &sizes, e);

	if (rc)
		return rc;
	for (;;) {
		rows = moe_pooled_batch_bytes(s->r->model, moe_run_max_rows(s->engine));
		if (rows <= s->available / 2 || !s->free_chunk || s->engine->chunk <= LEAST_ROWS)
			break;
		s->engine->chunk = halved(s->engine->chunk);
	}
	if (rows >= s->available)
		return moe_fail(e, MOE_E_NOMEM, "on-demand needs %s on the device for the rows of a step alone, %s are available: a smaller --chunk takes less",
		                moe_size_text((double)rows, need), moe_size_text((double)s->available, has));
	s->r->cache_memory = s->available - rows < sizes.all ? s->available - rows : sizes.all;
	if (s->asked->has_resident) {
		double wanted = s->asked->resident * (double)sizes.all;

		if (wanted > (double)s->r->cache_memory)
			return moe_fail(e, MOE_E_NOMEM, "on-demand: %.3g of the experts take %s, %s are available on the device", s->asked->resident,
			                moe_size_text(wanted, need), moe_size_text((double)s->r->cache_memory, has));
		s->r->cache_memory = (size_t)wanted;
	}
	s->r->on_demand = true;
	return 0;
}

/* ---- what both have in common ---- */

/* Memory for keys and values as the policy counts it: of a batch of its workload. */
static int set_kv_memory(const struct moe_run *r, const struct moe_run_config *c, const struct run_policy *p, struct moe_engine_config *engine,
                         struct moe_err *e)
{
	struct moe_engine_config batch = *engine;
	struct moe_engine_memory m;
	int rc;

	if (!p->path || c->engine.kv_memory || c->engine.ctx || !(p->positions >= 1) || p->positions >= engine->ctx)
		return 0;
	batch.ctx = (int)ceil(p->positions);
	rc = moe_engine_plan(r->model, NULL, &batch, &m, e);
	engine->kv_memory = m.kv;
	return rc;
}

static int note_types(struct moe_run *r, const struct run_policy *p, struct moe_err *e)
{
	int bytes = (int)moe_kv_element_bytes(r->numerics.kv);

	if (!p->path || !p->kv_bytes || p->kv_bytes == bytes)
		return 0;
	return moe_buf_printf(&r->notes, e, "%s counts %d bytes for an element of a key or value; with --kv %s there are %d\n", p->path, p->kv_bytes,
	                      moe_kv_type_name(r->numerics.kv), bytes);
}

static int batch_of(const struct moe_run_config *c, const struct run_policy *p)
{
	const struct moe_run_offload *o = &c->offload;
	int64_t both = (int64_t)o->micro_batches * o->micro_batch;

	if (c->engine.max_sequences)
		return c->engine.max_sequences;
	if (both > 0)
		return both < INT_MAX ? (int)both : INT_MAX;
	if (p->path)
		return p->execution.batch < INT_MAX ? (int)p->execution.batch : INT_MAX;
	return MOE_RUN_BATCH;
}

int moe_run_settle(struct moe_run *r, const struct moe_run_config *c, const struct run_policy *p, struct moe_engine_config *engine,
                   struct moe_err *e)
{
	struct settling s = {.r = r, .asked = &c->offload, .p = p, .engine = engine, .available = SIZE_MAX};
	const char *name = c->offload.schedule;
	enum moe_schedule schedule = p->execution.schedule;
	struct moe_device_memory m;
	int rc;

	engine->max_sequences = r->batch = batch_of(c, p);
	if (!engine->chunk)
		engine->chunk = MOE_RUN_CHUNK;
	s.free_chunk = !c->engine.chunk;
	rc = set_kv_memory(r, c, p, engine, e);
	rc = rc ? rc : note_types(r, p, e);
	if (rc || !r->device)
		return rc;
	r->device->ops->memory(r->device, &m);
	if (m.cap)
		s.available = m.cap > m.used ? m.cap - m.used : 0;
	r->chosen = name ? "as asked for" : "by the policy";
	if (name && strcmp(name, MOE_RUN_ON_DEMAND) == 0)
		return settle_on_demand(&s, e);
	engine->offload = &r->offload;
	if (name)
		moe_schedule_parse(name, &schedule); /* moe_run_check_offload has seen that it is one */
	return name || p->path ? settle(&s, schedule, e) : settle_any(&s, e);
}
