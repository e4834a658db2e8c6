/* Those who want to hear which experts are chosen: the engine tells one, and that is us. */
#include "run/run.h"

static void tell(void *ctx, const struct moe_routing *routing)
{
	const struct moe_run *r = ctx;

	for (int i = 0; i < MOE_RUN_LISTENERS; i++)
		if (r->listeners[i].fn)
			r->listeners[i].fn(r->listeners[i].ctx, routing);
}

void moe_run_listen(struct moe_run *r, moe_route_fn *fn, void *ctx)
{
	for (int i = 0; i < MOE_RUN_LISTENERS; i++)
		if (!r->listeners[i].fn) {
			r->listeners[i] = (struct moe_listener){fn, ctx};
			break;
		}
	moe_engine_on_route(r->engine, tell, r);
}

void moe_run_unlisten(struct moe_run *r, const void *ctx)
{
	bool any = false;

	for (int i = 0; i < MOE_RUN_LISTENERS; i++) {
		if (r->listeners[i].ctx == ctx)
			r->listeners[i] = (struct moe_listener){NULL, NULL};
		any = any || r->listeners[i].fn;
	}
	if (!any)
		moe_engine_on_route(r->engine, NULL, NULL);
}
