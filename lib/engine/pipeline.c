/* The pipeline: opening, graphs, and what its client may ask for. */
#include "engine/pipeline.h"

#include <stdlib.h>

#include "base/mem.h"
#include "engine/pipeline_private.h"

/* ---- memory ---- */

static int take_device(struct moe_pipeline *p, const struct moe_pipeline_sizes *s, enum moe_kv_type t, struct moe_err *e)
{
	const struct moe_backend_ops *op = p->b->ops;
	struct moe_carve at;
	size_t kv;

	TRY(op->alloc(p->b, s->device, &p->device_memory, e));
	TRY(op->alloc(p->b, s->vectors, &p->vector_memory, e));
	at = (struct moe_carve){.base = p->device_memory};
	moe_pipeline_place_device(&p->dev, p->m, &p->form, t, &kv, &at);
	at = (struct moe_carve){.base = p->vector_memory};
	moe_vectors_place(&p->vectors, p->m, &at);
	TRY(op->alloc_pinned(p->b, s->pinned, &p->pinned_memory, e));
	at = (struct moe_carve){.base = p->pinned_memory};
	moe_pipeline_place_pinned(&p->pinned, p->m, &p->form, &at);
	return 0;
}

static int take_host(struct moe_pipeline *p, const struct moe_pipeline_sizes *s, struct moe_err *e)
{
	struct moe_carve at;

	p->host_memory = moe_aligned(s->host, "the pipeline's buffers", e);
	if (!p->host_memory)
		return MOE_E_NOMEM;
	at = (struct moe_carve){.base = p->host_memory};
	moe_pipeline_place_host(&p->host, p->m, &p->form, &at);
	for (int i = 0; i < p->form.kv_blocks; i++)
		p->host.identity[i] = i;
	return moe_sorted_pairs_new(&p->sorted, moe_model_max_experts(p->m), p->form.expert_rows * (int)p->widths.top_k, e);
}

static int take_arrays(struct moe_pipeline *p, struct moe_err *e)
{
	size_t n = (size_t)p->form.micro_batches;

	p->vectors.layers = moe_calloc((size_t)p->m->n_layers, sizeof *p->vectors.layers, "the pipeline", e);
	p->host.kv = moe_calloc(n, sizeof *p->host.kv, "the pipeline", e);
	p->host.pass = moe_calloc(n, sizeof *p->host.pass, "the pipeline", e);
	return p->vectors.layers && p->host.kv && p->host.pass ? 0 : MOE_E_NOMEM;
}

/* ---- weights ---- */

/* On the CPU they are used where they lie. */
static int bring_base(struct moe_pipeline *p, const struct moe_pipeline_sizes *s, struct moe_err *e)
{
	struct moe_base_weights from;
	struct moe_carve at;
	int rc;

	TRY(moe_bind_base(p->tensors, p->m, &p->w, e));
	TRY(moe_vectors_fill(&p->vectors, p->m, &p->w, p->b, e));
	if (p->form.all_cpu)
		return 0;
	TRY(p->b->ops->alloc(p->b, s->base, &p->weight_memory, e));
	TRY(moe_bind_base(p->tensors, p->m, &from, e));
	at = (struct moe_carve){.base = p->weight_memory};
	moe_base_place(&p->w, p->m, &at);
	rc = moe_base_fill(&p->w, &from, p->m, p->b, e);
	moe_base_free(&from);
	return rc;
}

static int bind_experts(struct moe_pipeline *p, struct moe_err *e)
{
	size_t most = (size_t)moe_model_max_experts(p->m);

	for (int l = 0; l < p->m->n_layers; l++)
		for (int i = 0; i < p->m->layers[l].ffn.experts; i++)
			TRY(moe_bind_expert(p->tensors, p->m, l, i, &p->host.experts[(size_t)l * most + (size_t)i], e));
	return 0;
}

static int bring_experts(struct moe_pipeline *p, const struct moe_engine_config *c, struct moe_err *e)
{
	struct moe_pager_config pager = moe_pipeline_pager(c, &p->form);

	if (p->form.all_cpu || p->form.experts_on_cpu)
		return bind_experts(p, e);
	return moe_pager_open(p->m, p->tensors, &pager, &p->pager, e);
}

/* ---- opening and closing ---- */

