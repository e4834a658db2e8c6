/* Plans: hardware, the roofline model over it, the search for a policy, the simulator that plays a schedule, which device
 * holds which expert, and the policy file that says so (moe-policy(5)).
 *
 * Facts: Cao et al., "MoE-Lightning" (arXiv 2411.11217) for the model, the search and the schedules; DeepSeek's EPLB for
 * placement over equal devices. */
#ifndef MOE_PLAN_H
#define MOE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "schedule/schedule.h"

#define MOE_MAX_DEVICES 4096
#define MOE_POLICY_SCHEMA 1

struct moe_usage;        /* how often each expert was used */
struct moe_placement;
struct moe_coactivation; /* which experts tokens choose together */

/* ---- hardware ---- */

#define MOE_MAX_LEVELS 8
#define MOE_MAX_LINKS 32
#define MOE_MAX_HOSTS 1024

/* Types that a processor has a rate for. */
enum moe_flops { MOE_FLOPS_F32, MOE_FLOPS_F16, MOE_FLOPS_BF16, MOE_FLOPS_I8, MOE_FLOPS_TYPES };
/* Kernels whose own rates a profile may have ("kernels" in moe-policy(5)), where arithmetic and memory alone promise too
 * much: products with a matrix of that quant (by moe_quant), and attention. */
#define MOE_KERNEL_ATTENTION MOE_QUANTS
#define MOE_KERNELS (MOE_QUANTS + 1)
#define MOE_KERNEL_ROWS 12
/* Measured: with rows[i] rows at once, bandwidth[i] bytes a second of weights (attention: of keys and values) are done with.
 * Between, by the logarithms; below the first as the first, beyond the last in proportion to 1 / rows. */
struct moe_kernel_roof {
	int n;                       /* 0: not known, memory and arithmetic of the level count */
	double rows[MOE_KERNEL_ROWS]; /* ascending, from 1 on */
	double bandwidth[MOE_KERNEL_ROWS];
};
/* Bytes a second at so many rows; 0: not known. */
double moe_kernel_bandwidth(const struct moe_kernel_roof *k, double rows);
/* A memory and the processors beside it.  All numbers are of one of the `count` devices. */
struct moe_memory_level {
	char name[16];               /* "gpu", "cpu", "disk" */
	int count;
	double memory;               /* bytes */
	double bandwidth;            /* bytes/s that its processor reads; 0 where there is none: a disk */
	double flops[MOE_FLOPS_TYPES]; /* 0: not that type; a processor that lacks a type uses the next wider one */
	double call;                 /* seconds that any kernel takes at least: launch, barrier */
	struct moe_kernel_roof kernels[MOE_KERNELS];
};
struct moe_link {
	int from, to;                /* levels */
	double bandwidth, latency;   /* bytes/s, seconds */
	bool shared;                 /* one for all devices, else each has its own */
};
struct moe_hardware {
	char name[64];
	int n_levels, n_links;
	struct moe_memory_level levels[MOE_MAX_LEVELS];  /* fastest first; the last with a processor is the host, "cpu" */
	struct moe_link links[MOE_MAX_LINKS];
	double network_bandwidth, network_latency; /* 0: none */
};
struct moe_fleet {
	struct moe_hardware *hosts;  /* the first is where moe-route runs */
	int n;
};
/* A profile or a fleet, checked: names that occur once, at least one level with a processor, all numbers positive and
 * finite, links between levels that exist.  MOE_E_INPUT names key and host. */
int moe_fleet_from_json(const struct moe_json *j, const char *what, struct moe_fleet *out, struct moe_err *e);
void moe_fleet_free(struct moe_fleet *f);
/* By name: "epyc-2s" a host, "t4" a GPU in the host that goes with it, "t4x4" four of them, "t4x4@epyc-2s" in that host,
 * "epyc-2s/10g" with that network, "A+B" a fleet, "3*A" three alike ("A", "A#2", "A#3").  MOE_E_MISSING suggests the
 * nearest.  moe_hardware_names (GPUs, then hosts), moe_network_names: NULL-terminated. */
int moe_hardware_named(const char *name, struct moe_fleet *out, struct moe_err *e);
const char *const *moe_hardware_names(void);
const char *const *moe_network_names(void);
/* KEY=VALUE on all hosts, or HOST:KEY=VALUE: gpu.memory=15GiB, gpu.count=4, cpu.flops.f32=0.8e12, link.cpu-gpu.bandwidth=16GiB,
 * network=10Gb/s, network.latency=50us, host_memory=184GiB (= cpu.memory).  Units: K M G T P (1000), Ki Mi Gi Ti, B, B/s,
 * b/s, FLOP/s, s, ms, us, ns.  MOE_E_MISSING: no host has such a key, the nearest is suggested; MOE_E_INPUT: the value.  After a
 * failure some hosts may have it and others not. */
