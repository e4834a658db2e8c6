/* The pipeline: micro-batches of sequences through all layers by a schedule, on a device and the host. */
#ifndef MOE_ENGINE_PIPELINE_H
#define MOE_ENGINE_PIPELINE_H

#include "engine/executor.h"
#include "engine/private.h"
#include "pool/pool.h"

/* Sequences that go through the layers together.  While a graph runs the list stays as it is (one that ends has no more rows), no
 * blocks are taken, and positions grow by the rows that were computed only: what others have published meanwhile is skipped between
 * graphs. */
struct moe_micro_batch {
	struct moe_seq **seq;        /* [n] */
	int n;
	struct moe_pass pass;        /* the rows of the step at work; arrays are the pipeline's, for its most rows */
	/* the pipeline's own */
	int index, first_row;        /* where its rows stand in arrays of the whole batch */
};

/* Whose sequences they are.  Both are called in the thread of the lane that computes, never two at once. */
struct moe_pipeline_client {
	/* Build mb->pass: its rows in this step; none is fine.  Called after `speak` of the step before. */
	int (*next)(void *ctx, struct moe_micro_batch *mb, int step, struct moe_err *e);
	/* All layers are done: for the rows whose logits are wanted moe_pipeline_head and moe_pipeline_logits; sample; count positions. */
	int (*speak)(void *ctx, struct moe_micro_batch *mb, int step, struct moe_err *e);
	void *ctx;
};

struct moe_pipeline;
/* Most micro-batches of a graph, and most sequences in one: those of c->offload, but that `zero` has a single one of all sequences. */
int moe_pipeline_micro_batches(const struct moe_engine_config *c);
int moe_pipeline_sequences(const struct moe_engine_config *c);
/* Rows of a micro-batch in decode graphs: its sequences and c->chunk prompt rows, shared out over micro-batches. */
int moe_pipeline_rows(const struct moe_engine_config *c);
/* Whose memory the KV cache is in: the device's with resident, unless attention is on the CPU, and with zero if c->offload wants it. */
bool moe_pipeline_kv_on_device(const struct moe_offload *o);
/* And whose backend it is taken of: it is pinned where every step fetches it. */
struct moe_kv_place moe_pipeline_kv_place(const struct moe_offload *o, struct moe_backend *host);
/* KV positions (whole blocks of them) that the sequences of one micro-batch may come to together: what room for a KV cache on its way
 * is made for.  The engine keeps to it. */
int64_t moe_pipeline_positions(const struct moe_model *m, const struct moe_engine_config *c);
/* What it would take, in bytes, added to `out`: device, device_weights, device_slots, pinned, and the host's.  All but the KV cache,
 * which is the engine's. */
int moe_pipeline_plan(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c,
                      struct moe_engine_memory *out, struct moe_err *e);
/* MOE_E_NOMEM with the numbers (needed, available, what would fit) when the device, as it is now, has no room for pipeline and KV cache. */
int moe_pipeline_fits(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c, struct moe_err *e);
/* t: base and experts.  host: the engine's backend; kv: where the engine's KV cache lies (memory of the device if
 * moe_pipeline_kv_on_device, else of the host).  Refuses as moe_pipeline_fits does, the KV cache being
 * there already, before it takes anything. */
int moe_pipeline_open(const struct moe_model *m, const struct moe_tensors *t, struct moe_backend *host, struct moe_kv *kv,
                      const struct moe_engine_config *c, const struct moe_pipeline_client *client, struct moe_pipeline **out,
                      struct moe_err *e);
void moe_pipeline_close(struct moe_pipeline *p);
/* One graph: n micro-batches, `steps` steps.  prefill: over whole prompts, with attention on the device; every sequence begins at
 * position 0 and its prompt is one step's rows (steps 1).  When it fails, so have all sequences; but MOE_E_CANCELLED says no more than that
 * *stop, which may be set by next and speak, was seen true (executor.h): everybody has ended before the graph has. */
int moe_pipeline_run(struct moe_pipeline *p, struct moe_micro_batch *mb, int n, int steps, bool prefill, const _Atomic bool *stop,
                     struct moe_err *e);
/* Within speak: final norm and head of n rows of mb, counted from its first, at most MOE_LOGITS_ROWS; then row i of them, [vocab], valid
 * until the next call. */
int moe_pipeline_head(struct moe_pipeline *p, const struct moe_micro_batch *mb, const int32_t *rows, int n, struct moe_err *e);
int moe_pipeline_logits(struct moe_pipeline *p, int i, const float **logits, struct moe_err *e);
/* Called for every (layer, row) as moe_engine_on_route says. */
void moe_pipeline_on_route(struct moe_pipeline *p, moe_route_fn *fn, void *ctx);

#endif
