/* What the files of the search share: no public header. */
#ifndef MOE_PLAN_SEARCH_H
#define MOE_PLAN_SEARCH_H

#include "plan/plan.h"

/* ---- lp.c ---- */

/* A program without whole numbers and without costs below 0.  False: there is no x. */
bool plan_lp(const struct moe_lp *p, double *x);

#define PLAN_KINDS 48
#define PLAN_EQUAL 1e-9 /* relative: no difference */

/* ---- shares.c ---- */

/* What is settled before batches are tried: who computes, in which order, and on which levels weights and KV cache may lie,
 * fastest first. */
struct plan_kind {
	enum moe_schedule schedule;
	int attention_on, ffn_on;
	int weights[MOE_MAX_LEVELS], kv[MOE_MAX_LEVELS];
	int n_weights, n_kv;
};
/* A search that is under way. */
struct plan_search {
	struct moe_setting setting;  /* with the quants that are tried now */
	const struct moe_search *how;
	int64_t tried;
	struct moe_found best;
	struct plan_kind kind;       /* of best */
	double score;                /* of best; -infinity: nothing yet */
	double floor;                /* what cannot score more need not be looked at */
	bool whole;                  /* shares of weights are whole experts, by how->solve */
};
/* What is made as large as possible: tokens a second, or one over the seconds of a step; -infinity: does not fit, or the
 * step takes longer than allowed. */
double plan_score(const struct moe_search *how, const struct moe_prediction *p);
/* Find the best shares for an execution that is complete but for them: x and p are filled.  The score; -infinity: no
 * shares fit. */
double plan_shares(struct plan_search *q, const struct plan_kind *k, struct moe_execution *x, struct moe_prediction *p);

/* ---- search_sizes.c ---- */

/* The best of a kind so far, and the sizes under trial. */
struct plan_top {
	struct plan_search *q;
	struct plan_kind kind;
	struct moe_quants quants;
	double score;
	int64_t batch, micro_batches, prefill; /* at the top */
	int64_t trial_micro_batches, trial_prefill;
	bool wide, fine;             /* all values, not only those around the top; to the last step */
};
/* Over all sizes, coarsely. */
void plan_sizes_wide(struct plan_top *t);
/* Again around the top, other micro-batches in prefill among them, until nothing is better. */
void plan_sizes_refine(struct plan_top *t, bool fine);
/* The best policy once more with whole experts: other batches near its own. */
void plan_sizes_whole(struct plan_search *q);

/* ---- search.c ---- */

/* All kinds that the model accepts and q->how allows, at most PLAN_KINDS; 0: none, e says why the last was refused. */
int plan_kinds(const struct plan_search *q, struct plan_kind *out, struct moe_err *e);
/* Tokens a second (MOE_LEAST_LATENCY: steps a second) of the best policy of found's kind, from its sizes on. */
double plan_search_near(const struct moe_setting *s, const struct moe_search *how, const struct moe_found *found);

/* ---- search_fail.c ---- */

/* Why nothing was found, and what would help: MOE_E_RANGE. */
int plan_search_fail(const struct moe_setting *s, const struct moe_search *how, struct moe_err *e);

#endif