int moe_hardware_set(struct moe_fleet *f, const char *assignment, struct moe_err *e);
/* Warn, through moe_log, of numbers that are a thousand times off what exists ("gpu bandwidth is 322 B/s: are 322 GB/s meant?"): who has
 * such a file from a person does, after the last change. */
void moe_fleet_doubt(const struct moe_fleet *f);
void moe_hardware_write(const struct moe_hardware *h, struct moe_jw *w); /* the profile, one JSON value */
void moe_hardware_write_members(const struct moe_hardware *h, struct moe_jw *w); /* its members, into an object that is open */
/* Index of the level of that name; -1: none. */
int moe_level_find(const struct moe_hardware *h, const char *name);
/* The link between two levels; NULL: none. */
const struct moe_link *moe_link_find(const struct moe_hardware *h, int from, int to);
/* FLOP/s of one device of a level in that type, or the next wider one it has (f16 and bf16 stand in for each other; where
 * there is no wider one, the next narrower); 0: nothing computes there. */
double moe_level_flops(const struct moe_memory_level *l, enum moe_flops t);

/* ---- workload ---- */

struct moe_workload {
	char name[64];
	double prompt_mean, prompt_max, generate; /* tokens */
	bool padded;                 /* every prompt takes prompt_max */
};
int moe_workload_from_json(const struct moe_json *j, const char *what, struct moe_workload *out, struct moe_err *e);
/* "mtbench" (77, 418), "helm-reasoning" (242, 256, 50), "helm-summarization" (1693, 1984, 64), "chat", "batch"...; the
 * nearest is suggested. */
int moe_workload_named(const char *name, struct moe_workload *out, struct moe_err *e);
const char *const *moe_workload_names(void);
double moe_workload_prompt(const struct moe_workload *w); /* tokens a prompt takes: the mean, or the longest when padded */

/* ---- the model: Hierarchical Roofline (MoE-Lightning, arXiv 2411.11217, section 3) ---- */

enum moe_variant { MOE_VARIANT_FULL, MOE_VARIANT_PAPER };
/* What the paper's authors changed by hand: how much of the residual stream stays on the GPU during prefill. */
enum moe_residual { MOE_RESIDUAL_WHOLE_BATCH, MOE_RESIDUAL_PER_MICRO_BATCH };

enum moe_op_kind {
	MOE_OP_QKV, MOE_OP_ATTENTION, MOE_OP_O, MOE_OP_GATE, MOE_OP_EXPERTS, MOE_OP_SHARED, MOE_OP_DENSE, MOE_OP_EMBED, MOE_OP_HEAD,
	MOE_OPS
};
const char *moe_op_name(enum moe_op_kind k);

/* The question: what is asked of the model, besides a policy. */
struct moe_setting {
	const struct moe_model *model;
	const struct moe_hardware *hardware;
	struct moe_workload workload;
	struct moe_quants quants;    /* MOE_Q_KEEP: bf16 */
	int kv_bytes;                /* of one K or V element: 2; 1 for q8, 4 for f32 */
	bool exact;                  /* activations stay f32: coded weights are multiplied as f32 too */
	enum moe_variant variant;
	enum moe_residual residual;  /* paper variant only */
	double reserve;              /* share of every memory that is left alone; 0: the variant's own (paper 0.14 and 0.2) */
	const struct moe_usage *usage; /* how tokens choose experts; NULL: uniformly */
	/* Experts on a fleet: time and places of what is not here.  NULL: all in this host. */
	const struct moe_fleet *fleet;
	const struct moe_placement *placement;
};

/* The answer's free part: what a search chooses. */
struct moe_execution {
	enum moe_schedule schedule;
	int64_t batch, micro_batch;  /* sequences; micro-batches: batch / micro_batch, rounded up */
	int64_t prefill_micro_batch; /* sequences; full variant */
	int attention_on, ffn_on;    /* levels */
	double weights[MOE_MAX_LEVELS], kv[MOE_MAX_LEVELS]; /* shares of routed experts, and of the KV cache; each adds up to 1 */
};

