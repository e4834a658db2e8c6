/* Pieces as they are to be: in another quant, and what is to be coded as three tensors an expert. */
#include <stdlib.h>
#include <string.h>

#include "shard/private.h"

struct recoder {
	const struct moe_model *m;
	const struct moe_quant_plan *plan;
	const struct moe_placement *placement;
	struct moe_pieces out;
	bool split; /* experts that come as parts of fused tensors become three tensors */
};

/* Rows [row, row + rows) of a part of a fused tensor as the tensor that the family has for them. */
static int add_rows(struct recoder *r, const struct moe_piece *p, enum moe_role role, int64_t row, int64_t rows,
                    struct moe_err *e)
{
	struct moe_piece *x = &r->out.v[r->out.n];
	struct moe_tensor_id id = {role, p->id.layer, p->id.expert};
	char name[256];

	if (!moe_tensor_name(r->m, id, name, sizeof name))
		return moe_fail(e, MOE_E_RANGE, "%s: a %s model has no such tensor", p->name, r->m->name);
	*x = *p;
	x->id = id;
	x->name = x->own_name = moe_strdup(name, e);
	if (!x->own_name)
		return MOE_E_NOMEM;
	r->out.n++;
	x->rows = rows;
	x->row = p->row + row;
	x->view.shape[0] = rows;
	x->view.bytes = p->view.bytes / (size_t)p->rows * (size_t)rows;
	if (x->view.data)
		x->view.data += p->view.bytes / (size_t)p->rows * (size_t)row;
	return 0;
}

/* The piece itself, its names now the new list's. */
static int move(struct recoder *r, struct moe_piece *p)
{
	r->out.v[r->out.n++] = *p;
	p->own_name = p->packed_name = NULL;
	return 0;
}

static int add(struct recoder *r, struct moe_piece *p, struct moe_err *e)
{
	int64_t half = p->rows / 2;
	int rc;

	if (r->split && p->id.role == MOE_R_EXPERT_DOWN_PART)
		return add_rows(r, p, MOE_R_EXPERT_DOWN, 0, p->rows, e);
	if (!r->split || p->id.role != MOE_R_EXPERT_GATE_UP)
		return move(r, p);
	rc = add_rows(r, p, MOE_R_EXPERT_GATE, 0, half, e);
	return rc ? rc : add_rows(r, p, MOE_R_EXPERT_UP, half, half, e);
}

static enum moe_dtype dtype_of(enum moe_quant q)
{
	return q == MOE_Q_F32 ? MOE_F32 : q == MOE_Q_F16 ? MOE_F16 : MOE_BF16;
}

/* Its columns' importance.  Of the embedding no product is made: it may have none. */
static int weigh(struct moe_piece *p, const struct moe_tensors *importance, struct moe_err *e)
{
	const struct moe_tensor *t = moe_tensors_find(importance, p->name);

	if (!t && p->id.role == MOE_R_EMBED)
		return 0;
	if (!t)
		return moe_fail(e, MOE_E_MISSING, "the importance file says nothing of tensor %s", p->name);
	if (t->dtype != MOE_F32 || t->ndim != 1 || t->shape[0] != p->cols || (uintptr_t)t->data % sizeof(float) != 0)
		return moe_fail(e, MOE_E_INPUT, "the importance of tensor %s is not %lld aligned F32 values", p->name, (long long)p->cols);
	p->importance = (const float *)(const void *)t->data;
	return 0;
}

static int turn(struct moe_piece *p, enum moe_quant q, const struct moe_tensors *importance, struct moe_err *e)
{
	int rc = 0;

	if (q == MOE_Q_KEEP || q == p->quant)
		return 0;
	if (p->packed_name)
		return moe_fail(e, MOE_E_UNSUPPORTED, "tensor %s is coded already and does not become %s: that takes the checkpoint "
		                "it was made of", p->from->name, moe_quant_name(q));
	if (moe_quant_is_coded(q) && q != MOE_Q_Q8 && importance)
		rc = weigh(p, importance, e);
	if (rc)
		return rc;
	if (moe_quant_is_coded(q))
		return moe_piece_code(p, p->name, strlen(p->name), q, p->rows, p->cols, e);
	p->view.dtype = dtype_of(q);
	p->view.bytes = (size_t)p->rows * (size_t)p->cols * moe_dtype_size(p->view.dtype);
	p->view.data = NULL;
	p->quant = q;
	return 0;
}

static int recode(struct recoder *r, struct moe_pieces *p, struct moe_err *e)
{
	int rc = 0;

	r->split = moe_quant_plan_codes_experts(r->plan, r->placement);
	r->out.v = moe_calloc(2 * p->n, sizeof *r->out.v, "tensor list", e);
	if (!r->out.v)
		return MOE_E_NOMEM;
	for (size_t i = 0; i < p->n && rc == 0; i++)
		rc = add(r, &p->v[i], e);
	for (size_t i = 0; i < r->out.n && rc == 0; i++) {
		enum moe_quant q;

		rc = moe_quant_plan_of(r->plan, r->placement, r->out.v[i].id, &q, e);
		rc = rc ? rc : turn(&r->out.v[i], q, r->plan->importance, e);
	}
	return rc;
}

/* A layout that is asked for must have something to be the layout of. */
static int check_layout(const struct moe_pieces *p, const struct moe_quant_plan *plan, struct moe_err *e)
{
	if (!plan->layout_said || plan->layout == MOE_L_PLAIN)
		return 0;
	for (size_t i = 0; i < p->n; i++)
		if (p->v[i].packed_name)
			return 0;
	return moe_fail(e, MOE_E_RANGE, "nothing to pack: without --quant these tensors stay as they are, layout plain");
}

/* Importance that is given must change something. */
static int check_importance(const struct moe_pieces *p, const struct moe_quant_plan *plan, struct moe_err *e)
{
	if (!plan->importance)
		return 0;
	for (size_t i = 0; i < p->n; i++)
		if (p->v[i].importance)
			return 0;
	return moe_fail(e, MOE_E_RANGE, "importance is for tensors that become q4, q3 or q2, and none does");
}

int moe_pieces_recode(const struct moe_model *m, struct moe_pieces *p, const struct moe_quant_plan *plan,
                      const struct moe_placement *placement, struct moe_err *e)
{
	struct recoder r = {.m = m, .plan = plan, .placement = placement};
	int rc = recode(&r, p, e);

	rc = rc ? rc : check_layout(&r.out, plan, e);
	rc = rc ? rc : check_importance(&r.out, plan, e);
	if (rc) {
		moe_pieces_free(&r.out);
		return rc;
	}
	moe_pieces_free(p);
	*p = r.out;
	moe_pieces_sort(p);
	return 0;
}
