/* Compute: the backend interface, the expert interface, numerics ids.
 *
 * One struct of functions per kind of device; the CPU is the reference and always there.  All sums have one written
 * order (doc/numerics.md), so the bits of a result do not depend on rows in the batch, threads,
 * chunks, or where an expert lies.  Shapes are written [outermost, ..., innermost], row-major. */
#ifndef MOE_COMPUTE_H
#define MOE_COMPUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/team.h"
#include "checkpoint/checkpoint.h"
#include "tensor/tensor.h"

/* ---- numerics: what decides the bits besides the weights (those are the fingerprint's) ---- */

/* What matrices are multiplied with (doc/numerics.md):
 *   MOE_A_I8    those of a coded quant (q8 and below) with int8 in blocks, unquantised ones with f32
 *   MOE_A_F32   all with f32
 *   MOE_A_BF16  bf16 ones with bf16 (but for routers: f32_inputs), coded ones with int8, the others with f32 */
enum moe_activation { MOE_A_I8, MOE_A_F32, MOE_A_BF16, MOE_ACTIVATIONS };
enum moe_kv_type { MOE_KV_F32, MOE_KV_F16, MOE_KV_BF16, MOE_KV_Q8, MOE_KV_TYPES };
/* Hidden states between processes. */
enum moe_wire_type { MOE_WIRE_F32, MOE_WIRE_F16, MOE_WIRE_BF16, MOE_WIRE_TYPES };
/* "f32", "f16", "bf16". */
bool moe_wire_type_parse(const char *name, enum moe_wire_type *out);
enum moe_kind { MOE_KIND_CPU, MOE_KIND_CUDA, MOE_KINDS };
struct moe_numerics {
	enum moe_activation activation;
	enum moe_kv_type kv;
	enum moe_wire_type wire;
	enum moe_kind kind;          /* of the device that multiplies: the ids say "cpu" or "cuda" */
};
#define MOE_NUMERICS_INIT {MOE_A_I8, MOE_KV_F32, MOE_WIRE_F32, MOE_KIND_CPU}
#define MOE_NUMERICS_EXACT {MOE_A_F32, MOE_KV_F32, MOE_WIRE_F32, MOE_KIND_CPU}  /* --exact */

/* What --exact and --activations (i8, f32, bf16, or NULL) say: MOE_NUMERICS_INIT, or _EXACT, with these activations.
 * MOE_E_RANGE: no such type, or one that is not exact. */
int moe_numerics_choose(bool exact, const char *activations, struct moe_numerics *out, struct moe_err *e);

/* As text ("sum2 a=i8 kv=f32 wire=f32 cpu") and as its XXH3-64; the same for NULL as for MOE_NUMERICS_INIT. */
#define MOE_NUMERICS_TEXT 160
uint64_t moe_numerics_id(const struct moe_numerics *n, char text[MOE_NUMERICS_TEXT]);
/* The part that a server of experts has a share in, which handshakes compare: "sum2 a=i8 cpu".  The KV cache is the
 * decoder's alone, and the wire's type is said in every request. */
uint64_t moe_numerics_experts_id(const struct moe_numerics *n, char text[MOE_NUMERICS_TEXT]);

/* ---- the backend ---- */

/* Positions per KV block, and per step of the online softmax: attention is summed block by block at absolute
 * positions 0, 64, 128 ..., so how a prompt was cut or cached never shows. */
#define MOE_KV_BLOCK 64

/* A sequence's part of an attention call: `rows` query rows from row `row` on, at positions pos, pos+1, ... */
struct moe_attn_seq {
	int row, rows, pos;
	const int32_t *blocks;       /* block table: block i holds positions 64 i .. 64 i + 63 */
};
/* The KV store of one layer: per block K, kv_heads times [head_dim, MOE_KV_BLOCK], then V, kv_heads times [MOE_KV_BLOCK,
 * head_dim], of the given type (doc/numerics.md).  Of q8 these are int8 codes, and MOE_KV_BLOCK bf16 follow those of each
 * head: the scales of its positions. */
struct moe_kv_view {
	unsigned char *base;         /* block b starts at base + b * stride */
	size_t stride;               /* bytes between blocks */
	enum moe_kv_type type;
};
size_t moe_kv_element_bytes(enum moe_kv_type t);               /* of q8 the code's */
size_t moe_kv_vector_bytes(enum moe_kv_type t, int head_dim);  /* a position of one head, K or V, scale included */
const char *moe_kv_type_name(enum moe_kv_type t);              /* "f32", "f16", "bf16", "q8" */
bool moe_kv_type_parse(const char *name, enum moe_kv_type *out);

