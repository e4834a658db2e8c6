#include "build.h"

/* ---- what there is to wait for ---- */

static void wait_task(struct build *b, uint32_t id)
{
	if (id != NO_TASK && !b->rc)
		b->waits[b->n_waits++] = id;
}

static uint32_t *newest(struct build *b, enum moe_task_kind k, int micro_batch)
{
	return &b->of_micro_batch[(size_t)k * ((size_t)b->shape.micro_batches + 1) + (size_t)(micro_batch + 1)];
}

/* The newest task of that kind and micro-batch. */
static void wait_for(struct build *b, enum moe_task_kind k, int micro_batch)
{
	wait_task(b, *newest(b, k, micro_batch));
}

/* The newest of that kind two turns ago: it used the buffer that this turn uses. */
static void wait_turn(struct build *b, enum moe_task_kind k, const struct turn *t)
{
	wait_task(b, b->of_turn[k][t->number & 1]);
}

/* ---- what each kind waits for: first what it reads, then who last used what it overwrites ---- */

/* The residual after the layer before: whoever wrote it last. */
static void wait_residual(struct build *b, const struct turn *t)
{
	wait_for(b, MOE_TASK_EMBED, t->micro_batch);
	wait_for(b, MOE_TASK_POST_ATTENTION, t->micro_batch);
	wait_for(b, MOE_TASK_EXPERTS, -1);
	wait_for(b, MOE_TASK_LOAD_HIDDEN, t->micro_batch);
}

static void wait_embed(struct build *b, const struct turn *t)
{
	wait_for(b, MOE_TASK_HEAD, t->micro_batch);
	if (b->shape.hidden_moves) {
		wait_turn(b, MOE_TASK_STORE_HIDDEN, t);
		wait_turn(b, MOE_TASK_HEAD, t);
	}
}

static void wait_pre_attention(struct build *b, const struct turn *t)
{
	wait_residual(b, t);
	wait_for(b, MOE_TASK_STORE_QKV, t->micro_batch);
	if (b->shape.prefill)
		wait_turn(b, MOE_TASK_STORE_KV, t);
	else
		wait_for(b, MOE_TASK_STORE_KV, t->micro_batch);
}

static void wait_attention(struct build *b, const struct turn *t)
{
	wait_for(b, MOE_TASK_PRE_ATTENTION, t->micro_batch);
	wait_for(b, MOE_TASK_STORE_QKV, t->micro_batch);
	wait_turn(b, MOE_TASK_LOAD_KV, t);
	wait_for(b, MOE_TASK_LOAD_HIDDEN, t->micro_batch);
}

static void wait_load_hidden(struct build *b, const struct turn *t)
{
	if (b->shape.hidden_moves) {
		wait_for(b, MOE_TASK_STORE_HIDDEN, t->micro_batch);
		wait_turn(b, MOE_TASK_STORE_HIDDEN, t);
		wait_turn(b, MOE_TASK_HEAD, t);
		return;
	}
	wait_for(b, b->shape.experts_on_cpu ? MOE_TASK_EXPERTS : MOE_TASK_ATTENTION, t->micro_batch);
	wait_for(b, b->shape.experts_on_cpu ? MOE_TASK_PRE_ATTENTION : MOE_TASK_POST_ATTENTION, t->micro_batch);
}

static void wait_post_attention(struct build *b, const struct turn *t)
{
	wait_for(b, MOE_TASK_ATTENTION, t->micro_batch);
	wait_for(b, MOE_TASK_LOAD_HIDDEN, t->micro_batch);
	wait_for(b, MOE_TASK_STORE_HIDDEN, t->micro_batch);
	if (b->shape.schedule != MOE_SCHEDULE_COALESCED || b->shape.prefill)
		wait_task(b, b->slot_filled[t->pass & 1]);
}

/* The newest STORE_KV of a layer and micro-batch. */
static uint32_t *stored(struct build *b, const struct turn *t)
{
	return &b->stored[(int64_t)t->layer * b->shape.micro_batches + (t->micro_batch < 0 ? 0 : t->micro_batch)];
}

static void wait_load_kv(struct build *b, const struct turn *t)
{
	wait_task(b, *stored(b, t));
	wait_turn(b, MOE_TASK_ATTENTION, t);
}