#define MOE_TERMS 16
struct moe_term {
	char name[24];
	double amount;               /* seconds, or bytes */
};
struct moe_sum {                 /* a total made of named terms */
	double total;
	int n;
	struct moe_term terms[MOE_TERMS];
};
/* One layer (the mean over layers of all kinds) in one pass of the batch. */
struct moe_layer_time {
	struct moe_sum lanes[MOE_LANES]; /* seconds that each lane is busy */
	double seconds;              /* the layer: the longest lane, and what cannot overlap it */
	enum moe_lane bottleneck;
};
struct moe_level_memory {
	struct moe_sum used;         /* bytes */
	double available;            /* bytes, the reserve taken off */
};
struct moe_prediction {
	struct moe_layer_time decode, prefill;
	double step_seconds;         /* one decode step of the batch: layers, embedding, head, sampling */
	double prefill_seconds;      /* of the whole batch */
	double decode_tokens_per_second, prefill_tokens_per_second;
	double tokens_per_second;    /* generated, prefill's time included (paper variant: as the paper counts, without) */
	double first_token_seconds;  /* of a batch */
	struct moe_level_memory memory[MOE_MAX_LEVELS];
	bool fits;                   /* every level's used <= available */
};
/* The time and memory of one policy.  Always computes memory, also where it does not fit.  MOE_E_INPUT: the execution
 * makes no sense (a level that has no processor, shares that do not add up, a link that is missing). */
int moe_predict(const struct moe_setting *s, const struct moe_execution *x, struct moe_prediction *out, struct moe_err *e);

/* One operation of a layer (or of the ends) for `rows` tokens that see `context` positions: what it computes, and what it
 * reads and writes at the level that does it. */
struct moe_op {
	enum moe_op_kind kind;
	double flops;
	double weights;              /* bytes; of the experts those that `rows` tokens are expected to touch */
	double kv;                   /* bytes */
	double activations;          /* bytes */
	enum moe_flops type;
	int kernel;                  /* index into moe_memory_level.kernels; -1: none of them */
	double rows;                 /* that a weight meets: of experts the mean over those that are touched */
	double tokens, chance;       /* experts: a binomial number of rows, of so many tokens that choose one by chance; else 0 */
	double calls;                /* of kernels */
};
/* Which it has in that layer; out[MOE_OPS], *n.  layer -1: embedding and head. */
void moe_layer_ops(const struct moe_setting *s, int layer, double rows, double context, struct moe_op *out, int *n);
/* Expected distinct experts that `rows` tokens touch: uniformly E (1 - (1 - k/E)^rows), by usage sum of 1 - (1 - p_e)^rows. */
double moe_distinct_experts(const struct moe_setting *s, int layer, double rows);

/* The Hierarchical Roofline itself, of FLOP/byte at level i (which computes) and level j (whence data comes; j = i: there). */
struct moe_roofline {
	double attainable;           /* FLOP/s: equations 7 and 8 */
	double p1;                   /* equation 9: below it (FLOP/byte at j) compute at j; infinite: always there */
	double p2;                   /* equation 10: below it the link binds */
	double balance;              /* equation 11: FLOP/byte at j at which memory at i and the link bind alike */
	const char *binds;           /* "compute", "memory", "link" */
};
int moe_roofline(const struct moe_hardware *h, enum moe_flops t, int i, int j, double intensity_i, double intensity_j,
                 struct moe_roofline *out, struct moe_err *e);

/* As a picture: roofs of every level and link, the operations of a layer in decode (its first with experts), those whose
 * bytes are moved also by these, and where it pays to move them: P1, P2, balance. */
int moe_roofline_svg(const struct moe_setting *s, const struct moe_execution *x, const char *title, struct moe_buf *out,
                     struct moe_err *e);

/* ---- search ---- */

/* A mixed-integer linear program: the least cost . x with row . x <= limit for every row and x >= 0; x[i] whole where
 * `whole` says so. */
#define MOE_LP_COLUMNS 24
#define MOE_LP_ROWS 48
struct moe_lp {
	int columns, rows;
	double cost[MOE_LP_COLUMNS];
	double row[MOE_LP_ROWS][MOE_LP_COLUMNS], limit[MOE_LP_ROWS];
	bool whole[MOE_LP_COLUMNS];
};
/* x[columns]; MOE_E_RANGE: there is none. */
typedef int moe_lp_solve(void *ctx, const struct moe_lp *p, double *x, struct moe_err *e);