/* A run of `pairs` (row, expert) pairs that share one expert. */
struct moe_expert_group {
	struct moe_expert_weights w;
	int first, pairs;
};

/* A stream: an ordered queue of work on a device.  Streams run beside each other; NULL is one of its own.  Operations may be
 * under way when their function has returned; what goes wrong with one later is reported by the next sync of its stream
 * or event.  An operation reads what lies in the host's memory (ids, positions, sequences, groups and the other arrays of
 * int32; the weights of `experts`) before its function returns; data in float * and matrices are the device's, and so are all
 * results, those of the gate too.  The operations that compute have one caller at a time; memory, copies, streams and events may
 * be used by several threads at once, a stream's end and an event's by one. */
struct moe_stream_q;
/* A mark in a stream, passed when all work before it has ended. */
struct moe_mark;
struct moe_device_memory {
	size_t used, most, cap;      /* bytes: now, at most so far, and what there may be; cap 0: no limit is known */
};

/* The largest calls that are to come. */
struct moe_work {
	size_t rows, inputs;         /* of matrices: rows of x, widest row */
	size_t pairs, hidden;        /* of experts and FFNs: pairs, or rows; widest hidden state */
	size_t sequences, positions; /* of attention: in one call; of the longest */
	size_t heads, kv_heads, head_dim; /* the most of any layer; kv_heads the fewest */
};

struct moe_backend;
struct moe_backend_ops {
	const char *name;            /* "cpu", "cuda" */
	bool host_memory;            /* alloc gives memory of the host, which needs no copies */
	void (*close)(struct moe_backend *b);

	/* memory of the device; host pointers for the CPU.  MOE_E_NOMEM with the numbers when it would pass the cap.  The cap counts the
	 * bytes that were asked for. */
	int (*alloc)(struct moe_backend *b, size_t bytes, void **mem, struct moe_err *e);  /* zeroed, 64-aligned */
	void (*release)(struct moe_backend *b, void *mem);
	void (*memory)(struct moe_backend *b, struct moe_device_memory *out);
	/* Memory that operations take for themselves, at most, with calls of these sizes on one stream: quantised rows, parts of
	 * attention.  It counts against the cap like alloc's, so a plan leaves room for it.  NULL: none. */
	size_t (*work_bytes)(const struct moe_backend *b, const struct moe_work *w);
	/* memory of the host that copies go to and from without another copy in between */
	int (*alloc_pinned)(struct moe_backend *b, size_t bytes, void **host, struct moe_err *e); /* zeroed, 64-aligned */
	void (*release_pinned)(struct moe_backend *b, void *host);

	int (*stream_open)(struct moe_backend *b, struct moe_stream_q **q, struct moe_err *e);
	void (*stream_close)(struct moe_backend *b, struct moe_stream_q *q); /* waits for its work; NULL is fine */
	int (*event_open)(struct moe_backend *b, struct moe_mark **ev, struct moe_err *e);
	void (*event_close)(struct moe_backend *b, struct moe_mark *ev);    /* NULL is fine */
	/* Put the mark behind what is on q now; an event may be recorded again once it has been passed. */
	int (*event_record)(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e);
	/* What is put on q from now on begins after the mark (of another stream).  Does not wait. */
	int (*event_wait)(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e);
	int (*event_sync)(struct moe_backend *b, struct moe_mark *ev, struct moe_err *e);   /* wait here */
	/* When an event that has been passed was passed, as moe_now_ns() counts. */
	int (*event_time)(struct moe_backend *b, struct moe_mark *ev, uint64_t *ns, struct moe_err *e);

	/* Copies.  The host's memory is left alone until the stream has been waited for; one that is not pinned may make the call wait. */
	int (*copy_in)(struct moe_backend *b, struct moe_stream_q *q, void *mem, const void *host, size_t bytes, struct moe_err *e);
	int (*copy_out)(struct moe_backend *b, struct moe_stream_q *q, void *host, const void *mem, size_t bytes, struct moe_err *e);
	int (*sync)(struct moe_backend *b, struct moe_stream_q *q, struct moe_err *e);     /* wait; reports errors of work queued */

