/* What a pass works in on a device, as the engine's pipeline takes it (lib/engine/pipeline_buffers.c): activations are f32. */
#include <math.h>

#include "plan/predict_full.h"

#define F32 4.0
#define CHUNK 32                 /* prompt rows that may go along with decode, at least */
#define LOGITS_ROWS 64
#define EXPERT_BYTES (64.0 * (1 << 20)) /* that outputs of experts take at most: more rows go in several turns */
#define FEWEST_EXPERT_ROWS 32
#define LONGEST 4096             /* positions of a sequence that nobody says more about */

/* The widest of the layers, in numbers of a row. */
struct widths {
	double query, kv, out;       /* that go into attention; keys and values; that come out */
	double experts, top_k, expert, inner;
	double kv_bytes;             /* of a position */
};

static struct widths widest(const struct moe_setting *s)
{
	struct widths w = {0};

	for (int i = 0; i < s->model->n_layers; i++) {
		const struct moe_ffn *f = &s->model->layers[i].ffn;
		struct plan_heads h = plan_heads(&s->model->layers[i].attn);

		w.query = fmax(w.query, h.query);
		w.kv = fmax(w.kv, h.kv);
		w.out = fmax(w.out, h.out);
		w.experts = fmax(w.experts, f->experts);
		w.top_k = fmax(w.top_k, f->gate.top_k);
		w.expert = fmax(w.expert, f->expert_width);
		w.inner = fmax(w.inner, fmax(f->width, f->shared_width));
		w.kv_bytes = fmax(w.kv_bytes, plan_kv_bytes(s, i));
	}
	return w;
}

struct sizes {
	double micro_batches, sequences, rows; /* of a micro-batch: sequences, rows of a decode step */
	double prefill, most, choice; /* rows of a prefill; of either; whose experts run at once */
	bool rotates;                /* residuals of prefill wait on the host */
};

static struct sizes sizes_of(const struct plan_pass *d)
{
	const struct moe_execution *x = d->x;
	double prompt = moe_workload_prompt(&d->s->workload);
	double prefill = (double)(x->prefill_micro_batch > 0 ? x->prefill_micro_batch : x->micro_batch);
	struct sizes z = {.micro_batches = d->micro_batches, .prefill = ceil(prefill * prompt)};
	bool zero = x->schedule == MOE_SCHEDULE_ZERO;

	z.sequences = (double)(zero ? x->batch : x->micro_batch);
	z.rows = z.sequences - 1 + ceil(CHUNK / z.micro_batches);
	z.most = fmax(z.rows, z.prefill);
	z.rotates = d->offloads && !zero && z.micro_batches > 2;
	z.choice = z.most;
	if (x->schedule == MOE_SCHEDULE_COALESCED)
		z.choice = fmax(z.micro_batches * z.rows, z.prefill);
	else if (d->experts_on == d->host)
		z.choice = z.micro_batches * z.most;
	return z;
}

/* Keys and values of two micro-batches of a layer on their way; of prompts on their way to the host. */
static double staged_kv(const struct plan_pass *d, const struct sizes *z, const struct widths *w)
{
	const struct moe_setting *s = d->s;
	double positions = moe_workload_prompt(&s->workload) + s->workload.generate, here = d->x->kv[d->base_on];
	double longest = s->model->max_positions > 0 ? fmin(s->model->max_positions, LONGEST) : LONGEST;
	double whole = ceil(longest / 64), all = (double)d->x->batch * ceil(positions / 64);
	double fetched = d->attention_on == d->base_on ? fmin(fmax(ceil(all / z->micro_batches), whole), z->sequences * whole) : 0;
	double stored = floor(z->prefill / 64) + fmin(z->sequences, z->prefill);

	return 2 * 64 * w->kv_bytes * fmax(fetched, stored) * (1 - here);
}

void plan_device_buffers(const struct plan_pass *d, struct plan_buffers *out)
{
	struct widths w = widest(d->s);
	struct sizes z = sizes_of(d);
	bool cpu_experts = d->experts_on == d->host, cpu_attention = d->attention_on == d->host;
	double hidden = d->s->model->hidden, decode = z.micro_batches * z.rows;
	double residual = fmax(decode, (z.rotates ? 2 : z.micro_batches) * z.prefill);
	double turns = fmax(decode, 2 * z.prefill), mixed = cpu_attention ? fmax(decode, z.most) : z.most;
	double pair = w.top_k * (hidden + w.expert), all = cpu_experts ? z.most : z.choice;
	double n = fmin(all, fmax(floor(EXPERT_BYTES / (pair * F32)), FEWEST_EXPERT_ROWS));

	out->hidden = F32 * hidden * (residual + z.choice + (cpu_experts ? z.choice : 0));
	out->workspace = F32 * (turns * (w.query + w.kv) + mixed * w.out + z.most * (w.experts + 2 * w.top_k) +
	                        n * (2 * hidden + w.inner + 1 + (cpu_experts ? 0 : pair)) + fmin(z.most, LOGITS_ROWS) * d->s->model->vocab);
	out->kv = staged_kv(d, &z, &w);
}
