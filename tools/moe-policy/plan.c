/* The plan itself: where experts go, how a batch is run, what is printed of it. */
#include "plan.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

struct draft {
	const struct options *o;
	const struct place_args *where;
	struct subject subject;
	struct site site;
	struct placed placed;
	struct solution answer;    /* where speeds are known */
};

/* ---- printing ---- */

static int print_policy(struct draft *d, struct moe_err *e)
{
	struct moe_policy p = {.model = &d->subject.model, .model_name = d->o->model, .hardware = d->site.json,
	                       .devices = d->site.devices, .placement = &d->placed.placement};
	struct moe_buf text = MOE_BUF_INIT;
	struct moe_json *before = NULL;
	int rc = d->where->keep ? read_policy(d->where->keep, &before, e) : 0;

	p.before = before;
	if (d->site.fleet.n > 0) {
		p.fleet = &d->site.fleet;
		p.setting = &d->answer.setting;
		p.execution = &d->answer.execution;
		p.prediction = &d->answer.prediction;
	}
	rc = rc ? rc : moe_policy_write(&p, &text, e);
	if (rc == 0)
		puts(text.data);
	moe_buf_free(&text);
	moe_json_free(before);
	return rc;
}

/* The quant that was chosen, in every device that has to obey it. */
static void note_quant(struct draft *d)
{
	for (int i = 0; d->subject.requantised && i < d->site.n; i++)
		snprintf(d->site.devices[i].quant, sizeof d->site.devices[i].quant, "%s", moe_quant_name(d->subject.quants.experts));
}

static int print_draft(struct draft *d, struct moe_err *e)
{
	int rc;

	note_quant(d);
	if (d->o->simulate)
		return print_simulation(d->o, &d->answer, e);
	rc = d->o->plot ? write_plot(d->o, &d->answer, e) : 0;
	if (rc)
		return rc;
	if (d->o->explain)
		return print_explanation(d->o, &d->answer, e);
	if (d->o->export)
		return print_export(d->o, &d->subject, &d->site, &d->placed.placement, e);
	return print_policy(d, e);
}

/* ---- planning ---- */

/* The balance of the placement, for -v. */
static void tell_placement(const struct placed *p)
{
	struct moe_buf text = MOE_BUF_INIT;
	char *line, *rest;

	if (moe_common.verbose && place_report(p, &text, NULL) == 0)
		for (line = strtok_r(text.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
			moe_log(MOE_DEBUG, "%s", line);
	moe_buf_free(&text);
}

/* A single machine whose speed is known holds all experts: whether they fit is the search's to say. */
static int place(struct draft *d, struct moe_err *e)
{
	int rc;

	if (!d->where->how)
		return place_on_one(d->where, &d->subject, &d->placed, e);
	rc = place_experts(d->where, &d->subject, &d->site, &d->placed, e);
	if (rc == 0)
		tell_placement(&d->placed);
	return rc;
}

static int place_and_solve(struct draft *d, struct moe_err *e)
{
	int rc = place(d, e);

	if (rc || d->site.fleet.n == 0)
		return rc;
	rc = solve(d->o, &d->subject, &d->site, &d->placed, &d->answer, e);
	if (rc)
		place_close(&d->placed);
	return rc;
}

static bool is_better(const struct options *o, const struct solution *a, const struct solution *b)
{
	if (o->objective && strcmp(o->objective, "latency") == 0)
		return a->prediction.step_seconds < b->prediction.step_seconds;
	return a->prediction.tokens_per_second > b->prediction.tokens_per_second;
}

/* Machines that are too slow, or too far away, can make all of them slower than the first is alone: whoever brought them should know. */
static void tell_if_alone_is_faster(const struct draft *d)
{
	struct draft alone = *d;
	struct moe_err e = MOE_ERR_INIT;

	if (d->site.fleet.n < 2)
		return;
	alone.site.fleet.n = 1;
	alone.subject.any_quant = false;
	if (solve(d->o, &alone.subject, &alone.site, &d->placed, &alone.answer, &e) == 0 && is_better(d->o, &alone.answer, &d->answer))
		moe_log(MOE_WARN, "%s alone would be faster: %.4g tokens/s instead of %.4g", d->site.fleet.hosts[0].name,
		        alone.answer.prediction.tokens_per_second, d->answer.prediction.tokens_per_second);
}

/* --quant auto over several devices: whether experts fit there depends on their quant, so each is placed and searched. */
static int try_quants(struct draft *d, struct moe_err *e)
{
	static const enum moe_quant quants[] = {MOE_Q_BF16, MOE_Q_Q8, MOE_Q_Q4};
	struct draft best = *d;
	bool found = false;
	int rc = 0;

	for (size_t i = 0; i < sizeof quants / sizeof quants[0]; i++) {
		d->subject.any_quant = false;
		d->subject.requantised = quants[i] != MOE_Q_BF16;
		rc = moe_quants_parse(moe_quant_name(quants[i]), &d->subject.quants, e);
		rc = rc ? rc : place_and_solve(d, e);
		if (rc == MOE_E_RANGE)
			continue;
		if (rc)
			break;
		if (!found || is_better(d->o, &d->answer, &best.answer)) {
			if (found)
				place_close(&best.placed);
			best = *d;
			found = true;
		} else {
			place_close(&d->placed);
		}
	}
	if (!found)
		return rc;
	if (rc && rc != MOE_E_RANGE) {
		place_close(&best.placed);
		return rc;
	}
	*d = best; /* what points into it does so again */
	return 0;
}

/* What is meant when nothing is said; NULL: there is nothing to choose. */
static const char *default_placement(const struct draft *d)
{
	if (d->site.n == 1 && d->site.fleet.n == 1)
		return NULL;
	return d->where->usage ? "usage" : d->o->hardware ? "capacity" : "balanced";
}

static int fill(struct draft *d, struct place_args *where, struct moe_err *e)
{
	if (!where->how)
		where->how = default_placement(d);
	if ((d->o->simulate || d->o->plot || d->o->explain) && d->site.fleet.n == 0)
		return moe_fail(e, MOE_E_INPUT, "%s does not say how fast it is: %s", d->o->hardware,
		                d->o->simulate ? "a schedule cannot be simulated" : d->o->plot ? "there is no roofline to draw" : "there is nothing to explain");
	return d->subject.any_quant && d->site.fleet.n > 1 ? try_quants(d, e) : place_and_solve(d, e);
}

int plan(const struct options *o, struct place_args *where, struct moe_err *e)
{
	struct draft d = {.o = o, .where = where};
	int rc = subject_open(o, &d.subject, e);

	if (rc)
		return rc;
	rc = site_open(o, &d.site, e);
	if (rc == 0) {
		rc = fill(&d, where, e);
		if (rc == 0) {
			tell_if_alone_is_faster(&d);
			rc = print_draft(&d, e);
			place_close(&d.placed);
		}
		site_close(&d.site);
	}
	subject_close(&d.subject);
	return rc;
}
