#include "check.h"

/* Over what a kind's tasks go. */
enum spread { NEVER, MICRO_BATCHES, TURNS, TURNS_BUT_FIRST_LAYER, TURNS_BUT_LAST_LAYER, PASSES, PAGES };

static bool decodes_on_cpu(const struct moe_schedule_shape *s)
{
	if (s->schedule == MOE_SCHEDULE_RESIDENT)
		return s->attention_on_cpu && !s->experts_on_cpu;
	return s->schedule == MOE_SCHEDULE_CGOPIPE || s->schedule == MOE_SCHEDULE_COALESCED || s->schedule == MOE_SCHEDULE_FLEXGEN_C;
}

static bool all_on_cpu(const struct moe_schedule_shape *s)
{
	return s->attention_on_cpu && s->experts_on_cpu;
}

static bool rows_move(const struct moe_schedule_shape *s)
{
	return s->experts_on_cpu && !s->attention_on_cpu;
}

static enum spread spread_of_moves(const struct moe_schedule_shape *s, enum moe_task_kind kind)
{
	bool qkv = decodes_on_cpu(s) && !s->prefill, fetched = s->schedule == MOE_SCHEDULE_FLEXGEN || s->kv_moves;
	switch (kind) {
	case MOE_TASK_STORE_QKV: return qkv ? TURNS : NEVER;
	case MOE_TASK_LOAD_HIDDEN: return s->hidden_moves ? TURNS_BUT_FIRST_LAYER : qkv || rows_move(s) ? TURNS : NEVER;
	case MOE_TASK_STORE_HIDDEN: return s->hidden_moves ? TURNS_BUT_LAST_LAYER : rows_move(s) ? TURNS : NEVER;
	case MOE_TASK_LOAD_KV: return fetched && !s->prefill ? TURNS : NEVER;
	default: return fetched || (s->prefill && decodes_on_cpu(s)) ? TURNS : NEVER; /* STORE_KV */
	}
}

static enum spread spread_of(const struct moe_schedule_shape *s, enum moe_task_kind kind)
{
	switch (kind) {
	case MOE_TASK_EMBED:
	case MOE_TASK_HEAD: return MICRO_BATCHES;
	case MOE_TASK_PRE_ATTENTION:
	case MOE_TASK_ATTENTION:
	case MOE_TASK_POST_ATTENTION: return TURNS;
	case MOE_TASK_EXPERTS: return s->schedule == MOE_SCHEDULE_COALESCED && !s->prefill ? PASSES : rows_move(s) ? TURNS : NEVER;
	case MOE_TASK_READ_WEIGHTS: return s->weights_move && s->from_disk ? PAGES : NEVER;
	case MOE_TASK_PIN_WEIGHTS: return s->weights_move && !s->pinned ? PAGES : NEVER;
	case MOE_TASK_LOAD_WEIGHTS: return s->weights_move ? PAGES : NEVER;
	default: return spread_of_moves(s, kind);
	}
}

static enum moe_lane expect_lane(const struct moe_schedule_shape *s, enum moe_task_kind kind)
{
	switch (kind) {
	case MOE_TASK_READ_WEIGHTS: return MOE_LANE_DISK;
	case MOE_TASK_PIN_WEIGHTS: return MOE_LANE_PIN;
	case MOE_TASK_LOAD_WEIGHTS:
	case MOE_TASK_LOAD_KV:
	case MOE_TASK_LOAD_HIDDEN: return MOE_LANE_H2D;
	case MOE_TASK_STORE_QKV:
	case MOE_TASK_STORE_KV:
	case MOE_TASK_STORE_HIDDEN: return MOE_LANE_D2H;
	case MOE_TASK_ATTENTION: return all_on_cpu(s) || (decodes_on_cpu(s) && !s->prefill) ? MOE_LANE_CPU : MOE_LANE_GPU;
	case MOE_TASK_EXPERTS: return rows_move(s) ? MOE_LANE_CPU : MOE_LANE_GPU;
	default: return all_on_cpu(s) ? MOE_LANE_CPU : MOE_LANE_GPU;
	}
}

/* Tasks of a kind in one step, and in one layer of it. */
static int64_t in_layer(const struct moe_schedule_shape *s, enum spread over)
{
	return over == NEVER ? 0 : over == PASSES ? 1 : over == PAGES ? s->pages : s->micro_batches;
}

static int64_t in_step(const struct moe_schedule_shape *s, enum spread over)
{
	bool inner = over == TURNS_BUT_FIRST_LAYER || over == TURNS_BUT_LAST_LAYER;
	return in_layer(s, over) * (over == MICRO_BATCHES ? 1 : s->layers - inner);
}

int64_t moe_expect_count(const struct moe_schedule_shape *s, enum moe_task_kind kind)
{
	return s->steps * in_step(s, spread_of(s, kind));
}

struct moe_task moe_expect_task(const struct moe_schedule_shape *s, enum moe_task_kind kind, int64_t k)
{
	enum spread over = spread_of(s, kind);
	int64_t step = in_step(s, over), layer = in_layer(s, over);
	struct moe_task t = {.kind = kind, .lane = expect_lane(s, kind), .step = (int)(k / step), .slot = -1};
	int place = (int)(k % layer);
	t.layer = (int)(k % step / layer) + (over == TURNS_BUT_FIRST_LAYER);
	if (over == MICRO_BATCHES)
		t.layer = kind == MOE_TASK_EMBED ? -1 : s->layers;
	t.micro_batch = over == PASSES || over == PAGES || s->schedule == MOE_SCHEDULE_ZERO ? -1 : place;
	if (over == PAGES) {
		t.page = place;
		t.slot = (int)(((int64_t)t.step * s->layers + t.layer) & 1);
	}
	return t;
}
