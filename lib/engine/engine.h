/* The engine: many sequences decoded together over one model.
 *
 * submit / step / cancel, and a callback per event.  JSON Lines is one client, HTTP will be another.  Sequences of
 * different lengths run side by side without padding; they are admitted as KV memory and places allow and retire as
 * they end.  What a sequence yields does not depend on its company, the chunk size or the threads. */
#ifndef MOE_ENGINE_H
#define MOE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "checkpoint/checkpoint.h"
#include "compute/compute.h"
#include "schedule/schedule.h"
#include "text/text.h"

/* How a token is chosen from its logits.  p = softmax(logits / temperature) comes first; then the tokens, best first and
 * ties to the lowest id, are cut to top_k, of these to the fewest that hold top_p of their sum, of these to those with
 * p >= min_p * the best; one of what is left is drawn by its p.  The random number depends on (seed, position) only. */
struct moe_sampling {
	float temperature;           /* 0: greedy; ties to the lowest id */
	int top_k;                   /* 0: all */
	float top_p;                 /* 1: all */
	float min_p;                 /* 0: all; tokens below min_p * the best are dropped */
	uint64_t seed;
};
#define MOE_SAMPLING_GREEDY {0.0f, 0, 1.0f, 0.0f, 0}

enum moe_finish { MOE_FINISH_STOP, MOE_FINISH_LENGTH, MOE_FINISH_ERROR, MOE_FINISH_CANCELLED };
const char *moe_finish_name(enum moe_finish f);

enum moe_event_kind {
	MOE_EV_TOKEN,                /* one generated token: position, token, logprob.  An end-of-text token that ends a
	                              * request is no part of its output: it has no event and is not counted */
	MOE_EV_SCORE,                /* score requests: position, token = argmax, logprob of the prompt's token at position + 1
	                              * (not meaningful at the last position) */
	MOE_EV_DONE,                 /* last event of a request: finish, err */
};
struct moe_event {
	enum moe_event_kind kind;
	uint64_t id;                 /* as moe_engine_submit gave it */
	void *user;
	int position;
	int32_t token;
	float logprob;
	const float *logits;         /* [vocab] while the callback runs; NULL with DONE */
	enum moe_finish finish;
	int prompt_tokens, completion_tokens;
	int cached_tokens;           /* of the prompt's: not computed, found in the KV cache */
	uint64_t submitted, admitted; /* moe_now_ns(); admitted 0: it never was */
	bool degraded;               /* experts were left out of some row so far: what follows is not what the model says */
	const struct moe_err *err;   /* with MOE_FINISH_ERROR; a timeout is MOE_E_TIMEOUT */
};
/* Return 0 to go on; 1 to end this request here with MOE_FINISH_STOP (a stop string was seen).  Must not call the engine,
 * except moe_engine_submit and moe_engine_cancel.  One call at a time, while moe_engine_step runs; with offload in another thread
 * than the one that called it. */
typedef int moe_event_fn(void *ctx, const struct moe_event *ev);

struct moe_request {
	const int32_t *tokens;       /* copied */
	int n_tokens;                /* at least 1 */
	int max_tokens;              /* tokens to generate; 0: as many as the context (and the KV memory) holds */
	struct moe_sampling sampling;
	bool ignore_eos;
	bool score;                  /* no generation: one MOE_EV_SCORE per prompt position, in order, then MOE_FINISH_STOP */
	double timeout;              /* seconds from submission to the last token, waiting included; 0: none */
	int priority;                /* higher first; equal: in order of submission */
	void *user;
};

/* Whether a step's rows go through the layers in two halves, so that the attention of one is computed here while the experts
 * of the other are computed elsewhere.  The bits are the same.  AUTO: with experts that are concurrent (compute.h), when each
 * half still gives an expert enough rows (lib/engine/halves.c). */
enum moe_overlap { MOE_OVERLAP_AUTO, MOE_OVERLAP_ON, MOE_OVERLAP_OFF };

/* What really happened to a task of a schedule: moe_now_ns(), or simulated nanoseconds from 0.  Both are MOE_SPAN_NONE when it was left
 * out. */
#define MOE_SPAN_NONE UINT64_MAX
struct moe_span {
	uint64_t begin, end;
};
/* The executor in simulated time: what would happen if each task took as many seconds as this says (called by several threads at once), and
 * computed nothing.  spans[g->n] count from 0.  MOE_E_INPUT: a duration that is no number or below 0. */
int moe_graph_rehearse(const struct moe_graph *g, double (*seconds)(void *ctx, const struct moe_task *t), void *ctx, struct moe_span *spans,
                       struct moe_err *e);
