#include "schedule/schedule.h"

#include <stdio.h>
#include <string.h>

static const char *const schedules[MOE_SCHEDULES] = {"resident", "cgopipe", "coalesced", "flexgen", "flexgen-c", "zero"};
static const char *const lanes[MOE_LANES] = {"gpu", "cpu", "h2d", "d2h", "pin", "disk", "network"};
static const char *const kinds[MOE_TASK_KINDS] = {
	[MOE_TASK_EMBED] = "embed",
	[MOE_TASK_PRE_ATTENTION] = "pre-attention",
	[MOE_TASK_STORE_QKV] = "store-qkv",
	[MOE_TASK_ATTENTION] = "attention",
	[MOE_TASK_LOAD_HIDDEN] = "load-hidden",
	[MOE_TASK_STORE_HIDDEN] = "store-hidden",
	[MOE_TASK_LOAD_KV] = "load-kv",
	[MOE_TASK_STORE_KV] = "store-kv",
	[MOE_TASK_POST_ATTENTION] = "post-attention",
	[MOE_TASK_EXPERTS] = "experts",
	[MOE_TASK_HEAD] = "head",
	[MOE_TASK_READ_WEIGHTS] = "read-weights",
	[MOE_TASK_PIN_WEIGHTS] = "pin-weights",
	[MOE_TASK_LOAD_WEIGHTS] = "load-weights",
};

const char *moe_schedule_name(enum moe_schedule s)
{
	return (unsigned)s < MOE_SCHEDULES ? schedules[s] : "?";
}

bool moe_schedule_parse(const char *name, enum moe_schedule *out)
{
	for (int i = 0; i < MOE_SCHEDULES; i++)
		if (strcmp(name, schedules[i]) == 0) {
			*out = (enum moe_schedule)i;
			return true;
		}
	return false;
}

const char *moe_lane_name(enum moe_lane l)
{
	return (unsigned)l < MOE_LANES ? lanes[l] : "?";
}

const char *moe_task_name(enum moe_task_kind k)
{
	return (unsigned)k < MOE_TASK_KINDS ? kinds[k] : "?";
}

const char *moe_task_text(const struct moe_task *t, char *buf, size_t size)
{
	bool weights = t->kind == MOE_TASK_READ_WEIGHTS || t->kind == MOE_TASK_PIN_WEIGHTS || t->kind == MOE_TASK_LOAD_WEIGHTS;
	int n = snprintf(buf, size, "%s of step %d", moe_task_name(t->kind), t->step);
	size_t len = n < 0 || (size_t)n >= size ? size - 1 : (size_t)n;

	if (t->kind != MOE_TASK_EMBED && t->kind != MOE_TASK_HEAD) {
		n = snprintf(buf + len, size - len, " layer %d", t->layer);
		len = n < 0 || (size_t)n >= size - len ? size - 1 : len + (size_t)n;
	}
	if (weights)
		snprintf(buf + len, size - len, " page %d", t->page);
	else if (t->micro_batch >= 0)
		snprintf(buf + len, size - len, " micro-batch %d", t->micro_batch);
	return buf;
}
