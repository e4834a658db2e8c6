/* Shapes to build graphs for, and what tests ask of a graph. */
#ifndef SCHEDULE_RIG_H
#define SCHEDULE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "schedule/schedule.h"

/* What a shape may have besides its numbers: schedule, prefill, where weights lie, where a resident one computes. */
#define RIG_FLAVOURS (MOE_SCHEDULES * 2 * 5 * 2 * 4)

/* The n-th flavour; false: there is no such schedule. */
static inline bool rig_flavour(int n, struct moe_schedule_shape *s)
{
	int weights = n / (MOE_SCHEDULES * 2) % 5, hidden = n / (MOE_SCHEDULES * 10) % 2, where = n / (MOE_SCHEDULES * 20);
	bool resident = n % MOE_SCHEDULES == MOE_SCHEDULE_RESIDENT;
	*s = (struct moe_schedule_shape){.schedule = (enum moe_schedule)(n % MOE_SCHEDULES), .prefill = n / MOE_SCHEDULES % 2,
		.layers = 1, .micro_batches = 1, .steps = 1};
	s->weights_move = weights > 0;
	s->pinned = weights == 2 || weights == 4;
	s->from_disk = weights >= 3;
	s->kv_moves = hidden && s->schedule == MOE_SCHEDULE_ZERO;
	s->hidden_moves = hidden && !s->kv_moves;
	s->attention_on_cpu = where & 1;
	s->experts_on_cpu = where & 2;
	if ((where && !resident) || (resident && weights))
		return false;
	return !hidden || s->kv_moves || (s->prefill && !resident);
}

static inline void rig_build(const struct moe_schedule_shape *s, struct moe_graph *g)
{
	struct moe_err e = MOE_ERR_INIT;
	if (moe_schedule_build(s, g, &e))
		fail_msg("%s", e.msg);
}

static inline void rig_sound(const struct moe_graph *g)
{
	struct moe_err e = MOE_ERR_INIT;
	const struct moe_schedule_shape *s = &g->shape;
	if (moe_graph_check(g, &e))
		fail_msg("%s%s, %d layers, %d micro-batches, %d pages, %d steps: %s", moe_schedule_name(s->schedule),
		         s->prefill ? " prefill" : "", s->layers, s->micro_batches, s->pages, s->steps, e.msg);
}

/* The first task of that place; NO_TASK: there is none. */
#define RIG_NONE UINT32_MAX
static inline uint32_t rig_find(const struct moe_graph *g, enum moe_task_kind kind, int step, int layer, int micro_batch)
{
	for (uint32_t i = 0; i < g->n; i++) {
		const struct moe_task *t = &g->tasks[i];
		if (t->kind == kind && t->step == step && t->layer == layer && t->micro_batch == micro_batch)
			return i;
	}
	return RIG_NONE;
}

#endif
