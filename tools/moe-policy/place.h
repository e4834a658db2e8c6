/* --placement and what goes with it. */
#ifndef MOE_POLICY_PLACE_H
#define MOE_POLICY_PLACE_H

#include "policy.h"

struct place_args {
	const char *how;             /* --placement: a word or a file */
	const char *usage;           /* --usage FILE */
	const char *replicas;        /* --replicas N|auto; NULL: none */
	const char *keep;            /* --keep POLICY: where experts lie now */
	const char *coactivation;    /* --coactivation TRACE */
	int64_t groups;              /* --groups; 0: none (hierarchical: as many as hosts) */
	double move_cost;            /* --move-cost, in tokens of load */
};
bool place_is_asked(const struct place_args *a); /* by any of the options */
/* What is missing or does not go together, in words; NULL: fine. */
const char *place_conflict(const struct place_args *a);

/* A placement and what it was made from: kept open for the report. */
struct placed {
	struct moe_placement placement, before;
	struct moe_usage usage;
	struct moe_coactivation *together;
	struct moe_place_problem problem;
	bool has_usage, has_before;
};
/* Subject and site must outlive it.  place_close is due after success. */
int place_experts(const struct place_args *a, struct subject *s, const struct site *site, struct placed *out, struct moe_err *e);
/* All experts on the one device there is, whose memories the search divides; the files are read all the same. */
int place_on_one(const struct place_args *a, struct subject *s, struct placed *out, struct moe_err *e);
void place_close(struct placed *p);
/* For people: the balance of each layer, the worst and the mean, and how many experts move. */
int place_report(const struct placed *p, struct moe_buf *out, struct moe_err *e);

#endif
