/* --replay: caches of experts over a trace. */
#include "replay.h"

#include <stdio.h>
#include <string.h>

#define MAX_SLOTS 16384
#define MANY 32   /* numbers of slots at once */
#define GRACE 16  /* tokens, unless told */

static bool is_all(const struct replay_args *a)
{
	return !a->cache || strcmp(a->cache, "all") == 0;
}

bool replay_is_asked(const struct replay_args *a)
{
	return a->trace || a->slots || a->cache || a->grace >= 0 || a->shared || a->prompts;
}

const char *replay_conflict(const struct replay_args *a)
{
	enum moe_cache cache;
	int64_t slots[MANY];

	if (!a->trace)
		return "--slots, --cache, --grace, --shared and --prompts belong to --replay";
	if (a->slots && moe_parse_int_list(a->slots, 1, MAX_SLOTS, slots, MANY) < 1)
		return "--slots is a list of numbers of experts, such as 2,4,8";
	if (!is_all(a) && !moe_cache_named(a->cache, &cache))
		return "--cache is one of lru, frequency, grace, all";
	return NULL;
}

/* An eighth, a quarter and half of the experts, unless told. */
static int list_slots(const struct replay_args *a, const struct moe_model *m, int64_t *slots, struct moe_err *e)
{
	struct moe_trace *t;
	int n = 0, rc;

	if (a->slots)
		return moe_parse_int_list(a->slots, 1, MAX_SLOTS, slots, MANY);
	rc = moe_trace_open(a->trace, m, &t, e);
	if (rc)
		return -rc;
	for (int part = 8; part > 1; part /= 2)
		if (moe_trace_header(t)->experts / part > 0)
			slots[n++] = moe_trace_header(t)->experts / part;
	if (n == 0)
		slots[n++] = 1;
	moe_trace_close(t);
	return n;
}

static void print_size(double bytes)
{
	char text[32];

	printf("  %12s", moe_size_text(bytes, text));
}

/* Hits of each layer, and what the misses of a token move. */
static int print_layers(const struct replay_args *a, const struct moe_replay *how, struct subject *s, struct moe_err *e)
{
	struct moe_replay_result r;
	int rc = moe_cache_replay(a->trace, s ? &s->model : NULL, how, s ? subject_expert_bytes : NULL, s, &r, e);

	if (rc)
		return rc;
	printf("%d slots, %s, from the first token on:\n%-8s %8s\n", how->slots, moe_cache_name(how->policy), "layer", "hits");
	for (int l = 0; l < r.layers; l++)
		if (r.accesses[l] > 0)
			printf("%-8d %8.4f\n", l, r.hits[l] / r.accesses[l]);
	if (r.all_accesses > 0)
		printf("%-8s %8.4f\n", "all", r.all_hits / r.all_accesses);
	if (s && r.tokens > 0) {
		printf("moved for a token");
		print_size(r.bytes / r.tokens);
		printf("\n");
	}
	moe_replay_result_free(&r);
	return 0;
}

static int print_verdict(const struct replay_args *a, const struct moe_replay *how, const struct moe_model *m, struct moe_err *e)
{
	struct moe_verdict v;
	int rc = moe_cache_verdict(a->trace, m, how, &v, e);

	if (rc)
		return rc;
	printf("%-8d %8.4f %8.4f %8.4f %10.4f %8.4f  %s", how->slots, v.uniform, v.fixed, v.cache[MOE_CACHE_LRU],
	       v.cache[MOE_CACHE_FREQUENCY], v.cache[MOE_CACHE_GRACE], moe_advice_name(v.advice));
	if (v.advice == MOE_ADVISE_CACHE)
		printf(" (%s)", moe_cache_name(v.best));
	printf("\n");
	return 0;
}

int print_replay(const struct replay_args *a, struct subject *s, struct moe_err *e)
{
	struct moe_replay how = {.grace = a->grace < 0 ? GRACE : (int)a->grace, .global = a->shared, .prefill = a->prompts};
	const struct moe_model *m = s ? &s->model : NULL;
	int64_t slots[MANY];
	int n = list_slots(a, m, slots, e), rc = n < 0 ? -n : 0;

	if (rc == 0)
		printf("%-8s %8s %8s %8s %10s %8s  %s\n", "slots", "uniform", "static", "lru", "frequency", "grace", "verdict");
	for (int i = 0; i < n && rc == 0; i++) {
		how.slots = (int)slots[i];
		rc = print_verdict(a, &how, m, e);
	}
	for (int i = 0; i < n && rc == 0 && !is_all(a); i++) {
		how.slots = (int)slots[i];
		moe_cache_named(a->cache, &how.policy);
		rc = print_layers(a, &how, s, e);
	}
	return rc;
}
