/* Dispatch: a batch's rows cut into one part per server, and the answers put together again.  Pure; no sockets. */
#ifndef MOE_NET_DISPATCH_H
#define MOE_NET_DISPATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "compute/compute.h"

/* What goes to one server: pairs first .. first + pairs - 1 of the lists below, ascending by (expert, row); their rows are
 * counted within the part, and source[first + row] is the batch's row. */
struct dispatch_part {
	int server;
	int first, pairs, rows;
	int next, last;          /* while cutting: where the next expert's pairs begin; the batch row met last */
	const void *y;           /* the answer as it came, at any alignment: [pairs, H], or [rows, H] summed up; NULL: lost */
};

struct dispatch {
	int max_rows, max_k, experts, servers; /* room for */
	int n_parts;
	struct dispatch_part *parts;         /* [servers] */
	int32_t *part_of_server;             /* [servers], -1: none */
	int32_t *part_of_expert;             /* [experts] */
	int32_t *start;                      /* [experts] */
	int32_t *expert, *row, *source;      /* [max_rows * max_k] */
	float *weight;                       /* [max_rows * max_k] */
	int32_t *slot;                       /* [max_rows, max_k]: where a row's j-th pair is in the lists */
	int missing;                         /* an expert that no server has, and for which rows failed; -1 */
};
int dispatch_new(int max_rows, int max_k, int experts, int servers, struct dispatch *out, struct moe_err *e);
void dispatch_free(struct dispatch *d);

/* owner[expert]: the server to ask, or -1: then the rows that need it get failed = 1 and nothing of them is sent.
 * Refused: ids that are not ascending experts of the layer. */
int dispatch_cut(struct dispatch *d, const struct moe_batch *b, const int32_t *owner, int experts, struct moe_err *e);

/* The part's hidden states as they travel, type[part->rows, hidden]. */
void dispatch_gather(const struct dispatch *d, const struct dispatch_part *p, const struct moe_batch *b, int hidden,
                     enum moe_wire_type type, void *x);

/* How the answers lie there.  presum: servers have summed their experts up. */
struct dispatch_answer {
	int hidden;
	enum moe_wire_type type;
	bool presum;
};
/* y = the first expert's gated output, then plus the others in ascending order: compute's rule, bit for bit.  presum: the
 * servers' sums instead, in the order in which the row meets them.  Rows with a lost part get failed = 1. */
void dispatch_combine(const struct dispatch *d, const struct moe_batch *b, const struct dispatch_answer *a);

#endif
