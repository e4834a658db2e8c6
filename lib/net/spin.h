/* Spin: look for something that may come within microseconds, before sleeping. */
#ifndef MOE_NET_SPIN_H
#define MOE_NET_SPIN_H

#include <stdbool.h>
#include <stdint.h>

struct spin {
	uint64_t ns;             /* how long; 0: not at all */
	int luck;                /* hits less misses, 0 to 8; 0: it has helped too seldom, and is tried only now and then */
	unsigned times;
};
void spin_start(struct spin *s, int microseconds);
/* Until ready(arg), which is cheap, or the time is over.  Whether it is ready.  Does not yield: where cores are short that would hand ours, for
 * milliseconds, to whoever waits for one, while a sleeper is woken at once. */
bool spin_until(struct spin *s, bool (*ready)(const void *arg), const void *arg);

#endif
