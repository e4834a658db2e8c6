/* What is on the picture: roofs of every level and link, the operations of a layer, and where it pays to move data. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "plan/plot.h"

const char *plot_number(double v, const char *unit, char *buf)
{
	static const char prefixes[] = " kMGTP";
	int i = 0;

	while (v >= 999.5 && i < 5) {
		v /= 1000;
		i++;
	}
	if (i)
		snprintf(buf, 32, "%.3g %c%s", v, prefixes[i], unit);
	else
		snprintf(buf, 32, "%.3g %s", v, unit);
	return buf;
}

/* ---- roofs ---- */

static void add_roof(struct plot_content *c, const char *name, double bandwidth, double most, bool link)
{
	struct plot_roof *r = &c->roofs[c->n_roofs];
	char number[32];

	if (c->n_roofs == PLOT_ROOFS || most <= 0)
		return;
	for (int i = 0; i < c->n_roofs; i++)
		if (c->roofs[i].bandwidth == bandwidth && c->roofs[i].most == most && c->roofs[i].link == link)
			return;
	*r = (struct plot_roof){.bandwidth = bandwidth, .most = most, .link = link};
	plot_number(bandwidth > 0 ? bandwidth : most, bandwidth > 0 ? "B/s" : "FLOP/s", number);
	snprintf(r->name, sizeof r->name, "%s, %s", name, number);
	c->n_roofs++;
}

/* The fastest that a level computes any of the operations. */
static double most_of_level(const struct moe_setting *s, int level, const struct moe_op *ops, int n)
{
	double most = 0;

	for (int i = 0; i < n; i++)
		most = fmax(most, plan_flops(s->hardware, level, ops[i].type));
	return most;
}

static void add_links(struct plot_content *c, const struct moe_setting *s, const struct moe_op *ops, int n)
{
	const struct moe_hardware *h = s->hardware;
	char name[48];

	for (int i = 0; i < h->n_links; i++) {
		const struct moe_link *l = &h->links[i];
		double shares = l->shared ? 1 : h->levels[l->to].count;

		/* Data come up to where they are used, from slower levels. */
		if (l->from < l->to || !plan_has_processor(h, l->to))
			continue;
		snprintf(name, sizeof name, "%s to %s", h->levels[l->from].name, h->levels[l->to].name);
		add_roof(c, name, l->bandwidth * shares, most_of_level(s, l->to, ops, n), true);
	}
}

static void add_roofs(struct plot_content *c, const struct moe_setting *s, const struct moe_op *ops, int n)
{
	const struct moe_hardware *h = s->hardware;
	char name[48];

	for (int i = 0; i < h->n_levels; i++) {
		double most = most_of_level(s, i, ops, n);

		if (!plan_has_processor(h, i))
			continue;
		snprintf(name, sizeof name, "%s computes", h->levels[i].name);
		add_roof(c, name, 0, most, false);
		snprintf(name, sizeof name, "%s memory", h->levels[i].name);
		add_roof(c, name, plan_bandwidth(&h->levels[i]), most, false);
	}
	add_links(c, s, ops, n);
}

/* ---- operations ---- */

static struct plot_mark *add_mark(struct plot_content *c, enum plot_kind kind, double intensity, double flops)
{
	struct plot_mark *m = &c->marks[c->n_marks];

	/* P1 of all that moves between the same two levels is one. */
	for (int i = 0; i < c->n_marks; i++)
		if (kind == PLOT_TURN && c->marks[i].kind == kind && c->marks[i].intensity == intensity)
			return NULL;
	if (c->n_marks == PLOT_MARKS || !(intensity > 0) || !(flops > 0) || isinf(intensity) || isinf(flops))
		return NULL;
	*m = (struct plot_mark){.kind = kind, .intensity = intensity, .flops = flops};
	c->n_marks++;
	return m;
}

static int level_of(const struct plan_pass *p, enum moe_op_kind k)
{
	return k == MOE_OP_ATTENTION ? p->attention_on : k == MOE_OP_EXPERTS ? p->experts_on : p->base_on;
}

/* Bytes of a layer that come over the link for an operation, for all of the batch; *from: whence. */
static double moved_bytes(const struct plan_pass *p, int layer, const struct moe_op *op, int *from)
{
	const double *share = op->kind == MOE_OP_EXPERTS ? p->x->weights : p->x->kv;
	double bytes = 0;

	*from = -1;
	if (op->kind == MOE_OP_EXPERTS && p->offloads)
		bytes = p->s->model->layers[layer].ffn.experts * plan_expert_bytes(p->s, layer);
	else if (op->kind == MOE_OP_ATTENTION)
		bytes = op->kv * p->micro_batches;
	for (int i = level_of(p, op->kind) + 1; i < p->s->hardware->n_levels; i++)
		if (share[i] > 0 && *from < 0)
			*from = i;
	return *from < 0 ? 0 : bytes * (1 - share[level_of(p, op->kind)]);
}

