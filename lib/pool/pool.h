/* Pool: the routed experts of a model over the tiers of memory: the device, pinned memory of the host, plain memory, the file.
 *
 * Two ways to have more experts than the device holds.  The pager follows a schedule: while a layer is computed, what the next
 * one lacks is brought into the other of two slots, page by page (Cao et al., "MoE-Lightning", ASPLOS 2025, section 4.1 and
 * appendix A.1).  The pooled experts follow the gate: what a batch needs and the device does not hold is fetched, and what was
 * needed least goes, which moves less when a batch needs few of a layer's experts. */
#ifndef MOE_POOL_H
#define MOE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "checkpoint/checkpoint.h"
#include "compute/compute.h"
#include "tensor/tensor.h"

/* ---- the pager ---- */

struct moe_pager_config {
	struct moe_backend *device;
	double resident;             /* share of the routed experts' bytes that stays on the device, 0 to 1: whole experts, those
	                              * that fit into the share, spread evenly over the layers */
	int pages;                   /* what moves of a layer is cut into so many pages of equal size (the last may be smaller);
	                              * pages know nothing of experts */
	bool from_disk;              /* what moves stays in the file: moe_pager_read brings a page into memory first */
	bool pinned;                 /* what moves lies in pinned memory (from_disk: is read into the pinned relay): no moe_pager_pin */
	enum moe_quant quant;        /* of a plan without tensors: what the experts are in; else not looked at */
};
/* Bytes. */
struct moe_pager_sizes {
	size_t resident;             /* on the device for good */
	size_t slots;                /* on the device: two times what moves of the layer that moves most; 0: nothing moves */
	size_t pinned;               /* on the host: the relay, one layer; or, pinned and not from_disk, all that moves */
	size_t staging;              /* on the host: one layer, from_disk and not pinned */
	size_t layer;                /* what moves of the layer that moves most */
	size_t page;                 /* the largest page */
	size_t all;                  /* all routed experts */
	int resident_experts, moved_experts; /* counted over the layers */
};
/* What moe_pager_open takes of the device and of the host, to the byte, without taking any; c->device may be NULL.  An expert's matrices
 * begin at multiples of 64, so sizes count up to that.  tensors may be NULL for a model whose experts are all of c->quant in its kernels'
 * layout: a plan before there are any.  MOE_E_RANGE: a share outside 0 to 1, pages below 1; MOE_E_UNSUPPORTED: weights that kernels cannot
 * read as they lie (moe_source_tensors makes them); MOE_E_NOMEM: sums overflow. */
int moe_pager_plan(const struct moe_model *m, const struct moe_tensors *tensors, const struct moe_pager_config *c,
                   struct moe_pager_sizes *out, struct moe_err *e);
/* The largest share, a number of experts divided by all of them, with which resident experts and slots fit into so many bytes of the
 * device; c->resident is not looked at.  MOE_E_RANGE with the numbers: none does. */
int moe_pager_share_for(const struct moe_model *m, const struct moe_tensors *tensors, const struct moe_pager_config *c,
                        size_t device_bytes, double *share, struct moe_err *e);

/* Takes the memory and brings the resident experts (and pinned ones) where they belong.  model, tensors and device stay the caller's
 * and outlive the pager.  MOE_E_NOMEM with the numbers; then nothing stays taken. */
struct moe_pager;
int moe_pager_open(const struct moe_model *m, const struct moe_tensors *tensors, const struct moe_pager_config *c,
                   struct moe_pager **out, struct moe_err *e);
void moe_pager_close(struct moe_pager *p);

/* The stations of a page, in their order; which of them there are follows from the config.  Each overwrites the same page of the layer
 * before in what it fills; schedule.h says when it may.  Different pages and stations may be worked on by different threads at once.
 * A layer that moves less than others has its last pages shorter, down to none.  MOE_E_RANGE: no such layer, page, slot or station.
 *   read   file -> staging, or -> relay when pinned.  The kernel is told which page comes next, and that this one may leave its
 *          cache unless all that moves fits there.  MOE_E_IO names a file that was cut short.
 *   pin    staging, or the tensors' memory (MOE_E_IO as above) -> relay
 *   load   relay, or pinned memory -> slot 0 or 1 of the device, by a copy on q that may be under way afterwards */
int moe_pager_read(struct moe_pager *p, int layer, int page, struct moe_err *e);
int moe_pager_pin(struct moe_pager *p, int layer, int page, struct moe_err *e);
int moe_pager_load(struct moe_pager *p, struct moe_stream_q *q, int layer, int page, int slot, struct moe_err *e);
size_t moe_pager_page_bytes(const struct moe_pager *p, int layer, int page);

/* The page table: where each expert of a layer lies on the device when what moves of the layer has been loaded into `slot`; [experts],
 * matrices in device memory.  Valid as long as the pager; never NULL for a layer with experts. */
const struct moe_expert_weights *moe_pager_experts(const struct moe_pager *p, int layer, int slot);

/* ---- pooled experts ---- */

enum moe_evict { MOE_EVICT_LRU, MOE_EVICT_FREQUENCY };
struct moe_pooled_config {
	struct moe_backend *device;
	size_t memory;               /* bytes of the device for experts: at least one; the most that all together take are used */
	enum moe_evict evict;        /* who goes: needed longest ago; or least often (uses halved as time goes by), of equals the one
	                              * needed last.  Never what the batch at hand still needs */
	int max_rows;                /* most rows of a batch */
};
struct moe_pooled_stats {
	uint64_t hits, misses, evictions;
	uint64_t bytes;              /* copied to the device */
	int slots;                   /* experts that the device holds at once */
};
/* A moe_experts whose batches lie in the host's memory: rows are copied to the device, the experts they need fetched where they are not
 * there, computed, and the results copied back.  Experts that are there are computed while others come.  A batch that needs more experts
 * than there are slots is computed by and by; the bits do not change.  A batch may be under way when submit has returned; the next one
 * waits for it, and y is written when it is waited for.  Tensors and device stay the caller's; nobody else uses the device's computing
 * operations meanwhile.  MOE_E_NOMEM with the numbers: not even one expert fits, or the device has less; MOE_E_RANGE: max_rows;
 * MOE_E_UNSUPPORTED: as moe_pager_plan. */
int moe_experts_pooled(const struct moe_model *m, const struct moe_tensors *tensors, const struct moe_pooled_config *c,
                       struct moe_experts **out, struct moe_err *e);
/* Bytes of the device that it takes for batches, besides those for experts.  SIZE_MAX: they overflow. */
size_t moe_pooled_batch_bytes(const struct moe_model *m, int max_rows);
void moe_pooled_stats(const struct moe_experts *pooled, struct moe_pooled_stats *out);

#endif
