/* Inside the engine: sequences, the KV store, the decoder and its memory. */
#ifndef MOE_ENGINE_PRIVATE_H
#define MOE_ENGINE_PRIVATE_H

#include "engine/engine.h"

/* Hand an error on.  For functions that hold nothing they would have to let go of. */
#define TRY(call)                        \
	do {                             \
		int try_rc_ = (call);    \
		if (try_rc_ != 0)        \
			return try_rc_;  \
	} while (0)

/* ---- seq.c: one request and how far it is ---- */

struct moe_seq {
	uint64_t id;
	void *user;
	struct moe_sampling sampling;
	bool ignore_eos, score, cancelled;
	bool said_goodbye;           /* its last event is sent */
	int priority;
	double timeout;
	uint64_t deadline;           /* moe_now_ns(); 0: none */
	uint64_t submitted, admitted; /* moe_now_ns(); admitted 0: it waits */

	int32_t *prompt;             /* [n_prompt] */
	int n_prompt, max_tokens;
	int n_done;                  /* positions whose keys and values are in the KV store, or (turns.c) on their way there */
	int n_stored;                /* of these those that surely are there */
	int32_t *made;               /* [n_made] tokens generated; made[i] is the input of position n_prompt + i */
	int n_made, made_room;

	int32_t *blocks;             /* [n_blocks], reserved from admission to the end; full ones may be shared */
	int n_blocks;
	bool holds_blocks;
	int n_cached;                /* positions of the prompt that were not computed but found in the KV cache */
	int n_published;             /* full blocks from the first on that are published, by this sequence or by others */
	uint64_t parent;             /* serial of the last of them; 0: there is none */
	int n_exact;                 /* the first position of which experts were left out; INT_MAX: there is none */

	bool ended;
	enum moe_finish finish;
	struct moe_err err;          /* with MOE_FINISH_ERROR */
	struct moe_seq *next;
};

/* A copy of the request that may come to `positions` positions.  Caller owns, moe_seq_free. */
struct moe_seq *moe_seq_new(const struct moe_request *r, int positions, struct moe_err *e);
void moe_seq_free(struct moe_seq *s);
/* One more token was generated. */
int moe_seq_made(struct moe_seq *s, int32_t token, struct moe_err *e);
/* End it if it was cancelled or its time is up. */
void moe_seq_check(struct moe_seq *s, uint64_t now);
/* The first end counts; later ones change nothing. */
void moe_seq_end(struct moe_seq *s, enum moe_finish finish);
void moe_seq_fail(struct moe_seq *s, const struct moe_err *why);
void moe_seq_time_out(struct moe_seq *s);
/* Token at the next position to compute. */
int32_t moe_seq_input(const struct moe_seq *s, int position);
/* Experts were left out of a row at that position: it and all later ones are inexact. */
void moe_seq_degrade(struct moe_seq *s, int position);
bool moe_seq_degraded(const struct moe_seq *s);
bool moe_seq_generating(const struct moe_seq *s);

/* ---- carve.c: one piece of memory cut into arrays ---- */

/* With base NULL it only measures, so that plan and allocation cannot disagree. */
struct moe_carve {
	char *base;
	size_t used;
	bool overflow;
};
/* n * m elements of `size` bytes, 64-aligned; NULL while measuring. */
void *moe_carve(struct moe_carve *c, size_t n, size_t m, size_t size);

/* ---- prefix.c: full blocks, which sequences share ---- */

