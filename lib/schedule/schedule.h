/* Schedules: in which order a batch goes through a model when its weights or its KV cache do not lie where they are
 * used.  A schedule is a graph of tasks on lanes, described once: plan/ plays it with predicted durations, the engine's
 * executor runs it.
 *
 * The rules by which a graph is read.  A lane is a queue: its tasks run one at a time in the order in which they stand in
 * the graph.  A task begins when the task before it on its lane and all that it depends on have ended.  A task depends
 * only on tasks that stand before it, so the order of the graph is a legal order to launch, and nothing can wait for ever.
 * Buffers are part of the graph: what overwrites a buffer comes after the last that read it, so that a graph that is run
 * as it stands never overwrites what is in use.  Dependencies that follow from others, or from the order of a lane, are
 * left out: each that is there says something.
 *
 * The buffers, in the order of use ("pass": step * layers + layer; "turn": pass * micro_batches + micro_batch):
 *   tokens      per micro-batch: HEAD writes what it sampled, EMBED of the next step reads it (decode)
 *   residual    per micro-batch, on the device; with hidden_moves two on the device, by parity of the turn, and one per
 *               micro-batch on the host
 *   qkv         on the device, per micro-batch in decode, two by parity of the turn in prefill; on the host, pinned, per
 *               micro-batch; so too what attention on the CPU gives, there and on the device
 *   KV cache    per layer and micro-batch; where it moves, two more on the device by parity of the turn
 *   weights     two layers on the device by parity of the pass (moe_task.slot), each in `pages`; one layer in the pinned
 *               relay; one layer in pageable memory for what comes from disk
 *   expert rows per micro-batch, both ways, where experts run on the CPU and the rest does not
 *
 * Follows: Cao et al., "MoE-Lightning" (ASPLOS 2025, arXiv 2411.11217), section 4.1 and algorithm 1 (cgopipe), figure 6
 * (the others); Sheng et al., "FlexGen" (ICML 2023, arXiv 2303.06865), algorithm 1 (flexgen, flexgen-c); Aminabadi et al.,
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
	MOE_SCHEDULE_COALESCED, /* the same, but in decode a layer's experts run once, on the whole batch */
	MOE_SCHEDULE_FLEXGEN,   /* GPU attention, KV cache and the next layer's weights fetched meanwhile; all lanes wait for
	                         * each other after every micro-batch */
	MOE_SCHEDULE_FLEXGEN_C, /* CPU attention, nothing overlaps it but the next layer's weights */
	MOE_SCHEDULE_ZERO,      /* the whole batch at once on the GPU, a layer's weights fetched while the one before runs */
	MOE_SCHEDULES
};
const char *moe_schedule_name(enum moe_schedule s); /* "resident", "cgopipe", ..., "flexgen-c", "zero" */
bool moe_schedule_parse(const char *name, enum moe_schedule *out);

enum moe_lane { MOE_LANE_GPU, MOE_LANE_CPU, MOE_LANE_H2D, MOE_LANE_D2H, MOE_LANE_PIN, MOE_LANE_DISK, MOE_LANE_NETWORK, MOE_LANES };
const char *moe_lane_name(enum moe_lane l); /* "gpu", "cpu", "h2d", "d2h", "pin", "disk", "network" */

