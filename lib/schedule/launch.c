/* In which order each schedule launches its tasks.  What a task waits for is in tasks.c. */
#include <string.h>

#include "build.h"

static int64_t passes(const struct build *b)
{
	return (int64_t)b->shape.steps * b->shape.layers;
}

/* From here on everything waits for everything before. */
static void wait_for_all_lanes(struct build *b)
{
	memcpy(b->barrier, b->last, sizeof b->barrier);
}

static void launch_pre_attention(struct build *b, const struct turn *t)
{
	if (t->first_layer)
		moe_launch(b, MOE_TASK_EMBED, t);
	moe_launch(b, MOE_TASK_PRE_ATTENTION, t);
}

/* All until attention on the CPU is under way. */
static void launch_cpu_attention(struct build *b, const struct turn *t)
{
	launch_pre_attention(b, t);
	moe_launch(b, MOE_TASK_STORE_QKV, t);
	moe_launch(b, MOE_TASK_ATTENTION, t);
}

static void launch_heads(struct build *b, int64_t pass)
{
	for (int j = 0; j < b->shape.micro_batches; j++) {
		struct turn t = moe_turn(b, pass * b->shape.micro_batches + j);
		if (t.last_layer)
			moe_launch(b, MOE_TASK_HEAD, &t);
	}
}

/* Attention is always two micro-batches ahead, over the ends of layers and steps; one, where there is only one.  The hidden
 * state goes before the page, so that it never waits for more than one. */
static void launch_cgopipe(struct build *b)
{
	int64_t turns = moe_shape_turns(&b->shape);
	int ahead = b->shape.micro_batches < 2 ? 1 : 2;
	moe_launch_first_pages(b);
	for (int64_t q = -ahead; q < turns && !b->rc; q++) {
		if (q >= 0) {
			struct turn t = moe_turn(b, q);
			moe_launch(b, MOE_TASK_LOAD_HIDDEN, &t);
			moe_launch_pages(b, &t);
			moe_launch(b, MOE_TASK_POST_ATTENTION, &t);
			if (t.last_layer)
				moe_launch(b, MOE_TASK_HEAD, &t);
		}
		if (q + ahead < turns) {
			struct turn next = moe_turn(b, q + ahead);
			launch_cpu_attention(b, &next);
		}
	}
}

/* Attention of a layer begins when the experts of the one before have ended.  Until its first hidden state comes back from the CPU nothing
 * but a page can go over the link, so there the page goes first. */
static void launch_coalesced(struct build *b)
{
	int m = b->shape.micro_batches;
	moe_launch_first_pages(b);
	for (int64_t pass = 0; pass < passes(b) && !b->rc; pass++) {
		struct turn last = moe_turn(b, pass * m + m - 1);
		for (int j = 0; j < m; j++) {
			struct turn t = moe_turn(b, pass * m + j);
			launch_cpu_attention(b, &t);
		}
		for (int j = 0; j < m; j++) {
			struct turn t = moe_turn(b, pass * m + j);
			bool page_first = j == 0 && m > 1;
			if (page_first)
				moe_launch_pages(b, &t);
			moe_launch(b, MOE_TASK_LOAD_HIDDEN, &t);
			if (!page_first)
				moe_launch_pages(b, &t);
			moe_launch(b, MOE_TASK_POST_ATTENTION, &t);
		}
		moe_launch_experts(b, &last);
		launch_heads(b, pass);
	}
}

/* FlexGen's algorithm 1: store what the micro-batch before gave, fetch for the one after, compute, wait for all.  The cache
 * of the only micro-batch of the only layer must be stored before it can be fetched again. */
static void launch_flexgen(struct build *b)
{
	int64_t turns = moe_shape_turns(&b->shape);
	int ahead = b->shape.layers * (int64_t)b->shape.micro_batches > 1 ? 1 : 0;
	struct turn t = moe_turn(b, 0), before = t, next = t;
	moe_launch_first_pages(b);
	if (ahead)
		moe_launch(b, MOE_TASK_LOAD_KV, &t);
	for (int64_t q = 0; q < turns && !b->rc; q++, before = t) {
		t = moe_turn(b, q);
		if (q > 0)
			moe_launch(b, MOE_TASK_STORE_KV, &before);
		moe_launch_pages(b, &t);
		if (q + ahead < turns) {
			next = moe_turn(b, q + ahead);
			moe_launch(b, MOE_TASK_LOAD_KV, &next);
		}
		launch_pre_attention(b, &t);
		moe_launch(b, MOE_TASK_ATTENTION, &t);
		moe_launch(b, MOE_TASK_POST_ATTENTION, &t);
		if (t.last_layer)
			moe_launch(b, MOE_TASK_HEAD, &t);
		wait_for_all_lanes(b);
	}
	moe_launch(b, MOE_TASK_STORE_KV, &t);
}

