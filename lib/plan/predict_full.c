/* The full variant: doc/model.md says what it counts and what it leaves out. */
#include "plan/predict_full.h"

#include <string.h>

static int check_schedule(const struct moe_setting *s, const struct moe_execution *x, struct moe_err *e)
{
	const struct moe_hardware *h = s->hardware;
	int host = plan_host(h), last = x->ffn_on == host ? host : h->n_levels - 1;
	bool cpu_attention = x->schedule != MOE_SCHEDULE_FLEXGEN && x->schedule != MOE_SCHEDULE_ZERO;

	if (x->schedule == MOE_SCHEDULE_RESIDENT) {
		/* The host maps a file that lies on a disk; a GPU would need room for what comes. */
		for (int i = 0; i <= last; i++)
			if (i != x->ffn_on && x->weights[i] > 0)
				return moe_fail(e, MOE_E_INPUT, "%s: nothing moves in this schedule, and experts of %s lie on %s", h->name,
				                h->levels[x->ffn_on].name, h->levels[i].name);
		return 0;
	}
	if (x->ffn_on == host)
		return moe_fail(e, MOE_E_INPUT, "%s: this schedule brings weights to a GPU, and experts are computed on %s", h->name,
		                h->levels[host].name);
	if (cpu_attention && x->attention_on != host)
		return moe_fail(e, MOE_E_INPUT, "%s: this schedule has attention on %s, not on %s", h->name, h->levels[host].name,
		                h->levels[x->attention_on].name);
	if (!cpu_attention && x->attention_on == host)
		return moe_fail(e, MOE_E_INPUT, "%s: this schedule has attention where the experts are, not on %s", h->name,
		                h->levels[host].name);
	return 0;
}

/* ---- a pass ---- */

static void add_layer(struct moe_layer_time *sum, const struct moe_layer_time *t, double times)
{
	for (int i = 0; i < MOE_LANES; i++)
		plan_add_sum(&sum->lanes[i], &t->lanes[i], times);
	sum->seconds += t->seconds * times;
}

static bool alike(const struct moe_setting *s, int a, int b)
{
	return !s->usage && !s->placement && memcmp(&s->model->layers[a], &s->model->layers[b], sizeof(struct moe_layer)) == 0;
}

/* The mean of all layers; runs of layers that are alike are counted once. */
static int layers(const struct plan_pass *p, struct moe_layer_time *mean, struct moe_err *e)
{
	int n = p->s->model->n_layers;

	for (int first = 0, next; first < n; first = next) {
		struct moe_layer_time t;
		struct plan_stages stages;
		int rc = plan_layer_lanes(p, first, &t, &stages, e);

		if (rc)
			return rc;
		plan_layer_seconds(p, &stages, &t);
		for (next = first + 1; next < n && alike(p->s, first, next); next++)
			;
		add_layer(mean, &t, (double)(next - first) / n);
	}
	for (int i = 0; i < MOE_LANES; i++)
		if (mean->lanes[i].total > mean->lanes[mean->bottleneck].total)
			mean->bottleneck = (enum moe_lane)i;
	return 0;
}

static int run(const struct plan_pass *p, struct moe_layer_time *layer, double *seconds, struct moe_err *e)
{
	double embed, head;
	int rc = layers(p, layer, e);

	plan_pass_ends(p, &embed, &head);
	*seconds = layer->seconds * p->s->model->n_layers + embed + head;
	return rc;
}

int plan_predict_full(const struct moe_setting *s, const struct moe_execution *x, struct moe_prediction *out, struct moe_err *e)
{
	double batch = (double)x->batch, generate = s->workload.generate;
	struct plan_pass decode, prefill;
	int rc = check_schedule(s, x, e);

	if (rc)
		return rc;
	if (s->kv_bytes != 1 && s->kv_bytes != 2 && s->kv_bytes != 4)
		return moe_fail(e, MOE_E_INPUT, "keys and values of %d bytes: it is 1, 2 or 4", s->kv_bytes);
	*out = (struct moe_prediction){0};
	plan_pass_decode(s, x, &decode);
	plan_pass_prefill(s, x, &prefill);
	rc = run(&decode, &out->decode, &out->step_seconds, e);
	rc = rc ? rc : run(&prefill, &out->prefill, &out->prefill_seconds, e);
	if (rc)
		return rc;
	plan_memory_use(s, x, out);
	out->first_token_seconds = out->prefill_seconds;
	out->decode_tokens_per_second = batch / out->step_seconds;
	out->prefill_tokens_per_second = batch * moe_workload_prompt(&s->workload) / out->prefill_seconds;
	/* The first token comes out of the prefill. */
	out->tokens_per_second = batch * generate / (out->prefill_seconds + (generate > 1 ? generate - 1 : 0) * out->step_seconds);
	return 0;
}
