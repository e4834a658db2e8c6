/* Pulse: how long a server takes, when it is late by its own measure, and when it is to be left alone.  Pure; times are
 * moe_now_ns(). */
#ifndef MOE_NET_PULSE_H
#define MOE_NET_PULSE_H

#include <stdbool.h>
#include <stdint.h>

#define PULSE_CLASSES 16        /* of requests, by the power of two of their pairs */
#define PULSE_BUCKETS 56        /* of times, two for each power of two from 1 us on */
#define PULSE_FAILURES 3        /* in a row, that open it */
#define PULSE_LEAST_NS 50000000u     /* nobody is late before that */
#define PULSE_UNKNOWN_NS 1000000000u /* and before anything is known, before that */
#define PULSE_PAUSE_NS 250000000u    /* how long it is left alone at first */
#define PULSE_PAUSE_MOST_NS 30000000000u

struct pulse {
	uint16_t seen[PULSE_CLASSES][PULSE_BUCKETS];
	uint16_t count[PULSE_CLASSES];
	bool suspect;
	int failures;            /* since it last answered a request */
	int pauses;              /* the same */
	uint64_t open_until;     /* it is left alone until then; 0: it is not */
};

/* A request of so many pairs was answered after so long, or was not yet.  Old times weigh less and less. */
void pulse_saw(struct pulse *h, int pairs, uint64_t ns);
/* The time within which that share of such requests were answered; 0: nothing is known. */
uint64_t pulse_share(const struct pulse *h, int pairs, double share);
/* How long to wait for one, before which there is work of so many nanoseconds, before the server is suspect; and before another is
 * asked as well, at that share; UINT64_MAX: not. */
uint64_t pulse_patience(const struct pulse *h, int pairs, double ahead_ns);
uint64_t pulse_hedge(const struct pulse *h, int pairs, double ahead_ns, double share);

/* It answered a request. */
void pulse_good(struct pulse *h);
/* A connection that ended, a deadline that passed, nonsense.  After PULSE_FAILURES in a row it is left alone for a while that doubles each
 * time, times 0.5 to 1.5. */
void pulse_failed(struct pulse *h, uint64_t now, uint64_t *random);
void pulse_pause(struct pulse *h, uint64_t now, uint64_t *random);
/* It may be tried: one more failure, and it is left alone again. */
void pulse_try(struct pulse *h);

/* A generator for pauses, whose state is not 0. */
uint64_t pulse_random(uint64_t *state);

#endif
