/* The CPU backend's own state, and what its files share. */
#ifndef MOE_CPU_H
#define MOE_CPU_H

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

struct moe_cpu {
	struct moe_backend base;     /* first: a moe_backend is a moe_cpu */
	struct moe_team *team;
	struct moe_numerics numerics;
	const struct moe_kernels *k;
	float *scratch;              /* a part for every worker */
	size_t scratch_floats;       /* of one part */
	size_t *starts;              /* where each group's or sequence's pieces begin */
	size_t starts_cap;
	float *parts;                /* attention of parts of a context, until they are joined */
	size_t parts_floats;
	struct moe_rope_table rope;
};

static inline struct moe_cpu *moe_cpu(struct moe_backend *b)
{
	return (struct moe_cpu *)b;
}

/* See to it that every worker has `floats` of its own, at moe_cpu_part(c, worker). */
int moe_cpu_scratch(struct moe_cpu *c, size_t floats, struct moe_err *e);
static inline float *moe_cpu_part(const struct moe_cpu *c, int worker)
{
	return c->scratch + (size_t)worker * c->scratch_floats;
}

/* See to it that parts has room for n times `floats`. */
int moe_cpu_parts(struct moe_cpu *c, size_t n, size_t floats, struct moe_err *e);

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
/* The weights' half of that tile; x and y are left to fill in.  pack: the worker's MOE_PACK_FLOATS. */
struct moe_tile moe_cpu_tile(const struct moe_matrix *w, const struct moe_tile_at *at, float *pack);
static inline size_t moe_cpu_row_bytes(const struct moe_matrix *w)
{
	return (size_t)w->cols * (w->quant == MOE_Q_F32 ? 4 : 2);
}

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
