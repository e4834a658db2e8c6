/* Any text as config.json: refused, or a model whose numbers fit together. The same text as generation_config.json
 * too.  Then names are made and read back, which must agree. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/private.h"

static void demand(int ok)
{
	if (!ok)
		abort();
}

static void check_layer(const struct moe_model *m, const struct moe_layer *l)
{
	const struct moe_attention *a = &l->attn;
	const struct moe_ffn *f = &l->ffn;

	demand(a->heads >= 1 && a->kv_heads >= 1 && a->heads % a->kv_heads == 0);
	demand(a->head_dim >= 2 && a->head_dim % 2 == 0 && a->rope.dims == a->head_dim);
	demand(a->window >= 0 && a->clip >= 0 && isfinite(a->clip) && a->scale > 0);
	demand(a->rope.theta > 0 && isfinite(a->rope.theta) && a->rope.factor > 0 && isfinite(a->rope.factor));
	if (f->kind == MOE_FFN_DENSE)
		demand(f->width >= 1 && !f->experts && !f->shared_width && !f->shared_gate);
	else
		demand(!f->width && f->expert_width >= 1 && f->gate.top_k >= 1 && f->gate.top_k <= f->experts);
	demand(m->n_eos >= 0 && m->n_eos <= 16 && m->bos >= -1 && m->bos < m->vocab);
	for (int i = 0; i < m->n_eos; i++)
		demand(m->eos[i] >= 0 && m->eos[i] < m->vocab);
}

static void check_names(const struct moe_model *m, int layer)
{
	for (int r = 0; r < MOE_ROLES; r++)
		for (int expert = -1; expert < 2; expert++) {
			struct moe_tensor_id id = {(enum moe_role)r, layer, expert}, back;
			char name[MOE_NAME_CAP];

			if (!moe_tensor_name(m, id, name, sizeof name))
				continue;
			demand(moe_tensor_identify(m, name, &back) && back.role == id.role);
			demand(back.layer == layer || back.layer == -1);
		}
}

static void check_model(const struct moe_model *m)
{
	demand(m->family && m->hidden >= 1 && m->vocab >= 1 && m->n_layers >= 1 && m->max_positions >= 1);
	demand(m->norm_eps > 0 && moe_model_moe_layers(m) >= 1);
	for (int i = 0; i < m->n_layers; i++)
		check_layer(m, &m->layers[i]);
	check_names(m, 0);
	check_names(m, m->n_layers - 1);
	demand(moe_model_parameters(m, true) <= moe_model_parameters(m, false));
	demand(moe_model_parameters(m, false) < (uint64_t)1 << 60);
	demand(moe_model_kv_bytes_per_token(m, 4) > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moe_json *json;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_model m;

	if (moe_json_parse((const char *)data, size, "c", &json, NULL))
		return 0;
	if (moe_model_from_config(json, "c", &m, &e)) {
		demand(e.code != 0 && e.msg[0] == 'c');
	} else {
		check_model(&m);
		if (moe_model_add_generation(&m, json, "c", &e) == 0)
			check_model(&m);
		moe_model_free(&m);
	}
	moe_json_free(json);
	return 0;
}