	/* y[rows, W.rows] = x[rows, W.cols] W^T (+ bias[W.rows], or NULL).  y and x do not overlap. */
	int (*matmul)(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
	              const struct moe_matrix *w, const float *bias, struct moe_err *e);
	/* y[rows, W.cols] = rows ids[i] of W, as f32. */
	int (*embed)(struct moe_backend *b, struct moe_stream_q *q, float *y, const int32_t *ids, int rows,
	             const struct moe_matrix *w, struct moe_err *e);
	/* y = x / sqrt(mean(x^2) + eps) * weight over each of `rows` vectors of n; x may be y. */
	int (*rmsnorm)(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows, int n,
	               const float *weight, float eps, struct moe_err *e);
	/* Rotate x[rows, heads, head_dim] in place; row i stands at positions[i]. */
	int (*rope)(struct moe_backend *b, struct moe_stream_q *q, float *x, const int32_t *positions, int rows, int heads,
	            int head_dim, const struct moe_rope *rope, struct moe_err *e);
	/* Clamp x[0..n) to [-limit, limit]. */
	int (*clamp)(struct moe_backend *b, struct moe_stream_q *q, float *x, size_t n, float limit, struct moe_err *e);
	/* Store the rows' keys and values k, v [rows, kv_heads, head_dim] at the sequences' positions. */
	int (*kv_store)(struct moe_backend *b, struct moe_stream_q *q, struct moe_kv_view kv, const float *k, const float *v,
	                const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a, struct moe_err *e);
	/* out, query [rows, heads, head_dim]; each query sees positions max(0, p-window+1) .. p of its sequence. */
	int (*attention)(struct moe_backend *b, struct moe_stream_q *q, float *out, const float *query, struct moe_kv_view kv,
	                 const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a, struct moe_err *e);
	/* logits[rows, experts] -> the k highest as ids[rows, k] in ascending id order, ties to the lowest id, and
	 * their weights[rows, k] after the gate's normalisation. */
	int (*gate)(struct moe_backend *b, struct moe_stream_q *q, const float *logits, int rows, int experts,
	            const struct moe_gate *g, int32_t *ids, float *weights, struct moe_err *e);
	/* y[rows, H] = down(act(gate x) * up x) for one dense or shared FFN.  scratch: at least rows * I floats. */
	int (*ffn)(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
	           const struct moe_expert_weights *w, enum moe_act act, float *scratch, struct moe_err *e);
	/* Many experts at once.  Pair p = (expert w[group[p]], row of x): groups are runs of pairs with one expert.
	 * y[p, H] = weight[p] * expert(x[x_row[p]]), the product rounded to f32.  scratch: pairs * I floats. */
	int (*experts)(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x,
	               const struct moe_expert_group *groups, int n_groups, const int32_t *x_row, const float *weight,
	               enum moe_act act, float *scratch, struct moe_err *e);
	/* y[i, H] = sum over j = 0..k-1, in that order, of parts[slot[i, j], H]: the first is taken, the others are added. */
	int (*combine)(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *parts, const int32_t *slot,
	               int rows, int k, int n, struct moe_err *e);
	/* x += y over n floats. */
	int (*add)(struct moe_backend *b, struct moe_stream_q *q, float *x, const float *y, size_t n, struct moe_err *e);
	/* y[rows, n] *= sigmoid(s[rows]), row by row. */
	int (*sigmoid_scale)(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *s, int rows, int n,
	                     struct moe_err *e);
};
struct moe_backend {
	const struct moe_backend_ops *ops;
	/* the implementation's own fields follow */
};

/* The CPU backend.  The team stays the caller's and must outlive it.  Kernels of the widest instruction set this CPU
 * has; MOE_CPU=avx512bf16|avx512vnni|avx2|neon|base|... in the environment forces one (MOE_E_UNSUPPORTED if the CPU lacks it).
 * All give the same bits for the same `n` (copied; NULL: MOE_NUMERICS_INIT). */
int moe_backend_cpu(struct moe_team *team, const struct moe_numerics *n, struct moe_backend **out, struct moe_err *e);
const char *moe_backend_cpu_isa(const struct moe_backend *b); /* "avx512bf16" */

/* ---- devices: backends whose memory is apart from the decoder's ---- */

struct moe_device_config {
	const char *device;          /* "cpu", "cuda", "cuda:N", or "auto": the first GPU, else the CPU */
	size_t memory;               /* most that alloc gives, to imitate a smaller device; 0: all it has (cpu: no limit) */
	double link_bandwidth;       /* bytes/s of copies each way, kept by waiting, cpu only; 0: as fast as it goes */
	int threads;                 /* of a cpu device; 0: all cores */
	struct moe_numerics numerics;
};
/* The CPU as a device has an arena of its own for memory, a thread for each stream and a rate for its link, so that all that moves between
 * host and device really does, on any machine.  Its operations compute in the thread that calls them, once the stream
 * has done what is before them; its team is its own.  MOE_E_RANGE: no device's name; MOE_E_UNSUPPORTED: built without CUDA, or no such
 * GPU here, or one that lacks what the numerics need. */
