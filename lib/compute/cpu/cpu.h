/* The CPU backend's own state, and what its files share. */
#ifndef MOE_CPU_H
#define MOE_CPU_H

#include <stdatomic.h>

#include "coded.h"
#include "compute/compute.h"
#include "kernels.h"

/* Cosines and sines of the last rope call: a step's layers all stand at the same positions. */
struct moe_rope_table {
	struct moe_rope rope;
	int rows;
	size_t cap;                  /* rows * dims that fit */
	int32_t *positions;          /* [rows] */
	float *cosines, *sines;      /* [rows, dims / 2] */
};

/* The kernels that MOE_CPU names, or else the best that this CPU can run. */
struct moe_isa {
	const char *name;
	const struct moe_kernels *plain;
	const struct moe_coded_kernels *coded;
	const struct moe_pair_kernels *pairs;
};
int moe_cpu_isa(struct moe_isa *out, struct moe_err *e);

/* Memory that grows when more is needed, and forgets what was in it. */
struct moe_room {
	void *mem;
	size_t bytes;
};

struct moe_cpu {
	struct moe_backend base;     /* first: a moe_backend is a moe_cpu */
	struct moe_team *team;
	struct moe_numerics numerics;
	const char *isa;
	const struct moe_kernels *k;
	const struct moe_coded_kernels *coded;
	const struct moe_pair_kernels *pairs;
	struct moe_room x, hidden;   /* quantised or rounded rows: inputs, and hidden states of FFNs */
	struct moe_room up;          /* up's products where they are not fused with gate's */
	float *scratch;              /* a part for every worker */
	size_t scratch_floats;       /* of one part */
	size_t *starts;              /* where each group's or sequence's pieces begin */
	size_t starts_cap;
	struct moe_room parts;       /* attention of parts of a context, until they are joined */
	struct moe_rope_table rope;
	atomic_size_t used, most;    /* bytes that moe_plain_alloc gave */
};

static inline struct moe_cpu *moe_cpu(struct moe_backend *b)
{
	return (struct moe_cpu *)b;
}

/* Fill in c, which is all zero; its operations are those of the plain backend.  moe_cpu_end frees what it holds, not c. */
int moe_cpu_init(struct moe_cpu *c, struct moe_team *team, const struct moe_numerics *n, struct moe_err *e);
void moe_cpu_end(struct moe_cpu *c);

/* See to it that every worker has `floats` of its own, at moe_cpu_part(c, worker). */
int moe_cpu_scratch(struct moe_cpu *c, size_t floats, struct moe_err *e);
static inline float *moe_cpu_part(const struct moe_cpu *c, int worker)
{
	return c->scratch + (size_t)worker * c->scratch_floats;
}

/* See to it that *r has room for n things of `size` bytes; `what` is for the message. */
int moe_cpu_room(struct moe_room *r, size_t n, size_t size, const char *what, struct moe_err *e);

/* Room for n + 1 entries of starts. */
int moe_cpu_starts(struct moe_cpu *c, size_t n, struct moe_err *e);
/* The i with starts[i] <= piece < starts[i + 1], of n. */
size_t moe_cpu_find(const size_t *starts, size_t n, size_t piece);

/* Call fn for runs of at most `grain` of n equal things: a row each, say. */
struct moe_range {
	size_t from, to;
};
void moe_cpu_each(struct moe_cpu *c, size_t n, size_t grain, void (*fn)(void *arg, struct moe_range r), void *arg);

/* How a product of `rows` rows with a matrix is cut into tiles. */
struct moe_cut {
	int rows, n;                 /* of the whole */
	int row_tile, n_tile;        /* of a tile, at most */
	int row_tiles, n_tiles;
};
struct moe_cut moe_cpu_cut(const struct moe_kernels *k, int rows, const struct moe_matrix *w);
static inline size_t moe_cut_tiles(const struct moe_cut *c)
{
	return (size_t)c->row_tiles * (size_t)c->n_tiles;
}
/* Tile number `i`: rows and outputs it covers.  Neighbours share rows. */
struct moe_tile_at {
	int row, rows, out, n;
};
struct moe_tile_at moe_cut_at(const struct moe_cut *c, size_t i);
#define MOE_ROW_TILE 96          /* most rows of a tile: they stay in the second cache while weights pass by */
#define MOE_TILE_FLOATS (MOE_ROW_TILE * MOE_TILE_N) /* most results of a tile, whatever its shape */
/* Rows as a tile takes them; ldx in bytes. */
struct moe_rows {
	const unsigned char *x;
	size_t ldx;
};
static inline struct moe_rows moe_rows_f32(const float *x, int64_t cols)
{
	return (struct moe_rows){(const unsigned char *)x, (size_t)cols * sizeof *x};
}
/* The tile of w, with the rows from number `row` on; x_row: as struct moe_tile has it, of all rows, or NULL.  y is left to fill in.
 * pack: the worker's MOE_PACK_FLOATS. */
