/* Time and progress. */
#ifndef MOE_BASE_CLOCK_H
#define MOE_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

uint64_t moe_now_ns(void);  /* monotonic */
/* Now, as 2026-01-31T12:00:00Z (buf >= 32). */
const char *moe_time_text(char *buf);

/* A progress bar on stderr, shown only when stderr is a terminal, not -q, and work has taken over a second. */
struct moe_progress {
	const char *what;
	uint64_t total, done, start, shown;
	bool on, drawn;
};
void moe_progress_start(struct moe_progress *p, const char *what, uint64_t total_bytes);
void moe_progress_add(struct moe_progress *p, uint64_t bytes); /* one thread at a time */
void moe_progress_end(struct moe_progress *p);                 /* wipes the line */
/* For functions that call back with the bytes done so far and in all.  p: a struct moe_progress of which only `what` is
 * set, and which starts anew with another total; moe_progress_end when the function has returned.  Always true. */
bool moe_progress_tick(void *p, uint64_t done, uint64_t total);

#endif
