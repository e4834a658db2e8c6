/* --timeline: where the time of one request went, as a file for about:tracing and Perfetto. */
#ifndef ROUTE_TIMELINE_H
#define ROUTE_TIMELINE_H

#include "route.h"

/* NULL everywhere: no timeline is wanted. */
struct timeline;

int timeline_new(const struct route_options *o, struct timeline **out, struct moe_err *e);
/* A request was taken by the engine; id: as JSON text.  The one that is wanted is told to the engine. */
void timeline_submitted(struct timeline *t, struct moe_engine *g, uint64_t engine_id, const char *id);
void timeline_event(struct timeline *t, const struct moe_event *ev);
/* moe_ask_fn: ctx is the timeline. */
void timeline_ask(void *ctx, const struct moe_ask *a);
/* Write the file.  MOE_E_MISSING: there was no such request. */
int timeline_write(const struct timeline *t, struct moe_err *e);
void timeline_free(struct timeline *t);

#endif