struct moe_prefix_block {
	uint64_t serial;             /* counts what was ever published; 0: this block is not */
	uint64_t parent;             /* serial of the block before it; 0: it begins a sequence */
	int32_t tokens[MOE_KV_BLOCK];
	int32_t next;                /* in its bucket; -1: none */
	int32_t older, newer;        /* of those that nobody holds; -1: none */
};
struct moe_prefix {
	struct moe_prefix_block *block; /* [n_blocks] */
	int32_t *bucket;             /* [n_buckets] by (parent, tokens); -1: empty */
	size_t n_buckets;
	int32_t oldest, newest;      /* of the n_idle published blocks that nobody holds */
	int n_idle;
	uint64_t last_serial;
};
/* Memory that moe_prefix_open takes. */
size_t moe_prefix_bytes(int n_blocks);
int moe_prefix_open(struct moe_prefix *x, int n_blocks, struct moe_err *e);
void moe_prefix_close(struct moe_prefix *x);
/* Nobody holds this published block any more; somebody does again; the one let go longest ago is needed for other things. */
void moe_prefix_idle(struct moe_prefix *x, int32_t block);
void moe_prefix_wake(struct moe_prefix *x, int32_t block);
int32_t moe_prefix_evict(struct moe_prefix *x);

struct moe_kv;
/* Reserve all blocks that s may need: published ones for the beginning of its prompt, new ones for the rest.  false: there
 * are not enough, and nothing has changed. */
bool moe_prefix_admit(struct moe_kv *kv, struct moe_seq *s);
/* Before rows of s are computed: skip blocks that others have published since. */
void moe_prefix_skip(struct moe_kv *kv, struct moe_seq *s);
/* So many of s's positions are in the KV store: publish the blocks that are full, and exact. */
void moe_prefix_publish(struct moe_kv *kv, struct moe_seq *s, int positions);

/* ---- kv.c: blocks of MOE_KV_BLOCK positions, each over all layers ---- */

struct moe_kv_place {
	struct moe_backend *b;
	bool pinned;                 /* the host's memory that b copies from and to without another copy; else b's own */
};
struct moe_kv {
	struct moe_kv_place place;
	enum moe_kv_type type;
	unsigned char *mem;
	size_t block_bytes;
	size_t *layer_at;            /* [n_layers] bytes from a block's start to the layer's part */
	int32_t *free;               /* [n_free] stack of blocks that hold nothing */
	int32_t *holders;            /* [n_blocks] sequences that hold each */
	int n_blocks, n_free;
	bool share;                  /* publish full blocks */
	struct moe_prefix prefix;
};
/* Bytes of one block: a layer's part, and all of it; false on overflow. */
bool moe_kv_layer_bytes(const struct moe_attention *a, enum moe_kv_type t, size_t *bytes);
bool moe_kv_block_bytes(const struct moe_model *m, enum moe_kv_type t, size_t *bytes);
int moe_kv_blocks_for(int positions);
int moe_kv_open(struct moe_kv *kv, struct moe_kv_place place, const struct moe_model *m, enum moe_kv_type t, int n_blocks,
                bool share, struct moe_err *e);
void moe_kv_close(struct moe_kv *kv);
/* n blocks to write, or none: empty ones, then published ones that nobody holds. */
bool moe_kv_take(struct moe_kv *kv, int32_t *blocks, int n);
/* Hold a published block too. */
void moe_kv_hold(struct moe_kv *kv, int32_t block);
/* Let go, the last first. */
void moe_kv_give(struct moe_kv *kv, const int32_t *blocks, int n);
/* Published blocks that nobody holds are emptied, and the memory of empty blocks is the system's until they are written again. */
void moe_kv_give_back(struct moe_kv *kv);
/* Blocks that some sequence holds. */
int moe_kv_held(const struct moe_kv *kv);
struct moe_kv_view moe_kv_view(const struct moe_kv *kv, int layer);

/* ---- buffers.c: the arrays of one step ---- */

/* Of each the widest layer's; 0: no layer has any. */
struct moe_widths {
	size_t q, kv;                /* heads or kv_heads times head_dim */
	size_t experts, top_k;
	size_t inner, expert_inner;  /* of dense layers and shared experts; of routed experts */
};
struct moe_widths moe_widest(const struct moe_model *m);

