/* The model as the authors of MoE-Lightning have it (arXiv 2411.11217, sections 3.2 and 4.2 and appendix A.1, and their
 * artifact), so that their policies can be found again.
 *
 * Its simplifications are kept: elements have 2 bytes, every expert is read by every call, one of attention's two products is
 * counted, and nothing is but attention and experts.  A level's `count` multiplies memory, bandwidth and FLOP/s of the GPU
 * and nothing else.  doc/model.md says what the full variant does instead. */
#include "plan/private.h"

/* Their symbols: l layers; h1, h2 widths; nq query heads, kv_width the width of keys; ne experts of which k are used; w
 * bytes of a layer's experts; tp GPUs; m memory, b bandwidth, p FLOP/s of the (g)pu and the (c)pu; link from c to g. */
struct paper {
	int gpu, cpu;
	double l, h1, h2, nq, kv_width, ne, k, w, tp;
	double mg, bg, pg, mc, bc, pc, link;
	double s, n;                 /* tokens of a prompt, and generated */
	double mu, n_ub, batch;
	double rw, rc;               /* shares of weights and of keys and values on the GPU */
	bool attention_on_gpu;
};

/* A reserve for what memory holds besides. */
#define GPU_RESERVE 0.14
#define CPU_RESERVE 0.2

static double larger(double a, double b)
{
	return a > b ? a : b;
}

static void shape_of(const struct moe_setting *s, struct paper *p)
{
	const struct moe_model *m = s->model;
	const struct moe_layer *layer = &m->layers[0];

	for (int i = m->n_layers - 1; i >= 0; i--)
		if (m->layers[i].ffn.kind == MOE_FFN_MOE)
			layer = &m->layers[i];
	p->l = m->n_layers;
	p->h1 = m->hidden;
	p->nq = layer->attn.heads;
	p->kv_width = p->h1 * layer->attn.kv_heads / layer->attn.heads;
	p->h2 = layer->ffn.kind == MOE_FFN_MOE ? layer->ffn.expert_width : layer->ffn.width;
	p->ne = layer->ffn.kind == MOE_FFN_MOE ? layer->ffn.experts : 1;
	p->k = layer->ffn.kind == MOE_FFN_MOE ? layer->ffn.gate.top_k : 1;
	p->w = 6 * p->h1 * p->h2 * p->ne;
	p->s = moe_workload_prompt(&s->workload);
	p->n = s->workload.generate;
}

static int hardware_of(const struct moe_setting *s, struct paper *p, struct moe_err *e)
{
	const struct moe_hardware *h = s->hardware;
	const struct moe_memory_level *g = &h->levels[p->gpu], *c = &h->levels[p->cpu];
	const struct moe_link *link = moe_link_find(h, p->cpu, p->gpu);

	if (p->gpu == p->cpu)
		return moe_fail(e, MOE_E_INPUT, "%s: the paper's model computes experts on a GPU, not on the host's processor", h->name);
	if (!link)
		return moe_fail(e, MOE_E_INPUT, "%s: there is no link from %s to %s", h->name, c->name, g->name);
	p->tp = g->count;
	p->mg = g->memory * p->tp;
	p->bg = g->bandwidth * p->tp;
	p->pg = moe_level_flops(g, MOE_FLOPS_F16) * p->tp;
	p->mc = c->memory;
	p->bc = c->bandwidth;
	p->pc = moe_level_flops(c, MOE_FLOPS_F32);
	p->link = link->bandwidth;
	if (p->pg <= 0 || p->pc <= 0)
		return moe_fail(e, MOE_E_INPUT, "%s: the paper's model needs FLOP/s in f16 of %s and in f32 of %s", h->name, g->name, c->name);
	return 0;
}

/* ---- kernels ---- */

static double attention_flops(const struct paper *p, double b, double q, double kv)
{
	return 2 * b * q * kv * p->h1 + 2 * b * q * kv * p->nq;
}

static double attention_bytes(const struct paper *p, double b, double q, double kv)
{
	return 2 * (2 * b * q * p->h1) + 2 * (2 * b * kv * p->kv_width);
}