static void wait_inputs(struct build *b, enum moe_task_kind kind, const struct turn *t)
{
	switch (kind) {
	case MOE_TASK_EMBED: wait_embed(b, t); break;
	case MOE_TASK_PRE_ATTENTION: wait_pre_attention(b, t); break;
	case MOE_TASK_STORE_QKV:
		wait_for(b, MOE_TASK_PRE_ATTENTION, t->micro_batch);
		wait_for(b, MOE_TASK_ATTENTION, t->micro_batch);
		break;
	case MOE_TASK_ATTENTION: wait_attention(b, t); break;
	case MOE_TASK_LOAD_HIDDEN: wait_load_hidden(b, t); break;
	case MOE_TASK_STORE_HIDDEN:
		wait_for(b, MOE_TASK_POST_ATTENTION, t->micro_batch);
		wait_for(b, MOE_TASK_EXPERTS, t->micro_batch);
		break;
	case MOE_TASK_LOAD_KV: wait_load_kv(b, t); break;
	case MOE_TASK_STORE_KV: wait_for(b, b->shape.prefill ? MOE_TASK_PRE_ATTENTION : MOE_TASK_ATTENTION, t->micro_batch); break;
	case MOE_TASK_POST_ATTENTION: wait_post_attention(b, t); break;
	case MOE_TASK_EXPERTS:
		wait_for(b, MOE_TASK_STORE_HIDDEN, t->micro_batch);
		wait_for(b, MOE_TASK_LOAD_HIDDEN, t->micro_batch);
		break;
	case MOE_TASK_HEAD: wait_residual(b, t); break;
	default: break;
	}
}

/* ---- tasks of a turn ---- */

struct turn moe_turn(const struct build *b, int64_t number)
{
	const struct moe_schedule_shape *s = &b->shape;
	struct turn t = {.number = number, .pass = number / s->micro_batches};
	t.step = (int)(t.pass / s->layers);
	t.layer = (int)(t.pass % s->layers);
	t.micro_batch = s->schedule == MOE_SCHEDULE_ZERO ? -1 : (int)(number % s->micro_batches);
	t.first_layer = t.layer == 0;
	t.last_layer = t.layer == s->layers - 1;
	return t;
}

static enum moe_lane lane_of(const struct moe_schedule_shape *s, enum moe_task_kind kind)
{
	bool cpu_attention = s->attention_on_cpu || s->schedule == MOE_SCHEDULE_CGOPIPE || s->schedule == MOE_SCHEDULE_COALESCED ||
	                     s->schedule == MOE_SCHEDULE_FLEXGEN_C;
	bool all_cpu = s->attention_on_cpu && s->experts_on_cpu;
	switch (kind) {
	case MOE_TASK_STORE_QKV:
	case MOE_TASK_STORE_HIDDEN:
	case MOE_TASK_STORE_KV: return MOE_LANE_D2H;
	case MOE_TASK_LOAD_HIDDEN:
	case MOE_TASK_LOAD_KV:
	case MOE_TASK_LOAD_WEIGHTS: return MOE_LANE_H2D;
	case MOE_TASK_PIN_WEIGHTS: return MOE_LANE_PIN;
	case MOE_TASK_READ_WEIGHTS: return MOE_LANE_DISK;
	case MOE_TASK_ATTENTION: return all_cpu || (cpu_attention && !s->prefill) ? MOE_LANE_CPU : MOE_LANE_GPU;
	case MOE_TASK_EXPERTS: return s->experts_on_cpu ? MOE_LANE_CPU : MOE_LANE_GPU;
	default: return all_cpu ? MOE_LANE_CPU : MOE_LANE_GPU;
	}
}

static uint32_t add(struct build *b, struct moe_task t)
{
	t.lane = lane_of(&b->shape, t.kind);
	for (int l = 0; l < MOE_LANES; l++)
		wait_task(b, b->barrier[l]);
	return moe_build_task(b, &t);
}