/* The spans of a graph's tasks as a timeline (plan/plan.h) that begins with the first of them: how busy each lane was, and what can be
 * drawn.  Tasks that were left out take no time at its end.  moe_timeline_free. */
struct moe_timeline;
int moe_spans_timeline(const struct moe_graph *g, const struct moe_span *spans, struct moe_timeline *out, struct moe_err *e);
/* A model whose weights or KV cache do not all lie on the device that computes: sequences go through it in micro-batches, by a
 * schedule (schedule.h).  The answers are those of the plain decoder, bit by bit, whatever the schedule, micro-batches and shares. */
struct moe_offload {
	enum moe_schedule schedule;
	struct moe_backend *device;  /* what the schedule calls gpu; the engine's own backend is the cpu.  Of the same numerics */
	double weights;              /* share of the routed experts that stays on the device (moe_pager_config); everything else of
	                              * the model always does */
	bool kv_on_device;           /* zero, resident: the KV cache; cgopipe, coalesced, flexgen and flexgen-c have it on the host */
	bool attention_on_cpu, experts_on_cpu; /* resident only */
	bool pinned, from_disk;      /* what moves: as moe_pager_config says */
	int micro_batches;           /* most of them */
	int micro_batch;             /* most sequences in one; max_sequences is at most their product */
	int pages;                   /* a layer's weights move in so many; 0: as the schedule has it */
	int prefill_rows;            /* most rows of a micro-batch in a pass over whole prompts; 0: prompts go along with decode, a chunk
	                              * at a time */
	int steps;                   /* most decode steps between admissions; 0: 32 */
	/* After each graph: what ran and when; spans[g->n]; tasks are left out when everybody has ended.  May be NULL. */
	void (*on_graph)(void *ctx, const struct moe_graph *g, const struct moe_span *spans);
	void *ctx_graph;
};

struct moe_engine_config {
	const struct moe_offload *offload; /* NULL: all is computed by the engine's backend, and by the experts; copied */
	int max_sequences;           /* most sequences at once */
	int ctx;                     /* most positions of one sequence */
	enum moe_kv_type kv;         /* what keys and values are kept as */
	size_t kv_memory;            /* bytes for the KV cache; 0: max_sequences * ctx, if that fits */
	bool no_prefix_cache;        /* do not share the keys and values of prompts that begin alike */
	bool shed;                   /* refuse at once what is too much (MOE_E_OVERLOADED): */
	int max_waiting;             /* requests beyond so many that wait for a place: the last of the lowest priority gives way to one of a
	                              * higher; and one that, by the pace of the last steps, would take longer than its timeout */
	int chunk;                   /* most prompt rows a step takes (all sequences together) */
	enum moe_overlap overlap;    /* ON needs experts that take two batches at a time */
	double step_timeout;         /* seconds a layer's experts may take before the sequences that wait fail; 0: none */
	bool degrade;                /* rows may go on without experts that nobody can compute (moe_batch.degraded) */
	moe_event_fn *on_event;
	void *ctx_event;
};
struct moe_engine_stats {
	uint64_t steps, rows, generated;
	uint64_t halved;             /* steps that went in two halves */
	uint64_t graphs, prefill_graphs; /* with offload: that were run; of these over whole prompts */
	int running, waiting, most_running;
	uint64_t admitted_while_decoding;  /* admissions at a time when another sequence was generating */
	size_t kv_blocks, kv_blocks_used, kv_bytes; /* used: held by sequences */
	size_t kv_blocks_cached;     /* kept for prompts that may begin alike; given up when memory is wanted */
	uint64_t prefix_lookup_tokens; /* prompt tokens of requests that were looked up in the KV cache */
	uint64_t prefix_hit_tokens;  /* of these found there */
};

struct moe_engine;
/* What moe_engine_new would take, in bytes, without taking it: KV, buffers, in all. */
struct moe_engine_memory {
	size_t kv, buffers, total;   /* of the host's memory */
	size_t device, device_weights, device_slots, device_kv; /* with offload: in all; of it experts that stay and everything else of
	                              * the model; the two slots; KV */
	size_t pinned;               /* with offload: of `total` */
};
/* Most rows of one step: what moe_experts_local must be made for. */
int moe_engine_max_rows(const struct moe_engine_config *c);
/* tensors: base and experts; only looked at with offload, whose weights weigh what they weigh there (else NULL is fine).  MOE_E_RANGE: a
 * config that cannot be (no sequences, ctx beyond the model's positions ...). */
