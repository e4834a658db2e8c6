/* --replay: caches of experts over a trace. */
#ifndef MOE_POLICY_REPLAY_H
#define MOE_POLICY_REPLAY_H

#include "policy.h"

struct replay_args {
	const char *trace;           /* --replay TRACE */
	const char *slots;           /* --slots N,...: experts a layer; NULL: an eighth, a quarter and half of them */
	const char *cache;           /* --cache lru|frequency|grace|all; NULL: all */
	int64_t grace;               /* --grace: tokens; below 0: 16 */
	bool shared, prompts;        /* --shared: one cache for all layers; --prompts: their tokens count too */
};
bool replay_is_asked(const struct replay_args *a); /* by any of the options */
/* What is wrong, in words; NULL: fine. */
const char *replay_conflict(const struct replay_args *a);
/* On stdout: a line for each number of slots with the shares of accesses that find their expert, and the verdict; with one cache
 * named, its layers too.  s NULL: the model is what the trace says, and bytes are not known. */
int print_replay(const struct replay_args *a, struct subject *s, struct moe_err *e);

#endif
