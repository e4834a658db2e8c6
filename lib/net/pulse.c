#include "net/pulse.h"

#include <string.h>

#define LATE_FACTOR 4            /* times the 99th percentile */
#define DECAY_AT 512             /* times in a class, of which half are then forgotten */
#define FIRST_BIT 10             /* of the shortest time that is told apart, 1024 ns */
#define HEDGE_LEAST_NS 1000000u

static int class_of(int pairs)
{
	int c = pairs > 1 ? 31 - __builtin_clz((unsigned)pairs) : 0;

	return c < PULSE_CLASSES ? c : PULSE_CLASSES - 1;
}

static int bucket_of(uint64_t ns)
{
	int bit, b;

	if (ns < (uint64_t)1 << FIRST_BIT)
		return 0;
	bit = 63 - __builtin_clzll(ns);
	b = 2 * (bit - FIRST_BIT) + (int)(ns >> (bit - 1) & 1) + 1;
	return b < PULSE_BUCKETS ? b : PULSE_BUCKETS - 1;
}

/* Times in this bucket are shorter. */
static uint64_t bucket_end(int b)
{
	uint64_t whole = (uint64_t)1 << (FIRST_BIT + b / 2);

	return b % 2 ? whole + whole / 2 : whole;
}

void pulse_saw(struct pulse *h, int pairs, uint64_t ns)
{
	int c = class_of(pairs);

	h->seen[c][bucket_of(ns)]++;
	if (++h->count[c] < DECAY_AT)
		return;
	h->count[c] = 0;
	for (int b = 0; b < PULSE_BUCKETS; b++)
		h->count[c] = (uint16_t)(h->count[c] + (h->seen[c][b] /= 2));
}

static uint64_t share_of_class(const struct pulse *h, int c, double share)
{
	double want = share * h->count[c], met = 0;
	int b = 0;

	for (; b < PULSE_BUCKETS - 1; b++) {
		met += h->seen[c][b];
		if (met >= want && met > 0)
			break;
	}
	return bucket_end(b);
}

uint64_t pulse_share(const struct pulse *h, int pairs, double share)
{
	int c = class_of(pairs);

	/* Of another size, when there is none of this: smaller ones take less, in proportion at most. */
	for (int less = c; less >= 0; less--)
		if (h->count[less])
			return share_of_class(h, less, share) << (c - less);
	for (int more = c + 1; more < PULSE_CLASSES; more++)
		if (h->count[more])
			return share_of_class(h, more, share);
	return 0;
}

uint64_t pulse_patience(const struct pulse *h, int pairs, double ahead_ns)
{
	uint64_t p99 = pulse_share(h, pairs, 0.99), ns = LATE_FACTOR * p99;

	if (!p99)
		ns = PULSE_UNKNOWN_NS;
	return (ns > PULSE_LEAST_NS ? ns : PULSE_LEAST_NS) + (uint64_t)(2 * ahead_ns);
}

uint64_t pulse_hedge(const struct pulse *h, int pairs, double ahead_ns, double share)
{
	uint64_t ns = share > 0 ? pulse_share(h, pairs, share) : 0;

	if (!ns)
		return UINT64_MAX;
	return (ns > HEDGE_LEAST_NS ? ns : HEDGE_LEAST_NS) + (uint64_t)ahead_ns;
}

void pulse_good(struct pulse *h)
{
	h->suspect = false;
	h->failures = 0;
	h->pauses = 0;
	h->open_until = 0;
}

void pulse_failed(struct pulse *h, uint64_t now, uint64_t *random)
{
	if (++h->failures >= PULSE_FAILURES)
		pulse_pause(h, now, random);
}

void pulse_pause(struct pulse *h, uint64_t now, uint64_t *random)
{
	uint64_t ns = PULSE_PAUSE_NS;

	for (int i = 0; i < h->pauses && ns < PULSE_PAUSE_MOST_NS; i++)
		ns *= 2;
	ns = ns < PULSE_PAUSE_MOST_NS ? ns : PULSE_PAUSE_MOST_NS;
	h->pauses++;
	h->open_until = now + ns / 2 + pulse_random(random) % ns;
}

void pulse_try(struct pulse *h)
{
	h->open_until = 0;
	h->failures = PULSE_FAILURES - 1;
}

uint64_t pulse_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}
