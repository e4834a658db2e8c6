/* Which experts a run's tokens chose, for who places experts or studies caches: counted and traced. */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/plan.h"
#include "run/run.h"

struct moe_tally {
	struct moe_run *run;
	const char *usage_path;      /* NULL: not wanted */
	struct moe_usage usage;
	struct moe_trace_writer *trace; /* NULL: not wanted, or it failed */
	struct moe_err err;          /* why it did */
};

static void on_route(void *ctx, const struct moe_routing *r)
{
	struct moe_tally *t = ctx;
	struct moe_trace_line line = {.request = r->id, .position = r->position, .layer = r->layer, .prefill = r->prefill,
	                              .n = r->k, .ids = r->ids};

	if (t->usage_path)
		moe_usage_add(&t->usage, r->layer, r->prefill, r->ids, r->weights, r->k);
	if (!t->trace || moe_trace_put(t->trace, &line, &t->err) == 0)
		return;
	moe_trace_drop(t->trace);
	t->trace = NULL;
}

int moe_tally_new(struct moe_run *r, const char *usage, const char *trace, struct moe_tally **out, struct moe_err *e)
{
	struct moe_tally *t = moe_calloc(1, sizeof *t, "usage", e);
	struct moe_hash fingerprint;
	int rc;

	if (!t)
		return MOE_E_NOMEM;
	t->usage_path = usage;
	t->run = r;
	rc = moe_source_fingerprint(r->source, &fingerprint, e);
	if (rc == 0 && usage)
		rc = moe_usage_new(r->model, fingerprint.hex, &t->usage, e);
	if (rc == 0 && trace)
		rc = moe_trace_create(trace, r->model, fingerprint.hex, &t->trace, e);
	if (rc) {
		moe_usage_free(&t->usage);
		free(t);
		return rc;
	}
	moe_run_listen(r, on_route, t);
	*out = t;
	return 0;
}

int moe_tally_end(struct moe_tally *t, struct moe_err *e)
{
	struct moe_err *why = t->err.code ? NULL : &t->err;
	int rc;

	moe_run_unlisten(t->run, t);
	if (t->usage_path && moe_usage_write(&t->usage, t->usage_path, why))
		why = NULL;
	if (t->trace)
		moe_trace_commit(t->trace, why);
	rc = t->err.code;
	if (rc && e)
		*e = t->err;
	moe_usage_free(&t->usage);
	free(t);
	return rc;
}
