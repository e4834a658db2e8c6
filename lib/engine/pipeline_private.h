/* Inside the pipeline: what follows from the schedule, memory, and what its tasks share.
 *
 * Buffers are those of schedule.h, by the same numbers: a graph's dependencies keep every one of them from being overwritten while it is
 * in use only if tasks touch what they are said to touch.  What is not named there (scratch) belongs to the lane that computes. */
#ifndef MOE_ENGINE_PIPELINE_PRIVATE_H
#define MOE_ENGINE_PIPELINE_PRIVATE_H

#include "engine/pipeline.h"

/* ---- pipeline_memory.c: what the schedule asks for ---- */

struct moe_pipeline_form {
	enum moe_schedule schedule;
	bool all_cpu;                /* resident, everything on the CPU: there is no device */
	bool attention_on_cpu;       /* in decode */
	bool experts_on_cpu;         /* and the rest on the device */
	bool kv_on_device;
	bool kv_fetched;             /* decode: the KV cache is on its way to the device and back */
	bool kv_stored;              /* prefill: K and V leave for the host */
	bool hidden_moves;           /* prefill of more than two micro-batches: residuals rest on the host */
	bool coalesced;              /* decode: a layer's experts run once */
	bool weights_move;
	int micro_batches, sequences; /* most; most in one */
	int rows, prefill_rows, most_rows; /* of one micro-batch */
	int choice_rows;             /* whose normed rows and experts are kept until they are computed */
	int expert_rows;             /* that go through the FFN at a time */
	int logits_rows, pages;
	int kv_blocks;               /* that a micro-batch may have on the device, on their way */
};

/* Memory of the backend that computes.  Rows of [..] are counted over all micro-batches or turns that have some of their own. */
struct moe_pipeline_device {
	float *x;                    /* residual */
	float *h;                    /* [choice_rows, H] normed */
	float *q, *k, *v;            /* by micro-batch, in prefill by parity of the turn */
	float *mixed;                /* what attention gave: by micro-batch where it comes from the CPU */
	float *back;                 /* by micro-batch: rows from experts on the CPU */
	float *gate, *weight;        /* [most_rows, E], [most_rows, K] */
	int32_t *choice;             /* [most_rows, K] */
	float *y, *z, *inner, *switches; /* [expert_rows, ..]: routed or dense output, shared expert's */
	float *parts, *scratch;      /* [expert_rows * K, ..] of routed experts on the device */
	float *logits;               /* [logits_rows, V] */
	unsigned char *kv[2];        /* [kv_blocks] of one layer, by parity of the turn */
};
/* Pinned memory of the host. */
struct moe_pipeline_pinned {
	float *q, *k, *v, *mixed;    /* by micro-batch: for attention on the CPU */
	float *home;                 /* by micro-batch: residuals */
	float *rows_out, *rows_done; /* by micro-batch: for experts on the CPU */
	float *new_k, *new_v;        /* [rows, ..] of one micro-batch, on their way to the KV cache */
	int32_t *choice;             /* [choice_rows, K] */
	float *weight;
	float *logits;               /* [V] */
};

/* What the KV cache on its way needs to know of a micro-batch.  A graph fetches ahead of the step that computes, so nothing here is read
 * from sequences while the graph runs, and what a step changes is there twice, by parity of the step. */
struct moe_micro_kv {
	int32_t *blocks;             /* [kv_blocks] where they lie in the cache; all of a sequence, then the next one's */
	int32_t *first;              /* [sequences] where a sequence's begin, here and in the device's memory */
	int32_t *have[2];            /* [sequences] positions in the cache after a step */
	struct moe_attn_seq *here;   /* [sequences] the pass's, with tables of the blocks on the device */
	struct moe_attn_seq *home[2]; /* [sequences] the pass's, with tables of the cache's blocks */
	int n_home[2];
};
/* Everything else on the host. */
struct moe_pipeline_host {
	struct moe_micro_kv *kv;     /* [micro_batches] */
	int32_t *identity;           /* [kv_blocks] table of the blocks on the device: 0, 1, 2 ... */
	struct moe_pass *pass;       /* [micro_batches] arrays for micro-batches' passes */
	struct moe_expert_weights *experts; /* [layers, experts] in the tensors' memory, where the CPU computes them */
	float *parts, *scratch;      /* the same as the device's, where the CPU computes experts and the device the rest */
};

struct moe_pipeline_sizes {
	struct moe_pipeline_form form;
	struct moe_pager_sizes pager;
	size_t vectors, base;        /* bytes; of the device, unless all is on the CPU */
	size_t device, kv;           /* its buffers; of them for a KV cache on its way */
	size_t work;                 /* what its operations take for themselves */
	size_t pinned, host;
};
int moe_pipeline_sizes(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c,
                       struct moe_pipeline_sizes *out, struct moe_err *e);
struct moe_pager_config moe_pipeline_pager(const struct moe_engine_config *c, const struct moe_pipeline_form *f);
/* pipeline_fit.c: MOE_E_NOMEM with the numbers when the device has no room for it beside what is taken already; kv_taken: the KV cache is. */
int moe_pipeline_refuse(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c,
                        const struct moe_pipeline_sizes *s, bool kv_taken, struct moe_err *e);

