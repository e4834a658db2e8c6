/* One expert as bytes: whether kernels can read them, how many they are, where its matrices begin. */
#include "pool/private.h"

static int check_matrix(const struct moe_matrix *x, int layer, int expert, struct moe_err *e)
{
	if (!x->data)
		return moe_fail(e, MOE_E_UNSUPPORTED, "layer %d, expert %d: its weights are coded by another tool and have to be made first",
		                layer, expert);
	if (moe_quant_is_coded(x->quant) && x->layout != MOE_L_R64)
		return moe_fail(e, MOE_E_UNSUPPORTED, "layer %d, expert %d: kernels read %s in the layout %s, it lies in %s", layer, expert,
		                moe_quant_name(x->quant), moe_layout_name(MOE_L_R64), moe_layout_name(x->layout));
	return 0;
}

int moe_pool_bind(const struct moe_tensors *s, const struct moe_model *m, int layer, int expert,
                  struct moe_expert_weights *out, struct moe_err *e)
{
	int rc = moe_bind_expert(s, m, layer, expert, out, e);

	rc = rc ? rc : check_matrix(&out->gate, layer, expert, e);
	rc = rc ? rc : check_matrix(&out->up, layer, expert, e);
	return rc ? rc : check_matrix(&out->down, layer, expert, e);
}

struct moe_expert_weights moe_pool_imagine(const struct moe_model *m, int layer, enum moe_quant q)
{
	int64_t width = m->layers[layer].ffn.expert_width;
	struct moe_matrix in = {.quant = q, .layout = moe_quant_is_coded(q) ? MOE_L_R64 : MOE_L_PLAIN, .rows = width,
	                        .cols = m->hidden};
	struct moe_matrix down = in;

	down.rows = m->hidden;
	down.cols = width;
	return (struct moe_expert_weights){in, in, down};
}

void moe_pool_parts(const struct moe_expert_weights *w, struct moe_pool_part out[3])
{
	const struct moe_matrix *const m[3] = {&w->gate, &w->up, &w->down};
	size_t at = 0;

	for (int i = 0; i < 3; i++) {
		out[i] = (struct moe_pool_part){at, moe_matrix_bytes(m[i]), m[i]->data};
		at += moe_pool_round(out[i].bytes);
	}
}

size_t moe_pool_expert_bytes(const struct moe_expert_weights *w)
{
	struct moe_pool_part parts[3];

	moe_pool_parts(w, parts);
	return parts[2].at + moe_pool_round(parts[2].bytes);
}

struct moe_expert_weights moe_pool_at(const struct moe_expert_weights *w, const unsigned char *base)
{
	struct moe_expert_weights there = *w;
	struct moe_pool_part parts[3];

	moe_pool_parts(w, parts);
	there.gate.data = base + parts[0].at;
	there.up.data = base + parts[1].at;
	there.down.data = base + parts[2].at;
	return there;
}

int moe_pool_copy_in(struct moe_backend *b, struct moe_stream_q *q, unsigned char *to, const struct moe_expert_weights *w,
                     struct moe_err *e)
{
	struct moe_pool_part parts[3];
	int rc = 0;

	moe_pool_parts(w, parts);
	for (int i = 0; i < 3 && rc == 0; i++)
		rc = b->ops->copy_in(b, q, to + parts[i].at, parts[i].data, parts[i].bytes, e);
	return rc;
}