static void launch_flexgen_c(struct build *b)
{
	int64_t turns = moe_shape_turns(&b->shape);
	moe_launch_first_pages(b);
	for (int64_t q = 0; q < turns && !b->rc; q++) {
		struct turn t = moe_turn(b, q);
		moe_launch_pages(b, &t);
		launch_cpu_attention(b, &t);
		moe_launch(b, MOE_TASK_LOAD_HIDDEN, &t);
		moe_launch(b, MOE_TASK_POST_ATTENTION, &t);
		if (t.last_layer)
			moe_launch(b, MOE_TASK_HEAD, &t);
		wait_for_all_lanes(b);
	}
}

/* The cache of the next layer; of the only one, when it has been stored. */
static void launch_cache(struct build *b, const struct turn *t)
{
	int64_t next = b->shape.layers > 1 ? t->number + 1 : t->number;
	if (next >= moe_shape_turns(&b->shape))
		return;
	struct turn n = moe_turn(b, next);
	moe_launch(b, MOE_TASK_LOAD_KV, &n);
}

/* Resident and zero: computing follows computing; experts on the CPU take rows from the device and give them back. */
static void launch_in_place(struct build *b)
{
	int m = b->shape.micro_batches;
	bool rows_move = b->shape.experts_on_cpu && !b->shape.attention_on_cpu, fetches = b->shape.kv_moves && !b->shape.prefill;
	moe_launch_first_pages(b);
	if (fetches && b->shape.layers > 1) {
		struct turn first = moe_turn(b, 0);
		moe_launch(b, MOE_TASK_LOAD_KV, &first);
	}
	for (int64_t pass = 0; pass < passes(b) && !b->rc; pass++) {
		for (int j = 0; j < m; j++) {
			struct turn t = moe_turn(b, pass * m + j);
			if (fetches)
				launch_cache(b, &t);
			moe_launch_pages(b, &t);
			launch_pre_attention(b, &t);
			moe_launch(b, MOE_TASK_ATTENTION, &t);
			if (b->shape.kv_moves)
				moe_launch(b, MOE_TASK_STORE_KV, &t);
			moe_launch(b, MOE_TASK_POST_ATTENTION, &t);
			if (rows_move) {
				moe_launch(b, MOE_TASK_STORE_HIDDEN, &t);
				moe_launch(b, MOE_TASK_EXPERTS, &t);
				moe_launch(b, MOE_TASK_LOAD_HIDDEN, &t);
			}
		}
		launch_heads(b, pass);
	}
}

/* ---- prefill ---- */

static void launch_stores(struct build *b, const struct turn *t)
{
	moe_launch(b, MOE_TASK_STORE_KV, t);
	if (b->shape.hidden_moves && !t->last_layer)
		moe_launch(b, MOE_TASK_STORE_HIDDEN, t);
}

/* The next micro-batch's residual; the only one's must be stored before it can be fetched again. */
static void launch_fetch(struct build *b, int64_t q)
{
	int64_t ahead = b->shape.micro_batches > 1 ? 1 : 0;
	if (!b->shape.hidden_moves || q + ahead >= moe_shape_turns(&b->shape))
		return;
	struct turn next = moe_turn(b, q + ahead);
	if (!next.first_layer)
		moe_launch(b, MOE_TASK_LOAD_HIDDEN, &next);
}

static void launch_compute(struct build *b, const struct turn *t)
{
	launch_pre_attention(b, t);
	moe_launch(b, MOE_TASK_ATTENTION, t);
	moe_launch(b, MOE_TASK_POST_ATTENTION, t);
	if (t->last_layer)
		moe_launch(b, MOE_TASK_HEAD, t);
}

/* Layer by layer, micro-batch by micro-batch; K and V leave for the host, where decode's attention or its fetches want them. */
static void launch_prefill(struct build *b)
{
	bool in_step = b->shape.schedule == MOE_SCHEDULE_FLEXGEN || b->shape.schedule == MOE_SCHEDULE_FLEXGEN_C;
	int64_t turns = moe_shape_turns(&b->shape);
	struct turn t = moe_turn(b, 0), before = t;
	moe_launch_first_pages(b);
	for (int64_t q = 0; q < turns && !b->rc; q++, before = t) {
		t = moe_turn(b, q);
		if (q > 0)
			launch_stores(b, &before);
		launch_fetch(b, q);
		moe_launch_pages(b, &t);
		launch_compute(b, &t);
		if (in_step)
			wait_for_all_lanes(b);
	}
	launch_stores(b, &t);
}

void moe_launch_all(struct build *b)
{
	const struct moe_schedule_shape *s = &b->shape;
	bool resident = s->schedule == MOE_SCHEDULE_RESIDENT;
	bool cache_on_host = !resident || (s->attention_on_cpu && !s->experts_on_cpu);
	if (s->schedule == MOE_SCHEDULE_ZERO || (resident && !cache_on_host))
		launch_in_place(b);
	else if (s->prefill)
		launch_prefill(b);
	else if (s->schedule == MOE_SCHEDULE_COALESCED)
		launch_coalesced(b);
	else if (s->schedule == MOE_SCHEDULE_FLEXGEN)
		launch_flexgen(b);
	else if (s->schedule == MOE_SCHEDULE_FLEXGEN_C)
		launch_flexgen_c(b);
	else
		launch_cgopipe(b);
}
