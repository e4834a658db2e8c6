/* Told: what the client counts of its servers for others to read, and what became of each message. */
#ifndef MOE_NET_TOLD_H
#define MOE_NET_TOLD_H

#include "net/net.h"
#include "watch/watch.h"

/* One server's series; made when its rank is known. */
struct told_link {
	int rank;
	struct moe_series *up, *state, *seconds, *open, *outstanding;
};

struct told {
	struct moe_metric *up, *state, *seconds, *retries, *open, *outstanding;
	struct moe_series *hedges, *epoch, *degraded;
};

struct remote;
struct flight;
struct ask;
struct wire_reply;

void told_start(struct told *t, struct moe_watch *w);
/* The server's rank is known, or another one's by now; it is not listed any more. */
void told_join(struct remote *r, int link);
void told_leave(struct remote *r, int link);
/* Bring gauges up to date. */
void told_gauges(struct remote *r);
/* A message to a server failed; n messages were sent because others are late. */
void told_failure(struct remote *r, int link, const char *reason);
void told_hedged(struct remote *r, int n);
/* What became of an ask; got: its answer, or NULL. */
void told_ask(struct remote *r, const struct flight *f, const struct ask *a, enum moe_ask_outcome outcome, const struct wire_reply *got);

#endif
