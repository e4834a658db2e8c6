/* A pass of the batch: which level does what, in which micro-batches. */
#include <math.h>

#include "plan/predict_full.h"

/* Prompt rows that the CPU engine takes in one step, as its programs have it by default. */
#define CHUNK_ROWS 512

static void places(const struct moe_setting *s, const struct moe_execution *x, struct plan_pass *p)
{
	enum moe_schedule schedule = x->schedule;

	*p = (struct plan_pass){.s = s, .x = x, .host = plan_host(s->hardware), .experts_on = x->ffn_on};
	p->base_on = x->attention_on < x->ffn_on ? x->attention_on : x->ffn_on;
	p->attention_on = x->attention_on;
	p->element = s->exact || p->base_on == p->host ? 4 : 2;
	p->pages = schedule == MOE_SCHEDULE_CGOPIPE || schedule == MOE_SCHEDULE_COALESCED;
	p->offloads = schedule != MOE_SCHEDULE_RESIDENT;
}

/* The context is what it is on average while `generate` tokens come. */
void plan_pass_decode(const struct moe_setting *s, const struct moe_execution *x, struct plan_pass *p)
{
	double context = moe_workload_prompt(&s->workload) + s->workload.generate / 2;
	int64_t micro = x->schedule == MOE_SCHEDULE_ZERO ? x->batch : x->micro_batch;

	places(s, x, p);
	p->micro_batches = ceil((double)x->batch / (double)micro);
	p->rows = plan_decode_rows((double)x->batch / p->micro_batches, context, p->element);
}

/* Prompts are computed where the weights are; on the host, in the chunks of its engine. */
void plan_pass_prefill(const struct moe_setting *s, const struct moe_execution *x, struct plan_pass *p)
{
	double prompt = moe_workload_prompt(&s->workload), batch = (double)x->batch;
	double micro = x->prefill_micro_batch > 0 ? (double)x->prefill_micro_batch : (double)x->micro_batch;

	if (x->schedule == MOE_SCHEDULE_ZERO)
		micro = batch;
	places(s, x, p);
	p->prefill = true;
	p->attention_on = p->base_on;
	if (p->base_on == p->host && micro * prompt > CHUNK_ROWS)
		micro = CHUNK_ROWS / prompt;
	p->micro_batches = ceil(batch / micro - 1e-9);
	p->rows = plan_prefill_rows(batch / p->micro_batches, prompt, p->element);
}

/* The engine looks for the greatest logit and adds up exponentials of all of them on one core, one after the other: measured 3 ns
 * for each of the two. */
#define CHOICE_SECONDS 6e-9

static double choice(const struct plan_pass *p, double sequences)
{
	return p->base_on == p->host ? sequences * p->s->model->vocab * CHOICE_SECONDS : 0;
}

/* A decode step has one call of each for the batch, a prefill one for every micro-batch, of which some may end no prompt. */
void plan_pass_ends(const struct plan_pass *p, double *embed, double *head)
{
	struct plan_rows r = p->rows;
	double sequences = r.sequences * p->micro_batches, calls = p->prefill ? p->micro_batches : 1;
	struct moe_op ops[MOE_OPS];
	int n;

	*embed = 0;
	*head = choice(p, sequences);
	if (calls > sequences)
		calls = sequences;
	r.rows = r.rows * p->micro_batches / calls;
	r.sequences = sequences / calls;
	plan_ops(p->s, -1, &r, ops, &n);
	for (int i = 0; i < n; i++)
		*(ops[i].kind == MOE_OP_EMBED ? embed : head) += calls * plan_op_seconds(p->s, p->base_on, &ops[i]);
}
