#include "net/server_watch.h"

#include "net/server.h"

void server_watch_open(struct moe_server *s)
{
	struct moe_watch *w = s->c.watch;
	struct server_watch *v = &s->watch;

	v->refused = moe_watch_metric(w, MOE_COUNTER, "moe_serve_refused_total", "Messages answered with an error, or not understood.", "code", NULL, 0);
	v->depth = moe_watch_one(w, MOE_GAUGE, "moe_serve_queue_depth", "Messages that wait.");
	v->queue_seconds = moe_watch_one(w, MOE_HISTOGRAM, "moe_serve_queue_seconds", "How long messages waited.");
	v->compute_seconds = moe_watch_one(w, MOE_HISTOGRAM, "moe_serve_compute_seconds", "How long they took to compute.");
	v->held = moe_watch_one(w, MOE_GAUGE, "moe_serve_held_experts", "Experts that it holds, of the newest epoch.");
	v->epoch = moe_watch_one(w, MOE_GAUGE, "moe_serve_epoch", "The newest epoch that it offers.");
	v->loading = moe_watch_one(w, MOE_GAUGE, "moe_serve_loading", "1 while experts are loaded beside those that are served.");
	v->trouble = moe_watch_one(w, MOE_GAUGE, "moe_serve_trouble", "1 after something went wrong, such as loading experts, until it goes right.");
	server_watch_holds(s);
}

void server_watch_refused(struct moe_server *s, int code)
{
	struct server_watch *v = &s->watch;
	const char *name = moe_code_name(code);

	s->refused++;
	if (code < 0 || code > MOE_E_MISSING)
		return;
	if (!v->by_code[code])
		v->by_code[code] = moe_metric_series(v->refused, &name);
	moe_count(v->by_code[code], 1);
}

void server_watch_holds(struct moe_server *s)
{
	const struct moe_hold *newest = holds_newest(s);

	moe_gauge(s->watch.held, wire_count_held(s->c.model, newest->has));
	moe_gauge(s->watch.epoch, (double)newest->epoch);
}
