/* What the client tells of its servers. */
#include "net/told.h"

#include <stdio.h>

#include "base/clock.h"
#include "net/client.h"

const char *moe_ask_outcome_name(enum moe_ask_outcome o)
{
	switch (o) {
	case MOE_ASK_ANSWERED:
		return "answered";
	case MOE_ASK_LATE:
		return "late";
	case MOE_ASK_REFUSED:
		return "refused";
	case MOE_ASK_LOST:
		return "lost";
	}
	return "unknown";
}

/* ---- metrics ---- */

void told_start(struct told *t, struct moe_watch *w)
{
	*t = (struct told){
		.up = moe_watch_metric(w, MOE_GAUGE, "moe_expert_server_up", "Whether the server can be asked now.", "rank,endpoint", NULL, 0),
		.state = moe_watch_metric(w, MOE_GAUGE, "moe_expert_server_state",
		                          "0 joining, 1 ready, 2 suspect, 3 open, 4 draining, 5 gone.", "rank,endpoint", NULL, 0),
		.seconds = moe_watch_metric(w, MOE_HISTOGRAM, "moe_expert_rpc_seconds", "From a request to a server to its answer.", "rank",
		                            NULL, 0),
		.retries = moe_watch_metric(w, MOE_COUNTER, "moe_expert_retries_total",
		                            "Requests to a server that were lost or refused.", "rank,reason", NULL, 0),
		.open = moe_watch_metric(w, MOE_GAUGE, "moe_expert_breaker_open", "Whether the server is left alone after failures.", "rank",
		                         NULL, 0),
		.outstanding = moe_watch_metric(w, MOE_GAUGE, "moe_expert_outstanding", "Pairs asked of the server and not answered.", "rank",
		                                NULL, 0),
		.hedges = moe_watch_one(w, MOE_COUNTER, "moe_expert_hedges_total", "Requests sent to a second server because the first was late."),
		.epoch = moe_watch_one(w, MOE_GAUGE, "moe_fleet_epoch", "Epoch of the experts in use."),
		.degraded = moe_watch_one(w, MOE_COUNTER, "moe_fleet_degraded_rows_total", "Rows computed without some of their experts."),
	};
}

void told_join(struct remote *r, int link)
{
	const struct told *t = &r->told;
	struct link *l = &r->links[link];
	char rank[16];
	const char *labels[] = {rank, l->endpoint};

	if (l->told.rank == l->rank && l->told.up)
		return;
	snprintf(rank, sizeof rank, "%d", l->rank);
	told_leave(r, link);
	l->told = (struct told_link){
		.rank = l->rank, .up = moe_metric_series(t->up, labels), .state = moe_metric_series(t->state, labels),
		.seconds = moe_metric_series(t->seconds, labels), .open = moe_metric_series(t->open, labels),
		.outstanding = moe_metric_series(t->outstanding, labels),
	};
}

/* Series of a rank alone stay: another server may have it by now.  So do those of an endpoint that is listed twice. */
void told_leave(struct remote *r, int link)
{
	struct told_link *mine = &r->links[link].told;
	bool shared = false;

	for (int i = 0; i < r->n; i++)
		shared = shared || (i != link && r->links[i].socket && r->links[i].told.up == mine->up);
	if (!shared) {
		moe_series_remove(mine->up);
		moe_series_remove(mine->state);
	}
	*mine = (struct told_link){.up = NULL};
}

void told_gauges(struct remote *r)
{
	for (int i = 0; i < r->n; i++) {
		const struct link *l = &r->links[i];

		if (!l->socket)
			continue;
		news_look(r, i);
		moe_gauge(l->told.up, link_usable(l));
		moe_gauge(l->told.state, link_peer_state(l));
		moe_gauge(l->told.open, l->pulse.open_until != 0);
		moe_gauge(l->told.outstanding, l->pairs);
	}
	moe_gauge(r->told.epoch, (double)r->terms.identity.epoch);
	moe_count_to(r->told.degraded, r->stats.degraded);
}

void told_failure(struct remote *r, int link, const char *reason)
{
	char rank[16];
	const char *labels[] = {rank, reason};

	snprintf(rank, sizeof rank, "%d", r->links[link].rank);
	moe_count(moe_metric_series(r->told.retries, labels), 1);
}

void told_hedged(struct remote *r, int n)
{
	r->stats.hedged += (uint64_t)n;
	moe_count(r->told.hedges, (uint64_t)n);
}

/* ---- one message ---- */

void told_ask(struct remote *r, const struct flight *f, const struct ask *a, enum moe_ask_outcome outcome, const struct wire_reply *got)
{
	uint64_t now = r->on_ask || r->links[a->link].told.seconds ? moe_now_ns() : 0;
	const struct moe_ask ask = {
		.trace = f->b.trace, .batch = f->ticket, .rank = r->links[a->link].rank, .layer = f->b.layer, .rows = a->rows,
		.pairs = a->pairs, .again = a->again, .hedge = a->hedged, .sent_ns = a->sent, .answered_ns = now,
		.queue_ns = got ? got->queue_ns : 0, .compute_ns = got ? got->compute_ns : 0, .outcome = outcome,
	};

	if (got)
		moe_observe(r->links[a->link].told.seconds, (double)(now - a->sent) * 1e-9);
	if (r->on_ask)
		r->on_ask(r->ctx_ask, &ask);
}
