/* What happened, or would, as a timeline like those that are predicted. */
#include "engine/engine.h"
#include "engine/executor.h"
#include "plan/plan.h"

int moe_graph_rehearse(const struct moe_graph *g, double (*seconds)(void *ctx, const struct moe_task *t), void *ctx, struct moe_span *spans,
                       struct moe_err *e)
{
	const struct moe_executor_config c = {.seconds = seconds, .ctx = ctx};
	struct moe_executor *x;
	int rc = moe_executor_open(&c, &x, e);

	if (rc)
		return rc;
	rc = moe_executor_run(x, g, spans, NULL, e);
	moe_executor_close(x);
	return rc;
}

static bool left_out(const struct moe_span *s)
{
	return s->begin == MOE_SPAN_NONE;
}

int moe_spans_timeline(const struct moe_graph *g, const struct moe_span *spans, struct moe_timeline *out, struct moe_err *e)
{
	uint64_t first = UINT64_MAX, last = 0;
	int rc = moe_timeline_new(g, out, e);

	if (rc)
		return rc;
	for (uint32_t i = 0; i < g->n; i++)
		if (!left_out(&spans[i])) {
			first = spans[i].begin < first ? spans[i].begin : first;
			last = spans[i].end > last ? spans[i].end : last;
		}
	for (uint32_t i = 0; i < g->n && first <= last; i++) {
		out->begin[i] = (double)((left_out(&spans[i]) ? last : spans[i].begin) - first) / 1e9;
		out->end[i] = (double)((left_out(&spans[i]) ? last : spans[i].end) - first) / 1e9;
	}
	moe_timeline_sum(g, out);
	return 0;
}
