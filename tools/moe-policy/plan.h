/* The plan itself: where experts go, how a batch is run, what is printed of it. */
#ifndef MOE_POLICY_PLAN_H
#define MOE_POLICY_PLAN_H

#include "place.h"

/* On stdout what the command line asks for; where->how is filled in when nothing was said. */
int plan(const struct options *o, struct place_args *where, struct moe_err *e);

#endif
