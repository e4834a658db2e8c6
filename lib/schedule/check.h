/* How graphs are checked: expect.c knows which tasks a shape has, buffers.c what each touches, check.c puts it together. */
#ifndef MOE_SCHEDULE_CHECK_H
#define MOE_SCHEDULE_CHECK_H

#include "schedule/schedule.h"

/* The k-th task of a kind, in the order in which they are to come. */
int64_t moe_expect_count(const struct moe_schedule_shape *s, enum moe_task_kind kind);
struct moe_task moe_expect_task(const struct moe_schedule_shape *s, enum moe_task_kind kind, int64_t k);

/* Which tasks have ended for certain when one begins: of each lane all up to [lane], counted from 1. */
typedef uint32_t moe_ended[MOE_LANES];

struct moe_buffers;
struct moe_buffers *moe_buffers_new(const struct moe_graph *g, moe_ended *ended, struct moe_err *e);
/* Take one task: what it reads must be there, and all that it overwrites must have been read. */
int moe_buffers_take(struct moe_buffers *b, uint32_t task, struct moe_err *e);
void moe_buffers_free(struct moe_buffers *b);

#endif
