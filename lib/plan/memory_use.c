/* Memory of the full variant: what lies at which level, by name. */
#include "plan/predict_full.h"

static double larger(double a, double b)
{
	return a > b ? a : b;
}

struct use {
	const struct plan_pass *p;      /* decode */
	struct plan_pass prefill;
	struct moe_prediction *out;
	double batch, positions;        /* sequences, positions of each at its end */
};

static void put(struct use *u, int level, const char *what, double bytes)
{
	plan_add(&u->out->memory[level].used, what, bytes);
}

/* Routed experts that a host of the fleet has, of the layer where they have most bytes or of all. */
static double expert_bytes(const struct moe_setting *s, int host, bool all)
{
	double sum = 0, most = 0;

	for (int i = 0; i < s->model->n_layers; i++) {
		double layer = s->model->layers[i].ffn.experts * plan_expert_bytes(s, i) * plan_held(s, i, host);

		sum += layer;
		most = larger(most, layer);
	}
	return all ? sum : most;
}

static void weights(struct use *u)
{
	const struct moe_setting *s = u->p->s;
	double base = plan_base_bytes(s, -1), experts = expert_bytes(s, 0, true);

	for (int i = 0; i < s->model->n_layers; i++)
		base += plan_base_bytes(s, i);
	put(u, u->p->base_on, "base weights", base);
	for (int i = 0; i < s->hardware->n_levels; i++)
		put(u, i, "experts", experts * u->p->x->weights[i]);
}

/* The cache is kept in blocks of 64 positions. */
static void cache(struct use *u)
{
	const struct moe_setting *s = u->p->s;
	double blocks = (double)((int64_t)(u->positions + 63) / 64), position = 0, widest = 0, elsewhere;
	int at = u->p->attention_on;

	for (int i = 0; i < s->model->n_layers; i++) {
		position += plan_kv_bytes(s, i);
		widest = larger(widest, plan_kv_bytes(s, i));
	}
	for (int i = 0; i < s->hardware->n_levels; i++)
		put(u, i, "kv cache", u->batch * blocks * 64 * position * u->p->x->kv[i]);
	if (u->p->base_on != u->p->host)
		return;
	/* Two micro-batches' worth of one layer pass through where attention is and the cache is not. */
	elsewhere = 1 - u->p->x->kv[at];
	put(u, at, "kv staging", 2 * u->p->rows.sequences * u->positions * widest * elsewhere);
	if (u->prefill.attention_on != at)
		put(u, u->prefill.attention_on, "kv staging", 2 * u->prefill.rows.rows * widest);
}

/* Two residual streams' worth for what is under way, on every device that shares a layer; and the batch's rows where they rest. */
static void hidden(struct use *u)
{
	const struct plan_pass *d = u->p, *f = &u->prefill;
	double row = d->s->model->hidden * d->element;
	bool rest = f->offloads && f->micro_batches > 1;
	double prompts = f->rows.rows * (rest || !f->offloads ? 1 : f->micro_batches);

	if (d->base_on == d->host)
		put(u, d->base_on, "hidden states", 4 * row * larger(u->batch, prompts));
	if (rest)
		put(u, d->host, "hidden states", row * f->rows.rows * f->micro_batches);
}

static void on_device(struct use *u)
{
	const struct plan_pass *d = u->p;
	struct plan_buffers b;

	plan_device_buffers(d, &b);
	put(u, d->base_on, "hidden states", d->s->hardware->levels[d->base_on].count * b.hidden);
	put(u, d->base_on, "workspace", b.workspace);
	put(u, d->base_on, "kv staging", b.kv);
}

/* Queries, keys, values and attention's output of a row. */
static double width(const struct moe_attention *a)
{
	struct plan_heads w = plan_heads(a);

	return w.query + w.kv + w.out;
}

