/* Are experts that were just loaded fit to answer for those before? */
#include <string.h>

#include "run/hold.h"

struct checker {
	const struct moe_source *s;
	const struct moe_tensors *t;
	struct moe_team *team;
	struct moe_backend *backend; /* NULL: there are no probes to compare */
};

/* Probes are for the numerics that a server has when nobody says otherwise, whatever this one computes with, and on. */
static int open_checker(struct checker *c, struct moe_err *e)
{
	static const struct moe_numerics numerics = MOE_NUMERICS_INIT;
	char text[MOE_NUMERICS_TEXT];
	int rc;

	moe_numerics_experts_id(&numerics, text);
	if (!c->s->sharded || strcmp(text, c->s->manifest.probes) != 0)
		return 0;
	rc = moe_team_new(1, &c->team, e);
	return rc ? rc : moe_backend_cpu(c->team, &numerics, &c->backend, e);
}

static void close_checker(struct checker *c)
{
	if (c->backend)
		c->backend->ops->close(c->backend);
	moe_team_free(c->team);
}

static int compare_probe(const struct checker *c, int layer, int expert, const struct moe_expert_weights *w, struct moe_err *e)
{
	const struct moe_manifest_expert *x = moe_source_expert(c->s, MOE_BASE, layer, expert);
	uint64_t found;
	int rc = moe_probe_expert(c->backend, &c->s->model, layer, w, &found, e);

	if (rc || !x || x->probe == found)
		return rc;
	return moe_fail(e, MOE_E_INPUT, "its answer to the probe is not what the manifest says (%016llx, not %016llx)", (unsigned long long)found,
	                (unsigned long long)x->probe);
}

static int check_one(const struct checker *c, int layer, int expert, struct moe_err *e)
{
	struct moe_expert_weights w;
	int rc = moe_bind_expert(c->t, &c->s->model, layer, expert, &w, e);

	if (!rc && !(moe_matrix_finite(&w.gate) && moe_matrix_finite(&w.up) && moe_matrix_finite(&w.down)))
		rc = moe_fail(e, MOE_E_INPUT, "one of its weights is not finite");
	if (!rc && c->backend)
		rc = compare_probe(c, layer, expert, &w, e);
	return rc ? moe_fail_prefix(e, rc, "%s: layer %d, expert %d", c->s->path, layer, expert) : 0;
}

int check_experts(const struct moe_source *s, const struct moe_tensors *t, const uint8_t *want, const struct moe_load_tick *tick,
                  bool *probed, struct moe_err *e)
{
	struct checker c = {.s = s, .t = t};
	int wide = moe_model_max_experts(&s->model), rc = open_checker(&c, e);
	uint64_t done = 0;

	*probed = c.backend != NULL;
	for (int l = 0; l < s->model.n_layers && !rc; l++)
		for (int x = 0; x < s->model.layers[l].ffn.experts && !rc; x++) {
			if (!want[l * wide + x])
				continue;
			rc = check_one(&c, l, x, e);
			done++;
			if (!rc && tick->fn && !tick->fn(tick->ctx, done, done))
				rc = moe_fail(e, MOE_E_CANCELLED, "stopped while checking experts");
		}
	close_checker(&c);
	return rc ? rc : moe_tensors_check(t, e);
}