int moe_engine_plan(const struct moe_model *m, const struct moe_tensors *tensors, const struct moe_engine_config *c,
                    struct moe_engine_memory *out, struct moe_err *e);
/* model, tensors (base weights; with offload experts too), backend and experts stay the caller's and outlive the engine; with offload
 * so does the device, and x is not used and may be NULL.  MOE_E_NOMEM with the numbers (needed, available, what would fit) when it does
 * not fit. */
int moe_engine_new(const struct moe_model *m, const struct moe_tensors *base, struct moe_backend *b,
                   struct moe_experts *x, const struct moe_engine_config *c, struct moe_engine **out, struct moe_err *e);
void moe_engine_free(struct moe_engine *g);

/* Queue a request.  Refused at once: no tokens, a token id outside the vocabulary (MOE_E_RANGE), prompt (plus max_tokens)
 * longer than ctx or than the KV memory ever holds (MOE_E_RANGE, with the numbers), and what is shed (moe_engine_config).  *id counts
 * from 1. */
int moe_engine_submit(struct moe_engine *g, const struct moe_request *r, uint64_t *id, struct moe_err *e);
/* Ends with MOE_FINISH_CANCELLED at the next step, with offload the next step of the graph under way.  To be called between steps, or
 * from an event. */
void moe_engine_cancel(struct moe_engine *g, uint64_t id);
/* Run one step: admit, one pass of the model over a batch of rows, events.  *busy: whether anything is left to do.
 * A failure of some sequences is their event, not the step's; the step fails only when nothing can go on, and
 * then every running sequence has ended with that error.
 * With offload: admit, put the running sequences into micro-batches (micro_batches.h), one graph.  That is one pass over whole prompts,
 * or as many steps as the last of the sequences needs, but only until the first place comes free when others wait for one, and at
 * most offload->steps.  Events come as they happen; what ends in the middle leaves its place after the graph, which stops when all have
 * ended.  Cancellations and timeouts are seen in every step of the graph. */
int moe_engine_step(struct moe_engine *g, bool *busy, struct moe_err *e);
struct moe_engine_stats moe_engine_stats(const struct moe_engine *g);

/* How short memory is, for this process and others beside it.  HIGH: keys and values that no sequence needs, and places for them, are
 * given back to the system, now and at each further call, and what waits begins only when nothing runs.  SEVERE: nor is anything new
 * taken (MOE_E_OVERLOADED).  What runs goes on, and answers are the same.  To be called between steps. */
enum moe_pressure { MOE_PRESSURE_NONE, MOE_PRESSURE_HIGH, MOE_PRESSURE_SEVERE };
void moe_engine_press(struct moe_engine *g, enum moe_pressure p);

/* A row's choice in a layer. */
struct moe_routing {
	uint64_t id;                 /* of the request */
	int position, layer;
	bool prefill;                /* the position is one of the prompt's */
	int k;
	const int32_t *ids;          /* [k] ascending; valid while the callback runs */
	const float *weights;        /* [k] after the gate's normalisation */
};
/* Called for every (layer, row) whose experts were computed; for usage statistics and tests.  Positions found in the KV cache are
 * not computed. */
typedef void moe_route_fn(void *ctx, const struct moe_routing *r);
void moe_engine_on_route(struct moe_engine *g, moe_route_fn *fn, void *ctx);

/* Batches of experts that have rows of this request carry its id (moe_batch.trace), whoever else is in them. */
void moe_engine_trace(struct moe_engine *g, uint64_t id);

/* log(softmax(logits))[token], summed in double in index order. */
double moe_logprob(const float *logits, int vocab, int token);

/* ---- the text of a request ---- */

/* Gathers the tokens of one request into text, piece by piece, and ends it before the first stop string.  Text that may
 * be the beginning of a stop string is held back.  What comes out does not depend on how tokens cut the text: the stop
 * string that is complete first counts, the longest of those that end together. */
struct moe_text_out;
/* The tokenizer stays the caller's; stop[n_stop] is copied.  MOE_E_INPUT: an empty stop string. */
int moe_text_out_new(const struct moe_tokenizer *t, const char *const *stop, int n_stop, struct moe_text_out **out,
                     struct moe_err *e);
/* Append what is certain now to *out.  *stopped: a stop string is complete; nothing comes after that, and the event
 * callback may return 1. */
int moe_text_out_push(struct moe_text_out *o, int32_t token, struct moe_buf *out, bool *stopped, struct moe_err *e);
/* The request has ended: append what was held back. */
int moe_text_out_end(struct moe_text_out *o, struct moe_buf *out, bool *stopped, struct moe_err *e);
void moe_text_out_free(struct moe_text_out *o);

#endif
