/* How graphs are built: launch.c puts tasks in order, tasks.c knows what each kind waits for, build.c adds them. */
#ifndef MOE_SCHEDULE_BUILD_H
#define MOE_SCHEDULE_BUILD_H

#include "schedule/schedule.h"

#define NO_TASK UINT32_MAX
#define WAITS 32                 /* what one task may name to wait for, before what follows from others is left out */

struct build {
	struct moe_schedule_shape shape;
	struct moe_graph graph;
	uint32_t cap, deps_cap;
	/* before[t][lane]: how many tasks of the graph, counted up to the last of that lane, have ended when t begins. */
	uint32_t (*before)[MOE_LANES];
	uint32_t last[MOE_LANES];    /* the newest task of each lane, or NO_TASK */
	uint32_t barrier[MOE_LANES]; /* what all tasks launched now wait for, or NO_TASK */
	/* The newest task of a kind: of a micro-batch (first entry: of all), of a parity of the turn, of a page. */
	uint32_t *of_micro_batch, *of_page, of_turn[MOE_TASK_KINDS][2];
	uint32_t *stored;            /* the newest STORE_KV of a layer and micro-batch */
	uint32_t slot_read[2];       /* the newest reader of a slot of weights */
	uint32_t slot_filled[2];     /* the newest load into it */
	int64_t reads, pins, loads;  /* pages launched so far, of all passes */
	uint32_t waits[WAITS];
	int n_waits;
	int rc;                      /* the first error; nothing is added after it */
	struct moe_err *e;
};

/* A turn: one micro-batch (-1: all) in one pass through a layer. */
struct turn {
	int64_t pass, number;        /* number: its place among all turns */
	int step, layer, micro_batch;
	bool first_layer, last_layer;
};

/* build.c: add a task that waits for b->waits and forget them. */
uint32_t moe_build_task(struct build *b, const struct moe_task *t);

/* tasks.c: a task of a kind in that turn, with all that it waits for. */
struct turn moe_turn(const struct build *b, int64_t number);
void moe_launch(struct build *b, enum moe_task_kind kind, const struct turn *t);
/* The experts of the whole batch. */
void moe_launch_experts(struct build *b, const struct turn *t);
/* Pages of the pass after the turn's that are due at its micro-batch; all pages of the first pass. */
void moe_launch_pages(struct build *b, const struct turn *t);
void moe_launch_first_pages(struct build *b);

/* launch.c: all tasks of the shape, in order. */
void moe_launch_all(struct build *b);

/* shape.c */
int moe_shape_check(const struct moe_schedule_shape *s, struct moe_schedule_shape *out, struct moe_err *e);
static inline int64_t moe_shape_turns(const struct moe_schedule_shape *s)
{
	return (int64_t)s->steps * s->layers * s->micro_batches;
}

#endif
