/* GPTQ and AWQ: packed integers of the transposed matrix, a half scale and a packed zero point for every output and
 * group of inputs.
 *
 *   GPTQ   qweight [in * bits / 32, out]: 32 inputs of an output in `bits` words; qzeros [groups, out * bits / 32], stored
 *          less one unless the format is gptq_v2; scales [groups, out]; g_idx [in]: the group of each input
 *   AWQ    qweight [in, out / 8]: 8 outputs in a word, in the order 0 2 4 6 1 3 5 7; qzeros [groups, out / 8] alike;
 *          scales [groups, out] */
#include <stdio.h>
#include <string.h>

#include "checkpoint/coded.h"

#define ENDING strlen(".weight")

struct parts {
	const struct moe_tensor *codes, *zeros, *scales, *group_of;
};

/* Groups of columns; the last may be shorter. */
static void set_groups(struct moe_turned *x, int64_t group, int64_t cols)
{
	x->group = group < 0 || group > cols ? cols : group;
	x->groups = moe_coded_ceil(cols, x->group);
}

static void use(struct moe_turned *x, const struct parts *p)
{
	const struct moe_tensor *const all[] = {p->codes, p->zeros, p->scales, p->group_of};

	for (int i = 0; i < 4; i++)
		if (all[i])
			moe_coded_uses(&x->coded, all[i]);
	x->codes = p->codes->data;
	x->zeros = p->zeros->data;
	x->scales = p->scales->data;
	x->scale_type = p->scales->dtype;
	x->group_of = p->group_of ? p->group_of->data : NULL;
}

static int find_parts(const struct moe_coder *c, const char *name, struct parts *p, struct moe_err *e)
{
	int rc = moe_coded_need(c, name, ENDING, ".qzeros", &p->zeros, e);

	rc = rc ? rc : moe_coded_need(c, name, ENDING, ".scales", &p->scales, e);
	return rc ? rc : moe_coded_floats(p->scales, e);
}

/* GPTQ's only. */
static int find_order(const struct moe_coder *c, const char *name, const struct moe_tensor **out, struct moe_err *e)
{
	if (c->q->act_order)
		return moe_coded_need(c, name, ENDING, ".g_idx", out, e);
	*out = moe_coded_part(c, name, ENDING, ".g_idx");
	return 0;
}

static int add(struct moe_coder *c, const char *name, const int64_t *shape, const struct moe_turned *made,
               const struct parts *p, struct moe_err *e)
{
	struct moe_turned *x = moe_turned_new(made->bits, made->awq, e);

	if (!x)
		return MOE_E_NOMEM;
	x->group = made->group;
	x->groups = made->groups;
	x->zeros_less_one = c->q->zeros_less_one;
	snprintf(x->coded.name, sizeof x->coded.name, "%s %d-bit", c->q->name, x->bits);
	use(x, p);
	return moe_coded_add(c, name, shape[0], shape[1], &x->coded, e);
}

int moe_coded_gptq(struct moe_coder *c, const char *name, const struct moe_tensor *codes, struct moe_err *e)
{
	const struct moe_scheme *s = &c->q->v[0];
	struct moe_turned x = {.bits = s->bits};
	struct parts p = {.codes = codes};
	int64_t shape[MOE_MAX_DIMS];
	int rc = moe_coded_expect(c, name, 2, shape, e);

	rc = rc ? rc : find_parts(c, name, &p, e);
	rc = rc ? rc : find_order(c, name, &p.group_of, e);
	if (rc)
		return rc;
	if (shape[1] % 32 || shape[0] * s->bits % 32)
		return moe_fail(e, MOE_E_UNSUPPORTED, "tensor %s: a matrix of %lld times %lld is not packed by gptq", name,
		                (long long)shape[0], (long long)shape[1]);
	set_groups(&x, s->group, shape[1]);
	rc = moe_coded_matrix(codes, MOE_I32, shape[1] / 32 * s->bits, shape[0], e);
	rc = rc ? rc : moe_coded_matrix(p.scales, p.scales->dtype, x.groups, shape[0], e);
	rc = rc ? rc : moe_coded_matrix(p.zeros, MOE_I32, x.groups, shape[0] * s->bits / 32, e);
	if (!rc && p.group_of)
		rc = moe_coded_groups(p.group_of, shape[1], x.groups, e);
	return rc ? rc : add(c, name, shape, &x, &p, e);
}

int moe_coded_awq(struct moe_coder *c, const char *name, const struct moe_tensor *codes, struct moe_err *e)
{
	struct moe_turned x = {.bits = 4, .awq = true};
	struct parts p = {.codes = codes};
	int64_t shape[MOE_MAX_DIMS];
	int rc = moe_coded_expect(c, name, 2, shape, e);

	rc = rc ? rc : find_parts(c, name, &p, e);
	if (rc)
		return rc;
	if (shape[0] % 8)
		return moe_fail(e, MOE_E_UNSUPPORTED, "tensor %s: a matrix of %lld rows is not packed by awq", name,
		                (long long)shape[0]);
	set_groups(&x, c->q->v[0].group, shape[1]);
	rc = moe_coded_matrix(codes, MOE_I32, shape[1], shape[0] / 8, e);
	rc = rc ? rc : moe_coded_matrix(p.scales, p.scales->dtype, x.groups, shape[0], e);
	rc = rc ? rc : moe_coded_matrix(p.zeros, MOE_I32, x.groups, shape[0] / 8, e);
	return rc ? rc : add(c, name, shape, &x, &p, e);
}