static int open_lanes(struct moe_pipeline *p, struct moe_err *e)
{
	static const enum moe_lane lanes[] = {MOE_LANE_GPU, MOE_LANE_H2D, MOE_LANE_D2H};
	struct moe_executor_config c = {.run = moe_pipeline_task, .ctx = p};

	for (size_t i = 0; i < sizeof lanes / sizeof *lanes && !p->form.all_cpu; i++) {
		TRY(p->b->ops->stream_open(p->b, &p->streams[lanes[i]], e));
		c.streams[lanes[i]] = p->streams[lanes[i]];
		c.device = p->b;
	}
	return moe_executor_open(&c, &p->executor, e);
}

static int open_all(struct moe_pipeline *p, const struct moe_engine_config *c, const struct moe_pipeline_sizes *s, struct moe_err *e)
{
	TRY(take_arrays(p, e));
	TRY(take_device(p, s, c->kv, e));
	TRY(take_host(p, s, e));
	TRY(bring_base(p, s, e));
	TRY(bring_experts(p, c, e));
	/* A file may have been cut short while it was read. */
	TRY(moe_tensors_check(p->tensors, e));
	return open_lanes(p, e);
}

int moe_pipeline_open(const struct moe_model *m, const struct moe_tensors *t, struct moe_backend *host, struct moe_kv *kv,
                      const struct moe_engine_config *c, const struct moe_pipeline_client *client, struct moe_pipeline **out,
                      struct moe_err *e)
{
	struct moe_pipeline_sizes s;
	struct moe_pipeline *p;
	int rc;

	TRY(moe_pipeline_sizes(m, t, c, &s, e));
	TRY(moe_pipeline_refuse(m, t, c, &s, true, e));
	p = moe_calloc(1, sizeof *p, "the pipeline", e);
	if (!p)
		return MOE_E_NOMEM;
	p->m = m;
	p->tensors = t;
	p->host_backend = host;
	p->b = s.form.all_cpu ? host : c->offload->device;
	p->kv = kv;
	p->form = s.form;
	p->widths = moe_widest(m);
	p->client = *client;
	p->offload = *c->offload;
	rc = open_all(p, c, &s, e);
	if (rc != 0) {
		moe_pipeline_close(p);
		return rc;
	}
	*out = p;
	return 0;
}

static void release(struct moe_pipeline *p, void *mem)
{
	if (mem)
		p->b->ops->release(p->b, mem);
}

void moe_pipeline_close(struct moe_pipeline *p)
{
	if (!p)
		return;
	moe_executor_close(p->executor);
	for (int l = 0; l < MOE_LANES; l++)
		if (p->streams[l])
			p->b->ops->stream_close(p->b, p->streams[l]);
	moe_pager_close(p->pager);
	release(p, p->device_memory);
	release(p, p->vector_memory);
	release(p, p->weight_memory);
	if (p->pinned_memory)
		p->b->ops->release_pinned(p->b, p->pinned_memory);
	moe_sorted_pairs_free(&p->sorted);
	moe_base_free(&p->w);
	moe_graph_free(&p->graphs[0]);
	moe_graph_free(&p->graphs[1]);
	free(p->host_memory);
	free(p->host.kv);
	free(p->host.pass);
	free(p->vectors.layers);
	free(p->spans);
	free(p);
}

void moe_pipeline_on_route(struct moe_pipeline *p, moe_route_fn *fn, void *ctx)
{
	p->on_route = fn;
	p->ctx_route = ctx;
}

/* ---- graphs ---- */

static struct moe_schedule_shape shape(const struct moe_pipeline *p, int n, int steps, bool prefill)
{
	const struct moe_pipeline_form *f = &p->form;

	return (struct moe_schedule_shape){.schedule = f->schedule,
	                                   .prefill = prefill,
	                                   .layers = p->m->n_layers,
	                                   .micro_batches = n,
	                                   .pages = f->pages,
	                                   .steps = steps,
	                                   .weights_move = f->weights_move,
	                                   .from_disk = p->offload.from_disk,
	                                   .pinned = p->offload.pinned,
	                                   .hidden_moves = prefill && f->hidden_moves && n > 2,
	                                   .kv_moves = f->schedule == MOE_SCHEDULE_ZERO && !f->kv_on_device,
	                                   .attention_on_cpu = p->offload.attention_on_cpu,
	                                   .experts_on_cpu = p->offload.experts_on_cpu};
}