enum moe_task_kind {
	MOE_TASK_EMBED,           /* rows of the embedding, of a micro-batch's newest tokens (prefill: of its prompts) */
	MOE_TASK_PRE_ATTENTION,   /* norm, Q, K and V of a micro-batch */
	MOE_TASK_STORE_QKV,       /* device to host: q, k, v for attention on the CPU */
	MOE_TASK_ATTENTION,       /* lane says where; appends K and V to the cache where it lies there */
	MOE_TASK_LOAD_HIDDEN,     /* host to device: what attention on the CPU gave (decode), the residual (prefill), or what
	                           * experts on the CPU gave */
	MOE_TASK_STORE_HIDDEN,    /* device to host: the residual (prefill), or rows for experts on the CPU */
	MOE_TASK_LOAD_KV,         /* host to device: of one layer and micro-batch */
	MOE_TASK_STORE_KV,        /* device to host: the new positions */
	MOE_TASK_POST_ATTENTION,  /* O, norm, gate; and the experts where the schedule has no task of their own for them */
	MOE_TASK_EXPERTS,         /* micro_batch -1: of the whole batch; on the lane where experts are */
	MOE_TASK_HEAD,            /* norm, head, sampling of a micro-batch, after the last layer */
	MOE_TASK_READ_WEIGHTS,    /* disk to host, a page */
	MOE_TASK_PIN_WEIGHTS,     /* host to pinned relay, a page */
	MOE_TASK_LOAD_WEIGHTS,    /* host to device, a page */
	MOE_TASK_KINDS
};
const char *moe_task_name(enum moe_task_kind k);

struct moe_task {
	enum moe_task_kind kind;
	enum moe_lane lane;
	int step, layer;          /* layer: -1 of EMBED, `layers` of HEAD; of weight tasks: the step and layer they are for */
	int micro_batch;          /* -1: all of them */
	int page;                 /* of weight tasks, of `pages`; else 0 */
	int slot;                 /* of weight tasks: which of the two on the device; else -1 */
	uint32_t first, n;        /* its dependencies: deps[first .. first + n) */
};

/* What a graph is built for. */
struct moe_schedule_shape {
	enum moe_schedule schedule;
	bool prefill;             /* else decode */
	int layers;               /* any number from 1 on */
	int micro_batches;        /* any number from 1 on; zero: taken as one */
	int pages;                /* a layer's weights are loaded in so many; 0: as the schedule has it (cgopipe, coalesced: one
	                           * a micro-batch, and two for one; others: one, and two from a disk) */
	int steps;                /* passes through the model, one after the other: those of decode depend on the step before,
	                           * those of prefill are other prompts */
	bool weights_move;        /* false: all are resident on the device, there are no weight tasks.  Not with resident. */
	bool from_disk;           /* what moves is read from disk first */
	bool pinned;              /* the host's weights are all pinned already, and disks read into pinned memory: no PIN tasks */
	bool hidden_moves;        /* prefill of cgopipe, coalesced, flexgen and flexgen-c: residuals of micro-batches that are not
	                           * at work lie on the host */
	bool kv_moves;            /* zero: the KV cache lies on the host and is fetched a layer ahead; flexgen's always does */
	bool attention_on_cpu;    /* resident: attention and its KV cache; cgopipe, coalesced and flexgen-c always have it there */
	bool experts_on_cpu;      /* resident: the experts.  With attention_on_cpu all runs on the CPU and nothing moves. */
};
struct moe_graph {
	struct moe_schedule_shape shape; /* pages and micro_batches: those the graph has */
	struct moe_task *tasks;   /* [n], in the order of launching */
	uint32_t n;
	uint32_t *deps;           /* [n_deps] indices of tasks, each smaller than the one it belongs to */
	uint32_t n_deps;
};

/* MOE_E_RANGE: numbers below 1 or more than 2^24 tasks; MOE_E_INPUT: flags that the schedule does not have.
 * moe_graph_free frees. */
int moe_schedule_build(const struct moe_schedule_shape *s, struct moe_graph *out, struct moe_err *e);
void moe_graph_free(struct moe_graph *g);
/* "post-attention of step 0 layer 3 micro-batch 1": buf of 96 bytes at least; returns buf. */
const char *moe_task_text(const struct moe_task *t, char *buf, size_t size);
/* Is it a graph that may be run?  Every task of the shape is there once; dependencies point back; when the tasks are taken
 * in order, each finds in every buffer what it needs; and any two that touch the same buffer, one of them writing, are
 * ordered by dependencies and lanes.  So every run gives what the run in order gives.  Knows nothing of how graphs are
 * built.  MOE_E_INPUT names the first two tasks that break a rule. */
int moe_graph_check(const struct moe_graph *g, struct moe_err *e);

#endif