static double gpu_seconds(const struct paper *p, double flops, double bytes)
{
	return p->n_ub * larger(flops / p->pg, bytes / p->bg);
}

double plan_paper_ffn_flops(double h1, double h2, double k, double b)
{
	return 6 * b * h1 * h2 * k;
}

double plan_paper_ffn_bytes(double h1, double h2, double experts, double b)
{
	return 2 * b * h1 + 2 * b * h2 + 6 * h1 * h2 * experts;
}

/* The experts of a layer with b rows. */
static double ffn_seconds(const struct paper *p, double b)
{
	return gpu_seconds(p, plan_paper_ffn_flops(p->h1, p->h2, p->k, b), plan_paper_ffn_bytes(p->h1, p->h2, p->ne, b));
}

static double cpu_seconds(const struct paper *p, double flops, double bytes)
{
	return p->n_ub * larger(flops / p->pc, bytes / p->bc);
}

/* ---- time ---- */

/* Equation 12: T = max(comm, T_cpu, T_gpu). */
static void finish(struct moe_layer_time *t)
{
	for (int i = 0; i < MOE_LANES; i++)
		if (t->lanes[i].total > t->lanes[t->bottleneck].total)
			t->bottleneck = (enum moe_lane)i;
	t->seconds = t->lanes[t->bottleneck].total;
}

/* The context is taken as long as it gets; the cache that moves, as long as it is on average. */
static void decode_layer(const struct paper *p, struct moe_layer_time *t)
{
	double context = p->s + p->n;
	double flops = attention_flops(p, p->mu, 1, context), bytes = attention_bytes(p, p->mu, 1, context);

	plan_add(&t->lanes[MOE_LANE_H2D], "weights", p->w * (1 - p->rw) / p->link);
	plan_add(&t->lanes[MOE_LANE_GPU], "experts", ffn_seconds(p, p->mu));
	if (p->attention_on_gpu) {
		plan_add(&t->lanes[MOE_LANE_H2D], "kv", 4 * (p->s + p->n / 2) * p->kv_width * p->batch * (1 - p->rc) / p->link);
		plan_add(&t->lanes[MOE_LANE_GPU], "attention", gpu_seconds(p, flops, bytes));
	} else {
		plan_add(&t->lanes[MOE_LANE_CPU], "attention", cpu_seconds(p, flops, bytes));
	}
	finish(t);
}

static void prefill_layer(const struct paper *p, struct moe_layer_time *t)
{
	plan_add(&t->lanes[MOE_LANE_H2D], "weights", p->w * (1 - p->rw) / p->link);
	plan_add(&t->lanes[MOE_LANE_H2D], "hidden", 2 * p->batch * p->s * p->h1 / p->link);
	plan_add(&t->lanes[MOE_LANE_GPU], "experts", ffn_seconds(p, p->mu * p->s));
	plan_add(&t->lanes[MOE_LANE_GPU], "attention",
	         gpu_seconds(p, attention_flops(p, p->mu, p->s, p->s), attention_bytes(p, p->mu, p->s, p->s)));
	finish(t);
}

/* ---- memory ---- */

static void decode_home(const struct paper *p, struct moe_sum *home)
{
	/* With attention on the GPU all of the cache is charged to it, wherever it lies. */
	double kv_share = p->rc + (1 - p->rc) * (p->attention_on_gpu ? 1 : 0);

	plan_add(home, "hidden states", 4 * p->h1 * p->batch * p->tp);
	plan_add(home, "kv cache", 4 * (p->s + p->n) * p->kv_width * p->batch * p->l * kv_share);
}

static void prefill_home(const struct paper *p, enum moe_residual residual, struct moe_sum *home)
{
	if (residual == MOE_RESIDUAL_WHOLE_BATCH)
		plan_add(home, "hidden states", p->tp * (4 * p->h1 * p->mu * p->s + 2 * p->h1 * p->batch * p->s));
	else
		plan_add(home, "hidden states", p->tp * (8 * p->h1 * p->mu * p->s));
	plan_add(home, "kv cache", 4 * p->s * p->kv_width * p->batch * p->rc);
	plan_add(home, "kv staging", 8 * p->s * p->kv_width * p->mu * (1 - p->rc));
}