/* The one of the last run, if it is the same again. */
static int get_graph(struct moe_pipeline *p, int n, int steps, bool prefill, const struct moe_graph **out, struct moe_err *e)
{
	struct moe_graph *g = &p->graphs[prefill];
	const struct moe_schedule_shape s = shape(p, n, steps, prefill);

	*out = g;
	if (g->tasks && g->shape.micro_batches == n && g->shape.steps == steps)
		return 0;
	moe_graph_free(g);
	*g = (struct moe_graph){0};
	return moe_schedule_build(&s, g, e);
}

static int get_spans(struct moe_pipeline *p, uint32_t n, struct moe_err *e)
{
	void *more;

	if (!p->offload.on_graph || n <= p->n_spans)
		return 0;
	more = moe_realloc(p->spans, n, sizeof *p->spans, "when tasks ran", e);
	if (!more)
		return MOE_E_NOMEM;
	p->spans = more;
	p->n_spans = n;
	return 0;
}

static int check_run(const struct moe_pipeline *p, const struct moe_micro_batch *mb, int n, int steps, bool prefill, struct moe_err *e)
{
	if (n < 1 || n > p->form.micro_batches || steps < 1)
		return moe_fail(e, MOE_E_RANGE, "a graph of %d micro-batches and %d steps, at most %d micro-batches", n, steps,
		                p->form.micro_batches);
	if (prefill && (p->form.prefill_rows < 1 || steps > 1))
		return moe_fail(e, MOE_E_RANGE, "a pass over prompts has one step, and rows: not %d and %d", steps, p->form.prefill_rows);
	for (int j = 0; j < n; j++)
		if (mb[j].n < 0 || mb[j].n > p->form.sequences)
			return moe_fail(e, MOE_E_RANGE, "micro-batch %d has %d sequences, at most %d", j, mb[j].n, p->form.sequences);
	return 0;
}

int moe_pipeline_run(struct moe_pipeline *p, struct moe_micro_batch *mb, int n, int steps, bool prefill, const _Atomic bool *stop,
                     struct moe_err *e)
{
	const struct moe_graph *g;
	int rc;

	TRY(check_run(p, mb, n, steps, prefill, e));
	TRY(get_graph(p, n, steps, prefill, &g, e));
	TRY(get_spans(p, g->n, e));
	p->s = &g->shape;
	p->mb = mb;
	p->n = n;
	p->capacity = prefill ? p->form.prefill_rows : p->form.rows;
	for (int j = 0; j < n; j++) {
		mb[j].pass = p->host.pass[j];
		mb[j].index = j;
		mb[j].first_row = 0;
	}
	TRY(moe_pipeline_kv_begin(p, e));
	rc = moe_executor_run(p->executor, g, p->offload.on_graph ? p->spans : NULL, stop, e);
	if (p->offload.on_graph && (rc == 0 || rc == MOE_E_CANCELLED))
		p->offload.on_graph(p->offload.ctx_graph, g, p->spans);
	return rc ? rc : moe_tensors_check(p->tensors, e);
}

/* ---- for the client ---- */

int moe_pipeline_head(struct moe_pipeline *p, const struct moe_micro_batch *mb, const int32_t *rows, int n, struct moe_err *e)
{
	const struct moe_head_on on = {p->b, p->speaker.q, p->m, &p->w.head, p->vectors.final_norm};

	if (mb != p->speaker.mb || n < 0 || n > p->form.logits_rows)
		return moe_fail(e, MOE_E_RANGE, "the head of %d rows, at most %d, of a micro-batch that speaks", n, p->form.logits_rows);
	return moe_head_logits(&on, p->dev.logits, p->speaker.h, p->speaker.x, rows, n, e);
}

int moe_pipeline_logits(struct moe_pipeline *p, int i, const float **logits, struct moe_err *e)
{
	size_t vocab = (size_t)p->m->vocab;

	TRY(p->b->ops->copy_out(p->b, p->speaker.q, p->pinned.logits, p->dev.logits + (size_t)i * vocab, vocab * sizeof(float), e));
	*logits = p->pinned.logits;
	return p->b->ops->sync(p->b, p->speaker.q, e);
}
