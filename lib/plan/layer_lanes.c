/* The lanes of one layer in a pass: seconds that each is busy, term by term. */
#include "plan/predict_full.h"

struct layer {
	const struct plan_pass *p;
	int layer;
	struct moe_layer_time *t;
	struct plan_stages *stages;
	double cpu_seconds, cpu_bytes; /* of operations on the host */
	double copied;                 /* bytes that transfers read or write in the host's memory */
};

static bool has_processor(const struct layer *y, int level)
{
	return plan_has_processor(y->p->s->hardware, level);
}

/* ---- operations ---- */

static int level_of(const struct plan_pass *p, enum moe_op_kind k)
{
	return k == MOE_OP_ATTENTION ? p->attention_on : k == MOE_OP_EXPERTS ? p->experts_on : p->base_on;
}

/* `times` calls; the seconds of one. */
static double compute(struct layer *y, const struct moe_op *op, double times)
{
	const struct plan_pass *p = y->p;
	int level = level_of(p, op->kind);
	double seconds = plan_op_seconds(p->s, level, op);

	plan_add(&y->t->lanes[level == p->host ? MOE_LANE_CPU : MOE_LANE_GPU], moe_op_name(op->kind), times * seconds);
	if (level == p->host) {
		y->cpu_seconds += times * seconds;
		y->cpu_bytes += times * (op->weights + op->kv + op->activations);
	}
	return seconds;
}

/* The routed experts, and what other hosts have of them. */
static int compute_experts(struct layer *y, struct moe_op *op, double rows, double times, double *seconds, struct moe_err *e)
{
	double network;

	if (plan_is_spread(y->p->s, y->layer)) {
		int rc = plan_spread_experts(y->p->s, y->layer, rows, op, &network, e);

		if (rc)
			return rc;
		plan_add(&y->t->lanes[MOE_LANE_NETWORK], "experts", times * network);
	}
	*seconds += compute(y, op, times);
	return 0;
}

/* All rows of the batch in one call of the experts. */
static int compute_experts_once(struct layer *y, struct moe_err *e)
{
	struct plan_rows all = y->p->rows;
	struct moe_op ops[MOE_OPS];
	int n, rc = 0;

	all.rows *= y->p->micro_batches;
	all.sequences *= y->p->micro_batches;
	plan_ops(y->p->s, y->layer, &all, ops, &n);
	for (int i = 0; i < n && rc == 0; i++)
		if (ops[i].kind == MOE_OP_EXPERTS)
			rc = compute_experts(y, &ops[i], all.rows, 1, &y->stages->experts, e);
	return rc;
}

static int operations(struct layer *y, struct moe_err *e)
{
	const struct plan_pass *p = y->p;
	bool once = p->x->schedule == MOE_SCHEDULE_COALESCED && !p->prefill;
	struct moe_op ops[MOE_OPS];
	int n, rc = 0;

	plan_ops(p->s, y->layer, &p->rows, ops, &n);
	for (int i = 0; i < n && rc == 0; i++) {
		if (ops[i].kind == MOE_OP_QKV)
			y->stages->pre += compute(y, &ops[i], p->micro_batches);
		else if (ops[i].kind == MOE_OP_ATTENTION)
			y->stages->attend += compute(y, &ops[i], p->micro_batches);
		else if (ops[i].kind != MOE_OP_EXPERTS)
			y->stages->post += compute(y, &ops[i], p->micro_batches);
		else if (once)
			rc = compute_experts_once(y, e);
		else
			rc = compute_experts(y, &ops[i], p->rows.rows, p->micro_batches, &y->stages->post, e);
	}
	return rc;
}

/* Devices of one level that share a layer add up what each has, through the host, twice a layer: after attention and after the
 * experts. */