struct moe_tile moe_cpu_tile(const struct moe_cpu *c, const struct moe_matrix *w, const struct moe_tile_at *at, float *pack);
void moe_tile_rows(struct moe_tile *t, const struct moe_rows *x, const int32_t *x_row, size_t row);
void moe_cpu_run_tile(const struct moe_cpu *c, const struct moe_tile *t);
static inline size_t moe_cpu_row_bytes(const struct moe_matrix *w)
{
	return (size_t)w->cols * (w->quant == MOE_Q_F32 ? 4 : 2);
}

/* A product with any matrix, for operations to build on. */
struct moe_product {
	float *y;                    /* [rows, W.rows] */
	const float *x;              /* row i: x + (x_row ? x_row[i] : i) * W.cols */
	const int32_t *x_row;
	int rows;
	const struct moe_matrix *w;
	const float *bias;           /* [W.rows] or NULL */
};
int moe_cpu_product(struct moe_cpu *c, const struct moe_product *p, struct moe_err *e);

/* ---- rows of bf16 (pairs.h) ---- */

/* Is w multiplied with them? */
bool moe_cpu_pairs(const struct moe_cpu *c, const struct moe_matrix *w);
/* Rows [0, bound) of x[.., cols] rounded into *room; bound: how many rows there are, or that x_row names. */
int moe_pairs_round(struct moe_cpu *c, struct moe_room *room, const float *x, size_t bound, int64_t cols,
                    struct moe_rows *out, struct moe_err *e);

/* ---- coded matrices ---- */

#define MOE_CODED_ROWS 96        /* most rows of a piece of work: sums and rows stay in the second cache */

/* Rows of int8 codes, as the kernels' quantise makes them. */
struct moe_coded_rows {
	const unsigned char *x;
	size_t ldx;
	const int32_t *x_row;        /* row i is x_row[i], or i where this is NULL */
};
/* Rows [0, bound) of x[.., cols] to codes in *room; bound: how many rows there are, or that x_row names. */
int moe_coded_quantise(struct moe_cpu *c, struct moe_room *room, const float *x, size_t bound, int64_t cols,
                       struct moe_coded_rows *out, struct moe_err *e);
size_t moe_coded_bound(const int32_t *x_row, size_t rows);
/* How a product with a coded matrix is cut: pieces number row_tiles * runs, rows innermost, so that what is read of the
 * weights is used again soon. */
struct moe_coded_cut {
	int rows, row_tile, row_tiles;
	size_t tiles, run, runs;     /* tiles of the matrix, in a piece, and pieces that makes */
};
struct moe_coded_cut moe_coded_cut(int rows, const struct moe_matrix *w);
static inline size_t moe_coded_pieces(const struct moe_coded_cut *c)
{
	return (size_t)c->row_tiles * c->runs;
}
/* The thread's own memory for a piece: a form and sums. */
struct moe_coded_own {
	unsigned char *form;
	float *sums;                 /* [MOE_CODED_ROWS, MOE_TILE_ROWS] */
};
#define MOE_CODED_FLOATS (MOE_FORM_BYTES / sizeof(float) + MOE_CODED_ROWS * MOE_TILE_ROWS)
static inline struct moe_coded_own moe_coded_own(float *part)
{
	return (struct moe_coded_own){(unsigned char *)part, part + MOE_FORM_BYTES / sizeof(float)};
}
/* Tile number `tile` of w times `rows` rows from `row` on; next: see struct moe_coded_tile. */
struct moe_coded_tile moe_coded_tile(const struct moe_matrix *w, size_t tile, const struct moe_coded_rows *x, int row,
                                     int rows, struct moe_coded_own own);
/* Where tile number `tile` of w begins; NULL behind the last. */
const unsigned char *moe_coded_at(const struct moe_matrix *w, size_t tile);
int moe_coded_product(struct moe_cpu *c, const struct moe_product *p, struct moe_err *e);
/* The same with weights decoded and rows as they are, f32. */
int moe_exact_product(struct moe_cpu *c, const struct moe_product *p, struct moe_err *e);
/* MOE_E_UNSUPPORTED for a coded matrix in a layout that is not r64. */
int moe_coded_layout(const struct moe_matrix *w, struct moe_err *e);

