/* What happened, as a timeline like those that are predicted. */
#include "engine/engine.h"
#include "plan/plan.h"

int moe_spans_timeline(const struct moe_graph *g, const struct moe_span *spans, struct moe_timeline *out, struct moe_err *e)
{
	uint64_t first = UINT64_MAX;
	int rc = moe_timeline_new(g, out, e);

	if (rc)
		return rc;
	for (uint32_t i = 0; i < g->n; i++)
		if (spans[i].begin < first)
			first = spans[i].begin;
	for (uint32_t i = 0; i < g->n; i++) {
		out->begin[i] = (double)(spans[i].begin - first) / 1e9;
		out->end[i] = (double)(spans[i].end - first) / 1e9;
	}
	moe_timeline_sum(g, out);
	return 0;
}