static int all_reduce(struct layer *y, struct moe_err *e)
{
	const struct plan_pass *p = y->p;
	const struct moe_hardware *h = p->s->hardware;
	double count = h->levels[p->base_on].count, bytes = count * p->rows.rows * p->s->model->hidden * p->element, there, back;
	int rc;

	if (count < 2 || p->base_on == p->host)
		return 0;
	rc = plan_link_seconds(h, p->base_on, p->host, bytes, 1, &there, e);
	rc = rc ? rc : plan_link_seconds(h, p->host, p->base_on, bytes, 1, &back, e);
	if (rc)
		return rc;
	plan_add(&y->t->lanes[MOE_LANE_GPU], "all-reduce", 2 * p->micro_batches * (there + back));
	y->copied += 2 * p->micro_batches * 2 * bytes;
	y->stages->post += 2 * (there + back);
	return 0;
}

/* ---- transfers ---- */

static enum moe_lane lane_between(const struct layer *y, int from, int to)
{
	if (!has_processor(y, from) || !has_processor(y, to))
		return MOE_LANE_DISK;
	return from > to ? MOE_LANE_H2D : MOE_LANE_D2H;
}

static int leg(struct layer *y, const char *what, int from, int to, double bytes, double pieces, double *seconds, struct moe_err *e)
{
	double one;
	int rc = plan_link_seconds(y->p->s->hardware, from, to, bytes, pieces, &one, e);

	if (rc)
		return rc;
	plan_add(&y->t->lanes[lane_between(y, from, to)], what, one);
	y->copied += from == y->p->host || to == y->p->host ? bytes : 0;
	*seconds += one;
	return 0;
}

/* Through the host where there is no link of their own.  *seconds: one leg after the other. */
static int move(struct layer *y, const char *what, int from, int to, double bytes, double pieces, double *seconds, struct moe_err *e)
{
	int host = y->p->host, rc;

	if (bytes <= 0 || from == to)
		return 0;
	if (from == host || to == host || moe_link_find(y->p->s->hardware, from, to))
		return leg(y, what, from, to, bytes, pieces, seconds, e);
	rc = leg(y, what, from, host, bytes, pieces, seconds, e);
	return rc ? rc : leg(y, what, host, to, bytes, pieces, seconds, e);
}

/* Queries, keys and values to where attention is, and its output back. */
static int move_heads(struct layer *y, struct moe_err *e)
{
	const struct plan_pass *p = y->p;
	struct plan_heads w = plan_heads(&p->s->model->layers[y->layer].attn);
	double n = p->micro_batches;
	double bytes = p->rows.rows * n * p->element, store = 0, load = 0;
	int rc = move(y, "qkv", p->base_on, p->attention_on, bytes * (w.query + w.kv), n, &store, e);

	rc = rc ? rc : move(y, "hidden", p->attention_on, p->base_on, bytes * w.out, n, &load, e);
	y->stages->store += store / n;
	y->stages->load += load / n;
	return rc;
}

/* Hidden states to where the experts are, and their output back. */
static int move_hidden(struct layer *y, struct moe_err *e)
{
	const struct plan_pass *p = y->p;
	double n = p->micro_batches, bytes = p->rows.rows * n * p->s->model->hidden * p->element, seconds = 0;
	int rc;

	if (p->s->model->layers[y->layer].ffn.kind != MOE_FFN_MOE)
		return 0;
	rc = move(y, "hidden", p->base_on, p->experts_on, bytes, n, &seconds, e);
	rc = rc ? rc : move(y, "hidden", p->experts_on, p->base_on, bytes, n, &seconds, e);
	y->stages->post += seconds / n;
	return rc;
}

/* Prompts of several micro-batches rest in the host's memory between their turns. */
static int move_prompts(struct layer *y, struct moe_err *e)
{
	const struct plan_pass *p = y->p;
	double n = p->micro_batches, bytes = p->rows.rows * n * p->s->model->hidden * p->element, seconds = 0;
	int rc;

	if (!p->prefill || !p->offloads || n < 2)
		return 0;
	rc = move(y, "hidden", p->host, p->base_on, bytes, n, &seconds, e);
	return rc ? rc : move(y, "hidden", p->base_on, p->host, bytes, n, &seconds, e);
}