enum moe_objective { MOE_MOST_THROUGHPUT, MOE_LEAST_LATENCY };
struct moe_search {
	enum moe_objective objective;
	double latency_bound;        /* seconds of a decode step at most; 0: none */
	int schedule;                /* an enum moe_schedule, or -1: any */
	bool runnable;               /* full variant: keys and values lie as the engine has them, whole on one level: where attention is
	                              * (resident, cgopipe, coalesced, flexgen-c), on the host (flexgen), on either (zero) */
	bool any_quant;              /* may choose quants by itself among `quant`s that the kernels have, bf16 to q4 */
	int64_t batch, micro_batch;  /* fixed; 0: free */
	int attention_on, ffn_on;    /* fixed levels; -1: free */
	int64_t max_batch;           /* 0: none but memory and 65536 */
	moe_lp_solve *solve;         /* makes shares of weights whole experts; NULL: they stay fractions */
	void *solve_ctx;
};
#define MOE_SEARCH_INIT {MOE_MOST_THROUGHPUT, 0, -1, false, false, 0, 0, -1, -1, 0, NULL, NULL}
struct moe_found {
	struct moe_execution execution;
	struct moe_prediction prediction;
	struct moe_quants quants;
	int64_t tried;               /* executions that were predicted */
};
/* The best policy.  paper: the authors' enumeration of micro-batches (1, 2, 3, 4, then by 32) and their number, and the
 * closed form of the resident share; full: see search.c for what is enumerated and which linear programs are solved.
 * The same question gets the same answer: of what is equally fast the wider quant, the smaller batch, the earlier schedule.
 * MOE_E_RANGE: nothing fits; the message has the numbers of the smallest setting and the smallest change that would fit
 * ("needs 93.1 GiB of host memory at batch 1, 62.0 available; q4 experts would fit"). */
int moe_search(const struct moe_setting *s, const struct moe_search *how, struct moe_found *out, struct moe_err *e);
/* The same from $XDG_CACHE_HOME/moe-tools (~/.cache/moe-tools) when it was asked before; else searches and keeps the answer
 * there.  *from_cache (may be NULL) tells which.  A cache that cannot be read or written is as none. */
int moe_search_cached(const struct moe_setting *s, const struct moe_search *how, struct moe_found *out, bool *from_cache,
                      struct moe_err *e);

/* What the best policy would gain if one number of the hardware were better. */
struct moe_lever {
	char name[40];               /* "gpu.memory", "link.cpu-gpu.bandwidth"; in a fleet "HOST:gpu.memory", "HOST:network.latency" */
	double factor;               /* 1.1 or 2; of a latency 1/1.1 or 1/2 */
	double tokens_per_second;    /* of the best policy then (MOE_LEAST_LATENCY: steps a second) */
	double gain;                 /* relative to `found`: 0.08 is 8 % more */
};
#define MOE_LEVERS 256
/* out[MOE_LEVERS]: memory, bandwidth and FLOP/s of every level, links, network, each better by a tenth (the best near `found`) and
 * doubled (the search redone where that may help), most gain first; *n of them.  s->quants are kept.  Of a fleet the first eight
 * hosts are changed, the placement is kept and answers are looked for near `found` only. */
int moe_search_sensitivity(const struct moe_setting *s, const struct moe_search *how, const struct moe_found *found,
                           struct moe_lever *out, int *n, struct moe_err *e);

/* ---- the simulator ---- */

/* Plays a graph by its rules (schedule.h): each task begins as soon as it may.  Time and memory in proportion to tasks and
 * dependencies. */
typedef double moe_task_seconds(void *ctx, const struct moe_task *t);
struct moe_timeline {
	double *begin, *end;         /* [graph.n] seconds */
	double makespan;
	double busy[MOE_LANES];      /* seconds; what is missing to the makespan is bubbles */
	double step_seconds;         /* of a step among others: the mean distance between the ends of steps, without the first and,
	                              * of three or more, the last; of a single step all of it */
};
/* MOE_E_INPUT: a duration that is no number or below 0; MOE_E_NOMEM. */
int moe_play(const struct moe_graph *g, moe_task_seconds *seconds, void *ctx, struct moe_timeline *out, struct moe_err *e);
/* Room for the tasks' begins and ends, to be filled by who knows them from elsewhere; and the rest from these. */
int moe_timeline_new(const struct moe_graph *g, struct moe_timeline *out, struct moe_err *e);
void moe_timeline_sum(const struct moe_graph *g, struct moe_timeline *t);
void moe_timeline_free(struct moe_timeline *t);
/* The graph of an execution's schedule for `steps` decode steps, or for the prefill of its batch (steps 1; more: that many
 * batches).  All of moe_predict's and moe_schedule_build's errors.  *g is the caller's to free. */
int moe_execution_graph(const struct moe_setting *s, const struct moe_execution *x, bool prefill, int steps, struct moe_graph *g,
                        struct moe_err *e);
