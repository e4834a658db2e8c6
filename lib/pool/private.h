/* What the files of this room share: experts as runs of bytes. */
#ifndef MOE_POOL_PRIVATE_H
#define MOE_POOL_PRIVATE_H

#include "pool/pool.h"

/* Where a matrix begins in a slot or an image. */
#define MOE_POOL_ALIGN ((size_t)64)
static inline size_t moe_pool_round(size_t bytes)
{
	return (bytes + MOE_POOL_ALIGN - 1) / MOE_POOL_ALIGN * MOE_POOL_ALIGN;
}

/* Expert of the tensors, its data in a layout that kernels read.  MOE_E_UNSUPPORTED names it when they are not. */
int moe_pool_bind(const struct moe_tensors *s, const struct moe_model *m, int layer, int expert,
                  struct moe_expert_weights *out, struct moe_err *e);
/* An expert of quant q in its kernels' layout, without data. */
struct moe_expert_weights moe_pool_imagine(const struct moe_model *m, int layer, enum moe_quant q);

/* An expert in memory of its own: gate, up and down, one after the other. */
struct moe_pool_part {
	size_t at, bytes;            /* from where the expert begins */
	const unsigned char *data;
};
void moe_pool_parts(const struct moe_expert_weights *w, struct moe_pool_part out[3]);
size_t moe_pool_expert_bytes(const struct moe_expert_weights *w); /* a multiple of MOE_POOL_ALIGN */
/* The expert as it is when its parts have been brought to `base`. */
struct moe_expert_weights moe_pool_at(const struct moe_expert_weights *w, const unsigned char *base);
/* Put its three copies on q. */
int moe_pool_copy_in(struct moe_backend *b, struct moe_stream_q *q, unsigned char *to, const struct moe_expert_weights *w,
                     struct moe_err *e);

/* ---- the mappings that tensors lie in ---- */

struct moe_pool_maps {
	const struct moe_map **v;    /* [n] by address */
	size_t n;
};
int moe_pool_maps_open(const struct moe_tensors *s, struct moe_pool_maps *out, struct moe_err *e);
void moe_pool_maps_close(struct moe_pool_maps *m);
/* NULL: plain memory. */
const struct moe_map *moe_pool_map_of(const struct moe_pool_maps *m, const unsigned char *data);

/* What the kernel is told of bytes that lie in a mapping; of others nothing.  Where it cannot follow, nothing happens. */
enum moe_pool_advice {
	MOE_POOL_COMING,             /* read ahead */
	MOE_POOL_NOW,                /* read at once: cheaper than a fault for every page */
	MOE_POOL_COLD,               /* not needed for long: may go first when memory is short */
	MOE_POOL_GONE,               /* leaves the kernel's cache now */
};
void moe_pool_advise(const struct moe_pool_maps *m, const unsigned char *data, size_t bytes, enum moe_pool_advice advice);

/* ---- the pager's plan ---- */

struct moe_pager_plan {
	int n_layers, max_experts;
	struct moe_expert_weights *w; /* [n_layers, max_experts]; a plan without tensors has no data */
	size_t *at;                  /* [n_layers, max_experts]: where each lies, among the residents or in its layer's image */
	int *experts, *residents;    /* [n_layers]; the first `residents` of a layer's experts stay on the device */
	size_t *moved;               /* [n_layers]: bytes of the image */
	struct moe_pager_sizes sizes;
};
int moe_pager_plan_open(const struct moe_model *m, const struct moe_tensors *tensors, const struct moe_pager_config *c,
                        struct moe_pager_plan *out, struct moe_err *e);
void moe_pager_plan_close(struct moe_pager_plan *y);
static inline size_t moe_pager_index(const struct moe_pager_plan *y, int layer, int expert)
{
	return (size_t)layer * (size_t)y->max_experts + (size_t)expert;
}
/* Bytes [from, to) of what moves of a layer, as pieces of its matrices in ascending order; `at` counts from the image's begin.  What
 * lies between matrices is no piece. */
typedef void moe_pager_piece_fn(void *ctx, size_t at, const unsigned char *data, size_t bytes);
void moe_pager_pieces(const struct moe_pager_plan *y, int layer, size_t from, size_t to, moe_pager_piece_fn *fn, void *ctx);

/* ---- the pager ---- */

struct moe_pager {
	struct moe_backend *device;
	const struct moe_tensors *tensors;
	struct moe_pager_plan plan;
	struct moe_pool_maps maps;
	int pages;
	bool reads, pins;            /* which stations there are, besides loading */
	bool pinned_all;
	unsigned char *resident;     /* of the device */
	unsigned char *slots;        /* of the device: [2, sizes.layer] */
	unsigned char *relay;        /* pinned: one layer, or with pinned_all the images of all layers */
	unsigned char *staging;      /* one layer; NULL: there is none */
	size_t *before;              /* [n_layers]: bytes of the images of the layers before it */
	size_t kept;                 /* bytes of the first images that may stay in the kernel's cache when they are read from files */
	struct moe_expert_weights *table[2]; /* [n_layers, max_experts] for each slot */
};

/* Bytes [from, end) of a layer's image to `to` + from, ..., from wherever the tensors lie.  MOE_E_IO names a file that was cut short. */
int moe_pager_copy(const struct moe_pager *p, unsigned char *to, int layer, size_t from, size_t end, struct moe_err *e);

#endif