int moe_device_open(const struct moe_device_config *c, struct moe_backend **out, struct moe_err *e);
/* GPUs of this host; 0 too when built without CUDA. */
int moe_device_gpus(void);
/* Is it the form of a device's name?  MOE_E_RANGE, in the words of --device: no. */
int moe_device_check(const char *device, struct moe_err *e);
/* The kind of products on that device (any but "auto") in a numerics id: MOE_KIND_CUDA where their bits are not the CPU's. */
enum moe_kind moe_device_kind(const char *device, enum moe_activation a);
/* "cpu (avx512vnni, 2 threads, 512.0 MiB, 2.0 GiB/s)", "cuda:0 (NVIDIA H200, sm_90, 16.0 GiB of 139.8)"; also for a plain CPU backend.  Returns buf. */
#define MOE_DEVICE_TEXT 160
const char *moe_device_text(struct moe_backend *b, char buf[MOE_DEVICE_TEXT]);

/* ---- what matrices are multiplied with ---- */

/* From now on b adds up the squares of the inputs that its matrices meet in matmul, ffn and experts: the measure of
 * which columns matter when a matrix is quantised.  Results do not change; the work is done about twice.  One caller at
 * a time; MOE_E_UNSUPPORTED for a backend whose memory is not the host's.  moe_recorder_stop, before b is closed, ends it and frees. */
struct moe_recorder;
int moe_recorder_start(struct moe_backend *b, struct moe_recorder **out, struct moe_err *e);
void moe_recorder_stop(struct moe_recorder *r);
/* Of the matrix whose data begin there, over all inputs so far; NULL: none.  Valid until the recorder stops. */
struct moe_input_squares {
	const double *sums;          /* [cols] of x^2 */
	int64_t cols;
	uint64_t rows;               /* inputs */
};
const struct moe_input_squares *moe_recorder_find(const struct moe_recorder *r, const void *data);

/* ---- experts, wherever they are ---- */

/* One layer's batch.  The caller owns all arrays and leaves them alone until the ticket is done. */
struct moe_batch {
	int layer, rows, k;
	const float *x;              /* [rows, H] */
	const int32_t *ids;          /* [rows, k] ascending in each row */
	const float *weights;        /* [rows, k] */
	float *y;                    /* [rows, H]: sum over the row's experts, ascending, of weight * expert(x) */
	uint8_t *failed;             /* [rows] set to 1 for rows that could not be computed (their y is undefined), else 0 */
	uint8_t *degraded;           /* [rows] set to 1 for rows of which experts were left out, else not touched; or NULL: then none may be */
	uint64_t deadline;           /* moe_now_ns() by which it must be done; 0: none */
	uint64_t trace;              /* request id for traces */
	int priority;
};

struct moe_experts;
struct moe_experts_ops {
	/* Batches are computed elsewhere while the caller does other work: it may be worth having two under way. */
	bool concurrent;
	/* Begin a batch.  Several may be in flight if the implementation says so by accepting them (else MOE_E_BUSY). */
	int (*submit)(struct moe_experts *x, const struct moe_batch *b, uint64_t *ticket, struct moe_err *e);
	/* 0: done; MOE_E_BUSY: not yet.  Otherwise as wait. */
	int (*poll)(struct moe_experts *x, uint64_t ticket, struct moe_err *e);
	/* 0 when every row was computed.  Otherwise the ticket is done too, `failed` says which rows, and the return
	 * value and e say why (the first reason). */
	int (*wait)(struct moe_experts *x, uint64_t ticket, struct moe_err *e);
	/* Forget a batch: when this returns its arrays are no longer touched. */
	void (*cancel)(struct moe_experts *x, uint64_t ticket);
	void (*close)(struct moe_experts *x);
};
struct moe_experts {
	const struct moe_experts_ops *ops;
	/* the implementation's own fields follow */
};

/* A batch's pairs (row, expert) sorted by expert, so that each expert's weights are read once for all its rows. */
struct moe_sorted_pairs {
	struct moe_expert_group *groups; /* [n_groups], ascending experts; room for all */
	int n_groups, experts;
	int32_t *count;              /* [experts] to work in */
	int32_t *x_row, *slot;       /* [pairs]: a sorted pair's row; [rows, k]: where the row's pairs went, for combine */
	float *weight;               /* [pairs] */
};
/* The host's memory that it takes; false: that overflows.  moe_sorted_pairs_free frees. */
bool moe_sorted_pairs_bytes(int experts, int pairs, size_t *bytes);
int moe_sorted_pairs_new(struct moe_sorted_pairs *s, int experts, int pairs, struct moe_err *e);
void moe_sorted_pairs_free(struct moe_sorted_pairs *s);
/* ids, weights [rows, k], ids below the w[experts] that there are.  Rows with skip[row] set have no pairs; NULL: all have. */
void moe_sort_pairs(struct moe_sorted_pairs *s, const int32_t *ids, const float *weights, int rows, int k, const uint8_t *skip,
                    const struct moe_expert_weights *w);

