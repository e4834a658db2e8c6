/* Why a search found nothing, in numbers, and what would help.  Each question is the search's own at its smallest: batch 1 (or
 * the one that was asked for) and micro-batches of 1, with one thing changed. */
#include <math.h>

#include "base/opts.h"
#include "plan/predict_full.h"
#include "plan/search.h"

#define MOST_MEMORY 1e18
#define BISECTIONS 40

struct question {
	struct moe_setting setting;
	struct moe_search how;
	struct moe_hardware hardware;
};

static struct question ask(const struct moe_setting *s, const struct moe_search *how)
{
	struct question a = {.setting = *s, .how = *how, .hardware = *s->hardware};

	return a;
}

/* Is there a policy at that batch?  *step: seconds of the fastest. */
static bool fits(struct question *a, int64_t batch, double *step)
{
	struct plan_search q = {.setting = a->setting, .how = &a->how, .floor = -INFINITY};
	struct plan_kind kinds[PLAN_KINDS];
	bool any = false;
	int n;

	q.setting.hardware = &a->hardware;
	n = plan_kinds(&q, kinds, NULL);
	for (int i = 0; i < n; i++) {
		struct moe_execution x = {.schedule = kinds[i].schedule, .attention_on = kinds[i].attention_on, .ffn_on = kinds[i].ffn_on};
		struct moe_prediction p;

		x.batch = batch;
		x.micro_batch = a->how.micro_batch && a->how.micro_batch < batch ? a->how.micro_batch : batch;
		for (x.prefill_micro_batch = 1;; x.micro_batch = 1) {
			if (plan_shares(&q, &kinds[i], &x, &p) > -INFINITY) {
				if (step && (!any || p.step_seconds < *step))
					*step = p.step_seconds;
				any = true;
			}
			if (x.micro_batch == 1 || a->how.micro_batch)
				break;
		}
	}
	return any;
}

static int64_t smallest(const struct moe_search *how)
{
	return how->batch ? how->batch : how->micro_batch ? how->micro_batch : 1;
}

/* Bytes that a level must have for it to fit; 0: that alone does not help. */
static double memory_needed(struct question a, int level)
{
	double low = a.hardware.levels[level].memory, high = MOST_MEMORY;

	a.hardware.levels[level].memory = high;
	if (!fits(&a, smallest(&a.how), NULL))
		return 0;
	for (int i = 0; i < BISECTIONS && high > low * 1.0001; i++) {
		double middle = sqrt(low * high);

		a.hardware.levels[level].memory = middle;
		if (fits(&a, smallest(&a.how), NULL))
			high = middle;
		else
			low = middle;
	}
	return high;
}

/* The bound on a step is what cannot be kept. */
static int fail_latency(struct question a, double bound, struct moe_err *e)
{
	int64_t batch = smallest(&a.how);
	double step = 0;

	a.how.objective = MOE_LEAST_LATENCY;
	fits(&a, batch, &step);
	return moe_fail(e, MOE_E_RANGE, "%s: a decode step takes %.3g s or more at batch %lld, %.3g s are allowed", a.hardware.name,
	                step, (long long)batch, bound);
}

/* A batch that was asked for is too large: the largest that is not. */
static int fail_batch(struct question a, struct moe_err *e)
{
	int64_t low = 1, high = a.how.batch;

	while (high - low > 1) {
		int64_t middle = low + (high - low) / 2;

		if (fits(&a, middle, NULL))
			low = middle;
		else
			high = middle;
	}
	return moe_fail(e, MOE_E_RANGE, "%s: a batch of %lld does not fit%s; %lld does", a.hardware.name, (long long)a.how.batch,
	                a.how.latency_bound > 0 ? " memory and time of a step" : "", (long long)low);
}

/* A host of the fleet that has not the memory for the experts that were placed on it; 0: all have. */
static int fail_host(const struct moe_setting *s, struct moe_err *e)
{
	char placed[32], usable[32], all[32];

	for (int i = 1; s->fleet && s->placement && i < s->placement->devices && i < s->fleet->n; i++) {
		const struct moe_hardware *h = &s->fleet->hosts[i];
		double bytes = 0, memory = plan_memory(&h->levels[plan_host(h)]), reserve = s->reserve > 0 ? s->reserve : PLAN_RESERVE;

		for (int l = 0; l < s->model->n_layers; l++)
			bytes += s->model->layers[l].ffn.experts * plan_expert_bytes(s, l) * plan_held(s, l, i);
		if (bytes > memory * (1 - reserve))
			return moe_fail(e, MOE_E_RANGE, "%s: %s of experts are placed there, %s of its %s may be used", h->name,
			                moe_size_text(bytes, placed), moe_size_text(memory * (1 - reserve), usable), moe_size_text(memory, all));
	}
	return 0;
}

/* The smallest change of the model's side that fits: words for the end of the message. */
static const char *cure(struct question a)
{
	static const struct { const char *quants, *words; } cures[] = {
		{"q8", "with q8 weights it would fit"}, {"q4", "with q4 weights it would fit"},
		{"q3", "with q3 experts it would fit"}, {"q2", "with q2 experts it would fit"},
	};
	struct question b = a;

	b.setting.kv_bytes = 1;
	if (a.setting.kv_bytes > 1 && fits(&b, smallest(&a.how), NULL))
		return "with a KV cache in q8 it would fit";
	for (size_t i = 0; i < sizeof cures / sizeof *cures; i++)
		if (moe_quants_parse(cures[i].quants, &a.setting.quants, NULL) == 0 && fits(&a, smallest(&a.how), NULL))
			return cures[i].words;
	a.setting.workload.prompt_mean = a.setting.workload.prompt_max = a.setting.workload.generate = 1;
	if (fits(&a, smallest(&a.how), NULL))
		return "with q2 experts and short prompts it would fit";
	return "no quant is small enough";
}

int plan_search_fail(const struct moe_setting *s, const struct moe_search *how, struct moe_err *e)
{
	struct question a = ask(s, how), b = a;
	const struct moe_hardware *h = s->hardware;
	long long batch = (long long)smallest(how);
	char needed[32], there[32];

	if (fail_host(s, e))
		return MOE_E_RANGE;
	b.how.latency_bound = 0;
	if (how->latency_bound > 0 && fits(&b, smallest(how), NULL))
		return fail_latency(b, how->latency_bound, e);
	b = a;
	if (how->batch > 1 && fits(&b, 1, NULL))
		return fail_batch(b, e);
	/* The host's memory first: it is what can be bought. */
	for (int i = h->n_levels - 1; i >= 0; i--) {
		double need = h->levels[i].bandwidth > 0 ? memory_needed(a, i) : 0;

		if (need > 0)
			return moe_fail(e, MOE_E_RANGE, "%s: needs %s of %s memory at batch %lld, %s there are; %s", h->name,
			                moe_size_text(need * h->levels[i].count, needed), h->levels[i].name, batch,
			                moe_size_text(plan_memory(&h->levels[i]), there), cure(a));
	}
	return moe_fail(e, MOE_E_RANGE, "%s: does not fit at batch %lld, and more of one memory alone does not help; %s", h->name, batch,
	                cure(a));
}