/* Gated FFNs of groups: shared by ffn.c and coded_ffn.c. */
struct moe_cpu_ffns {
	struct moe_cpu *c;
	const struct moe_expert_group *groups;
	size_t n_groups;
	const float *x, *weight;     /* weight [pairs] or NULL: 1 */
	const int32_t *x_row;        /* [pairs] or NULL: pair p is row p */
	struct moe_rows rounded_x, rounded_hidden; /* where they are needed */
	float *hidden;               /* [pairs, I] */
	float *y;                    /* [pairs, H] */
};
/* One more than the highest pair of any group. */
size_t moe_cpu_ffn_pairs(const struct moe_cpu_ffns *f);
/* All three matrices of all groups are coded and multiplied with int8. */
int moe_coded_ffn(const struct moe_cpu_ffns *f, struct moe_err *e);

/* Memory and streams of the plain backend, as in moe_backend_ops. */
int moe_plain_alloc(struct moe_backend *b, size_t bytes, void **mem, struct moe_err *e);
void moe_plain_release(struct moe_backend *b, void *mem);
void moe_plain_memory(struct moe_backend *b, struct moe_device_memory *out);
int moe_plain_alloc_pinned(struct moe_backend *b, size_t bytes, void **host, struct moe_err *e);
void moe_plain_release_pinned(struct moe_backend *b, void *host);
int moe_plain_stream_open(struct moe_backend *b, struct moe_stream_q **q, struct moe_err *e);
void moe_plain_stream_close(struct moe_backend *b, struct moe_stream_q *q);
int moe_plain_event_open(struct moe_backend *b, struct moe_mark **ev, struct moe_err *e);
void moe_plain_event_close(struct moe_backend *b, struct moe_mark *ev);
int moe_plain_event_record(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e);
int moe_plain_event_wait(struct moe_backend *b, struct moe_stream_q *q, struct moe_mark *ev, struct moe_err *e);
int moe_plain_event_sync(struct moe_backend *b, struct moe_mark *ev, struct moe_err *e);
int moe_plain_event_time(struct moe_backend *b, struct moe_mark *ev, uint64_t *ns, struct moe_err *e);
int moe_plain_copy(struct moe_backend *b, struct moe_stream_q *q, void *to, const void *from, size_t bytes, struct moe_err *e);
int moe_plain_sync(struct moe_backend *b, struct moe_stream_q *q, struct moe_err *e);

/* The operations, as in moe_backend_ops. */
int moe_cpu_matmul(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
                   const struct moe_matrix *w, const float *bias, struct moe_err *e);
int moe_cpu_embed(struct moe_backend *b, struct moe_stream_q *q, float *y, const int32_t *ids, int rows,
                  const struct moe_matrix *w, struct moe_err *e);
int moe_cpu_rmsnorm(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows, int n,
                    const float *weight, float eps, struct moe_err *e);
int moe_cpu_rope(struct moe_backend *b, struct moe_stream_q *q, float *x, const int32_t *positions, int rows, int heads,
                 int head_dim, const struct moe_rope *rope, struct moe_err *e);
void moe_cpu_rope_free(struct moe_rope_table *t);
int moe_cpu_clamp(struct moe_backend *b, struct moe_stream_q *q, float *x, size_t n, float limit, struct moe_err *e);
int moe_cpu_kv_store(struct moe_backend *b, struct moe_stream_q *q, struct moe_kv_view kv, const float *k, const float *v,
                     const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a, struct moe_err *e);
int moe_cpu_attention(struct moe_backend *b, struct moe_stream_q *q, float *out, const float *query,
                      struct moe_kv_view kv, const struct moe_attn_seq *seqs, int n_seqs, const struct moe_attention *a,
                      struct moe_err *e);
int moe_cpu_gate(struct moe_backend *b, struct moe_stream_q *q, const float *logits, int rows, int experts,
                 const struct moe_gate *g, int32_t *ids, float *weights, struct moe_err *e);
int moe_cpu_ffn(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x, int rows,
                const struct moe_expert_weights *w, enum moe_act act, float *scratch, struct moe_err *e);
int moe_cpu_experts(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *x,
                    const struct moe_expert_group *groups, int n_groups, const int32_t *x_row, const float *weight,
                    enum moe_act act, float *scratch, struct moe_err *e);
int moe_cpu_combine(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *parts, const int32_t *slot,
                    int rows, int k, int n, struct moe_err *e);
int moe_cpu_add(struct moe_backend *b, struct moe_stream_q *q, float *x, const float *y, size_t n, struct moe_err *e);
int moe_cpu_sigmoid_scale(struct moe_backend *b, struct moe_stream_q *q, float *y, const float *s, int rows, int n,
                          struct moe_err *e);

#endif