void moe_launch(struct build *b, enum moe_task_kind kind, const struct turn *t)
{
	int layer = kind == MOE_TASK_EMBED ? -1 : kind == MOE_TASK_HEAD ? b->shape.layers : t->layer;
	wait_inputs(b, kind, t);
	uint32_t id = add(b, (struct moe_task){.kind = kind, .step = t->step, .layer = layer, .micro_batch = t->micro_batch, .slot = -1});
	*newest(b, kind, t->micro_batch) = id;
	b->of_turn[kind][t->number & 1] = id;
	if (kind == MOE_TASK_STORE_KV)
		*stored(b, t) = id;
	if (kind == MOE_TASK_POST_ATTENTION)
		b->slot_read[t->pass & 1] = id;
}

void moe_launch_experts(struct build *b, const struct turn *t)
{
	wait_for(b, MOE_TASK_POST_ATTENTION, b->shape.micro_batches - 1);
	wait_task(b, b->slot_filled[t->pass & 1]);
	uint32_t id = add(b, (struct moe_task){.kind = MOE_TASK_EXPERTS, .step = t->step, .layer = t->layer, .micro_batch = -1, .slot = -1});
	*newest(b, MOE_TASK_EXPERTS, -1) = id;
	b->slot_read[t->pass & 1] = id;
}

/* ---- pages of weights ---- */

/* How many pages are read and pinned ahead of the one that is loaded, where the relay has room. */
#define AHEAD 2

static uint32_t *page_of(struct build *b, enum moe_task_kind k, int page)
{
	return &b->of_page[(size_t)k * (size_t)b->shape.pages + (size_t)page];
}

static void launch_page(struct build *b, enum moe_task_kind kind, int64_t number)
{
	int64_t pass = number / b->shape.pages;
	int page = (int)(number % b->shape.pages), slot = (int)(pass & 1);
	/* What it reads: the page on its way here.  What it overwrites: the same page of the pass before. */
	if (kind != MOE_TASK_READ_WEIGHTS)
		wait_task(b, *page_of(b, MOE_TASK_READ_WEIGHTS, page));
	if (kind == MOE_TASK_LOAD_WEIGHTS || (kind == MOE_TASK_READ_WEIGHTS && !b->shape.pinned))
		wait_task(b, *page_of(b, MOE_TASK_PIN_WEIGHTS, page));
	if (kind == MOE_TASK_PIN_WEIGHTS || (kind == MOE_TASK_READ_WEIGHTS && b->shape.pinned))
		wait_task(b, *page_of(b, MOE_TASK_LOAD_WEIGHTS, page));
	if (kind == MOE_TASK_LOAD_WEIGHTS)
		wait_task(b, b->slot_read[slot]);
	uint32_t id = add(b, (struct moe_task){.kind = kind, .step = (int)(pass / b->shape.layers), .layer = (int)(pass % b->shape.layers),
	                                       .micro_batch = -1, .page = page, .slot = slot});
	*page_of(b, kind, page) = id;
	if (kind == MOE_TASK_LOAD_WEIGHTS)
		b->slot_filled[slot] = id;
}

/* A page enters the relay when the page that lay there before it was launched out of it. */
static void launch_next_page(struct build *b)
{
	const struct moe_schedule_shape *s = &b->shape;
	int64_t all = (int64_t)s->steps * s->layers * s->pages;
	int64_t ahead = b->loads + (AHEAD + 1 < s->pages ? AHEAD + 1 : s->pages);
	if (ahead > all)
		ahead = all;
	while (s->from_disk && b->reads < ahead)
		launch_page(b, MOE_TASK_READ_WEIGHTS, b->reads++);
	while (!s->pinned && b->pins < ahead)
		launch_page(b, MOE_TASK_PIN_WEIGHTS, b->pins++);
	launch_page(b, MOE_TASK_LOAD_WEIGHTS, b->loads++);
}

void moe_launch_first_pages(struct build *b)
{
	for (int p = 0; b->shape.weights_move && p < b->shape.pages; p++)
		launch_next_page(b);
}

/* Page p is due at micro-batch p * micro_batches / pages, rounded down. */
void moe_launch_pages(struct build *b, const struct turn *t)
{
	const struct moe_schedule_shape *s = &b->shape;
	int64_t j = t->micro_batch < 0 ? 0 : t->micro_batch;
	int64_t due = ((j + 1) * s->pages + s->micro_batches - 1) / s->micro_batches;
	if (!s->weights_move || t->pass + 1 >= (int64_t)s->steps * s->layers)
		return;
	while (b->loads < (t->pass + 1) * s->pages + due)
		launch_next_page(b);
}