/* How long the tasks of a graph take.  Durations are moe_predict's: every term of a layer's lane is shared out evenly over the tasks
 * that it is made of, so that in a layer tasks and prediction add up to the same on every lane.  (With hidden states that move
 * in prefill, the first layer fetches none and the last stores none.)  What copies take from the host's memory is part of what the
 * CPU computes; where it computes nothing, it is left out.  Paper variant: the paper's terms.
 * g: of that schedule and model; micro-batches, pages and steps may be others than moe_execution_graph's, and it may have no tasks
 * for pinning or for hidden states in prefill, which then take no time.  It is not needed afterwards.
 * MOE_E_UNSUPPORTED: the prediction has a term for which the graph has no task, such as a KV cache on disk. */
struct moe_durations;
int moe_durations_new(const struct moe_setting *s, const struct moe_execution *x, const struct moe_graph *g, struct moe_durations **out,
                      struct moe_err *e);
double moe_durations_seconds(void *durations, const struct moe_task *t); /* a moe_task_seconds; several threads may ask at once */
void moe_durations_free(struct moe_durations *d); /* NULL is fine */
/* All three: the graph, its durations, played.  Both *g and *out are the caller's to free. */
int moe_simulate(const struct moe_setting *s, const struct moe_execution *x, bool prefill, int steps, struct moe_graph *g,
                 struct moe_timeline *out, struct moe_err *e);
/* Chrome's trace format (chrome://tracing, Perfetto): one process, a thread per lane, times in microseconds; every task has
 * its step, layer, micro-batch and page. */
int moe_timeline_chrome(const struct moe_graph *g, const struct moe_timeline *t, struct moe_buf *out, struct moe_err *e);
/* A picture of seconds [from, to): lanes as rows, tasks coloured by kind, and the share of bubbles of each lane. */
int moe_timeline_svg(const struct moe_graph *g, const struct moe_timeline *t, double from, double to, const char *title,
                     struct moe_buf *out, struct moe_err *e);

/* ---- devices and placements ---- */

struct moe_device {
	char host[256];              /* "" or a name */
	char kind[16];               /* "cpu", later "cuda" */
	uint64_t memory;             /* bytes it may hold; 0: unknown, taken as enough */
	double speed;                /* relative; 1 */
	char quant[16], layout[16];  /* of its experts; quant "": as the checkpoint, layout "plain" or "packed" ("r64") */
};

/* layer x expert -> devices, the first of them the owner, the others replicas. */
struct moe_placement {
	int layers, devices;
	int *experts;                /* [layers]; 0 for a dense layer */
	int *start;                  /* [layers + 1] index of a layer's first expert in `list` */
	int *first;                  /* [total experts + 1] index into `device` */
	int *device;                 /* device ids, expert by expert */
};
void moe_placement_free(struct moe_placement *p);
int moe_placement_copy(const struct moe_placement *p, struct moe_placement *out, struct moe_err *e);
/* The devices of expert e of layer l; *n of them, at least one; NULL and 0 for an expert that does not exist. */
const int *moe_placement_of(const struct moe_placement *p, int layer, int expert, int *n);
bool moe_placement_holds(const struct moe_placement *p, int device, int layer, int expert);

/* From lists: map(ctx, layer, expert, ids[cap]) gives the number of devices.  Used by the placements below. */
typedef int moe_placement_map(void *ctx, int layer, int expert, int *ids, int cap);
int moe_placement_make(const struct moe_model *m, int devices, moe_placement_map *map, void *ctx,
                       struct moe_placement *out, struct moe_err *e);

/* Expert e of each layer to device (e + layer's rank among moe layers * experts) mod N: counts differ by at most one. */
int moe_place_round_robin(const struct moe_model *m, int devices, struct moe_placement *out, struct moe_err *e);
/* By bytes: largest first to the device with the fewest so far, each layer spread too.  bytes(ctx, layer, expert). */
typedef uint64_t moe_expert_bytes(void *ctx, int layer, int expert);
int moe_place_balanced(const struct moe_model *m, int devices, moe_expert_bytes *bytes, void *ctx,
                       struct moe_placement *out, struct moe_err *e);
/* In proportion to the devices' memory (largest remainders), layer by layer; MOE_E_RANGE with the numbers when it does not fit. */
int moe_place_capacity(const struct moe_model *m, const struct moe_device *devices, int n, moe_expert_bytes *bytes,
                       void *ctx, struct moe_placement *out, struct moe_err *e);
/* (max / mean) - 1 of bytes over devices. */
double moe_placement_imbalance(const struct moe_placement *p, moe_expert_bytes *bytes, void *ctx);
/* MOE_E_RANGE with the numbers when a device would hold more than its memory. */
int moe_placement_fits(const struct moe_placement *p, const struct moe_device *devices, moe_expert_bytes *bytes, void *ctx,
                       struct moe_err *e);

