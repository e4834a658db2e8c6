/* Experts in memory, one by one: what holds of several epochs share. */
#ifndef MOE_RUN_HOLD_H
#define MOE_RUN_HOLD_H

#include "run/run.h"

/* Where experts lie that were loaded together. */
struct stock;
/* One of them. */
struct copy {
	struct stock *in;
	struct moe_hash hash;        /* of its bytes in the file; "": not known */
	uint64_t bytes;              /* in memory */
};

/* t becomes the stock's on success, whole: also what of it is not an expert's own is needed, and nothing is given back piece by piece.
 * The caller has one share, for stock_release. */
int stock_new(struct moe_tensors *t, const struct moe_model *m, bool whole, struct stock **out, struct moe_err *e);
void stock_release(struct stock *k);
/* An expert of a stock, in use once. */
int copy_new(struct stock *k, int layer, int expert, const struct moe_hash *hash, struct copy **out, struct moe_err *e);
struct copy *copy_keep(struct copy *x);
/* With the last use its pages are given back, and with the stock's last expert all the rest. */
void copy_release(struct copy *x);

/* The views of all experts that copies[n_layers * wide] has (NULL: not that one), as one set that owns nothing. */
int stock_views(struct copy *const *copies, const struct moe_model *m, struct moe_tensors **out, struct moe_err *e);

/* hold_check.c: numbers and probes of the experts of t that want names.  *probed: whether there were probes to compare. */
int check_experts(const struct moe_source *s, const struct moe_tensors *t, const uint8_t *want, const struct moe_load_tick *tick,
                  bool *probed, struct moe_err *e);

#endif
