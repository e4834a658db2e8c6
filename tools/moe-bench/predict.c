/* What the roofline model says of a test, from roofs and kernels measured in the same run. */
#include <math.h>

#include "base/log.h"
#include "bench.h"

#define POINT_SECONDS 0.3

/* The quants that matrices of this run have, by the first layer of each kind. */
static int read_quants(const struct moe_run *r, struct moe_quants *out, struct moe_err *e)
{
	struct moe_base_weights base;
	struct moe_expert_weights expert;
	int rc = moe_bind_base(r->tensors, r->model, &base, e);
	if (rc)
		return rc;
	*out = (struct moe_quants){.experts = MOE_Q_KEEP, .rest = base.layers[0].q.quant, .embed = base.embed.quant, .head = base.head.quant};
	moe_base_free(&base);
	for (int l = 0; l < r->model->n_layers && !rc && out->experts == MOE_Q_KEEP; l++)
		if (r->model->layers[l].ffn.kind == MOE_FFN_MOE) {
			rc = moe_bind_expert(r->tensors, r->model, l, 0, &expert, e);
			if (rc == 0)
				out->experts = expert.gate.quant;
		}
	return rc;
}

static void say(const struct bench_predictor *p)
{
	const struct moe_memory_level *cpu = &p->hardware.levels[0];
	for (int k = 0; k < MOE_KERNELS; k++)
		for (int i = 0; i < cpu->kernels[k].n; i++)
			moe_log(MOE_DEBUG, "kernel %s with %g rows: %.2f GB/s", k == MOE_KERNEL_ATTENTION ? "attention" : moe_quant_name((enum moe_quant)k),
			        cpu->kernels[k].rows[i], cpu->kernels[k].bandwidth[i] / 1e9);
}

int bench_predictor_make(const struct moe_run *r, const struct moe_roofs *roofs, struct bench_predictor *out, struct moe_err *e)
{
	struct moe_kernels kernels;
	struct moe_quants q = MOE_QUANTS_INIT;
	*out = (struct bench_predictor){.model = r->model};
	if (r->remote)
		return moe_fail(e, MOE_E_UNSUPPORTED, "the experts are on servers, whose kernels are not measured from here");
	int rc = read_quants(r, &q, e);
	if (rc)
		return rc;
	unsigned set = 1u << q.experts | 1u << q.rest | 1u << q.head | 1u << MOE_Q_F32;
	rc = moe_measure_kernels(r->backend, set, r->numerics.kv, POINT_SECONDS, &kernels, e);
	if (rc)
		return rc;
	const struct moe_machine m = {.name = "here", .memory = moe_memory_available() + moe_run_weight_bytes(r), .roofs = roofs, .n_roofs = 1, .kernels = &kernels};
	moe_machine_hardware(&m, &out->hardware);
	out->quants = q;
	out->kv_bytes = (int)moe_kv_element_bytes(r->numerics.kv);
	out->exact = r->numerics.activation == MOE_A_F32;
	say(out);
	return 0;
}

static void set_execution(struct moe_execution *x, const struct bench_test *t, int chunk)
{
	int64_t prompts = t->prompt > 0 ? chunk / t->prompt : t->batch;
	*x = (struct moe_execution){.schedule = MOE_SCHEDULE_RESIDENT, .batch = t->batch, .micro_batch = t->batch};
	x->prefill_micro_batch = prompts < 1 ? 1 : prompts > t->batch ? t->batch : prompts;
	x->weights[0] = x->kv[0] = 1;
}

double bench_predict(const struct bench_predictor *p, const struct bench_test *t, int chunk)
{
	double prompt = t->what == BENCH_TG ? t->depth : t->prompt;
	struct moe_setting s = {.model = p->model, .hardware = &p->hardware, .quants = p->quants, .kv_bytes = p->kv_bytes, .exact = p->exact,
	                        .workload = {.name = "test", .prompt_mean = prompt < 1 ? 1 : prompt, .prompt_max = prompt < 1 ? 1 : prompt,
	                                     .generate = t->generate < 1 ? 1 : t->generate}};
	struct moe_execution x;
	struct moe_prediction got;
	struct moe_err e = MOE_ERR_INIT;
	if (t->what == BENCH_MIXED || t->what == BENCH_READY || t->what == BENCH_LOAD || t->what == BENCH_NET || (t->what != BENCH_TG && t->depth))
		return NAN; /* no one batch that the model could be asked about */
	set_execution(&x, t, chunk);
	if (moe_predict(&s, &x, &got, &e)) {
		moe_log(MOE_WARN, "no prediction: %s", e.msg);
		return NAN;
	}
	double seconds = (t->what == BENCH_TG ? 0 : got.prefill_seconds) + (t->what == BENCH_PP ? 0 : t->generate * got.step_seconds);
	return (double)bench_test_tokens(t) / seconds;
}
