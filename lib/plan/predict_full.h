/* The full variant, in parts. */
#ifndef MOE_PLAN_PREDICT_FULL_H
#define MOE_PLAN_PREDICT_FULL_H

#include "plan/private.h"

/* One pass of the batch through the model: a decode step, or the prefill. */
struct plan_pass {
	const struct moe_setting *s;
	const struct moe_execution *x;
	bool prefill;
	int host;                    /* level */
	int base_on;                 /* level of all but attention and routed experts */
	int attention_on, experts_on;
	double micro_batches;
	struct plan_rows rows;       /* of one micro-batch */
	double element;              /* bytes of an activation that travels */
	bool pages;                  /* weights go through a pinned relay in as many pages as there are micro-batches */
	bool offloads;               /* weights or states move while layers run */
};
void plan_pass_decode(const struct moe_setting *s, const struct moe_execution *x, struct plan_pass *p);
void plan_pass_prefill(const struct moe_setting *s, const struct moe_execution *x, struct plan_pass *p);
/* Seconds that embedding, and head with the choice of tokens, take of the batch. */
void plan_pass_ends(const struct plan_pass *p, double *embed, double *head);

/* What one micro-batch waits for in a layer, one after the other. */
struct plan_stages {
	double pre, store, attend, load, post; /* seconds; post with the experts unless they are run once for the batch */
	double experts;              /* of the batch; 0: they are in post */
};
/* The lanes of a layer, everything but its `seconds`. */
int plan_layer_lanes(const struct plan_pass *p, int layer, struct moe_layer_time *out, struct plan_stages *stages, struct moe_err *e);
/* And those: what overlaps by the schedule, and what does not. */
void plan_layer_seconds(const struct plan_pass *p, const struct plan_stages *stages, struct moe_layer_time *t);

/* ---- fleet_time.c: experts on other hosts ---- */

bool plan_is_spread(const struct moe_setting *s, int layer);
/* Of a layer's experts for `rows` tokens *op becomes what the first host computes; *network: seconds until the others have
 * answered.  MOE_E_INPUT: more devices than hosts, or a host without a network. */
int plan_spread_experts(const struct moe_setting *s, int layer, double rows, struct moe_op *op, double *network, struct moe_err *e);
/* Share of a layer's experts that lie on a host. */
double plan_held(const struct moe_setting *s, int layer, int host);

/* ---- device_buffers.c: what a pass works in on a device ---- */

struct plan_buffers {
	double hidden, workspace, kv; /* bytes: residual streams; everything else; keys and values on their way */
};
/* decode: its base is not on the host. */
void plan_device_buffers(const struct plan_pass *decode, struct plan_buffers *out);

/* ---- memory_use.c: what lies where ---- */

void plan_memory_use(const struct moe_setting *s, const struct moe_execution *x, struct moe_prediction *out);

#endif
