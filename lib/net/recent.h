/* Recent: how long the last requests took. */
#ifndef MOE_NET_RECENT_H
#define MOE_NET_RECENT_H

#include <stdint.h>

#define RECENT 1024

struct recent {
	uint64_t ns[RECENT];
	uint64_t n;              /* times that were added, ever */
	uint64_t p50, p99, at;   /* as of moe_now_ns() == at */
};
void recent_add(struct recent *r, uint64_t ns);
/* Bring p50 and p99 (nearest rank) up to date, a few times a second at most: whoever asks more often is told the same. */
void recent_sort(struct recent *r, uint64_t now);

#endif
