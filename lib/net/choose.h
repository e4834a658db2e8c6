/* Choose: which of the servers that hold an expert is asked for it.  Pure. */
#ifndef MOE_NET_CHOOSE_H
#define MOE_NET_CHOOSE_H

#include <stdbool.h>
#include <stdint.h>

/* What a message costs besides its pairs: one more for a batch is worth it only if it saves more than that. */
#define CHOOSE_MESSAGE_NS 50000.0

/* A server as a choice sees it. */
struct choose_server {
	int standing;            /* 0: as good as any; more: only if there is none with less; -1: cannot be asked */
	int rank;
	double queued_ns;        /* work that it has been given and has not answered, this batch's included */
	double pair_ns;          /* how long it takes for a pair */
	bool asked;              /* this batch asks it for something already */
};

/* A set of servers by their numbers. */
static inline bool choose_in(const uint64_t *set, int i)
{
	return set[i / 64] >> (i % 64) & 1;
}
static inline void choose_put(uint64_t *set, int i)
{
	set[i / 64] |= (uint64_t)1 << (i % 64);
}
static inline void choose_remove(uint64_t *set, int i)
{
	set[i / 64] &= ~((uint64_t)1 << (i % 64));
}

/* Of those in holders[n] that are not `tried`: the one of the best standing that would have done a group of so many pairs first;
 * of equals the lowest rank, and of these the first.  -1: none. */
int choose_server(const struct choose_server *s, const int32_t *holders, int n, const uint64_t *tried, int pairs);

#endif