/* What attention reads and does not have, and the new positions to where they are kept. */
static int move_kv(struct layer *y, struct moe_err *e)
{
	const struct plan_pass *p = y->p;
	double n = p->micro_batches, position = plan_kv_bytes(p->s, y->layer), seconds = 0;
	double made = p->rows.rows * n * position, read = p->prefill ? 0 : p->rows.sequences * n * p->rows.stored * position;
	int rc = 0;

	for (int i = 0; i < p->s->hardware->n_levels && rc == 0; i++) {
		rc = move(y, "kv", i, p->attention_on, read * p->x->kv[i], n, &seconds, e);
		rc = rc ? rc : move(y, "kv", p->attention_on, i, made * p->x->kv[i], n, &seconds, e);
	}
	return rc;
}

/* The schedules that move weights move all that are not resident, before routing is known; where none moves, a file that is
 * mapped is read for the experts that are touched. */
static double moved_experts(const struct layer *y)
{
	const struct plan_pass *p = y->p;

	if (p->offloads)
		return p->s->model->layers[y->layer].ffn.experts * plan_held(p->s, y->layer, 0);
	return moe_distinct_experts(p->s, y->layer, p->rows.rows) * plan_held(p->s, y->layer, 0) * p->micro_batches;
}

static int move_weights(struct layer *y, struct moe_err *e)
{
	const struct plan_pass *p = y->p;
	const struct moe_hardware *h = p->s->hardware;
	double bytes = moved_experts(y) * (p->s->model->layers[y->layer].ffn.kind == MOE_FFN_MOE ? plan_expert_bytes(p->s, y->layer) : 0);
	double seconds = 0, relayed = 0;
	int rc = 0;

	for (int i = 0; i < h->n_levels && rc == 0; i++) {
		if (i == p->experts_on)
			continue;
		rc = move(y, "weights", i, p->experts_on, bytes * p->x->weights[i], p->pages ? p->micro_batches : 1, &seconds, e);
		relayed += bytes * p->x->weights[i];
	}
	/* The relay: pageable memory is read, pinned memory written. */
	if (p->pages) {
		plan_add(&y->t->lanes[MOE_LANE_PIN], "weights", 2 * relayed / plan_bandwidth(&h->levels[p->host]));
		y->copied += 2 * relayed;
	}
	return rc;
}

/* Copies share the host's memory with what is computed there: together they take at least their bytes over its bandwidth. */
static void share_memory(struct layer *y)
{
	double bandwidth = plan_bandwidth(&y->p->s->hardware->levels[y->p->host]);
	double idle = y->cpu_seconds - y->cpu_bytes / bandwidth, copies = y->copied / bandwidth;

	if (!y->p->offloads)
		return;
	copies -= idle > 0 ? idle : 0;
	if (copies > 0)
		plan_add(&y->t->lanes[MOE_LANE_CPU], "copies", copies);
}

int plan_layer_lanes(const struct plan_pass *p, int layer, struct moe_layer_time *out, struct plan_stages *stages, struct moe_err *e)
{
	struct layer y = {.p = p, .layer = layer, .t = out, .stages = stages};
	int rc;

	*out = (struct moe_layer_time){0};
	*stages = (struct plan_stages){0};
	rc = operations(&y, e);
	rc = rc ? rc : all_reduce(&y, e);
	rc = rc ? rc : move_heads(&y, e);
	rc = rc ? rc : move_hidden(&y, e);
	rc = rc ? rc : move_prompts(&y, e);
	rc = rc ? rc : move_kv(&y, e);
	rc = rc ? rc : move_weights(&y, e);
	share_memory(&y);
	return rc;
}