struct moe_buffers {                 /* the backend's memory; R = most rows of a step */
	float *x;                    /* [R, H] residual stream */
	float *h;                    /* [R, H] normed, and for short times other things of that shape */
	float *q, *mixed;            /* [R, heads * head_dim] queries; attention's output */
	float *k, *v;                /* [R, kv_heads * head_dim] */
	float *y, *z;                /* [R, H] routed or dense output; shared expert's output */
	float *gate;                 /* [R, E] */
	int32_t *choice;             /* [R, K] */
	float *weight;               /* [R, K] */
	float *inner;                /* [R, I] of the dense or shared FFN */
	float *switches;             /* [R] */
	float *logits;               /* [logits_rows, V] */
};
struct moe_host_buffers {
	int32_t *ids, *positions;    /* [R] */
	struct moe_attn_seq *attn;   /* [max_sequences + 1]: one may be cut in two */
	struct moe_seq **seq;        /* [max_sequences + 1] */
	int32_t *choice;             /* [R, K] */
	float *weight;               /* [R, K] */
	uint8_t *failed, *degraded;  /* [R] */
	int32_t *slots;              /* [R] */
	float *logits;               /* [V] one row */
	float *p;                    /* [V] sampling */
	int32_t *order;              /* [V] sampling */
};
void moe_buffers_place(struct moe_buffers *b, const struct moe_model *m, int rows, int logits_rows, struct moe_carve *c);
void moe_host_buffers_place(struct moe_host_buffers *b, const struct moe_model *m, int rows, int sequences,
                            struct moe_carve *c);

/* ---- vectors.c: norm weights and biases as f32 ---- */

struct moe_layer_vectors {
	float *attn_norm, *ffn_norm, *q_norm, *k_norm, *q_bias, *k_bias, *v_bias, *o_bias; /* NULL: absent */
};
struct moe_vectors {
	float *final_norm;
	struct moe_layer_vectors *layers;
};
/* Sizes come from the model alone; v->layers [n_layers] is the caller's. */
void moe_vectors_place(struct moe_vectors *v, const struct moe_model *m, struct moe_carve *c);
int moe_vectors_fill(const struct moe_vectors *v, const struct moe_model *m, const struct moe_base_weights *w,
                     struct moe_backend *b, struct moe_err *e);

/* ---- plan.c ---- */

#define MOE_LOGITS_ROWS 64           /* most rows that share one pass over the head; more would only take memory */

struct moe_engine_sizes {
	int max_rows, logits_rows;
	int kv_blocks, blocks_per_seq;   /* in all; of a sequence as long as ctx */
	size_t block_bytes, seq_bytes;   /* seq_bytes: blocks_per_seq blocks */
	size_t device_buffers, host_buffers, vectors;
	struct moe_engine_memory memory;
};
/* t: as moe_engine_plan says. */
int moe_engine_sizes(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c,
                     struct moe_engine_sizes *out, struct moe_err *e);
/* Of these only what the KV cache is made of. */
int moe_engine_kv_sizes(const struct moe_model *m, const struct moe_engine_config *c, struct moe_engine_sizes *s, struct moe_err *e);
/* MOE_E_NOMEM with the numbers when it is more than `available` bytes of the host, or a KV cache on the device more than is left there. */
int moe_engine_fits(const struct moe_engine_config *c, const struct moe_engine_sizes *s, size_t available,
                    struct moe_err *e);

/* ---- the rows of a step ---- */

/* Rows row .. row + rows - 1, which are those of the pass's sequences first .. first + n - 1.  Layers work on parts, so that
 * one part's attention can run while another's experts are in flight. */
struct moe_part {
	int row, rows, first, n;
};
/* What one step computes.  Sequences that fail on the way are dropped from it. */
struct moe_pass {
	int32_t *ids, *positions;    /* [row] */
	struct moe_attn_seq *attn;   /* [sequence]; rows count from the pass's first */
	struct moe_seq **seq;
	struct moe_part all;         /* before and after the layers */
	struct moe_part part[2];     /* in the layers */
	int n_parts;
};

