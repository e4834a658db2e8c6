/* What the files of moe-policy share. */
#ifndef MOE_POLICY_TOOL_H
#define MOE_POLICY_TOOL_H

#include "base/opts.h"
#include "shard/shard.h"

/* What is planned for: a model, and what each of its experts weighs. */
struct subject {
	struct moe_model model;
	struct moe_source *source; /* with weights; NULL: only the shape is known, at two bytes a weight */
};
/* A folder with weights, a folder with a config.json alone, or the name of a known shape. */
int subject_open(const char *what, struct subject *s, struct moe_err *e);
void subject_close(struct subject *s);
uint64_t subject_expert_bytes(void *ctx, int layer, int expert);

/* The devices to plan for. */
struct fleet {
	struct moe_device *devices;
	int n;
	struct moe_json *hardware; /* as read; NULL for N devices that are all alike */
};
int fleet_open(const char *hardware, int devices, struct fleet *f, struct moe_err *e);
void fleet_close(struct fleet *f);

#endif
