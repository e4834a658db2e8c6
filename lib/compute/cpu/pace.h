/* The rate of a link, as arithmetic over times: who copies waits until the link would have carried what is copied. */
#ifndef MOE_CPU_PACE_H
#define MOE_CPU_PACE_H

#include <stddef.h>
#include <stdint.h>

/* One direction; times as moe_now_ns() counts. */
struct moe_pace {
	double bandwidth;            /* bytes/s; 0: no limit */
	uint64_t busy_until;         /* all that was taken so far has been carried by then */
};

/* A copier that wakes up late goes on from when it should have woken, so that the rate is met and not only kept below; but not
 * from longer ago than this (a few turns of others on a busy core), or a stall would end in a burst. */
#define MOE_PACE_SLACK 10000000u

/* Carry `bytes` more, which have been ready to go since `ready`.  Returns when they will have been carried. */
uint64_t moe_pace_take(struct moe_pace *p, uint64_t ready, uint64_t now, size_t bytes);

/* Bytes to take at once: what the link carries in a millisecond, within bounds, so that streams that share it take turns. */
size_t moe_pace_piece(const struct moe_pace *p);

#endif
