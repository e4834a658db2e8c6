/* What the files of moe-policy share. */
#ifndef MOE_POLICY_TOOL_H
#define MOE_POLICY_TOOL_H

#include "base/opts.h"
#include "shard/shard.h"

#define POLICY_CAP ((size_t)256 << 20) /* bytes of a policy file */

/* The command line. */
struct options {
	const char *model, *hardware, *workload;
	struct moe_strings set;
	double prompt, prompt_max, generate, max_step;
	bool padded;
	const char *variant, *objective, *schedule, *attention_on, *ffn_on, *quant, *kv;
	int64_t batch, micro_batch;
	int64_t devices;
	const char *export, *simulate, *timeline, *plot;
	int64_t steps;
	bool prefill;
	bool list, compare, no_cache, explain;
};

/* What is planned for: a model, and what each of its experts weighs. */
struct subject {
	struct moe_model model;
	struct moe_source *source; /* with weights; NULL: only the shape is known */
	struct moe_quants quants;  /* asked for, else what the weights are in; MOE_Q_KEEP: bf16 */
	bool requantised;          /* they were asked for: experts' bytes follow from that */
	bool any_quant;            /* --quant auto */
};
/* A folder with weights, a folder with a config.json alone, or the name of a known model. */
int subject_open(const struct options *o, struct subject *s, struct moe_err *e);
void subject_close(struct subject *s);
uint64_t subject_expert_bytes(void *ctx, int layer, int expert);

/* The devices to plan for, and the machines they are in. */
struct site {
	struct moe_device *devices;
	int n;
	struct moe_json *json;     /* hardware as it was read; NULL where it has a name or was changed */
	struct moe_fleet fleet;    /* no hosts: nothing is known of their speed */
};
int site_open(const struct options *o, struct site *s, struct moe_err *e);
void site_close(struct site *s);
/* This machine's profile: measured now, or earlier and kept. */
int automatic_profile(struct moe_json **out, struct moe_err *e);

/* How a batch is run, and what is expected of it. */
struct solution {
	struct moe_setting setting;
	struct moe_execution execution;
	struct moe_prediction prediction;
	struct moe_search how;       /* what was asked of the search, and what it said */
	struct moe_found found;
};
/* The best policy of the host where moe-route runs, experts where they were placed. */
struct placed;
int solve(const struct options *o, struct subject *s, const struct site *site, const struct placed *placed, struct solution *out,
          struct moe_err *e);
int read_workload(const struct options *o, struct moe_workload *out, struct moe_err *e);

/* A policy file; what is none is refused. */
int read_policy(const char *path, struct moe_json **out, struct moe_err *e);

/* The other things that moe-policy does, on stdout. */
void print_names(void);
/* The schedule played: a table of its lanes, and files that were asked for. */
int print_simulation(const struct options *o, const struct solution *s, struct moe_err *e);
/* The roofline with the policy's operations, into the file of --plot. */
int write_plot(const struct options *o, const struct solution *s, struct moe_err *e);
/* The policy as a page for people: what binds, the roofs, memory, what would help. */
int print_explanation(const struct options *o, const struct solution *s, struct moe_err *e);
int print_comparison(const char *a, const char *b, struct moe_err *e);
int print_export(const struct options *o, const struct subject *s, const struct site *site, const struct moe_placement *p,
                 struct moe_err *e);

#endif
