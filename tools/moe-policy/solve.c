/* The question that the command line asks of the search, and its answer. */
#include <string.h>

#include "base/log.h"
#include "base/words.h"
#include "place.h"
#include "whole.h"

static int unknown(const char *option, const char *word, const char *const *names, struct moe_err *e)
{
	const char *near = moe_nearest(word, names);

	return moe_fail(e, MOE_E_INPUT, "%s: there is no \"%s\"%s%s%s", option, word, near ? ": is " : "", near ? near : "",
	                near ? " meant?" : "");
}

/* The index of word in names, which may be NULL: `absent`. */
static int choose(const char *option, const char *word, const char *const *names, int absent, int *out, struct moe_err *e)
{
	*out = absent;
	if (!word)
		return 0;
	for (int i = 0; names[i]; i++)
		if (strcmp(names[i], word) == 0) {
			*out = i;
			return 0;
		}
	return unknown(option, word, names, e);
}

static int choose_schedule(const char *option, const char *word, int *out, struct moe_err *e)
{
	const char *names[MOE_SCHEDULES + 1] = {NULL};

	for (int i = 0; i < MOE_SCHEDULES; i++)
		names[i] = moe_schedule_name((enum moe_schedule)i);
	return choose(option, word, names, -1, out, e);
}

static int choose_level(const char *option, const char *word, const struct moe_hardware *h, int *out, struct moe_err *e)
{
	const char *names[MOE_MAX_LEVELS + 1] = {NULL};

	for (int i = 0; i < h->n_levels; i++)
		names[i] = h->levels[i].name;
	return choose(option, word, names, -1, out, e);
}

static int kv_bytes(const char *word, int *out, struct moe_err *e)
{
	static const char *const names[] = {"f32", "f16", "bf16", "q8", NULL};
	static const int bytes[] = {4, 2, 2, 1};
	int i, rc = choose("--kv", word, names, 1, &i, e);

	*out = rc ? 0 : bytes[i];
	return rc;
}

/* --set residual= and reserve=, which are the model's. */
static int set_model(const struct options *o, struct moe_setting *s, struct moe_err *e)
{
	static const char *const residuals[] = {"whole-batch", "per-micro-batch", NULL};
	int i = 0, rc = 0;

	for (int n = 0; n < o->set.n && rc == 0; n++) {
		const char *word = o->set.v[n];

		if (strncmp(word, "residual=", 9) == 0) {
			rc = choose("--set residual", word + 9, residuals, 0, &i, e);
			s->residual = i ? MOE_RESIDUAL_PER_MICRO_BATCH : MOE_RESIDUAL_WHOLE_BATCH;
		} else if (strncmp(word, "reserve=", 8) == 0 &&
		           (!moe_parse_num(word + 8, &s->reserve) || !(s->reserve > 0 && s->reserve < 1))) {
			rc = moe_fail(e, MOE_E_INPUT, "--set %s: the reserve is a share between 0 and 1", word);
		}
	}
	return rc;
}

static int ask(const struct options *o, const struct subject *s, struct moe_setting *q, struct moe_err *e)
{
	static const char *const variants[] = {"full", "paper", NULL};
	int variant, rc;

	q->quants = s->quants;
	rc = choose("--variant", o->variant, variants, 0, &variant, e);
	q->variant = variant ? MOE_VARIANT_PAPER : MOE_VARIANT_FULL;
	rc = rc ? rc : kv_bytes(o->kv, &q->kv_bytes, e);
	rc = rc ? rc : set_model(o, q, e);
	return rc ? rc : read_workload(o, &q->workload, e);
}

static int how_to_search(const struct options *o, const struct subject *s, const struct moe_hardware *h, struct moe_search *how,
                         struct moe_err *e)
{
	static const char *const objectives[] = {"throughput", "latency", NULL};
	int objective, rc = choose("--objective", o->objective, objectives, 0, &objective, e);

	how->objective = objective ? MOE_LEAST_LATENCY : MOE_MOST_THROUGHPUT;
	how->latency_bound = o->max_step;
	how->batch = o->batch;
	how->micro_batch = o->micro_batch;
	how->any_quant = s->any_quant;
	how->runnable = true;
	how->solve = whole_experts;
	if (rc == 0 && o->simulate)
		rc = choose_schedule("--simulate", o->simulate, &how->schedule, e);
	else if (rc == 0)
		rc = choose_schedule("--schedule", o->schedule, &how->schedule, e);
	rc = rc ? rc : choose_level("--attention-on", o->attention_on, h, &how->attention_on, e);
	return rc ? rc : choose_level("--ffn-on", o->ffn_on, h, &how->ffn_on, e);
}

int solve(const struct options *o, struct subject *s, const struct site *site, const struct placed *placed, struct solution *out,
          struct moe_err *e)
{
	const struct moe_hardware *h = site->fleet.hosts;
	struct moe_search how = MOE_SEARCH_INIT;
	struct moe_found found;
	bool kept = false;
	int rc;

	*out = (struct solution){.setting = {.model = &s->model, .hardware = h}};
	out->setting.usage = placed->has_usage ? &placed->usage : NULL;
	if (site->fleet.n > 1) {
		out->setting.fleet = &site->fleet;
		out->setting.placement = &placed->placement;
	}
	rc = ask(o, s, &out->setting, e);
	rc = rc ? rc : how_to_search(o, s, h, &how, e);
	if (rc == 0 && o->no_cache)
		rc = moe_search(&out->setting, &how, &found, e);
	else if (rc == 0)
		rc = moe_search_cached(&out->setting, &how, &found, &kept, e);
	if (rc)
		return rc;
	moe_log(MOE_DEBUG, "%s on %s: the best of %lld policies%s", o->model, h->name, (long long)found.tried,
	        kept ? ", found before" : "");
	out->how = how;
	out->found = found;
	out->execution = found.execution;
	out->prediction = found.prediction;
	out->setting.quants = found.quants;
	if (s->any_quant) {
		s->quants = found.quants;
		s->requantised = found.quants.experts != MOE_Q_KEEP;
	}
	return 0;
}
