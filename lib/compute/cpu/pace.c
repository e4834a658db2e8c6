#include "pace.h"

#include <math.h>

#define PIECE_MIN ((size_t)4 << 10)
#define PIECE_MAX ((size_t)4 << 20)
#define LONGEST 0x1p62           /* nanoseconds that can be added to any time */

uint64_t moe_pace_take(struct moe_pace *p, uint64_t ready, uint64_t now, size_t bytes)
{
	uint64_t earliest = now > MOE_PACE_SLACK ? now - MOE_PACE_SLACK : 0, start = ready > earliest ? ready : earliest;

	if (p->bandwidth <= 0)
		return start;
	if (p->busy_until > start)
		start = p->busy_until;
	p->busy_until = start + (uint64_t)fmin(ceil((double)bytes / p->bandwidth * 1e9), LONGEST);
	return p->busy_until;
}

size_t moe_pace_piece(const struct moe_pace *p)
{
	double bytes = p->bandwidth / 1e3;

	if (p->bandwidth <= 0 || bytes >= (double)PIECE_MAX)
		return PIECE_MAX;
	return bytes <= (double)PIECE_MIN ? PIECE_MIN : (size_t)bytes;
}
