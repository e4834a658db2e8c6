/* Spin: look for something that may come within microseconds, before sleeping. */
#ifndef MOE_NET_SPIN_H
#define MOE_NET_SPIN_H

#include <stdbool.h>
#include <stdint.h>

struct spin {
	uint64_t ns;             /* how long; 0: not at all */
	int luck;                /* 0: it has not helped lately, so it is tried only now and then */
	unsigned times;
};
void spin_start(struct spin *s, int microseconds);
/* Until ready(arg), which is cheap, or the time is over.  Gives its core to whoever waits for one.  Whether it is ready. */
bool spin_until(struct spin *s, bool (*ready)(const void *arg), const void *arg);

#endif
