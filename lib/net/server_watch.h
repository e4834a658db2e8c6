/* What a server counts for who watches it (watch.h); all of it may be NULL. */
#ifndef MOE_NET_SERVER_WATCH_H
#define MOE_NET_SERVER_WATCH_H

#include "base/err.h"
#include "watch/watch.h"

struct server_watch {
	struct moe_metric *refused;
	struct moe_series *by_code[MOE_E_MISSING + 1]; /* of these, those that were needed so far */
	struct moe_series *depth, *queue_seconds, *compute_seconds, *held, *epoch, *loading, *trouble;
};

struct moe_server;
void server_watch_open(struct moe_server *s);
/* A message was answered with an error of this code. */
void server_watch_refused(struct moe_server *s, int code);
/* The newest hold has changed. */
void server_watch_holds(struct moe_server *s);

#endif