/* Can it be computed: a layer with experts, no more rows or experts a row than there may be, ids that there are?  Else MOE_E_RANGE. */
int moe_batch_check(const struct moe_model *m, int max_rows, const struct moe_batch *b, struct moe_err *e);
int moe_batch_check_layer(const struct moe_model *m, int max_rows, int layer, int rows, struct moe_err *e);
/* MOE_E_TIMEOUT, all rows failed: its deadline has passed already. */
int moe_batch_late(const struct moe_batch *b, struct moe_err *e);

/* Tickets of who computes one batch after the other: only of failed ones something is kept, until it is asked for. */
#define MOE_TICKET_FAILURES 16
struct moe_tickets {
	uint64_t given;              /* so far */
	struct moe_ticket_failure {
		uint64_t ticket;         /* 0: free */
		struct moe_err why;
	} failures[MOE_TICKET_FAILURES];
};
/* MOE_E_BUSY: there is no room for one more failure. */
int moe_tickets_give(struct moe_tickets *t, uint64_t *ticket, struct moe_err *e);
void moe_tickets_fail(struct moe_tickets *t, uint64_t ticket, const struct moe_err *why);
/* How a batch that has been computed went: what `wait` returns.  MOE_E_RANGE: no such ticket. */
int moe_tickets_take(struct moe_tickets *t, uint64_t ticket, struct moe_err *e);
void moe_tickets_forget(struct moe_tickets *t, uint64_t ticket);

/* Experts computed here by a backend, from tensors that stay the caller's.  has[layer * max_experts + expert] says which are
 * to be bound (NULL: all); an expert that is not held fails the rows that need it.  max_rows: most rows of a batch.  If the
 * backend's memory is not the host's, weights are copied there now and rows of batches when they are computed; MOE_E_NOMEM, before
 * anything is copied, says with numbers what does not fit. */
int moe_experts_local(struct moe_backend *b, const struct moe_tensors *s, const struct moe_model *m, const uint8_t *has,
                      int max_rows, struct moe_experts **out, struct moe_err *e);
/* The same beside others of the same backend and model, whose weights it shares in the device's memory: those that keep[layer * max_experts +
 * expert] names, and that `experts` (moe_experts_local) has, are not copied there again, and stay until both are closed.  On the host
 * weights are shared where tensors are. */
struct moe_sharing {
	const struct moe_experts *experts; /* not closed before the call returns */
	const uint8_t *keep;
};
int moe_experts_local_beside(struct moe_backend *b, const struct moe_tensors *s, const struct moe_model *m, const uint8_t *has,
                             int max_rows, const struct moe_sharing *with, struct moe_experts **out, struct moe_err *e);
/* Memory that moe_experts_local takes for a batch of max_rows. */
size_t moe_experts_local_bytes(const struct moe_model *m, int max_rows);

/* The same for a server: y[p, H] of given (expert, row, weight) pairs, not summed up.  pairs are sorted by expert. */
struct moe_pairs {
	int layer, rows, n;
	const float *x;              /* [rows, H] */
	const int32_t *expert;       /* [n] ascending */
	const int32_t *row;          /* [n] row of x */
	const float *weight;         /* [n] */
	float *y;                    /* [n, H] */
};
int moe_experts_local_pairs(struct moe_experts *local, const struct moe_pairs *p, struct moe_err *e);

/* ---- probes ---- */

/* What an expert makes of one fixed row, as a number: XXH3-64 of the bits of y[H], little-endian f32, of x[i] =
 * floor((2654435761 (i + 1) mod 2^32) / 2^8) / 2^23 - 1 with weight 1 (moe-shards(5)).  A pure function of the weights and the numerics of b, whose memory must be
 * the host's; one caller at a time.  MOE_E_INPUT: a number in y is not finite. */
int moe_probe_expert(struct moe_backend *b, const struct moe_model *m, int layer, const struct moe_expert_weights *w, uint64_t *out,
                     struct moe_err *e);

/* Elementary functions with the same bits on every machine (polynomials in explicit fma, no libm). */
float moe_expf(float x);
void moe_sincos(double x, double *s, double *c);     /* |x| up to 2^31 */

#endif
