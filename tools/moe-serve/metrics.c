/* --metrics: what a server tells of itself over HTTP. */
#include <stdio.h>

#include "base/mem.h"
#include "metrics.h"

static int make_watch(const struct plan *p, int rank, struct metrics *m, struct moe_err *e)
{
	struct moe_buf labels = MOE_BUF_INIT;
	char number[16];
	int rc;

	if (rank == MOE_BASE)
		snprintf(number, sizeof number, "spare");
	else
		snprintf(number, sizeof number, "%d", rank);
	rc = moe_watch_label_model(&labels, p->source->path, e);
	rc = rc ? rc : moe_watch_label(&labels, "rank", number, e);
	if (rc == 0 && !(m->watch = moe_watch_new(labels.data, e)))
		rc = MOE_E_NOMEM;
	moe_buf_free(&labels);
	return rc ? rc : moe_watch_process(m->watch, e);
}

static const char *why_not(void *ctx)
{
	return atomic_load(&((struct metrics *)ctx)->trouble);
}

int metrics_open(const struct plan *p, int rank, struct metrics *m, struct moe_err *e)
{
	char at[512];
	int rc;

	if (!p->o.metrics)
		return 0;
	atomic_store(&m->trouble, "starting");
	rc = make_watch(p, rank, m, e);
	rc = rc ? rc : moe_http_nth(p->o.metrics, p->supervise ? rank - p->first : 0, at, sizeof at, e);
	rc = rc ? rc : moe_http_watch(at, m->watch, why_not, m, &m->http, e);
	return rc ? moe_fail_prefix(e, rc, "--metrics") : 0;
}

static void look(void *ctx)
{
	const struct metrics *m = ctx;
	struct moe_server_stats s = moe_server_stats(m->server);

	moe_count_to(m->requests, s.batches);
	moe_count_to(m->rows, s.rows);
	moe_count_to(m->pairs, s.pairs);
	moe_count_to(m->shed, s.shed);
	moe_count_to(m->received, s.bytes_in);
	moe_count_to(m->sent, s.bytes_out);
	moe_gauge(m->clients, (double)s.clients);
}

int metrics_of(struct metrics *m, struct moe_server *server, struct moe_err *e)
{
	m->server = server;
	m->requests = moe_watch_one(m->watch, MOE_COUNTER, "moe_serve_requests_total", "Messages answered.");
	m->rows = moe_watch_one(m->watch, MOE_COUNTER, "moe_serve_rows_total", "Rows of these.");
	m->pairs = moe_watch_one(m->watch, MOE_COUNTER, "moe_serve_pairs_total", "Pairs of row and expert of these.");
	m->shed = moe_watch_one(m->watch, MOE_COUNTER, "moe_serve_shed_total", "Messages that gave way to others, or could not be done in time.");
	m->received = moe_watch_one(m->watch, MOE_COUNTER, "moe_serve_received_bytes_total", "Bytes of messages that came.");
	m->sent = moe_watch_one(m->watch, MOE_COUNTER, "moe_serve_sent_bytes_total", "Bytes of messages that went.");
	m->clients = moe_watch_one(m->watch, MOE_GAUGE, "moe_serve_clients", "Clients that it knows.");
	return moe_watch_before(m->watch, look, m, e);
}

void metrics_health(struct metrics *m, const char *why)
{
	atomic_store(&m->trouble, why);
}

void metrics_hide(struct metrics *m)
{
	moe_http_stop(m->http);
	m->http = NULL;
}

void metrics_close(struct metrics *m)
{
	metrics_hide(m);
	moe_watch_free(m->watch);
}