static void add_turns(struct plot_content *c, const struct plan_pass *p, const struct moe_op *op, int from, double here, double there)
{
	const struct moe_hardware *h = p->s->hardware;
	int level = level_of(p, op->kind);
	struct moe_roofline r;
	const struct moe_link *link = moe_link_find(h, from, level);
	double bandwidth = link ? link->bandwidth * (link->shared ? 1 : h->levels[level].count) : 0;
	bool one;
	struct plot_mark *m;

	if (!link || moe_roofline(h, op->type, level, from, here, there, &r, NULL))
		return;
	/* Equation 9 has a solution only where the slower level is bound by what it computes. */
	if (plan_has_processor(h, from)) {
		double slow = plan_flops(h, from, op->type);

		m = add_mark(c, PLOT_TURN, slow / bandwidth, slow);
		if (m) {
			snprintf(m->name, sizeof m->name, "P1: left of it %s computes faster", h->levels[from].name);
			snprintf(m->label, sizeof m->label, "P1");
		}
	}
	one = fabs(r.p2 - r.balance) < 0.01 * r.balance;
	m = add_mark(c, PLOT_TURN, r.p2, r.p2 * bandwidth);
	if (m) {
		snprintf(m->name, sizeof m->name, one ? "P2 and balance of %s" : "P2 of %s: left of it the link binds", moe_op_name(op->kind));
		snprintf(m->label, sizeof m->label, one ? "P2, balance" : "P2");
	}
	m = one ? NULL : add_mark(c, PLOT_TURN, r.balance, fmin(r.balance * bandwidth, plan_flops(h, level, op->type)));
	if (m) {
		snprintf(m->name, sizeof m->name, "balance of %s: memory and link alike", moe_op_name(op->kind));
		snprintf(m->label, sizeof m->label, "balance");
	}
}

static void add_op(struct plot_content *c, const struct plan_pass *p, int layer, const struct moe_op *op)
{
	const struct moe_hardware *h = p->s->hardware;
	int level = level_of(p, op->kind), from;
	double here = op->flops / (op->weights + op->kv + op->activations), moved = moved_bytes(p, layer, op, &from);
	double times = p->x->schedule == MOE_SCHEDULE_COALESCED && op->kind == MOE_OP_EXPERTS ? 1 : p->micro_batches;
	double reached = op->flops / plan_op_seconds(p->s, level, op), there = moved > 0 ? op->flops * times / moved : 0;
	const struct moe_link *link = from >= 0 ? moe_link_find(h, from, level) : NULL;
	struct plot_mark *m = add_mark(c, PLOT_HERE, here, reached);

	if (m) {
		snprintf(m->name, sizeof m->name, "%s on %s", moe_op_name(op->kind), h->levels[level].name);
		snprintf(m->label, sizeof m->label, "%s", moe_op_name(op->kind));
	}
	if (!link || moved <= 0)
		return;
	m = add_mark(c, PLOT_LINK, there, fmin(reached, there * link->bandwidth * (link->shared ? 1 : h->levels[level].count)));
	if (m) {
		snprintf(m->name, sizeof m->name, "%s by bytes from %s", moe_op_name(op->kind), h->levels[from].name);
		snprintf(m->label, sizeof m->label, "%s", moe_op_name(op->kind));
	}
	add_turns(c, p, op, from, here, there);
}

/* ---- all of it ---- */

static int layer_of(const struct moe_model *m)
{
	for (int i = 0; i < m->n_layers; i++)
		if (m->layers[i].ffn.kind == MOE_FFN_MOE)
			return i;
	return 0;
}

/* Of a layer; experts of the whole batch where the schedule runs them once. */
static void ops_of(const struct plan_pass *p, int layer, struct moe_op *ops, int *n)
{
	struct plan_rows all = p->rows;
	struct moe_op whole[MOE_OPS];
	int m;

	plan_ops(p->s, layer, &p->rows, ops, n);
	if (p->x->schedule != MOE_SCHEDULE_COALESCED)
		return;
	all.rows *= p->micro_batches;
	all.sequences *= p->micro_batches;
	plan_ops(p->s, layer, &all, whole, &m);
	for (int i = 0; i < *n; i++)
		if (ops[i].kind == MOE_OP_EXPERTS)
			ops[i] = whole[i];
}

int plot_gather(const struct moe_setting *s, const struct moe_execution *x, struct plot_content *out, struct moe_err *e)
{
	struct moe_prediction checked;
	struct moe_op ops[MOE_OPS];
	struct plan_pass p;
	int n, layer = layer_of(s->model), rc = moe_predict(s, x, &checked, e);

	*out = (struct plot_content){.n_roofs = 0};
	if (rc)
		return rc;
	plan_pass_decode(s, x, &p);
	ops_of(&p, layer, ops, &n);
	add_roofs(out, s, ops, n);
	for (int i = 0; i < n; i++)
		add_op(out, &p, layer, &ops[i]);
	return 0;
}
