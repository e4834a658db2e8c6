/* --metrics: what a server tells of itself over HTTP. */
#include <stdio.h>

#include "base/mem.h"
#include "metrics.h"

static int make_watch(const struct plan *p, int rank, struct metrics *m, struct moe_err *e)
{
	struct moe_buf labels = MOE_BUF_INIT;
	char number[16];
	int rc;

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
