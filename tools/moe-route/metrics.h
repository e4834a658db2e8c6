/* --metrics: what requests did, and how the fleet is loaded, over HTTP. */
#ifndef ROUTE_METRICS_H
#define ROUTE_METRICS_H

#include "client.h"
#include "route.h"
#include "watch/watch.h"

/* NULL everywhere: nobody watches, and nothing is done. */
struct metrics;

/* With --metrics: listen there, before the model is opened: /health says that it starts.  *out: metrics_close. */
int metrics_open(const struct route_options *o, const char *shards, struct metrics **out, struct moe_err *e);
void metrics_close(struct metrics *m);
/* Where the run is to count. */
struct moe_watch *metrics_watch(const struct metrics *m);
const char *metrics_address(const struct metrics *m);
/* The run is open; it is closed after metrics_leave. */
int metrics_run(struct metrics *m, const struct route_options *o, struct moe_run *run, struct moe_err *e);
void metrics_leave(struct metrics *m);

/* Before the event is handed on. */
void metrics_event(struct metrics *m, struct route_client *c, const struct moe_event *ev);
/* A request that the engine has never seen, or refused. */
void metrics_refused(struct metrics *m, const struct moe_err *why);
/* After each step of the engine. */
void metrics_step(struct metrics *m);

/* ---- balance.c: how evenly a run's tokens fall on servers ---- */

struct balance;
/* Counts what run's tokens choose, for the metrics moe_placement_imbalance_ratio and, with experts, moe_expert_tokens_total. */
int balance_open(struct moe_watch *w, struct moe_run *run, bool experts, struct balance **out, struct moe_err *e);
/* Bring the metrics up to date, when a while has passed. */
void balance_look(struct balance *b, uint64_t now);
void balance_close(struct balance *b);

#endif