/* From JSON: a policy ("placement": [layer][expert] -> device or [devices]), or {"expert_to_ep_rank": [...]} (one list
 * for all layers, or one a layer).  Layers that are dense may be null or []. devices <= 0: the highest id + 1 (or the policy's list). */
int moe_placement_from_json(const struct moe_json *j, const char *what, const struct moe_model *m, int devices,
                            struct moe_placement *out, struct moe_err *e);
void moe_placement_write(const struct moe_placement *p, struct moe_jw *w); /* the JSON array */

/* ---- placing experts over unlike devices ---- */

/* Which experts tokens choose together: 2048 tokens a layer, picked so that each token of a trace has the same chance; its memory
 * does not grow with the trace. */
int moe_coactivation_read(const char *trace, const struct moe_model *m, struct moe_coactivation **out, struct moe_err *e);
/* By hand: tokens one by one, ids[n] of a layer with experts, at most its top_k; then done, and again after more. */
int moe_coactivation_new(const struct moe_model *m, struct moe_coactivation **out, struct moe_err *e);
void moe_coactivation_add(struct moe_coactivation *c, int layer, const int32_t *ids, int n);
int moe_coactivation_done(struct moe_coactivation *c, struct moe_err *e);
void moe_coactivation_free(struct moe_coactivation *c); /* NULL is fine */

/* An expert's load is the number of tokens that chose it, prefill and decode together; a layer that usage knows nothing of has 1
 * for each expert.  A layer costs its largest finishing time (load / speed), plus what moving and reaching devices cost. */
struct moe_place_problem {
	const struct moe_model *model;
	const struct moe_device *devices;   /* memory (0: enough), speed (0: 1), host: devices of one host are a node */
	int n;
	moe_expert_bytes *bytes;
	void *ctx;
	const struct moe_usage *usage;      /* NULL: every expert is used alike */
	int replicas;                       /* copies a layer beyond the first of each expert; -1: as many as pay (each lowers the largest
	                                       finishing time by a thousandth of the mean or more) and fit */
	int groups;                         /* expert groups a layer, consecutive and of equal size, each on one node; 0: none */
	const struct moe_placement *before; /* where experts lie now; NULL: nowhere */
	double move_cost;                   /* of a copy on a device that did not hold it, in tokens of load; 0: moves are free */
	const struct moe_coactivation *together; /* NULL: no matter */
	double together_weight;             /* tokens of load that one server fewer for a token is worth to the servers together: a layer
	                                       costs that much times visits / devices */
};
/* Every expert at least once, no device twice for one expert, no memory exceeded, the cost of each layer small.  A heuristic:
 * EPLB's packing generalised, then local search.  On equal devices with as many slots no device has more to do than under EPLB,
 * but where EPLB puts two copies of an expert on one device (tests/unit/plan_eplb.c); more memory or devices make a layer
 * seldom, and little, slower (tests/unit/plan_fleet.c).  The same problem gives the same placement.  A layer that finishes sooner
 * (by a thousandth) without some of its replicas, or cannot be packed with them, has fewer.  MOE_E_RANGE: does not fit, with the
 * numbers and the expert that fits nowhere; groups or replicas that cannot be. */
int moe_place_fleet(const struct moe_place_problem *p, struct moe_placement *out, struct moe_err *e);
/* "round-robin", "balanced", "capacity", "usage" (moe_place_fleet without groups), "hierarchical" (with p->groups, or as many groups
 * as hosts), else a file that moe_placement_from_json reads, for p->n devices.  What does not fit is refused, MOE_E_RANGE. */
int moe_place_named(const char *how, const struct moe_place_problem *p, struct moe_placement *out, struct moe_err *e);
bool moe_place_is_named(const char *how); /* one of those words */
/* How a layer's load lies over the devices when each copy of an expert takes an equal share of its load. */
struct moe_balance {
	double max, mean;                   /* of load / speed */
	double imbalance, balancedness;     /* max/mean - 1; mean/max */
	double servers;                     /* mean number of devices that a token reaches, where copies on a device that it reaches
	                                       anyway are taken; 0 without a coactivation */
};
/* A layer without experts is perfectly balanced. */
int moe_placement_balance(const struct moe_placement *p, const struct moe_place_problem *q, int layer, struct moe_balance *out,
                          struct moe_err *e);
/* A table: imbalance and balancedness of each layer, their means, the worst layer; appended to `out`. */
int moe_placement_balance_table(const struct moe_placement *p, const struct moe_place_problem *q, struct moe_buf *out,
                                struct moe_err *e);
/* Experts whose set of devices differs. */
int64_t moe_placement_moves(const struct moe_placement *before, const struct moe_placement *after);

