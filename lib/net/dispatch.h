/* Dispatch: a batch's rows cut into one group for each expert, groups put together into what one server is asked, and the
 * answers put together again.  Pure; no sockets.
 *
 * Groups do not know servers: what is asked of whom may change while the batch is under way, and a group may be asked of
 * several.  The first output that comes is the group's; its bits are the same whoever answers. */
#ifndef MOE_NET_DISPATCH_H
#define MOE_NET_DISPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "compute/compute.h"

/* The pairs of one expert: first .. first + pairs - 1 of the lists below, ascending by row. */
struct dispatch_group {
	int expert;
	int first, pairs;
	const unsigned char *y;  /* its part of an answer, at any alignment: [pairs, H]; with presum the whole answer, sums of
	                          * rows; NULL: not there */
};

/* A set of groups, a bit for each: what one message asks for. */
typedef uint64_t dispatch_set;
#define DISPATCH_SET_BITS 64

struct dispatch {
	int max_rows, max_k, experts;        /* room for */
	int n_groups, rows, words;           /* of this batch; words of a set of its groups */
	struct dispatch_group *groups;       /* [experts], ascending by expert */
	int32_t *group_of_expert;            /* [experts], -1: no row needs it */
	int32_t *row;                        /* [max_rows * max_k] a pair's batch row */
	float *weight;                       /* [max_rows * max_k] */
	int32_t *slot;                       /* [max_rows, max_k]: where a row's j-th pair is in the lists */
	int32_t *sum;                        /* [max_rows * max_k] with presum: which sum of the answer has the pair */
	int32_t *number;                     /* [max_rows] to work in: a batch row's number in a message, -1 */
};
int dispatch_new(int max_rows, int max_k, int experts, struct dispatch *out, struct moe_err *e);
void dispatch_free(struct dispatch *d);

/* Refused: ids that are not ascending experts of the layer, which has so many. */
int dispatch_cut(struct dispatch *d, const struct moe_batch *b, int experts, struct moe_err *e);

/* ---- sets of groups ---- */

static inline bool dispatch_in(const dispatch_set *s, int group)
{
	return s[group / DISPATCH_SET_BITS] >> (group % DISPATCH_SET_BITS) & 1;
}
static inline void dispatch_put(dispatch_set *s, int group)
{
	s[group / DISPATCH_SET_BITS] |= (dispatch_set)1 << (group % DISPATCH_SET_BITS);
}
/* The first group of the set at or after this one; -1: none. */
int dispatch_next(const struct dispatch *d, const dispatch_set *s, int group);

/* ---- what one server is asked ---- */

/* The lists of a message, owned by the caller and used again; room for every pair and row of a batch. */
struct dispatch_lists {
	int pairs, rows;
	int32_t *expert, *row;   /* [pairs], ascending by (expert, row); rows numbered within the message, ascending */
	float *weight;           /* [pairs] */
	int32_t *source;         /* [rows] the batch's row */
};
int dispatch_lists_new(int max_rows, int max_k, struct dispatch_lists *out, struct moe_err *e);
void dispatch_lists_free(struct dispatch_lists *l);
void dispatch_list(struct dispatch *d, const dispatch_set *s, struct dispatch_lists *l);
/* The listed hidden states as they travel, type[l->rows, hidden]. */
void dispatch_gather(const struct dispatch_lists *l, const struct moe_batch *b, int hidden, enum moe_wire_type type, void *x);

/* ---- answers ---- */

/* How they lie there.  presum: servers have summed their experts up. */
struct dispatch_answer {
	int hidden;
	enum moe_wire_type type;
	bool presum;
};
/* The answer y to a message that asked for the set: its groups that have no output yet get theirs, and `taken` says which
 * (a set, cleared first); how many.  With presum all of them or none. */
int dispatch_take(struct dispatch *d, const dispatch_set *s, const void *y, const struct dispatch_answer *a, dispatch_set *taken);

/* y = the first expert's gated output, then plus the others in ascending order: compute's rule, bit for bit.  presum: the
 * servers' sums instead, in the order in which the row meets them.  A row that lacks a group's output gets failed = 1, or, if
 * b->degraded and `leave_out`: what the others come to, times the sum of all its weights over that of theirs (zeros without any),
 * and degraded = 1.  Rows that were degraded. */
int dispatch_combine(const struct dispatch *d, const struct moe_batch *b, const struct dispatch_answer *a, bool leave_out);

#endif
