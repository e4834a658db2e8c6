/* What a schedule asks of memory, counted before anything is taken. */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/pipeline_private.h"

/* Bytes that routed experts may take for their results; more rows than go into it are computed in several turns. */
#define EXPERT_BYTES (64u << 20)
#define FEWEST_EXPERT_ROWS 32
#define MOST_ROWS (1 << 24)

static int64_t most(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* ---- what follows from the configuration alone ---- */

int moe_pipeline_micro_batches(const struct moe_engine_config *c)
{
	return c->offload->schedule == MOE_SCHEDULE_ZERO ? 1 : c->offload->micro_batches;
}

int moe_pipeline_sequences(const struct moe_engine_config *c)
{
	const struct moe_offload *o = c->offload;

	return o->schedule == MOE_SCHEDULE_ZERO ? o->micro_batch * o->micro_batches : o->micro_batch;
}

int moe_pipeline_rows(const struct moe_engine_config *c)
{
	int micro_batches = moe_pipeline_micro_batches(c), chunk = (c->chunk - 1) / micro_batches + 1;

	/* Prompt rows come from a sequence that does not generate. */
	return moe_pipeline_sequences(c) - 1 + chunk;
}

bool moe_pipeline_kv_on_device(const struct moe_offload *o)
{
	if (o->schedule == MOE_SCHEDULE_RESIDENT)
		return !o->attention_on_cpu;
	return o->schedule == MOE_SCHEDULE_ZERO && o->kv_on_device;
}

/* Attention on the device has to fetch what is not there. */
static bool fetches_kv(const struct moe_offload *o)
{
	return o->schedule == MOE_SCHEDULE_FLEXGEN || (o->schedule == MOE_SCHEDULE_ZERO && !o->kv_on_device);
}

struct moe_kv_place moe_pipeline_kv_place(const struct moe_offload *o, struct moe_backend *host)
{
	bool fetched = fetches_kv(o);

	return (struct moe_kv_place){fetched || moe_pipeline_kv_on_device(o) ? o->device : host, fetched};
}

static int kv_blocks(const struct moe_engine_sizes *kv, const struct moe_engine_config *c)
{
	int64_t micro_batches = moe_pipeline_micro_batches(c);
	int64_t share = most((kv->kv_blocks + micro_batches - 1) / micro_batches, kv->blocks_per_seq);

	return (int)least(share, (int64_t)moe_pipeline_sequences(c) * kv->blocks_per_seq);
}

int64_t moe_pipeline_positions(const struct moe_model *m, const struct moe_engine_config *c)
{
	struct moe_engine_sizes kv;

	return moe_engine_kv_sizes(m, c, &kv, NULL) == 0 ? (int64_t)kv_blocks(&kv, c) * MOE_KV_BLOCK : 0;
}

static int check_numbers(const struct moe_engine_config *c, struct moe_err *e)
{
	const struct moe_offload *o = c->offload;
	int64_t sequences = (int64_t)o->micro_batches * o->micro_batch;

	if (o->micro_batches < 1 || o->micro_batch < 1 || o->prefill_rows < 0 || o->steps < 0 || o->pages < 0)
		return moe_fail(e, MOE_E_RANGE, "%d micro-batches of %d sequences, %d prefill rows, %d pages, %d steps: not possible",
		                o->micro_batches, o->micro_batch, o->prefill_rows, o->pages, o->steps);
	if (c->max_sequences > sequences)
		return moe_fail(e, MOE_E_RANGE, "%d micro-batches of %d sequences have no room for %d sequences", o->micro_batches,
		                o->micro_batch, c->max_sequences);
	if ((int64_t)o->micro_batches * most(o->prefill_rows, o->micro_batch + c->chunk) + c->chunk > MOST_ROWS)
		return moe_fail(e, MOE_E_RANGE, "%d micro-batches of %d sequences and %d prefill rows are more than %d rows", o->micro_batches,
		                o->micro_batch, o->prefill_rows, MOST_ROWS);
	return 0;
}

static int check_places(const struct moe_offload *o, struct moe_err *e)
{
	const char *name = moe_schedule_name(o->schedule);

	if (o->kv_on_device && !moe_pipeline_kv_on_device(o))
		return moe_fail(e, MOE_E_RANGE, "schedule %s keeps the KV cache on the host%s", name,
		                o->schedule == MOE_SCHEDULE_RESIDENT ? ", with attention on the CPU" : "");
	if (!o->device && !(o->attention_on_cpu && o->experts_on_cpu))
		return moe_fail(e, MOE_E_RANGE, "schedule %s needs a device", name);
	if (!(o->weights >= 0.0 && o->weights <= 1.0))
		return moe_fail(e, MOE_E_RANGE, "a share of %g of the experts is outside 0 to 1", o->weights);
	return 0;
}

/* As schedules have it, which also know what flags go together. */
static int count_pages(const struct moe_offload *o, const struct moe_pipeline_form *f, int *pages, struct moe_err *e)
{
	struct moe_schedule_shape s = {.schedule = o->schedule,
	                               .layers = 1,
	                               .micro_batches = f->micro_batches,
	                               .steps = 1,
	                               .pages = o->pages,
	                               .weights_move = o->schedule != MOE_SCHEDULE_RESIDENT,
	                               .from_disk = o->from_disk,
	                               .attention_on_cpu = o->attention_on_cpu,
	                               .experts_on_cpu = o->experts_on_cpu};
	struct moe_graph g;

	TRY(moe_schedule_build(&s, &g, e));
	*pages = g.shape.pages;
	moe_graph_free(&g);
	return 0;
}

struct moe_pager_config moe_pipeline_pager(const struct moe_engine_config *c, const struct moe_pipeline_form *f)
{
	const struct moe_offload *o = c->offload;

	return (struct moe_pager_config){.device = o->device,
	                                 .resident = o->schedule == MOE_SCHEDULE_RESIDENT ? 1.0 : o->weights,
	                                 .pages = f->pages,
	                                 .from_disk = o->from_disk,
	                                 .pinned = o->pinned};
}

/* ---- how many rows ---- */

static void count_rows(const struct moe_model *m, const struct moe_engine_config *c, struct moe_pipeline_form *f)
{
	struct moe_widths w = moe_widest(m);
	size_t row = w.top_k * (size_t)((int64_t)m->hidden + (int64_t)w.expert_inner) * sizeof(float);
	int64_t all;

	f->rows = moe_pipeline_rows(c);
	f->prefill_rows = c->offload->prefill_rows;
	f->most_rows = (int)most(f->rows, f->prefill_rows);
	f->logits_rows = (int)least(f->most_rows, MOE_LOGITS_ROWS);
	f->choice_rows = f->most_rows;
	if (f->coalesced)
		f->choice_rows = (int)most((int64_t)f->micro_batches * f->rows, f->prefill_rows);
	else if (f->experts_on_cpu)
		f->choice_rows = f->micro_batches * f->most_rows;
	all = f->experts_on_cpu ? f->most_rows : f->choice_rows;
	f->expert_rows = (int)least(all, most(row ? (int64_t)(EXPERT_BYTES / row) : all, FEWEST_EXPERT_ROWS));
}

static int form(const struct moe_model *m, const struct moe_engine_config *c, struct moe_pipeline_form *f, struct moe_err *e)
{
	const struct moe_offload *o = c->offload;
	struct moe_engine_sizes kv = {0};
	enum moe_schedule s = o->schedule;
	bool rotates = s != MOE_SCHEDULE_RESIDENT && s != MOE_SCHEDULE_ZERO;

	TRY(check_numbers(c, e));
	TRY(check_places(o, e));
	TRY(moe_engine_kv_sizes(m, c, &kv, e));
	*f = (struct moe_pipeline_form){.schedule = s, .micro_batches = moe_pipeline_micro_batches(c), .sequences = moe_pipeline_sequences(c)};
	TRY(count_pages(o, f, &f->pages, e));
	f->all_cpu = o->attention_on_cpu && o->experts_on_cpu;
	f->attention_on_cpu = !f->all_cpu && (o->attention_on_cpu || (rotates && s != MOE_SCHEDULE_FLEXGEN));
	f->experts_on_cpu = !f->all_cpu && o->experts_on_cpu;
	f->kv_on_device = moe_pipeline_kv_on_device(o);
	f->kv_fetched = fetches_kv(o);
	f->kv_stored = !f->kv_on_device && !f->all_cpu;
	f->hidden_moves = rotates && f->micro_batches > 2;
	f->coalesced = s == MOE_SCHEDULE_COALESCED;
	count_rows(m, c, f);
	if (f->kv_fetched)
		f->kv_blocks = kv_blocks(&kv, c);
	if (f->kv_stored && f->prefill_rows > 0)
		f->kv_blocks = (int)most(f->kv_blocks, f->prefill_rows / MOE_KV_BLOCK + least(f->sequences, f->prefill_rows));
	return 0;
}

/* ---- in all ---- */

/* What operations of the device take beside what is placed here. */
static size_t work_bytes(const struct moe_model *m, const struct moe_engine_config *c, const struct moe_pipeline_form *f)
{
	const struct moe_backend *b = c->offload->device;
	struct moe_widths w = moe_widest(m);
	size_t rows = (size_t)f->most_rows, pairs = (size_t)f->expert_rows * w.top_k;
	struct moe_work work = {.rows = rows > (size_t)f->expert_rows ? rows : (size_t)f->expert_rows,
	                        .inputs = (size_t)most(m->hidden, (int64_t)w.q),
	                        .pairs = pairs > rows ? pairs : rows,
	                        .hidden = w.inner > w.expert_inner ? w.inner : w.expert_inner,
	                        .sequences = (size_t)f->sequences,
	                        .positions = (size_t)c->ctx,
	                        .kv_heads = SIZE_MAX};

	if (f->all_cpu || !b || !b->ops->work_bytes)
		return 0;
	for (int l = 0; l < m->n_layers; l++) {
		const struct moe_attention *a = &m->layers[l].attn;

		work.heads = (size_t)most((int64_t)work.heads, a->heads);
		work.head_dim = (size_t)most((int64_t)work.head_dim, a->head_dim);
		work.kv_heads = work.kv_heads < (size_t)a->kv_heads ? work.kv_heads : (size_t)a->kv_heads;
	}
	return b->ops->work_bytes(b, &work);
}

static int buffers(const struct moe_model *m, const struct moe_engine_config *c, struct moe_pipeline_sizes *s, struct moe_err *e)
{
	const struct moe_pipeline_form *f = &s->form;
	struct moe_carve device = {0}, pinned = {0}, host = {0};
	struct moe_pipeline_device d;
	struct moe_pipeline_pinned p;
	struct moe_pipeline_host h;
	struct moe_widths w = moe_widest(m);
	size_t sorted;

	moe_pipeline_place_device(&d, m, f, c->kv, &s->kv, &device);
	moe_pipeline_place_pinned(&p, m, f, &pinned);
	h.kv = moe_calloc((size_t)f->micro_batches, sizeof *h.kv, "a plan", e);
	h.pass = moe_calloc((size_t)f->micro_batches, sizeof *h.pass, "a plan", e);
	if (h.kv && h.pass)
		moe_pipeline_place_host(&h, m, f, &host);
	free(h.kv);
	free(h.pass);
	if (host.used == 0)
		return MOE_E_NOMEM;
	if (device.overflow || pinned.overflow || host.overflow || (int64_t)f->expert_rows * (int64_t)w.top_k > INT32_MAX ||
	    !moe_sorted_pairs_bytes(moe_model_max_experts(m), f->expert_rows * (int)w.top_k, &sorted))
		return moe_fail(e, MOE_E_NOMEM, "the buffers for micro-batches of %d rows overflow", f->most_rows);
	s->device = device.used;
	s->work = work_bytes(m, c, f);
	s->pinned = pinned.used;
	s->host = host.used + sorted;
	return 0;
}

static int weights(const struct moe_model *m, const struct moe_tensors *t, struct moe_pipeline_sizes *s, struct moe_err *e)
{
	struct moe_carve vectors = {0}, base = {0};
	struct moe_base_weights w;
	struct moe_vectors v = {.layers = moe_calloc((size_t)m->n_layers, sizeof *v.layers, "a plan", e)};

	if (!v.layers)
		return MOE_E_NOMEM;
	moe_vectors_place(&v, m, &vectors);
	free(v.layers);
	s->vectors = vectors.used;
	if (s->form.all_cpu)
		return 0;
	TRY(moe_bind_base(t, m, &w, e));
	moe_base_place(&w, m, &base);
	moe_base_free(&w);
	s->base = base.used;
	if (vectors.overflow || base.overflow)
		return moe_fail(e, MOE_E_NOMEM, "the model's weights overflow");
	return 0;
}

int moe_pipeline_sizes(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c,
                       struct moe_pipeline_sizes *out, struct moe_err *e)
{
	struct moe_pager_config pager;

	*out = (struct moe_pipeline_sizes){0};
	TRY(form(m, c, &out->form, e));
	if (!out->form.all_cpu && !out->form.experts_on_cpu) {
		pager = moe_pipeline_pager(c, &out->form);
		TRY(moe_pager_plan(m, t, &pager, &out->pager, e));
	}
	out->form.weights_move = out->pager.slots > 0;
	TRY(weights(m, t, out, e));
	return buffers(m, c, out, e);
}

static size_t on_device(const struct moe_pipeline_sizes *s)
{
	return s->vectors + s->base + s->pager.resident + s->pager.slots + s->device + s->work;
}

int moe_pipeline_plan(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c,
                      struct moe_engine_memory *out, struct moe_err *e)
{
	struct moe_pipeline_sizes s;
	size_t pinned, host;

	TRY(moe_pipeline_sizes(m, t, c, &s, e));
	pinned = s.pinned + s.pager.pinned;
	host = pinned + s.host + s.pager.staging + (s.form.all_cpu ? on_device(&s) : 0);
	out->pinned += pinned;
	out->buffers += host;
	out->total += host;
	if (s.form.all_cpu)
		return 0;
	out->device += on_device(&s);
	out->device_weights += s.vectors + s.base + s.pager.resident;
	out->device_slots += s.pager.slots;
	return 0;
}