/* Those of the rows at work; every pair's hidden values and output; logits of 64 rows. */
static void workspace(struct use *u)
{
	const struct moe_setting *s = u->p->s;
	double rows = larger(u->prefill.rows.rows, u->p->x->schedule == MOE_SCHEDULE_COALESCED ? u->batch : u->p->rows.rows);
	double widest = 0, logits = 64.0 * s->model->vocab;

	for (int i = 0; i < s->model->n_layers; i++) {
		const struct moe_attention *a = &s->model->layers[i].attn;
		const struct moe_ffn *f = &s->model->layers[i].ffn;
		double heads = width(a);
		double inner = f->gate.top_k * ((double)f->expert_width + s->model->hidden) + f->width + f->shared_width + f->experts;

		widest = larger(widest, heads + inner);
	}
	put(u, u->p->base_on, "workspace", (rows * widest + logits) * u->p->element);
}

/* The largest expert. */
static double one_expert(const struct moe_setting *s)
{
	double most = 0;

	for (int i = 0; i < s->model->n_layers; i++)
		most = larger(most, s->model->layers[i].ffn.experts ? plan_expert_bytes(s, i) : 0);
	return most;
}

/* Two slots for what moves of a layer, which are whole experts; the relay is as large as one. */
static void buffers(struct use *u)
{
	const struct plan_pass *p = u->p;
	const struct moe_hardware *h = p->s->hardware;
	double share = 1 - p->x->weights[p->experts_on], moved = expert_bytes(p->s, 0, false) * share;

	if (!p->offloads)
		return;
	if (share > 0 && share < 1)
		moved += one_expert(p->s);
	put(u, p->experts_on, "double buffer", 2 * moved);
	if (p->pages)
		put(u, p->host, "pinned relay", moved);
	if (p->attention_on != p->base_on)
		put(u, p->attention_on, "pinned relay", u->batch * width(&p->s->model->layers[0].attn) * p->element);
	for (int i = p->host + 1; i < h->n_levels; i++)
		put(u, p->host, "disk buffer", 2 * expert_bytes(p->s, 0, false) * p->x->weights[i]);
}

/* Whether the other hosts hold their experts. */
static bool others_fit(const struct moe_setting *s, double reserve)
{
	double bytes[MOE_MAX_HOSTS] = {0};

	if (!s->fleet || !s->placement || s->fleet->n < 2)
		return true;
	for (int l = 0; l < s->model->n_layers; l++)
		for (int x = 0; x < s->model->layers[l].ffn.experts; x++) {
			int copies;
			const int *hosts = moe_placement_of(s->placement, l, x, &copies);

			for (int i = 0; i < copies; i++)
				bytes[hosts[i]] += plan_expert_bytes(s, l);
		}
	for (int i = 1; i < s->placement->devices && i < s->fleet->n; i++) {
		const struct moe_hardware *h = &s->fleet->hosts[i];

		if (bytes[i] > plan_memory(&h->levels[plan_host(h)]) * (1 - reserve))
			return false;
	}
	return true;
}

void plan_memory_use(const struct moe_setting *s, const struct moe_execution *x, struct moe_prediction *out)
{
	struct plan_pass decode;
	struct use u = {.p = &decode, .out = out, .batch = (double)x->batch,
	                .positions = moe_workload_prompt(&s->workload) + s->workload.generate};
	double reserve = s->reserve > 0 ? s->reserve : PLAN_RESERVE;

	plan_pass_decode(s, x, &decode);
	plan_pass_prefill(s, x, &u.prefill);
	weights(&u);
	cache(&u);
	hidden(&u);
	if (decode.base_on == decode.host)
		workspace(&u);
	else
		on_device(&u);
	buffers(&u);
	out->fits = others_fit(s, reserve);
	for (int i = 0; i < s->hardware->n_levels; i++) {
		out->memory[i].available = plan_memory(&s->hardware->levels[i]) * (1 - reserve);
		out->fits = out->fits && out->memory[i].used.total <= out->memory[i].available;
	}
}