void moe_pipeline_place_device(struct moe_pipeline_device *d, const struct moe_model *m, const struct moe_pipeline_form *f,
                               enum moe_kv_type t, size_t *kv_bytes, struct moe_carve *c);
void moe_pipeline_place_pinned(struct moe_pipeline_pinned *d, const struct moe_model *m, const struct moe_pipeline_form *f,
                               struct moe_carve *c);
void moe_pipeline_place_host(struct moe_pipeline_host *d, const struct moe_model *m, const struct moe_pipeline_form *f,
                             struct moe_carve *c);

/* ---- pipeline_weights.c: everything but routed experts, on the device ---- */

/* Give every matrix of w its place; measures when c->base is NULL. */
void moe_base_place(struct moe_base_weights *w, const struct moe_model *m, struct moe_carve *c);
/* Copy the host's matrices to those places. */
int moe_base_fill(struct moe_base_weights *to, const struct moe_base_weights *from, const struct moe_model *m,
                  struct moe_backend *b, struct moe_err *e);

/* ---- a graph at work ---- */

/* Where a task's micro-batch is. */
struct moe_spot {
	const struct moe_task *t;
	struct moe_stream_q *q;
	struct moe_micro_batch *mb;
	int64_t pass, turn;          /* as schedule.h counts them */
	size_t own;                  /* first row where micro-batches have rows of their own */
	size_t choice;               /* first row in what is kept until experts are computed */
	int rows;
	float *x, *h;                /* residual, normed: its rows */
	struct moe_heads heads;
	float *mixed;
};

struct moe_pipeline {
	const struct moe_model *m;
	const struct moe_tensors *tensors;
	struct moe_backend *b, *host_backend; /* b: computes what is no attention or experts on the CPU */
	struct moe_stream_q *streams[MOE_LANES];
	struct moe_executor *executor;
	struct moe_pager *pager;     /* NULL: experts are the CPU's */
	struct moe_pipeline_form form;
	struct moe_widths widths;
	struct moe_pipeline_client client;
	struct moe_offload offload;
	struct moe_kv *kv;
	struct moe_base_weights w;   /* where b has them */
	struct moe_vectors vectors;
	struct moe_pipeline_device dev;
	struct moe_pipeline_pinned pinned;
	struct moe_pipeline_host host;
	struct moe_sorted_pairs sorted;
	void *weight_memory, *vector_memory, *device_memory, *pinned_memory, *host_memory;
	moe_route_fn *on_route;
	void *ctx_route;

	/* the run */
	struct moe_graph graphs[2];  /* the last of decode, and of prefill */
	struct moe_span *spans;      /* [n_spans] */
	uint32_t n_spans;
	const struct moe_schedule_shape *s;
	struct moe_micro_batch *mb;
	int n;
	int capacity;                /* most rows of a micro-batch in this graph */
	struct moe_spot speaker;     /* the micro-batch that speaks */
};

/* ---- pipeline_tasks.c: moe_executor_config's run ---- */

int moe_pipeline_task(void *ctx, const struct moe_task *t, struct moe_stream_q *q, struct moe_err *e);
struct moe_layer_on moe_pipeline_layer(const struct moe_pipeline *p, struct moe_stream_q *q, int layer);
/* [experts] of the task's layer, where they are computed. */
const struct moe_expert_weights *moe_pipeline_experts(const struct moe_pipeline *p, const struct moe_spot *at);

/* ---- pipeline_experts.c ---- */

/* Who computes, and room for expert_rows * k pairs. */
struct moe_expert_work {
	struct moe_backend *b;
	struct moe_stream_q *q;
	struct moe_sorted_pairs *sorted;
	float *parts, *scratch;
};
struct moe_expert_rows {
	const float *x;              /* [rows, hidden] */
	float *y;
	const int32_t *ids;          /* [rows, k], the host's, and so are weights */
	const float *weights;
	const struct moe_expert_weights *experts;
	enum moe_act act;
	int rows, k, hidden;
};
int moe_rows_of_experts(const struct moe_expert_work *w, const struct moe_expert_rows *r, struct moe_err *e);
/* x[rows, H] += FFN of the normed rows from number `choice` on. */
int moe_pipeline_ffn(struct moe_pipeline *p, const struct moe_spot *at, float *x, size_t choice, int rows, struct moe_err *e);
/* Of the rows that were copied to the host; their results. */
int moe_pipeline_cpu_experts(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e);
/* Add what came back for the layer before. */
int moe_pipeline_take_back(struct moe_pipeline *p, const struct moe_spot *at, int layer, struct moe_err *e);

/* ---- pipeline_kv.c ---- */

/* Take down where the sequences' blocks are; a step's rows are known. */
int moe_pipeline_kv_begin(struct moe_pipeline *p, struct moe_err *e);
int moe_pipeline_kv_step(struct moe_pipeline *p, const struct moe_micro_batch *mb, int step, struct moe_err *e);
/* The turn's blocks on the device, which tables of struct moe_micro_kv.here are for. */
struct moe_kv_view moe_pipeline_kv_here(const struct moe_pipeline *p, int layer, int64_t turn);
int moe_pipeline_kv_load(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e);
int moe_pipeline_kv_store(struct moe_pipeline *p, const struct moe_spot *at, struct moe_err *e);

#endif