/* For other engines, appended to `out`: "vllm" ({"expert_to_ep_rank": ...}: one copy an expert), "tensorrt-llm" (a load balancer's
 * YAML: as many copies on every device), "llama.cpp" (-ot options, one a line: whole layers, in proportion to what the devices hold),
 * "hosts" (HOST slots=N, as MPI and DeepSpeed have it), "slurm" (a host for each device).  MOE_E_UNSUPPORTED: the engine's format
 * cannot say it, and where. */
enum moe_export { MOE_EXPORT_VLLM, MOE_EXPORT_TENSORRT_LLM, MOE_EXPORT_LLAMA_CPP, MOE_EXPORT_HOSTS, MOE_EXPORT_SLURM };
bool moe_export_named(const char *name, enum moe_export *out); /* false: no such format */
int moe_placement_export(enum moe_export to, const struct moe_model *m, const struct moe_device *devices, int n,
                         const struct moe_placement *p, struct moe_buf *out, struct moe_err *e);

/* ---- usage and traces ---- */

#define MOE_USAGE_SCHEMA 1
#define MOE_TRACE_SCHEMA 1

/* How often each expert was used, moe-usage(5).  A count is a whole number; mass is the sum of the gate's weights. */
struct moe_usage {
	int layers;
	int *experts;                /* [layers]; 0 for a dense layer */
	double **prefill, **decode;  /* [layers][experts] tokens that chose the expert */
	double **mass;               /* [layers][experts] over both */
	char fingerprint[40];        /* of the weights that were run */
	char model[32];              /* model_type */
};
/* All zero.  moe_usage_free frees the contents. */
int moe_usage_new(const struct moe_model *m, const char *fingerprint, struct moe_usage *out, struct moe_err *e);
void moe_usage_free(struct moe_usage *u);
/* One token's choice in a layer: ids[k] within the layer's experts, weights[k].  Weights are rounded to multiples of 2^-24, so
 * that mass is a sum without rounding and does not depend on the order of tokens up to 2^29 of them an expert. */
void moe_usage_add(struct moe_usage *u, int layer, bool prefill, const int32_t *ids, const float *weights, int k);
int moe_usage_print(const struct moe_usage *u, struct moe_buf *out, struct moe_err *e);
int moe_usage_write(const struct moe_usage *u, const char *path, struct moe_err *e);
/* What was written, for the same model.  MOE_E_INPUT says what differs: the type of model, its layers, a layer's experts.  The
 * fingerprint is not compared: a quantised or a tuned model may be placed by the usage of another. */
int moe_usage_from_json(const struct moe_json *j, const char *what, const struct moe_model *m, struct moe_usage *out,
                        struct moe_err *e);
int moe_usage_read(const char *path, const struct moe_model *m, struct moe_usage *out, struct moe_err *e);

/* Which experts each token chose, moe-trace(5): a header, then a line for each (request, position, layer). */
struct moe_trace_header {
	int layers, experts, top_k;  /* experts and top_k: of the layer that has most */
	char fingerprint[40], model[32];
};
struct moe_trace_line {
	uint64_t request;            /* counted from 1 */
	int position, layer;
	bool prefill;
	int n;
	const int32_t *ids;          /* [n] ascending; a reader's is valid until the next call */
};

/* Nothing is seen at PATH before the commit.  The writer is ended by commit or drop (NULL is fine). */
struct moe_trace_writer;
int moe_trace_create(const char *path, const struct moe_model *m, const char *fingerprint, struct moe_trace_writer **out,
                     struct moe_err *e);
int moe_trace_put(struct moe_trace_writer *w, const struct moe_trace_line *l, struct moe_err *e);
int moe_trace_commit(struct moe_trace_writer *w, struct moe_err *e);
void moe_trace_drop(struct moe_trace_writer *w);

/* A reader, line by line, in memory that does not grow with the file; a pipe will do.  With a model (not NULL) the header must be
 * of it, as for moe_usage_from_json, and each line within its layer; without one, within the header.  Anything else is
 * MOE_E_INPUT with the line's number, a last line that is not whole too. */
struct moe_trace;
int moe_trace_open(const char *path, const struct moe_model *m, struct moe_trace **out, struct moe_err *e);
const struct moe_trace_header *moe_trace_header(const struct moe_trace *t);
/* *more: false at the end, and then *out is not filled. */
int moe_trace_next(struct moe_trace *t, struct moe_trace_line *out, bool *more, struct moe_err *e);
void moe_trace_close(struct moe_trace *t);

/* ---- caches of experts ---- */

/* What goes when room is needed, besides what the token at hand needs: what was not used for longest; what was used least, recent
 * uses counting more (uses / time since the last); what was not used for longest of those that had their grace. */
