/* A team of threads that divides one piece of work at a time. */
#ifndef MOE_BASE_TEAM_H
#define MOE_BASE_TEAM_H

#include <pthread.h>
#include <stddef.h>

#include "base/err.h"

/* A thread of one's own, ended by pthread_join.  Like those of a team it leaves signals to the threads that expect them.  MOE_E_NOMEM:
 * the system has no more. */
int moe_thread_start(void *(*fn)(void *), void *arg, pthread_t *out, struct moe_err *e);

struct moe_team;

/* `threads` in all, the caller's included (1: no thread is made; 0: one per usable core, as sched_getaffinity
 * says).  Caller owns, moe_team_free. */
int moe_team_new(int threads, struct moe_team **out, struct moe_err *e);
void moe_team_free(struct moe_team *t);
int moe_team_size(const struct moe_team *t);

/* Call fn(arg, piece, worker) for every piece in 0..pieces-1, each once, by whichever thread is free; worker is
 * 0..size-1.  Returns when all are done.  Everything written before is seen by fn, everything fn wrote is seen
 * after.  One caller at a time; fn must not call it again.  Idle threads spin briefly, then sleep. */
void moe_team_run(struct moe_team *t, size_t pieces, void (*fn)(void *arg, size_t piece, int worker), void *arg);

#endif