/* What stays (of decode and prefill the larger) and what work needs: two slots for a layer's experts that are not resident,
 * and the experts' workspace of a prefill. */
static void gpu_memory(const struct paper *p, enum moe_residual residual, struct moe_sum *used)
{
	struct moe_sum decode = {0}, prefill = {0};

	decode_home(p, &decode);
	prefill_home(p, residual, &prefill);
	plan_add(used, "base weights", p->l * (4 * p->h1 * p->h1 + 4 * p->h1 * p->kv_width));
	plan_add(used, "experts", p->w * p->l * p->rw);
	plan_add_sum(used, decode.total > prefill.total ? &decode : &prefill, 1);
	plan_add(used, "double buffer", 2 * p->w * (1 - p->rw));
	plan_add(used, "workspace", 1.2 * 2 * p->mu * p->s * p->k * (p->h1 * p->tp + 3 * p->h2));
}

static void cpu_memory(const struct paper *p, struct moe_sum *used)
{
	plan_add(used, "experts", p->w * p->l * (1 - p->rw));
	plan_add(used, "kv cache", 4 * (p->s + p->n) * p->kv_width * p->batch * p->l * (1 - p->rc));
	plan_add(used, "hidden states", 2 * p->h1 * p->batch * p->s * p->tp);
	plan_add(used, "pinned relay", 2 * p->w * (1 - p->rw));
}

static void memory(const struct moe_setting *s, const struct paper *p, struct moe_prediction *out)
{
	struct moe_level_memory *g = &out->memory[p->gpu], *c = &out->memory[p->cpu];

	gpu_memory(p, s->residual, &g->used);
	cpu_memory(p, &c->used);
	g->available = p->mg * (1 - (s->reserve > 0 ? s->reserve : GPU_RESERVE));
	c->available = p->mc * (1 - (s->reserve > 0 ? s->reserve : CPU_RESERVE));
	/* A share of weights that is just what fits may be over it by a rounding. */
	out->fits = g->used.total <= g->available * (1 + 1e-12) && c->used.total <= c->available * (1 + 1e-12);
}

/* ---- all of it ---- */

static int begin(const struct moe_setting *s, const struct moe_execution *x, struct paper *p, struct moe_err *e)
{
	*p = (struct paper){
		.gpu = x->ffn_on,
		.cpu = plan_host(s->hardware),
		.batch = (double)x->batch,
		.mu = (double)x->micro_batch,
		.n_ub = (double)((x->batch + x->micro_batch - 1) / x->micro_batch),
		.rw = x->weights[x->ffn_on],
		.rc = x->kv[x->ffn_on],
		.attention_on_gpu = x->attention_on == x->ffn_on,
	};
	if (x->attention_on != p->gpu && x->attention_on != p->cpu)
		return moe_fail(e, MOE_E_INPUT, "%s: the paper's model knows one GPU level and the host", s->hardware->name);
	shape_of(s, p);
	return hardware_of(s, p, e);
}

int plan_predict_paper(const struct moe_setting *s, const struct moe_execution *x, struct moe_prediction *out, struct moe_err *e)
{
	struct paper p;
	int rc = begin(s, x, &p, e);

	if (rc)
		return rc;
	*out = (struct moe_prediction){0};
	decode_layer(&p, &out->decode);
	prefill_layer(&p, &out->prefill);
	memory(s, &p, out);
	out->step_seconds = out->decode.seconds * p.l;
	out->prefill_seconds = out->first_token_seconds = out->prefill.seconds * p.l;
	/* As they report it: all tokens, though the first comes out of the prefill, over the steps that follow. */
	out->decode_tokens_per_second = p.batch * p.n / (out->step_seconds * larger(p.n - 1, 1));
	out->prefill_tokens_per_second = p.batch * p.s / out->prefill_seconds;
	out->tokens_per_second = out->decode_tokens_per_second;
	return 0;
}