/* ---- layer.c: what a layer computes, wherever its weights and rows lie ---- */

/* Where: a backend's stream, with the layer's weights and vectors there. */
struct moe_layer_on {
	struct moe_backend *b;
	struct moe_stream_q *q;
	const struct moe_model *m;
	const struct moe_layer *layer;
	const struct moe_layer_weights *w;
	const struct moe_layer_vectors *v;
};
struct moe_heads {
	float *q, *k, *v;            /* [rows, heads * head_dim]; [rows, kv_heads * head_dim] */
};
/* Queries, keys and values of x[rows, H], rotated.  normed[rows, H] is overwritten. */
int moe_layer_heads(const struct moe_layer_on *l, const struct moe_heads *h, const float *x, float *normed, const int32_t *positions,
                    int rows, struct moe_err *e);
/* x += O mixed, what attention gave.  h[rows, H] is overwritten. */
int moe_layer_output(const struct moe_layer_on *l, float *x, const float *mixed, float *h, int rows, struct moe_err *e);
/* h = norm(x), what the FFN sees. */
int moe_layer_norm(const struct moe_layer_on *l, float *h, const float *x, int rows, struct moe_err *e);
/* Every row's experts and their weights, in the host's memory when this returns. */
struct moe_choice {
	float *logits;               /* [rows, E] */
	int32_t *ids;                /* [rows, k], the backend's, and so are weights */
	float *weights;
	int32_t *host_ids;
	float *host_weights;
};
int moe_layer_choose(const struct moe_layer_on *l, const struct moe_choice *c, const float *h, int rows, struct moe_err *e);
/* z = the shared expert of h, where the layer has one.  inner: [rows, its width]; switches: [rows]. */
int moe_layer_shared(const struct moe_layer_on *l, float *z, const float *h, float *inner, float *switches, int rows,
                     struct moe_err *e);
/* x += routed y + shared z, the two added to each other first. */
int moe_layer_add_up(const struct moe_layer_on *l, float *x, float *y, const float *z, int rows, struct moe_err *e);
/* x += FFN(h) of a dense layer.  y[rows, H] and inner[rows, width] are overwritten. */
int moe_layer_dense(const struct moe_layer_on *l, float *x, float *y, const float *h, float *inner, int rows, struct moe_err *e);

/* Choices of a part's rows, for whoever asked to hear of them; fn NULL: nobody did. */
struct moe_routed {
	int layer, k;
	const int32_t *ids;          /* [rows, k] */
	const float *weights;
};
void moe_report_routes(moe_route_fn *fn, void *ctx, const struct moe_pass *p, const struct moe_part *part, const struct moe_routed *r);

struct moe_head_on {
	struct moe_backend *b;
	struct moe_stream_q *q;
	const struct moe_model *m;
	const struct moe_matrix *head;
	const float *final_norm;
};
/* logits[n, V] of rows[0..n) of x.  h[n, H] is overwritten. */
int moe_head_logits(const struct moe_head_on *l, float *logits, float *h, const float *x, const int32_t *rows, int n,
                    struct moe_err *e);

/* ---- decoder.c: one pass of the model over a step's rows ---- */

struct moe_decoder {
	const struct moe_model *m;
	struct moe_backend *b;
	struct moe_experts *x;
	double step_timeout;
	bool degrade;
	enum moe_overlap overlap;
	uint64_t halved;             /* passes that went in two parts */
	struct moe_base_weights w;
	struct moe_vectors vectors;
	struct moe_buffers buf;
	struct moe_host_buffers host;
	int logits_rows;
	struct moe_kv *kv;           /* the engine's */
	void *device_memory, *vector_memory, *host_memory;
	moe_route_fn *on_route;
	void *ctx_route;
	uint64_t traced;             /* a request whose id batches carry; 0: the first's */
};
struct moe_layer_on moe_decoder_layer(const struct moe_decoder *d, int layer);
int moe_decoder_open(struct moe_decoder *d, const struct moe_model *m, const struct moe_tensors *base,
                     struct moe_backend *b, struct moe_experts *x, struct moe_kv *kv, const struct moe_engine_config *c,
                     const struct moe_engine_sizes *s, struct moe_err *e);
