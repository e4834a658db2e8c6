/* Schedules: in which order a batch goes through a model when its weights or its KV cache do not lie where they are
 * used.  A schedule is a graph of tasks on lanes, described once: plan/ plays it with predicted durations, the engine's
 * executor runs it.
 *
 * The rules by which a graph is read.  A lane is a queue: its tasks run one at a time in the order in which they stand in
 * the graph.  A task begins when the task before it on its lane and all that it depends on have ended.  A task depends
 * only on tasks that stand before it, so the order of the graph is a legal order to launch.  Buffers are part of the
 * graph: what overwrites a buffer depends on the last that read it (two slots of weights on the device by parity of the
 * loads, one pinned relay, two more for hidden states per micro-batch), so that a graph that is run as it stands never
 * overwrites what is in use.
 *
 * Follows: Cao et al., "MoE-Lightning" (ASPLOS 2025, arXiv 2411.11217), section 4.1 and algorithm 1 (cgopipe), figure 6
 * (the others); Sheng et al., "FlexGen" (ICML 2023, arXiv 2303.06865), section 3 (flexgen, flexgen-c); Aminabadi et al.,
 * "DeepSpeed Inference" (SC 2022, arXiv 2207.00032), section 5 (zero). */
#ifndef MOE_SCHEDULE_H
#define MOE_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum moe_schedule {
	MOE_SCHEDULE_RESIDENT,  /* nothing moves: every layer's weights lie where they are used */
	MOE_SCHEDULE_CGOPIPE,   /* CPU attention two micro-batches ahead, weights in pages between the hidden states */
	MOE_SCHEDULE_COALESCED, /* the same, but a layer's experts run once, on the whole batch */
	MOE_SCHEDULE_FLEXGEN,   /* GPU attention, KV cache and the next layer's weights fetched meanwhile */
	MOE_SCHEDULE_FLEXGEN_C, /* CPU attention, nothing overlaps it but the next layer's weights */
	MOE_SCHEDULE_ZERO,      /* the whole batch at once, KV on the GPU, a layer's weights fetched while the one before runs */
	MOE_SCHEDULES
};
const char *moe_schedule_name(enum moe_schedule s); /* "resident", "cgopipe", ..., "flexgen-c", "zero" */
bool moe_schedule_parse(const char *name, enum moe_schedule *out);

enum moe_lane { MOE_LANE_GPU, MOE_LANE_CPU, MOE_LANE_H2D, MOE_LANE_D2H, MOE_LANE_PIN, MOE_LANE_DISK, MOE_LANE_NETWORK, MOE_LANES };
const char *moe_lane_name(enum moe_lane l); /* "gpu", "cpu", "h2d", "d2h", "pin", "disk", "network" */

enum moe_task_kind {
	MOE_TASK_PRE_ATTENTION,   /* norm, Q, K and V of a micro-batch */
	MOE_TASK_STORE_QKV,       /* device to host: q, k, v for attention on the CPU */
	MOE_TASK_ATTENTION,       /* lane says where */
	MOE_TASK_LOAD_HIDDEN,     /* host to device: what attention gave */
	MOE_TASK_STORE_HIDDEN,    /* device to host */
	MOE_TASK_LOAD_KV,         /* host to device */
	MOE_TASK_STORE_KV,        /* device to host: the new positions */
	MOE_TASK_POST_ATTENTION,  /* O, norm, gate; and the experts where the schedule has no task of their own for them */
	MOE_TASK_EXPERTS,         /* micro_batch -1: of the whole batch */
	MOE_TASK_READ_WEIGHTS,    /* disk to host, a page */
	MOE_TASK_PIN_WEIGHTS,     /* host to pinned relay, a page */
	MOE_TASK_LOAD_WEIGHTS,    /* host to device, a page */
	MOE_TASK_KINDS
};
const char *moe_task_name(enum moe_task_kind k);

struct moe_task {
	enum moe_task_kind kind;
	enum moe_lane lane;
	int step, layer;
	int micro_batch;          /* -1: all of them */
	int page;                 /* of weight tasks, of `pages`; else 0 */
	int slot;                 /* of weight tasks: which of the two on the device; else -1 */
	uint32_t first, n;        /* its dependencies: deps[first .. first + n) */
};
struct moe_graph {
	struct moe_task *tasks;   /* [n], in the order of launching */
	uint32_t n;
	uint32_t *deps;           /* indices of tasks, each smaller than the one it belongs to */
	int layers, micro_batches, pages, steps;
};

/* What a graph is built for. */
struct moe_schedule_shape {
	enum moe_schedule schedule;
	bool prefill;             /* else decode */
	int layers;               /* any number from 1 on */
	int micro_batches;        /* any number from 1 on */
	int pages;                /* a layer's weights are loaded in so many; 0: as the schedule has it */
	int steps;                /* passes through the model, one after the other: those of decode depend on the step before */
	bool weights_move;        /* false: all are resident on the device, there are no weight tasks */
	bool from_disk;           /* what moves is read from disk first */
	bool pinned;              /* the host's weights are all pinned already: no PIN tasks */
};
/* At most 2^24 tasks, else MOE_E_RANGE.  moe_graph_free frees. */
int moe_schedule_build(const struct moe_schedule_shape *s, struct moe_graph *out, struct moe_err *e);
void moe_graph_free(struct moe_graph *g);
/* Is it a graph that may be run: dependencies point back, a layer's attention comes after the layer before it, nothing
 * overwrites a slot, the relay or a hidden-state buffer before its last reader?  MOE_E_INPUT names the first two tasks that break a rule. */
int moe_graph_check(const struct moe_graph *g, struct moe_err *e);

#endif
