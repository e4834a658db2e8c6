/* What computes the probes of a set that is written: this host's processor, as servers do by default. */
#include "shard.h"

static int probe(void *ctx, const struct moe_model *m, int layer, const struct moe_expert_weights *w, uint64_t *out, struct moe_err *e)
{
	struct probes *p = ctx;

	return moe_probe_expert(p->backend, m, layer, w, out, e);
}

int probes_open(struct probes *p, int threads, struct moe_err *e)
{
	static const struct moe_numerics numerics = MOE_NUMERICS_INIT;
	int rc = moe_team_new(threads, &p->team, e);

	moe_numerics_experts_id(&numerics, p->numerics);
	p->how = (struct moe_shard_probe){.numerics = p->numerics, .fn = probe, .ctx = p};
	return rc ? rc : moe_backend_cpu(p->team, &numerics, &p->backend, e);
}

void probes_close(struct probes *p)
{
	if (p->backend)
		p->backend->ops->close(p->backend);
	moe_team_free(p->team);
}
