/* A random checkpoint: what tensors it has, and one made in memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/opts.h"
#include "checkpoint/synth.h"

static int add(struct moe_synth_plan *p, enum moe_role role, int layer, int expert, struct moe_err *e)
{
	struct moe_synth_tensor t = {.id = {role, layer, expert}, .elements = 1};

	if (!moe_tensor_shape(&p->model, t.id, t.shape, &t.ndim)) /* not every layer has everything */
		return 0;
	moe_tensor_name(&p->model, t.id, t.name, sizeof t.name);
	t.quant = moe_role_may_be_coded(role) ? moe_quants_of(&p->spec.quants, role) : MOE_Q_KEEP;
	for (int i = 0; i < t.ndim; i++)
		t.elements *= (uint64_t)t.shape[i];
	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 256;
		struct moe_synth_tensor *v = moe_realloc(p->v, cap, sizeof *v, "tensor list", e);

		if (!v)
			return MOE_E_NOMEM;
		p->v = v;
		p->cap = cap;
	}
	p->v[p->n++] = t;
	return 0;
}

static int add_range(struct moe_synth_plan *p, enum moe_role first, enum moe_role last, int layer, int expert, struct moe_err *e)
{
	for (int r = first; r <= (int)last; r++) {
		int rc = add(p, (enum moe_role)r, layer, expert, e);

		if (rc)
			return rc;
	}
	return 0;
}

static int add_layer(struct moe_synth_plan *p, int layer, struct moe_err *e)
{
	int rc = add_range(p, MOE_R_ATTN_NORM, MOE_R_GATE, layer, -1, e);

	if (!rc && p->spec.fused)
		rc = add_range(p, MOE_R_EXPERTS_GATE_UP, MOE_R_EXPERTS_DOWN, layer, -1, e);
	for (int x = 0; !rc && !p->spec.fused && x < p->model.layers[layer].ffn.experts; x++)
		rc = add_range(p, MOE_R_EXPERT_GATE, MOE_R_EXPERT_DOWN, layer, x, e);
	return rc ? rc : add_range(p, MOE_R_SHARED_GATE, MOE_R_DENSE_DOWN, layer, -1, e);
}

static int add_all(struct moe_synth_plan *p, struct moe_err *e)
{
	int rc = add(p, MOE_R_EMBED, -1, -1, e);

	for (int i = 0; !rc && i < p->model.n_layers; i++)
		rc = add_layer(p, i, e);
	rc = rc ? rc : add(p, MOE_R_FINAL_NORM, -1, -1, e);
	return rc || p->model.tied ? rc : add(p, MOE_R_HEAD, -1, -1, e);
}

int moe_synth_plan(const char *spec, const char *config, struct moe_synth_plan *p, struct moe_err *e)
{
	int rc = moe_synth_parse(spec, &p->spec, e);

	rc = rc ? rc : moe_synth_describe(&p->spec, config, &p->config, &p->config_len, &p->model, e);
	return rc ? rc : add_all(p, e);
}

void moe_synth_plan_free(struct moe_synth_plan *p)
{
	moe_model_free(&p->model);
	free(p->v);
	free(p->config);
	*p = (struct moe_synth_plan){0};
}

/* As it lies in memory. */
static void describe(const struct moe_synth_plan *p, const struct moe_synth_tensor *x, struct moe_tensor *t, char *name,
                    size_t cap)
{
	*t = (struct moe_tensor){.name = x->name, .dtype = p->spec.dtype, .ndim = x->ndim};
	memcpy(t->shape, x->shape, sizeof t->shape);
	t->bytes = (size_t)x->elements * moe_dtype_size(t->dtype);
	if (x->quant == MOE_Q_KEEP)
		return;
	t->name = name;
	t->dtype = MOE_U8;
	moe_coded_entry(x->quant, MOE_L_R64, x->shape[0], x->shape[1], t->shape);
	t->bytes = (size_t)(t->shape[0] * t->shape[1]);
	snprintf(name, cap, "%s.%s.%s", x->name, moe_quant_name(x->quant), moe_layout_name(MOE_L_R64));
}

static uint64_t aligned_bytes(const struct moe_synth_plan *p, const struct moe_synth_tensor *x)
{
	char name[MOE_NAME_CAP + 16];
	struct moe_tensor t;

	describe(p, x, &t, name, sizeof name);
	return (t.bytes + 63) / 64 * 64;
}

static int check_memory(const struct moe_synth_plan *p, uint64_t *total, struct moe_err *e)
{
	char need[32], have[32];
	size_t available = moe_memory_available();

	*total = 0;
	for (size_t i = 0; i < p->n; i++)
		*total += aligned_bytes(p, &p->v[i]);
	if (*total <= available)
		return 0;
	return moe_fail(e, MOE_E_NOMEM, "synth:%s of %d layers needs %s of memory, %s are available; layers=N makes it smaller",
	                p->spec.name, p->model.n_layers, moe_size_text((double)*total, need),
	                moe_size_text((double)available, have));
}

static int make_one(struct moe_checkpoint *c, const struct moe_synth_plan *p, const struct moe_synth_tensor *x,
                    unsigned char *dst, struct moe_team *team, struct moe_err *e)
{
	char name[MOE_NAME_CAP + 16];
	struct moe_tensor t;
	int rc = 0;

	describe(p, x, &t, name, sizeof name);
	t.data = dst;
	if (x->quant == MOE_Q_KEEP)
		moe_synth_fill(p, x, 0, x->elements, dst, team);
	else
		rc = moe_synth_codes(p, x, dst, team, e);
	return rc ? rc : moe_tensors_add(c->tensors, &t, e);
}

static int make_all(struct moe_checkpoint *c, const struct moe_synth_plan *p, struct moe_err *e)
{
	struct moe_team *team;
	unsigned char *memory;
	uint64_t total;
	int rc = check_memory(p, &total, e);

	if (rc)
		return rc;
	memory = moe_aligned((size_t)total, "synthetic checkpoint", e);
	if (!memory)
		return MOE_E_NOMEM;
	rc = moe_tensors_own_memory(c->tensors, memory, e);
	if (rc) {
		free(memory);
		return rc;
	}
	rc = moe_team_new(0, &team, e);
	if (rc)
		return rc;
	for (size_t i = 0; !rc && i < p->n; i++) {
		rc = make_one(c, p, &p->v[i], memory, team, e);
		memory += aligned_bytes(p, &p->v[i]);
	}
	moe_team_free(team);
	return rc;
}

static int open_plan(struct moe_checkpoint *c, const char *spec, struct moe_synth_plan *p, struct moe_err *e)
{
	int rc = moe_synth_plan(spec, NULL, p, e);

	rc = rc ? rc : moe_tensors_new(&c->tensors, e);
	rc = rc ? rc : make_all(c, p, e);
	if (rc)
		return rc;
	c->path = moe_sprintf(e, "synth:%s", spec);
	if (!c->path)
		return MOE_E_NOMEM;
	c->model = p->model;
	c->config = p->config;
	c->config_len = p->config_len;
	p->model = (struct moe_model){0};
	p->config = NULL;
	return 0;
}

int moe_synth_open(const char *spec, struct moe_checkpoint **out, struct moe_err *e)
{
	struct moe_checkpoint *c = moe_calloc(1, sizeof *c, "checkpoint", e);
	struct moe_synth_plan p = {0};
	int rc;

	if (!c)
		return MOE_E_NOMEM;
	rc = open_plan(c, spec, &p, e);
	moe_synth_plan_free(&p);
	if (rc)
		moe_checkpoint_close(c);
	else
		*out = c;
	return rc;
}