enum moe_cache { MOE_CACHE_LRU, MOE_CACHE_FREQUENCY, MOE_CACHE_GRACE, MOE_CACHES };
const char *moe_cache_name(enum moe_cache c); /* "lru", "frequency", "grace" */
bool moe_cache_named(const char *name, enum moe_cache *out);
struct moe_replay {
	enum moe_cache policy;
	int slots;                   /* experts a layer that the cache holds */
	bool global;                 /* one cache for all layers, as large as theirs together; else each has its own */
	int grace;                   /* MOE_CACHE_GRACE: tokens of its layer that an expert stays at least */
	bool prefill;                /* tokens of prompts count too; else generated ones only */
	uint64_t skip;               /* tokens of each layer that fill the cache before hits are counted */
};
struct moe_replay_result {
	int layers;
	double *hits, *accesses;     /* [layers] */
	double all_hits, all_accesses;
	double tokens;               /* counted */
	double bytes;                /* that misses moved; 0 without `bytes` */
};
/* What a cache would have done for a trace, which is read once.  model and bytes may be NULL. */
int moe_cache_replay(const char *trace, const struct moe_model *m, const struct moe_replay *how, moe_expert_bytes *bytes, void *ctx,
                     struct moe_replay_result *out, struct moe_err *e);
void moe_replay_result_free(struct moe_replay_result *r);

enum moe_advice { MOE_ADVISE_STATIC, MOE_ADVISE_CACHE, MOE_ADVISE_NEITHER };
const char *moe_advice_name(enum moe_advice a); /* "static", "cache", "neither" */
/* Shares of accesses that find their expert among so many slots a layer, on the second half of a trace. */
struct moe_verdict {
	double uniform;              /* any so many experts: slots / experts */
	double fixed;                /* those that were used most in the first half */
	double cache[MOE_CACHES];    /* warmed in the first half */
	enum moe_cache best;         /* of the caches */
	double tokens;               /* of the second half */
	enum moe_advice advice;
};
/* Is a static choice of experts worth it, or a cache?  Each must beat what is simpler by a tenth: a cache, when it leaves less than
 * 0.9 of the misses of `fixed` (which moves nothing) and of `uniform`; else a static choice, when it leaves less than 0.9 of the
 * misses of `uniform`; else neither.  how: slots, global, grace and prefill count.  The trace is read several times. */
int moe_cache_verdict(const char *trace, const struct moe_model *m, const struct moe_replay *how, struct moe_verdict *out,
                      struct moe_err *e);

/* ---- policy files ---- */

/* A hardware profile or fleet as devices: every host's cpu level, or gpus once they serve (moe-policy(5)).  Speed is the memory's
 * bandwidth over that of the first device that has one. */
int moe_devices_from_json(const struct moe_json *hardware, const char *what, struct moe_device **out, int *n, struct moe_err *e);

/* The same of a fleet that has been read. */
int moe_devices_from_fleet(const struct moe_fleet *f, struct moe_device **out, int *n, struct moe_err *e);

/* What policy.json says.  Parts that are NULL are left out of it. */
struct moe_policy {
	const struct moe_model *model;
	const char *model_name;
	const struct moe_fleet *fleet;          /* or */
	const struct moe_json *hardware;        /* as it was read, with what we do not know in it */
	const struct moe_setting *setting;      /* with the next two: workload, quants, the model's variant */
	const struct moe_execution *execution;
	const struct moe_prediction *prediction;
	const struct moe_device *devices;       /* [placement->devices] */
	const struct moe_placement *placement;
	const struct moe_json *before;          /* an earlier policy: its names that we do not know are kept */
};
/* policy.json, moe-policy(5): schema first, inputs echoed, the policy and what is expected of it, the placement. */
int moe_policy_write(const struct moe_policy *p, struct moe_buf *out, struct moe_err *e);
/* Does what moves lie in pinned memory for good, as the model counts it for this schedule ("pinned" of "policy")?  Else it goes through a
 * pinned relay. */
bool moe_schedule_pins(enum moe_schedule s);
/* The part "policy" of one: levels by their names in h, shares that add up.  MOE_E_MISSING: it has no such part. */
int moe_execution_from_json(const struct moe_json *policy, const char *what, const struct moe_hardware *h,
                            struct moe_execution *out, struct moe_err *e);
/* Read one back: devices and placement. *devices: caller frees. */
int moe_policy_from_json(const struct moe_json *j, const char *what, const struct moe_model *m, struct moe_device **devices,
                         struct moe_placement *out, struct moe_err *e);
int moe_policy_read(const char *path, const struct moe_model *m, struct moe_device **devices, struct moe_placement *out,
                    struct moe_err *e);

#endif
