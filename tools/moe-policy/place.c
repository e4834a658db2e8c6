/* --placement and what goes with it. */
#include "place.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

/* A server fewer for a token is worth as much as computing an expert for it. */
#define VISIT_WORTH 1.0

static bool is_weighed(const char *how)
{
	return strcmp(how, "usage") == 0 || strcmp(how, "hierarchical") == 0;
}

static bool parse_replicas(const char *word, int *out)
{
	int64_t n = -1;

	if (word && strcmp(word, "auto") != 0 && !moe_parse_int(word, 0, 1 << 24, &n))
		return false;
	*out = word ? (int)n : 0;
	return true;
}

bool place_is_asked(const struct place_args *a)
{
	return a->how || a->usage || a->replicas || a->keep || a->coactivation || a->groups || a->move_cost > 0;
}

const char *place_conflict(const struct place_args *a)
{
	int replicas;

	if (!parse_replicas(a->replicas, &replicas))
		return "--replicas is a number or auto";
	if (a->move_cost > 0 && !a->keep)
		return "--move-cost needs --keep";
	if (!a->how)
		return (a->replicas || a->groups || a->coactivation || a->move_cost > 0) && !a->usage ?
		       "--replicas, --groups, --coactivation and --move-cost need --placement usage or hierarchical" : NULL;
	if (!moe_place_is_named(a->how) && !moe_exists(a->how) && !strpbrk(a->how, "./"))
		return "--placement is one of round-robin, balanced, capacity, usage, hierarchical, or a file";
	if (!is_weighed(a->how) && (a->replicas || a->coactivation || a->move_cost > 0))
		return "--replicas, --coactivation and --move-cost need --placement usage or hierarchical";
	if (a->groups && strcmp(a->how, "hierarchical") != 0)
		return "--groups needs --placement hierarchical";
	if (strcmp(a->how, "usage") == 0 && !a->usage)
		return "--placement usage needs --usage";
	return NULL;
}

static int read_inputs(const struct place_args *a, const struct moe_model *m, struct placed *p, struct moe_err *e)
{
	struct moe_device *devices = NULL;
	int rc = 0;

	if (a->usage) {
		rc = moe_usage_read(a->usage, m, &p->usage, e);
		p->has_usage = rc == 0;
	}
	if (rc == 0 && a->keep) {
		rc = moe_policy_read(a->keep, m, &devices, &p->before, e);
		p->has_before = rc == 0;
		free(devices);
	}
	return rc == 0 && a->coactivation ? moe_coactivation_read(a->coactivation, m, &p->together, e) : rc;
}

int place_experts(const struct place_args *a, struct subject *s, const struct site *site, struct placed *out, struct moe_err *e)
{
	struct moe_place_problem *q = &out->problem;
	int rc;

	*out = (struct placed){.has_usage = false};
	rc = read_inputs(a, &s->model, out, e);
	*q = (struct moe_place_problem){.model = &s->model, .devices = site->devices, .n = site->n, .bytes = subject_expert_bytes, .ctx = s,
	                                .groups = (int)a->groups, .move_cost = a->move_cost, .together = out->together,
	                                .together_weight = VISIT_WORTH};
	q->usage = out->has_usage ? &out->usage : NULL;
	q->before = out->has_before ? &out->before : NULL;
	parse_replicas(a->replicas, &q->replicas);
	rc = rc ? rc : moe_place_named(a->how, q, &out->placement, e);
	if (rc)
		place_close(out);
	return rc;
}

int place_on_one(const struct place_args *a, struct subject *s, struct placed *out, struct moe_err *e)
{
	int rc;

	*out = (struct placed){.has_usage = false};
	rc = read_inputs(a, &s->model, out, e);
	rc = rc ? rc : moe_place_round_robin(&s->model, 1, &out->placement, e);
	if (rc)
		place_close(out);
	return rc;
}

void place_close(struct placed *p)
{
	moe_placement_free(&p->placement);
	moe_placement_free(&p->before);
	moe_usage_free(&p->usage);
	moe_coactivation_free(p->together);
	*p = (struct placed){.has_usage = false};
}

static int put_copies(const struct moe_placement *p, struct moe_buf *out, struct moe_err *e)
{
	int experts = p->start[p->layers], copies = p->first[experts];

	return moe_buf_printf(out, e, "%d experts, %d copies on %d device%s\n", experts, copies, p->devices, p->devices == 1 ? "" : "s");
}

int place_report(const struct placed *p, struct moe_buf *out, struct moe_err *e)
{
	int rc = put_copies(&p->placement, out, e);

	if (rc == 0 && p->has_before)
		rc = moe_buf_printf(out, e, "%" PRId64 " experts lie elsewhere than before\n",
		                    moe_placement_moves(&p->before, &p->placement));
	return rc ? rc : moe_placement_balance_table(&p->placement, &p->problem, out, e);
}
