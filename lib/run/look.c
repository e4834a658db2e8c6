/* Looking at servers without running anything. */
#include "run/private.h"

/* As the run itself would, so that a server which takes fewer rows is found out. */
static int max_rows(const struct moe_run_config *c)
{
	struct moe_engine_config engine = c->engine;

	engine.chunk = engine.chunk ? engine.chunk : MOE_RUN_CHUNK;
	engine.max_sequences = engine.max_sequences ? engine.max_sequences : MOE_RUN_BATCH;
	return moe_run_max_rows(&engine);
}

static int look(struct moe_run *r, const struct moe_run_config *c, struct moe_run_fleet *out, struct moe_err *e)
{
	int rc = moe_source_open(c->shards, &r->source, e);

	if (rc)
		return rc;
	r->model = &r->source->model;
	r->numerics = c->numerics;
	r->remote = true;
	rc = moe_run_servers(r, c, max_rows(c), e);
	if (rc)
		return rc;
	out->of = moe_experts_remote_fleet(r->experts);
	out->epoch = moe_experts_remote_stats(r->experts).epoch;
	moe_numerics_experts_id(&r->numerics, out->numerics);
	return moe_experts_remote_describe(r->experts, &out->servers, e);
}

int moe_run_look(const struct moe_run_config *c, struct moe_run_fleet *out, struct moe_err *e)
{
	struct moe_run *r = moe_calloc(1, sizeof *r, "a run", e);

	if (!r)
		return MOE_E_NOMEM;
	*out = (struct moe_run_fleet){.servers = MOE_BUF_INIT};

	int rc = look(r, c, out, e);

	moe_run_close(r);
	return rc;
}
