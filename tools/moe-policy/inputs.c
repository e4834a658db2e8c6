/* --model, --quant and the workload. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "policy.h"

#define WORKLOAD_CAP ((size_t)1 << 20)

static bool is_file_in(const char *dir, const char *name)
{
	char *path = moe_path_join(dir, name, NULL);
	bool there = path && moe_exists(path);

	free(path);
	return there;
}

static int open_model(const char *what, struct subject *s, struct moe_err *e)
{
	bool weights = is_file_in(what, "manifest.json") || moe_checkpoint_is(what);
	int rc;

	if (strncmp(what, "synth:", 6) == 0)
		return moe_synth_model(what + 6, &s->model, e);
	if (!moe_is_dir(what)) {
		rc = moe_named_model(what, &s->model, e);
		return rc == MOE_E_MISSING ? moe_fail_prefix(e, rc, "%s is no folder", what) : rc;
	}
	if (!weights)
		return moe_model_open(what, &s->model, e);
	rc = moe_source_open(what, &s->source, e);
	return rc ? rc : moe_model_copy(&s->source->model, &s->model, e);
}

/* An expert's three matrices in that quant. */
static uint64_t expert_bytes(const struct moe_model *m, int layer, enum moe_quant q)
{
	int64_t width = m->layers[layer].ffn.expert_width;
	struct moe_matrix up = {.rows = width, .cols = m->hidden, .quant = q}, down = {.rows = m->hidden, .cols = width, .quant = q};

	return 2 * moe_matrix_bytes(&up) + moe_matrix_bytes(&down);
}

/* The quant that experts of so many bytes have; MOE_Q_KEEP: not one of ours, or two bytes a weight. */
static enum moe_quant quant_of_bytes(const struct moe_model *m, int layer, uint64_t bytes)
{
	for (int q = MOE_Q_Q8; q < MOE_QUANTS; q++)
		if (expert_bytes(m, layer, (enum moe_quant)q) == bytes)
			return (enum moe_quant)q;
	return expert_bytes(m, layer, MOE_Q_F32) == bytes ? MOE_Q_F32 : MOE_Q_KEEP;
}

/* The quants of a folder's weights: of its experts, and of the rest what moe-shard makes of it then. */
static int find_quants(struct subject *s, struct moe_err *e)
{
	for (int l = 0; s->source && l < s->model.n_layers; l++) {
		enum moe_quant q;

		if (s->model.layers[l].ffn.kind != MOE_FFN_MOE)
			continue;
		q = quant_of_bytes(&s->model, l, moe_source_expert_bytes(s->source, l, 0));
		return q == MOE_Q_KEEP ? 0 : moe_quants_parse(moe_quant_name(q), &s->quants, e);
	}
	return 0;
}

static int choose_quants(const struct options *o, struct subject *s, struct moe_err *e)
{
	int rc;

	s->any_quant = o->quant && strcmp(o->quant, "auto") == 0;
	if (!o->quant || s->any_quant)
		return find_quants(s, e);
	rc = moe_quants_parse(o->quant, &s->quants, e);
	s->requantised = s->quants.experts != MOE_Q_KEEP;
	return rc ? moe_fail_prefix(e, rc, "--quant") : 0;
}

int subject_open(const struct options *o, struct subject *s, struct moe_err *e)
{
	int rc;

	*s = (struct subject){.quants = MOE_QUANTS_INIT};
	rc = open_model(o->model, s, e);
	rc = rc ? rc : choose_quants(o, s, e);
	if (rc)
		subject_close(s);
	return rc;
}

void subject_close(struct subject *s)
{
	moe_source_close(s->source);
	moe_model_free(&s->model);
	*s = (struct subject){.source = NULL};
}

uint64_t subject_expert_bytes(void *ctx, int layer, int expert)
{
	const struct subject *s = ctx;

	if (s->source && !s->requantised)
		return moe_source_expert_bytes(s->source, layer, expert);
	return expert_bytes(&s->model, layer, s->quants.experts == MOE_Q_KEEP ? MOE_Q_BF16 : s->quants.experts);
}

static int named_workload(const char *what, struct moe_workload *out, struct moe_err *e)
{
	struct moe_json *j;
	int rc;

	if (!moe_exists(what))
		return moe_workload_named(what, out, e);
	rc = moe_json_read(what, WORKLOAD_CAP, &j, e);
	if (rc)
		return rc;
	rc = moe_workload_from_json(j, what, out, e);
	moe_json_free(j);
	return rc;
}

/* --prompt and --generate change a workload that has a name; with both of them none is needed. */
int read_workload(const struct options *o, struct moe_workload *out, struct moe_err *e)
{
	struct moe_workload w = {.name = ""};
	bool own = o->prompt > 0 && o->generate > 0 && !o->workload;
	int rc = own ? 0 : named_workload(o->workload ? o->workload : "chat", &w, e);

	if (rc)
		return rc;
	if (o->prompt > 0) {
		w.prompt_mean = o->prompt;
		w.prompt_max = fmax(o->prompt, own ? 0 : w.prompt_max);
	}
	if (o->prompt_max > 0)
		w.prompt_max = o->prompt_max;
	if (o->generate > 0)
		w.generate = o->generate;
	w.padded |= o->padded;
	if (w.prompt_max < w.prompt_mean)
		return moe_fail(e, MOE_E_INPUT, "the longest prompt, %g tokens, is shorter than their mean, %g", w.prompt_max, w.prompt_mean);
	*out = w;
	return 0;
}
