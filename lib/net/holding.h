/* Holding: which experts servers hold, in which epochs, and who holds an expert.  Pure.
 *
 * A server has the experts of one epoch, or of two while its clients move from one to the next.  Both belong to the same model, so
 * either gives the same bits. */
#ifndef MOE_NET_HOLDING_H
#define MOE_NET_HOLDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct holding {
	bool there;
	uint64_t epoch;
	uint32_t held;
	uint8_t *has;            /* [n_layers * max_experts] */
};
#define HOLDINGS 2               /* epochs of one server */
struct holdings {
	struct holding v[HOLDINGS];
};
int holdings_new(struct holdings *h, size_t experts, struct moe_err *e);
void holdings_free(struct holdings *h);
void holdings_clear(struct holdings *h);
void holdings_forget(struct holdings *h, uint64_t epoch);
/* What it says that it holds of an epoch: takes the place of what it said of it before, else that of its older epoch. */
void holdings_set(struct holdings *h, uint64_t epoch, uint32_t held, const uint8_t *has, size_t experts);
/* The one that has an expert, of this epoch if there is a choice; NULL: none. */
const struct holding *holdings_find(const struct holdings *h, size_t expert, uint64_t epoch);
/* The newest; NULL: it holds nothing. */
const struct holding *holdings_newest(const struct holdings *h);
bool holdings_epoch(const struct holdings *h, uint64_t epoch);

/* Who holds each expert: numbers of servers, ascending. */
struct holders {
	size_t experts;
	int32_t *start;          /* [experts + 1] into who */
	int32_t *who;
	size_t room;
};
int holders_new(struct holders *h, size_t experts, struct moe_err *e);
void holders_free(struct holders *h);
/* Anew, for n servers; all[i] NULL: it counts as holding nothing.  On failure (no memory) it stays as it was. */
int holders_find(struct holders *h, const struct holdings *const *all, int n, struct moe_err *e);

#endif