void moe_decoder_close(struct moe_decoder *d);
/* All layers.  Afterwards the residual stream of the rows still in the pass is ready for moe_decoder_head. */
int moe_decoder_run(struct moe_decoder *d, struct moe_pass *p, struct moe_err *e);
/* Final norm and head of rows[0..n), n <= logits_rows. */
int moe_decoder_head(struct moe_decoder *d, const int32_t *rows, int n, struct moe_err *e);
/* Row i of the last head: [vocab], valid until the next call. */
int moe_decoder_logits(struct moe_decoder *d, int i, const float **logits, struct moe_err *e);

/* ---- ffn.c: the second half of a layer ---- */

/* A part's experts under way, from moe_ffn_begin to moe_ffn_end. */
struct moe_flight {
	bool under_way;
	bool waited;                 /* rc is that of wait already */
	struct moe_flight *beside;   /* the other part's, or NULL */
	struct moe_batch batch;
	uint64_t ticket;
	uint64_t step_limit;         /* when the layer's time is up, whoever waits; 0: never */
	int rc;                      /* of submit, then of wait */
	struct moe_err why;
};
/* x += FFN(norm(x)) for a part that has rows: begin asks for the experts, end takes what they say.  A dense layer is done when
 * begin returns.  Sequences whose experts failed, or that ended in the other part, are dropped from the part by end,
 * which does nothing when nothing is under way.  When either fails nothing is under way any more. */
int moe_ffn_begin(struct moe_decoder *d, int layer, struct moe_pass *p, struct moe_part *part, struct moe_flight *f,
                  struct moe_err *e);
int moe_ffn_end(struct moe_decoder *d, struct moe_pass *p, struct moe_part *part, struct moe_flight *f, struct moe_err *e);
void moe_ffn_cancel(struct moe_decoder *d, struct moe_flight *f);
bool moe_anyone_ended(const struct moe_pass *p, const struct moe_part *part);
/* Close the ranks of a part: rows of ended sequences go, those behind move up. */
int moe_drop_ended(struct moe_decoder *d, struct moe_pass *p, struct moe_part *part, struct moe_err *e);

/* ---- halves.c: a pass in two parts ---- */

/* p->part from p->all: two halves if that is wanted and possible, else the whole. */
void moe_pass_split(const struct moe_decoder *d, struct moe_pass *p);
/* And p->all from p->part again, of what is left. */
int moe_pass_join(struct moe_decoder *d, struct moe_pass *p, struct moe_err *e);

/* ---- batch.c: which rows a step takes ---- */

/* One row for every generating sequence, and prompt rows of the others, first come first, at most `chunk` in all.  None of those that
 * have ended. */
void moe_pass_build(struct moe_pass *p, struct moe_seq *const *running, int n, int chunk);

/* ---- softmax.c, sampling.c ---- */

/* The highest, ties to the lowest index; -1 when a value is not finite. */
int moe_argmax(const float *v, int n);
/* Sum over i, in index order, of exp((v[i] - max) / temperature); each kept in p[i] unless p is NULL. */
double moe_exp_sum(const float *v, int n, float max, float temperature, float *p);
/* `best` is moe_argmax(logits).  p and order: [vocab] to work in. */
int moe_sample(const struct moe_sampling *s, const float *logits, int vocab, int best, uint64_t position, float *p,
               int32_t *order);
/* Philox4x32-10: the four words of (key, counter). */
void moe_philox(uint64_t key, uint64_t counter, uint32_t out[4]);

#endif
